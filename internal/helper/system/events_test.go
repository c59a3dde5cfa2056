package system

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/caller"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/posture"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/sshkey"
)

// toldChanges is what Apps were told of the posture, each as its sentences, by whom, and why.
func toldChanges(events []*basev1.Event) (told []string) {
	for _, event := range events {
		if e := event.GetPostureChanged(); e != nil {
			told = append(told, strings.Join(e.GetChanges(), " ")+" | "+e.GetBy()+e.GetApp().GetId()+" | "+e.GetNote())
		}
	}
	return told
}

// Whatever steps a change takes, Apps are told of it once, when it is for good, and in words.
func TestOneChangeIsOneEventThatSaysWhatChanged(t *testing.T) {
	b := newBase(t)
	b.start()
	a := b.pair(b.as(caller.Middleware), "Laptop", owner)
	b.settled()
	events := b.watchEvents()
	key := testKey()
	enable := func(p *posture.Posture, next uint64) {
		p.SSHKeys = []sshkey.Key{key}
		p.SSH = &posture.Lease{Length: 2 * time.Hour, GrantedIn: next}
	}
	expect := func(what string, want ...string) {
		t.Helper()
		until(t, what, func() error {
			if got := toldChanges(events()); len(got) < len(want) {
				return errPlayed
			}
			return nil
		})
		if got := toldChanges(events()); !slices.Equal(got, want) {
			t.Errorf("%s: told\n%s\nnot\n%s", what, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
	var want []string

	// A try that nobody confirms.
	if err := a.submitSigned(posture.SignDocument(a.draft(true, enable), a.seed)); err != nil {
		t.Fatal(err)
	}
	if got := toldChanges(events()); len(got) != 0 {
		t.Errorf("a change that is only tried is told: %q", got)
	}
	b.advance(2 * time.Minute)
	want = append(want, "A change was undone. | the App 'Laptop' | "+a.look().History()[len(a.look().History())-1].Note)
	expect("undone", want...)

	// A change that holds.
	a.mustSubmit(enable)
	want = append(want, "SSH was switched on for 2 hours for the key "+key.Fingerprint+". The SSH key "+key.Fingerprint+
		" was added; a key lets somebody in only while SSH is on. | the App 'Laptop' | ")
	expect("switched on", want...)

	// An App closes something without a signature, and a lease ends by itself.
	if err := b.from("0123456789abcdef", restrictRequest(&systemv1.Restrict{What: &systemv1.Restrict_EndLease{EndLease: &systemv1.LeaseEnded{
		Kind: "ssh"}}})); err != nil {
		t.Fatal(err)
	}
	want = append(want, "SSH was switched off, and its sessions ended. | 0123456789abcdef | ")
	expect("switched off", want...)
	a.mustSubmit(func(p *posture.Posture, next uint64) { p.SSH = &posture.Lease{Length: time.Hour, GrantedIn: next} })
	want = append(want, "SSH was switched on for 1 hour for the key "+key.Fingerprint+". | the App 'Laptop' | ")
	expect("switched on again", want...)
	b.advance(61 * time.Minute)
	want = append(want, "SSH was switched off, and its sessions ended. |  | its time is over")
	expect("its end", want...)
}

// The helper is stopped, as at an update, and tells something while nobody watches, up to its end and
// from its start on. A watcher that comes back gets all of it, with the numbers that follow its last one.
func TestAnOrderlyStopOfTheHelperLosesNoEvent(t *testing.T) {
	b := newBase(t)
	b.start()
	// since reads what has happened after an event, and the first message of that stream.
	since := func(run, after uint64, reasons int) (first *systemv1.SystemEvent, got []string) {
		t.Helper()
		enough := errors.New("enough")
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute) // a lost event never comes
		defer cancel()
		err := b.as(caller.Middleware).Each(ctx, &systemv1.SystemRequest{Verb: &systemv1.SystemRequest_WatchSystem{
			WatchSystem: &systemv1.WatchSystem{Run: run, After: after}}}, func(reply *systemv1.SystemReply) error {
			e := reply.GetEvent()
			if first == nil {
				first = e
			}
			if failed := e.GetEvent().GetApplyFailed(); failed != nil {
				got = append(got, failed.GetReason())
			}
			if len(got) == reasons {
				return enough
			}
			return nil
		})
		if !errors.Is(err, enough) {
			t.Fatalf("%v; before it, %q came after %v", err, got, first)
		}
		return first, got
	}
	publish := func(reason string) {
		b.helper.keeper.Events.Publish(&basev1.Event{Event: &basev1.Event_ApplyFailed{ApplyFailed: &basev1.ApplyFailedEvent{Reason: reason}}})
	}
	seen, _ := since(0, 0, 0)
	publish("before the end")
	b.stop()
	b.start()
	publish("after the start")
	again, got := since(seen.GetRun(), seen.GetNumber(), 2)
	if want := []string{"before the end", "after the start"}; !slices.Equal(got, want) || again.GetMissed() != 0 ||
		again.GetRun() != seen.GetRun() || again.GetNumber() != seen.GetNumber() {
		t.Errorf("%q came after %v", got, again)
	}
}
