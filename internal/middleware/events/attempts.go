package events

import (
	"context"
	"crypto/sha256"
	"net/netip"
	"sync"
	"time"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/middleware/admission"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/pairing"
)

const (
	// attemptInterval is how long one event about requests stands for all that follow.
	attemptInterval = 10 * time.Minute
	// maxAttempts is how many requests are told apart in an interval. Further ones are counted
	// each time they come.
	maxAttempts = 4096
)

// Attempts counts the pairing requests that pass to the authority, and reports them to
// subscribers: the first at once, then their number every ten minutes.
type Attempts struct {
	admission.Authority
	events   *Hub
	interval time.Duration // attemptInterval; none in a test

	mu        sync.Mutex
	listening bool
	seen      map[[8]byte]bool // in this interval; nil: no interval runs
	requests  uint32           // not yet reported
	ignored   bool             // all of those
}

// Attempts returns authority, counted.
func (h *Hub) Attempts(authority admission.Authority) *Attempts {
	return &Attempts{Authority: authority, events: h, interval: attemptInterval, listening: true} // until it is known
}

// Listening tells whether the Base is listening for requests.
func (a *Attempts) Listening(listening bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.listening = listening
}

// Hear implements admission.Authority.
func (a *Attempts) Hear(ctx context.Context, p1 []byte, from netip.Addr) (bool, pairing.CeremonyID, [32]byte, error) {
	a.count(p1)
	return a.Authority.Hear(ctx, p1, from)
}

func (a *Attempts) count(p1 []byte) {
	digest := sha256.Sum256(p1)
	id := [8]byte(digest[:8])
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.seen[id] {
		return
	}
	if a.requests == 0 {
		a.ignored = true
	}
	a.requests++
	a.ignored = a.ignored && !a.listening
	first := a.seen == nil
	if first {
		a.seen = map[[8]byte]bool{}
	}
	if len(a.seen) < maxAttempts {
		a.seen[id] = true
	}
	if first {
		a.tellLocked()
	}
}

// tellLocked reports the count, and begins an interval.
func (a *Attempts) tellLocked() {
	a.events.Publish(&basev1.Event{Event: &basev1.Event_PairingAttempt{
		PairingAttempt: &basev1.PairingAttemptEvent{Requests: a.requests, Ignored: a.ignored}}})
	a.requests = 0
	time.AfterFunc(a.interval, a.endInterval)
}

func (a *Attempts) endInterval() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.requests == 0 {
		a.seen = nil
		return
	}
	a.seen = map[[8]byte]bool{}
	a.tellLocked()
}
