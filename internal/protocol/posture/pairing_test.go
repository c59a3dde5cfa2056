package posture

import (
	"errors"
	"testing"

	"google.golang.org/protobuf/proto"

	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/secret"
)

// pairingOrder is the signed order to accept a request, changed before it is signed.
func pairingOrder[Kind any](a *attacked, seed secret.Key[Kind], change func(*systemv1.PairingOrder)) *systemv1.Signed {
	number := uint32(123456)
	m := proto.Clone(a.look().PairingOrder(viewer, &number, a.challenge())).(*systemv1.PairingOrder)
	change(m)
	return seal(labelPairingOrder, encode(m), seed)
}

// pairingAnswer is the signed answer to a ceremony, changed before it is signed.
func pairingAnswer[Kind any](a *attacked, seed secret.Key[Kind], change func(*systemv1.PairingAnswer)) *systemv1.Signed {
	m := proto.Clone(a.look().PairingAnswer(make([]byte, 16), make([]byte, 12), viewer, make([]byte, 32), "phone",
		a.challenge())).(*systemv1.PairingAnswer)
	change(m)
	return seal(labelPairingAnswer, encode(m), seed)
}

func sameOrder(*systemv1.PairingOrder)   {}
func sameAnswer(*systemv1.PairingAnswer) {}

var pairingOrderAttacks = []struct {
	name, stoppedBy string
	want            error
	order, answer   func(*attacked) *systemv1.Signed
}{
	{"with a field from the future", "no unknown field", ErrUnknownField, func(a *attacked) *systemv1.Signed {
		return pairingOrder(a, a.owner, func(m *systemv1.PairingOrder) { m.ProtoReflect().SetUnknown(unknownField) })
	}, func(a *attacked) *systemv1.Signed {
		return pairingAnswer(a, a.owner, func(m *systemv1.PairingAnswer) { m.ProtoReflect().SetUnknown(unknownField) })
	}},
	{"for another Base", "this Base", ErrWrongBase, func(a *attacked) *systemv1.Signed {
		return pairingOrder(a, a.owner, func(m *systemv1.PairingOrder) { m.BaseId = make([]byte, 32) })
	}, func(a *attacked) *systemv1.Signed {
		return pairingAnswer(a, a.owner, func(m *systemv1.PairingAnswer) { m.BaseId = make([]byte, 32) })
	}},
	{"from before a reset", "this epoch", ErrWrongEpoch, func(a *attacked) *systemv1.Signed {
		return pairingOrder(a, a.owner, func(m *systemv1.PairingOrder) { m.Epoch = make([]byte, 16) })
	}, func(a *attacked) *systemv1.Signed {
		return pairingAnswer(a, a.owner, func(m *systemv1.PairingAnswer) { m.Epoch = make([]byte, 16) })
	}},
	{"signed by an operator", "signer", ErrNotOwner, func(a *attacked) *systemv1.Signed {
		return pairingOrder(a, a.operator, sameOrder)
	}, func(a *attacked) *systemv1.Signed { return pairingAnswer(a, a.operator, sameAnswer) }},
	{"signed by an owner who was taken away", "signer", ErrNotOwner, func(a *attacked) *systemv1.Signed {
		return pairingOrder(a, a.removed, sameOrder)
	}, func(a *attacked) *systemv1.Signed { return pairingAnswer(a, a.removed, sameAnswer) }},
	{"signed by an owner who was lowered", "signer", ErrNotOwner, func(a *attacked) *systemv1.Signed {
		second := a.device.owner("second")
		a.change(a.owner, setRole("second", operator))
		return pairingOrder(a, second, sameOrder)
	}, func(a *attacked) *systemv1.Signed {
		second := a.device.owner("second")
		a.change(a.owner, setRole("second", operator))
		return pairingAnswer(a, second, sameAnswer)
	}},
	{"signed by an App that is being tried as owner", "signer", ErrNotOwner, func(a *attacked) *systemv1.Signed {
		a.try(a.owner, setRole("operator", roleOwner))
		return pairingOrder(a, a.operator, sameOrder)
	}, func(a *attacked) *systemv1.Signed {
		a.try(a.owner, setRole("operator", roleOwner))
		return pairingAnswer(a, a.operator, sameAnswer)
	}},
	{"not signed", "signature", ErrSignature, func(a *attacked) *systemv1.Signed {
		signed := pairingOrder(a, a.owner, sameOrder)
		signed.Signature = nil
		return signed
	}, func(a *attacked) *systemv1.Signed {
		signed := pairingAnswer(a, a.owner, sameAnswer)
		signed.Signature = nil
		return signed
	}},
	{"with a higher role under an owner's signature", "signature", ErrSignature, func(a *attacked) *systemv1.Signed {
		honest := pairingOrder(a, a.owner, sameOrder)
		signed := pairingOrder(a, a.owner, func(m *systemv1.PairingOrder) { m.Role = roleOwner })
		signed.Signature = honest.Signature
		return signed
	}, func(a *attacked) *systemv1.Signed {
		honest := pairingAnswer(a, a.owner, sameAnswer)
		signed := pairingAnswer(a, a.owner, func(m *systemv1.PairingAnswer) { m.Role = roleOwner })
		signed.Signature = honest.Signature
		return signed
	}},
	{"given out for something else that an owner has signed", "signature", ErrSignature, func(a *attacked) *systemv1.Signed {
		return seal(labelReset, pairingOrder(a, a.owner, sameOrder).GetMessage(), a.owner)
	}, func(a *attacked) *systemv1.Signed {
		return seal(labelPairingOrder, pairingAnswer(a, a.owner, sameAnswer).GetMessage(), a.owner)
	}},
	{"withheld", "challenge", ErrChallenge, func(a *attacked) *systemv1.Signed {
		signed := pairingOrder(a, a.owner, sameOrder)
		a.pass(ChallengeLife)
		return signed
	}, func(a *attacked) *systemv1.Signed {
		signed := pairingAnswer(a, a.owner, sameAnswer)
		a.pass(ChallengeLife)
		return signed
	}},
	{"a second time", "challenge", ErrChallenge, func(a *attacked) *systemv1.Signed {
		signed := pairingOrder(a, a.owner, sameOrder)
		owner, order, out, err := a.ledger.PairingOrder(encode(signed), a.now)
		a.must(out, err)
		if owner != PublicKey(a.owner) || order.GetNumber() != 123456 || order.GetRole() != viewer {
			a.t.Fatalf("%v orders %v", owner, order)
		}
		return signed
	}, func(a *attacked) *systemv1.Signed {
		signed := pairingAnswer(a, a.owner, sameAnswer)
		owner, _, out, err := a.ledger.PairingAnswer(encode(signed), a.now)
		a.must(out, err)
		if owner != PublicKey(a.owner) {
			a.t.Fatalf("%v answers", owner)
		}
		return signed
	}},
}

func TestForgedOrdersAboutAPairingAreRefused(t *testing.T) {
	tried := map[string]bool{}
	for _, attack := range pairingOrderAttacks {
		t.Run(attack.name, func(t *testing.T) {
			checks := without(t, orderChecks, func(c orderCheck) bool { return c.name == attack.stoppedBy })
			a := newAttacked(t)
			signed := encode(attack.order(a))
			if _, order, _, err := a.ledger.PairingOrder(signed, a.now); !errors.Is(err, attack.want) || order != nil {
				t.Errorf("the order: got %v instead of %q", err, attack.want)
			}
			if _, _, _, err := a.ledger.pairingOrderWith(checks, signed, a.now); err != nil {
				t.Errorf("the order: without the check %q something else stops it: %v", attack.stoppedBy, err)
			}
			a = newAttacked(t)
			signed = encode(attack.answer(a))
			if _, answer, _, err := a.ledger.PairingAnswer(signed, a.now); !errors.Is(err, attack.want) || answer != nil {
				t.Errorf("the answer: got %v instead of %q", err, attack.want)
			}
			if _, _, _, err := a.ledger.pairingAnswerWith(checks, signed, a.now); err != nil {
				t.Errorf("the answer: without the check %q something else stops it: %v", attack.stoppedBy, err)
			}
		})
		tried[attack.stoppedBy] = true
	}
	for _, check := range orderChecks {
		if !tried[check.name] {
			t.Errorf("no attack shows what the check %q is for", check.name)
		}
	}
	for _, change := range []func(*systemv1.PairingOrder){
		func(m *systemv1.PairingOrder) { m.Role = 0 }, func(m *systemv1.PairingOrder) { m.Role = 4 },
		func(m *systemv1.PairingOrder) { number := uint32(1_000_000); m.Number = &number },
	} {
		a := newAttacked(t)
		if _, _, _, err := a.ledger.PairingOrder(encode(pairingOrder(a, a.owner, change)), a.now); !errors.Is(err, ErrPairingOrder) {
			t.Errorf("an order that cannot be: %v", err)
		}
	}
}

// pairingReportAttacks are reports that a Middleware hands to the owner's App in the
// place of the authority's, which said that the words did not match.
var pairingReportAttacks = []struct {
	name, stoppedBy string
	want            error
	forge           func(a *attacked, answer *systemv1.PairingAnswer) []byte
}{
	{"signed with a key of its own", "signer", ErrNotHelper, func(a *attacked, answer *systemv1.PairingAnswer) []byte {
		return encode(seal(labelPairingReport, encode(&systemv1.PairingReport{Answer: answer, Matched: true}), a.operator))
	}},
	{"the refusal, turned round", "signature", ErrSignature, func(a *attacked, answer *systemv1.PairingAnswer) []byte {
		var signed systemv1.Signed
		if err := proto.Unmarshal(a.ledger.PairingReport(answer, false), &signed); err != nil {
			a.t.Fatalf("%v", err)
		}
		signed.Message = encode(&systemv1.PairingReport{Answer: answer, Matched: true})
		return encode(&signed)
	}},
	{"of an answer before, which matched", "this answer", ErrReport, func(a *attacked, answer *systemv1.PairingAnswer) []byte {
		before := proto.CloneOf(answer)
		before.Challenge = a.challenge()
		return a.ledger.PairingReport(before, true)
	}},
	{"of other words", "this answer", ErrReport, func(a *attacked, answer *systemv1.PairingAnswer) []byte {
		other := proto.CloneOf(answer)
		other.Words = []byte("other words!")
		return a.ledger.PairingReport(other, true)
	}},
	{"with a field from the future", "no unknown field", ErrUnknownField, func(a *attacked, answer *systemv1.PairingAnswer) []byte {
		m := &systemv1.PairingReport{Answer: answer, Matched: true}
		m.ProtoReflect().SetUnknown(unknownField)
		return encode(seal(labelPairingReport, encode(m), a.config.StateSeed))
	}},
}

func TestForgedReportsOfAMatchAreNotBelieved(t *testing.T) {
	tried := map[string]bool{}
	for _, attack := range pairingReportAttacks {
		t.Run(attack.name, func(t *testing.T) {
			a := newAttacked(t)
			view := a.look()
			answer := view.PairingAnswer(make([]byte, 16), make([]byte, 12), viewer, make([]byte, 32), "phone", a.challenge())
			for _, matched := range []bool{true, false} {
				if got, err := view.PairingMatched(answer, a.ledger.PairingReport(answer, matched)); got != matched || err != nil {
					t.Fatalf("the authority's own word: %v, %v", got, err)
				}
			}
			report := attack.forge(a, answer)
			if matched, err := view.PairingMatched(answer, report); matched || !errors.Is(err, attack.want) {
				t.Errorf("believed %v: %v instead of %q", matched, err, attack.want)
			}
			checks := without(t, pairingReportChecks, func(c pairingReportCheck) bool { return c.name == attack.stoppedBy })
			if matched, err := view.pairingMatchedWith(checks, answer, report); !matched || err != nil {
				t.Errorf("without the check %q something else stops it: %v", attack.stoppedBy, err)
			}
		})
		tried[attack.stoppedBy] = true
	}
	for _, check := range pairingReportChecks {
		if !tried[check.name] {
			t.Errorf("no attack shows what the check %q is for", check.name)
		}
	}
	// Bytes that are no report, and a report about the posture, are refused as well.
	a := newAttacked(t)
	view := a.look()
	report, out, err := a.ledger.Report(make([]byte, 32), a.now)
	a.must(out, err)
	for _, b := range [][]byte{nil, []byte("x"), report} {
		if matched, err := view.PairingMatched(view.PairingAnswer(nil, nil, viewer, nil, "", nil), b); matched || err == nil {
			t.Errorf("%q is believed", b)
		}
	}
}
