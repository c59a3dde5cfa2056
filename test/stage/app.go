//go:build linux

package stage

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"github.com/BitBoxSwiss/bitbox-base/client"
)

// Way is an address in this process's network that leads to a port of the Base from
// another machine, for an App that runs here.
type Way struct {
	Address string
	// Shut lets no new connection through.
	Shut atomic.Bool
}

// Way returns a way from the attacker's machine. It ends with the test.
func (a *Attacker) Way(t *testing.T, to netip.AddrPort) *Way {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	w := &Way{Address: listener.Addr().String()}
	go func() {
		for {
			near, err := listener.Accept()
			if err != nil {
				return
			}
			if w.Shut.Load() {
				_ = near.Close()
				continue
			}
			go a.pass(near, to)
		}
	}()
	return w
}

// pass ends both connections when one has ended.
func (a *Attacker) pass(near net.Conn, to netip.AddrPort) {
	defer near.Close()
	far, err := a.Dial("tcp", to)
	if err != nil {
		return
	}
	defer far.Close()
	go func() {
		defer near.Close()
		_, _ = io.Copy(near, far)
	}()
	_, _ = io.Copy(far, near)
}

// pairTime bounds a pairing, on a machine that has much else to do.
const pairTime = 2 * time.Minute

// Pair pairs an App with the Base. Somebody stands at it and types what is to be typed.
func (s *Stage) Pair(t *testing.T, way *Way, name, role string) (*client.App, client.Base) {
	t.Helper()
	return s.PairIn(t, t.TempDir(), way, name, role)
}

// PairIn is Pair of an App with a folder, in which its program finds the pairing.
func (s *Stage) PairIn(t *testing.T, dir string, way *Way, name, role string) (*client.App, client.Base) {
	t.Helper()
	app, err := client.New(client.Options{Dir: dir, Name: name, NoDiscovery: true})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), pairTime)
	defer cancel()
	s.MustExec("bitbox-base", "pairing", "open")
	paired, err := app.Pair(ctx, []string{way.Address}, client.PairOptions{
		Requested: func(number string) {
			go func() {
				for ctx.Err() == nil { // the request is not there at once
					if _, err := s.Exec("bitbox-base", "pairing", "accept", number, "--role", role); err == nil {
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
		t.Fatalf("pair %s: it is %q: %s", name, paired.State, client.Explain(err))
	}
	return app, paired
}
