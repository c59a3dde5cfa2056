package system

import (
	"context"
	"errors"
	"fmt"
	"time"

	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/caller"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/factoryreset"
	"github.com/BitBoxSwiss/bitbox-base/internal/helperclient"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/posture"
)

const (
	// resetGrace is how long after a reset was ordered the Base restarts, so that
	// whoever ordered it gets the answer.
	resetGrace = 500 * time.Millisecond
	// resetAgain is how soon the restart is asked for again if it was refused.
	resetAgain = 5 * time.Second
)

// ErrResetOrdered: a factory reset was ordered and is not finished. Until it is, the
// helper does not run.
var ErrResetOrdered = errors.New("a factory reset was ordered and is not finished")

// orderedBy names who ordered a reset, in the record of it.
func orderedBy(who caller.Who) string {
	if who == caller.Middleware {
		return "an owner's App" // it carries what an owner has signed
	}
	return who.String()
}

// factoryReset takes an owner's signed order, or the word of who stands at the
// Base. From then on the reset is certain and this helper does nothing more but
// restart the Base.
func (h *Helper) factoryReset(who caller.Who, request *systemv1.FactoryReset) (*systemv1.SystemReply, error) {
	if local := request.GetLocal() != nil; who != caller.Root && local != (who == caller.Console) {
		return nil, helperclient.Errorf(helperclient.CodePermission, "%s may not order a factory reset like this", who)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if request.GetLocal() == nil {
		err := h.updateLocked(func() (posture.Output, error) { return h.ledger.Reset(request.GetOrder(), h.config.Clock()) })
		if err != nil {
			return nil, err
		}
	}
	err := h.config.Failpoint("reset")
	if err == nil {
		err = factoryreset.Order(h.config.Directory, factoryreset.Record{
			OrderedAt: time.Now().UTC().Truncate(time.Second), By: orderedBy(who)})
	}
	if err == nil {
		err = h.config.Failpoint("reset ordered")
	}
	if _, ordered := factoryreset.Ordered(h.config.Directory); err != nil && !ordered {
		return nil, helperclient.Errorf(helperclient.CodeStorage, "%w; nothing has changed", err)
	}
	h.log.Warn("a factory reset was ordered; the Base restarts as new", "audit", true, "by", orderedBy(who))
	if !h.resetOrdered {
		h.resetOrdered = true
		close(h.resetting)
	}
	return &systemv1.SystemReply{}, nil
}

// refuseInReset is what everybody is told from the order on.
func (h *Helper) refuseInReset() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.resetOrdered {
		return helperclient.Errorf(helperclient.CodeReset, "this Base is being reset, and restarts as new in a moment")
	}
	return nil
}

// restartWhenReset restarts the machine once a reset was ordered.
func (h *Helper) restartWhenReset(ctx context.Context) {
	select {
	case <-ctx.Done():
		return
	case <-h.resetting:
	}
	wait := resetGrace
	for h.config.Restart != nil {
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		if err := h.config.Restart(ctx); err != nil && ctx.Err() == nil {
			h.log.Error("the Base could not be restarted for its factory reset; it is tried again", "audit", true, "error", err)
		}
		wait = resetAgain
	}
}

// RestartForReset restarts the machine if a reset was ordered in this boot, by a
// helper that was ended before it could. failed tells whether this boot has tried to
// finish it: then restarting once more would not help, and the error says so.
func RestartForReset(ctx context.Context, config Config, failed func(context.Context) bool) error {
	if _, ordered := factoryreset.Ordered(config.Directory); !ordered {
		return nil
	}
	if failed(ctx) {
		return fmt.Errorf("%w at the beginning of this boot; 'journalctl -u %s' says why, and nothing of the Base starts until it is",
			ErrResetOrdered, factoryreset.Unit)
	}
	return config.Restart(ctx)
}

// tellOfReset tells the log of a new Base why it is new. What told of it before may
// have been lost with the power.
func (h *Helper) tellOfReset() {
	if r, ok := factoryreset.Last(h.config.Directory); ok {
		h.log.Warn("after a factory reset this Base is as new", "audit", true, "by", r.By, "ordered_at", r.OrderedAt)
	}
}
