package node_test

import (
	"bufio"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/electrum"
	"github.com/BitBoxSwiss/bitbox-base/internal/electrum/chain"
	"github.com/BitBoxSwiss/bitbox-base/internal/electrum/source"
	"github.com/BitBoxSwiss/bitbox-base/internal/node/core"
	"github.com/BitBoxSwiss/bitbox-base/internal/node/settings"
	"github.com/BitBoxSwiss/bitbox-base/internal/testbed/nodetest"
)

// forWallets lets the cookie ask what the server for wallets asks, as the Base's own node does.
var forWallets = "-rpcwhitelist=__cookie__:" + strings.Join(slices.Concat(core.WalletMethods, core.Methods), ",")

// walletServer runs the server on a node with Core's interface.
type walletServer struct {
	address string
	ended   chan error
	mu      sync.Mutex
	told    electrum.Progress
}

func serveWallets(t *testing.T, k *nodetest.Knots) *walletServer {
	t.Helper()
	from, err := source.New(source.Config{Program: settings.Core, Network: basev1.Network_NETWORK_REGTEST, RPC: k.RPC, Credentials: k.Cookie})
	if err != nil {
		t.Fatal(err)
	}
	s := &walletServer{address: nodetest.FreeAddress(t), ended: make(chan error, 1)}
	ctx, cancel := context.WithCancel(context.Background())
	directory := t.TempDir()
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer from.Close()
		s.ended <- electrum.Run(ctx, electrum.Config{Node: from, Directory: directory, Interval: nodetest.Quick, Logger: nodetest.Discard,
			Listen: func() (net.Listener, error) { return net.Listen("tcp4", s.address) },
			Tell: func(p electrum.Progress) {
				s.mu.Lock()
				defer s.mu.Unlock()
				s.told = p
			}})
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	return s
}

func (s *walletServer) progress() electrum.Progress {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.told
}

// ask has a wallet of its own ask one question.
func (s *walletServer) ask(t *testing.T, into any, method string, params ...any) {
	t.Helper()
	conn, err := net.Dial("tcp4", s.address)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(nodetest.Patience))
	text, err := json.Marshal(map[string]any{"id": 1, "method": method, "params": params})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Write(append(text, '\n')); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(conn).ReadBytes('\n')
	answer := struct{ Result, Error json.RawMessage }{}
	if err == nil {
		err = json.Unmarshal(line, &answer)
	}
	if err != nil || answer.Error != nil {
		t.Fatalf("%s: %v: %.300s", method, err, line)
	}
	if err := json.Unmarshal(answer.Result, into); err != nil {
		t.Fatalf("%s: %v: %.300s", method, err, line)
	}
}

// happened is one transaction of a history.
type happened struct {
	ID     string `json:"tx_hash"`
	Height int    `json:"height"`
	Fee    int    `json:"fee"`
}

// history asks what has happened to a script.
func (s *walletServer) history(t *testing.T, script string) (entries []happened) {
	t.Helper()
	b, err := hex.DecodeString(script)
	if err != nil {
		t.Fatal(err)
	}
	s.ask(t, &entries, "blockchain.scripthash.get_history", chain.Output{Script: b}.ScriptHash().String())
	return entries
}

// Blocks come by REST. A payment waits, is in a block, waits again after a reorganisation, and is in
// another block.
func TestWalletsFollowANodeWithCoresInterface(t *testing.T) {
	needsKnots(t)
	k := nodetest.StartKnots(t, "-rest=1", forWallets)
	const rewards, paid = "51", "0014751e76e8199196d454941c45d1b3a323f1433bd6" // of Generate and Pay
	hashes := k.Generate(101)
	s := serveWallets(t, k)
	nodetest.Eventually(t, "the server is ready", func() bool { return s.progress().Ready })
	if p := s.progress(); p.Height != 101 || p.Target != 101 {
		t.Errorf("%+v", p)
	}
	if all := s.history(t, rewards); len(all) != 101 || all[0].Height != 1 || all[100].Height != 101 {
		t.Errorf("%d entries", len(all))
	}
	k.Pay(hashes[0])
	// at waits until the payment has a height, 0 while it waits for a block.
	at := func(height int) (p happened) {
		t.Helper()
		nodetest.Eventually(t, fmt.Sprintf("the payment is at %d", height), func() bool {
			all := s.history(t, paid)
			if len(all) == 1 {
				p = all[0]
			}
			return len(all) == 1 && p.Height == height
		})
		return p
	}
	payment := at(0)
	if payment.Fee != 100_000 { // Pay gives 0.001 BTC
		t.Errorf("%+v", payment)
	}
	mined := k.Generate(1)
	at(102)
	var verbose struct {
		Confirmations int
		Blockhash     string
		Txid          string
	}
	s.ask(t, &verbose, "blockchain.transaction.get", payment.ID, true)
	if verbose.Confirmations != 1 || verbose.Blockhash != mined[0] || verbose.Txid != payment.ID {
		t.Errorf("%+v", verbose)
	}
	// Two blocks without the payment take the place of its block.
	k.Call(nil, "invalidateblock", mined[0])
	for range 2 {
		var block struct{ Hash string }
		k.Call(&block, "generateblock", "raw(51)#8lvh9jxk", []string{})
		mined = append(mined, block.Hash)
	}
	nodetest.Eventually(t, "the index has the other blocks", func() bool { return s.progress().Height == 103 })
	if again := at(0); again != payment {
		t.Errorf("%+v, not %+v", again, payment)
	}
	var header string
	s.ask(t, &header, "blockchain.block.header", 102)
	raw, err := hex.DecodeString(header)
	if err != nil || chain.Double(raw).String() != mined[1] {
		t.Errorf("%v: block 102 is %s", err, header)
	}
	k.Generate(1)
	at(104)
	// 104 rewards, and the payment, which spends one.
	if all := s.history(t, rewards); len(all) != 105 {
		t.Errorf("%d entries", len(all))
	}
}

func TestANodeThatCannotServeWalletsIsRefusedWithItsReason(t *testing.T) {
	needsKnots(t)
	pruned := nodetest.StartKnots(t, "-rest=1", "-prune=550", forWallets)
	pruned.Generate(3)
	s := serveWallets(t, pruned)
	if err := <-s.ended; !errors.Is(err, source.ErrPruned) {
		t.Errorf("a node that prunes: %v", err)
	}
	if s.progress().Ready {
		t.Error("it was ready")
	}
	silent := nodetest.StartKnots(t, "-rest=0", forWallets)
	silent.Generate(3)
	s = serveWallets(t, silent)
	nodetest.Eventually(t, "it says that REST is off", func() bool { return strings.Contains(s.progress().Reason, "rest=1") })
	if s.progress().Ready {
		t.Error("it is ready without blocks")
	}
}
