package system

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"testing"
	"time"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/bruteforce"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/caller"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/drift"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/generation"
	"github.com/BitBoxSwiss/bitbox-base/internal/helperclient"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/posture"
	"github.com/BitBoxSwiss/bitbox-base/internal/testbed/machinetest"
)

// watcher collects the events of a watch.
func (b *base) watcher() chan *systemv1.SystemEvent {
	b.t.Helper()
	events := make(chan *systemv1.SystemEvent, 100)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = b.as(caller.Middleware).Each(ctx, &systemv1.SystemRequest{Verb: &systemv1.SystemRequest_WatchSystem{
			WatchSystem: &systemv1.WatchSystem{}}},
			func(reply *systemv1.SystemReply) error {
				events <- reply.GetEvent()
				return nil
			})
	}()
	b.t.Cleanup(func() {
		cancel()
		<-done
	})
	if first := <-events; first.GetEvent() != nil {
		b.t.Fatalf("the first event is %v", first)
	}
	return events
}

// next waits for an event that fits.
func next(t *testing.T, events chan *systemv1.SystemEvent, fits func(*systemv1.SystemEvent) bool) *systemv1.SystemEvent {
	t.Helper()
	for deadline := time.After(patience); ; {
		select {
		case event := <-events:
			if fits(event) {
				return event
			}
		case <-deadline:
			t.Fatal("no such event came")
		}
	}
}

func TestWatchersHearOfEachChange(t *testing.T) {
	b := newBase(t)
	b.start()
	a := b.pair(b.as(caller.Middleware), "phone", owner)
	b.settled()
	events := b.watcher()
	a.mustSubmit(open)
	next(t, events, func(e *systemv1.SystemEvent) bool {
		return e.GetEvent().GetPostureChanged() != nil && e.GetRevision() == 2 && e.GetPhase() == systemv1.PostureReport_PHASE_SETTLED
	})
	if err := b.restrict(caller.Console, lockdown()); err != nil {
		t.Fatal(err)
	}
	next(t, events, func(e *systemv1.SystemEvent) bool {
		return e.GetEvent().GetPostureChanged() != nil && e.GetRestrictionNumber() == 1
	})
	b.world.Fail("verify", errPlayed)
	go func() { _ = b.helper.Reapply(t.Context()) }()
	next(t, events, func(e *systemv1.SystemEvent) bool { return e.GetEvent().GetApplyFailed() != nil })
	b.world.Fail("verify", nil)
	b.settled()
}

// A caller that waits for an audit or for fail2ban, and hangs up, leaves nothing behind that
// would hold a connection of the helper.
func TestARequestWhoseSenderHungUpDoesNotWaitForItsTurn(t *testing.T) {
	b := newBase(t)
	b.start()
	b.settled()
	for name, c := range map[string]struct {
		held    *machinetest.Hold
		request *systemv1.SystemRequest
	}{
		"audit": {&b.world.HeldAudit, &systemv1.SystemRequest{Verb: &systemv1.SystemRequest_RunAudit{RunAudit: &systemv1.RunAudit{}}}},
		"bans":  {&b.world.HeldBans, &systemv1.SystemRequest{Verb: &systemv1.SystemRequest_ListBans{ListBans: &systemv1.ListBans{}}}},
	} {
		entered, release := c.held.Hold()
		ask := func(ctx context.Context, who caller.Who) <-chan error {
			ended := make(chan error, 1)
			go func() {
				_, err := b.as(who).Do(ctx, c.request, nil)
				ended <- err
			}()
			return ended
		}
		first := ask(t.Context(), caller.Root) // it takes long
		<-entered
		ctx, hangUp := context.WithCancel(t.Context())
		ended := ask(ctx, caller.Middleware)
		select {
		case err := <-ended:
			t.Errorf("%s: did not wait for its turn: %v", name, err)
		case <-time.After(20 * time.Millisecond):
		}
		hangUp()
		select {
		case <-ended:
		case <-time.After(30 * time.Second):
			t.Errorf("%s: a request whose sender hung up waits on", name)
		}
		release()
		if err := <-first; err != nil {
			t.Errorf("%s: the first: %v", name, err)
		}
	}
}

func TestDriftRaisesAnEventOnceAndCanBeFixed(t *testing.T) {
	b := newBase(t)
	b.start()
	b.settled()
	events := b.watcher()
	look := func() int {
		t.Helper()
		b.advance(drift.Rest)
		reply, err := b.as(caller.Middleware).Do(t.Context(),
			&systemv1.SystemRequest{Verb: &systemv1.SystemRequest_RunAudit{RunAudit: &systemv1.RunAudit{}}}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if built := reply.GetAudit().GetBuiltWith(); built != runtime.Version() {
			t.Errorf("the audit says that %q built the helper, which %s did", built, runtime.Version())
		}
		return len(reply.GetAudit().GetFindings())
	}
	if look() != 0 {
		t.Fatal("something was found")
	}
	b.world.Drift(&basev1.Finding{Id: "port", Severity: basev1.Finding_SEVERITY_CRITICAL, Found: "tcp 4444"})
	for range 2 {
		if look() != 1 {
			t.Fatal("the finding is missing")
		}
	}
	next(t, events, func(e *systemv1.SystemEvent) bool { return e.GetEvent().GetDriftFound() != nil && e.GetFindings() == 1 })
	fix := func(id string) error {
		_, err := b.as(caller.Middleware).Do(t.Context(),
			&systemv1.SystemRequest{Verb: &systemv1.SystemRequest_FixFinding{FixFinding: &systemv1.FixFinding{Id: id}}}, nil)
		return err
	}
	if err := fix("something else"); !errors.Is(err, &helperclient.Error{Code: helperclient.CodeNothing}) {
		t.Errorf("fix something else: %v", err)
	}
	if err := fix("port"); err != nil || look() != 0 {
		t.Errorf("fix: %v", err)
	}
	select {
	case event := <-events:
		t.Errorf("a second event for the same: %v", event)
	default:
	}
}

func TestBansAreListedAndTold(t *testing.T) {
	b := newBase(t)
	b.start()
	b.settled()
	events := b.watcher()
	b.world.Ban(bruteforce.Ban{Jail: bruteforce.JailHandshake, Addr: netip.MustParseAddr("2001:db8::1"), Since: time.Unix(10, 0),
		Until: time.Unix(20, 0)})
	reply, err := b.as(caller.Middleware).Do(t.Context(),
		&systemv1.SystemRequest{Verb: &systemv1.SystemRequest_ListBans{ListBans: &systemv1.ListBans{}}}, nil)
	if err != nil || len(reply.GetBans().GetBans()) != 1 || reply.GetBans().GetBans()[0].GetUntil().GetSeconds() != 20 {
		t.Fatalf("list bans = %v, %v", reply, err)
	}
	event := next(t, events, func(e *systemv1.SystemEvent) bool { return e.GetEvent().GetBansChanged() != nil })
	if event.GetBans() != 1 || event.GetEvent().GetBansChanged().GetBanned()[0].GetAddress() != "2001:db8::1" {
		t.Errorf("the event is %v", event)
	}
}

// The Middleware says what it alone knows; name and port are not its to say.
func TestAnAnnouncementIsOfThisBaseOnly(t *testing.T) {
	b := newBase(t)
	b.start()
	a := b.pair(b.as(caller.Middleware), "phone", owner)
	announce := func(m *systemv1.Announce) error {
		_, err := b.as(caller.Middleware).Do(t.Context(), &systemv1.SystemRequest{Verb: &systemv1.SystemRequest_Announce{Announce: m}}, nil)
		return err
	}
	for name, m := range map[string]*systemv1.Announce{
		"empty":       {},
		"short nonce": {Version: 1, Nonce: make([]byte, 15), Id: make([]byte, 8)},
		"long id":     {Version: 1, Nonce: make([]byte, 16), Id: make([]byte, 9)},
		"version":     {Version: 256, Nonce: make([]byte, 16), Id: make([]byte, 8)},
	} {
		if err := announce(m); !errors.Is(err, &helperclient.Error{Code: helperclient.CodeMalformed}) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := announce(&systemv1.Announce{Version: 1, Nonce: make([]byte, 16), Id: make([]byte, 8)}); err != nil {
		t.Fatal(err)
	}
	until(t, "the first name is told", func() error {
		if len(b.world.Told()) != 1 {
			return fmt.Errorf("told %+v", b.world.Told())
		}
		return nil
	})
	a.mustSubmit(func(p *posture.Posture, _ uint64) { p.NodeName = "Cellar" })
	until(t, "the new name is told", func() error {
		if told := b.world.Told(); len(told) != 2 || told[0].Name != posture.Factory().NodeName || told[1].Name != "Cellar" ||
			told[1].Port != posture.EntryPort {
			return fmt.Errorf("told %+v", told)
		}
		return nil
	})
}

// The attack: a Middleware that was taken over has Avahi told again and again, which hangs.
func TestClosingDoesNotWaitForAnAnnouncement(t *testing.T) {
	b := newBase(t)
	hanging, goOn := make(chan struct{}), make(chan struct{})
	b.config.Network = hangingAnnouncer{hanging, goOn}
	b.start()
	announce := &systemv1.Announce{Version: 1, Nonce: make([]byte, 16), Id: make([]byte, 8)}
	request := &systemv1.SystemRequest{Verb: &systemv1.SystemRequest_Announce{Announce: announce}}
	if _, err := b.as(caller.Middleware).Do(t.Context(), request, nil); err != nil {
		t.Fatal(err)
	}
	<-hanging
	if err := b.restrict(caller.Console, lockdown()); err != nil || !b.helper.Effective().Lockdown {
		t.Errorf("lock down: %v", err)
	}
	close(goOn) // it has hung until now
}

type hangingAnnouncer struct{ hanging, goOn chan struct{} }

func (a hangingAnnouncer) Announce(context.Context, generation.Announcement) error {
	close(a.hanging)
	<-a.goOn
	return nil
}
