package system

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/caller"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/services"
	"github.com/BitBoxSwiss/bitbox-base/internal/helperclient"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/changelog"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/posture"
	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
)

// leaves sends a request whose sender hangs up while it is being done, and returns when the
// helper is through with it. goOn lets that happen.
func (b *base) leaves(request *systemv1.SystemRequest, begun <-chan struct{}, goOn func()) {
	b.t.Helper()
	ctx, hangUp := context.WithCancel(b.t.Context())
	defer hangUp()
	through := make(chan struct{})
	go func() {
		defer close(through)
		_, _ = b.as(caller.Middleware).Do(ctx, request, nil)
	}()
	<-begun
	hangUp()
	goOn()
	<-through
}

// ended waits for an entry of the log, and returns its line.
func (b *base) ended(what string) string {
	b.t.Helper()
	var line string
	until(b.t, "the log has "+what, func() error {
		for _, text := range b.lines() {
			if strings.Contains(text, ": "+what) {
				line = text
				return nil
			}
		}
		return fmt.Errorf("it has %q", b.lines())
	})
	return line
}

// A change is logged as done even if its caller has left meanwhile, and an entry has no text
// of the standard library.
func TestTheLogIsRightWhenACallerLeaves(t *testing.T) {
	b, m := managedBase(t)
	b.start()
	a := b.pair(b.as(caller.Middleware), "Laptop", owner)
	signed := posture.SignDocument(a.draft(true, open), a.seed)

	// held has the next applying wait.
	held := func() (begun <-chan struct{}, goOn func()) {
		examined, going := make(chan struct{}), make(chan struct{})
		b.world.WhenExamined(sync.OnceFunc(func() {
			close(examined)
			<-going
		}))
		return examined, func() { close(going) }
	}

	// A change on trial, which is confirmed over another connection.
	begun, goOn := held()
	b.leaves(submitRequest(signed), begun, func() {
		if pending, trying, _ := a.look().Pending(); !pending || trying {
			t.Error("while it is being applied the Base does not say so")
		}
		goOn()
	})
	until(t, "it is tried", func() error {
		if _, trying, _ := a.look().Pending(); !trying {
			return errors.New("it is not")
		}
		return nil
	})
	now := uint64(b.config.Clock().Milliseconds())
	confirmation := posture.SignConfirmation(a.look().Confirmation(a.challenge()), a.seed)
	if err := b.from("", &systemv1.SystemRequest{Verb: &systemv1.SystemRequest_ConfirmTry{ConfirmTry: &systemv1.ConfirmTry{
		Confirmation: confirmation, ConnectedAtMs: now}}}); err != nil {
		t.Fatal(err)
	}
	if line := b.ended(changelog.Posture); strings.Contains(line, "FAILED") || !strings.Contains(line, "on trial") {
		t.Errorf("the log has %q", line)
	}

	// A closing that takes a while.
	begun, goOn = held()
	b.leaves(restrictRequest(lockdown()), begun, goOn)
	if line := b.ended(changelog.Lockdown); strings.Contains(line, "FAILED") {
		t.Errorf("the log has %q", line)
	}

	// Debian's updates, which go on.
	starting := make(chan struct{})
	m.OnStart(func(unit string) {
		if unit == services.DebianUpdatesUnit {
			m.Set(unit, "activating")
		}
		close(starting)
	})
	b.leaves(installRequest(), starting, func() {})
	if line := b.ended(changelog.DebianUpdates); strings.Contains(line, "FAILED") || !strings.Contains(line, "did not wait") {
		t.Errorf("the log has %q", line)
	}
	for _, e := range b.logged() {
		for _, of := range []string{"context canceled", "deadline exceeded", "exit status", "no such file"} {
			if strings.Contains(e.GetFailure()+e.GetDetail(), of) {
				t.Errorf("the log has %v", e)
			}
		}
	}
}

func TestErrorsOfTheLibraryAreSaidInWords(t *testing.T) {
	err := helperclient.Errorf(helperclient.CodeInternal, "ask fail2ban for its bans: %w",
		reason.Errorf("run it: %w", context.DeadlineExceeded))
	if want := "ask fail2ban for its bans: run it: it took too long"; err.Error() != want {
		t.Errorf("%q", err)
	}
}

// The condition that failed is told, and nothing about a start that there was not.
func TestAnUpdateThatAConditionForbidsSaysWhich(t *testing.T) {
	off, _ := services.BuiltIn().OfUnit(services.DebianUpdatesUnit)
	for condition, want := range map[string]string{
		"ConditionACPower=true":    "mains power",
		off.Condition():            "enable it first",
		"ConditionPathExists=/etc": "ConditionPathExists=/etc",
	} {
		b, m := managedBase(t)
		m.Refuse(services.DebianUpdatesUnit, condition)
		b.start()
		progress, err := b.install(t.Context())
		if err == nil || !strings.Contains(err.Error(), want) || len(progress) > 0 {
			t.Errorf("%s: %q, %v", condition, progress, err)
		}
		b.stop()
	}
}

// systemd has forgotten the unit when the installation is over. That it then says "no" for the
// conditions is not taken for a refusal.
func TestAnUpdateThatSystemdForgotIsNotTakenForARefusedOne(t *testing.T) {
	b, m := managedBase(t)
	m.OnStart(func(unit string) {
		m.Forget(unit)
		b.touchStamp()
	})
	b.start()
	if progress, err := b.install(t.Context()); err != nil || !slices.Equal(progress, []string{"started", "looking what still waits"}) {
		t.Errorf("%q, %v", progress, err)
	}
}

// An administrator who masked the unit is not told to install a package.
func TestMaskedUpdatesOfDebianAreCalledMasked(t *testing.T) {
	b, m := managedBase(t)
	m.Change(services.DebianUpdatesUnit, "LoadState", "masked")
	b.start()
	_, err := b.install(t.Context())
	if err == nil || !strings.Contains(err.Error(), "(masked)") || strings.Contains(err.Error(), "unattended") {
		t.Error(err)
	}
}

// After an unlock the Base is closed, unless somebody asks to open it again.
func TestUnlockingOpensNothingByItself(t *testing.T) {
	for _, reopen := range []bool{false, true} {
		b := newBase(t)
		b.start()
		a := b.pair(b.as(caller.Middleware), "Laptop", owner)
		a.mustSubmit(open)
		if err := b.restrict(caller.Console, lockdown()); err != nil {
			t.Fatal(err)
		}
		if err := b.local(unlock(reopen)); err != nil {
			t.Fatal(err)
		}
		e := b.helper.Effective()
		if e.Lockdown || (e.SSH != nil) != reopen || (len(e.Endpoints) > 1) != reopen {
			t.Errorf("reopen %v: %+v", reopen, e)
		}
		b.stop()
	}
}

// Below a lockdown a lease can be ended, and stays so.
func TestALeaseIsEndedBelowALockdown(t *testing.T) {
	b := newBase(t)
	b.start()
	a := b.pair(b.as(caller.Middleware), "Laptop", owner)
	a.mustSubmit(open)
	end := &systemv1.Restrict{What: &systemv1.Restrict_EndLease{EndLease: &systemv1.LeaseEnded{Kind: string(posture.KindSSH)}}}
	if err := errors.Join(b.restrict(caller.Console, lockdown()), b.restrict(caller.Middleware, end)); err != nil {
		t.Fatal(err)
	}
	if e := a.look().Unlocked(); e.SSH != nil || len(e.Endpoints) != 2 {
		t.Errorf("below the lockdown %+v goes on", e)
	}
}

// An App that brings a failing release again and again does not push other entries out of the
// log.
func TestEndsOfUpdatesShareThePlacesOfWhatIsNotSigned(t *testing.T) {
	var limiter changelog.Limiter
	entry := &systemv1.ChangeEntry{Actor: systemv1.ChangeEntry_ACTOR_BASE, What: changelog.UpdateEnded, Time: time.Now().Unix()}
	newest := slices.Repeat([]*systemv1.ChangeEntry{entry}, changelog.Places)
	limiter.Recall(func(look func(*systemv1.ChangeEntry) bool) {
		for _, e := range newest {
			look(e)
		}
	}, time.Now().Unix(), time.Hour)
	if limiter.Take(changelog.Unsigned, entry, time.Hour) {
		t.Error("after a restart there is a place for one more")
	}
}
