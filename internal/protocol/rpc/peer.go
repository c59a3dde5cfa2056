package rpc

import (
	"sync"
	"sync/atomic"
	"time"
)

const (
	// FrameRate is how many frames a second the sessions of one App may send, and
	// FrameBurst how many at once. Faster frames wait in the sockets.
	FrameRate  = 500
	FrameBurst = 64
	// MaxAppCalls is how many calls of one App are under way: those of its sessions, and those
	// that go on after them. Each may hold a request or an answer of one frame, which no
	// other budget counts.
	MaxAppCalls = 4 * MaxCalls
)

// Peer is what the sessions of one App share: the rate of frames, and its places
// in each Class. The zero Peer is ready; it is used with one Server.
type Peer struct {
	rate    pace
	running atomic.Int64
	budget  budget

	mu     sync.Mutex
	places map[*Class]chan struct{}
}

// budgetOf returns the peer's part of a server's memory.
func (p *Peer) budgetOf(s *Server) *budget {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.budget.parent == nil {
		p.budget.parent, p.budget.limit = &s.budget, s.limits.peerBuffer
	}
	return &p.budget
}

// placesOf returns the places that the peer has in a class.
func (p *Peer) placesOf(class *Class) chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	places := p.places[class]
	if places == nil {
		if p.places == nil {
			p.places = map[*Class]chan struct{}{}
		}
		places = make(chan struct{}, class.PerPeer)
		p.places[class] = places
	}
	return places
}

// pace is a rate: one event each step, and burst of them at once.
type pace struct {
	mu   sync.Mutex
	next time.Time // when the next event would be due without a burst
}

// take counts an event, and returns how long it is too early.
func (p *pace) take(now time.Time, step time.Duration, burst int) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.next.Before(now) {
		p.next = now
	}
	p.next = p.next.Add(step)
	return p.next.Sub(now) - time.Duration(burst)*step
}
