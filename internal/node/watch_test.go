package node_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/node"
	"github.com/BitBoxSwiss/bitbox-base/internal/node/btcd"
	"github.com/BitBoxSwiss/bitbox-base/internal/node/clock"
	"github.com/BitBoxSwiss/bitbox-base/internal/nodeclient"
	"github.com/BitBoxSwiss/bitbox-base/internal/testbed/nodetest"
)

// log collects what is logged.
type log struct {
	mu sync.Mutex
	strings.Builder
}

func (l *log) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.Builder.Write(b)
}

func (l *log) text() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.String()
}

// watching watches a node, with a clock that the test sets.
type watching struct {
	*node.Watcher
	t      *testing.T
	log    *log
	mu     sync.Mutex
	ahead  time.Duration
	events []*basev1.Event
	blocks []*basev1.Block
}

func watch(t *testing.T, n node.Node) *watching {
	t.Helper()
	w := &watching{t: t, log: &log{}}
	begun := time.Now()
	w.Watcher = node.NewWatcher(node.Config{Node: n, Interval: 20 * time.Millisecond, Logger: slog.New(slog.NewTextHandler(w.log, nil)),
		Since: func() time.Duration {
			w.mu.Lock()
			defer w.mu.Unlock()
			return time.Since(begun) + w.ahead
		}})
	follower, _, err := w.Follow()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { w.Run(ctx) })
	running.Go(func() {
		for news := range follower.News {
			w.mu.Lock()
			if news.Block != nil {
				w.blocks = append(w.blocks, news.Block)
			} else {
				w.events = append(w.events, news.Event)
			}
			w.mu.Unlock()
		}
	})
	t.Cleanup(func() {
		cancel()
		follower.Close()
		running.Wait()
	})
	return w
}

func (w *watching) advance(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ahead += d
}

// until waits until the node is as it should be.
func (w *watching) until(state basev1.Node_State, height uint64) {
	w.t.Helper()
	nodetest.Eventually(w.t, fmt.Sprintf("the node is %v at %d", state, height), func() bool {
		return w.Node().GetState() == state && w.Node().GetHeight() == height
	})
}

// told waits for an event, and returns it.
func told[E any](w *watching, what string, get func(*basev1.Event) *E) (event *E) {
	w.t.Helper()
	nodetest.Eventually(w.t, what, func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		for _, e := range w.events {
			if found := get(e); found != nil {
				event = found
			}
		}
		return event != nil
	})
	return event
}

func TestBlocksArriveAndTransactionsAreCounted(t *testing.T) {
	t.Parallel()
	b := nodetest.StartBtcd(t, "regtest")
	w := watch(t, b.Node())
	w.until(basev1.Node_STATE_CURRENT, 0)
	b.Generate(5)
	w.until(basev1.Node_STATE_CURRENT, 5)
	nodetest.Eventually(t, "each block is told", func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		return len(w.blocks) == 6 // the first one was there before
	})
	for i, block := range w.Blocks() {
		if block.GetHeight() != uint64(i) || block.GetTransactions() != 1 {
			t.Errorf("block %d is %v", i, block)
		}
	}
}

// Two nodes each make a chain of their own. When they meet, the one with less work gives up
// its blocks.
func TestAReorganisationOfTwoRealNodesIsTold(t *testing.T) {
	t.Parallel()
	a, b := nodetest.StartBtcd(t, "simnet"), nodetest.StartBtcd(t, "simnet")
	a.Generate(10)
	b.Connect(a)
	w := watch(t, b.Node())
	w.until(basev1.Node_STATE_CURRENT, 10)
	b.Disconnect(a)
	b.Generate(5)
	w.until(basev1.Node_STATE_CURRENT, 15)
	before := w.Node().GetBestBlock()
	a.Generate(100)
	b.Connect(a)
	w.until(basev1.Node_STATE_CURRENT, 110)
	e := told(w, "a reorganisation", (*basev1.Event).GetChainReorganised)
	if e.GetDepth() != 5 || e.GetBefore() != before {
		t.Errorf("%v, and the best block was %s", e, before)
	}
	blocks := w.Blocks()
	for i := 1; i < len(blocks); i++ {
		if blocks[i].GetHeight() == blocks[i-1].GetHeight()+1 && blocks[i].GetPrevious() != blocks[i-1].GetHash() {
			t.Errorf("block %d does not follow block %d", blocks[i].GetHeight(), blocks[i-1].GetHeight())
		}
	}
}

// A node on its way to the height of its peers is behind, though it has as many headers as
// blocks.
func TestProgressComesFromThePeers(t *testing.T) {
	t.Parallel()
	a, b := nodetest.StartBtcd(t, "simnet"), nodetest.StartBtcd(t, "simnet")
	a.Generate(30)
	w := watch(t, b.Node())
	w.until(basev1.Node_STATE_CURRENT, 0)
	b.Connect(a)
	nodetest.Eventually(t, "it is on its way to 30, or there", func() bool { return w.Node().GetTarget() == 30 })
	w.until(basev1.Node_STATE_CURRENT, 30)
	if peers := w.Peers(); len(peers) != 1 || peers[0].GetInbound() || !strings.Contains(peers[0].GetSoftware(), "btcd") {
		t.Errorf("%v", peers)
	}
}

func TestANodeThatIsKilledAndHasLostBlocksIsToldAndCatchesUp(t *testing.T) {
	t.Parallel()
	b := nodetest.StartBtcd(t, "simnet")
	b.Generate(20)
	b.Stop()
	b.Start()
	w := watch(t, b.Node())
	w.until(basev1.Node_STATE_CURRENT, 20)
	b.Generate(50)
	w.until(basev1.Node_STATE_CURRENT, 70)
	b.Kill()
	w.until(basev1.Node_STATE_STOPPED, 70)
	w.advance(2 * time.Minute)
	told(w, "that it stopped", (*basev1.Event).GetNodeStopped)
	b.Start() // btcd has forgotten what it had not written
	kept := b.Height()
	w.until(basev1.Node_STATE_CURRENT, kept)
	if lost := 70 - kept; lost > 6 {
		if e := told(w, "that it is behind", (*basev1.Event).GetNodeBehind); e.GetLostBlocks() != lost {
			t.Errorf("it has lost %d blocks, and tells %v", lost, e)
		}
	}
	b.Generate(uint32(70 - kept + 1))
	e := told(w, "that it has caught up", (*basev1.Event).GetNodeCaughtUp)
	if e.GetHeight() < kept {
		t.Errorf("%v", e)
	}
	t.Logf("btcd had %d of 70 blocks after kill -9", kept)
}

// An owner who has a node go back 100 blocks sees that it is behind, and no reorganisation.
func TestGoingBack100BlocksIsNoReorganisation(t *testing.T) {
	t.Parallel()
	b := nodetest.StartBtcd(t, "simnet")
	b.Generate(140)
	w := watch(t, b.Node())
	w.until(basev1.Node_STATE_CURRENT, 140)
	b.Generate(1)
	w.until(basev1.Node_STATE_CURRENT, 141)
	hashes, err := b.Node().Hashes(t.Context(), []uint64{42})
	if err != nil {
		t.Fatal(err)
	}
	b.Call(nil, "invalidateblock", hashes[0])
	e := told(w, "that it is behind", (*basev1.Event).GetNodeBehind)
	if e.GetLostBlocks() != 100 || e.GetHeight() != 41 || e.GetTarget() != 141 {
		t.Errorf("%v", e)
	}
	b.Call(nil, "reconsiderblock", hashes[0])
	if e := told(w, "that it has caught up", (*basev1.Event).GetNodeCaughtUp); e.GetHeight() != 141 {
		t.Errorf("%v", e)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, e := range w.events {
		if e.GetChainReorganised() != nil {
			t.Errorf("a reorganisation was told: %v", e)
		}
	}
}

// After each fault the watcher goes on by itself, and its log has no secret.
func TestFaultsAreToldAndLeaveNoSecretInTheLog(t *testing.T) {
	t.Parallel()
	b := nodetest.StartBtcd(t, "regtest")
	w := watch(t, b.Node())
	w.until(basev1.Node_STATE_CURRENT, 0)
	b.SetPassword("a wrong one, that nobody may see")
	w.until(basev1.Node_STATE_STOPPED, 0)
	if reason := w.Node().GetReason(); !strings.Contains(reason, "credentials") {
		t.Errorf("why: %q", reason)
	}
	b.SetPassword("a password of this test")
	w.until(basev1.Node_STATE_CURRENT, 0)
	b.Kill()
	w.until(basev1.Node_STATE_STOPPED, 0)
	b.Start()
	w.until(basev1.Node_STATE_CURRENT, 0)
	logged := w.log.text()
	if !strings.Contains(logged, "credentials") {
		t.Errorf("the log does not say why: %s", logged)
	}
	for _, secret := range []string{"that nobody may see", "a password of this test", "Basic "} {
		if strings.Contains(logged, secret) {
			t.Errorf("the log has %q: %s", secret, logged)
		}
	}
}

func TestFollowersAreFew(t *testing.T) {
	w := node.NewWatcher(node.Config{Without: &basev1.Node{State: basev1.Node_STATE_NOT_INSTALLED}})
	var all []*node.Follower
	for {
		f, _, err := w.Follow()
		if err != nil {
			break
		}
		all = append(all, f)
	}
	if len(all) < 8 || len(all) > 96 {
		t.Errorf("%d may follow", len(all))
	}
	for _, f := range all {
		f.Close()
		f.Close()
	}
	if f, _, err := w.Follow(); err != nil {
		t.Error(err)
	} else {
		f.Close()
	}
}

// The reason is there for as long as the start waits, and no longer.
func TestANodeThatWaitsForTheClockIsStarting(t *testing.T) {
	folder := t.TempDir()
	n, err := btcd.New(btcd.Config{Address: nodetest.FreeAddress(t), Credentials: folder + "/none", Certificate: folder + "/none",
		Network: basev1.Network_NETWORK_SIGNET})
	if err != nil {
		t.Fatal(err)
	}
	gate := clock.Gate{Folder: folder, Synchronised: folder + "/synchronized", Lock: folder + "/lock"}
	nodetest.Serve(t, folder+"/socket", node.Config{Node: n, Interval: nodetest.Quick, Waits: func() string {
		if clock.Waits(gate.Lock) {
			return clock.Reason
		}
		return ""
	}})
	client := nodeclient.Dial(folder + "/socket")
	until := func(state basev1.Node_State, reason string) {
		t.Helper()
		nodetest.Eventually(t, reason, func() bool {
			n, err := client.Node(t.Context())
			return err == nil && n.GetState() == state && n.GetReason() == reason
		})
	}
	until(basev1.Node_STATE_STOPPED, "btcd does not run")
	gate.After = func(time.Duration) <-chan time.Time {
		until(basev1.Node_STATE_STARTING, clock.Reason)
		if err := os.WriteFile(gate.Synchronised, nil, 0o600); err != nil {
			t.Error(err)
		}
		passed := make(chan time.Time)
		close(passed)
		return passed
	}
	if result, err := gate.Wait(basev1.Network_NETWORK_SIGNET); err != nil || result != clock.Set {
		t.Errorf("%v, %v", result, err)
	}
	until(basev1.Node_STATE_STOPPED, "btcd does not run")
}
