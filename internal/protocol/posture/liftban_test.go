package posture

import (
	"errors"
	"net/netip"
	"testing"

	"google.golang.org/protobuf/proto"

	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/secret"
)

var banned = netip.MustParseAddr("192.0.2.7")

// liftOrder is the signed order to let banned in, changed before it is signed.
func liftOrder[Kind any](a *attacked, seed secret.Key[Kind], change func(*systemv1.LiftBanOrder)) *systemv1.Signed {
	m := proto.Clone(a.look().LiftBanOrder(banned, a.challenge())).(*systemv1.LiftBanOrder)
	change(m)
	return seal(labelLiftBan, encode(m), seed)
}

var liftBanAttacks = []struct {
	name, stoppedBy string
	want            error
	forge           func(*attacked) *systemv1.Signed
}{
	{"with a field from the future", "no unknown field", ErrUnknownField, func(a *attacked) *systemv1.Signed {
		return liftOrder(a, a.owner, func(m *systemv1.LiftBanOrder) { m.ProtoReflect().SetUnknown(unknownField) })
	}},
	{"for another Base", "this Base", ErrWrongBase, func(a *attacked) *systemv1.Signed {
		return liftOrder(a, a.owner, func(m *systemv1.LiftBanOrder) { m.BaseId = make([]byte, 32) })
	}},
	{"from before a reset", "this epoch", ErrWrongEpoch, func(a *attacked) *systemv1.Signed {
		return liftOrder(a, a.owner, func(m *systemv1.LiftBanOrder) { m.Epoch = make([]byte, 16) })
	}},
	{"signed by an operator", "signer", ErrNotOwner, func(a *attacked) *systemv1.Signed {
		return liftOrder(a, a.operator, func(*systemv1.LiftBanOrder) {})
	}},
	{"signed by an owner who was taken away", "signer", ErrNotOwner, func(a *attacked) *systemv1.Signed {
		return liftOrder(a, a.removed, func(*systemv1.LiftBanOrder) {})
	}},
	{"not signed", "signature", ErrSignature, func(a *attacked) *systemv1.Signed {
		signed := liftOrder(a, a.owner, func(*systemv1.LiftBanOrder) {})
		signed.Signature = nil
		return signed
	}},
	{"for the address of the attacker, under an owner's signature", "signature", ErrSignature, func(a *attacked) *systemv1.Signed {
		honest := liftOrder(a, a.owner, func(*systemv1.LiftBanOrder) {})
		signed := liftOrder(a, a.owner, func(m *systemv1.LiftBanOrder) { m.Address = "192.0.2.66" })
		signed.Signature = honest.Signature
		return signed
	}},
	{"withheld", "challenge", ErrChallenge, func(a *attacked) *systemv1.Signed {
		signed := liftOrder(a, a.owner, func(*systemv1.LiftBanOrder) {})
		a.pass(ChallengeLife)
		return signed
	}},
	{"a second time", "challenge", ErrChallenge, func(a *attacked) *systemv1.Signed {
		signed := liftOrder(a, a.owner, func(*systemv1.LiftBanOrder) {})
		addr, out, err := a.ledger.LiftBan(encode(signed), a.now)
		a.must(out, err)
		if addr != banned {
			a.t.Fatalf("the order lifts %v", addr)
		}
		return signed
	}},
}

func TestForgedOrdersToLiftABanAreRefused(t *testing.T) {
	tried := map[string]bool{}
	for _, attack := range liftBanAttacks {
		t.Run(attack.name, func(t *testing.T) {
			a := newAttacked(t)
			signed := encode(attack.forge(a))
			if addr, _, err := a.ledger.LiftBan(signed, a.now); !errors.Is(err, attack.want) || addr.IsValid() {
				t.Errorf("got %v for %v instead of %q", err, addr, attack.want)
			}
			checks := without(t, orderChecks, func(c orderCheck) bool { return c.name == attack.stoppedBy })
			if _, _, err := a.ledger.liftBanWith(checks, signed, a.now); err != nil {
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

// The packet filter gets an address and nothing else.
func TestOrderToLiftABanNamesAnAddress(t *testing.T) {
	for _, text := range []string{"", "all", "192.0.2.7; rm -rf /", "192.0.2.0/24", "-x"} {
		a := newAttacked(t)
		signed := liftOrder(a, a.owner, func(m *systemv1.LiftBanOrder) { m.Address = text })
		if _, _, err := a.ledger.LiftBan(encode(signed), a.now); !errors.Is(err, ErrMalformed) {
			t.Errorf("%q: %v", text, err)
		}
	}
	for text, want := range map[string]string{"::ffff:192.0.2.7": "192.0.2.7", "fe80::1%eth0": "fe80::1"} {
		a := newAttacked(t)
		signed := liftOrder(a, a.owner, func(m *systemv1.LiftBanOrder) { m.Address = text })
		if addr, _, err := a.ledger.LiftBan(encode(signed), a.now); err != nil || addr.String() != want {
			t.Errorf("%q: %v, %v", text, addr, err)
		}
	}
}
