package posture

import (
	"errors"
	"testing"

	"google.golang.org/protobuf/proto"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/secret"
)

var shown = &basev1.Disk{Id: "d4a19b547792a775f46a9fb8c61a6e1a", Model: "CT2000MX500SSD1", SerialEnd: "A1B2", SizeBytes: 2_000_398_934_016}

// diskOrder is the signed order to use the disk shown, changed before it is signed.
func diskOrder[Kind any](a *attacked, seed secret.Key[Kind], change func(*systemv1.DiskOrder)) *systemv1.Signed {
	m := proto.Clone(a.look().DiskOrder(shown, false, false, a.challenge())).(*systemv1.DiskOrder)
	change(m)
	return seal(labelDisk, encode(m), seed)
}

func asShown(*systemv1.DiskOrder) {}

var diskAttacks = []struct {
	name, stoppedBy string
	want            error
	forge           func(*attacked) *systemv1.Signed
}{
	{"with a field from the future", "no unknown field", ErrUnknownField, func(a *attacked) *systemv1.Signed {
		return diskOrder(a, a.owner, func(m *systemv1.DiskOrder) { m.ProtoReflect().SetUnknown(unknownField) })
	}},
	{"for another Base", "this Base", ErrWrongBase, func(a *attacked) *systemv1.Signed {
		return diskOrder(a, a.owner, func(m *systemv1.DiskOrder) { m.BaseId = make([]byte, 32) })
	}},
	{"from before a reset", "this epoch", ErrWrongEpoch, func(a *attacked) *systemv1.Signed {
		return diskOrder(a, a.owner, func(m *systemv1.DiskOrder) { m.Epoch = make([]byte, 16) })
	}},
	{"signed by an operator", "signer", ErrNotOwner, func(a *attacked) *systemv1.Signed { return diskOrder(a, a.operator, asShown) }},
	{"signed by a former owner", "signer", ErrNotOwner, func(a *attacked) *systemv1.Signed { return diskOrder(a, a.removed, asShown) }},
	{"not signed", "signature", ErrSignature, func(a *attacked) *systemv1.Signed {
		signed := diskOrder(a, a.owner, asShown)
		signed.Signature = nil
		return signed
	}},
	{"for another disk, under an owner's signature", "signature", ErrSignature, func(a *attacked) *systemv1.Signed {
		honest := diskOrder(a, a.owner, asShown)
		signed := diskOrder(a, a.owner, func(m *systemv1.DiskOrder) { m.Id, m.Erase = "2339f3d8729bd2d41c33357d29296fce", true })
		signed.Signature = honest.Signature
		return signed
	}},
	{"an order to wipe the Base, given out for one about a disk", "signature", ErrSignature, func(a *attacked) *systemv1.Signed {
		return seal(labelReset, diskOrder(a, a.owner, asShown).GetMessage(), a.owner)
	}},
	{"withheld", "challenge", ErrChallenge, func(a *attacked) *systemv1.Signed {
		signed := diskOrder(a, a.owner, asShown)
		a.pass(ChallengeLife)
		return signed
	}},
	{"a second time", "challenge", ErrChallenge, func(a *attacked) *systemv1.Signed {
		signed := diskOrder(a, a.owner, asShown)
		m, out, err := a.ledger.UseDisk(encode(signed), a.now)
		a.must(out, err)
		if m.GetId() != shown.GetId() || m.GetModel() != shown.GetModel() || m.GetSizeBytes() != shown.GetSizeBytes() || m.GetErase() {
			a.t.Fatalf("the order is %v", m)
		}
		return signed
	}},
}

func TestForgedOrdersToUseADiskAreRefused(t *testing.T) {
	tried := map[string]bool{}
	for _, attack := range diskAttacks {
		t.Run(attack.name, func(t *testing.T) {
			a := newAttacked(t)
			signed := encode(attack.forge(a))
			if m, _, err := a.ledger.UseDisk(signed, a.now); !errors.Is(err, attack.want) || m != nil {
				t.Errorf("got %v for %v instead of %q", err, m, attack.want)
			}
			checks := without(t, orderChecks, func(c orderCheck) bool { return c.name == attack.stoppedBy })
			if _, _, err := a.ledger.useDiskWith(checks, signed, a.now); err != nil {
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
