package posture

import (
	"bytes"
	"net/netip"
	"testing"

	"google.golang.org/protobuf/proto"

	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
)

// Whatever arrives as a signed document: nothing but the one that an owner has
// signed is ever the next of the chain.
func FuzzDocument(f *testing.F) {
	a := newAttacked(f)
	honest := forge(a, a.owner, func(*systemv1.PostureDocument) {})
	f.Add(encode(honest))
	f.Add(encode(forge(a, a.operator, func(*systemv1.PostureDocument) {})))
	f.Add(encode(a.ledger.chain.tip().signed))
	for _, attack := range documentAttacks {
		f.Add(encode(attack.forge(newAttacked(f))))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var signed systemv1.Signed
		if read(b, MaxDocumentSize, &signed) != nil {
			return
		}
		d, err := decodeDocument(&signed)
		if err != nil || a.ledger.chain.check(d) != nil {
			return
		}
		if !bytes.Equal(signed.Message, honest.Message) {
			t.Errorf("accepted: %x", b)
		}
	})
}

// Whatever arrives as a confirmation confirms nothing.
func FuzzConfirmation(f *testing.F) {
	a := newTried(f)
	signed := a.confirmation(a.owner, func(c *systemv1.TryConfirmation) { c.Revision++ })
	f.Add(encode(signed))
	for _, attack := range confirmAttacks {
		if !attack.old { // over a new connection that one would be right
			f.Add(attack.attack(newTried(f)))
		}
	}
	before := a.ledger.phase
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := a.ledger.Confirm(b, true, a.now); err == nil || a.ledger.phase != before {
			t.Errorf("confirmed by %x", b)
		}
	})
}

// Whatever a Middleware shows to an App: the App believes nothing but the truth.
func FuzzVerifyChain(f *testing.F) {
	_, honest, old := newLooked(f)
	f.Add(honest.history, honest.report)
	f.Add(old.history, old.report)
	f.Add(old.history, honest.report)
	truth, err := VerifyChain(honest.expect, honest.history, honest.report)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, history, report []byte) {
		view, err := VerifyChain(honest.expect, history, report)
		if err == nil && (view.Memory() != truth.Memory() || len(Diff(truth.Effective(), view.Effective())) > 0) {
			t.Errorf("believed: %x %x", history, report)
		}
	})
}

// Whatever is on the disk: it is refused, or loaded no more open than its last
// document grants, and what was loaded can be saved and loaded again.
func FuzzLoad(f *testing.F) {
	for _, a := range []*attacked{newAttacked(f), newTried(f)} {
		f.Add(a.disk)
	}
	a := newAttacked(f)
	f.Fuzz(func(t *testing.T, saved []byte) {
		ledger, out, err := Load(a.config, saved, a.now)
		if err != nil {
			return
		}
		if granted := asGranted(ledger.chain.tip(), nil); !NoMoreOpen(ledger.Effective(), granted) {
			t.Error("more open than granted")
		}
		if _, _, err := Load(a.config, out.Save, a.now); err != nil {
			t.Errorf("cannot be loaded again: %v", err)
		}
	})
}

func FuzzRestriction(f *testing.F) {
	a := newAttacked(f)
	a.must(a.ledger.Restrict(Closing{Type: ClosingLease, Kind: KindElectrum}, ActorConsole, a.now))
	a.must(a.ledger.Restrict(Closing{Type: ClosingApp, App: PublicKey(a.operator)}, ActorMiddleware, a.now))
	for _, l := range a.ledger.chain.links {
		f.Add(l.raw)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		m, r, err := parseRestriction(raw)
		if err != nil {
			return
		}
		again := proto.Clone(m).(*systemv1.Restriction)
		again.What = nil
		r.describe(again)
		if !proto.Equal(m, again) {
			t.Errorf("read as %+v, written as %v", r.Closing, again)
		}
	})
}

// Accepted content is the same after it was written and read again, and
// a factory posture's worth of leases opens nothing.
func FuzzPosture(f *testing.F) {
	f.Add(encode(fullPosture().Proto()))
	f.Add(encode(Factory().Proto()))
	f.Fuzz(func(t *testing.T, b []byte) {
		var m systemv1.Posture
		if readStrict(b, MaxDocumentSize, &m) != nil {
			return
		}
		p, err := FromProto(&m)
		if err != nil {
			return
		}
		again, err := FromProto(p.Proto())
		if err != nil || !bytes.Equal(encode(p.Proto()), encode(again.Proto())) {
			t.Errorf("%+v is read again as %+v (%v)", p, again, err)
		}
		if e := effective(1, p, nil, nil); len(e.Endpoints) != 1 || e.SSH != nil {
			t.Errorf("open without a running lease: %+v", e)
		}
	})
}

// Whatever arrives as an order or answer about a pairing, or as the report of one, is
// nobody's who has not signed it.
func FuzzPairingOrders(f *testing.F) {
	a := newAttacked(f)
	view := a.look()
	number, answer := uint32(123456), view.PairingAnswer(make([]byte, 16), make([]byte, 12), viewer, make([]byte, 32), "phone", a.challenge())
	f.Add(SignPairingOrder(view.PairingOrder(viewer, &number, a.challenge()), a.removed))
	f.Add(SignPairingAnswer(answer, a.operator))
	f.Add(a.ledger.PairingReport(answer, false))
	f.Add(SignLiftBan(view.LiftBanOrder(netip.MustParseAddr("192.0.2.1"), a.challenge()), a.owner))
	challenges := len(a.ledger.challenges)
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, _, _, err := a.ledger.PairingOrder(b, a.now); err == nil {
			t.Errorf("taken as an order: %x", b)
		}
		if _, _, _, err := a.ledger.PairingAnswer(b, a.now); err == nil {
			t.Errorf("taken as an answer: %x", b)
		}
		if matched, _ := view.PairingMatched(answer, b); matched {
			t.Errorf("believed: %x", b)
		}
		if len(a.ledger.challenges) != challenges {
			t.Errorf("a challenge was used up by %x", b)
		}
	})
}
