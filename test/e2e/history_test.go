//go:build linux

package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/client"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/bruteforce"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/generation"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/posture"
)

// past returns the events that the Base keeps after a sequence.
func (b *base) past(session *client.Session, after uint64) (events []*basev1.Event, last uint64, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), callTime)
	defer cancel()
	for event, err := range session.WatchEvents(ctx, client.Watch{Replay: true, After: after, PastOnly: true}) {
		if err != nil {
			return nil, 0, err
		}
		if now := event.GetSubscribed(); now != nil {
			return events, now.GetLastSequence(), nil
		}
		events = append(events, event)
	}
	return nil, 0, errors.New("the events did not end")
}

// knock asks to be paired, until the Base has told of it to somebody; nobody lets it in.
func (b *base) knock(t *testing.T, from int, told func() error) {
	t.Helper()
	stranger, err := client.New(client.Options{Dir: t.TempDir(), Name: "stranger", NoDiscovery: true})
	if err != nil {
		t.Fatal(err)
	}
	way := b.Attacker(from).Way(t, b.entry())
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		_, err := stranger.Pair(ctx, []string{way.Address}, client.PairOptions{
			Confirm: func(context.Context, client.Code) (bool, error) { return false, nil },
		})
		ended <- err
	}()
	b.Until("the Base tells of a stranger", told)
	cancel()
	if err := <-ended; err == nil {
		t.Error("a stranger is let in")
	}
}

// attempted tells of a stranger who asked to be paired while nobody wanted that.
func attempted(e *basev1.Event) bool { return e.GetPairingAttempt().GetIgnored() }

// loosened tells of a packet filter that is not as it should be.
func loosened(e *basev1.Event) bool {
	return slices.ContainsFunc(e.GetDriftFound().GetFindings(),
		func(f *basev1.Finding) bool { return strings.Contains(f.GetId(), "firewall") })
}

func TestAnAppThatWasAwayLearnsWhatHappenedAtALiveBaseAndWhoDidIt(t *testing.T) {
	t.Parallel()
	b := bootAppliance(t)
	owner := b.app(b.Attacker(2), "phone", "owner")
	operator := b.app(b.Attacker(3), "tablet", "operator")
	b.apply(owner, "expose an API", client.Expose(string(posture.KindElectrum), client.Opening{For: time.Hour}))
	b.endLease(owner, posture.KindElectrum)
	_, seen, err := b.past(owner.Session, 0)
	if err != nil {
		t.Fatal(client.Explain(err))
	}
	if _, err := owner.Changes(t.Context()); err != nil {
		t.Fatal(client.Explain(err))
	}

	// In the middle of changes, helper and Middleware are killed. A call that was cut may
	// fail, or be made again by the session.
	answered, killed := 0, make(chan error)
	for n, killing := 0, false; ; n++ {
		ctx, cancel := context.WithTimeout(t.Context(), callTime)
		_, err := owner.Apps.RenameApp(ctx, &basev1.RenameAppRequest{Id: operator.id, Name: fmt.Sprintf("tablet %d", n)})
		cancel()
		if err == nil {
			answered++
		} else if !killing {
			t.Fatal(client.Explain(err))
		}
		if !killing && answered == 5 {
			killing = true
			go func() {
				_, err := b.Exec("systemctl", "kill", "--signal=KILL", helperUnit, generation.MiddlewareUnit)
				killed <- err
			}()
		}
		select {
		case err := <-killed:
			if err != nil {
				t.Fatal(err)
			}
		default:
			continue
		}
		break
	}
	b.WaitActive(helperUnit)
	b.WaitActive(generation.MiddlewareUnit)
	b.waits(b.open(operator.app), "after the kill")
	t.Logf("%d changes were answered before the kill", answered)
	owner.Close() // the owner goes away

	t.Run("a ban", func(t *testing.T) {
		b.t = t
		attacker := b.Attacker(11)
		want := bruteforce.JailHandshake + " " + attacker.V4.String()
		b.Until("who sends garbage is banned", func() error {
			for range posture.Factory().Bans.MaxTries {
				_ = b.garbage(attacker) // once it is banned it cannot
			}
			if all, err := b.banned(operator); err != nil || !slices.Contains(all, want) {
				return fmt.Errorf("the bans are %q, %w", all, err)
			}
			return nil
		})
	})
	t.Run("a drift", func(t *testing.T) {
		b.t = t
		// A helper that has just been started puts the packet filter in force, and an audit
		// meanwhile finds no drift.
		b.Until("an audit finds what was loosened", func() error {
			rule := []string{"INPUT", "-p", "tcp", "--dport", "4444", "-j", "ACCEPT"}
			if _, err := b.Exec(append([]string{"iptables", "-C"}, rule...)...); err != nil {
				b.MustExec(append([]string{"iptables", "-I"}, rule...)...)
			}
			ctx, cancel := context.WithTimeout(t.Context(), callTime)
			defer cancel()
			if _, err := operator.Audit.RunAudit(ctx, &basev1.RunAuditRequest{}); err != nil {
				return err
			}
			events, _, err := b.past(operator.Session, seen)
			if err == nil && !slices.ContainsFunc(events, loosened) {
				err = errors.New("there is no such event")
			}
			return err
		})
	})
	b.t = t
	b.knock(t, 12, func() error {
		events, _, err := b.past(operator.Session, seen)
		if err == nil && !slices.ContainsFunc(events, attempted) {
			err = errors.New("there is no such event")
		}
		return err
	})

	back := b.open(owner.app)
	is := map[string]func(*basev1.Event) bool{
		"the ban":                func(e *basev1.Event) bool { return len(e.GetBansChanged().GetBanned()) > 0 },
		"the drift":              loosened,
		"the pairing attempt":    attempted,
		"the start after a kill": func(e *basev1.Event) bool { return e.GetBaseStarted().GetCutOff() },
	}
	b.Until("all that happened is told to the owner who is back", func() error {
		events, _, err := b.past(back, seen)
		if err != nil {
			return err
		}
		for name, is := range is {
			if !slices.ContainsFunc(events, is) {
				return fmt.Errorf("%s is not among %v", name, events)
			}
		}
		for i := 1; i < len(events); i++ {
			if events[i].GetSequence() <= events[i-1].GetSequence() {
				return fmt.Errorf("%v comes after %v", events[i], events[i-1])
			}
		}
		return nil
	})

	view, err := back.Changes(t.Context())
	if err != nil {
		t.Fatal(client.Explain(err))
	}
	renamed, by := 0, map[string]bool{}
	for _, e := range view.Entries {
		if e.GetWhat() == "rename-app" && e.GetFailure() == "" && e.GetAppName() == "phone" {
			renamed++
		}
		if e.GetActor() == systemv1.ChangeEntry_ACTOR_OWNER && e.GetAppName() == "phone" && e.GetFailure() == "" {
			by[e.GetWhat()] = true
		}
	}
	// Entries without a place are counted in sum (internal/protocol/changelog).
	if renamed < min(answered, 40) || !by["posture"] || !by["posture-confirm"] {
		t.Errorf("of %d answered changes %d are in the log; signed ones: %v", answered, renamed, by)
	}
}
