package api

import (
	"context"
	"testing"
	"time"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/api/base/v1/baserpc"
	"github.com/BitBoxSwiss/bitbox-base/internal/boottime"
	"github.com/BitBoxSwiss/bitbox-base/internal/middleware/registry/registrytest"
)

// Sessions from before the entry was reloaded are asked, once for each reload, and no others.
func TestAReloadOfTheEntryAsksTheSessionsFromBefore(t *testing.T) {
	h := registrytest.New(t, nil)
	l := serve(t, h, nil)
	l.redials.wait = 0
	paused := 0
	l.redials.pause = func() time.Duration { paused++; return 0 }
	asked := make(chan string, 10)
	session := func(name string) {
		t.Helper()
		client := l.client(h.Active(name, viewer))
		if _, err := baserpc.NewAppsServiceClient(client).ListApps(t.Context(), &basev1.ListAppsRequest{}); err != nil {
			t.Fatal(err)
		}
		client.session.OnRedial(func() { asked <- name })
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); l.KeepRedialling(ctx) }()

	l.EntryReloaded(0) // it never was
	session("old")
	reload := boottime.Clock()
	session("new")
	l.EntryReloaded(reload)
	if name := <-asked; name != "old" {
		t.Errorf("the session %q was asked", name)
	}
	// Each message of the helper's says when the entry was last reloaded.
	l.EntryReloaded(reload)
	l.EntryReloaded(boottime.Clock())
	if name := <-asked; name != "new" {
		t.Errorf("after another reload the session %q was asked", name)
	}
	cancel()
	<-done
	if paused != 2 || len(asked) != 0 {
		t.Errorf("%d pauses, %d sessions were asked too often", paused, len(asked))
	}
}
