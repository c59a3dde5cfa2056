package factoryreset

import (
	"context"
	"log/slog"
	"sync"
	"time"

	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/failpoint"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/caller"
	"github.com/BitBoxSwiss/bitbox-base/internal/helperclient"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/posture"
	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
)

const (
	// resetGrace is how long after a reset was ordered the Base restarts, so that the caller gets the
	// answer even from a busy machine. Meanwhile everything else is refused.
	resetGrace = 3 * time.Second
	// resetAgain is how soon the restart is asked for again if it was refused.
	resetAgain = 5 * time.Second
)

// ErrOrdered says that a factory reset was ordered and is not finished. Until it is, the helper
// does not run.
var ErrOrdered = reason.New("a factory reset was ordered and is not finished")

// orderedBy names who ordered a reset, in the record of it.
func orderedBy(who caller.Who) string {
	if who == caller.Middleware {
		return "an owner's App" // it carries what an owner has signed
	}
	return who.String()
}

// Ledger takes what owners have signed.
type Ledger interface {
	Update(call func(l *posture.Ledger, now time.Duration) (posture.Output, error)) error
}

// Orders takes orders of a factory reset for the running Base.
type Orders struct {
	directory string
	ledger    Ledger
	restart   func(context.Context) error // nil: nobody restarts the machine
	log       *slog.Logger

	mu        sync.Mutex
	ordered   bool // a reset is certain, and resetting is closed
	resetting chan struct{}
}

// NewOrders returns the Orders of the helper's directory.
func NewOrders(directory string, ledger Ledger, restart func(context.Context) error, log *slog.Logger) *Orders {
	return &Orders{directory: directory, ledger: ledger, restart: restart, log: log, resetting: make(chan struct{})}
}

// Take takes an owner's signed order, or the word of the person at the Base. From then on the
// reset is certain and this helper does nothing more but restart the Base.
func (o *Orders) Take(_ context.Context, c *caller.Call, request *systemv1.FactoryReset) (*systemv1.SystemReply, error) {
	if local := request.GetLocal() != nil; c.Who != caller.Root && local != (c.Who == caller.Console) {
		return nil, helperclient.Errorf(helperclient.CodePermission, "%s may not order a factory reset like this", c.Who)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	eraseChain := request.GetLocal().GetEraseChain()
	if request.GetLocal() == nil {
		err := o.ledger.Update(func(l *posture.Ledger, now time.Duration) (out posture.Output, err error) {
			eraseChain, out, err = l.Reset(request.GetOrder(), now)
			return out, err
		})
		if err != nil {
			return nil, err
		}
	}
	err := failpoint.Reach("reset")
	if err == nil {
		err = Order(o.directory, Record{OrderedAt: time.Now().UTC().Truncate(time.Second), By: orderedBy(c.Who),
			EraseChain: eraseChain})
	}
	if err == nil {
		err = failpoint.Reach("reset ordered")
	}
	if _, ordered := Ordered(o.directory); err != nil && !ordered {
		return nil, helperclient.Errorf(helperclient.CodeStorage, "%w; nothing has changed", err)
	}
	o.log.Warn("a factory reset was ordered; the Base restarts as new", "audit", true, "by", orderedBy(c.Who))
	if !o.ordered {
		o.ordered = true
		close(o.resetting)
	}
	return &systemv1.SystemReply{}, nil
}

// Refuse is what everybody is told from the order on; nil before.
func (o *Orders) Refuse() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.ordered {
		return helperclient.Errorf(helperclient.CodeReset, "this Base is being reset, and restarts as new in a moment")
	}
	return nil
}

// Run restarts the machine once a reset was ordered.
func (o *Orders) Run(ctx context.Context) {
	select {
	case <-ctx.Done():
		return
	case <-o.resetting:
	}
	wait := resetGrace
	for o.restart != nil {
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		if err := o.restart(ctx); err != nil && ctx.Err() == nil {
			o.log.Error("the Base could not be restarted for its factory reset; it is tried again", "audit", true, "error", err)
		}
		wait = resetAgain
	}
}

// Restart restarts the machine if a reset was ordered in this boot, by a helper that was ended
// before it could. failed tells whether this boot has tried to finish it: then restarting once
// more would not help, and the error says so.
func Restart(ctx context.Context, directory string, restart func(context.Context) error, failed func(context.Context) bool) error {
	if _, ordered := Ordered(directory); !ordered {
		return nil
	}
	if failed(ctx) {
		return reason.Errorf("%w at the beginning of this boot; 'journalctl -u %s' says why, and nothing of the Base starts until it is",
			ErrOrdered, Unit)
	}
	return restart(ctx)
}
