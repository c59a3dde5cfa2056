//go:build linux

package e2e_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/client"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/posture"
	"github.com/BitBoxSwiss/bitbox-base/test/stage"
)

// oldWorkers are the processes of NGINX that only wait for their connections to end.
func (b *base) oldWorkers() []string {
	// The brackets keep this command out.
	out, _ := b.Exec("sh", "-c", "grep -al 'is shutting [d]own' /proc/[0-9]*/cmdline") // fails if there is none
	return strings.Fields(out)
}

// moveTime is how long Apps may take to move after a reload: 10 s until they are asked, a
// minute if they have moved a moment ago, and a while until the old connection is closed. It
// is less than NGINX waits for those who do not move (10 minutes).
const moveTime = 4 * time.Minute

// leaves waits until n old workers are left.
func (b *base) leaves(n int) {
	b.t.Helper()
	begun := time.Now()
	for ; ; time.Sleep(100 * time.Millisecond) {
		workers := b.oldWorkers()
		if len(workers) == n {
			break
		}
		if time.Since(begun) > moveTime {
			b.t.Fatalf("after %v these old workers of NGINX are there: %q", moveTime, workers)
		}
	}
	b.t.Logf("after %v %d old workers of NGINX were left", time.Since(begun).Round(time.Second), n)
}

// Each reload of NGINX leaves its old workers to the connections that they have. The Middleware
// asks Apps to move, and their events go on. A connection that does not move, like a
// stream that a program reads by itself, holds its worker.
func TestAppsLeaveTheOldWorkersOfNGINX(t *testing.T) {
	t.Parallel()
	b := bootAppliance(t)
	b.electrum()
	owner := b.app(b.Attacker(2), "phone", "owner")
	guest := b.app(b.Attacker(3), "tablet", "viewer")
	stubborn := b.app(b.Attacker(4), "old tablet", "viewer")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var sequences []uint64
	live, watched := make(chan struct{}), make(chan error, 1)
	const last = "the last event"
	go func() {
		for event, err := range guest.WatchEvents(ctx, client.Watch{Lost: func(err error) { t.Errorf("lost: %v", err) }}) {
			switch {
			case err != nil:
				watched <- err
				return
			case event.GetSubscribed() != nil:
				close(live) // once
			case event.GetSequence() != 0:
				sequences = append(sequences, event.GetSequence())
			}
			if event.GetAppRenamed().GetApp().GetName() == last {
				watched <- nil
				return
			}
		}
		watched <- errors.New("the stream has ended")
	}()
	select {
	case <-live:
	case err := <-watched:
		t.Fatal(client.Explain(err))
	}
	unmoved := b.watch(stubborn)
	if workers := b.oldWorkers(); len(workers) != 0 {
		t.Fatalf("before any reload: %q", workers)
	}
	for range 2 {
		b.apply(owner, "expose it", client.Expose(string(posture.KindElectrum), client.Opening{For: time.Hour}))
		b.endLease(owner, posture.KindElectrum)
	}
	b.Until("a reload leaves an old worker, or this shows nothing", func() error {
		if len(b.oldWorkers()) == 0 {
			return errors.New("there is none")
		}
		return nil
	})
	b.leaves(1)
	b.goesOn("the stream of the App that does not move", unmoved)
	b.works(guest.Session, "after its move")
	rename := &basev1.RenameAppRequest{Id: guest.id, Name: last}
	if _, err := owner.Apps.RenameApp(ctx, rename); err != nil {
		t.Fatal(client.Explain(err))
	}
	select {
	case err := <-watched:
		if err != nil {
			t.Fatal(client.Explain(err))
		}
	case <-time.After(stage.Patience):
		t.Fatal("the guest does not hear of the last event")
	}
	for i := 1; i < len(sequences); i++ {
		if sequences[i] != sequences[i-1]+1 {
			t.Errorf("the sequences of the guest's events are %v", sequences)
			break
		}
	}
	if len(sequences) == 0 {
		t.Error("the guest heard of nothing")
	}
	// The stream that did not move holds the last one.
	stubborn.Close()
	b.leaves(0)
	if failed := b.Journal("bitbox-base-nginx.service"); strings.Contains(failed, "[alert]") {
		t.Errorf("NGINX complains:\n%s", failed)
	}
}
