package system

import (
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/failpoint"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/generation"
	"github.com/BitBoxSwiss/bitbox-base/internal/helperclient"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/posture"
)

var signet = &basev1.NodeSettings{Program: basev1.NodeSettings_PROGRAM_BTCD, Network: basev1.Network_NETWORK_SIGNET, CacheMib: 450}

func nodeRequest(order []byte) *systemv1.SystemRequest {
	return &systemv1.SystemRequest{Verb: &systemv1.SystemRequest_ChangeNodeSettings{
		ChangeNodeSettings: &systemv1.ChangeNodeSettings{Order: order}}}
}

// nodeOrder signs the order to run a node.
func (a *app) nodeOrder(s *basev1.NodeSettings) []byte {
	return posture.SignNodeSettings(a.look().NodeSettingsOrder(s, a.challenge()), a.seed)
}

func TestAnOwnersOrderChangesTheNodeOnce(t *testing.T) {
	x := newAttack(t)
	change := func(order []byte) error {
		_, err := x.attacker.Do(t.Context(), nodeRequest(order), nil)
		return err
	}
	stored := func() string {
		text, err := os.ReadFile(x.config.Node.Signed)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		return string(text)
	}
	restarts := func() []string {
		return slices.DeleteFunc(x.systemd.Done(), func(done string) bool {
			return !strings.Contains(done, generation.ChainUnit) && !strings.Contains(done, generation.WatcherUnit)
		})
	}
	view := x.phone.look()
	for name, order := range map[string][]byte{
		"a viewer's":        posture.SignNodeSettings(view.NodeSettingsOrder(signet, x.phone.challenge()), x.viewer.seed),
		"a removed owner's": posture.SignNodeSettings(view.NodeSettingsOrder(signet, x.phone.challenge()), x.removed.seed),
		"an old one":        posture.SignNodeSettings(view.NodeSettingsOrder(signet, make([]byte, 32)), x.phone.seed),
	} {
		if err := change(order); err == nil {
			t.Errorf("%s order was followed", name)
		}
	}
	// Bad settings change nothing, even if an owner signs them.
	for want, bad := range map[string]*basev1.NodeSettings{
		"this Base has no mainnet node": {Program: basev1.NodeSettings_PROGRAM_CORE, Network: basev1.Network_NETWORK_MAINNET, CacheMib: 450},
		"another implementation":        {Program: basev1.NodeSettings_PROGRAM_BTCD, Network: basev1.Network_NETWORK_MAINNET, CacheMib: 450},
		"from 4 to 16384":               {Program: basev1.NodeSettings_PROGRAM_BTCD, Network: basev1.Network_NETWORK_SIGNET, CacheMib: 1 << 30},
	} {
		err := change(x.phone.nodeOrder(bad))
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "nothing was changed") {
			t.Errorf("%v: %v", bad, err)
		}
	}
	if text := stored(); text != "" || len(restarts()) > 0 {
		t.Fatalf("%q was stored, and done: %q", text, restarts())
	}
	order := x.phone.nodeOrder(signet)
	if err := change(order); err != nil || stored() != "program btcd\nnetwork signet\ncache 450\n" {
		t.Fatalf("the owner's order: %v, %q", err, stored())
	}
	if done := restarts(); len(done) != 1 {
		t.Errorf("done: %q", done)
	}
	if err := change(order); !errors.Is(err, &helperclient.Error{Code: helperclient.CodeStale}) {
		t.Errorf("the same order again: %v", err)
	}
	if now := x.phone.look().Identities().Node; !now.GetSigned() || now.GetSettings().GetNetwork() != basev1.Network_NETWORK_SIGNET {
		t.Errorf("the helper has signed %v", now)
	}
	if err := os.WriteFile(x.config.Node.Signed, []byte("program doom\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if now := x.phone.look().Identities().Node; now.GetSettings() != nil || !strings.Contains(now.GetFault(), "there is no program") {
		t.Errorf("of a broken file the helper has signed %v", now)
	}
}

// A helper that ends in the middle leaves the old settings or the new ones, whole.
func TestAHelperThatFailsLeavesTheOldNodeOrTheNewOne(t *testing.T) {
	for step, want := range map[string]string{
		"store the settings of the node": "", "restart the node": "program btcd\nnetwork signet\ncache 450\n",
	} {
		x := newAttack(t)
		order := x.phone.nodeOrder(signet)
		undo := failpoint.Set(func(at string) error {
			if at == step {
				return errors.New("the power is cut")
			}
			return nil
		})
		_, err := x.attacker.Do(t.Context(), nodeRequest(order), nil)
		undo()
		if text, _ := os.ReadFile(x.config.Node.Signed); err == nil || string(text) != want {
			t.Errorf("cut at %q: %v, %q", step, err, text)
		}
	}
}
