package posture

import (
	"fmt"
	"reflect"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
)

// world is a Base with owners who change things and a taken-over Middleware that
// does what it likes with all that passes it.
type world struct {
	*device
	owners, others []AppSeed
	// kept is everything that any App ever signed and the Middleware has kept,
	// delivered or not.
	kept [][]byte
	// last is what was in force after the last step.
	last Effective
	// pending is the revision that was not settled after the last step, 0 if it was.
	pending uint64
}

// mayOpen marks a step that may leave the Base more open: an owner's signature, an
// act at the Base, or the undoing of a try. Any other step must not.
type step struct {
	mayOpen bool
	do      func(*world, *rapid.T)
}

var steps = map[string]step{
	"an owner changes something": {true, func(w *world, t *rapid.T) { w.submit(t, false) }},
	"an owner tries something":   {true, func(w *world, t *rapid.T) { w.submit(t, true) }},
	"the try is confirmed": {false, func(w *world, t *rapid.T) {
		if w.ledger.phase != phaseTrying {
			return
		}
		for _, owner := range w.owners {
			signed := SignConfirmation(w.look().Confirmation(w.challenge()), owner)
			out, _ := w.ledger.Confirm(signed, true, w.now) // the one who has signed it succeeds
			w.save(out)
		}
	}},
	"something signed is withheld": {false, func(w *world, t *rapid.T) { w.sign(t, rapid.Bool().Draw(t, "try")) }},
	"something withheld is delivered": {true, func(w *world, t *rapid.T) {
		if len(w.kept) == 0 {
			return
		}
		revision := w.ledger.chain.revision()
		signed := rapid.SampledFrom(w.kept).Draw(t, "kept")
		out, err := w.ledger.Submit(signed, w.now)
		w.save(out)
		if err == nil && w.ledger.chain.revision() != revision+1 {
			t.Fatal("accepted, but not as the next revision")
		}
	}},
	"the Middleware forges a document": {false, func(w *world, t *rapid.T) {
		doc := w.draft(func(p *Posture) { w.anyChange(t)(p) })
		seed := seedFrom[appSeedKind](w.random)
		p, _ := w.ledger.Posture()
		others := slices.DeleteFunc(slices.Clone(w.others), func(seed AppSeed) bool {
			app, _ := findApp(p.Apps, PublicKey(seed))
			return app.Role == roleOwner // raised by an owner
		})
		if len(others) > 0 && rapid.Bool().Draw(t, "by an App that is no owner") {
			seed = rapid.SampledFrom(others).Draw(t, "other")
		}
		if _, err := w.ledger.Submit(SignDocument(doc, seed), w.now); err == nil {
			t.Fatal("a forged document was accepted")
		}
	}},
	"the Middleware restricts something": {false, func(w *world, t *rapid.T) {
		p, revision := w.ledger.Posture()
		closing := Closing{Type: ClosingType(rapid.IntRange(1, 4).Draw(t, "closing"))}
		switch closing.Type {
		case ClosingLease:
			closing.Kind = rapid.SampledFrom([]Kind{KindSSH, KindElectrum}).Draw(t, "kind")
			closing.GrantedIn = rapid.Uint64Range(0, revision+1).Draw(t, "granted in")
		case ClosingApp:
			if len(p.Apps) > 0 {
				closing.App = rapid.SampledFrom(p.Apps).Draw(t, "App").SigningKey
			}
		}
		out, _ := w.ledger.Restrict(closing, ActorMiddleware, w.now)
		w.save(out)
	}},
	"the helper has applied it": {false, func(w *world, _ *rapid.T) {
		out, _ := w.ledger.Applied(w.ledger.chain.revision(), w.now)
		w.save(out)
	}},
	"the helper could not apply it": {true, func(w *world, _ *rapid.T) {
		out, _ := w.ledger.Undo(w.ledger.chain.revision(), "it could not", w.now)
		w.save(out)
	}},
	"time passes": {true, func(w *world, t *rapid.T) {
		w.pass(time.Duration(rapid.Int64Range(0, int64(20*time.Minute)).Draw(t, "span")))
	}},
	"the helper crashes": {true, func(w *world, _ *rapid.T) { w.restart() }},
	"the power fails":    {true, func(w *world, _ *rapid.T) { w.reboot() }},
	"an App is paired": {true, func(w *world, t *rapid.T) {
		if p, _ := w.ledger.Posture(); len(p.Apps) == MaxApps {
			return
		}
		if rapid.Bool().Draw(t, "as owner") {
			w.owners = append(w.owners, w.owner("owner"))
		} else {
			w.others = append(w.others, w.pair("viewer", basev1.Role_ROLE_VIEWER))
		}
	}},
	"an App is retired at the console": {true, func(w *world, t *rapid.T) {
		if p, _ := w.ledger.Posture(); len(p.Apps) > 0 {
			app := rapid.SampledFrom(p.Apps).Draw(t, "App")
			w.must(w.ledger.Retire(app.SigningKey, "", w.now))
		}
	}},
}

// anyChange draws a change that an owner might make.
func (w *world) anyChange(t *rapid.T) func(*Posture) {
	length := time.Duration(rapid.Int64Range(300, 3600).Draw(t, "lease")) * time.Second
	me := rapid.IntRange(0, 1000).Draw(t, "which App")
	what := rapid.IntRange(0, 9).Draw(t, "change")
	ssh, electrum := w.openSSH(length), w.openElectrum(length)
	return func(p *Posture) {
		switch what {
		case 0:
			ssh(p)
		case 1:
			electrum(p)
		case 2:
			p.SSH = nil
		case 3:
			p.Extras = nil
		case 4:
			p.PairingClosed = !p.PairingClosed
		case 5:
			p.Egress = []Service{Services[me%len(Services)]}
		case 6:
			p.Bans.MaxTries = MinTries + uint32(me)%(MaxTries-MinTries)
		case 7:
			if len(p.Apps) > 1 { // perhaps the last owner: then it is refused
				p.Apps = slices.Delete(p.Apps, me%len(p.Apps), me%len(p.Apps)+1)
			}
		case 8:
			if len(p.Apps) > 0 { // the same: the last owner stays one
				p.Apps[me%len(p.Apps)].Role = basev1.Role(1 + me%3)
			}
		case 9:
			electrum(p)
			p.Extras[0].Lease = Lease{UntilClosed: true, GrantedIn: p.Extras[0].Lease.GrantedIn}
		}
	}
}

// sign has one of the owners sign a change, nil if there is none.
func (w *world) sign(t *rapid.T, try bool) []byte {
	p, _ := w.ledger.Posture()
	current := slices.DeleteFunc(slices.Clone(w.owners), func(seed AppSeed) bool {
		app, found := findApp(p.Apps, PublicKey(seed))
		return !found || app.Role != roleOwner
	})
	if len(current) == 0 {
		return nil
	}
	doc := w.draft(w.anyChange(t))
	doc.Try = try
	if rapid.Bool().Draw(t, "lift") {
		for _, r := range w.look().Liftable() {
			doc.Lifts = append(doc.Lifts, r.Number)
		}
	}
	signed := SignDocument(doc, rapid.SampledFrom(current).Draw(t, "owner"))
	w.kept = append(w.kept, signed)
	return signed
}

func (w *world) submit(t *rapid.T, try bool) {
	if signed := w.sign(t, try); signed != nil {
		out, _ := w.ledger.Submit(signed, w.now)
		w.save(out)
	}
}

// check is what must hold after every step.
func (w *world) check(t *rapid.T, name string, mayOpen bool) {
	w.save(w.ledger.Tick(w.now))
	view := w.look() // an App believes the chain, and it goes on from what it has seen
	e := w.ledger.Effective()
	if w.pending == w.ledger.chain.revision() && w.ledger.phase == phaseSettled {
		for i, app := range w.last.Apps { // whom it raises is raised now
			now, _ := findApp(w.ledger.chain.tip().posture.Apps, app.SigningKey)
			w.last.Apps[i].Role = max(app.Role, now.Role)
		}
		w.last.PairingClosed = w.last.PairingClosed && e.PairingClosed // and so is pairing opened
	}
	w.pending = 0
	if w.ledger.phase != phaseSettled {
		w.pending = w.ledger.chain.revision()
	}
	if !mayOpen && !NoMoreOpen(e, w.last) {
		t.Fatalf("%s: the Base is more open than before:\n%+v\n%+v", name, w.last, e)
	}
	if !EquallyOpen(view.Effective(), e) {
		// Milliseconds on the wire.
		if !NoMoreOpen(view.Effective(), e) {
			t.Fatalf("%s: the App sees\n%+v\nin force is\n%+v", name, view.Effective(), e)
		}
	}
	if granted := asGranted(w.ledger.chain.tip(), nil); !NoMoreOpen(e, granted) {
		t.Fatalf("%s: more is open than the last document grants", name)
	}
	saved, _, err := Load(w.config, w.disk, w.now)
	if err != nil {
		t.Fatalf("%s: what was saved cannot be loaded: %v", name, err)
	}
	if w.ledger.phase == phaseSettled && !NoMoreOpen(saved.Effective(), e) {
		t.Fatalf("%s: after a crash the Base is more open:\n%+v\n%+v", name, e, saved.Effective())
	}
	if would, is := withoutCounts(w.ledger.Undone()), withoutCounts(saved.Effective()); !reflect.DeepEqual(would, is) {
		t.Fatalf("%s: undone would be\n%+v\nundone is\n%+v", name, would, is)
	}
	w.last = e
}

// withoutCounts leaves out the revision, and the time that leases have left, which is saved in milliseconds.
func withoutCounts(e Effective) Effective {
	e.Revision = 0
	e.Endpoints = slices.Clone(e.Endpoints)
	for i := range e.Endpoints {
		e.Endpoints[i].Remaining = 0
	}
	if e.SSH != nil {
		e.SSH = &SSH{Keys: e.SSH.Keys}
	}
	return e
}

func TestOnlyOwnersAndActsAtTheBaseEverOpenIt(t *testing.T) {
	names := make([]string, 0, len(steps))
	for name := range steps {
		names = append(names, name)
	}
	slices.Sort(names)
	rapid.Check(t, func(t *rapid.T) {
		w := &world{device: newDevice(t)}
		w.blind = true
		w.keep(rapid.SampledFrom([]int{1, 2, 3, 5, keptRevisions}).Draw(t, "kept revisions"))
		w.owners = []AppSeed{w.owner("first")}
		w.last = w.ledger.Effective()
		for range rapid.IntRange(1, 25).Draw(t, "steps") {
			name := rapid.SampledFrom(names).Draw(t, "step")
			before := w.ledger.chain.revision()
			steps[name].do(w, t)
			// A step that appends no revision can open nothing, whatever it is.
			w.check(t, name, steps[name].mayOpen && w.ledger.chain.revision() != before)
		}

		// And nobody is locked out: after a new pairing at the most, an owner opens
		// what there is to open.
		w.pass(TryTime + ApplyTime)
		owner := w.owner("last")
		doc := w.draft(w.openSSH(time.Hour))
		for _, r := range w.look().Liftable() {
			doc.Lifts = append(doc.Lifts, r.Number)
		}
		w.must(w.ledger.Submit(SignDocument(doc, owner), w.now))
		w.must(w.ledger.Applied(doc.Revision, w.now))
		if w.ledger.Effective().SSH == nil {
			t.Fatal("the owner is locked out")
		}
	})
}

func TestHistoryTellsWhoDidWhatAndUntilWhen(t *testing.T) {
	d := newDevice(t)
	owner := d.owner("Laptop")
	d.change(owner, d.openSSH(MinLease))
	d.pass(MinLease)
	d.must(d.ledger.Restrict(Closing{Type: ClosingLockdown}, ActorMiddleware, d.now))
	d.try(owner, d.openElectrum(time.Hour))
	d.pass(TryTime)
	d.lift(owner, 2)

	var got []string
	for _, event := range d.look().History() {
		line := fmt.Sprintf("%d/%d %s", event.Revision, event.Restriction, event.By)
		if event.Note != "" {
			line += " (" + event.Note + ")"
		}
		for _, c := range event.Changes {
			line += "\n  " + c.Done
		}
		got = append(got, line)
	}
	fingerprint := testKey("laptop").Fingerprint
	want := []string{
		"0/0 the factory",
		"1/0 a pairing at the Base\n  The App 'Laptop' is now paired as owner.",
		"2/0 the App 'Laptop'\n  SSH is now switched on for 5 minutes for the key 'laptop' (" + fingerprint + ")." +
			"\n  The SSH key 'laptop' (" + fingerprint + ") is now added; a key lets somebody in only while SSH is on.",
		"2/1 the end of its time\n  SSH is now switched off, and its sessions ended.",
		"2/2 an App\n  The Base is now locked down: SSH off, extra APIs closed, no pairing from the network." +
			"\n  Pairing from the network is now closed; the console can still open a window.",
		"3/0 the App 'Laptop'",
		"4/0 the Base, which undid the previous revision (not confirmed in time)",
		"5/0 the App 'Laptop'\n  Pairing is now possible again when an owner opens a window.\n  The lockdown is now lifted.",
	}
	if !slices.Equal(got, want) {
		for i := range max(len(got), len(want)) {
			if i >= len(got) || i >= len(want) || got[i] != want[i] {
				t.Errorf("line %d:\ngot  %q\nwant %q", i, got[i:min(i+1, len(got))], want[i:min(i+1, len(want))])
			}
		}
	}
}
