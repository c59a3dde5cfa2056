//go:build linux

package boot_test

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/client"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/posture"
	"github.com/BitBoxSwiss/bitbox-base/test/stage"
)

// callTime bounds what an App does, on a machine that has much else to do.
const callTime = 2 * time.Minute

func unique(list []string) []string {
	slices.Sort(list)
	return slices.Compact(list)
}

// pair pairs an App with the Base; somebody at the Base types what is to be typed.
func pair(t *testing.T, s *stage.Stage, from *stage.Attacker) *client.App {
	t.Helper()
	app, _ := s.Pair(t, from.Way(t, entry(s)), "phone", "owner")
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

// entry is the one port of a Base.
func entry(s *stage.Stage) netip.AddrPort { return netip.AddrPortFrom(s.V4, posture.EntryPort) }
