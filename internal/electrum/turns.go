package electrum

import (
	"context"
	"net/netip"
	"sync"
)

// turns has few do something at the same time, and fewer of one address: the others of an address
// wait for each other, and keep no other address waiting.
type turns struct {
	all  chan struct{} // holds one token for each that has its turn
	each int

	mu     sync.Mutex
	queues map[netip.Prefix]*queue
}

// queue is that of one address. It is there while somebody waits or has a turn.
type queue struct {
	tokens chan struct{}
	users  int
}

func newTurns(all, each int) *turns {
	return &turns{all: make(chan struct{}, all), each: each, queues: map[netip.Prefix]*queue{}}
}

// take waits for a turn; false: ctx has ended before. The turn lasts until done is called.
func (t *turns) take(ctx context.Context, from netip.Prefix) (done func(), ok bool) {
	t.mu.Lock()
	q := t.queues[from]
	if q == nil {
		q = &queue{tokens: make(chan struct{}, t.each)}
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
	select {
	case q.tokens <- struct{}{}:
	case <-ctx.Done():
		leave()
		return nil, false
	}
	select {
	case t.all <- struct{}{}:
	case <-ctx.Done():
		<-q.tokens
		leave()
		return nil, false
	}
	return func() {
		<-t.all
		<-q.tokens
		leave()
	}, true
}
