package electrum

import (
	"context"
	"net/netip"
	"sync"
)

// turns has few do something at the same time. Each address has one place among all, and a second one
// among the few for second ones: those who hold two keep nobody else waiting. The others of an address
// wait for each other.
type turns struct {
	firsts  chan struct{} // holds one token for each that has its turn
	seconds chan struct{}

	mu     sync.Mutex
	queues map[netip.Prefix]*queue
}

// queue is that of one address. It is there while somebody waits or has a turn.
type queue struct {
	first, second chan struct{} // of one token
	users         int
}

func newTurns(firsts, seconds int) *turns {
	return &turns{firsts: make(chan struct{}, firsts), seconds: make(chan struct{}, seconds), queues: map[netip.Prefix]*queue{}}
}

// take waits for a turn; false: ctx has ended before. The turn lasts until done is called.
func (t *turns) take(ctx context.Context, from netip.Prefix) (done func(), ok bool) {
	t.mu.Lock()
	q := t.queues[from]
	if q == nil {
		q = &queue{first: make(chan struct{}, 1), second: make(chan struct{}, 1)}
		t.queues[from] = q
	}
	q.users++
	t.mu.Unlock()
	leave := func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		if q.users--; q.users == 0 {
			delete(t.queues, from)
		}
	}
	var own, all chan struct{}
	select {
	case q.first <- struct{}{}:
		own, all = q.first, t.firsts
	default:
		select {
		case q.first <- struct{}{}:
			own, all = q.first, t.firsts
		case q.second <- struct{}{}:
			own, all = q.second, t.seconds
		case <-ctx.Done():
			leave()
			return nil, false
		}
	}
	select {
	case all <- struct{}{}:
	case <-ctx.Done():
		<-own
		leave()
		return nil, false
	}
	return func() {
		<-all
		<-own
		leave()
	}, true
}
