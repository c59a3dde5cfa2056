package electrum

import (
	"context"
	"errors"
	"math"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/BitBoxSwiss/bitbox-base/internal/electrum/chain"
	"github.com/BitBoxSwiss/bitbox-base/internal/electrum/history"
)

// Bounds of how wallets read from the node.
const (
	// maxPlaces is how many read at the same moment.
	maxPlaces = 4
	// maxUnderWay is how many reads have begun: one keeps about 1 MB.
	maxUnderWay = 32
	// maxOfOne is how many of those are of one address.
	maxOfOne = 2
	// readTime is how long one may have a place in all, and answerTime how long it may take with all waiting.
	readTime, answerTime = 20 * time.Second, time.Minute
	// usageHalves is how long it takes until what an address has used counts half.
	usageHalves = time.Minute
	// maxKnown is how many addresses are remembered with what they have used.
	maxKnown = 4096
)

// errBusy: others were served first, for too long. errTooLong: a read had its time.
var (
	errBusy    = errors.New("the server is busy")
	errTooLong = errors.New("the read takes too long")
)

// turns shares the node among addresses, however many there are. A place is handed on before each block
// or part of one that is read: to the address that has used least. So nobody waits longer for a reader
// who has many blocks to read than for one who has few. If too many reads have begun, the address that
// has used most loses one to an address that has used less.
type turns struct {
	places, underWay int
	now              func() time.Time

	mu   sync.Mutex
	all  []*turn // those that wait and those that have begun; the last one had a place last
	used map[netip.Prefix]usage
}

// usage is what an address has used until a moment.
type usage struct {
	time time.Duration
	at   time.Time
}

// turn is a read of one address. It implements history.Blocks for it.
type turn struct {
	turns  *turns
	of     netip.Prefix
	node   history.Blocks
	cancel context.CancelCauseFunc
	place  chan struct{} // has a token once it has a place

	begun, has, ended bool      // ended: it was cut, and will leave
	since             time.Time // when it got its place
	own               time.Duration
}

func newTurns(places, underWay int, now func() time.Time) *turns {
	return &turns{places: places, underWay: underWay, now: now, used: map[netip.Prefix]usage{}}
}

// take waits for a place. The context ends with the read; done must be called if there is no error.
func (t *turns) take(ctx context.Context, of netip.Prefix, node history.Blocks) (*turn, context.Context, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	o := t.enter(of, node, cancel)
	if err := o.wait(ctx); err != nil {
		o.done()
		return nil, ctx, err
	}
	return o, ctx, nil
}

func (t *turns) enter(of netip.Prefix, node history.Blocks, cancel context.CancelCauseFunc) *turn {
	o := &turn{turns: t, of: of, node: node, cancel: cancel, place: make(chan struct{}, 1)}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.all = append(t.all, o)
	t.share()
	return o
}

func (o *turn) wait(ctx context.Context) error {
	select {
	case <-o.place:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// next hands the place on, and waits for one.
func (o *turn) next(ctx context.Context) error {
	if err := o.pass(); err != nil {
		return err
	}
	return o.wait(ctx)
}

// pass hands the place on.
func (o *turn) pass() error {
	o.turns.mu.Lock()
	defer o.turns.mu.Unlock()
	o.leave()
	if o.own > readTime {
		return errTooLong
	}
	// Among those that have used the same, it is the turn of the one that has waited longest.
	o.turns.remove(o)
	o.turns.all = append(o.turns.all, o)
	o.turns.share()
	return nil
}

// done ends the read.
func (o *turn) done() {
	o.turns.mu.Lock()
	defer o.turns.mu.Unlock()
	o.leave()
	o.turns.remove(o)
	o.turns.forget()
	o.turns.share()
	o.cancel(nil)
}

func (t *turns) remove(o *turn) {
	t.all = slices.DeleteFunc(t.all, func(other *turn) bool { return other == o })
}

// Block implements history.Blocks.
func (o *turn) Block(ctx context.Context, hash chain.Hash) ([]byte, error) {
	if err := o.next(ctx); err != nil {
		return nil, err
	}
	return o.node.Block(ctx, hash)
}

// Part implements history.Blocks.
func (o *turn) Part(ctx context.Context, hash chain.Hash, offset, size uint32) ([]byte, error) {
	if err := o.next(ctx); err != nil {
		return nil, err
	}
	return o.node.Part(ctx, hash, offset, size)
}

// leave gives the place back, and counts how long it was held.
func (o *turn) leave() {
	if !o.has {
		return
	}
	o.has = false
	now := o.turns.now()
	took := now.Sub(o.since)
	o.own += took
	o.turns.used[o.of] = usage{o.turns.usage(o.of, now) + took, now}
}

// usage is what an address has used; what is long ago counts less.
func (t *turns) usage(of netip.Prefix, now time.Time) time.Duration {
	u := t.used[of]
	return time.Duration(float64(u.time) * math.Exp2(-float64(now.Sub(u.at))/float64(usageHalves)))
}

// forget bounds how many addresses are remembered: those with the least are forgotten.
func (t *turns) forget() {
	now := t.now()
	for least := time.Millisecond; len(t.used) > maxKnown; least *= 2 {
		for of := range t.used {
			if t.usage(of, now) < least {
				delete(t.used, of)
			}
		}
	}
}

// share hands out the places that are free.
func (t *turns) share() {
	now := t.now()
	for {
		next, loser := t.choose(now)
		if next == nil {
			return
		}
		if loser != nil {
			loser.ended = true
			loser.cancel(errBusy)
		}
		next.begun, next.has, next.since = true, true, now
		next.place <- struct{}{}
	}
}

// choose says who gets a place that is free, and which read is cut for it.
func (t *turns) choose(now time.Time) (next, loser *turn) {
	places, underWay, begun := t.places, 0, map[netip.Prefix]int{}
	var greediest *turn
	for _, o := range t.all {
		if o.has {
			places--
		}
		if !o.begun {
			continue
		}
		begun[o.of]++
		if !o.ended {
			underWay++
			if greediest == nil || t.usage(o.of, now) > t.usage(greediest.of, now) {
				greediest = o
			}
		}
	}
	if places <= 0 {
		return nil, nil
	}
	full := underWay >= t.underWay
	for _, o := range t.all {
		switch {
		case o.has || o.ended:
		case !o.begun && begun[o.of] >= maxOfOne:
		case !o.begun && full && t.usage(greediest.of, now) <= t.usage(o.of, now):
		case next == nil || t.usage(o.of, now) < t.usage(next.of, now):
			next = o
		}
	}
	if next != nil && !next.begun && full {
		loser = greediest
	}
	return next, loser
}
