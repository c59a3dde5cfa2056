package electrum_test

import (
	"bufio"
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/BitBoxSwiss/bitbox-base/internal/electrum"
	"github.com/BitBoxSwiss/bitbox-base/internal/electrum/chain"
	"github.com/BitBoxSwiss/bitbox-base/internal/electrum/source"
	"github.com/BitBoxSwiss/bitbox-base/internal/node/settings"
	"github.com/BitBoxSwiss/bitbox-base/internal/testbed/leaktest"
	"github.com/BitBoxSwiss/bitbox-base/internal/testbed/nodetest"
)

func TestMain(m *testing.M) { os.Exit(leaktest.Run(m)) }

// rewards is the script that gets the rewards of the nodes in tests: that of the example of BIP 173.
const rewards = "0014751e76e8199196d454941c45d1b3a323f1433bd6"

func scriptHash(t testing.TB, script string) string {
	t.Helper()
	b, err := hex.DecodeString(script)
	if err != nil {
		t.Fatal(err)
	}
	return chain.Output{Script: b}.ScriptHash().String()
}

// server runs in the test's process.
type server struct {
	t         testing.TB
	node      source.Config
	directory string
	address   string
	mu        sync.Mutex
	progress  electrum.Progress
	proxy     bool
	full      atomic.Bool
	stop      func()
	ended     chan error
}

func newServer(t *testing.T, b *nodetest.Btcd) *server {
	t.Helper()
	s := makeServer(t, b)
	s.start()
	return s
}

// makeServer makes one that is not started yet.
func makeServer(t testing.TB, b *nodetest.Btcd) *server {
	t.Helper()
	s := &server{t: t, directory: t.TempDir(), address: nodetest.FreeAddress(t), node: source.Config{Program: settings.Btcd,
		Network: b.Network, RPC: b.RPC, Peer: b.P2P, Credentials: b.Credentials, Certificate: b.Certificate}}
	t.Cleanup(func() { s.stop() })
	return s
}

func (s *server) start() {
	s.t.Helper()
	n, err := source.New(s.node)
	if err != nil {
		s.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	s.ended = make(chan error, 1)
	s.progress = electrum.Progress{}
	go func() {
		defer n.Close()
		s.ended <- electrum.Run(ctx, electrum.Config{Node: n, Directory: s.directory, Interval: nodetest.Quick, Logger: nodetest.Discard,
			Proxy: s.proxy, Full: func() string {
				if s.full.Load() {
					return "the disk is full"
				}
				return ""
			}, Listen: func() (net.Listener, error) { return net.Listen("tcp4", s.address) }, Tell: func(p electrum.Progress) {
				s.mu.Lock()
				defer s.mu.Unlock()
				s.progress = p
			}})
	}()
	s.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-s.ended; err != nil {
			s.t.Error(err)
		}
	})
}

func (s *server) now() electrum.Progress {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.progress
}

func (s *server) until(what string, so func(electrum.Progress) bool) {
	s.t.Helper()
	nodetest.Eventually(s.t, what, func() bool { return so(s.now()) })
}

// wallet is a connection that keeps the notifications that arrive before an answer.
type wallet struct {
	t    testing.TB
	conn net.Conn
	read *bufio.Reader
	news []string
	id   int
}

func (s *server) dial() *wallet {
	s.t.Helper()
	s.until("the server is ready", func(p electrum.Progress) bool { return p.Ready })
	conn, err := net.Dial("tcp4", s.address)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = conn.Close() })
	return &wallet{t: s.t, conn: conn, read: bufio.NewReader(conn)}
}

func (w *wallet) line() string {
	w.t.Helper()
	_ = w.conn.SetReadDeadline(time.Now().Add(nodetest.Patience))
	line, err := w.read.ReadString('\n')
	if err != nil {
		w.t.Fatal(err)
	}
	return line
}

// ask returns the result, or the error as text.
func (w *wallet) ask(into any, method string, params ...any) string {
	w.t.Helper()
	w.id++
	if params == nil {
		params = []any{}
	}
	text, err := json.Marshal(map[string]any{"jsonrpc": "2.0", "id": w.id, "method": method, "params": params})
	if err != nil {
		w.t.Fatal(err)
	}
	if _, err := w.conn.Write(append(text, '\n')); err != nil {
		w.t.Fatal(err)
	}
	for {
		line := w.line()
		var answer struct {
			ID     *int
			Result json.RawMessage
			Error  json.RawMessage
		}
		if err := json.Unmarshal([]byte(line), &answer); err != nil {
			w.t.Fatalf("%v: %s", err, line)
		}
		switch {
		case answer.ID == nil:
			w.news = append(w.news, line)
		case answer.Error != nil:
			return string(answer.Error)
		default:
			if into != nil {
				if err := json.Unmarshal(answer.Result, into); err != nil {
					w.t.Fatalf("%s: %v: %s", method, err, answer.Result)
				}
			}
			return ""
		}
	}
}

// must is ask for what succeeds.
func (w *wallet) must(into any, method string, params ...any) {
	w.t.Helper()
	if problem := w.ask(into, method, params...); problem != "" {
		w.t.Fatalf("%s: %s", method, problem)
	}
}

// hears waits for a notification with a text.
func (w *wallet) hears(text string) {
	w.t.Helper()
	for {
		for i, line := range w.news {
			if strings.Contains(line, text) {
				w.news = slices.Delete(w.news, i, i+1)
				return
			}
		}
		w.news = append(w.news, w.line())
	}
}

type historyEntry struct {
	ID     string `json:"tx_hash"`
	Height int    `json:"height"`
}

func TestWalletsFollowBtcdThroughBlocksReorganisationsAndRestarts(t *testing.T) {
	b, other := nodetest.StartBtcd(t, "simnet"), nodetest.StartBtcd(t, "simnet")
	b.Generate(5)
	s := newServer(t, b)
	w := s.dial()
	var agreed []string
	w.must(&agreed, "server.version", "test", []string{"1.3", "1.4.2"})
	if agreed[1] != "1.4.2" {
		t.Errorf("%v", agreed)
	}
	hash := scriptHash(t, rewards)
	var tip struct {
		Height uint32
		Hex    string
	}
	w.must(&tip, "blockchain.headers.subscribe")
	var status string
	w.must(&status, "blockchain.scripthash.subscribe", hash)
	if tip.Height != 5 || len(tip.Hex) != 160 || len(status) != 64 {
		t.Errorf("%+v, %q", tip, status)
	}
	check := func(w *wallet, height int) {
		t.Helper()
		var entries []historyEntry
		w.must(&entries, "blockchain.scripthash.get_history", hash)
		if len(entries) != height {
			t.Fatalf("%d entries at block %d", len(entries), height)
		}
		for i, e := range entries {
			var proof struct {
				Height int   `json:"block_height"`
				At     int   `json:"pos"`
				Merkle []any `json:"merkle"`
			}
			if e.Height != i+1 {
				t.Errorf("%+v", e)
			}
			if i%20 == 0 {
				w.must(&proof, "blockchain.transaction.get_merkle", e.ID, e.Height)
				if proof.Height != e.Height || proof.At != 0 || len(proof.Merkle) != 0 {
					t.Errorf("%+v", proof)
				}
				var raw string
				w.must(&raw, "blockchain.transaction.get", e.ID)
				if !strings.Contains(raw, rewards) {
					t.Error(raw)
				}
			}
		}
		var balance struct{ Confirmed, Unconfirmed int64 }
		w.must(&balance, "blockchain.scripthash.get_balance", hash)
		var coins []any
		w.must(&coins, "blockchain.scripthash.listunspent", hash)
		if balance.Confirmed != int64(height)*50e8 || balance.Unconfirmed != 0 || len(coins) != height {
			t.Errorf("%+v, %d coins", balance, len(coins))
		}
	}
	check(w, 5)
	b.Generate(1)
	w.hears(`"blockchain.headers.subscribe","params":[{"height":6`)
	w.hears(`"blockchain.scripthash.subscribe","params":["` + hash)
	check(w, 6)

	// A reorganisation of one block, and one of a hundred.
	height := 6
	for _, depth := range []int{1, 100} {
		b.Connect(other)
		nodetest.Eventually(t, "the other node has the chain", func() bool { return other.Height() == uint64(height) })
		b.Disconnect(other)
		b.Generate(uint32(depth))
		w.hears(fmt.Sprintf(`[{"height":%d,`, height+depth))
		other.Generate(uint32(depth + 1))
		b.Connect(other)
		height += depth + 1
		w.hears(fmt.Sprintf(`[{"height":%d,`, height))
		check(w, height)
		check(s.dial(), height)
		b.Disconnect(other)
	}

	// The node is restarted in order, then the server.
	b.Stop()
	check2 := func() {
		t.Helper()
		b.Start()
		b.Generate(1)
		height++
		w.hears(fmt.Sprintf(`[{"height":%d,`, height))
		check(w, height)
	}
	check2()
	s.stop()
	s.start()
	w = s.dial()
	w.must(nil, "blockchain.headers.subscribe")
	check(w, height)
	// Killed, the node loses its last blocks. That is no reorganisation: the server waits.
	b.Kill()
	b.Start()
	if lost := uint64(height) - b.Height(); lost > 0 {
		s.stop()
		s.start()
		s.until("it says that the node is behind", func(p electrum.Progress) bool { return strings.Contains(p.Reason, "gets the blocks up to") })
		b.Connect(other)
	}
	b.Generate(uint32(uint64(height) - b.Height() + 1))
	s.until("it is ready", func(p electrum.Progress) bool { return p.Ready && p.Height == uint32(b.Height()) })
	check(s.dial(), int(b.Height()))
}

func TestNoOptionalMethodFailsAndNoOtherHides(t *testing.T) {
	b := nodetest.StartBtcd(t, "regtest")
	b.Generate(3)
	s := newServer(t, b)
	w := s.dial()
	for version, want := range map[any]string{"1.4": "1.4", "1.4.5": "1.4.3", "1.5": "1.4.3", "1.6": "1.6", "9": ""} {
		var agreed []string
		problem := w.ask(&agreed, "server.version", "test", []any{"1.1", version})
		if version == "9" {
			want = "1.6"
		}
		if problem != "" || agreed[1] != want {
			t.Errorf("%v: %v, %s", version, agreed, problem)
		}
	}
	if problem := w.ask(nil, "server.version", "test", "1.2"); !strings.Contains(problem, "unsupported") {
		t.Error(problem)
	}
	w.must(nil, "server.version", "test", "1.4")
	for method, params := range map[string][]any{
		"server.ping": nil, "server.banner": nil, "server.donation_address": nil, "server.peers.subscribe": nil,
		"server.add_peer": {map[string]any{}}, "server.features": nil, "blockchain.estimatefee": {2}, "blockchain.relayfee": nil,
		"mempool.get_fee_histogram": nil, "mempool.get_info": nil,
	} {
		if problem := w.ask(nil, method, params...); problem != "" {
			t.Errorf("%s: %s", method, problem)
		}
	}
	var features map[string]any
	w.must(&features, "server.features")
	if features["genesis_hash"] != "0f9188f13cb7b2c71f2a335e3a4fc328bf5beb436012afca590b1a11466e2206" {
		t.Errorf("%v", features)
	}
	// Headers: concatenated, and from 1.6 on a list.
	var headers struct {
		Count   int
		Hex     string
		Headers []string
		Max     int
	}
	w.must(&headers, "blockchain.block.headers", 1, 100)
	if headers.Count != 3 || len(headers.Hex) != 3*160 || headers.Headers != nil || headers.Max < 2016 {
		t.Errorf("%+v", headers)
	}
	w.must(nil, "server.version", "test", "1.6")
	headers.Hex = ""
	w.must(&headers, "blockchain.block.headers", 1, 2)
	if headers.Count != 2 || len(headers.Headers) != 2 || headers.Hex != "" {
		t.Errorf("%+v", headers)
	}
	hash := scriptHash(t, "51")
	var nothing any
	w.must(&nothing, "blockchain.scripthash.subscribe", hash)
	var entries []historyEntry
	w.must(&entries, "blockchain.scripthash.get_history", hash)
	if nothing != nil || entries == nil || len(entries) != 0 {
		t.Errorf("%v, %v", nothing, entries)
	}
	var was bool
	if w.must(&was, "blockchain.scripthash.unsubscribe", hash); !was {
		t.Error("it was not followed")
	}
	for _, wrong := range [][]any{
		{"blockchain.scripthash.get_history", "zz"}, {"blockchain.scripthash.get_history"}, {"blockchain.transaction.get", hash},
		{"blockchain.transaction.get_merkle", hash, 1}, {"blockchain.block.header", 99}, {"blockchain.block.header", -1},
		{"blockchain.transaction.broadcast", "00"}, {"blockchain.transaction.broadcast_package", []string{"00"}}, {"no.such.method"},
		{"blockchain.block.header", 1, 3},
	} {
		if problem := w.ask(nil, wrong[0].(string), wrong[1:]...); problem == "" || strings.Contains(problem, "-32603") {
			t.Errorf("%v: %s", wrong, problem)
		}
	}
}

// Each file of the index that matters is damaged while the server is away. It says so, and builds
// the index again.
func TestADamagedIndexIsBuiltAgainAndTheServerSaysSo(t *testing.T) {
	b := nodetest.StartBtcd(t, "regtest")
	b.Generate(30)
	s := newServer(t, b)
	s.dial()
	s.stop()
	files, err := filepath.Glob(filepath.Join(s.directory, "index", "*"))
	if err != nil || len(files) == 0 {
		t.Fatal(err)
	}
	for _, file := range files {
		if strings.Contains(filepath.Base(file), "MANIFEST") {
			if err := os.Truncate(file, 5); err != nil {
				t.Fatal(err)
			}
		}
	}
	s.start()
	w := s.dial()
	if !s.now().Rebuilt {
		t.Error("it does not say so")
	}
	var entries []historyEntry
	w.must(&entries, "blockchain.scripthash.get_history", scriptHash(t, rewards))
	if len(entries) != 30 {
		t.Errorf("%d entries", len(entries))
	}
}

// A disk without room stops the index and nothing else: wallets are served what is in it, and it goes on
// by itself.
func TestAFullDiskStopsTheIndexUntilThereIsRoom(t *testing.T) {
	b := nodetest.StartBtcd(t, "regtest")
	b.Generate(3)
	s := newServer(t, b)
	w := s.dial()
	s.full.Store(true)
	b.Generate(2)
	s.until("it says so", func(p electrum.Progress) bool { return p.Reason == "the disk is full" && p.Height == 3 })
	var entries []historyEntry
	if w.must(&entries, "blockchain.scripthash.get_history", scriptHash(t, rewards)); len(entries) != 3 {
		t.Errorf("%d entries", len(entries))
	}
	s.full.Store(false)
	s.until("it goes on", func(p electrum.Progress) bool { return p.Reason == "" && p.Height == 5 })
	if w.must(&entries, "blockchain.scripthash.get_history", scriptHash(t, rewards)); len(entries) != 5 {
		t.Errorf("%d entries", len(entries))
	}
}

// Nobody can connect before the server knows all blocks.
func TestNoWalletIsServedBeforeTheServerIsReady(t *testing.T) {
	b := nodetest.StartBtcd(t, "regtest")
	b.Generate(3)
	s := newServer(t, b)
	for !s.now().Ready {
		if conn, err := net.Dial("tcp4", s.address); err == nil {
			_ = conn.SetReadDeadline(time.Now().Add(nodetest.Patience))
			_, _ = io.WriteString(conn, `{"id":1,"method":"blockchain.headers.subscribe"}`+"\n")
			line, err := bufio.NewReader(conn).ReadString('\n')
			if err != nil || !strings.Contains(line, `"height":3`) {
				t.Fatalf("%q, %v", line, err)
			}
			_ = conn.Close()
		}
	}
}
