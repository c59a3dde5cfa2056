// Package wallets tells an owner which wallets are connected to an extra API, and whether a program
// is there behind it. It asks the kernel for sockets and reads no byte that a wallet has sent.
package wallets

import (
	"cmp"
	"context"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/caller"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/generation"
	"github.com/BitBoxSwiss/bitbox-base/internal/helperclient"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/posture"
	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
)

const (
	// lookEvery is how exactly it is known since when a wallet is connected: the kernel does not
	// tell how old a connection is.
	lookEvery = 10 * time.Second
	// mostShown is the most wallets of one answer.
	mostShown = 64
)

// Connection is an established connection to a port of this machine.
type Connection struct {
	// Cookie is the kernel's number of the socket, which it uses once.
	Cookie uint64
	Peer   netip.AddrPort
}

// Sockets is what the kernel knows.
type Sockets interface {
	// Connections returns the established connections to a TCP port.
	Connections(port uint16) ([]Connection, error)
	// Listens tells whether a process listens there.
	Listens(upstream generation.Upstream) (bool, error)
}

// Wallets remembers since when each connection is there.
type Wallets struct {
	sockets   Sockets
	effective func() posture.Effective
	clock     func() time.Time
	log       *slog.Logger

	mu sync.Mutex
	// seen has the connections of the last look, by port and cookie.
	seen map[uint16]map[uint64]time.Time
}

// New returns Wallets that ask sockets. clock is the time of day.
func New(sockets Sockets, effective func() posture.Effective, clock func() time.Time, log *slog.Logger) *Wallets {
	return &Wallets{sockets: sockets, effective: effective, clock: clock, log: log, seen: map[uint16]map[uint64]time.Time{}}
}

// Run looks at the connections of open ports from time to time, until ctx ends.
func (w *Wallets) Run(ctx context.Context) {
	for {
		for _, extra := range posture.Extras {
			if _, _, err := w.look(extra.Kind); err != nil {
				w.log.Warn("the connections of wallets are not known", "error", err)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(lookEvery):
		}
	}
}

// Get answers the verb.
func (w *Wallets) Get(_ context.Context, _ *caller.Call, request *systemv1.GetWallets) (*systemv1.SystemReply, error) {
	kind := posture.Kind(request.GetKind())
	upstream, known := generation.UpstreamOf(kind, generation.ThisMachine())
	if !known {
		return nil, helperclient.Errorf(helperclient.CodeInvalid, "there is no extra API of this kind")
	}
	answer := &basev1.GetWalletsResponse{}
	var err error
	if answer.Answers, err = w.sockets.Listens(upstream); err != nil {
		return nil, reason.Errorf("ask the kernel who listens behind %s: %w", kind, err)
	}
	if answer.Wallets, answer.Told, err = w.look(kind); err != nil {
		return nil, err
	}
	if more := len(answer.Wallets) - mostShown; more > 0 {
		answer.Wallets, answer.More = answer.Wallets[:mostShown], uint32(more)
	}
	return &systemv1.SystemReply{Result: &systemv1.SystemReply_Wallets{Wallets: answer}}, nil
}

// look returns the connections to the own port of an extra API, the oldest first; false if it has
// none that is open.
func (w *Wallets) look(kind posture.Kind) (list []*basev1.Wallet, told bool, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	endpoints := w.effective().Endpoints
	i := slices.IndexFunc(endpoints, func(e posture.Endpoint) bool { return e.Kind == kind && !e.Shared })
	if i < 0 {
		clear(w.seen)
		return nil, false, nil
	}
	port := endpoints[i].Port
	connections, err := w.sockets.Connections(port)
	if err != nil {
		return nil, false, reason.Errorf("ask the kernel for the connections at port %d: %w", port, err)
	}
	before, now := w.seen[port], map[uint64]time.Time{}
	for _, c := range connections {
		since, seen := before[c.Cookie]
		if !seen {
			since = w.clock()
		}
		now[c.Cookie] = since
		list = append(list, &basev1.Wallet{Address: c.Peer.Addr().String(), Since: timestamppb.New(since)})
	}
	w.seen[port] = now
	slices.SortStableFunc(list, func(a, b *basev1.Wallet) int {
		return cmp.Or(a.GetSince().AsTime().Compare(b.GetSince().AsTime()), cmp.Compare(a.GetAddress(), b.GetAddress()))
	})
	return list, true, nil
}
