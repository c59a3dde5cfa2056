// Package node_test runs a node with Bitcoin Core's interface, and asks it as a Base does.
package node_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	nodev1 "github.com/BitBoxSwiss/bitbox-base/api/node/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/backlog"
	"github.com/BitBoxSwiss/bitbox-base/internal/node"
	"github.com/BitBoxSwiss/bitbox-base/internal/node/core"
	"github.com/BitBoxSwiss/bitbox-base/internal/node/jsonrpc"
	"github.com/BitBoxSwiss/bitbox-base/internal/nodeclient"
	"github.com/BitBoxSwiss/bitbox-base/internal/testbed/leaktest"
	"github.com/BitBoxSwiss/bitbox-base/internal/testbed/nodetest"
)

func TestMain(m *testing.M) { os.Exit(leaktest.Run(m)) }

// needsKnots skips a test where Debian's bitcoin-knots cannot be fetched, as the tests against
// Debian's servers are.
func needsKnots(t *testing.T) {
	t.Helper()
	_, err := exec.LookPath("mmdebstrap")
	if os.Geteuid() == 0 && err == nil && runtime.GOARCH == "amd64" {
		return
	}
	const needs = "this test needs root, mmdebstrap, and an amd64 machine: the program is pinned"
	if os.Getenv("CI") == "true" {
		t.Fatal(needs)
	}
	t.Skip(needs)
}

func TestANodeWithCoresInterfaceIsUnderstood(t *testing.T) {
	needsKnots(t)
	k, peer := nodetest.StartKnots(t), nodetest.StartKnots(t)
	hashes := k.Generate(101)
	k.Connect(peer)
	nodetest.Eventually(t, "the peer has all blocks", func() bool { return peer.Height() == 101 })
	// The node knows a peer's height once the peer has announced a block.
	hashes = append(hashes, peer.Generate(1)...)
	nodetest.Eventually(t, "the peer's block has come", func() bool { return k.Height() == 102 })
	k.Pay(hashes[0])
	var look *node.Look
	nodetest.Eventually(t, "the transaction is seen, and what the peer has", func() bool {
		var err error
		look, err = k.Node().Look(t.Context())
		return err == nil && look.Node.GetMempoolTransactions() == 1 && len(look.Peers) == 1 && look.Peers[0].GetHeight() == 102
	})
	n := look.Node
	if n.GetNetwork() != basev1.Network_NETWORK_REGTEST || n.GetHeight() != 102 || n.GetHeaders() != 102 || n.GetBestBlock() != hashes[101] ||
		n.GetSizeBytes() == 0 || n.Pruned == nil || n.GetPruned() || n.GetPeersOut() != 1 || n.GetPeersIn() != 0 ||
		!strings.HasPrefix(n.GetSoftware(), "Bitcoin Core (Knots:") || !strings.HasPrefix(n.GetVersion(), "29.4.") || !look.Fees.GetOffered() {
		t.Errorf("%v\n%v\n%v", n, look.Peers, look.Fees)
	}
	nodetest.CheckLook(t, look)
	mined := k.Generate(1)
	blocks, err := k.Node().Blocks(t.Context(), mined)
	if err != nil || blocks[0].GetTransactions() != 2 || blocks[0].GetPrevious() != hashes[101] || blocks[0].GetHeight() != 103 {
		t.Errorf("%v, %v", blocks, err)
	}
	if _, err := k.Node().Hashes(t.Context(), []uint64{104}); err == nil ||
		err.Error() != "the chain of Bitcoin Core has changed while it was asked" {
		t.Errorf("a height that is not there: %v", err)
	}
	if _, err := k.NodeOn(basev1.Network_NETWORK_SIGNET).Look(t.Context()); err == nil ||
		err.Error() != "Bitcoin Core is on regtest, and the Base is set to signet" {
		t.Errorf("another network: %v", err)
	}
}

func TestANodeThatPrunesSaysSo(t *testing.T) {
	needsKnots(t)
	look, err := nodetest.StartKnots(t, "-prune=550").Node().Look(t.Context())
	if err != nil || !look.Node.GetPruned() {
		t.Errorf("%v, %v", look, err)
	}
}

// asked asks all that a Base asks, and returns the first refusal.
func asked(t *testing.T, c *core.Core) error {
	t.Helper()
	look, err := c.Look(t.Context())
	if err != nil {
		return err
	}
	hashes, err := c.Hashes(t.Context(), []uint64{look.Node.GetHeight()})
	if err != nil {
		return err
	}
	_, err = c.Blocks(t.Context(), hashes)
	return err
}

// The attack: a bitbox-node that was taken over uses the cookie for something else.
func TestTheCookieIsGoodForWhatTheBaseAsksAndNothingElse(t *testing.T) {
	needsKnots(t)
	k := nodetest.StartKnots(t)
	if err := asked(t, k.Node()); err != nil {
		t.Error(err)
	}
	for _, method := range []string{"stop", "invalidateblock", "addnode", "getblocktemplate", "generatetoaddress", "dumptxoutset", "help"} {
		call := &jsonrpc.Call{Method: method, Into: new(any)}
		if err := k.Node().Batch(t.Context(), call); !errors.Is(err, jsonrpc.ErrForbidden) && call.Err == nil {
			t.Errorf("%s was answered", method)
		}
	}
	if err := asked(t, k.Node()); err != nil {
		t.Errorf("afterwards: %v", err)
	}
	// Without the whitelist one of them works: the attack proves something.
	open := nodetest.StartKnots(t, "-rpcwhitelist=nobody:stop")
	call := &jsonrpc.Call{Method: "help", Into: new(any)}
	if err := open.Node().Batch(t.Context(), call); err != nil || call.Err != nil {
		t.Errorf("without a whitelist: %v, %v", err, call.Err)
	}
	// And each method of the list is needed.
	for _, method := range core.Methods {
		rest := slices.DeleteFunc(slices.Clone(core.Methods), func(m string) bool { return m == method })
		without := nodetest.StartKnots(t, "-rpcwhitelist=__cookie__:"+strings.Join(rest, ","))
		err := asked(t, without.Node())
		if look, failed := without.Node().Look(t.Context()); method == "estimatesmartfee" && failed == nil && len(look.Fees.GetFees()) == 0 {
			err = errors.New("no fees")
		}
		if err == nil {
			t.Errorf("without %s everything is answered", method)
		}
		without.Kill()
	}
}

const notRunning = "Bitcoin Core does not run"

// follow has a Base watch a node.
func follow(t *testing.T, k *nodetest.Knots) (*nodeclient.Client, func(basev1.Node_State, uint64) *basev1.Node) {
	t.Helper()
	// Short, for the socket's path.
	dir, err := os.MkdirTemp("", "node")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	nodetest.Serve(t, dir+"/socket", node.Config{Node: k.Node(), Interval: nodetest.Quick, Disk: func() (total, available uint64, err error) {
		var s syscall.Statfs_t
		err = syscall.Statfs(k.Directory, &s)
		return s.Blocks * uint64(s.Bsize), s.Bavail * uint64(s.Bsize), err
	}})
	client := nodeclient.Dial(dir + "/socket")
	return client, func(state basev1.Node_State, height uint64) (n *basev1.Node) {
		t.Helper()
		nodetest.Eventually(t, fmt.Sprintf("the node is %v at %d", state, height), func() bool {
			var err error
			n, err = client.Node(t.Context())
			return err == nil && n.GetState() == state && n.GetHeight() == height
		})
		return n
	}
}

// Two chains meet, the node is killed, its cookie is another one, its cookie is wrong: the Base
// goes on by itself, and tells it.
func TestABaseFollowsANodeWithCoresInterfaceThroughItsFaults(t *testing.T) {
	needsKnots(t)
	k, other := nodetest.StartKnots(t), nodetest.StartKnots(t)
	client, until := follow(t, k)
	events := make(chan *basev1.Event, 64)
	watching := make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		defer close(watching)
		_ = client.WatchEvents(ctx, backlog.Place{}, func(e *nodev1.NodeEvent) error {
			if e.GetEvent() != nil {
				events <- e.GetEvent()
			}
			return nil
		})
	}()
	defer func() {
		cancel()
		<-watching
	}()

	// From its first look on the Base remembers each block; of those before it only the last four.
	k.Generate(1)
	until(basev1.Node_STATE_CURRENT, 1)
	k.Generate(9)
	before := until(basev1.Node_STATE_CURRENT, 10).GetBestBlock()
	// To an address of its own: the same blocks in the same second would be no other chain.
	other.Call(new([]string), "generatetoaddress", 20, "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080")
	k.Connect(other)
	until(basev1.Node_STATE_CURRENT, 20)
	// While the blocks come the node may be told to be behind, and to have caught up.
	var told *basev1.ChainReorganisedEvent
	for patience := time.After(nodetest.Patience); told == nil; {
		select {
		case e := <-events:
			told = e.GetChainReorganised()
		case <-patience:
			t.Fatal("no reorganisation was told")
		}
	}
	if told.GetDepth() != 10 || told.GetBefore() != before {
		t.Errorf("%v", told)
	}
	k.Kill()
	if n := until(basev1.Node_STATE_STOPPED, 20); n.GetReason() != notRunning {
		t.Errorf("killed: %v", n)
	}
	k.Start()        // with another cookie
	k.Connect(other) // it may have lost what it had not written
	until(basev1.Node_STATE_CURRENT, 20)
	cookie, err := os.ReadFile(k.Cookie)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(k.Cookie, []byte("__cookie__:0000"), 0o600); err != nil {
		t.Fatal(err)
	}
	if n := until(basev1.Node_STATE_STOPPED, 20); !strings.Contains(n.GetReason(), "credentials") {
		t.Errorf("another cookie: %v", n)
	}
	if err := os.WriteFile(k.Cookie, cookie, 0o600); err != nil {
		t.Fatal(err)
	}
	until(basev1.Node_STATE_CURRENT, 20)
}

// The disk is full while the node runs: it ends, the Base says why, and both go on once there is room.
func TestANodeWhoseDiskIsFullSaysSoAndGoesOnOnceThereIsRoom(t *testing.T) {
	needsKnots(t)
	disk := t.TempDir()
	if err := syscall.Mount("tmpfs", disk, "tmpfs", syscall.MS_NOEXEC|syscall.MS_NOSUID|syscall.MS_NODEV, "size=160m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(disk, 0); err != nil {
			t.Error(err)
		}
	})
	k, other := nodetest.StartKnotsIn(t, disk), nodetest.StartKnots(t)
	client, until := follow(t, k)
	k.Connect(other)
	k.Generate(3)
	nodetest.Eventually(t, "the peer has all blocks", func() bool { return other.Height() == 3 })
	until(basev1.Node_STATE_CURRENT, 3)
	ballast := filepath.Join(disk, "ballast")
	fill(t, ballast)
	k.Flush()
	k.Ended()
	nodetest.Eventually(t, "the Base says why", func() bool {
		n, err := client.Node(t.Context())
		return err == nil && n.GetState() == basev1.Node_STATE_STOPPED && n.GetDiskAvailableBytes() < 1<<20 &&
			n.GetReason() == notRunning+"; its disk is full, so make room on it or give it a larger one"
	})
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	k.Start()
	k.Connect(other) // it may have lost what it could not write
	nodetest.Eventually(t, "it has the blocks of its peer", func() bool { return k.Height() >= other.Height() })
	if n := until(basev1.Node_STATE_CURRENT, k.Height()); n.GetReason() != "" {
		t.Errorf("with room again: %v", n)
	}
	k.Generate(1)
	until(basev1.Node_STATE_CURRENT, k.Height())
}

// fill writes a file until its disk is full.
func fill(t *testing.T, path string) {
	t.Helper()
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	for block := make([]byte, 1<<20); len(block) > 0; {
		switch _, err := file.Write(block); {
		case errors.Is(err, syscall.ENOSPC):
			block = block[:len(block)/2]
		case err != nil:
			t.Fatal(err)
		}
	}
}

// The stop is cut, as by a power cut after the ten minutes of the unit: the node starts again.
func TestANodeWhoseStopWasCutStartsAgain(t *testing.T) {
	needsKnots(t)
	k, other := nodetest.StartKnots(t), nodetest.StartKnots(t)
	_, until := follow(t, k)
	k.Connect(other)
	k.Generate(50)
	nodetest.Eventually(t, "the peer has all blocks", func() bool { return other.Height() == 50 })
	until(basev1.Node_STATE_CURRENT, 50)
	nodetest.Eventually(t, "a stop is cut before it has ended", func() bool {
		cut := k.CutStop()
		if n := until(basev1.Node_STATE_STOPPED, 50); !strings.HasPrefix(n.GetReason(), notRunning) {
			t.Logf("meanwhile: %v", n)
		}
		k.Start()
		k.Connect(other) // it may have lost what it had not written
		until(basev1.Node_STATE_CURRENT, 50)
		return cut
	})
	k.Generate(1)
	until(basev1.Node_STATE_CURRENT, 51)
}

// Another network answers at the node's address, with credentials that are good.
func TestANodeOnAnotherNetworkIsNotTheNode(t *testing.T) {
	needsKnots(t)
	k := nodetest.StartKnots(t, "-connect=0")
	_, until := follow(t, k)
	k.Generate(5)
	before := until(basev1.Node_STATE_CURRENT, 5).GetBestBlock()
	k.Kill()
	k.Chain = "signet"
	k.Start()
	const want = "Bitcoin Core is on signet, and the Base is set to regtest"
	nodetest.Eventually(t, want, func() bool {
		n := until(basev1.Node_STATE_STOPPED, 5)
		return n.GetReason() == want && n.GetBestBlock() == before && n.GetNetwork() == basev1.Network_NETWORK_REGTEST
	})
	k.Kill()
	k.Chain = "regtest"
	k.Start()
	nodetest.Eventually(t, "the node is back", func() bool {
		look, err := k.Node().Look(t.Context())
		return err == nil && look.Node.GetNetwork() == basev1.Network_NETWORK_REGTEST
	})
	k.Generate(1)
	nodetest.Eventually(t, "it goes on", func() bool { return k.Height() >= 1 })
	until(basev1.Node_STATE_CURRENT, k.Height())
}

// The clock of the machine jumps, for its node and for the Base: back by a day, so that the node
// refuses the blocks of its peer, and later ahead by a year. The Base goes on, and makes no event of it.
func TestAClockThatJumpsHoldsNobodyUpForLong(t *testing.T) {
	needsKnots(t)
	k, peer := nodetest.StartKnots(t, "-debug=validation"), nodetest.StartKnots(t)
	var ahead atomic.Int64 // how far the clock of the machine is ahead, in nanoseconds
	now := func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	tick := func() { k.Call(nil, "setmocktime", now().Unix()) }
	jump := func(by time.Duration) {
		t.Helper()
		ahead.Store(int64(by))
		tick()
	}
	socket := filepath.Join(t.TempDir(), "socket")
	nodetest.Serve(t, socket, node.Config{Node: k.Node(), Interval: nodetest.Quick, Now: now})
	client := nodeclient.Dial(socket)
	until := func(height uint64, meanwhile ...func()) {
		t.Helper()
		nodetest.Eventually(t, fmt.Sprintf("the node is up to date at %d", height), func() bool {
			tick()
			for _, do := range meanwhile {
				do()
			}
			n, err := client.Node(t.Context())
			return err == nil && n.GetState() == basev1.Node_STATE_CURRENT && n.GetHeight() == height
		})
	}
	ctx, cancel := context.WithCancel(t.Context())
	watching := make(chan struct{})
	go func() {
		defer close(watching)
		_ = client.WatchEvents(ctx, backlog.Place{}, func(happened *nodev1.NodeEvent) error {
			// In a year its version has no more fixes; and the node leaves a peer that it has not heard of
			// for a year.
			if e := happened.GetEvent(); e != nil && e.GetNodeUnmaintained() == nil && e.GetNodeLonely() == nil {
				t.Errorf("this was told: %v", e)
			}
			return nil
		})
	}()
	defer func() {
		cancel()
		<-watching
	}()
	k.Connect(peer)
	k.Generate(3)
	nodetest.Eventually(t, "the peer has all blocks", func() bool { return peer.Height() == 3 })
	until(3)

	jump(-24 * time.Hour)
	refused := peer.Generate(1)[0]
	nodetest.Eventually(t, "the block of the peer is refused", func() bool {
		log, err := os.ReadFile(filepath.Join(k.Directory, k.Chain, "debug.log"))
		return err == nil && strings.Contains(string(log), "time-too-new")
	})
	until(3)

	jump(0)
	peer.Generate(1)
	until(5)
	if hashes, err := k.Node().Hashes(t.Context(), []uint64{4}); err != nil || hashes[0] != refused {
		t.Errorf("once the clock is right, block 4 is %v, not %s: %v", hashes, refused, err)
	}

	// The jump ends connections, a while after it. The node itself would make new ones within a minute.
	again := func() { k.Call(nil, "addnode", peer.P2P, "onetry") }
	for i, by := range []time.Duration{365 * 24 * time.Hour, 0} {
		jump(by)
		peer.Generate(1)
		until(uint64(6+i), again)
	}
}
