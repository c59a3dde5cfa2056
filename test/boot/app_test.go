//go:build linux

package boot_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/client"
	"github.com/BitBoxSwiss/bitbox-base/internal/posture"
	"github.com/BitBoxSwiss/bitbox-base/test/stage"
)

// callTime bounds what an App does, on a machine that has much else to do.
const callTime = 2 * time.Minute

func unique(list []string) []string {
	slices.Sort(list)
	return slices.Compact(list)
}

// way returns an address on this host that leads to the Base's entry from an
// attacker's machine, for an App that runs here.
func way(t *testing.T, s *stage.Stage, from *stage.Attacker) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			near, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer near.Close()
				far, err := from.Dial("tcp", netip.AddrPortFrom(s.V4, posture.EntryPort))
				if err != nil {
					return
				}
				defer far.Close()
				go func() {
					defer near.Close()
					_, _ = io.Copy(near, far)
				}()
				_, _ = io.Copy(far, near)
			}()
		}
	}()
	return listener.Addr().String()
}

// pair pairs an App with the Base; somebody at the Base types what is to be typed.
func pair(t *testing.T, s *stage.Stage, from *stage.Attacker) *client.App {
	t.Helper()
	app, err := client.New(client.Options{Dir: t.TempDir(), Name: "phone", NoDiscovery: true})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), callTime)
	defer cancel()
	s.MustExec("bitbox-base", "pairing", "open")
	paired, err := app.Pair(ctx, []string{way(t, s, from)}, client.PairOptions{
		Requested: func(number string) {
			go func() {
				for ctx.Err() == nil { // the request is not there at once
					if _, err := s.Exec("bitbox-base", "pairing", "accept", number, "--role", "owner"); err == nil {
						return
					}
				}
			}()
		},
		Confirm: func(_ context.Context, code client.Code) (bool, error) {
			out, err := s.Exec("bitbox-base", "pairing", "confirm", code.Digits)
			if err != nil {
				err = fmt.Errorf("%w: %s", err, out)
			}
			return err == nil, err
		},
	})
	if err != nil || paired.State != client.Active {
		t.Fatalf("pair: it is %q: %s", paired.State, client.Explain(err))
	}
	return app
}

// call opens a new session, asks the Base who it is and what its posture is, and hands
// the session on.
func call(t *testing.T, app *client.App, use func(context.Context, *client.Session) error) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), callTime)
	defer cancel()
	session, err := app.Open("")
	if err != nil {
		return err
	}
	defer session.Close()
	if _, err := session.Info.GetInfo(ctx, &basev1.GetInfoRequest{}); err != nil {
		return fmt.Errorf("%s", client.Explain(err))
	}
	if use == nil {
		return nil
	}
	return use(ctx, session)
}

// answers waits until the Base answers the App, over a new connection.
func answers(t *testing.T, s *stage.Stage, app *client.App, when string) {
	t.Helper()
	stage.Until(t, "the Base answers its App "+when, func() error { return call(t, app, nil) })
}
