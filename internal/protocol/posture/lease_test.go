package posture

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestLeaseEndsByItselfAndForGood(t *testing.T) {
	d := newDevice(t)
	owner := d.owner("owner")
	d.change(owner, d.openSSH(MinLease))
	d.pass(MinLease - time.Second)
	if e := d.ledger.Effective(); e.SSH == nil || e.SSH.Remaining != time.Second {
		t.Fatalf("a second before its end: %+v", e.SSH)
	}
	due, any := d.ledger.Deadline()
	if !any || due != d.now+time.Second {
		t.Errorf("the next Tick is due at %v, not in a second", due)
	}
	d.now = due
	out := d.ledger.Tick(d.now)
	d.save(out)
	if d.ledger.Effective().SSH != nil || !out.Changed || out.Save == nil {
		t.Error("it has not ended")
	}
	d.change(owner, func(p *Posture) { p.NodeName = "names the same lease" })
	d.restart()
	if d.ledger.Effective().SSH != nil {
		t.Error("a document that names the ended lease brought it back")
	}
	d.change(owner, d.openSSH(MinLease))
	if d.ledger.Effective().SSH == nil {
		t.Error("it cannot be granted again")
	}
}

func (d *device) openForGood(from ...string) func(*Posture) {
	revision := d.next()
	return func(p *Posture) {
		p.Extras = []ExtraEndpoint{{Kind: KindElectrum, OwnPort: true, Lease: Lease{UntilClosed: true, GrantedIn: revision},
			From: networks(from...)}}
	}
}

func TestWhatIsOpenForGoodStaysOpenUntilItIsClosed(t *testing.T) {
	open := func(d *device) bool {
		e := d.ledger.Effective()
		return len(e.Endpoints) == 2 && e.Endpoints[1].UntilClosed && e.Endpoints[1].Remaining == 0
	}
	for name, end := range map[string]func(*device, AppSeed){
		"a document of an owner": func(d *device, owner AppSeed) { d.change(owner, func(p *Posture) { p.Extras = nil }) },
		"the end of its lease, by any App": func(d *device, _ AppSeed) {
			d.must(d.ledger.Restrict(Closing{Type: ClosingLease, Kind: KindElectrum}, ActorMiddleware, d.now))
		},
		"a lockdown": func(d *device, _ AppSeed) {
			d.must(d.ledger.Restrict(Closing{Type: ClosingLockdown}, ActorMiddleware, d.now))
		},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDevice(t)
			owner := d.owner("owner")
			d.change(owner, d.openForGood("192.168.1.0/24"))
			d.pass(2 * MaxLease)
			d.change(owner, func(p *Posture) { p.NodeName = "keeps it" })
			d.reboot()
			if !open(d) {
				t.Fatalf("after two weeks and a reboot: %+v", d.ledger.Effective().Endpoints)
			}
			end(d, owner)
			if e := d.ledger.Effective(); len(e.Endpoints) != 1 {
				t.Fatalf("it is still open: %+v", e.Endpoints)
			}
			d.reboot()
			if e := d.ledger.Effective(); len(e.Endpoints) != 1 {
				t.Errorf("a reboot opens it again: %+v", e.Endpoints)
			}
		})
	}
	d := newDevice(t)
	owner := d.owner("owner")
	d.change(owner, d.openForGood())
	closing := Closing{Type: ClosingLease, Kind: KindElectrum}
	d.must(d.ledger.Restrict(closing, ActorMiddleware, d.now))
	if _, err := d.ledger.Restrict(closing, ActorMiddleware, d.now); !errors.Is(err, ErrNothingToClose) {
		t.Errorf("closed twice: %v", err)
	}
	d.change(owner, func(p *Posture) { p.NodeName = "names the same lease" })
	if open(d) {
		t.Error("a document that names the ended lease brought it back")
	}
}

func TestLeaseGoesOnOverDocumentsThatKeepIt(t *testing.T) {
	d := newDevice(t)
	owner := d.owner("owner")
	d.change(owner, d.openElectrum(time.Hour))
	for range 5 {
		d.pass(10 * time.Minute)
		d.change(owner, func(p *Posture) { p.NodeName += "x" })
	}
	if e := d.ledger.Effective(); len(e.Endpoints) != 2 || e.Endpoints[1].Remaining != 10*time.Minute {
		t.Errorf("after 50 of 60 minutes: %+v", e.Endpoints)
	}
	d.pass(10 * time.Minute)
	if e := d.ledger.Effective(); len(e.Endpoints) != 1 {
		t.Errorf("after its time: %+v", e.Endpoints)
	}
}

func TestLeaseCanBeEndedEarlyWithoutASignature(t *testing.T) {
	d := newDevice(t)
	owner := d.owner("owner")
	d.change(owner, func(p *Posture) { d.openSSH(time.Hour)(p); d.openElectrum(time.Hour)(p) })
	d.must(d.ledger.Restrict(Closing{Type: ClosingLease, Kind: KindElectrum}, ActorMiddleware, d.now))
	if e := d.ledger.Effective(); len(e.Endpoints) != 1 || e.SSH == nil {
		t.Errorf("after ending the one: %+v", e)
	}
	if _, err := d.ledger.Restrict(Closing{Type: ClosingLease, Kind: KindElectrum}, ActorMiddleware, d.now); err != ErrNothingToClose {
		t.Errorf("ending it again: %v", err)
	}
}

func TestSSHEndsAtAReboot(t *testing.T) {
	d := newDevice(t)
	owner := d.owner("owner")
	d.change(owner, func(p *Posture) { d.openSSH(time.Hour)(p); d.openElectrum(time.Hour)(p) })
	d.reboot()
	e := d.ledger.Effective()
	if e.SSH != nil {
		t.Error("SSH is on after a reboot")
	}
	if len(e.Endpoints) != 2 {
		t.Fatal("the other lease has ended too")
	}
	history := d.look().History()
	if last := history[len(history)-1]; last.By != "a reboot" {
		t.Errorf("the history ends with %+v", last)
	}
}

func TestRestartOfTheHelperAloneCountsExactly(t *testing.T) {
	d := newDevice(t)
	owner := d.owner("owner")
	d.change(owner, func(p *Posture) { d.openSSH(time.Hour)(p); d.openElectrum(time.Hour)(p) })
	d.now += 20 * time.Minute // down for 20 minutes, nobody ticks
	d.restart()
	e := d.ledger.Effective()
	if e.SSH == nil || e.SSH.Remaining != 40*time.Minute || e.Endpoints[1].Remaining != 40*time.Minute {
		t.Errorf("after 20 minutes: SSH %+v, %+v", e.SSH, e.Endpoints)
	}
	d.now += 40 * time.Minute
	d.restart()
	if e := d.ledger.Effective(); e.SSH != nil || len(e.Endpoints) != 1 {
		t.Errorf("after its end, which came while the helper was down: %+v", e)
	}
}

// However often and whenever the power fails, a lease never lasts longer than it
// was granted, on the boot-time clocks added up.
func TestRebootsNeverMakeALeaseLonger(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := newDevice(t)
		d.blind = true
		owner := d.owner("owner")
		length := time.Duration(rapid.Int64Range(int64(MinLease/time.Second), 1800).Draw(t, "length")) * time.Second
		d.change(owner, d.openElectrum(length))
		open := func() bool { return len(d.ledger.Effective().Endpoints) == 2 }
		var up time.Duration
		for i := 0; open() && i < 1000; i++ {
			run := time.Duration(rapid.Int64Range(int64(20*time.Second), int64(10*time.Minute)).Draw(t, "until the power fails"))
			before := d.now
			d.pass(run)
			if open() {
				up += d.now - before
				if up > length {
					t.Fatalf("open for %v of %v", up, length)
				}
			}
			if rapid.Bool().Draw(t, "reboot") {
				d.reboot()
			} else {
				d.restart()
			}
		}
		if open() {
			t.Fatalf("still open after %v of %v", up, length)
		}
	})
}

func TestRunningLeasesAreSavedEachMinute(t *testing.T) {
	d := newDevice(t)
	owner := d.owner("owner")
	d.change(owner, d.openElectrum(time.Hour))
	for i := range 10 {
		d.pass(checkpointInterval)
		saved := leasesFromProto(d.stored().Leases)
		if lag := saved[0].Remaining - d.ledger.running[0].Remaining; lag > 0 {
			t.Errorf("minute %d: the disk is %v behind", i, lag)
		}
	}
	if _, any := newDevice(t).ledger.Deadline(); any {
		t.Error("without a lease the helper is woken up for nothing")
	}
}

// The clock of a boot cannot go back; a state that says so is from another one.
func TestStateFromTheFutureIsTakenForAnotherBoot(t *testing.T) {
	d := newDevice(t)
	owner := d.owner("owner")
	d.change(owner, d.openSSH(time.Hour))
	d.now = 0
	d.restart()
	if d.ledger.Effective().SSH != nil {
		t.Error("SSH is on")
	}
}

func TestLeaseLengthsAreChecked(t *testing.T) {
	for _, length := range []time.Duration{0, 1, MinLease - time.Second, MinLease + 1, MaxLease + time.Second, -time.Hour, 1 << 62} {
		p := Factory()
		p.SSHKeys, p.SSH = append(p.SSHKeys, keyOne), &Lease{Length: length, GrantedIn: 1}
		if p.Validate() == nil {
			t.Errorf("a lease of %v is allowed", length)
		}
		if _, err := FromProto(p.Proto()); err == nil && length != MinLease+1 {
			t.Errorf("a lease of %v is allowed once it was on the wire", length)
		}
	}
	if got := fmt.Sprint(wholeSeconds(1<<62), wholeSeconds(-1)); got != "0 0" {
		t.Errorf("lengths that do not fit become %s", got)
	}
}

func TestSavedLeaseCannotBeLongerThanItWasGranted(t *testing.T) {
	d := newDevice(t)
	owner := d.owner("owner")
	d.change(owner, d.openElectrum(time.Hour))
	state := d.stored()
	state.Leases[0].RemainingMs = 1 << 63
	d.disk = encode(state)
	d.restart()
	if e := d.ledger.Effective(); e.Endpoints[1].Remaining != time.Hour {
		t.Errorf("%v are left of an hour", e.Endpoints[1].Remaining)
	}
}

func TestWithdrawnLeaseNoLongerCounts(t *testing.T) {
	d := newDevice(t)
	owner := d.owner("owner")
	d.change(owner, d.openElectrum(time.Hour))
	d.change(owner, func(p *Posture) { p.Extras = nil })
	if due, any := d.ledger.Deadline(); any {
		t.Errorf("the helper is woken up at %v for nothing", due)
	}
}
