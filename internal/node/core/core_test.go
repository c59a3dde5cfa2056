package core_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/node"
	"github.com/BitBoxSwiss/bitbox-base/internal/node/core"
	"github.com/BitBoxSwiss/bitbox-base/internal/testbed/leaktest"
	"github.com/BitBoxSwiss/bitbox-base/internal/testbed/nodetest"
)

func TestMain(m *testing.M) { os.Exit(leaktest.Run(m)) }

// answering is a Core on mainnet that gives these answers.
func answering(t testing.TB, answers string) *core.Core {
	t.Helper()
	cookie := filepath.Join(t.TempDir(), ".cookie")
	if err := os.WriteFile(cookie, []byte("__cookie__:0123"), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := core.New(core.Config{Address: "127.0.0.1:8332", Cookie: cookie, Network: basev1.Network_NETWORK_MAINNET,
		Post: nodetest.Answers(answers).Post})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// fixture reads a file of testdata. Its lines that begin with # say where it is from.
func fixture(t testing.TB, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for line := range strings.Lines(string(b)) {
		if !strings.HasPrefix(line, "#") {
			lines = append(lines, strings.TrimSuffix(line, "\n"))
		}
	}
	return strings.Join(lines, "\n")
}

// Versions 30 and 31 differ from 29, which the tests with a real node show, in what these
// answers have.
func TestCore30And31AreUnderstood(t *testing.T) {
	for _, version := range []string{"30", "31"} {
		look, err := answering(t, fixture(t, "core-"+version+".txt")).Look(t.Context())
		if err != nil {
			t.Fatalf("%s: %v", version, err)
		}
		n := look.Node
		if n.GetSoftware() != core.Program || n.GetVersion() != version+".0.0" || n.GetHeight() != 930_000 || n.GetHeaders() != 930_001 ||
			n.GetPruned() || n.GetSizeBytes() != 840_000_000_000 || len(n.GetWarnings()) != 0 || n.GetPeersOut() != 1 || n.GetPeersIn() != 1 ||
			n.GetMempoolTransactions() != 4 || look.Peers[0].GetHeight() != 930_001 || look.Peers[1].Height != nil || len(look.Fees.GetFees()) != 4 {
			t.Errorf("%s: %v\n%v\n%v", version, n, look.Peers, look.Fees)
		}
		if rate := look.Fees.GetFees()[0].GetSatPerVbyte(); rate < 12.33 || rate > 12.35 {
			t.Errorf("%s: %v sat/vB", version, rate)
		}
		nodetest.CheckLook(t, look)
	}
}

func TestAnotherNetworkIsRefused(t *testing.T) {
	answers := strings.Replace(fixture(t, "core-30.txt"), `"chain":"main"`, `"chain":"regtest"`, 1)
	_, err := answering(t, answers).Look(t.Context())
	if err == nil || err.Error() != "Bitcoin Core is on regtest, and the Base is set to mainnet" {
		t.Error(err)
	}
}

// FuzzLook: whatever a node answers, what is taken of it is bounded and printable.
func FuzzLook(f *testing.F) {
	f.Add(fixture(f, "core-30.txt"))
	f.Add(fixture(f, "core-31.txt"))
	f.Add(`{"chain":"main","blocks":-1,"headers":1e9,"bestblockhash":"` + strings.Repeat("0", 64) + `","warnings":"\u001b[2J"}`)
	f.Add("!{\"code\":-28,\"message\":\"Loading\u202e...\"}")
	cookie := filepath.Join(f.TempDir(), ".cookie")
	if err := os.WriteFile(cookie, []byte("__cookie__:0123"), 0o600); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, answers string) {
		c, err := core.New(core.Config{Address: "127.0.0.1:8332", Cookie: cookie, Network: basev1.Network_NETWORK_MAINNET,
			Post: nodetest.Answers(answers).Post})
		if err != nil {
			t.Fatal(err)
		}
		if look, err := c.Look(context.Background()); err == nil {
			nodetest.CheckLook(t, look)
		} else if node.Text(err.Error()) != err.Error() {
			t.Errorf("the trouble is %q", err)
		}
		if blocks, err := c.Blocks(context.Background(), []string{strings.Repeat("0", 64)}); err == nil {
			nodetest.CheckBlocks(t, blocks)
		}
	})
}
