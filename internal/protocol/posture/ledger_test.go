package posture

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
)

func TestFactoryPostureIsTheEntryAlone(t *testing.T) {
	e := newDevice(t).ledger.Effective()
	if len(e.Endpoints) != 1 || !reflect.DeepEqual(e.Endpoints[0], Endpoint{Kind: KindEntry, Port: EntryPort}) {
		t.Errorf("endpoints: %+v", e.Endpoints)
	}
	if e.SSH != nil || len(e.KnownSSHKeys) > 0 || len(e.Apps) > 0 || len(e.Egress) > 0 || e.PairingClosed {
		t.Errorf("more is open: %+v", e)
	}
}

func TestFactoryPostureCannotOpenAnything(t *testing.T) {
	config := newDevice(t).config
	for name, change := range map[string]func(*Posture){
		"a lease": func(p *Posture) {
			p.SSHKeys, p.SSH = append(p.SSHKeys, keyOne), &Lease{Length: time.Hour, GrantedIn: 1}
		},
		"an App":     func(p *Posture) { p.Apps = []App{appOf("x", roleOwner, seedFrom[appSeedKind](newDevice(t).random))} },
		"weak bans":  func(p *Posture) { p.Bans.MaxTries = 1000 },
		"a bad name": func(p *Posture) { p.NodeName = "" },
	} {
		p := Factory()
		change(&p)
		if _, _, err := New(config, p, 0); err == nil {
			t.Errorf("a factory posture with %s was accepted", name)
		}
	}
	built := Factory()
	built.SSHKeys = append(built.SSHKeys, keyOne) // an image may bring keys along
	ledger, _, err := New(config, built, 0)
	if err != nil || ledger.Effective().SSH != nil {
		t.Errorf("a key built into the image: %v, SSH %v", err, ledger.Effective().SSH)
	}
}

// submitAttacks withhold, replay and reorder what an owner has really signed.
var submitAttacks = []struct {
	name, stoppedBy string
	want            error
	attack          func(*attacked) []byte
}{
	{"withheld until its challenge was too old", "challenge", ErrChallenge, func(a *attacked) []byte {
		signed := SignDocument(a.draft(func(*Posture) {}), a.owner)
		a.pass(ChallengeLife)
		return signed
	}},
	{"withheld until the helper had restarted", "challenge", ErrChallenge, func(a *attacked) []byte {
		signed := SignDocument(a.draft(func(*Posture) {}), a.owner)
		a.restart()
		return signed
	}},
	{"with a challenge of its own", "challenge", ErrChallenge, func(a *attacked) []byte {
		doc := a.draft(func(*Posture) {})
		doc.Challenge = make([]byte, 32)
		return SignDocument(doc, a.owner)
	}},
	{"without a challenge", "challenge", ErrChallenge, func(a *attacked) []byte {
		doc := a.draft(func(*Posture) {})
		doc.Challenge = nil
		return SignDocument(doc, a.owner)
	}},
	{"with a challenge that another revision has used", "challenge", ErrChallenge, func(a *attacked) []byte {
		used := a.draft(func(p *Posture) { p.NodeName = "first" })
		a.must(a.ledger.Submit(SignDocument(used, a.owner), a.now))
		a.must(a.ledger.Applied(used.Revision, a.now))
		doc := a.draft(func(*Posture) {})
		doc.Challenge = used.Challenge
		return SignDocument(doc, a.owner)
	}},
	{"with a challenge that a confirmation has used", "challenge", ErrChallenge, func(a *attacked) []byte {
		a.try(a.owner, func(p *Posture) { p.NodeName = "tried" })
		confirmation := a.confirmation(a.owner, func(*systemv1.TryConfirmation) {})
		a.must(a.ledger.Confirm(encode(confirmation), true, a.now))
		var used systemv1.TryConfirmation
		if err := proto.Unmarshal(confirmation.Message, &used); err != nil {
			panic(err)
		}
		doc := a.draft(func(*Posture) {})
		doc.Challenge = used.Challenge
		return SignDocument(doc, a.owner)
	}},
	{"with a challenge given out for another revision", "challenge", ErrChallenge, func(a *attacked) []byte {
		early := a.challenge()
		a.change(a.owner, func(p *Posture) { p.NodeName = "first" })
		doc := a.draft(func(*Posture) {})
		doc.Challenge = early
		return SignDocument(doc, a.owner)
	}},
	{"while another change is being tried", "no other change", ErrBusy, func(a *attacked) []byte {
		a.try(a.owner, func(p *Posture) { p.NodeName = "tried" })
		return SignDocument(a.draft(func(*Posture) {}), a.owner)
	}},
	{"raises an App that was cut off while the document was held back", "raises nobody who was cut off", ErrCutOff, func(a *attacked) []byte {
		bob := PublicKey(a.pair("bob", viewer))
		signed := SignDocument(a.draft(setRole("bob", roleOwner)), a.owner)
		a.must(a.ledger.Restrict(Closing{Type: ClosingApp, App: bob}, ActorMiddleware, a.now))
		return signed
	}},
	{"by an owner who was cut off", "signed by an owner who was not cut off", ErrNotOwner, func(a *attacked) []byte {
		bob := a.cutOffOwner("bob")
		return SignDocument(a.draft(func(p *Posture) { p.NodeName = "bob's" }), bob)
	}},
	{"forbids the version that runs", "allows the version that runs", ErrTooNew, func(a *attacked) []byte {
		a.ledger.config.Running = "1.2.0"
		return SignDocument(a.draft(func(p *Posture) { p.OldestVersion = "1.2.1" }), a.owner)
	}},
	{"leaves an owner who was cut off alone", "an owner with rights is left", ErrLastOwner, func(a *attacked) []byte {
		a.cutOffOwner("bob")
		return SignDocument(a.draft(func(p *Posture) {
			for i := range p.Apps {
				if p.Apps[i].Name != "bob" {
					p.Apps[i].Role = viewer
				}
			}
		}), a.owner)
	}},
	{"a document of the helper's own, come back", "signed by an App", ErrNotOwner, func(a *attacked) []byte {
		doc := a.draft(func(*Posture) {})
		doc.Origin = systemv1.PostureDocument_ORIGIN_LOCAL
		return encode(seal(labelDocument, encode(doc), a.config.StateSeed))
	}},
}

// cutOffOwner is an App that is listed as owner, and was cut off before: by root here.
func (a *attacked) cutOffOwner(name string) AppSeed {
	a.t.Helper()
	seed := a.pair(name, viewer)
	a.must(a.ledger.Restrict(Closing{Type: ClosingApp, App: PublicKey(seed)}, ActorMiddleware, a.now))
	p, _ := a.ledger.Posture()
	p = clonePosture(p)
	setRole(name, roleOwner)(&p)
	a.must(a.ledger.Local(p, nil, "", a.now))
	a.must(a.ledger.Applied(a.ledger.chain.revision(), a.now))
	return seed
}

func TestWithheldAndReplayedDocumentsAreRefused(t *testing.T) {
	tried := map[string]bool{}
	for _, attack := range submitAttacks {
		t.Run(attack.name, func(t *testing.T) {
			a := newAttacked(t)
			signed := attack.attack(a)
			before := a.ledger.encode()
			out, err := a.ledger.Submit(signed, a.now)
			if !errors.Is(err, attack.want) {
				t.Errorf("got %v instead of %q", err, attack.want)
			}
			if out.Save != nil || out.Changed {
				t.Error("a refused document leads to something")
			}
			sameBytes(t, before, a.ledger.encode(), "the state after a refused document")

			a.ledger.submitChecks = without(t, submitChecks, func(c submitCheck) bool { return c.name == attack.stoppedBy })
			if _, err := a.ledger.Submit(signed, a.now); err != nil {
				t.Errorf("without the check %q something else stops it: %v", attack.stoppedBy, err)
			}
		})
		tried[attack.stoppedBy] = true
	}
	for _, check := range submitChecks {
		if !tried[check.name] {
			t.Errorf("no attack shows what the check %q is for", check.name)
		}
	}
}

func TestDocumentsAreRefusedOutOfOrderAndASecondTime(t *testing.T) {
	a := newAttacked(t)
	first := a.draft(func(p *Posture) { p.NodeName = "first" })
	second := proto.Clone(first).(*systemv1.PostureDocument)
	second.Revision++
	hash := hashOf(labelDocument, encode(first))
	second.PreviousHash = hash[:]
	rival := proto.Clone(first).(*systemv1.PostureDocument)
	rival.Posture.NodeName = "rival"

	refused := func(doc *systemv1.PostureDocument, want error) {
		t.Helper()
		if _, err := a.ledger.Submit(SignDocument(doc, a.owner), a.now); !errors.Is(err, want) {
			t.Errorf("got %v instead of %q", err, want)
		}
	}
	refused(second, ErrRevisionAhead)
	a.must(a.ledger.Submit(SignDocument(first, a.owner), a.now))
	refused(first, ErrRevisionTaken)
	refused(rival, ErrRevisionTaken)
	a.must(a.ledger.Applied(first.Revision, a.now))
	refused(first, ErrRevisionTaken)
	refused(rival, ErrRevisionTaken)
	refused(second, ErrChallenge) // its challenge went with the first
	if p, _ := a.ledger.Posture(); p.NodeName != "first" {
		t.Errorf("the Base is named %q", p.NodeName)
	}
}

func TestChallengesOfAFloodDoNotPileUp(t *testing.T) {
	d := newDevice(t)
	for range 1000 {
		d.challenge()
	}
	if n := len(d.ledger.challenges); n > maxChallenges {
		t.Errorf("%d challenges are kept", n)
	}
}

// confirmAttacks try to make a change stay that its owner cannot confirm.
var confirmAttacks = []struct {
	name, stoppedBy string
	want            error
	old             bool // over the connection that made the change
	attack          func(*attacked) []byte
}{
	{"unsigned", "signature", ErrSignature, false, func(a *attacked) []byte {
		signed := a.confirmation(a.owner, func(*systemv1.TryConfirmation) {})
		signed.Signature = nil
		return encode(signed)
	}},
	{"the owner's signature of the document itself", "signature", ErrSignature, false, func(a *attacked) []byte {
		signed := a.confirmation(a.owner, func(*systemv1.TryConfirmation) {})
		signed.Signature = a.ledger.chain.tip().signed.Signature
		return encode(signed)
	}},
	{"signed by an operator", "same App", ErrWrongTry, false, func(a *attacked) []byte {
		return encode(a.confirmation(a.operator, func(*systemv1.TryConfirmation) {}))
	}},
	{"signed by the owner taken away", "same App", ErrWrongTry, false, func(a *attacked) []byte {
		return encode(a.confirmation(a.removed, func(*systemv1.TryConfirmation) {}))
	}},
	{"signed by the owner who lowers itself by it", "still an owner", ErrNoOwnerAnyMore, false, func(a *attacked) []byte {
		a.pass(TryTime)
		a.device.owner("second")
		a.try(a.owner, func(p *Posture) { p.Apps[0].Role = basev1.Role_ROLE_VIEWER })
		return encode(a.confirmation(a.owner, func(*systemv1.TryConfirmation) {}))
	}},
	{"of another document for this revision", "same document", ErrWrongTry, false, func(a *attacked) []byte {
		return encode(a.confirmation(a.owner, func(c *systemv1.TryConfirmation) { c.DocumentHash[0] ^= 1 }))
	}},
	{"of another revision", "same document", ErrWrongTry, false, func(a *attacked) []byte {
		return encode(a.confirmation(a.owner, func(c *systemv1.TryConfirmation) { c.Revision-- }))
	}},
	{"of another Base", "same document", ErrWrongTry, false, func(a *attacked) []byte {
		return encode(a.confirmation(a.owner, func(c *systemv1.TryConfirmation) { c.BaseId = make([]byte, 32) }))
	}},
	{"of another epoch", "same document", ErrWrongTry, false, func(a *attacked) []byte {
		return encode(a.confirmation(a.owner, func(c *systemv1.TryConfirmation) { c.Epoch = make([]byte, 16) }))
	}},
	{"over the connection that was there before", "new connection", ErrOldConnection, true, func(a *attacked) []byte {
		return encode(a.confirmation(a.owner, func(*systemv1.TryConfirmation) {}))
	}},
	{"signed before the change was applied", "challenge", ErrChallenge, false, func(a *attacked) []byte {
		return encode(a.confirmation(a.owner, func(c *systemv1.TryConfirmation) { c.Challenge = a.earlyChallenge }))
	}},
	{"with a field from the future", "no unknown field", ErrUnknownField, false, func(a *attacked) []byte {
		signed := a.confirmation(a.owner, func(*systemv1.TryConfirmation) {})
		signed.ProtoReflect().SetUnknown(unknownField)
		return encode(signed)
	}},
	{"before the change was applied at all", "a try", ErrNoTry, false, func(a *attacked) []byte {
		a.pass(TryTime)
		doc := a.draft(func(p *Posture) { p.NodeName = "another" })
		doc.Try = true
		a.must(a.ledger.Submit(SignDocument(doc, a.owner), a.now))
		return encode(a.confirmation(a.owner, func(*systemv1.TryConfirmation) {}))
	}},
}

// newTried is an attacked Base on which a change is being tried.
func newTried(t tester) *attacked {
	a := newAttacked(t)
	doc := a.draft(a.openSSH(time.Hour))
	doc.Try, doc.Lifts = true, []uint64{1}
	a.must(a.ledger.Submit(SignDocument(doc, a.owner), a.now))
	a.earlyChallenge = a.challenge()
	a.must(a.ledger.Applied(doc.Revision, a.now))
	return a
}

func (a *attacked) confirmation(seed AppSeed, change func(*systemv1.TryConfirmation)) *systemv1.Signed {
	c := proto.Clone(a.look().Confirmation(a.challenge())).(*systemv1.TryConfirmation)
	change(c)
	return seal(labelConfirmation, encode(c), seed)
}

func TestForgedConfirmationsAreRefused(t *testing.T) {
	tried := map[string]bool{}
	for _, attack := range confirmAttacks {
		t.Run(attack.name, func(t *testing.T) {
			a := newTried(t)
			signed := attack.attack(a)
			before := a.ledger.phase
			if _, err := a.ledger.Confirm(signed, !attack.old, a.now); !errors.Is(err, attack.want) {
				t.Errorf("got %v instead of %q", err, attack.want)
			}
			if a.ledger.phase != before {
				t.Error("the try has ended")
			}
			a.ledger.confirmChecks = without(t, confirmChecks, func(c confirmCheck) bool { return c.name == attack.stoppedBy })
			if _, err := a.ledger.Confirm(signed, !attack.old, a.now); err != nil {
				t.Errorf("without the check %q something else stops it: %v", attack.stoppedBy, err)
			}
		})
		tried[attack.stoppedBy] = true
	}
	for _, check := range confirmChecks {
		if !tried[check.name] {
			t.Errorf("no attack shows what the check %q is for", check.name)
		}
	}
}

func TestConfirmationComesTooLate(t *testing.T) {
	a := newTried(t)
	signed := encode(a.confirmation(a.owner, func(*systemv1.TryConfirmation) {}))
	a.now += TryTime // and nobody has called Tick
	if _, err := a.ledger.Confirm(signed, true, a.now); !errors.Is(err, ErrNoTry) {
		t.Errorf("got %v", err)
	}
}

func TestConfirmedTryHolds(t *testing.T) {
	a := newTried(t)
	a.must(a.ledger.Confirm(encode(a.confirmation(a.owner, func(*systemv1.TryConfirmation) {})), true, a.now))
	a.pass(2 * TryTime)
	a.restart()
	if a.ledger.Effective().SSH == nil {
		t.Error("a confirmed change was undone")
	}
}

// A try that nobody confirms leaves what was before, whatever happens meanwhile:
// the content, the restriction that it had lifted, and the leases.
func TestUnconfirmedTryIsUndone(t *testing.T) {
	for name, happens := range map[string]func(*attacked){
		"after its time":                func(a *attacked) { a.pass(TryTime) },
		"by a crash":                    func(a *attacked) { a.restart() },
		"by a reboot":                   func(a *attacked) { a.reboot() },
		"by a crash long after":         func(a *attacked) { a.now += time.Hour / 2; a.restart() },
		"by the helper":                 func(a *attacked) { a.must(a.ledger.Undo(a.ledger.chain.revision(), "nginx refused it", a.now)) },
		"by a pairing at the Base":      func(a *attacked) { a.pair("new", basev1.Role_ROLE_VIEWER) },
		"by an App retired at the Base": func(a *attacked) { a.must(a.ledger.Retire(PublicKey(a.operator), "lost", a.now)) },
	} {
		t.Run(name, func(t *testing.T) {
			a := newTried(t)
			if e := a.ledger.Effective(); e.SSH == nil || e.Lockdown || len(e.Endpoints) != 2 {
				t.Fatalf("while tried it is not in force: %+v", e)
			}
			happens(a)
			e := a.ledger.Effective()
			if e.SSH != nil || !e.Lockdown || len(e.Endpoints) != 1 {
				t.Errorf("it was not undone whole: %+v", e)
			}
			a.lift(a.owner, 1)
			if e := a.ledger.Effective(); e.SSH != nil || len(e.Endpoints) != 2 || e.Endpoints[1].Remaining > time.Hour {
				t.Errorf("the lease from before the try: %+v", e)
			}
		})
	}
}

func TestTryIsUndoneInASavedLedgerThatForgetsItsPhaseOnlyIfBroken(t *testing.T) {
	a := newTried(t)
	var state systemv1.LedgerState
	if err := proto.Unmarshal(a.disk, &state); err != nil || !state.Pending {
		t.Fatalf("the saved state does not say that a try is on (%v)", err)
	}
	state.Pending = false // the broken variant: a try that is saved like any document
	ledger, _, err := Load(a.config, encode(&state), a.now)
	if err != nil || ledger.Effective().SSH == nil {
		t.Errorf("the broken variant undoes the try as well (%v): TestUnconfirmedTryIsUndone shows nothing", err)
	}
}

func TestChangeThatTookTooLongIsNotApplied(t *testing.T) {
	d := newDevice(t)
	owner := d.owner("owner")
	doc := d.draft(d.openSSH(time.Hour))
	d.must(d.ledger.Submit(SignDocument(doc, owner), d.now))
	d.now += ApplyTime // and nobody has called Tick
	out, err := d.ledger.Applied(doc.Revision, d.now)
	d.save(out)
	if err == nil || d.ledger.Effective().SSH != nil {
		t.Errorf("it is in force (%v)", err)
	}
}

// A crash between Submit and Applied ends in the old posture.
func TestDocumentThatWasNotAppliedIsUndone(t *testing.T) {
	const restarted = "the Base restarted before it was settled"
	for name, c := range map[string]struct {
		happens func(*device)
		why     string
	}{
		"by a crash":         {func(d *device) { d.restart() }, restarted},
		"by a reboot":        {func(d *device) { d.reboot() }, restarted},
		"by taking too long": {func(d *device) { d.pass(ApplyTime) }, "applying it took too long"},
		"because it failed": {func(d *device) {
			d.must(d.ledger.Undo(d.ledger.chain.revision(), "nginx refused it", d.now))
		}, "nginx refused it"},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDevice(t)
			owner := d.owner("owner")
			doc := d.draft(d.openSSH(time.Hour))
			d.must(d.ledger.Submit(SignDocument(doc, owner), d.now))
			c.happens(d)
			if d.ledger.Effective().SSH != nil {
				t.Error("it is in force nevertheless")
			}
			if _, err := d.ledger.Applied(doc.Revision, d.now); err == nil {
				t.Error("it can still be called applied")
			}
			d.change(owner, d.openSSH(time.Hour)) // and nothing is blocked
			last := d.ledger.chain.revision()
			d.change(owner, d.openElectrum(time.Hour))
			if why, holds := d.ledger.WhyUndone(doc.Revision), d.ledger.WhyUndone(last); why != c.why || holds != "" {
				t.Errorf("it was undone because %q, and the one that holds because %q", why, holds)
			}
		})
	}
}

func TestLockdownClosesAndOnlyWhatIsNamedIsLifted(t *testing.T) {
	d := newDevice(t)
	owner := d.owner("owner")
	d.change(owner, func(p *Posture) { d.openSSH(time.Hour)(p); d.openElectrum(time.Hour)(p) })
	open := d.ledger.Effective()
	d.must(d.ledger.Restrict(Closing{Type: ClosingPairing}, ActorMiddleware, d.now))
	d.must(d.ledger.Restrict(Closing{Type: ClosingLockdown}, ActorMiddleware, d.now))
	e := d.ledger.Effective()
	if e.SSH != nil || len(e.Endpoints) != 1 || !e.PairingClosed || !e.Lockdown {
		t.Errorf("a lockdown leaves open: %+v", e)
	}
	if len(e.Apps) != 1 {
		t.Error("a lockdown took a key away")
	}
	d.change(owner, func(p *Posture) { p.NodeName = "another" }) // has seen both, names none
	if e := d.ledger.Effective(); e.SSH != nil || !e.Lockdown {
		t.Errorf("a document that names no restriction lifted one: %+v", e)
	}
	d.lift(owner, 2)
	e = d.ledger.Effective()
	if e.SSH == nil || e.Lockdown || !e.PairingClosed {
		t.Errorf("after lifting the lockdown alone: %+v", e)
	}
	d.lift(owner, 1)
	if !EquallyOpen(d.ledger.Effective(), open) {
		t.Errorf("after lifting both: %+v", d.ledger.Effective())
	}
}

// A restriction that is recorded between the signing and the arrival of a document
// stays in force over it, and does not make it stale.
func TestRestrictionsThatADocumentHasNotSeenStayInForce(t *testing.T) {
	d := newDevice(t)
	owner := d.owner("owner")
	doc := d.draft(d.openSSH(time.Hour))
	d.must(d.ledger.Restrict(Closing{Type: ClosingLockdown}, ActorMiddleware, d.now))
	d.must(d.ledger.Submit(SignDocument(doc, owner), d.now))
	d.must(d.ledger.Applied(doc.Revision, d.now))
	if d.ledger.Effective().SSH != nil {
		t.Error("SSH is on in spite of a lockdown")
	}
	d.lift(owner, 1)
	if d.ledger.Effective().SSH == nil {
		t.Error("SSH stays off after the lockdown was lifted")
	}
}

// closingAttacks ask for restrictions that must not be recorded.
var closingAttacks = []struct {
	name, stoppedBy string
	want            error
	closing         func(*attacked) Closing
}{
	{"a second lockdown", "not again", ErrNothingToClose, func(*attacked) Closing { return Closing{Type: ClosingLockdown} }},
	{"a lease that does not run", "closes something", ErrNothingToClose, func(*attacked) Closing {
		return Closing{Type: ClosingLease, Kind: KindSSH, GrantedIn: 4}
	}},
	{"an App that is not there", "closes something", ErrNothingToClose, func(*attacked) Closing {
		return Closing{Type: ClosingApp, App: SigningKey{1}}
	}},
	{"an owner's App", "no owner", ErrOwnerCutOff, func(a *attacked) Closing {
		return Closing{Type: ClosingApp, App: PublicKey(a.owner)}
	}},
}

func TestRestrictionsThatCloseNothingOrAnOwnerAreNotRecorded(t *testing.T) {
	tried := map[string]bool{}
	for _, attack := range closingAttacks {
		t.Run(attack.name, func(t *testing.T) {
			a := newAttacked(t)
			closing := attack.closing(a)
			before := a.ledger.encode()
			if _, err := a.ledger.Restrict(closing, ActorMiddleware, a.now); !errors.Is(err, attack.want) {
				t.Errorf("got %v instead of %q", err, attack.want)
			}
			sameBytes(t, before, a.ledger.encode(), "the state after a refused restriction")

			a.ledger.closingChecks = without(t, closingChecks, func(c closingCheck) bool { return c.name == attack.stoppedBy })
			if _, err := a.ledger.Restrict(closing, ActorMiddleware, a.now); err != nil {
				t.Errorf("without the check %q something else stops it: %v", attack.stoppedBy, err)
			}
		})
		tried[attack.stoppedBy] = true
	}
	for _, check := range closingChecks {
		if !tried[check.name] {
			t.Errorf("no attack shows what the check %q is for", check.name)
		}
	}
}

// A taken-over Middleware asks for every restriction that it can think of, all
// the time. Storage stays bounded, and an owner can open again what it closed.
func TestFloodOfRestrictionsIsBoundedAndLocksNobodyOut(t *testing.T) {
	d := newDevice(t)
	owner := d.owner("owner")
	for range MaxApps - 1 {
		d.pair("app", basev1.Role_ROLE_OPERATOR)
	}
	d.change(owner, func(p *Posture) { d.openSSH(MaxLease)(p); d.openElectrum(MaxLease)(p) })
	flood := func() {
		d.blind = true
		defer func() { d.blind = false }()
		p, _ := d.ledger.Posture()
		for i := range 200 {
			closings := []Closing{
				{Type: ClosingLockdown},
				{Type: ClosingPairing},
				{Type: ClosingLease, Kind: KindSSH},
				{Type: ClosingLease, Kind: KindElectrum, GrantedIn: uint64(i)},
				{Type: ClosingLease, Kind: "made up", GrantedIn: uint64(i)},
				{Type: ClosingApp, App: SigningKey{byte(i), byte(i >> 8), 1}},
				{Type: ClosingApp, App: p.Apps[i%len(p.Apps)].SigningKey},
				{Type: ClosingApp, App: PublicKey(owner)},
				{Type: 99},
			}
			for _, closing := range closings {
				out, _ := d.ledger.Restrict(closing, ActorMiddleware, d.now)
				d.save(out)
			}
		}
	}
	for round := range 3 {
		before := len(d.ledger.chain.links)
		flood()
		if n := len(d.ledger.chain.links) - before; n > 2+2+MaxApps-1 {
			t.Errorf("round %d: %d restrictions were recorded", round, n)
		}
		var lifts []uint64
		for _, r := range d.look().Liftable() {
			lifts = append(lifts, r.Number)
		}
		doc := d.draft(d.openSSH(MaxLease))
		doc.Lifts = lifts
		d.must(d.ledger.Submit(SignDocument(doc, owner), d.now))
		d.must(d.ledger.Applied(doc.Revision, d.now))
		if e := d.ledger.Effective(); e.SSH == nil || e.PairingClosed {
			t.Fatalf("round %d: the owner cannot open what was closed: %+v", round, e)
		}
		d.restart()
	}
	// The broken variant records whatever is asked for.
	d.ledger.closingChecks = without(t, closingChecks, func(c closingCheck) bool { return c.name == "closes something" })
	before := len(d.ledger.chain.links)
	flood()
	if n := len(d.ledger.chain.links) - before; n < 200 {
		t.Errorf("the broken variant recorded %d: this flood shows little", n)
	}
}

func TestOwnersKeysAreTakenAwayByAnOwnerOrAtTheConsoleOnly(t *testing.T) {
	d := newDevice(t)
	alice, bob := d.owner("alice"), d.owner("bob")
	remove := func(seed AppSeed) func(*Posture) {
		return func(p *Posture) {
			p.Apps = slices.DeleteFunc(p.Apps, func(a App) bool { return a.SigningKey == PublicKey(seed) })
		}
	}
	for _, actor := range []Actor{ActorMiddleware, ActorConsole, ActorClock} {
		if _, err := d.ledger.Restrict(Closing{Type: ClosingApp, App: PublicKey(bob)}, actor, d.now); !errors.Is(err, ErrOwnerCutOff) {
			t.Errorf("cut off by %v: %v", actor, err)
		}
	}
	d.change(alice, remove(bob))
	if _, err := d.ledger.Submit(SignDocument(d.draft(func(*Posture) {}), bob), d.now); !errors.Is(err, ErrNotOwner) {
		t.Errorf("an owner who was taken away signs: %v", err)
	}
	d.must(d.ledger.Retire(PublicKey(alice), "lost", d.now))
	if len(d.ledger.Effective().Apps) != 0 {
		t.Error("the console cannot take the last owner away")
	}
	carol := d.owner("carol") // an owner who lost every App pairs again at the console
	d.change(carol, d.openSSH(time.Hour))
}

// An owner's App that is lowered to operator by a try must not be cut off while
// the try is on: undone, it would be an owner that nobody has signed away.
func TestOwnerLoweredByATryIsNotCutOff(t *testing.T) {
	d := newDevice(t)
	alice, bob := d.owner("alice"), d.owner("bob")
	d.try(alice, func(p *Posture) { p.Apps[1].Role = basev1.Role_ROLE_OPERATOR })
	if _, err := d.ledger.Restrict(Closing{Type: ClosingApp, App: PublicKey(bob)}, ActorMiddleware, d.now); !errors.Is(err, ErrOwnerCutOff) {
		t.Errorf("got %v", err)
	}
	d.pass(TryTime)
	d.change(bob, func(p *Posture) { p.NodeName = "bob's" })
}

// A restriction that is recorded during a try outlives the try, even if the tried
// document itself did not open what it closes.
func TestClosedDuringATryStaysClosedAfterIt(t *testing.T) {
	d := newDevice(t)
	owner := d.owner("owner")
	operator := d.pair("operator", basev1.Role_ROLE_OPERATOR)
	d.change(owner, d.openSSH(time.Hour))
	d.try(owner, func(p *Posture) { p.SSH, p.Apps = nil, p.Apps[:1] })
	d.must(d.ledger.Restrict(Closing{Type: ClosingLease, Kind: KindSSH}, ActorMiddleware, d.now))
	d.must(d.ledger.Restrict(Closing{Type: ClosingApp, App: PublicKey(operator)}, ActorMiddleware, d.now))
	d.pass(TryTime)
	if e := d.ledger.Effective(); e.SSH != nil || len(e.Apps) != 1 {
		t.Errorf("open again: %+v", e)
	}
}

func TestConsoleCanAlwaysActAndIsRecordedAsLocal(t *testing.T) {
	a := newTried(t)
	a.pass(TryTime)
	a.try(a.owner, func(p *Posture) { p.NodeName = "tried" })
	p, _ := a.ledger.Posture()
	p = clonePosture(p)
	p.PairingClosed = true
	a.must(a.ledger.Local(p, []uint64{1}, "at the console", a.now))
	a.must(a.ledger.Applied(a.ledger.chain.revision(), a.now))
	if e := a.ledger.Effective(); !e.PairingClosed || e.Lockdown {
		t.Errorf("the console's posture is not in force: %+v", e)
	}
	history := a.look().History()
	last := history[len(history)-1]
	if last.By != "the Base's console" || last.Note != "at the console" {
		t.Errorf("recorded as %+v", last)
	}
	if _, err := a.ledger.Local(Posture{}, nil, "", a.now); err == nil {
		t.Error("the console can set a posture that is none")
	}
}

func TestGoingBackIsANewRevisionThatBringsNobodyBack(t *testing.T) {
	d := newDevice(t)
	alice, bob := d.owner("alice"), d.owner("bob")
	d.change(alice, func(p *Posture) { d.openElectrum(time.Hour)(p); p.NodeName = "good" })
	good := d.ledger.chain.revision()
	d.change(alice, func(p *Posture) {
		p.Extras, p.NodeName = nil, "bad"
		p.Apps = p.Apps[:1]
	})
	d.pass(30 * time.Minute)
	back, err := d.look().Back(good)
	if err != nil {
		t.Fatal(err)
	}
	d.change(alice, func(p *Posture) { *p = back })
	e := d.ledger.Effective()
	if e.Revision != good+2 || e.NodeName != "good" || len(e.Endpoints) != 2 || e.Endpoints[1].Remaining != time.Hour {
		t.Errorf("after going back: %+v", e)
	}
	if len(e.Apps) != 1 || e.Apps[0].SigningKey == PublicKey(bob) {
		t.Errorf("going back has brought an App back: %+v", e.Apps)
	}
	for _, revision := range []uint64{d.next(), d.next() - 1} {
		if _, err := d.ledger.Back(revision); err == nil {
			t.Errorf("one can go back to revision %d, which is not before the last", revision)
		}
	}
}

func TestResetVoidsWhatWasSignedBefore(t *testing.T) {
	d := newDevice(t)
	owner := d.owner("owner")
	doc := d.draft(d.openSSH(time.Hour))
	signed := SignDocument(doc, owner)
	_, _, _ = d.ledger.Report(make([]byte, nonceSize), d.now)

	before := d.memory
	ledger, out, err := New(d.config, Factory(), d.now)
	d.ledger, d.memory = ledger, Memory{}
	d.must(out, err)
	d.must(d.ledger.Enrol(appOf("owner", roleOwner, owner), "", d.now))
	if _, err := d.ledger.Submit(signed, d.now); !errors.Is(err, ErrWrongEpoch) {
		t.Errorf("a document from before the reset: %v", err)
	}
	// And an App that remembers the epoch before does not go on as if nothing was.
	nonce := make([]byte, nonceSize)
	report, _, _ := d.ledger.Report(nonce, d.now)
	_, err = VerifyChain(Expectation{Base: PublicKey(d.config.StateSeed), Memory: before, Nonce: nonce}, d.ledger.Chain(), report)
	if !errors.Is(err, ErrWrongEpoch) {
		t.Errorf("an App of the epoch before: %v", err)
	}
}

func TestDamagedStateIsALoudRefusal(t *testing.T) {
	a := newAttacked(t)
	a.restart()
	for n := range a.disk {
		if _, _, err := Load(a.config, a.disk[:n], a.now); err == nil {
			// A beginning that ends between two fields of the outermost message is
			// only possible after the whole chain.
			var state systemv1.LedgerState
			if proto.Unmarshal(a.disk[:n], &state) != nil || !proto.Equal(state.Chain, a.stored().Chain) {
				t.Fatalf("loaded from %d of %d bytes", n, len(a.disk))
			}
		}
	}
	other := a.config
	other.StateSeed = seedFrom[stateSeedKind](a.random)
	if _, _, err := Load(other, a.disk, a.now); !errors.Is(err, ErrState) {
		t.Errorf("loaded with another Base's key: %v", err)
	}
	impossible := a.stored()
	impossible.Pending = true
	impossible.Chain.Documents, impossible.Chain.Restrictions = nil, nil
	if _, _, err := Load(a.config, encode(impossible), a.now); !errors.Is(err, ErrState) {
		t.Errorf("loaded with a factory posture that is not settled: %v", err)
	}
	twice := a.stored()
	documents := twice.Chain.Documents
	twice.Chain.Documents = append(documents, documents[len(documents)-1])
	which := fmt.Sprintf("document for revision %d: ", a.ledger.chain.revision())
	if _, _, err := Load(a.config, encode(twice), a.now); !errors.Is(err, ErrState) || !strings.Contains(err.Error(), which) {
		t.Errorf("the last document is there twice, and the helper does not say which one it is: %v", err)
	}
	future := a.stored()
	future.ProtoReflect().SetUnknown(unknownField)
	if _, _, err := Load(a.config, encode(future), a.now); !errors.Is(err, ErrUnknownField) {
		t.Errorf("loaded a state of a newer version: %v", err)
	}
}

// stored is what is on the disk.
func (d *device) stored() *systemv1.LedgerState {
	var state systemv1.LedgerState
	if err := proto.Unmarshal(d.disk, &state); err != nil {
		d.t.Fatalf("the saved state: %v", err)
	}
	return &state
}
