package posture

import (
	"errors"
	"testing"

	"google.golang.org/protobuf/proto"

	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/secret"
)

// nodeOrder is a signed order to install an archive, changed before it is signed.
func nodeOrder[Kind any](a *attacked, seed secret.Key[Kind], change func(*systemv1.NodeOrder)) *systemv1.Signed {
	m := proto.CloneOf(a.look().InstallOrder("an archive", [32]byte{1}, a.challenge()))
	change(m)
	return seal(labelNodeOrder, encode(m), seed)
}

func unchanged(*systemv1.NodeOrder) {}

var nodeOrderAttacks = []struct {
	name, stoppedBy string
	want            error
	forge           func(*attacked) *systemv1.Signed
}{
	{"with a field from the future", "no unknown field", ErrUnknownField, func(a *attacked) *systemv1.Signed {
		return nodeOrder(a, a.owner, func(m *systemv1.NodeOrder) { m.ProtoReflect().SetUnknown(unknownField) })
	}},
	{"for another Base", "this Base", ErrWrongBase, func(a *attacked) *systemv1.Signed {
		return nodeOrder(a, a.owner, func(m *systemv1.NodeOrder) { m.BaseId = make([]byte, 32) })
	}},
	{"from before a reset", "this epoch", ErrWrongEpoch, func(a *attacked) *systemv1.Signed {
		return nodeOrder(a, a.owner, func(m *systemv1.NodeOrder) { m.Epoch = make([]byte, 16) })
	}},
	{"signed by an operator", "signer", ErrNotOwner, func(a *attacked) *systemv1.Signed { return nodeOrder(a, a.operator, unchanged) }},
	{"signed by an owner who was taken away", "signer", ErrNotOwner, func(a *attacked) *systemv1.Signed {
		return nodeOrder(a, a.removed, unchanged)
	}},
	{"to resync, under the signature of an installation", "signature", ErrSignature, func(a *attacked) *systemv1.Signed {
		signed := nodeOrder(a, a.owner, func(m *systemv1.NodeOrder) {
			m.What = &systemv1.NodeOrder_Rebuild{Rebuild: &systemv1.RebuildChain{Way: systemv1.RebuildChain_WAY_RESYNC}}
		})
		signed.Signature = nodeOrder(a, a.owner, unchanged).Signature
		return signed
	}},
	{"withheld", "challenge", ErrChallenge, func(a *attacked) *systemv1.Signed {
		signed := nodeOrder(a, a.owner, unchanged)
		a.pass(ChallengeLife)
		return signed
	}},
	{"a second time", "challenge", ErrChallenge, func(a *attacked) *systemv1.Signed {
		signed := nodeOrder(a, a.owner, unchanged)
		order, out, err := a.ledger.NodeOrder(encode(signed), a.now)
		a.must(out, err)
		if order.GetInstall().GetArchive() != "an archive" {
			a.t.Fatalf("the order is %v", order)
		}
		return signed
	}},
}

func TestForgedOrdersAboutTheNodeAreRefused(t *testing.T) {
	tried := map[string]bool{}
	for _, attack := range nodeOrderAttacks {
		t.Run(attack.name, func(t *testing.T) {
			a := newAttacked(t)
			signed := encode(attack.forge(a))
			if order, _, err := a.ledger.NodeOrder(signed, a.now); !errors.Is(err, attack.want) || order != nil {
				t.Errorf("got %v for %v instead of %q", err, order, attack.want)
			}
			checks := without(t, orderChecks, func(c orderCheck) bool { return c.name == attack.stoppedBy })
			if _, _, err := a.ledger.nodeOrderWith(checks, signed, a.now); err != nil {
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
	// An order that lifts a ban is none about the node.
	a := newAttacked(t)
	if _, _, err := a.ledger.NodeOrder(encode(liftOrder(a, a.owner, func(*systemv1.LiftBanOrder) {})), a.now); err == nil {
		t.Error("an order to lift a ban was taken")
	}
}
