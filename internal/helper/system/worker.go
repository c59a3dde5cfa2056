package system

import (
	"context"
	"errors"
	"fmt"
	"time"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/apply"
	"github.com/BitBoxSwiss/bitbox-base/internal/helperclient"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/noiseconn"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/posture"
)

// How long the worker waits before it tries again what it could not apply.
const (
	minRetry = time.Second
	maxRetry = 30 * time.Second
	// maxIdle is how long it sleeps at most. Go's timers stand still while a
	// machine sleeps, and the boot-time clock does not.
	maxIdle = 10 * time.Second
)

// waiter is somebody who waits for a revision to be applied.
type waiter struct {
	progress chan *systemv1.Progress
	done     chan error // holds one
	failure  error      // why it was not applied, if the worker knows
}

// convergence is how far the machine is what it is to be.
type convergence struct {
	version uint64        // the last that was tried
	failure error         // nil: it is in force
	changed chan struct{} // closed, and made anew, when version or failure change
}

// work makes the machine what it is to be, again and again, until ctx ends.
func (h *Helper) work(ctx context.Context) {
	retry := minRetry
	for ctx.Err() == nil {
		deadline, due := h.tick()
		wait := maxIdle
		if due {
			wait = min(wait, max(0, deadline-h.config.Clock()))
		}
		switch again, err := h.converge(ctx); {
		case err != nil:
			wait = min(wait, retry)
			retry = min(2*retry, maxRetry)
		case again:
			retry, wait = minRetry, 0
		default:
			retry = minRetry
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
		case <-h.worker:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// converge applies what is to be in force once. again tells that this has changed
// what is to be in force; an error, that it is to be tried again.
func (h *Helper) converge(ctx context.Context) (again bool, err error) {
	h.mu.Lock()
	wanted, version := h.inForceLocked(), h.version
	applying := h.ledger.Phase() == systemv1.PostureReport_PHASE_APPLYING
	w := h.waiters[wanted.Revision]
	if h.again {
		h.apply.Forget()
		h.again = false
	}
	h.mu.Unlock()

	progress := func(p *systemv1.Progress) {
		if w == nil {
			return
		}
		select {
		case w.progress <- p:
		default: // who does not read misses something
		}
	}
	err = h.apply.Apply(ctx, wanted, applying, progress)
	if ctx.Err() != nil {
		return false, ctx.Err()
	}

	if applying {
		again = true
		h.settle(wanted.Revision, err)
		if reconciled := h.reconcile(); reconciled != nil {
			h.log.Error("keys and posture disagree", "audit", true, "error", reconciled)
		}
		if w != nil {
			w.failure = err
		}
		err = nil // it was undone
	}
	h.mu.Lock()
	h.tellWaitersLocked()
	if !applying {
		h.convergence.version, h.convergence.failure = version, err
		close(h.convergence.changed)
		h.convergence.changed = make(chan struct{})
	}
	if err != nil {
		h.log.Error("what is to be in force could not be applied; it is tried again", "audit", true, "revision", wanted.Revision, "error", err)
		h.publishLocked(&basev1.Event{Event: &basev1.Event_ApplyFailed{ApplyFailed: &basev1.ApplyFailedEvent{Reason: err.Error()}}})
	}
	h.mu.Unlock()
	return again, err
}

// settle tells the ledger how the applying of a revision went. It may have
// been undone in the meantime; then there is nothing to tell.
func (h *Helper) settle(revision uint64, failure error) {
	if failure == nil {
		_ = h.settling(func(now time.Duration) (posture.Output, error) {
			h.triedSince = now
			return h.ledger.Applied(revision, now)
		})
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	now := h.config.Clock()
	h.log.Error("a new posture could not be applied and is undone", "audit", true, "revision", revision, "error", failure)
	_ = h.updateLocked(func() (posture.Output, error) { return h.ledger.Undo(revision, noteOf(failure), now) })
}

// noteOf is the reason for the history: the step that failed.
func noteOf(failure error) string {
	var step *apply.StepError
	if errors.As(failure, &step) {
		if note := "it could not be applied: " + step.Step; noiseconn.CheckName(note) == nil {
			return note
		}
	}
	return "it could not be applied"
}

// tellWaitersLocked answers those whose revision is being applied no more.
func (h *Helper) tellWaitersLocked() {
	tip, phase := h.ledger.Effective().Revision, h.ledger.Phase()
	for revision, w := range h.waiters {
		var err error
		switch {
		case revision == tip && phase == systemv1.PostureReport_PHASE_APPLYING:
			continue
		case revision == tip:
		case w.failure != nil:
			err = helperclient.Errorf(helperclient.CodeNotApplied, "revision %d could not be put in force, and was undone: %w", revision, w.failure)
		default:
			err = helperclient.Errorf(helperclient.CodeNotApplied,
				"revision %d was undone before it was in force: something else at the Base came between", revision)
		}
		delete(h.waiters, revision)
		w.done <- err
	}
}

// applied waits until what is to be in force now is.
func (h *Helper) applied(ctx context.Context) error {
	h.mu.Lock()
	version := h.version
	h.mu.Unlock()
	for {
		h.mu.Lock()
		c := h.convergence
		h.mu.Unlock()
		if c.version >= version {
			if c.failure != nil {
				return helperclient.Errorf(helperclient.CodeNotYet,
					"it is recorded and blocked, but not yet in force in full; the Base tries again: %w", c.failure)
			}
			return nil
		}
		select {
		case <-c.changed:
		case <-ctx.Done():
			return fmt.Errorf("wait until it is in force: %w", ctx.Err())
		}
	}
}
