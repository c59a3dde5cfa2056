package core_test

import (
	"context"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/node"
	"github.com/BitBoxSwiss/bitbox-base/internal/node/core"
	"github.com/BitBoxSwiss/bitbox-base/internal/testbed/leaktest"
	"github.com/BitBoxSwiss/bitbox-base/internal/testbed/nodetest"
)

func TestMain(m *testing.M) { os.Exit(leaktest.Run(m)) }

// documented is a Core on mainnet that answers as the documentation of a version says.
func documented(t testing.TB, major int) (*nodetest.Documented, *core.Core) {
	t.Helper()
	d := nodetest.StartDocumented(t, major)
	c, err := core.New(core.Config{Address: d.Address, Cookie: d.Cookie, Network: basev1.Network_NETWORK_MAINNET})
	if err != nil {
		t.Fatal(err)
	}
	return d, c
}

// Versions 30 and 31 differ from 29, which the tests with a real node show, in what these
// answers have. The package source tests the other questions of the server for wallets.
func TestCore30And31AreUnderstood(t *testing.T) {
	for _, major := range nodetest.DocumentedVersions {
		d, c := documented(t, major)
		look, err := c.Look(t.Context())
		if err != nil {
			t.Fatalf("%d: %s", major, err)
		}
		n := look.Node
		if n.GetSoftware() != core.Program || n.GetVersion() != fmt.Sprintf("%d.0.0", major) || n.GetHeight() != 930_000 ||
			n.GetHeaders() != 930_001 || n.Pruned == nil || n.GetPruned() || n.GetSizeBytes() != 840_000_000_000 || len(n.GetWarnings()) != 0 ||
			n.GetPeersOut() != 1 || n.GetPeersIn() != 1 || n.GetMempoolTransactions() != 4 || look.Peers[0].GetHeight() != 930_001 ||
			look.Peers[1].Height != nil || len(look.Fees.GetFees()) != 4 {
			t.Errorf("%d: %v\n%v\n%v", major, n, look.Peers, look.Fees)
		}
		lowest := map[int]float64{30: 1, 31: 0.123}[major]
		for i, want := range map[int]float64{0: 12.34, 3: lowest} {
			if rate := look.Fees.GetFees()[i].GetSatPerVbyte(); math.Abs(rate-want) > 0.001 {
				t.Errorf("%d: %v sat/vB", major, rate)
			}
		}
		nodetest.CheckLook(t, look)
		hashes, err := c.Hashes(t.Context(), []uint64{0, 930_000})
		if err != nil || hashes[1] != n.GetBestBlock() {
			t.Fatalf("%d: %v, %v", major, hashes, err)
		}
		blocks, err := c.Blocks(t.Context(), hashes[:1])
		if err != nil || len(blocks) != 1 || blocks[0].GetTransactions() != 1 || blocks[0].GetSizeBytes() != 285 || blocks[0].GetHeight() != 0 {
			t.Errorf("%d: %v, %v", major, blocks, err)
		}
		if asked := d.Asked(); !slices.Equal(asked, core.Methods) {
			t.Errorf("%d: asked were %q, and not all that may be asked", major, asked)
		}
	}
}

func TestAnotherNetworkIsRefused(t *testing.T) {
	d, c := documented(t, 31)
	d.Replace("getblockchaininfo", `{"chain":"regtest","bestblockhash":"`+strings.Repeat("0", 64)+`"}`)
	if _, err := c.Look(t.Context()); err == nil || err.Error() != "Bitcoin Core is on regtest, and the Base is set to mainnet" {
		t.Error(err)
	}
}

// FuzzLook: whatever a node answers, what is taken of it is bounded and printable.
func FuzzLook(f *testing.F) {
	for _, major := range nodetest.DocumentedVersions {
		f.Add(nodetest.DocumentedLines(f, major))
	}
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
