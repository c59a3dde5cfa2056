package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"

	"golang.org/x/time/rate"
	"google.golang.org/protobuf/proto"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	nodev1 "github.com/BitBoxSwiss/bitbox-base/api/node/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/ipc"
)

// Bounds of what one user may ask. Each answer comes from memory.
const (
	// perSecond is how many requests of one user are answered in a second, and burst how many
	// at once.
	perSecond = 200
	burst     = 400
)

// Server answers requests of api/node/v1 with what a Watcher knows.
type Server struct {
	Watcher *Watcher
	// Users are the numbers of those that may ask.
	Users  []uint32
	Logger *slog.Logger
}

// Serve answers until ctx ends. It looks at the user, the verb and the user's budget, in this
// order. A request has no content, so nothing of it is parsed.
func (s *Server) Serve(ctx context.Context, listener *net.UnixListener) error {
	budgets := newBudgets()
	server := ipc.Server{
		Authorize: func(peer ipc.Peer) error {
			if !slices.Contains(s.Users, peer.UID) {
				return fmt.Errorf("user %d may not ask about the node", peer.UID)
			}
			return nil
		},
		Handler: func(ctx context.Context, peer ipc.Peer, request *ipc.Request, send func([]byte) error) error {
			answer, known := verbs[nodev1.Verb(request.Kind)]
			switch {
			case !known:
				return fmt.Errorf("there is no verb %d", request.Kind)
			case request.Size > 0:
				return fmt.Errorf("a request has no content, and this one has %d bytes", request.Size)
			case !budgets.of(peer.UID).Allow():
				return errors.New("it asks too often")
			}
			if _, err := request.Read(); err != nil {
				return err
			}
			return answer(ctx, s.Watcher, func(reply *nodev1.NodeReply) error {
				b, err := proto.Marshal(reply)
				if err != nil {
					return err
				}
				return send(b)
			})
		},
		Refused: func(peer ipc.Peer, err error) {
			if !errors.Is(err, context.Canceled) {
				s.Logger.Info("a local request ended without an answer", "user", peer.UID, "pid", peer.PID, "error", err)
			}
		},
	}
	return server.Serve(ctx, listener)
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

// answer answers a request by one reply or several.
type answer func(ctx context.Context, w *Watcher, send func(*nodev1.NodeReply) error) error

// verbs is the one table of what can be asked.
var verbs = map[nodev1.Verb]answer{
	nodev1.Verb_VERB_GET_NODE: func(_ context.Context, w *Watcher, send func(*nodev1.NodeReply) error) error {
		return send(&nodev1.NodeReply{Result: &nodev1.NodeReply_Node{Node: w.Node()}})
	},
	nodev1.Verb_VERB_LIST_PEERS: func(_ context.Context, w *Watcher, send func(*nodev1.NodeReply) error) error {
		return send(&nodev1.NodeReply{Result: &nodev1.NodeReply_Peers{Peers: &basev1.ListPeersResponse{Peers: w.Peers()}}})
	},
	nodev1.Verb_VERB_LIST_BLOCKS: func(_ context.Context, w *Watcher, send func(*nodev1.NodeReply) error) error {
		return send(blocksReply(w.Blocks()))
	},
	nodev1.Verb_VERB_GET_FEES: func(_ context.Context, w *Watcher, send func(*nodev1.NodeReply) error) error {
		return send(&nodev1.NodeReply{Result: &nodev1.NodeReply_Fees{Fees: w.Fees()}})
	},
	nodev1.Verb_VERB_WATCH_BLOCKS: func(ctx context.Context, w *Watcher, send func(*nodev1.NodeReply) error) error {
		return follow(ctx, w, func(known []*basev1.Block) error { return send(blocksReply(known)) }, func(n News) error {
			if n.Block == nil {
				return nil
			}
			return send(&nodev1.NodeReply{Result: &nodev1.NodeReply_Block{Block: n.Block}})
		})
	},
	nodev1.Verb_VERB_WATCH_EVENTS: func(ctx context.Context, w *Watcher, send func(*nodev1.NodeReply) error) error {
		return follow(ctx, w, func([]*basev1.Block) error { return nil }, func(n News) error {
			if n.Event == nil {
				return nil
			}
			return send(&nodev1.NodeReply{Result: &nodev1.NodeReply_Event{Event: n.Event}})
		})
	},
}

func blocksReply(blocks []*basev1.Block) *nodev1.NodeReply {
	return &nodev1.NodeReply{Result: &nodev1.NodeReply_Blocks{Blocks: &basev1.ListBlocksResponse{Blocks: blocks}}}
}

// follow hands on the blocks that are known, then each news, until ctx ends.
func follow(ctx context.Context, w *Watcher, first func([]*basev1.Block) error, each func(News) error) error {
	f, known, err := w.Follow()
	if err != nil {
		return err
	}
	defer f.Close()
	if err := first(known); err != nil {
		return err
	}
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case news, open := <-f.News:
			if !open {
				return errors.New("it reads too slowly")
			}
			if err := each(news); err != nil {
				return err
			}
		}
	}
}
