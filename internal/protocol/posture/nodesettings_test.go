package posture

import (
	"errors"
	"testing"

	"google.golang.org/protobuf/proto"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/secret"
)

var signetNode = &basev1.NodeSettings{Program: basev1.NodeSettings_PROGRAM_BTCD, Network: basev1.Network_NETWORK_SIGNET, CacheMib: 450}

// settingsOrder is the signed order to run signetNode, changed before it is signed.
func settingsOrder[Kind any](a *attacked, seed secret.Key[Kind], change func(*systemv1.NodeSettingsOrder)) *systemv1.Signed {
	m := proto.CloneOf(a.look().NodeSettingsOrder(signetNode, a.challenge()))
	m.Settings = proto.CloneOf(signetNode)
	change(m)
	return seal(labelNodeSettings, encode(m), seed)
}

func TestForgedOrdersToRunAnotherNodeAreRefused(t *testing.T) {
	asIs := func(*systemv1.NodeSettingsOrder) {}
	tried := map[string]bool{}
	for _, attack := range []struct {
		name, stoppedBy string
		want            error
		forge           func(*attacked) *systemv1.Signed
	}{
		{"with a field from the future", "no unknown field", ErrUnknownField, func(a *attacked) *systemv1.Signed {
			return settingsOrder(a, a.owner, func(m *systemv1.NodeSettingsOrder) { m.Settings.ProtoReflect().SetUnknown(unknownField) })
		}},
		{"for another Base", "this Base", ErrWrongBase, func(a *attacked) *systemv1.Signed {
			return settingsOrder(a, a.owner, func(m *systemv1.NodeSettingsOrder) { m.BaseId = make([]byte, 32) })
		}},
		{"from before a reset", "this epoch", ErrWrongEpoch, func(a *attacked) *systemv1.Signed {
			return settingsOrder(a, a.owner, func(m *systemv1.NodeSettingsOrder) { m.Epoch = make([]byte, 16) })
		}},
		{"signed by an operator", "signer", ErrNotOwner, func(a *attacked) *systemv1.Signed { return settingsOrder(a, a.operator, asIs) }},
		{"signed by a former owner", "signer", ErrNotOwner, func(a *attacked) *systemv1.Signed { return settingsOrder(a, a.removed, asIs) }},
		{"for another network, under an owner's signature", "signature", ErrSignature, func(a *attacked) *systemv1.Signed {
			honest := settingsOrder(a, a.owner, asIs)
			signed := settingsOrder(a, a.owner, func(m *systemv1.NodeSettingsOrder) { m.Settings.Network = basev1.Network_NETWORK_MAINNET })
			signed.Signature = honest.Signature
			return signed
		}},
		{"withheld", "challenge", ErrChallenge, func(a *attacked) *systemv1.Signed {
			signed := settingsOrder(a, a.owner, asIs)
			a.pass(ChallengeLife)
			return signed
		}},
		{"a second time", "challenge", ErrChallenge, func(a *attacked) *systemv1.Signed {
			signed := settingsOrder(a, a.owner, asIs)
			got, out, err := a.ledger.ChangeNode(encode(signed), a.now)
			a.must(out, err)
			if !proto.Equal(got, signetNode) {
				a.t.Fatalf("the order is for %v", got)
			}
			return signed
		}},
	} {
		t.Run(attack.name, func(t *testing.T) {
			a := newAttacked(t)
			signed := encode(attack.forge(a))
			if got, _, err := a.ledger.ChangeNode(signed, a.now); !errors.Is(err, attack.want) || got != nil {
				t.Errorf("got %v for %v instead of %q", err, got, attack.want)
			}
			checks := without(t, orderChecks, func(c orderCheck) bool { return c.name == attack.stoppedBy })
			if _, _, err := a.ledger.changeNodeWith(checks, signed, a.now); err != nil {
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

// The attack: a Middleware rewrites the settings in the report, so that an owner who changes the cache
// signs that blocks are deleted.
func TestAMiddlewareCannotChooseTheRestOfWhatAnOwnerSigns(t *testing.T) {
	a := newAttacked(t)
	a.config.Identities = func(Effective) Identities { return Identities{Node: &basev1.ChosenNode{Settings: signetNode}} }
	a.ledger.config = a.config
	honest := a.answer(Memory{})
	signedByOwner := func(view *View) *basev1.NodeSettings {
		wanted := proto.CloneOf(view.Identities().Node.GetSettings())
		wanted.CacheMib = 1000
		got, out, err := a.ledger.ChangeNode(SignNodeSettings(view.NodeSettingsOrder(wanted, a.challenge()), a.owner), a.now)
		a.must(out, err)
		return got
	}
	view, err := VerifyChain(honest.expect, honest.history, honest.report)
	if err != nil {
		t.Fatal(err)
	}
	if got := signedByOwner(view); got.GetPruneGb() != 0 || got.GetNetwork() != signetNode.GetNetwork() || got.GetCacheMib() != 1000 {
		t.Errorf("the owner has signed %v", got)
	}
	prunes := func(r *systemv1.PostureReport) { r.Node.Settings.PruneGb = 2 }
	var envelope systemv1.Signed
	if err := proto.Unmarshal(honest.report, &envelope); err != nil {
		t.Fatal(err)
	}
	under := &systemv1.Signed{Signer: envelope.Signer, Signature: envelope.Signature}
	if err := proto.Unmarshal(rewrite(honest.report, labelReport, a.operator, prunes), &envelope); err != nil {
		t.Fatal(err)
	}
	under.Message = envelope.Message
	for stoppedBy, lie := range map[string][]byte{
		"signer": rewrite(honest.report, labelReport, a.operator, prunes), "signature": encode(under),
	} {
		if _, err := VerifyChain(honest.expect, honest.history, lie); err == nil {
			t.Errorf("a report that %q should stop is believed", stoppedBy)
		}
		checks := without(t, reportChecks, func(c reportCheck) bool { return c.name == stoppedBy })
		view, err := verifyWith(checks, honest.expect, honest.history, lie)
		if err != nil {
			t.Fatalf("without the check %q something else stops it: %v", stoppedBy, err)
		}
		if got := signedByOwner(view); got.GetPruneGb() != 2 {
			t.Errorf("without the check %q the attack does not work: %v", stoppedBy, got)
		}
	}
}
