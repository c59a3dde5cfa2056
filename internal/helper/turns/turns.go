// Package turns says when things of the helper are done: one after the other, once for all who
// want to know, at intervals, or after the answer has left.
package turns

import (
	"context"
	"time"

	"github.com/BitBoxSwiss/bitbox-base/internal/helperclient"
)

// Turn is a mutex whose waiters give up when their context ends. Otherwise an App that asks and
// hangs up, again and again, could take all connections.
type Turn chan struct{}

// New returns a Turn that nobody has.
func New() Turn { return make(Turn, 1) }

// Take waits for the turn.
func (t Turn) Take(ctx context.Context) error {
	select {
	case t <- struct{}{}:
		return nil
	case <-ctx.Done():
		return helperclient.Errorf(helperclient.CodeInternal, "wait for the one before to end: %w", ctx.Err())
	}
}

// End gives the turn to the next.
func (t Turn) End() { <-t }

// Signal wakes one goroutine. It holds one, so that none is lost.
type Signal chan struct{}

// NewSignal returns a Signal.
func NewSignal() Signal { return make(Signal, 1) }

// Wake has the goroutine look.
func (s Signal) Wake() {
	select {
	case s <- struct{}{}:
	default: // it is about to look anyway
	}
}

// Every calls do at intervals until ctx ends.
func Every(ctx context.Context, interval time.Duration, do func()) {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			do()
		case <-ctx.Done():
			return
		}
	}
}

const (
	// laterGrace is how long after an answer that is done which may cut its way.
	laterGrace = 500 * time.Millisecond
	// maxLater is how many such things wait.
	maxLater = 8
)

// Later does things once the answers about them had time to leave, one after the other.
type Later chan func(context.Context)

// NewLater returns a Later. Nothing is done until Run.
func NewLater() Later { return make(Later, maxLater) }

// Do has something done, or refuses if too much waits.
func (l Later) Do(do func(ctx context.Context)) error {
	select {
	case l <- do:
		return nil
	default:
		return helperclient.Errorf(helperclient.CodeBusy, "%d such things are waiting to be done already; try again in a moment", maxLater)
	}
}

// Run does what Do was given, until ctx ends.
func (l Later) Run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case do := <-l:
			select {
			case <-ctx.Done():
				return
			case <-time.After(laterGrace):
				do(ctx)
			}
		}
	}
}
