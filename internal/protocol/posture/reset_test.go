package posture

import (
	"errors"
	"testing"

	"google.golang.org/protobuf/proto"

	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/secret"
)

// resetOrder is the signed order to wipe the Base, changed before it is signed.
func resetOrder[Kind any](a *attacked, seed secret.Key[Kind], change func(*systemv1.ResetOrder)) *systemv1.Signed {
	m := proto.Clone(a.look().ResetOrder(a.ledger.Effective().NodeName, a.challenge())).(*systemv1.ResetOrder)
	change(m)
	return seal(labelReset, encode(m), seed)
}

func asItIs(*systemv1.ResetOrder) {}

var resetAttacks = []struct {
	name, stoppedBy string
	want            error
	forge           func(*attacked) *systemv1.Signed
}{
	{"with a field from the future", "no unknown field", ErrUnknownField, func(a *attacked) *systemv1.Signed {
		return resetOrder(a, a.owner, func(m *systemv1.ResetOrder) { m.ProtoReflect().SetUnknown(unknownField) })
	}},
	{"for another Base", "this Base", ErrWrongBase, func(a *attacked) *systemv1.Signed {
		return resetOrder(a, a.owner, func(m *systemv1.ResetOrder) { m.BaseId = make([]byte, 32) })
	}},
	{"from before a reset", "this epoch", ErrWrongEpoch, func(a *attacked) *systemv1.Signed {
		return resetOrder(a, a.owner, func(m *systemv1.ResetOrder) { m.Epoch = make([]byte, 16) })
	}},
	{"signed by an operator", "signer", ErrNotOwner, func(a *attacked) *systemv1.Signed {
		return resetOrder(a, a.operator, asItIs)
	}},
	{"signed by an owner who was taken away", "signer", ErrNotOwner, func(a *attacked) *systemv1.Signed {
		return resetOrder(a, a.removed, asItIs)
	}},
	{"not signed", "signature", ErrSignature, func(a *attacked) *systemv1.Signed {
		signed := resetOrder(a, a.owner, asItIs)
		signed.Signature = nil
		return signed
	}},
	{"an order to lift a ban, given out for one to wipe", "signature", ErrSignature, func(a *attacked) *systemv1.Signed {
		signed := resetOrder(a, a.owner, asItIs)
		return seal(labelLiftBan, signed.GetMessage(), a.owner)
	}},
	{"withheld", "challenge", ErrChallenge, func(a *attacked) *systemv1.Signed {
		signed := resetOrder(a, a.owner, asItIs)
		a.pass(ChallengeLife)
		return signed
	}},
	{"a second time", "challenge", ErrChallenge, func(a *attacked) *systemv1.Signed {
		signed := resetOrder(a, a.owner, asItIs)
		_, out, err := a.ledger.Reset(encode(signed), a.now)
		a.must(out, err)
		return signed
	}},
}

func TestForgedOrdersToWipeTheBaseAreRefused(t *testing.T) {
	tried := map[string]bool{}
	for _, attack := range resetAttacks {
		t.Run(attack.name, func(t *testing.T) {
			a := newAttacked(t)
			signed := encode(attack.forge(a))
			if _, _, err := a.ledger.Reset(signed, a.now); !errors.Is(err, attack.want) {
				t.Errorf("got %v instead of %q", err, attack.want)
			}
			checks := without(t, orderChecks, func(c orderCheck) bool { return c.name == attack.stoppedBy })
			if _, _, err := a.ledger.resetWith(checks, signed, a.now); err != nil {
				t.Errorf("without the check %q something else stops it: %v", attack.stoppedBy, err)
			}
		})
		tried[attack.stoppedBy] = true
	}
	for _, check := range orderChecks {
		if !tried[check.name] {
			t.Errorf("no attack shows what the check %q is for", check.name)
		}
	}
}

// An owner who means another Base has typed that name.
func TestOrderToWipeNamesTheBase(t *testing.T) {
	for _, name := range []string{"", "another Base", "BitBox Base ", "bitbox-base\x00"} {
		a := newAttacked(t)
		signed := resetOrder(a, a.owner, func(m *systemv1.ResetOrder) { m.Name = name })
		if _, _, err := a.ledger.Reset(encode(signed), a.now); !errors.Is(err, ErrOtherName) {
			t.Errorf("%q: %v", name, err)
		}
	}
}

// The chain goes only if the owner has signed that.
func TestAResetKeepsTheChainUnlessTheOwnerHasSaidSo(t *testing.T) {
	for _, erase := range []bool{false, true} {
		a := newAttacked(t)
		signed := resetOrder(a, a.owner, func(m *systemv1.ResetOrder) { m.EraseChain = erase })
		if got, _, err := a.ledger.Reset(encode(signed), a.now); err != nil || got != erase {
			t.Errorf("signed %v, taken as %v, %v", erase, got, err)
		}
	}
}
