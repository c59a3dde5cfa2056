package node

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"slices"
	"sync"
	"time"

	"golang.org/x/time/rate"
	"google.golang.org/protobuf/proto"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	nodev1 "github.com/BitBoxSwiss/bitbox-base/api/node/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/backlog"
	"github.com/BitBoxSwiss/bitbox-base/internal/ipc"
	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
)

// Bounds of what one user may ask. Each answer comes from memory.
const (
	// perSecond is how many requests of one user are answered in a second, and burst how many
	// at once.
	perSecond = 200
	burst     = 400
)

// Costs of requests for which the node reads a block, or the index 2000 headers. Others cost 1: they
// are answered from memory.
const (
	findCost    = 20
	headersCost = 4
	// maxContent is the longest content of a request in bytes: a hash, or two numbers.
	maxContent = 64
)

// Finder finds transactions, and lists headers. A nodeclient.Client is one, and so is the server
// for wallets.
type Finder interface {
	Transaction(ctx context.Context, request *basev1.GetTransactionRequest) (*basev1.GetTransactionResponse, error)
	Headers(ctx context.Context, request *basev1.ListHeadersRequest) (*basev1.ListHeadersResponse, error)
}

// Server answers requests of api/node/v1 with what a Watcher knows, and a Finder.
type Server struct {
	// Watcher is nil in the server for wallets: then only the Finder is asked.
	Watcher *Watcher
	// Finder is nil if this Base has no server for wallets.
	Finder Finder
	// Users are the numbers of those that may ask.
	Users  []uint32
	Logger *slog.Logger
}

// Serve answers until ctx ends. It looks at the user, the verb and the user's budget, in this
// order, before it parses anything. At the end followers of the Watcher get what waits for them.
func (s *Server) Serve(ctx context.Context, listener *net.UnixListener) error {
	budgets := newBudgets()
	serving, hangUp := context.WithCancel(context.WithoutCancel(ctx))
	defer hangUp()
	defer context.AfterFunc(ctx, func() {
		if s.Watcher != nil {
			s.Watcher.end()
		}
		hangUp()
	})()
	server := ipc.Server{
		Authorize: func(peer ipc.Peer) error {
			if !slices.Contains(s.Users, peer.UID) {
				return reason.Errorf("user %d may not ask about the node", peer.UID)
			}
			return nil
		},
		Handler: func(ctx context.Context, peer ipc.Peer, request *ipc.Request, send func([]byte) error) error {
			v, known := verbs[nodev1.Verb(request.Kind)]
			switch {
			case !known || (v.find == nil && s.Watcher == nil):
				return reason.Errorf("there is no verb %d", request.Kind)
			case request.Size > v.size:
				return reason.Errorf("a request of this verb has at most %d bytes, and this one %d", v.size, request.Size)
			case !budgets.of(peer.UID).AllowN(time.Now(), max(1, v.cost)):
				return reason.New("it asks too often")
			}
			content, err := request.Read()
			if err != nil {
				return err
			}
			reply := func(reply *nodev1.NodeReply) error {
				b, err := proto.Marshal(reply)
				if err != nil {
					return err
				}
				return send(b)
			}
			if v.find != nil {
				found, err := v.find(ctx, s.Finder, content)
				if err != nil {
					return err
				}
				return reply(found)
			}
			return v.answer(ctx, s.Watcher, content, reply)
		},
		Refused: func(peer ipc.Peer, err error) {
			if !errors.Is(err, context.Canceled) {
				s.Logger.Info("a local request ended without an answer", "user", peer.UID, "pid", peer.PID, "error", err)
			}
		},
	}
	return server.Serve(serving, listener)
}

// budgets has what is left for each user.
type budgets struct {
	mu     sync.Mutex
	byUser map[uint32]*rate.Limiter
}

func newBudgets() *budgets { return &budgets{byUser: map[uint32]*rate.Limiter{}} }

// of returns the budget of a user. There are no more than Server.Users.
func (b *budgets) of(uid uint32) *rate.Limiter {
	b.mu.Lock()
	defer b.mu.Unlock()
	limiter := b.byUser[uid]
	if limiter == nil {
		limiter = rate.NewLimiter(perSecond, burst)
		b.byUser[uid] = limiter
	}
	return limiter
}

// verb is what can be asked.
type verb struct {
	// answer answers from what the Watcher knows, by one reply or several.
	answer func(ctx context.Context, w *Watcher, content []byte, send func(*nodev1.NodeReply) error) error
	// find asks the Finder in its place.
	find func(ctx context.Context, f Finder, content []byte) (*nodev1.NodeReply, error)
	size int // of the content, in bytes, at most
	cost int // 0: 1
}

// verbs is the one table of them.
var verbs = map[nodev1.Verb]verb{
	nodev1.Verb_VERB_GET_NODE: {answer: func(_ context.Context, w *Watcher, _ []byte, send func(*nodev1.NodeReply) error) error {
		return send(&nodev1.NodeReply{Result: &nodev1.NodeReply_Node{Node: w.Node()}})
	}},
	nodev1.Verb_VERB_LIST_PEERS: {answer: func(_ context.Context, w *Watcher, _ []byte, send func(*nodev1.NodeReply) error) error {
		return send(&nodev1.NodeReply{Result: &nodev1.NodeReply_Peers{Peers: &basev1.ListPeersResponse{Peers: w.Peers()}}})
	}},
	nodev1.Verb_VERB_LIST_BLOCKS: {answer: func(_ context.Context, w *Watcher, _ []byte, send func(*nodev1.NodeReply) error) error {
		return send(blocksReply(w.Blocks()))
	}},
	nodev1.Verb_VERB_GET_FEES: {answer: func(_ context.Context, w *Watcher, _ []byte, send func(*nodev1.NodeReply) error) error {
		return send(&nodev1.NodeReply{Result: &nodev1.NodeReply_Fees{Fees: w.Fees()}})
	}},
	nodev1.Verb_VERB_WATCH_BLOCKS: {answer: func(ctx context.Context, w *Watcher, _ []byte, send func(*nodev1.NodeReply) error) error {
		f, known, err := w.Follow()
		if err != nil {
			return err
		}
		defer f.Close()
		if err := send(blocksReply(known)); err != nil {
			return err
		}
		return follow(ctx, f, func(n News) error {
			if n.Block == nil {
				return nil
			}
			return send(&nodev1.NodeReply{Result: &nodev1.NodeReply_Block{Block: n.Block}})
		})
	}},
	nodev1.Verb_VERB_WATCH_EVENTS:    {size: maxContent, answer: watchEvents},
	nodev1.Verb_VERB_GET_TRANSACTION: {size: maxContent, cost: findCost, find: findTransaction},
	nodev1.Verb_VERB_LIST_HEADERS:    {size: maxContent, cost: headersCost, find: listHeaders},
}

// noFinder is why a transaction cannot be told.
const noFinder = "this Base has no server for wallets of its own, and only that finds transactions"

func findTransaction(ctx context.Context, f Finder, content []byte) (*nodev1.NodeReply, error) {
	request := &basev1.GetTransactionRequest{}
	if err := proto.Unmarshal(content, request); err != nil {
		return nil, err
	}
	answer := &basev1.GetTransactionResponse{State: basev1.GetTransactionResponse_STATE_NOT_OFFERED, Reason: noFinder}
	if f != nil {
		var err error
		if answer, err = f.Transaction(ctx, request); err != nil {
			return nil, err
		}
	}
	return &nodev1.NodeReply{Result: &nodev1.NodeReply_Transaction{Transaction: answer}}, nil
}

func listHeaders(ctx context.Context, f Finder, content []byte) (*nodev1.NodeReply, error) {
	request := &basev1.ListHeadersRequest{}
	if err := proto.Unmarshal(content, request); err != nil {
		return nil, err
	}
	answer := &basev1.ListHeadersResponse{}
	if f != nil {
		var err error
		if answer, err = f.Headers(ctx, request); err != nil {
			return nil, err
		}
	}
	return &nodev1.NodeReply{Result: &nodev1.NodeReply_Headers{Headers: answer}}, nil
}

func blocksReply(blocks []*basev1.Block) *nodev1.NodeReply {
	return &nodev1.NodeReply{Result: &nodev1.NodeReply_Blocks{Blocks: &basev1.ListBlocksResponse{Blocks: blocks}}}
}

// watchEvents answers with what is kept after an event, then with each event. If bitbox-node ends, it
// says so last.
func watchEvents(ctx context.Context, w *Watcher, content []byte, send func(*nodev1.NodeReply) error) error {
	asked := &nodev1.WatchEvents{}
	if err := proto.Unmarshal(content, asked); err != nil {
		return err
	}
	f, past, err := w.FollowEvents(backlog.Place{Run: asked.GetRun(), Number: asked.GetAfter()})
	if err != nil {
		return err
	}
	defer f.Close()
	at := past.Begin
	tell := func(e *nodev1.NodeEvent) error {
		e.Run, e.Number = at.Run, at.Number
		return send(&nodev1.NodeReply{Result: &nodev1.NodeReply_Happened{Happened: e}})
	}
	next := func(event *basev1.Event) error {
		at.Number++
		return tell(&nodev1.NodeEvent{Event: event})
	}
	if err := tell(&nodev1.NodeEvent{Missed: past.Missed}); err != nil {
		return err
	}
	for _, event := range past.Events {
		if err := next(event); err != nil {
			return err
		}
	}
	err = follow(ctx, f, func(n News) error {
		if n.Event == nil {
			return nil
		}
		return next(n.Event)
	})
	if errors.Is(err, errEnded) {
		return tell(&nodev1.NodeEvent{Ended: true})
	}
	return err
}

// follow hands on each news, until ctx ends. errEnded: there are no more.
func follow(ctx context.Context, f *Follower, each func(News) error) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case news, open := <-f.News:
			switch {
			case !open && f.ended:
				return errEnded
			case !open:
				return reason.New("it reads too slowly")
			}
			if err := each(news); err != nil {
				return err
			}
		}
	}
}
