package main

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/electrum/chain"
	"github.com/BitBoxSwiss/bitbox-base/internal/nodeclient"
	"github.com/BitBoxSwiss/bitbox-base/internal/testbed/leaktest"
	"github.com/BitBoxSwiss/bitbox-base/internal/testbed/nodetest"
	"github.com/BitBoxSwiss/bitbox-base/packaging/manual"
)

func TestMain(m *testing.M) { os.Exit(leaktest.Run(m)) }

func TestEachCommandAndFlagIsExplained(t *testing.T) {
	for _, gap := range manual.Gaps((&program{}).rootCommand()) {
		t.Error(gap)
	}
}

func TestWrongArgumentsAreExplainedInASentence(t *testing.T) {
	for typed, want := range map[string]string{
		"":                                       "",
		"wathc":                                  `has no command "wathc"; did you mean watch?`,
		"watch --program btcd --network mainnet": "btcd is another implementation of Bitcoin",
		"watch --program btcd --network nowhere": `there is no network "nowhere"`,
		"watch --program bcoin":                  `there is no program "bcoin" here; it is core or btcd`,
		"watch --rpc 192.168.1.20:8332":          "the address of a node is 127.0.0.1 and a port",
		"watch --user nobody-has-this-name":      "who may ask about the node: there is none",
		"start":                                  "the node is not started: this Base has no node",
		"dev --block-every 0s":                   "a block takes at least a second",
		"dev --block-every soon":                 `"soon" is not a length of time`,
		"dev --btcd /nowhere/btcd --state " + t.TempDir(): "'make btcd' builds it",
	} {
		p := &program{}
		root := p.rootCommand()
		root.SetArgs(strings.Fields(typed))
		root.SetOut(new(strings.Builder))
		err := root.ExecuteContext(t.Context())
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%q: %v", typed, err)
		}
	}
}

// systemd may stop the node while `start` becomes it. A signal that `start` had taken would be lost with it:
// the node went on for ten minutes, until systemd killed it.
func TestASignalWhileTheNodeStartsIsNotLost(t *testing.T) {
	p := &program{}
	for _, command := range p.rootCommand().Commands() {
		ctx, cancel := context.WithCancel(t.Context())
		command.SetContext(ctx)
		p.begin(command, nil)
		takes := command.Context() != ctx
		if p.stop != nil {
			p.stop()
		}
		cancel()
		if want := command.Name() != startName; takes != want {
			t.Errorf("%s takes signals: %v", command.Name(), takes)
		}
	}
}

func TestABaseWhoseCoreIsMissingHasNoMainnetNode(t *testing.T) {
	w := watching{program: "core", network: "mainnet", rpc: "127.0.0.1:8332", file: filepath.Join(t.TempDir(), "bitcoind")}
	made, without, err := w.node()
	if err != nil || made != nil || without.GetState() != basev1.Node_STATE_NOT_INSTALLED ||
		without.GetReason() != "this Base has no mainnet node: Bitcoin Core is not installed" {
		t.Errorf("%v, %v, %v", made, without, err)
	}
	if err := os.WriteFile(w.file, nil, 0o700); err != nil {
		t.Fatal(err)
	}
	if made, without, err := w.node(); err != nil || made == nil || without != nil {
		t.Errorf("installed: %v, %v, %v", made, without, err)
	}
}

func TestADevelopersNodeMakesBlocksAndEndsWithIt(t *testing.T) {
	btcd, err := nodetest.Program()
	if err != nil {
		t.Fatal(err)
	}
	// Short, for the socket's path.
	state, err := os.MkdirTemp("", "node")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(state) })
	ctx, cancel := context.WithCancel(t.Context())
	d := development{state: state, program: btcd, wallets: nodetest.FreeAddress(t), every: time.Second, logger: nodetest.Discard}
	ended := make(chan error, 1)
	go func() { ended <- d.run(ctx) }()
	client := nodeclient.Dial(filepath.Join(state, socketName))
	var n *basev1.Node
	nodetest.Eventually(t, "two blocks come", func() bool {
		n, err = client.Node(ctx)
		return err == nil && n.GetState() == basev1.Node_STATE_CURRENT && n.GetHeight() >= 2
	})
	if n.GetNetwork() != basev1.Network_NETWORK_REGTEST || n.GetDiskTotalBytes() == 0 {
		t.Errorf("%v", n)
	}
	// The server for wallets is ready, a wallet connects, and it finds the first transaction.
	nodetest.Eventually(t, "wallets are served", func() bool {
		n, err = client.Node(ctx)
		return err == nil && n.GetWalletServer().GetReady()
	})
	if conn, err := net.Dial("tcp4", d.wallets); err != nil {
		t.Error(err)
	} else {
		_ = conn.Close()
	}
	blocks, err := client.Headers(ctx, &basev1.ListHeadersRequest{First: 1, Count: 1})
	if err != nil || len(blocks.GetHeaders()) != chain.HeaderSize {
		t.Fatalf("%v, %v", blocks, err)
	}
	header := chain.Header(blocks.GetHeaders())
	root := header.Root() // of a block with one transaction: its ID
	var found *basev1.GetTransactionResponse
	nodetest.Eventually(t, "the server for wallets has read the second block", func() bool {
		found, err = client.Transaction(ctx, &basev1.GetTransactionRequest{Id: root[:]})
		return err != nil || found.GetTip() >= 2
	})
	if err != nil || found.GetState() != basev1.GetTransactionResponse_STATE_CONFIRMED || found.GetPlace().GetHeight() != 1 ||
		len(found.GetPlace().GetBranch()) != 0 || chain.Double(found.GetTransaction()) != root {
		t.Errorf("%v, %v", found, err)
	}
	for _, name := range []string{"credentials", "btcd.conf"} {
		if info, err := os.Stat(filepath.Join(state, name)); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", name, info.Mode(), err)
		}
	}
	processes := children(t, state)
	if len(processes) != 1 {
		t.Errorf("%d processes of btcd run", len(processes))
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	for _, process := range processes {
		if err := syscall.Kill(process, 0); !errors.Is(err, syscall.ESRCH) {
			t.Errorf("btcd still runs: %v", err)
		}
	}
	if _, err := os.Lstat(filepath.Join(state, socketName)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is left: %v", err)
	}
}

// children finds the processes that were started with a configuration below a directory.
func children(t *testing.T, directory string) (found []int) {
	t.Helper()
	processes, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range processes {
		arguments, err := os.ReadFile(path)
		if err != nil || !strings.Contains(string(arguments), "--configfile="+directory+"/") {
			continue
		}
		var process int
		for _, digit := range strings.Split(path, "/")[2] {
			process = process*10 + int(digit-'0')
		}
		found = append(found, process)
	}
	return found
}
