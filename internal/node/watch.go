package node

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/backlog"
	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
)

const (
	// Interval is how often a node is asked.
	Interval = 5 * time.Second
	// lookTime is how long one look may take, with all blocks of a deep reorganisation.
	lookTime = 2 * time.Minute
	// maxFollowers is how many follow blocks or events at once.
	maxFollowers = 64
	// followerQueue is how many blocks or events a follower may be behind: more than one look
	// brings.
	followerQueue = 2 * mostNew
	// logAgain is how often the log says that a node still does not answer.
	logAgain = 10 * time.Minute
	// noRoom is when a disk counts as full, in bytes: Bitcoin Core stops below that.
	noRoom = 50 << 20
	// endTime is how long bitbox-node waits at its end for followers to read what waits for them.
	endTime = time.Second
)

// Config is what a Watcher is made of.
type Config struct {
	// Node is asked; nil: there is none, and Without says which kind of none.
	Node    Node
	Without *basev1.Node
	// Interval is how often; 0: Interval.
	Interval time.Duration
	// Disk tells how large the file system of the node's data is, and how much of it is
	// available, in bytes; nil: it is not known.
	Disk func() (total, available uint64, err error)
	// Waits tells why a node that does not answer has not begun yet; nil or "": for no known reason.
	Waits func() string
	// Wallets tells how far the server for wallets is, nil if that is not known. Wallets itself
	// may be nil.
	Wallets func() *basev1.WalletServer
	Logger  *slog.Logger
	// Now and Since are the clocks: the one of the wall, and one that does not jump; nil: the
	// system's.
	Now   func() time.Time
	Since func() time.Duration
}

// Watcher asks a node, again and again, and remembers what it has said. Its other methods make
// no work for the node.
type Watcher struct {
	config  Config
	chain   chain
	monitor monitor
	sync    trend
	disk    trend
	logged  time.Duration // when the log was told last that it does not answer; 0: it answers

	mu        sync.Mutex
	node      *basev1.Node
	peers     []*basev1.Peer
	fees      *basev1.GetFeesResponse
	blocks    []*basev1.Block
	followers map[*Follower]struct{}
	events    *backlog.Log
	open      int           // followers that are not closed
	ended     bool          // there is no more news
	drained   chan struct{} // closed when it has ended and no follower is open
}

// Follower gets what is new. Close must follow.
type Follower struct {
	watcher *Watcher
	// News is closed when the follower fell behind, and at the end of bitbox-node.
	News   chan News
	ended  bool // News was closed because bitbox-node ends
	closed bool
}

// News is a new block or an event; the other is nil.
type News struct {
	Block *basev1.Block
	Event *basev1.Event
}

// NewWatcher returns a Watcher, which knows nothing until Run has looked.
func NewWatcher(config Config) *Watcher {
	if config.Interval == 0 {
		config.Interval = Interval
	}
	if config.Now == nil {
		config.Now = time.Now
	}
	if config.Since == nil {
		begun := time.Now()
		config.Since = func() time.Duration { return time.Since(begun) }
	}
	w := &Watcher{config: config, sync: newSyncTrend(), disk: newDiskTrend(), followers: map[*Follower]struct{}{},
		fees: &basev1.GetFeesResponse{}, events: backlog.New(config.Now), drained: make(chan struct{})}
	w.node = &basev1.Node{State: basev1.Node_STATE_STARTING, Reason: "the Base has not asked the node yet"}
	if config.Node == nil {
		w.node = proto.CloneOf(config.Without)
	}
	return w
}

// Run asks the node until ctx ends.
func (w *Watcher) Run(ctx context.Context) {
	if w.config.Node == nil {
		<-ctx.Done()
		return
	}
	ticker := time.NewTicker(w.config.Interval)
	defer ticker.Stop()
	for {
		w.look(ctx)
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

// look asks once, and tells followers what is new.
func (w *Watcher) look(ctx context.Context) {
	bounded, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	now := w.config.Since()
	look, err := w.config.Node.Look(bounded)
	var changed change
	if err == nil {
		changed, err = w.follow(bounded, look.Node)
	}
	if ctx.Err() != nil {
		return
	}
	if err != nil {
		w.fail(now, err)
		return
	}
	w.logged = 0
	judged := judge(look, w.config.Now())
	judged.AskedAt = timestamppb.New(w.config.Now())
	if w.config.Wallets != nil {
		judged.WalletServer = w.config.Wallets()
	}
	w.estimate(now, judged, changed)
	events := w.monitor.look(now, judged, changed)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.node, w.peers, w.fees, w.blocks = judged, look.Peers, look.Fees, slices.Clone(w.chain.blocks)
	w.tellLocked(changed.added, events)
}

// follow asks how the chain has changed.
func (w *Watcher) follow(ctx context.Context, n *basev1.Node) (change, error) {
	if top := w.chain.top(); top != nil && top.GetHash() == n.GetBestBlock() {
		return change{before: top}, nil
	}
	tip := n.GetHeight()
	heights := w.chain.wanted(tip)
	told, err := w.config.Node.Hashes(ctx, heights)
	if err != nil {
		return change{}, err
	}
	hashes := map[uint64]string{}
	for i, height := range heights {
		hashes[height] = told[i]
	}
	var wanted []string
	for _, height := range w.chain.unknown(tip, hashes) {
		wanted = append(wanted, hashes[height])
	}
	var blocks []*basev1.Block
	for part := range slices.Chunk(wanted, MaxBlocks) {
		described, err := w.config.Node.Blocks(ctx, part)
		if err != nil {
			return change{}, err
		}
		blocks = append(blocks, described...)
	}
	return w.chain.follow(tip, hashes, blocks)
}

// fail keeps the last known values, and marks them as unknown.
func (w *Watcher) fail(now time.Duration, err error) {
	if errors.Is(err, errMoved) {
		return // the next look sees the chain at rest
	}
	state, reason := basev1.Node_STATE_STOPPED, "the node does not answer"
	var trouble *Trouble
	if errors.As(err, &trouble) {
		reason = trouble.Text
		if trouble.Starting {
			state = basev1.Node_STATE_STARTING
		}
	}
	if w.config.Waits != nil {
		if why := w.config.Waits(); why != "" {
			state, reason = basev1.Node_STATE_STARTING, why
		}
	}
	if w.logged == 0 || now-w.logged >= logAgain {
		w.logged = max(now, 1)
		w.config.Logger.Warn("the node was asked", "error", reason, "cause", errors.Unwrap(err))
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	n := proto.CloneOf(w.node)
	if available, ok := w.room(n); ok && available < noRoom {
		reason += "; its disk is full, so make room on it or give it a larger one"
	}
	n.State, n.Reason, n.LeftSeconds = state, Text(reason), nil
	w.node = n
	w.tellLocked(nil, w.monitor.look(now, n, change{}))
}

// estimate adds how long the rest takes, and when the disk is full.
func (w *Watcher) estimate(now time.Duration, n *basev1.Node, changed change) {
	if changed.lost > 0 || n.GetState() != basev1.Node_STATE_BEHIND {
		w.sync.forget()
	}
	if n.GetState() == basev1.Node_STATE_BEHIND {
		w.sync.add(now, n.GetProgress())
		if left, ok := w.sync.until(1); ok {
			n.LeftSeconds = proto.Uint64(uint64(left / time.Second))
		}
	}
	available, ok := w.room(n)
	if !ok {
		return // it is not known, and the node says itself when it cannot write
	}
	w.disk.add(now, float64(available))
	if left, ok := w.disk.until(0); ok {
		n.DiskFullSeconds = proto.Uint64(uint64(left / time.Second))
	}
}

// tellLocked tells followers, and keeps events for one who comes back. A follower that is too slow is
// ended, so that no stream has a gap.
func (w *Watcher) tellLocked(blocks []*basev1.Block, events []*basev1.Event) {
	if w.ended {
		return // followers were told that no more comes
	}
	var news []News
	for _, b := range blocks {
		news = append(news, News{Block: b})
	}
	for _, e := range events {
		news = append(news, News{Event: w.events.Add(e)})
	}
	for f := range w.followers {
		if len(news) > cap(f.News)-len(f.News) {
			w.endLocked(f)
			continue
		}
		for _, n := range news {
			f.News <- n
		}
	}
}

func (w *Watcher) endLocked(f *Follower) {
	if _, ok := w.followers[f]; ok {
		delete(w.followers, f)
		close(f.News)
	}
}

// Node returns how the node is.
func (w *Watcher) Node() *basev1.Node {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.node
}

// Peers returns the node's peers.
func (w *Watcher) Peers() []*basev1.Peer {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.peers
}

// Fees returns what the node estimates.
func (w *Watcher) Fees() *basev1.GetFeesResponse {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.fees
}

// Blocks returns the newest blocks, in their order.
func (w *Watcher) Blocks() []*basev1.Block {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.blocks
}

// errTooMany: there are maxFollowers.
var errTooMany = reason.New("too many follow the node already")

// errEnded: bitbox-node ends.
var errEnded = reason.New("bitbox-node ends")

// Follow has what is new from now on put into a Follower. The blocks are those that were known
// at that moment.
func (w *Watcher) Follow() (*Follower, []*basev1.Block, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f, err := w.followLocked()
	return f, w.blocks, err
}

// FollowEvents is Follow for somebody who has read the events up to a place. It returns the events from
// there up to that moment, as far as they are kept.
func (w *Watcher) FollowEvents(after backlog.Place) (*Follower, backlog.Past, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f, err := w.followLocked()
	return f, w.events.After(after), err
}

func (w *Watcher) followLocked() (*Follower, error) {
	switch {
	case w.ended:
		return nil, errEnded
	case len(w.followers) >= maxFollowers:
		return nil, errTooMany
	}
	f := &Follower{watcher: w, News: make(chan News, followerQueue)}
	w.followers[f] = struct{}{}
	w.open++
	return f, nil
}

// Close ends it.
func (f *Follower) Close() {
	w := f.watcher
	w.mu.Lock()
	defer w.mu.Unlock()
	w.endLocked(f)
	if f.closed {
		return
	}
	f.closed = true
	w.open--
	w.drainLocked()
}

// end tells followers that no more news comes, and waits until they have read what there was, within a
// bound.
func (w *Watcher) end() {
	w.mu.Lock()
	if w.ended {
		w.mu.Unlock()
		return
	}
	w.ended = true
	for f := range w.followers {
		f.ended = true
		w.endLocked(f)
	}
	w.drainLocked()
	w.mu.Unlock()
	bound := time.NewTimer(endTime)
	defer bound.Stop()
	select {
	case <-w.drained:
	case <-bound.C:
	}
}

func (w *Watcher) drainLocked() {
	if w.ended && w.open == 0 {
		close(w.drained)
	}
}

// room adds how large the disk is, and how much of it is available.
func (w *Watcher) room(n *basev1.Node) (available uint64, known bool) {
	if w.config.Disk == nil {
		return 0, false
	}
	total, available, err := w.config.Disk()
	if err != nil {
		return 0, false
	}
	n.DiskTotalBytes, n.DiskAvailableBytes = &total, &available
	return available, true
}
