package btcd_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/node"
	"github.com/BitBoxSwiss/bitbox-base/internal/node/btcd"
	"github.com/BitBoxSwiss/bitbox-base/internal/testbed/leaktest"
	"github.com/BitBoxSwiss/bitbox-base/internal/testbed/nodetest"
)

func TestMain(m *testing.M) { os.Exit(leaktest.Run(m)) }

func TestBtcdTellsWhatItOffersAndNothingElse(t *testing.T) {
	t.Parallel()
	b := nodetest.StartBtcd(t, "regtest")
	b.Generate(3)
	look, err := b.Node().Look(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	n := look.Node
	if n.GetNetwork() != basev1.Network_NETWORK_REGTEST || n.GetHeight() != 3 || n.GetSoftware() != "btcd" ||
		!strings.HasPrefix(n.GetVersion(), "0.26.") || time.Since(n.GetBestBlockTime().AsTime()).Abs() > time.Hour ||
		n.GetPruned() || n.MempoolTransactions == nil || n.PeersIn == nil {
		t.Errorf("%v", n)
	}
	// It has no headers beyond its blocks, and does not tell its size.
	if n.Headers != nil || n.SizeBytes != nil || look.Progress >= 0 || !look.Fees.GetOffered() || len(look.Fees.GetFees()) != 0 {
		t.Errorf("not offered, and told: %v, %v, %v", n, look.Progress, look.Fees)
	}
	hashes, err := b.Node().Hashes(t.Context(), []uint64{0, 1, 2, 3})
	if err != nil {
		t.Fatal(err)
	}
	blocks, err := b.Node().Blocks(t.Context(), hashes)
	if err != nil || len(blocks) != 4 {
		t.Fatalf("%v, %v", blocks, err)
	}
	for i, block := range blocks {
		previous := ""
		if i > 0 {
			previous = hashes[i-1]
		}
		if block.GetHeight() != uint64(i) || block.GetHash() != hashes[i] || block.GetPrevious() != previous || block.GetTransactions() != 1 ||
			block.GetSizeBytes() < 80 {
			t.Errorf("block %d is %v", i, block)
		}
	}
	// A height that is not there, as after the chain has become shorter.
	if _, err := b.Node().Hashes(t.Context(), []uint64{4}); err == nil || err.Error() != "the chain of btcd has changed while it was asked" {
		t.Errorf("a height that is not there: %v", err)
	}
	nodetest.CheckLook(t, look)
	nodetest.CheckBlocks(t, blocks)
}

// trouble is what an owner reads.
func trouble(t *testing.T, n node.Node) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	_, err := n.Look(ctx)
	var told *node.Trouble
	if err != nil && !errors.As(err, &told) {
		t.Errorf("no trouble for an owner: %v", err)
	}
	if err == nil {
		return ""
	}
	return err.Error()
}

func TestEachFaultOfBtcdHasItsSentence(t *testing.T) {
	t.Parallel()
	b := nodetest.StartBtcd(t, "regtest")
	expect := func(what, want string, n node.Node) {
		t.Helper()
		if got := trouble(t, n); got != want {
			t.Errorf("%s: %q, not %q", what, got, want)
		}
	}
	own := b.Node()
	expect("well", "", own)
	b.SetPassword("another one")
	expect("wrong credentials", "btcd does not accept the credentials that it has written itself; restart it", own)
	b.SetPassword("a password of this test")
	expect("the right ones again", "", own)

	config := btcd.Config{Address: b.RPC, Credentials: b.Credentials, Certificate: b.Certificate, Network: basev1.Network_NETWORK_SIMNET}
	made := func(config btcd.Config) node.Node {
		n, err := btcd.New(config)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	expect("another network", "btcd is on regtest, and the Base is set to simnet", made(config))

	// Another certificate for the same name and address, which another btcd has made.
	other := nodetest.StartBtcd(t, "simnet")
	config.Network, config.Certificate = basev1.Network_NETWORK_REGTEST, other.Certificate
	expect("another certificate", "the program at the address of btcd shows another certificate than the one of btcd", made(config))
	config.Certificate = filepath.Join(t.TempDir(), "missing")
	expect("no certificate", "the program at the address of btcd shows another certificate than the one of btcd", made(config))

	b.Pause()
	expect("slow", "btcd does not answer in time", own)
	b.Resume()
	expect("on again", "", own)
	b.Kill()
	expect("killed", "btcd does not run", own)
}

// The credentials go to the program that has the certificate, and to no other one.
func TestAnotherProgramAtItsAddressGetsNoCredentials(t *testing.T) {
	t.Parallel()
	b, other := nodetest.StartBtcd(t, "regtest"), nodetest.StartBtcd(t, "regtest")
	n, err := btcd.New(btcd.Config{Address: other.RPC, Credentials: b.Credentials, Certificate: b.Certificate, Network: b.Network})
	if err != nil {
		t.Fatal(err)
	}
	// The other one has the same password here: with the certificate alone it would answer.
	if got := trouble(t, n); !strings.Contains(got, "another certificate") {
		t.Errorf("it answered: %q", got)
	}
	if got := trouble(t, other.Node()); got != "" {
		t.Errorf("with its own certificate it should answer (%s); this attack proves nothing", got)
	}
}

// FuzzLook: whatever a node answers, what is taken of it is bounded and printable.
func FuzzLook(f *testing.F) {
	best := strings.Repeat("0", 64)
	f.Add(`{"chain":"regtest","blocks":0,"headers":0,"bestblockhash":"` + best + `","pruned":false}` + "\n" + `{"version":260200}` + "\n" +
		`{"size":0,"bytes":0}` + "\n" + `[{"addr":"127.0.0.1:1","subver":"\u001b[2J/btcd/","inbound":true,"currentheight":-5,"pingtime":1e308,"conntime":9e18}]` +
		"\n0\n0\n0\n0")
	f.Add(`{"hash":"` + best + `","height":0,"time":-1,"tx":["` + strings.Repeat(`","`, 100) + `"]}`)
	credentials := filepath.Join(f.TempDir(), "credentials")
	if err := os.WriteFile(credentials, []byte("user:password"), 0o600); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, answers string) {
		b, err := btcd.New(btcd.Config{Address: "127.0.0.1:1", Credentials: credentials, Network: basev1.Network_NETWORK_REGTEST,
			Post: nodetest.Answers(answers).Post})
		if err != nil {
			t.Fatal(err)
		}
		if look, err := b.Look(context.Background()); err == nil {
			nodetest.CheckLook(t, look)
		} else if node.Text(err.Error()) != err.Error() {
			t.Errorf("the trouble is %q", err)
		}
		if blocks, err := b.Blocks(context.Background(), []string{best}); err == nil {
			nodetest.CheckBlocks(t, blocks)
		}
	})
}
