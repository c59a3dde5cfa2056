package server

import (
	"context"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/BitBoxSwiss/bitbox-base/internal/helper/caller"
	"github.com/BitBoxSwiss/bitbox-base/internal/helperclient"
)

// Bounds of what one caller has the helper do. They bind before a request is read.
type Bounds struct {
	// Holds is how much its calls have in memory together, in bytes (Size.Holds).
	Holds int
	// Calls and Work are how many calls, and how many programs for them, begin in a
	// second; a burst of BurstTime is let through.
	Calls, Work float64
	// OwnersWork is Work for what only owners may ask for (Verb.Owners): no lesser App uses that
	// up. 0: Work is for all.
	OwnersWork float64
	// Kept is how much of Holds what changes nothing leaves free. Every App asks, and only
	// owners change how open the Base is: they do not wait for those who ask.
	Kept int
}

const (
	// BurstTime is how long a caller that was quiet may go faster.
	BurstTime = 4 * time.Second
	// budgetWait is how long a call waits for its budget before it is refused. A caller
	// that has none left is so slowed down, and not asked to try again at once.
	budgetWait = 2 * time.Second
	// changeWait is the same for what changes something: longer, so that it gets its turn
	// among many that ask.
	changeWait = 2 * budgetWait
)

// CallerBounds is the table of the budgets. MemoryMax of the unit is above twice the sum of
// Holds: who uses up a budget waits, and ends nothing.
var CallerBounds = map[caller.Who]Bounds{
	caller.Middleware: {Holds: 96 << 20, Calls: 1000, Work: 5, OwnersWork: 3, Kept: 24 << 20},
	caller.Console:    {Holds: 16 << 20, Calls: 200, Work: 20},
	caller.Root:       {Holds: 32 << 20, Calls: 200, Work: 40},
}

// ClosingBounds is what each caller has beside that for what closes.
var ClosingBounds = Bounds{Holds: 16 << 20, Calls: 50, Work: 50}

// Budgets are those of one caller.
type Budgets struct{ all, closing *Budget }

// NewBudgets returns those of all callers; nil bounds: CallerBounds.
func NewBudgets(bounds map[caller.Who]Bounds) map[caller.Who]Budgets {
	if bounds == nil {
		bounds = CallerBounds
	}
	all := map[caller.Who]Budgets{}
	for who, b := range bounds {
		all[who] = Budgets{NewBudget(b), NewBudget(ClosingBounds)}
	}
	return all
}

func (b Budgets) Enter(ctx context.Context, v Verb) (leave func(), err error) {
	if v.Closes {
		return b.closing.Enter(ctx, v)
	}
	return b.all.Enter(ctx, v)
}

// Refuse slows a caller down whose request is refused before it takes anything from a budget.
// Each counts as a call; otherwise requests that can only be refused would be free.
func (b Budgets) Refuse(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, budgetWait)
	defer cancel()
	if b.all.calls.Wait(ctx) != nil {
		<-ctx.Done()
	}
}

// Budget is what is left of Bounds.
type Budget struct {
	calls, work, ownersWork *rate.Limiter

	mu    sync.Mutex
	left  int           // of Bounds.Holds
	kept  int           // Bounds.Kept
	freed chan struct{} // closed and replaced when a call gives memory back
}

// NewBudget returns a Budget of which nothing is used.
func NewBudget(b Bounds) *Budget {
	limiter := func(perSecond float64) *rate.Limiter {
		return rate.NewLimiter(rate.Limit(perSecond), int(perSecond*BurstTime.Seconds()))
	}
	of := &Budget{calls: limiter(b.Calls), work: limiter(b.Work), left: b.Holds, kept: b.Kept, freed: make(chan struct{})}
	if of.ownersWork = of.work; b.OwnersWork > 0 {
		of.ownersWork = limiter(b.OwnersWork)
	}
	return of
}

// Enter takes what a verb needs, and waits for it if it must. leave gives its memory back.
func (b *Budget) Enter(ctx context.Context, v Verb) (leave func(), err error) {
	wait, kept := changeWait, 0
	if v.asks() {
		wait, kept = budgetWait, b.kept
	}
	ctx, cancel := context.WithTimeoutCause(ctx, wait, errOverBudget)
	defer cancel()
	if b.takeTurn(ctx, v) != nil {
		<-ctx.Done() // a refused caller is slowed down all the same
		return nil, context.Cause(ctx)
	}
	for {
		b.mu.Lock()
		enough, freed := b.left >= v.Holds+kept, b.freed
		if enough {
			b.left -= v.Holds
		}
		b.mu.Unlock()
		if enough {
			return func() { b.leave(v) }, nil
		}
		select {
		case <-freed:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// takeTurn waits for the rates. A call that would wait longer than ctx lives takes nothing, so
// refused calls leave no debt behind. A verb that starts no program does not wait for that rate.
func (b *Budget) takeTurn(ctx context.Context, v Verb) error {
	if v.Work > 0 {
		work := b.work
		if v.Owners {
			work = b.ownersWork
		}
		if err := work.WaitN(ctx, v.Work); err != nil {
			return err
		}
	}
	return b.calls.WaitN(ctx, 1)
}

func (b *Budget) leave(v Verb) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.left += v.Holds
	close(b.freed)
	b.freed = make(chan struct{})
}

var errOverBudget = helperclient.Errorf(helperclient.CodeBusy, "the system helper is asked for too much at once; try again in a moment")
