package nodeclient_test

import (
	"context"
	"errors"
	"math"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	nodev1 "github.com/BitBoxSwiss/bitbox-base/api/node/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/backlog"
	"github.com/BitBoxSwiss/bitbox-base/internal/electrum"
	"github.com/BitBoxSwiss/bitbox-base/internal/ipc"
	"github.com/BitBoxSwiss/bitbox-base/internal/node"
	"github.com/BitBoxSwiss/bitbox-base/internal/nodeclient"
	"github.com/BitBoxSwiss/bitbox-base/internal/testbed/leaktest"
	"github.com/BitBoxSwiss/bitbox-base/internal/testbed/nodetest"
)

func TestMain(m *testing.M) { os.Exit(leaktest.Run(m)) }

// socket is a path that is short enough for one.
func socket(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "node")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return filepath.Join(dir, "socket")
}

// takenOver is a bitbox-node that answers each request by these replies.
func takenOver(t testing.TB, replies ...[]byte) *nodeclient.Client {
	t.Helper()
	return served(t, func(request *ipc.Request, send func([]byte) error) error {
		if _, err := request.Read(); err != nil {
			return err
		}
		for _, reply := range replies {
			if err := send(reply); err != nil {
				return err
			}
		}
		return nil
	})
}

// served is a bitbox-node that does this with each request.
func served(t testing.TB, answer func(request *ipc.Request, send func([]byte) error) error) *nodeclient.Client {
	t.Helper()
	path := socket(t)
	listener, err := ipc.Listen(path, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		_ = ipc.Serve(ctx, listener, func(_ context.Context, _ ipc.Peer, request *ipc.Request, send func([]byte) error) error {
			return answer(request, send)
		})
	})
	t.Cleanup(func() {
		cancel()
		running.Wait()
	})
	return nodeclient.Dial(path)
}

func marshal(t testing.TB, reply *nodev1.NodeReply) []byte {
	t.Helper()
	b, err := proto.Marshal(reply)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestARealNodeIsSeenThroughTheSocket(t *testing.T) {
	b := nodetest.StartBtcd(t, "regtest")
	path := socket(t)
	client := nodeclient.Dial(path)
	if n, err := client.Node(t.Context()); err != nil || n.GetState() != basev1.Node_STATE_NONE {
		t.Errorf("before bitbox-node is there: %v, %v", n, err)
	}
	stop := nodetest.Serve(t, path, node.Config{Node: b.Node(), Interval: nodetest.Quick})
	b.Generate(3)
	nodetest.Eventually(t, "three blocks are seen", func() bool {
		n, err := client.Node(t.Context())
		return err == nil && n.GetState() == basev1.Node_STATE_CURRENT && n.GetHeight() == 3
	})
	blocks, err := client.Blocks(t.Context(), 2)
	if err != nil || len(blocks.GetBlocks()) != 2 || blocks.GetBlocks()[1].GetHeight() != 3 {
		t.Errorf("%v, %v", blocks, err)
	}
	if fees, err := client.Fees(t.Context()); err != nil || !fees.GetOffered() {
		t.Errorf("%v, %v", fees, err)
	}
	if peers, err := client.Peers(t.Context()); err != nil || len(peers.GetPeers()) != 0 {
		t.Errorf("%v, %v", peers, err)
	}
	// The known blocks come first, then the new ones.
	ctx, cancel := context.WithTimeout(t.Context(), nodetest.Patience)
	defer cancel()
	enough := errors.New("enough")
	var heights []uint64
	err = client.WatchBlocks(ctx, 1, func(block *basev1.Block) error {
		if heights = append(heights, block.GetHeight()); len(heights) == 1 {
			b.Generate(1)
		} else {
			return enough
		}
		return nil
	})
	if !errors.Is(err, enough) || len(heights) != 2 || heights[0] != 3 || heights[1] != 4 {
		t.Errorf("%v, %v", heights, err)
	}
	stop()
	client.WaitForRestart(0)
	// The socket of a program that was killed is still there, and one that has ended in order is not.
	if n, err := client.Node(t.Context()); err != nil || n.GetState() != basev1.Node_STATE_NONE {
		t.Errorf("after bitbox-node has ended: %v, %v", n, err)
	}
}

// The messages of a taken-over bitbox-node are bounded, printable, and about the node alone.
func TestATakenOverNodeProcessSaysNothingButWhatANodeSays(t *testing.T) {
	evil := "\x1b[2J\u202e" + strings.Repeat("x", 60<<10)
	var peers []*basev1.Peer
	for range 5000 {
		peers = append(peers, &basev1.Peer{Address: "\n", PingMs: proto.Float64(math.NaN()),
			ConnectedAt: &timestamppb.Timestamp{Seconds: math.MaxInt64}})
	}
	n, err := takenOver(t, marshal(t, &nodev1.NodeReply{Result: &nodev1.NodeReply_Node{Node: &basev1.Node{
		State: basev1.Node_STATE_CURRENT, Reason: evil, Software: evil, Progress: math.Inf(1),
		Warnings: strings.Split(strings.Repeat("w\n", 500), "\n"), BestBlockTime: &timestamppb.Timestamp{Nanos: -1},
	}}})).Node(t.Context())
	if err != nil || len(n.GetReason()) > 256 || strings.ContainsAny(n.GetReason(), "\x1b\u202e") || len(n.GetWarnings()) > 8 ||
		n.GetProgress() > 1 || n.GetBestBlockTime() != nil {
		t.Errorf("%v, %v", n, err)
	}
	list, err := takenOver(t, marshal(t, &nodev1.NodeReply{Result: &nodev1.NodeReply_Peers{
		Peers: &basev1.ListPeersResponse{Peers: peers}}})).Peers(t.Context())
	if err != nil || len(list.GetPeers()) != 256 || list.GetPeers()[0].GetAddress() != " " || list.GetPeers()[0].PingMs != nil ||
		list.GetPeers()[0].GetConnectedAt() != nil {
		t.Errorf("%d peers, %v", len(list.GetPeers()), err)
	}
	for what, reply := range map[string][]byte{
		"another answer": marshal(t, &nodev1.NodeReply{Result: &nodev1.NodeReply_Fees{}}), "nothing": {}, "garbage": {0xFF, 0xFF},
		"a state that is not there": marshal(t, &nodev1.NodeReply{Result: &nodev1.NodeReply_Node{Node: &basev1.Node{State: 99}}}),
		"a long one":                marshal(t, &nodev1.NodeReply{Result: &nodev1.NodeReply_Node{Node: &basev1.Node{Reason: strings.Repeat("x", 200<<10)}}}),
		"many empty peers":          append([]byte{0x12, 0x80, 0x80, 0x20}, []byte(strings.Repeat("\x0a\x00", 256<<10))...),
	} {
		if n, err := takenOver(t, reply).Node(t.Context()); err == nil {
			t.Errorf("%s became %v", what, n)
		}
	}
}

// The attack: a bitbox-node that was taken over tells events that only the Base may make.
func TestATakenOverNodeProcessCannotMakeEventsOfTheBase(t *testing.T) {
	number := uint64(0)
	event := func(e *basev1.Event) []byte {
		number++
		return marshal(t, &nodev1.NodeReply{Result: &nodev1.NodeReply_Happened{Happened: &nodev1.NodeEvent{Event: e, Run: 1, Number: number}}})
	}
	client := takenOver(t,
		event(&basev1.Event{Event: &basev1.Event_AppPaired{AppPaired: &basev1.AppPairedEvent{App: &basev1.App{Name: "evil"}}}}),
		event(&basev1.Event{Event: &basev1.Event_Subscribed{Subscribed: &basev1.SubscribedEvent{LastSequence: 1 << 60}}}),
		event(&basev1.Event{Event: &basev1.Event_NodeEventsMissed{NodeEventsMissed: &basev1.NodeEventsMissedEvent{}}}),
		event(&basev1.Event{}),
		event(&basev1.Event{Sequence: 7, Past: true, Time: &timestamppb.Timestamp{Seconds: 1}, LeftOut: proto.Uint32(9),
			Event: &basev1.Event_NodeStopped{NodeStopped: &basev1.NodeStoppedEvent{Reason: "\x1b[2J"}}}),
	)
	var events []*nodev1.NodeEvent
	if err := client.WatchEvents(t.Context(), backlog.Place{}, func(e *nodev1.NodeEvent) error {
		events = append(events, e)
		return nil
	}); err != nil {
		t.Error(err)
	}
	want := &basev1.Event{Event: &basev1.Event_NodeStopped{NodeStopped: &basev1.NodeStoppedEvent{Reason: "?[2J"}}}
	for i, e := range events {
		if last := i == len(events)-1; e.GetNumber() != uint64(i+1) || last != proto.Equal(e.GetEvent(), want) || last == (e.Event == nil) {
			t.Errorf("in place %d %v came through", i, e)
		}
	}
	if len(events) != 5 {
		t.Errorf("%d messages came", len(events))
	}
	// Another answer than events.
	if err := takenOver(t, marshal(t, &nodev1.NodeReply{Result: &nodev1.NodeReply_Fees{}})).WatchEvents(t.Context(), backlog.Place{},
		func(*nodev1.NodeEvent) error { return nil }); err == nil {
		t.Error("an answer about something else was taken")
	}
}

func TestOnlyWhoMayAskIsAnswered(t *testing.T) {
	path := socket(t)
	listener, err := ipc.Listen(path, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	server := node.Server{Watcher: node.NewWatcher(node.Config{Without: &basev1.Node{State: basev1.Node_STATE_NOT_INSTALLED}}),
		Users: []uint32{54321}, Logger: nodetest.Discard}
	running.Go(func() { _ = server.Serve(ctx, listener) })
	defer running.Wait()
	defer cancel()
	if n, err := nodeclient.Dial(path).Node(t.Context()); !errors.Is(err, ipc.ErrRefused) {
		t.Errorf("another user: %v, %v", n, err)
	}
}

func TestOneUserAsksNoMoreThanItsBudgetAllows(t *testing.T) {
	path := socket(t)
	nodetest.Serve(t, path, node.Config{Without: &basev1.Node{State: basev1.Node_STATE_NOT_INSTALLED, Reason: "not installed"}})
	client := nodeclient.Dial(path)
	if n, err := client.Node(t.Context()); err != nil || n.GetReason() != "not installed" {
		t.Errorf("%v, %v", n, err)
	}
	raw, refused := ipc.Dial(path), false
	for n := 0; n < 100_000 && !refused; n++ {
		for _, err := range raw.Stream(t.Context(), uint16(nodev1.Verb_VERB_GET_NODE), nil) {
			refused = refused || errors.Is(err, ipc.ErrRefused)
		}
	}
	if !refused {
		t.Error("100,000 requests were answered")
	}
	// Requests have no content, and there are no other verbs.
	nodetest.Eventually(t, "it is answered again", func() bool { _, err := client.Node(t.Context()); return err == nil })
	for kind, content := range map[uint16][]byte{uint16(nodev1.Verb_VERB_GET_NODE): {1}, 0: nil, 99: nil} {
		for answer, err := range raw.Stream(t.Context(), kind, content) {
			if err == nil {
				t.Errorf("kind %d with %d bytes: %x", kind, len(content), answer)
			}
		}
	}
}

// An owner changes the settings of the node, which restarts bitbox-node, and asks how the node is.
func TestAQuestionWaitsForANodeProcessThatRestarts(t *testing.T) {
	path := socket(t)
	config := node.Config{Without: &basev1.Node{State: basev1.Node_STATE_NOT_INSTALLED}}
	client := nodeclient.Dial(path)
	client.WaitForRestart(nodetest.Patience)
	asked := func() <-chan *basev1.Node {
		answer := make(chan *basev1.Node, 1)
		go func() {
			n, err := client.Node(t.Context())
			if err != nil {
				t.Error(err)
			}
			answer <- n
		}()
		return answer
	}
	stop := nodetest.Serve(t, path, config)
	<-asked()
	for range 20 {
		before := asked() // perhaps in the middle of the end
		stop()
		between := asked()
		stop = nodetest.Serve(t, path, config)
		for _, answer := range []<-chan *basev1.Node{before, between} {
			if n := <-answer; n.GetState() != basev1.Node_STATE_NOT_INSTALLED {
				t.Errorf("a question during a restart is answered with %v", n)
			}
		}
	}
	stop()
	client.WaitForRestart(0)
	if n := <-asked(); n.GetState() != basev1.Node_STATE_NONE {
		t.Errorf("one that does not come back: %v", n)
	}
}

// A bitbox-node that refuses is asked twice: a question does not become a flood.
func TestANodeProcessThatHangsUpIsAskedOnceMore(t *testing.T) {
	for hangUps, answered := range map[int32]bool{1: true, 2: false} {
		var asked atomic.Int32
		reply := marshal(t, &nodev1.NodeReply{Result: &nodev1.NodeReply_Node{Node: &basev1.Node{State: basev1.Node_STATE_CURRENT}}})
		client := served(t, func(request *ipc.Request, send func([]byte) error) error {
			if asked.Add(1) <= hangUps {
				return errors.New("it ends")
			}
			if _, err := request.Read(); err != nil {
				return err
			}
			return send(reply)
		})
		n, err := client.Node(t.Context())
		if answered != (err == nil) || answered && n.GetState() != basev1.Node_STATE_CURRENT || asked.Load() != 2 {
			t.Errorf("it hung up %d times, was asked %d times, and answered %v, %v", hangUps, asked.Load(), n, err)
		}
	}
}

// FuzzReply: whatever bitbox-node answers, what comes through is bounded and printable.
func FuzzReply(f *testing.F) {
	height := uint64(1)
	for _, reply := range []*nodev1.NodeReply{
		{Result: &nodev1.NodeReply_Node{Node: &basev1.Node{
			State: basev1.Node_STATE_BEHIND, Reason: "\x1b", Headers: &height, Warnings: []string{"\n"}}}},
		{Result: &nodev1.NodeReply_Peers{Peers: &basev1.ListPeersResponse{Peers: []*basev1.Peer{{Address: "\u202e"}}}}},
		{Result: &nodev1.NodeReply_Happened{Happened: &nodev1.NodeEvent{Run: 1, Number: 1, Event: &basev1.Event{
			Event: &basev1.Event_NodeLonely{NodeLonely: &basev1.NodeLonelyEvent{}}}}}},
	} {
		f.Add(marshal(f, reply))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if reply, err := nodeclient.Parse(b); err == nil {
			nodetest.CheckMessage(t, reply)
		}
	})
}

// A transaction is found, waits, is not known, or cannot be looked for.
func TestATransactionIsFoundThroughTheSocket(t *testing.T) {
	b := nodetest.StartBtcd(t, "regtest")
	b.Generate(3)
	path := socket(t)
	client := nodeclient.Dial(path)
	id := make([]byte, 32)
	ask := func(state basev1.GetTransactionResponse_State) *basev1.GetTransactionResponse {
		t.Helper()
		found, err := client.Transaction(t.Context(), &basev1.GetTransactionRequest{Id: id})
		if err != nil || found.GetState() != state {
			t.Fatalf("%v, %v; want %v", found, err, state)
		}
		return found
	}
	if found := ask(basev1.GetTransactionResponse_STATE_NOT_OFFERED); !strings.Contains(found.GetReason(), "no server for wallets") {
		t.Errorf("no process: %v", found)
	}
	stop := nodetest.Serve(t, path, node.Config{Node: b.Node(), Interval: nodetest.Quick})
	if found := ask(basev1.GetTransactionResponse_STATE_NOT_OFFERED); !strings.Contains(found.GetReason(), "no server for wallets") {
		t.Errorf("no server for wallets: %v", found)
	}
	stop()
	unread := electrum.NewFinder()
	stop = nodetest.ServeFinder(t, path, node.Config{Node: b.Node(), Interval: nodetest.Quick}, unread)
	if found := ask(basev1.GetTransactionResponse_STATE_NOT_OFFERED); !strings.Contains(found.GetReason(), "not read all blocks") {
		t.Errorf("no index: %v", found)
	}
	if headers, err := client.Headers(t.Context(), &basev1.ListHeadersRequest{Count: 9}); err != nil || len(headers.GetHeaders()) != 0 {
		t.Errorf("no index: %v, %v", headers, err)
	}
	stop()
	_, finder := b.ServeWallets()
	nodetest.ServeFinder(t, path, node.Config{Node: b.Node(), Interval: nodetest.Quick}, finder)
	ask(basev1.GetTransactionResponse_STATE_UNKNOWN)
	headers, err := client.Headers(t.Context(), &basev1.ListHeadersRequest{First: 2, Count: 2000})
	if err != nil || len(headers.GetHeaders()) != 2*80 {
		t.Fatalf("%d bytes, %v", len(headers.GetHeaders()), err)
	}
	id = headers.GetHeaders()[36:68] // the merkle root of one transaction is its ID
	if found := ask(basev1.GetTransactionResponse_STATE_CONFIRMED); found.GetPlace().GetHeight() != 2 || found.GetTip() != 3 ||
		len(found.GetTransaction()) == 0 {
		t.Errorf("%v", found)
	}
	if _, err := client.Transaction(t.Context(), &basev1.GetTransactionRequest{Id: []byte("short")}); err == nil {
		t.Error("an ID that is none was answered")
	}
	if _, err := client.Transaction(t.Context(), &basev1.GetTransactionRequest{Id: make([]byte, 1<<10)}); err == nil {
		t.Error("a long request was answered")
	}
}

// The attack: a bitbox-node that was taken over has a transaction that is nowhere, or too much.
func TestAnAnswerAboutATransactionIsWholeOrNone(t *testing.T) {
	for name, answer := range map[string]*basev1.GetTransactionResponse{
		"nothing":          {},
		"in no place":      {State: basev1.GetTransactionResponse_STATE_CONFIRMED},
		"waits in a block": {State: basev1.GetTransactionResponse_STATE_WAITING, Place: &basev1.TransactionPlace{}},
		"a new state":      {State: 99},
		"too large":        {State: basev1.GetTransactionResponse_STATE_WAITING, Transaction: make([]byte, 200<<10)},
	} {
		client := takenOver(t, marshal(t, &nodev1.NodeReply{Result: &nodev1.NodeReply_Transaction{Transaction: answer}}))
		if got, err := client.Transaction(t.Context(), &basev1.GetTransactionRequest{Id: make([]byte, 32)}); err == nil {
			t.Errorf("%s: %v", name, got)
		}
	}
	long := &basev1.TransactionPlace{Branch: make([][]byte, 1000)}
	client := takenOver(t, marshal(t, &nodev1.NodeReply{Result: &nodev1.NodeReply_Transaction{Transaction: &basev1.GetTransactionResponse{
		State: basev1.GetTransactionResponse_STATE_CONFIRMED, Place: long}}}))
	got, err := client.Transaction(t.Context(), &basev1.GetTransactionRequest{Id: make([]byte, 32)})
	if err != nil || len(got.GetPlace().GetBranch()) > 17 {
		t.Errorf("%d hashes, %v", len(got.GetPlace().GetBranch()), err)
	}
}
