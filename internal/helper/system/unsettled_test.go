package system

import (
	"errors"
	"slices"
	"testing"
	"time"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/caller"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/generation"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/pairing"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/posture"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/sshkey"
)

// These attacks use a document that is not settled, and is undone in the end.

// The attack: something is on trial that nobody confirms, and somebody unlocks the Base at its console.
// The console's change does not keep what was on trial.
func TestAnActAtTheConsoleDoesNotKeepWhatIsOnTrial(t *testing.T) {
	for what, change := range map[string]func() *systemv1.LocalChange{
		"an unlock": func() *systemv1.LocalChange { return unlock(false) },
		"going back": func() *systemv1.LocalChange {
			return &systemv1.LocalChange{Change: &systemv1.LocalChange_GoBack{GoBack: &systemv1.GoBack{Revision: 1}}}
		},
	} {
		t.Run(what, func(t *testing.T) {
			b := newBase(t)
			b.start()
			a := b.pair(b.as(caller.Middleware), "phone", owner)
			tablet := b.pair(b.as(caller.Middleware), "tablet", basev1.Role_ROLE_VIEWER)
			if err := b.restrict(caller.Console, lockdown()); err != nil {
				t.Fatal(err)
			}
			trial := a.draft(true, func(p *posture.Posture, _ uint64) {
				p.Egress = []posture.Service{posture.Services[0]}
				for i := range p.Apps {
					p.Apps[i].Role = owner
				}
			})
			trial.Lifts = nil
			if err := a.submitSigned(posture.SignDocument(trial, a.seed)); err != nil {
				t.Fatal(err)
			}
			if len(b.helper.Effective().Egress) != 1 {
				t.Fatal("nothing is on trial; this test proves nothing")
			}
			if err := b.local(change()); err != nil {
				t.Fatal(err)
			}
			b.settled()
			e := b.helper.Effective()
			raised := slices.ContainsFunc(e.Apps, func(app posture.App) bool { return app.SigningKey == tablet.key && app.Role == owner })
			if len(e.Egress) != 0 || raised || e.Lockdown != (what != "an unlock") {
				t.Errorf("in force is %+v", e)
			}
		})
	}
}

// The attack: a key is in a document that cannot be applied, and its holder logs in while that is tried.
// sshd reads the keys of what is in force, so it let that key in; the session ends when the document is
// undone.
func TestASessionOfAKeyThatWasUndoneEnds(t *testing.T) {
	f := &failOnce{}
	b := newBase(t)
	b.fail = f.step
	b.start()
	a := b.pair(b.as(caller.Middleware), "phone", owner)
	a.mustSubmit(open)
	b.settled()
	f.arm("reload " + generation.ProxyUnit)
	if a.submit(func(p *posture.Posture, _ uint64) {
		p.NodeName, p.SSHKeys = "study", []sshkey.Key{testKey(), keyOf(8)}
		p.Extras[0].OwnPort = false
	}) == nil {
		t.Fatal("it was applied; this test proves nothing")
	}
	b.settled()
	if n := b.world.SSHRestarts(); n != 1 {
		t.Errorf("sshd was restarted %d times", n)
	}
}

// The attack: a document on trial lifts a lockdown, and the Middleware opens a window before anybody has
// confirmed it. An App that was let in would stay when the document is undone.
func TestPairingThatIsOnTrialIsNotOpenYet(t *testing.T) {
	b, a := newOpenBase(t)
	if err := b.restrict(caller.Console, lockdown()); err != nil {
		t.Fatal(err)
	}
	if err := a.submitSigned(posture.SignDocument(a.draft(true, func(*posture.Posture, uint64) {}), a.seed)); err != nil {
		t.Fatal(err)
	}
	if e := b.helper.Effective(); e.Lockdown || !e.PairingClosed || !a.look().Effective().PairingClosed {
		t.Errorf("on trial is %+v", e)
	}
	authority := b.as(caller.Middleware).Authority()
	if authority.OpenWindow(t.Context()) == nil {
		t.Error("the Middleware has opened a window")
	}
	time.Sleep(2 * time.Millisecond) // the clock counts milliseconds
	signed := posture.SignConfirmation(a.look().Confirmation(a.challenge()), a.seed)
	if err := a.confirm(signed, uint64(b.config.Clock().Milliseconds())); err != nil {
		t.Fatal(err)
	}
	if err := authority.OpenWindow(t.Context()); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

// The attack: a window is open, and a document closes pairing. Nobody comes in by that window.
func TestADocumentThatClosesPairingEndsAWindow(t *testing.T) {
	b := newBase(t)
	b.start()
	a := b.pair(b.as(caller.Middleware), "phone", owner)
	authority := b.as(caller.Middleware).Authority()
	if err := authority.OpenWindow(t.Context()); err != nil {
		t.Fatal(err)
	}
	a.mustSubmit(func(p *posture.Posture, _ uint64) { p.NodeName = "study" })
	if s, err := authority.Watch(t.Context(), 0); err != nil || !s.GetWindowOpen() {
		t.Fatalf("another document has closed the window: %v, %v", s, err)
	}
	begun := time.Now()
	a.mustSubmit(func(p *posture.Posture, _ uint64) { p.PairingClosed = true })
	until(t, "the window is closed", func() error {
		if s, err := authority.Watch(t.Context(), 0); err != nil || s.GetWindowOpen() {
			return errors.Join(errors.New("it is open"), err)
		}
		return nil
	})
	if time.Since(begun) >= pairing.WindowTime {
		t.Error("it was open until its time was over")
	}
}
