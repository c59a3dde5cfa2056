package source_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"testing"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/electrum/chain"
	"github.com/BitBoxSwiss/bitbox-base/internal/electrum/source"
	"github.com/BitBoxSwiss/bitbox-base/internal/node/core"
	"github.com/BitBoxSwiss/bitbox-base/internal/node/settings"
	"github.com/BitBoxSwiss/bitbox-base/internal/testbed/leaktest"
	"github.com/BitBoxSwiss/bitbox-base/internal/testbed/nodetest"
)

func TestMain(m *testing.M) { os.Exit(leaktest.Run(m)) }

// ofBtcd is a btcd as a source.
func ofBtcd(t *testing.T, b *nodetest.Btcd, peer string) *source.Node {
	t.Helper()
	n, err := source.New(source.Config{Program: settings.Btcd, Network: b.Network, RPC: b.RPC, Peer: peer, Credentials: b.Credentials,
		Certificate: b.Certificate})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.Close)
	return n
}

func TestBtcdHandsOutItsBlocksAsAPeer(t *testing.T) {
	for _, network := range []string{"simnet", "regtest"} {
		b := nodetest.StartBtcd(t, network)
		b.Generate(3)
		n := ofBtcd(t, b, b.P2P)
		tip, err := n.Tip(t.Context())
		if err != nil || tip.Height != 3 {
			t.Fatalf("%+v, %v", tip, err)
		}
		hashes, err := n.Hashes(t.Context(), []uint64{0, 1, 2, 3})
		if err != nil || hashes[0] != n.First() || hashes[3] != tip.Hash {
			t.Fatalf("%v, %v", hashes, err)
		}
		read := func() {
			t.Helper()
			for height, hash := range hashes {
				raw, err := n.Block(t.Context(), hash)
				if err != nil {
					t.Fatal(err)
				}
				block, err := chain.ParseBlock(raw)
				if err != nil || block.Header.Hash() != hash || len(block.Txs) != 1 || (height > 0 && block.Header.Previous() != hashes[height-1]) {
					t.Errorf("block %d: %v", height, err)
				}
			}
		}
		read()
		if _, err := n.Block(t.Context(), chain.Hash{1}); err == nil {
			t.Error("a block that nobody has was found")
		}
		if _, err := n.Part(t.Context(), tip.Hash, 0, 80); !errors.Is(err, source.ErrNotOffered) {
			t.Error(err)
		}
		if waiting, err := n.Waiting(t.Context()); err != nil || len(waiting) != 0 {
			t.Errorf("%v, %v", waiting, err)
		}
		if network == "simnet" { // regtest's blocks are gone after a restart
			b.Stop()
			if _, err := n.Block(t.Context(), tip.Hash); err == nil {
				t.Error("a node that does not run has answered")
			}
			b.Start()
			read()
		}
	}
}

func TestANodeOfAnotherNetworkIsRefused(t *testing.T) {
	b := nodetest.StartBtcd(t, "regtest")
	b.Network = basev1.Network_NETWORK_SIMNET
	n := ofBtcd(t, b, b.P2P)
	if _, err := n.Tip(t.Context()); !errors.Is(err, source.ErrNetwork) {
		t.Error(err)
	}
	if _, err := n.Block(t.Context(), n.First()); err == nil {
		t.Error("it has handed out a block")
	}
}

// Versions 30 and 31 differ from 29, which test/node asks, in what these answers have.
func TestCore30And31AreUnderstoodByTheServerForWallets(t *testing.T) {
	for _, major := range nodetest.DocumentedVersions {
		d := nodetest.StartDocumented(t, major)
		n, err := source.New(source.Config{Program: settings.Core, Network: basev1.Network_NETWORK_MAINNET, RPC: d.Address,
			Credentials: d.Cookie})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(n.Close)
		if tip, err := n.Tip(t.Context()); err != nil || tip.Height != 930_000 || tip.Headers != 930_001 || tip.Syncing {
			t.Errorf("%d: %+v, %v", major, tip, err)
		}
		raw, err := n.Block(t.Context(), n.First())
		if err != nil || len(raw) != 285 {
			t.Fatalf("%d: %x, %v", major, raw, err)
		}
		part, err := n.Part(t.Context(), n.First(), 81, 204)
		if offered := major >= 31; offered != (err == nil && bytes.Equal(part, raw[81:])) || !offered && !errors.Is(err, source.ErrNotOffered) {
			t.Errorf("%d: a part is %x, %v", major, part, err)
		}
		waiting, err := n.Waiting(t.Context())
		if err != nil || len(waiting) != 1 {
			t.Fatalf("%d: %v, %v", major, waiting, err)
		}
		entries, err := n.Entries(t.Context(), waiting)
		if err != nil || len(entries) != 1 || entries[0].Fee != 408 || entries[0].VSize != 204 {
			t.Errorf("%d: %+v, %v", major, entries, err)
		}
		if fee, none := n.Fee(t.Context(), 1), n.Fee(t.Context(), 24); fee != 0.0001234 || none >= 0 {
			t.Errorf("%d: the fees are %v, %v", major, fee, none)
		}
		if m := n.Mempool(t.Context()); m.Min != 0.000001 || m.MinRelay != 0.000001 || m.IncrementalRelay != 0.000001 {
			t.Errorf("%d: %+v", major, m)
		}
		if fields, err := n.Decode(t.Context(), raw[81:]); err != nil || fields["txid"] != waiting[0].String() {
			t.Errorf("%d: %v, %v", major, fields, err)
		}
		if id, err := n.Broadcast(t.Context(), "00"); err != nil || id != waiting[0].String() {
			t.Errorf("%d: %s, %v", major, id, err)
		}
		answer, err := n.BroadcastPackage(t.Context(), []string{"00", "01"})
		if err != nil || answer.Message != "success" || len(answer.Results) != 1 {
			t.Errorf("%d: %+v, %v", major, answer, err)
		}
		for _, method := range core.WalletMethods {
			if !slices.Contains(d.Asked(), method) {
				t.Errorf("%d: %s was not asked", major, method)
			}
		}
	}
}

// hostile listens, and answers each connection with the same bytes.
func hostile(t *testing.T, answer []byte) string {
	t.Helper()
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			_, _ = conn.Write(answer)
			_, _ = io.CopyN(io.Discard, conn, 1)
			_ = conn.Close()
		}
	}()
	t.Cleanup(func() {
		_ = listener.Close()
		<-done
	})
	return listener.Addr().String()
}

// The attack: a taken-over node answers with too much, with garbage, or with another block.
func TestAHostileNodeIsNotBelieved(t *testing.T) {
	huge := append([]byte("\xfa\xbf\xb5\xdablock\x00\x00\x00\x00\x00\x00\x00"), 0xff, 0xff, 0xff, 0x7f, 1, 2, 3, 4)
	for name, answer := range map[string][]byte{
		"nothing": nil, "garbage": bytes.Repeat([]byte("garbage"), 1000), "a huge message": huge,
		"a wrong sum": []byte("\xfa\xbf\xb5\xdaversion\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"),
	} {
		n, err := source.New(source.Config{Program: settings.Btcd, Network: basev1.Network_NETWORK_REGTEST, RPC: "127.0.0.1:1",
			Peer: hostile(t, answer)})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := n.Block(t.Context(), n.First()); err == nil {
			t.Errorf("%s: a block was taken", name)
		}
		n.Close()
	}
	const status = "HTTP/1.1 200 OK\r\nContent-Length: "
	for name, answer := range map[string]string{
		"nothing": "", "garbage": "garbage\r\n\r\n", "another block": status + "80\r\n\r\n" + strings.Repeat("x", 80),
		"an error":   "HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n",
		"elsewhere":  "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n",
		"a long one": status + "5000000\r\n\r\n" + strings.Repeat("x", 5_000_000),
	} {
		n, err := source.New(source.Config{Program: settings.Core, Network: basev1.Network_NETWORK_REGTEST, RPC: hostile(t, []byte(answer))})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := n.Block(t.Context(), n.First()); err == nil {
			t.Errorf("%s: a block was taken", name)
		}
		n.Close()
	}
}
