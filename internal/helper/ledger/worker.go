package ledger

import (
	"context"
	"errors"
	"sync"
	"time"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/apply"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/generation"
	"github.com/BitBoxSwiss/bitbox-base/internal/helperclient"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/noiseconn"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/posture"
	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
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
	changed chan struct{} // closed and replaced when version or failure change
}

// Run makes the machine what it is to be, again and again, until ctx ends.
func (k *Keeper) Run(ctx context.Context) {
	var others sync.WaitGroup
	defer others.Wait()
	others.Go(func() { k.endPairings(ctx) })
	retry := minRetry
	for ctx.Err() == nil {
		deadline, due := k.tick()
		wait := maxIdle
		if due {
			wait = min(wait, max(0, deadline-k.config.Clock()))
		}
		switch again, err := k.converge(ctx); {
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
		case <-k.worker:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// endPairings ends what pairing has begun whenever pairing is closed, whatever has closed it: a
// restriction, a document, or the undoing of one. It runs beside the worker: no port stays open because
// the authority has much to do.
func (k *Keeper) endPairings(ctx context.Context) {
	was := true // nothing of a pairing outlives a restart
	for ctx.Err() == nil {
		k.mu.Lock()
		closed := k.inForceLocked().PairingClosed
		k.mu.Unlock()
		if closed && !was {
			k.closeWindow(ctx)
		}
		was = closed
		select {
		case <-ctx.Done():
		case <-k.pairings:
		}
	}
}

// converge applies what is to be in force once. again tells that this has changed
// what is to be in force; an error, that it is to be tried again.
func (k *Keeper) converge(ctx context.Context) (again bool, err error) {
	k.mu.Lock()
	wanted, version := k.goalLocked(), k.version
	applying := wanted.Undone != nil
	w := k.waiters[wanted.Revision]
	if k.again {
		k.Apply.Forget()
		k.again = false
	}

	progress := func(p *systemv1.Progress) {
		if w == nil {
			return
		}
		select {
		case w.progress <- p:
		default: // a waiter that does not read misses something
		}
	}
	run := k.Apply.Begin(wanted, progress)
	k.mu.Unlock()
	err = run.Do(ctx)
	switch {
	case ctx.Err() != nil:
		return false, ctx.Err()
	case errors.Is(err, apply.ErrGaveWay):
		return true, nil
	}

	if applying {
		again = true
		k.settle(wanted.Revision, err)
		if reconciled := k.reconcile(); reconciled != nil {
			k.log.Error("keys and posture disagree", "audit", true, "error", reconciled)
		}
		if w != nil {
			w.failure = err
		}
		err = nil // it was undone
	}
	k.mu.Lock()
	k.tellWaitersLocked()
	if !applying {
		k.convergence.version, k.convergence.failure = version, err
		close(k.convergence.changed)
		k.convergence.changed = make(chan struct{})
	}
	if err != nil {
		k.log.Error("what is to be in force could not be applied; it is tried again", "audit", true, "revision", wanted.Revision, "error", err)
		k.Events.Publish(&basev1.Event{Event: &basev1.Event_ApplyFailed{ApplyFailed: &basev1.ApplyFailedEvent{Reason: reason.Of(err)}}})
	}
	k.mu.Unlock()
	return again, err
}

// settle tells the ledger how the applying of a revision went. It may have
// been undone in the meantime; then there is nothing to tell.
func (k *Keeper) settle(revision uint64, failure error) {
	if failure == nil {
		_ = k.settling(func(now time.Duration) (posture.Output, error) {
			k.triedSince = now
			return k.ledger.Applied(revision, now)
		})
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	now := k.config.Clock()
	k.log.Error("a new posture could not be applied and is undone", "audit", true, "revision", revision, "error", failure)
	_ = k.updateLocked(func() (posture.Output, error) { return k.ledger.Undo(revision, noteOf(failure), now) })
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

// tellWaitersLocked answers those whose revision is no longer being applied.
func (k *Keeper) tellWaitersLocked() {
	tip, phase := k.ledger.Effective().Revision, k.ledger.Phase()
	for revision, w := range k.waiters {
		var err error
		switch why := k.ledger.WhyUndone(revision); {
		case revision == tip && phase == systemv1.PostureReport_PHASE_APPLYING:
			continue
		case why == "": // it holds, or another has come since
		case w.failure != nil:
			err = helperclient.Errorf(helperclient.CodeNotApplied, "revision %d could not be put in force, and was undone: %w", revision, w.failure)
		default:
			err = helperclient.Errorf(helperclient.CodeNotApplied, "revision %d was undone: %s", revision, why)
		}
		delete(k.waiters, revision)
		w.done <- err
	}
}

// applied waits until what is to be in force now is.
func (k *Keeper) applied(ctx context.Context) error {
	k.mu.Lock()
	version := k.version
	k.mu.Unlock()
	for {
		k.mu.Lock()
		c := k.convergence
		k.mu.Unlock()
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
			return reason.Errorf("wait until it is in force: %w", ctx.Err())
		}
	}
}

// Reapply puts what is in force in force again, whole, whether or not something seems to
// differ, and returns when it is.
func (k *Keeper) Reapply(ctx context.Context) error {
	k.mu.Lock()
	k.again = true
	k.version++
	k.worker.Wake()
	k.mu.Unlock()
	return k.applied(ctx)
}

// tellingReloads is the machine, and tells those who watch when NGINX reads a new
// configuration: the Middleware then asks Apps to leave its old processes.
type tellingReloads struct {
	apply.Live
	keeper *Keeper
}

func (t tellingReloads) Reload(ctx context.Context, unit string) error {
	err := t.Live.Reload(ctx, unit)
	if unit == generation.ProxyUnit {
		now := t.keeper.config.Clock() // it may have read it even if that failed
		t.keeper.Events.Note(func(is *systemv1.SystemEvent) { is.EntryReloadedMs = uint64(now.Milliseconds()) })
		t.keeper.Events.Publish(nil)
	}
	return err
}
