package system

import (
	"context"
	"sync"
	"time"

	"github.com/BitBoxSwiss/bitbox-base/internal/helperclient"
)

// Bounds of what one caller has the helper do. They bind before a request is read.
type bounds struct {
	// holds is how much its calls have in memory together, in bytes (size.holds).
	holds int
	// calls and work are how many calls, and how many programs for them, begin in a
	// second; a burst of burstTime is let through.
	calls, work float64
}

const (
	// burstTime is how long a caller that was quiet may go faster.
	burstTime = 4 * time.Second
	// budgetWait is how long a call waits for its budget before it is refused. A caller
	// that has none left is so slowed down, and not asked to try again at once.
	budgetWait = 2 * time.Second
)

// callerBounds is the table of the budgets. MemoryMax of the unit is above twice the sum of
// holds: who uses up a budget waits, and ends nothing. Closing has one of its own, in each.
var callerBounds = map[Who]bounds{
	WhoMiddleware: {holds: 96 << 20, calls: 1000, work: 20},
	WhoConsole:    {holds: 8 << 20, calls: 200, work: 20},
	WhoRoot:       {holds: 32 << 20, calls: 200, work: 40},
}

// closingBounds is what each caller has beside that for what closes.
var closingBounds = bounds{holds: 16 << 20, calls: 50, work: 50}

// budgets are those of one caller.
type budgets struct{ all, closing *budget }

func newBudgets() map[Who]budgets {
	all := map[Who]budgets{}
	for who, b := range callerBounds {
		all[who] = budgets{newBudget(b), newBudget(closingBounds)}
	}
	return all
}

func (b budgets) enter(ctx context.Context, v verb, clock func() time.Duration) (leave func(), err error) {
	if v.closes {
		return b.closing.enter(ctx, v, clock)
	}
	return b.all.enter(ctx, v, clock)
}

// budget is what is left of bounds.
type budget struct {
	bounds

	mu    sync.Mutex
	held  int
	freed chan struct{} // closed, and made anew, when a call gives memory back
	calls pace
	work  pace
}

func newBudget(b bounds) *budget {
	return &budget{bounds: b, freed: make(chan struct{}), calls: newPace(b.calls), work: newPace(b.work)}
}

// enter takes what a verb needs, and waits for it if it must. leave gives its memory back.
func (b *budget) enter(ctx context.Context, v verb, clock func() time.Duration) (leave func(), err error) {
	late := time.NewTimer(budgetWait)
	defer late.Stop()
	b.mu.Lock()
	wait := max(b.calls.take(clock(), 1), b.work.take(clock(), float64(v.work)))
	b.mu.Unlock()
	if wait > 0 {
		ready := time.NewTimer(wait)
		defer ready.Stop()
		select {
		case <-ready.C:
		case <-late.C:
			b.mu.Lock()
			b.calls.give(1)
			b.work.give(float64(v.work))
			b.mu.Unlock()
			return nil, errOverBudget
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	for {
		b.mu.Lock()
		if b.held+v.holds <= b.holds {
			b.held += v.holds
			b.mu.Unlock()
			return func() { b.leave(v) }, nil
		}
		freed := b.freed
		b.mu.Unlock()
		select {
		case <-freed:
		case <-late.C:
			return nil, errOverBudget
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (b *budget) leave(v verb) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.held -= v.holds
	close(b.freed)
	b.freed = make(chan struct{})
}

var errOverBudget = helperclient.Errorf(helperclient.CodeBusy, "the system helper is asked for too much at once; try again in a moment")

// pace fills at a rate, up to a burst; what is taken in advance is waited for.
type pace struct {
	rate, tokens float64
	at           time.Duration
}

func newPace(rate float64) pace { return pace{rate: rate, tokens: rate * burstTime.Seconds()} }

// take returns how long to wait until n are there.
func (b *pace) take(now time.Duration, n float64) time.Duration {
	if n == 0 {
		return 0
	}
	if b.at != 0 && now > b.at {
		b.tokens = min(b.tokens+b.rate*(now-b.at).Seconds(), b.rate*burstTime.Seconds())
	}
	b.at = now
	b.tokens -= n
	if b.tokens >= 0 {
		return 0
	}
	return time.Duration(-b.tokens / b.rate * float64(time.Second))
}

func (b *pace) give(n float64) { b.tokens += n }
