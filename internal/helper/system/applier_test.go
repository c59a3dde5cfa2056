package system

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/apply"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/caller"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/generation"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/ledger"
	"github.com/BitBoxSwiss/bitbox-base/internal/helperclient"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/posture"
)

const owner = basev1.Role_ROLE_OWNER

func TestPreflightUnitsAreThoseOfThePackage(t *testing.T) {
	var units []string
	for _, p := range apply.Parts {
		units = append(units, p.Preflight)
	}
	if !slices.Equal(units, generation.PreflightUnits) {
		t.Errorf("the parts start %q, the package has %q", units, generation.PreflightUnits)
	}
	files, err := generation.Render(ledger.Closed())
	if err != nil {
		t.Fatal(err)
	}
	for file := range files {
		if !slices.ContainsFunc(apply.Parts, func(p apply.Part) bool { return p.Has(file) }) {
			t.Errorf("a change of %s would be noticed by no server", file)
		}
	}
}

// failOnce makes one step fail, once, and lists the steps that it has seen.
type failOnce struct {
	mu    sync.Mutex
	at    string
	seen  []string
	fired bool
	met   func() // called at this step in place of failing; nil: it fails
}

var errPlayed = errors.New("played by the test")

func (f *failOnce) step(name string) error {
	f.mu.Lock()
	f.seen = append(f.seen, name)
	hit := name == f.at && !f.fired
	f.fired = f.fired || hit
	met := f.met
	f.mu.Unlock()
	switch {
	case !hit:
		return nil
	case met == nil:
		return errPlayed
	}
	met()
	return nil
}

// meet calls do at a step, once.
func (f *failOnce) meet(step string, do func()) {
	f.arm(step)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.met = do
}

// after lists the steps of applying that it has seen, from one on.
func (f *failOnce) after(step string) []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var steps []string
	for _, s := range f.seen[max(0, slices.Index(f.seen, step)):] {
		if !strings.HasPrefix(s, "save") && !slices.Contains(steps, s) {
			steps = append(steps, s)
		}
	}
	return steps
}

func (f *failOnce) arm(step string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.at, f.seen, f.fired, f.met = step, nil, false, nil
}

// applySteps are the steps of applying the document that `open` makes.
func applySteps(t *testing.T) []string {
	t.Helper()
	f := &failOnce{}
	b := newBase(t)
	b.fail = f.step
	b.start()
	a := b.pair(b.as(caller.Middleware), "phone", owner)
	b.settled()
	f.arm("")
	a.mustSubmit(open)
	f.mu.Lock()
	defer f.mu.Unlock()
	var steps []string
	for _, step := range f.seen {
		if !strings.HasPrefix(step, "save") && !slices.Contains(steps, step) {
			steps = append(steps, step)
		}
	}
	return steps
}

func TestAFailureAtAnyStepLeavesTheOldPostureWhole(t *testing.T) {
	steps := applySteps(t)
	if len(steps) < 10 {
		t.Fatalf("applying takes only the steps %q", steps)
	}
	for _, step := range steps {
		t.Run(step, func(t *testing.T) {
			f := &failOnce{}
			b := newBase(t)
			b.fail = f.step
			b.start()
			a := b.pair(b.as(caller.Middleware), "phone", owner)
			b.settled()
			before := b.helper.Effective()

			f.arm(step)
			err := a.submit(open)
			if !errors.Is(err, &helperclient.Error{Code: helperclient.CodeNotApplied}) || !strings.Contains(err.Error(), step) {
				t.Fatalf("submit = %v; want a failure that names the step %q", err, step)
			}
			b.settled()
			after := b.helper.Effective()
			if !posture.EquallyOpen(before, after) {
				t.Errorf("in force is %+v, was %+v", after, before)
			}
			// The owner goes on as if nothing had been.
			a.mustSubmit(open)
			b.settled()
			if b.helper.Effective().SSH == nil {
				t.Error("the posture can no longer be changed")
			}
		})
	}
}

func TestServersThatFailLeaveTheOldPostureWhole(t *testing.T) {
	for _, late := range []bool{false, true} {
		for _, action := range []string{
			"provide", "verify", "start ssh",
			"examine bitbox-base-preflight-firewall.service", "examine bitbox-base-preflight-nginx.service",
			"reload " + generation.FirewallUnit, "reload " + generation.ProxyUnit,
		} {
			t.Run(fmt.Sprintf("%s, late %v", action, late), func(t *testing.T) {
				b := newBase(t)
				b.start()
				a := b.pair(b.as(caller.Middleware), "phone", owner)
				b.settled()
				before := b.helper.Effective()
				b.world.Late = late
				b.world.Fail(action, errPlayed)
				if err := a.submit(open); !errors.Is(err, &helperclient.Error{Code: helperclient.CodeNotApplied}) {
					t.Fatalf("submit = %v", err)
				}
				// The server has failed for all that comes, also for the way back.
				if after := b.helper.Effective(); !posture.EquallyOpen(before, after) {
					t.Errorf("in force is %+v, was %+v", after, before)
				}
				b.world.Fail(action, nil)
				if err := b.helper.Reapply(t.Context()); err != nil {
					t.Fatal(err)
				}
				b.settled()
			})
		}
	}
}

// A program that hangs does not keep the owner from changing the posture: its step ends, is
// named, and the old posture is whole.
func TestAStepThatHangsEndsAndIsNamed(t *testing.T) {
	for _, action := range []string{"examine bitbox-base-preflight-nginx.service", "reload " + generation.ProxyUnit} {
		t.Run(action, func(t *testing.T) {
			b := newBase(t)
			b.start()
			a := b.pair(b.as(caller.Middleware), "phone", owner)
			b.settled()
			before := b.helper.Effective()
			b.helper.keeper.Apply.StepTime = 50 * time.Millisecond
			b.world.Hang(action)
			_, unit, _ := strings.Cut(action, " ")
			if err := a.submit(open); !errors.Is(err, &helperclient.Error{Code: helperclient.CodeNotApplied}) ||
				!strings.Contains(err.Error(), unit) {
				t.Fatalf("submit = %v; want a failure that names %s", err, unit)
			}
			if after := b.helper.Effective(); !posture.EquallyOpen(before, after) {
				t.Errorf("in force is %+v, was %+v", after, before)
			}
			b.world.Hang("")
			b.settled()
			a.mustSubmit(open)
		})
	}
}

// The tests above can fail: servers that are not told of the way back keep the new
// posture, and that shows.
func TestAMachineThatStaysHalfOpenIsNoticed(t *testing.T) {
	b := newBase(t)
	b.start()
	a := b.pair(b.as(caller.Middleware), "phone", owner)
	b.settled()
	before := b.helper.Effective()
	a.mustSubmit(open)
	b.settled()
	if b.world.Is(before) == nil {
		t.Fatal("an open machine passes for a closed one")
	}
	b.world.Lie = true
	if err := a.submit(func(p *posture.Posture, _ uint64) { p.Extras = nil }); !errors.Is(err,
		&helperclient.Error{Code: helperclient.CodeNotApplied}) {
		t.Fatalf("submit = %v; the servers have not followed", err)
	}
}

// A server that cannot be stopped is closed all the same: its ports are blocked at once, and
// stopping it is tried again.
func TestLockdownHoldsThoughServersFail(t *testing.T) {
	for _, action := range []string{
		"examine bitbox-base-preflight-nginx.service", "reload " + generation.FirewallUnit,
		"reload " + generation.ProxyUnit, "verify", "cut", "stop ssh", "provide",
	} {
		t.Run(action, func(t *testing.T) {
			b, _ := newOpenBase(t)
			b.world.Fail(action, errPlayed)
			if err := b.restrict(caller.Middleware, lockdown()); !errors.Is(err, &helperclient.Error{Code: helperclient.CodeNotYet}) {
				t.Fatalf("restrict = %v", err)
			}
			for _, port := range []uint16{50002, 22} {
				if !b.world.IsBlocked(port) {
					t.Errorf("port %d is not blocked", port)
				}
			}
			b.world.Fail(action, nil)
			b.settled()
			if e := b.helper.Effective(); !e.Lockdown || e.SSH != nil || len(e.Endpoints) != 1 {
				t.Errorf("in force is %+v", e)
			}
			if b.world.IsBlocked(50002) {
				t.Error("the block has outlived its use: the entry's rules say the same")
			}
		})
	}
}

func TestLockdownHoldsThoughTheDiskIsFull(t *testing.T) {
	b := newBase(t)
	full := false
	var mu sync.Mutex
	b.fail = func(step string) error {
		mu.Lock()
		defer mu.Unlock()
		if full && (step == "save" || step == "write") {
			return errors.New("no space left on device")
		}
		return nil
	}
	b.start()
	a := b.pair(b.as(caller.Middleware), "phone", owner)
	a.mustSubmit(open)
	b.settled()
	mu.Lock()
	full = true
	mu.Unlock()
	if err := b.restrict(caller.Middleware, lockdown()); !errors.Is(err, &helperclient.Error{Code: helperclient.CodeStorage}) {
		t.Fatalf("restrict = %v", err)
	}
	until(t, "the ports are blocked", func() error {
		if !b.world.IsBlocked(50002) || !b.world.IsBlocked(22) || !slices.Contains(b.world.Cuts(), 50002) {
			return errors.New("they are not")
		}
		return nil
	})
	mu.Lock()
	full = false
	mu.Unlock()
	b.settled()
	if e := b.helper.Effective(); !e.Lockdown || e.SSH != nil || len(e.Endpoints) != 1 {
		t.Errorf("once there is room again, in force is %+v", e)
	}
	// The owner decides again.
	a.mustSubmit(open)
	b.settled()
	if b.helper.Effective().SSH == nil {
		t.Error("the owner can no longer open it")
	}
}

func TestOnlyWhatIsClosedIsCut(t *testing.T) {
	b, a := newOpenBase(t)
	_ = b.world.Cuts()
	a.mustSubmit(func(p *posture.Posture, _ uint64) { p.Extras = nil })
	b.settled()
	if got := slices.Compact(b.world.Cuts()); !slices.Equal(got, []uint16{50002}) {
		t.Errorf("connections were ended at the ports %d", got)
	}
	if slices.Contains(apply.ExceptionalPorts(), posture.EntryPort) {
		t.Error("the Apps' own port is among those that get cut")
	}
}

// A port that is limited to networks loses the connections from elsewhere.
func TestWhatIsLimitedToNetworksIsCutForAllOthers(t *testing.T) {
	b := newBase(t)
	b.start()
	a := b.pair(b.as(caller.Middleware), "phone", owner)
	limit := func(texts ...string) func(*posture.Posture, uint64) {
		return func(p *posture.Posture, next uint64) {
			exposeOwnPort(p, next)
			p.Extras[0].From = nil
			for _, text := range texts {
				p.Extras[0].From = append(p.Extras[0].From, netip.MustParsePrefix(text))
			}
		}
	}
	a.mustSubmit(limit()) // open to everybody
	b.settled()
	for _, step := range []struct {
		name string
		from []string
		cut  string // the networks whose connections stay; "": nobody is cut
	}{
		{"limited", []string{"192.168.1.0/24", "fd00::/64"}, "192.168.1.0/24 fd00::/64"},
		{"limited further", []string{"192.168.1.0/25"}, "192.168.1.0/25"},
		{"widened", []string{"192.168.0.0/16"}, ""},
		{"another network", []string{"10.0.0.0/8"}, "10.0.0.0/8"},
	} {
		_, _ = b.world.Cuts(), b.world.Kept()
		a.mustSubmit(limit(step.from...))
		b.settled()
		var kept string
		for _, except := range b.world.Kept() {
			kept = strings.Join(except.Strings(), " ")
		}
		if cuts := b.world.Cuts(); len(cuts) > 0 != (step.cut != "") || kept != step.cut {
			t.Errorf("%s: cut at %d except from %q, want %q", step.name, cuts, kept, step.cut)
		}
	}
}

func TestLeasesEndByThemselves(t *testing.T) {
	b, _ := newOpenBase(t)
	b.advance(time.Hour + time.Second)
	until(t, "SSH has ended", func() error {
		if b.helper.Effective().SSH != nil {
			return errors.New("it is on")
		}
		return b.world.Is(b.helper.Effective())
	})
	if e := b.helper.Effective(); e.SSH != nil || len(e.Endpoints) != 2 {
		t.Errorf("after an hour in force is %+v", e)
	}
	b.advance(23 * time.Hour)
	until(t, "the API has ended", func() error {
		if len(b.helper.Effective().Endpoints) != 1 {
			return errors.New("it is open")
		}
		return b.world.Is(b.helper.Effective())
	})
}

func TestATryIsUndoneAfterAMinute(t *testing.T) {
	b := newBase(t)
	b.start()
	a := b.pair(b.as(caller.Middleware), "phone", owner)
	b.settled()
	before := b.helper.Effective()
	if err := a.submitSigned(posture.SignDocument(a.draft(true, open), a.seed)); err != nil {
		t.Fatal(err)
	}
	if _, trying, undoneIn := a.look().Pending(); !trying || undoneIn > posture.TryTime {
		t.Fatalf("trying %v, undone in %v", trying, undoneIn)
	}
	b.advance(posture.TryTime)
	until(t, "the try is undone", func() error { return b.world.Is(before) })
	if !posture.EquallyOpen(before, b.helper.Effective()) {
		t.Error("the ledger has it still open")
	}
}

func TestATryStaysOnlyWithASignedConfirmationOverANewConnection(t *testing.T) {
	b := newBase(t)
	b.start()
	middleware := b.as(caller.Middleware)
	a := b.pair(middleware, "phone", owner)
	other := b.pair(middleware, "tablet", owner)
	connectedBefore := uint64(b.config.Clock().Milliseconds())
	if err := a.submitSigned(posture.SignDocument(a.draft(true, open), a.seed)); err != nil {
		t.Fatal(err)
	}
	now := func() uint64 { return uint64(b.config.Clock().Milliseconds()) }
	time.Sleep(2 * time.Millisecond) // the clock counts milliseconds
	view := a.look()
	for name, c := range map[string]struct {
		signed    []byte
		connected uint64
	}{
		"nothing":             {nil, now()},
		"another App's":       {posture.SignConfirmation(view.Confirmation(a.challenge()), other.seed), now()},
		"a stranger's":        {posture.SignConfirmation(view.Confirmation(a.challenge()), newAppSeed()), now()},
		"without challenge":   {posture.SignConfirmation(view.Confirmation(make([]byte, 32)), a.seed), now()},
		"the old connection":  {posture.SignConfirmation(view.Confirmation(a.challenge()), a.seed), connectedBefore},
		"from the future":     {posture.SignConfirmation(view.Confirmation(a.challenge()), a.seed), now() + 60_000},
		"the end of all time": {posture.SignConfirmation(view.Confirmation(a.challenge()), a.seed), ^uint64(0)},
	} {
		if err := a.confirm(c.signed, c.connected); err == nil {
			t.Fatalf("%s: confirmed", name)
		}
		if _, trying, _ := a.look().Pending(); !trying {
			t.Fatalf("%s: it is no longer on trial", name)
		}
	}
	if err := a.confirm(posture.SignConfirmation(view.Confirmation(a.challenge()), a.seed), now()); err != nil {
		t.Fatalf("the true confirmation: %v", err)
	}
	b.advance(2 * posture.TryTime)
	b.settled()
	if b.helper.Effective().SSH == nil {
		t.Error("it was undone though it was confirmed")
	}
}

func endLease(kind posture.Kind) *systemv1.Restrict {
	return &systemv1.Restrict{What: &systemv1.Restrict_EndLease{EndLease: &systemv1.LeaseEnded{Kind: string(kind)}}}
}

// during begins something, and returns once it has come to an action, which hangs for as long as a step
// may take. ended has what begin returns.
func (b *base) during(action string, begin func() error) (ended <-chan error) {
	b.t.Helper()
	b.world.Hang(action)
	result := make(chan error, 1)
	go func() { result <- begin() }()
	until(b.t, "it has come to "+action, func() error {
		if !b.world.Hanging() {
			return errors.New("it has not")
		}
		return nil
	})
	b.world.Hang("")
	return result
}

// recorded waits until something stands in the ledger, whether or not it is in force.
func (b *base) recorded(what string, is func(posture.Effective) bool) {
	b.t.Helper()
	until(b.t, what+" is recorded", func() error {
		if !is(b.helper.Effective()) {
			return errors.New("it is not")
		}
		return nil
	})
}

// mustEndLease ends a lease at the console, long before a step that hangs is over.
func (b *base) mustEndLease(kind posture.Kind) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), apply.StepTime/3)
	defer cancel()
	if _, err := b.as(caller.Console).Do(ctx, restrictRequest(endLease(kind)), nil); err != nil {
		b.t.Fatalf("the end of a lease at the console: %v", err)
	}
}

// The attack: a Middleware that was taken over ends one lease, so that the closing that somebody
// orders at the console has to wait for all servers.
func TestAClosingDoesNotWaitForTheOneBefore(t *testing.T) {
	for action, ended := range map[string][2]posture.Kind{
		"examine bitbox-base-preflight-sshd.service": {posture.KindSSH, posture.KindElectrum},
		"reload " + generation.ProxyUnit:             {posture.KindElectrum, posture.KindSSH},
	} {
		t.Run(action, func(t *testing.T) {
			b, _ := newOpenBase(t)
			_ = b.world.Cuts()
			first := b.during(action, func() error { return b.restrict(caller.Middleware, endLease(ended[0])) })
			b.mustEndLease(ended[1])
			if err := <-first; err != nil {
				t.Errorf("the first closing: %v", err)
			}
			b.settled()
			if e := b.helper.Effective(); e.SSH != nil || len(e.Endpoints) != 1 || !slices.Contains(b.world.Cuts(), 50002) {
				t.Errorf("in force is %+v", e)
			}
		})
	}
}

// Others wait while something is being closed, and not while something is being opened.
func TestOthersWaitWhileTheBaseIsClosed(t *testing.T) {
	b := newBase(t)
	b.start()
	a := b.pair(b.as(caller.Middleware), "phone", owner)
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	during := map[bool][]error{} // by whether something was being closed
	closes := false
	b.world.WhenExamined(func() { during[closes] = append(during[closes], b.world.AwaitClosing(gone)) })
	a.mustSubmit(open)
	b.settled()
	closes = true
	if err := b.restrict(caller.Console, endLease(posture.KindElectrum)); err != nil {
		t.Fatal(err)
	}
	b.settled()
	for closes, errs := range during {
		for _, err := range errs {
			if errors.Is(err, context.Canceled) != closes {
				t.Errorf("while something is closed (%v): %v", closes, err)
			}
		}
	}
	if len(during) != 2 {
		t.Errorf("%d kinds were seen; this test proves nothing", len(during))
	}
	if err := b.world.AwaitClosing(gone); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

// Wherever the first closing is when the second one comes: in the end the machine is as both say.
func TestAClosingThatGivesWayAtAnyStepLeavesAllClosed(t *testing.T) {
	f := &failOnce{}
	b := newBase(t)
	b.fail = f.step
	b.start()
	a := b.pair(b.as(caller.Middleware), "phone", owner)
	var steps []string
	for next := 0; next == 0 || next <= len(steps); next++ {
		a.mustSubmit(func(p *posture.Posture, next uint64) { p.SSH, p.Extras = nil, nil; open(p, next) })
		b.settled()
		_ = b.world.Cuts()
		f.arm("")
		var second chan error
		if next > 0 {
			second = make(chan error, 1)
			f.meet(steps[next-1], func() {
				go func() { second <- b.restrict(caller.Console, endLease(posture.KindElectrum)) }()
				b.recorded("the second closing", func(e posture.Effective) bool { return len(e.Endpoints) == 1 })
			})
		}
		if err := b.restrict(caller.Middleware, endLease(posture.KindSSH)); err != nil {
			t.Fatal(err)
		}
		if next == 0 {
			steps = f.after("render")
			if len(steps) < 6 {
				t.Fatalf("a closing has only the steps %q", steps)
			}
			continue
		}
		if err := <-second; err != nil {
			t.Errorf("the second closing, at %q: %v", steps[next-1], err)
		}
		b.settled()
		if e := b.helper.Effective(); e.SSH != nil || len(e.Endpoints) != 1 || !slices.Contains(b.world.Cuts(), 50002) ||
			b.world.IsBlocked(50002) {
			t.Errorf("a second closing at %q: in force is %+v", steps[next-1], e)
		}
	}
}

// The attack: a lease is ended, and a Middleware that was taken over brings a document just then that
// an owner has signed. It closes something else, and a document is examined at length before anything
// is in force. The closing does not wait for that.
func TestADocumentThatComesDuringAClosingDoesNotDelayIt(t *testing.T) {
	f := &failOnce{}
	b := newBase(t)
	b.fail = f.step
	b.start()
	a := b.pair(b.as(caller.Middleware), "phone", owner)
	a.mustSubmit(open)
	b.settled()
	withoutSSH := posture.SignDocument(a.draft(false, func(p *posture.Posture, _ uint64) { p.SSH = nil }), a.seed)
	documented := make(chan error, 1)
	f.meet("render", func() {
		go func() { documented <- a.submitSigned(withoutSSH) }()
		b.recorded("the document", func(e posture.Effective) bool { return e.SSH == nil })
	})
	var late atomic.Bool
	b.world.WhenExamined(func() {
		if b.world.LetsIn(50002) {
			late.Store(true)
		}
	})
	if !b.world.LetsIn(50002) {
		t.Fatal("the port was never open; this test proves nothing")
	}
	if err := b.restrict(caller.Console, endLease(posture.KindElectrum)); err != nil {
		t.Fatal(err)
	}
	if err := <-documented; err != nil {
		t.Errorf("the document: %v", err)
	}
	if late.Load() {
		t.Error("the port was still open while something was examined")
	}
	b.settled()
	if e := b.helper.Effective(); e.SSH != nil || len(e.Endpoints) != 1 || b.world.IsBlocked(50002) {
		t.Errorf("in force is %+v", e)
	}
}

// The attack: a Middleware that was taken over holds a document back that an owner has signed, and
// brings it just before somebody closes something. At whatever step the document is, and whether or not
// it can be applied in the end: what is closed is closed at once, and never opens again.
func TestAClosingDoesNotWaitForADocument(t *testing.T) {
	document := func(p *posture.Posture, _ uint64) { // each server reads something else
		p.NodeName, p.Bans.MaxTries = "study", p.Bans.MaxTries+1
		p.SSH, p.Extras[0].OwnPort = nil, true
	}
	for what, fails := range map[string]func(*base, error){ // from when the closing comes, until the document has ended
		"all works":                          nil,
		"no new configuration is good":       func(b *base, err error) { b.world.Break(err) },
		"a server does not read the new one": func(b *base, err error) { b.world.Fail("reload "+generation.BansUnit, err) },
	} {
		var steps []string
		reload := 0 // the step of the packet filter
		for next := 0; next == 0 || next <= len(steps); next++ {
			f, port := &failOnce{}, &closingPort{}
			b := newBase(t)
			b.fail = func(step string) error {
				port.look(b.world.LetsIn(50002))
				return f.step(step)
			}
			b.start()
			a := b.pair(b.as(caller.Middleware), "phone", owner)
			a.mustSubmit(open)
			b.settled()
			f.arm("")
			ended := make(chan error, 1)
			if next > 0 {
				f.meet(steps[next-1], func() {
					go func() { ended <- b.restrict(caller.Console, endLease(posture.KindElectrum)) }()
					b.recorded("the closing", func(e posture.Effective) bool { return len(e.Endpoints) == 1 })
					port.ordered.Store(true)
					if fails != nil {
						fails(b, errPlayed)
					}
				})
			}
			err := a.submitSigned(posture.SignDocument(a.draft(false, document), a.seed))
			if fails != nil {
				fails(b, nil)
			}
			if next == 0 {
				if err != nil {
					t.Fatal(err)
				}
				if steps = f.after("render"); len(steps) < 8 {
					t.Fatalf("a document has only the steps %q", steps)
				}
				reload = slices.Index(steps, "reload "+generation.FirewallUnit)
				b.stop()
				continue
			}
			at := fmt.Sprintf("%s, at %q", what, steps[next-1])
			if err != nil && fails == nil {
				t.Errorf("%s: the document: %v", at, err)
			}
			if err := <-ended; err != nil && fails == nil {
				t.Errorf("%s: the closing: %v", at, err)
			}
			until(t, "all is in force", func() error { return b.world.Is(b.helper.Effective()) })
			if e := b.helper.Effective(); len(e.Endpoints) != 1 || b.world.LetsIn(50002) || !slices.Contains(b.world.Cuts(), 50002) {
				t.Errorf("%s: in force is %+v", at, e)
			}
			if after := f.after(steps[next-1]); next-1 < reload && slices.Index(after, steps[reload]) < slices.Index(after, "cut at once") {
				t.Errorf("%s: it was followed by %q; a packet filter with what the document opens came before the closing", at, after)
			}
			if !port.closed.Load() || port.opened.Load() {
				t.Errorf("%s: it was closed: %v, and opened again: %v", at, port.closed.Load(), port.opened.Load())
			}
			b.stop()
		}
	}
}

// closingPort is what is seen of a port, step by step.
type closingPort struct {
	ordered, closed atomic.Bool // its closing was ordered; that has taken hold
	opened          atomic.Bool // it was open at a step after that
}

func (p *closingPort) look(open bool) {
	switch {
	case open && p.closed.Load():
		p.opened.Store(true)
	case !open && p.ordered.Load():
		p.closed.Store(true)
	}
}

// The attack: somebody closes for good what has no end, and a Middleware that was taken over brings a
// document that an owner has signed before the Base begins with that. The document no longer has what is
// closed, so nothing in it says that it is closed. The Base does not wait for the document all the same,
// whether or not it can be applied.
func TestADocumentThatComesBeforeAClosingHasBegunDoesNotDelayIt(t *testing.T) {
	without := func(p *posture.Posture, _ uint64) {
		p.NodeName, p.Bans.MaxTries, p.Extras = "study", p.Bans.MaxTries+1, nil
	}
	for what, failure := range map[string]error{"it can be applied": nil, "it cannot be applied": errPlayed} {
		t.Run(what, func(t *testing.T) {
			f, port := &failOnce{}, &closingPort{}
			b := newBase(t)
			b.fail = func(step string) error {
				port.look(b.world.LetsIn(50002))
				return f.step(step)
			}
			b.start()
			a := b.pair(b.as(caller.Middleware), "phone", owner)
			a.mustSubmit(func(p *posture.Posture, next uint64) {
				exposeOwnPort(p, next)
				p.Extras[0].Lease = posture.Lease{UntilClosed: true, GrantedIn: next}
			})
			b.settled()
			signed := posture.SignDocument(a.draft(false, without), a.seed)
			closed, documented := make(chan error, 1), make(chan error, 1)
			f.meet("render", func() { // the worker has something else to do
				go func() { closed <- b.restrict(caller.Console, endLease(posture.KindElectrum)) }()
				b.recorded("the closing", func(e posture.Effective) bool { return len(e.Endpoints) == 1 })
				go func() { documented <- a.submitSigned(signed) }()
				b.recorded("the document", func(e posture.Effective) bool { return e.NodeName == "study" })
				port.ordered.Store(true)
				b.world.Fail("reload "+generation.BansUnit, failure)
			})
			var late atomic.Bool
			b.world.WhenExamined(func() {
				if b.world.LetsIn(50002) {
					late.Store(true)
				}
			})
			repaired := b.helper.Reapply(t.Context())
			if err := <-documented; (err != nil) != (failure != nil) {
				t.Errorf("the document: %v", err)
			}
			b.world.Fail("reload "+generation.BansUnit, nil)
			if err := errors.Join(<-closed, repaired); err != nil && failure == nil {
				t.Error(err)
			}
			until(t, "all is in force", func() error { return b.world.Is(b.helper.Effective()) })
			if late.Load() || !port.closed.Load() || port.opened.Load() {
				t.Errorf("it was still open while something was examined: %v; it was closed: %v, and opened again: %v",
					late.Load(), port.closed.Load(), port.opened.Load())
			}
			if e := b.helper.Effective(); len(e.Endpoints) != 1 || b.world.LetsIn(50002) {
				t.Errorf("in force is %+v", e)
			}
		})
	}
}

// A document that takes longer than it may is undone, even if it is in force by then. Its owner is told why.
func TestADocumentThatTookTooLongIsUndoneAndSaysSo(t *testing.T) {
	f := &failOnce{}
	b := newBase(t)
	b.fail = f.step
	b.start()
	a := b.pair(b.as(caller.Middleware), "phone", owner)
	f.meet("verify", func() { b.ahead.Add(int64(posture.ApplyTime)) })
	if err := a.submit(open); err == nil || !strings.Contains(err.Error(), "undone: applying it took too long") {
		t.Errorf("the owner is told: %v", err)
	}
	b.settled()
	if e := b.helper.Effective(); e.SSH != nil || len(e.Endpoints) != 1 {
		t.Errorf("in force is %+v", e)
	}
}

// A document that hangs is nothing that a closing waits for.
func TestAClosingDoesNotWaitForADocumentThatHangs(t *testing.T) {
	for _, action := range []string{
		"examine bitbox-base-preflight-sshd.service", "reload " + generation.ProxyUnit, "reload " + generation.BansUnit,
	} {
		t.Run(action, func(t *testing.T) {
			b, a := newOpenBase(t)
			signed := posture.SignDocument(a.draft(false, func(p *posture.Posture, _ uint64) {
				p.NodeName, p.Bans.MaxTries, p.SSH, p.Extras[0].OwnPort = "study", p.Bans.MaxTries+1, nil, false
			}), a.seed)
			documented := b.during(action, func() error { return a.submitSigned(signed) })
			b.mustEndLease(posture.KindElectrum)
			if err := <-documented; err != nil {
				t.Errorf("the document: %v", err)
			}
			b.settled()
			if e := b.helper.Effective(); e.SSH != nil || len(e.Endpoints) != 1 || e.NodeName != "study" {
				t.Errorf("in force is %+v", e)
			}
		})
	}
}

// The attack: a Middleware that was taken over has a finding of the audit repaired, for which
// everything is put in force again, whole. A closing at the console does not wait for that.
func TestAClosingDoesNotWaitForARepair(t *testing.T) {
	b, _ := newOpenBase(t)
	repaired := b.during("reload "+generation.ProxyUnit, func() error { return b.helper.Reapply(t.Context()) })
	var late atomic.Bool
	b.world.WhenExamined(func() {
		if !b.world.IsBlocked(50002) {
			late.Store(true)
		}
	})
	b.mustEndLease(posture.KindElectrum)
	if late.Load() {
		t.Error("the port was still open while its closing was examined")
	}
	if err := <-repaired; err != nil {
		t.Errorf("the repair: %v", err)
	}
	b.settled()
	if b.world.IsBlocked(50002) || len(b.helper.Effective().Endpoints) != 1 {
		t.Error("the repair is not whole")
	}
}
