package system

// This file connects the verbs of the posture with its ledger, which is [posture.Ledger]: what
// is in force, and when a try is undone, is decided there.

import (
	"context"
	"fmt"
	"time"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/caller"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/refusal"
	"github.com/BitBoxSwiss/bitbox-base/internal/helperclient"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/pairing"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/posture"
)

// updateLocked runs one call of the ledger, saves what comes of it, and wakes the
// worker when something else is in force.
func (h *Helper) updateLocked(call func() (posture.Output, error)) error {
	return h.updateWithLocked(func() []byte { return nil }, call, func() {})
}

// updateWithLocked saves the registry as well, asked for after a call that did not
// fail, if it is not nil, and calls saved when both are on the disk. If saving fails,
// the ledger is the one of before.
func (h *Helper) updateWithLocked(registry func() []byte, call func() (posture.Output, error), saved func()) error {
	out, err := call()
	c := changes{ledger: out.Save}
	if err == nil {
		c.registry = registry()
	}
	wanted := h.inForceLocked()
	if failed := h.store.save(c); failed != nil {
		h.log.Error("the posture could not be saved", "audit", true, "error", failed)
		if reloaded := h.loadLedger(); reloaded != nil {
			h.log.Error("the posture of before could not be saved either", "error", reloaded)
		}
		h.unsaved = &wanted
		h.changedLocked()
		return helperclient.Errorf(helperclient.CodeStorage,
			"%w; what was to be closed is closed all the same, until the next start: make room on the disk", failed)
	}
	if err == nil {
		saved()
	}
	h.recordActsLocked()
	if out.Changed {
		h.changedLocked()
	}
	return err
}

// settling runs a call of the ledger that may settle a document. The roles of a settled
// one become those of the enrolled keys, in the same transaction: a power cut leaves
// the old role in both, or the new one.
func (h *Helper) settling(call func(now time.Duration) (posture.Output, error)) error {
	return h.authority.With(func(m *pairing.Machine) error {
		h.mu.Lock()
		defer h.mu.Unlock()
		undo, saved := func() {}, false
		err := h.updateWithLocked(func() (registry []byte) {
			if h.ledger.Phase() == systemv1.PostureReport_PHASE_SETTLED {
				registry, undo = m.SetRoles(h.rolesLocked())
			}
			return registry
		}, func() (posture.Output, error) { return call(h.config.Clock()) }, func() { saved = true })
		if !saved {
			undo()
			return err
		}
		h.followRolesLocked()
		return err
	})
}

// rolesLocked are the roles in force, by key.
func (h *Helper) rolesLocked() map[[32]byte]basev1.Role {
	roles := map[[32]byte]basev1.Role{}
	for _, app := range h.ledger.Effective().Apps {
		roles[app.SigningKey] = app.Role
	}
	return roles
}

// followRolesLocked notes the roles that the authority has taken over.
func (h *Helper) followRolesLocked() {
	enrolled, err := byKey(h.store.registry)
	if err != nil { // the authority has just written it
		panic(fmt.Sprintf("system: %v", err))
	}
	for key, e := range enrolled {
		if was := h.enrolled[key]; was.Role != e.Role {
			h.log.Info("the role of an App was changed", "audit", true, "app", e.Name, "before", was.Role, "role", e.Role, "signing_key", key)
		}
	}
	h.enrolled = enrolled
}

// changedLocked tells everybody that something else is in force.
func (h *Helper) changedLocked() {
	h.version++
	h.worker.Wake()
	h.announcer.Wake()
	h.publishLocked(nil)
	h.tellLocked(h.askedBy)
}

// inForceLocked is what is to be in force: what the ledger says, and no more than
// what could not be saved.
func (h *Helper) inForceLocked() posture.Effective {
	e := h.ledger.Effective()
	if h.unsaved != nil {
		e = posture.Meet(e, *h.unsaved)
	}
	return e
}

// tick lets the ledger count time, and returns when it is due next.
func (h *Helper) tick() (time.Duration, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	_ = h.updateLocked(func() (posture.Output, error) { return h.ledger.Tick(h.config.Clock()), nil })
	return h.ledger.Deadline()
}

// signed is the posture for whoever has changed it; nothing for who has no question.
func (h *Helper) signed(nonce []byte, challenge bool) (*systemv1.SystemReply, error) {
	if len(nonce) == 0 {
		return &systemv1.SystemReply{}, nil
	}
	return h.posture(nonce, challenge)
}

// posture signs what is in force and gives the history that it belongs to, both of one
// moment; with a challenge, if somebody is going to sign something.
func (h *Helper) posture(nonce []byte, challenge bool) (*systemv1.SystemReply, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	signed := &basev1.SignedPosture{}
	err := h.updateLocked(func() (out posture.Output, err error) {
		if signed.Report, out, err = h.ledger.Report(nonce, h.config.Clock()); err != nil {
			return out, &helperclient.Error{Code: helperclient.CodeMalformed, Message: err.Error()}
		}
		if challenge {
			signed.Challenge, _, err = h.ledger.Challenge(h.config.Clock())
		}
		return out, err
	})
	if err != nil {
		return nil, err
	}
	signed.Chain = h.ledger.Chain()
	return &systemv1.SystemReply{Result: &systemv1.SystemReply_Posture{Posture: signed}}, nil
}

// submit takes a document that an owner has signed, and answers when it is in
// force or undone.
func (h *Helper) submit(ctx context.Context, request *systemv1.Submit, progress func(*systemv1.Progress)) (*systemv1.SystemReply, error) {
	err := h.change(ctx, progress, func(now time.Duration) (posture.Output, error) {
		return h.ledger.Submit(request.GetDocument(), now)
	})
	if err != nil {
		return nil, err
	}
	return h.signed(request.GetNonce(), true)
}

// change puts a new revision in force: the call, which must leave the ledger
// applying, and the wait for the worker.
func (h *Helper) change(ctx context.Context, progress func(*systemv1.Progress),
	call func(now time.Duration) (posture.Output, error)) error {
	h.mu.Lock()
	err := h.updateLocked(func() (posture.Output, error) { return call(h.config.Clock()) })
	if err != nil {
		h.mu.Unlock()
		return err
	}
	h.unsaved = nil // who decides anew was told
	w := &waiter{progress: make(chan *systemv1.Progress, 16), done: make(chan error, 1)}
	revision := h.ledger.Effective().Revision
	h.waiters[revision] = w
	h.mu.Unlock()
	defer func() {
		h.mu.Lock()
		delete(h.waiters, revision)
		h.mu.Unlock()
	}()
	h.log.Info("a new posture was accepted", "audit", true, "revision", revision)
	for {
		select {
		case p := <-w.progress:
			progress(p)
		case err := <-w.done:
			return err
		case <-ctx.Done():
			return refusal.ErrUnderWay // the helper is being stopped
		}
	}
}

// confirm takes the signed confirmation of a try. The caller says when the
// connection that brought it began, on the boot-time clock.
func (h *Helper) confirm(request *systemv1.ConfirmTry) (*systemv1.SystemReply, error) {
	connected := time.Duration(min(request.GetConnectedAtMs(), maxMilliseconds)) * time.Millisecond
	err := h.settling(func(now time.Duration) (posture.Output, error) {
		return h.ledger.Confirm(request.GetConfirmation(), connected > h.triedSince && connected <= now, now)
	})
	if err != nil {
		return nil, err
	}
	h.log.Info("a tried posture was confirmed", "audit", true)
	if err := h.reconcile(); err != nil {
		h.log.Error("keys and posture disagree", "audit", true, "error", err)
	}
	return h.signed(request.GetNonce(), false)
}

// maxMilliseconds fit into a time.Duration.
const maxMilliseconds = uint64(1<<63-1) / uint64(time.Millisecond)

// restrict closes something at once, and answers when it is closed.
func (h *Helper) restrict(ctx context.Context, who caller.Who, app string, request *systemv1.Restrict) (*systemv1.SystemReply, error) {
	closing, err := closingOf(request)
	if err != nil {
		return nil, err
	}
	h.mu.Lock()
	h.askedBy = app
	err = h.updateLocked(func() (posture.Output, error) {
		return h.ledger.Restrict(closing, who.Actor(), h.config.Clock())
	})
	h.askedBy = ""
	closed := h.inForceLocked().PairingClosed
	h.mu.Unlock()
	if err != nil {
		return nil, err
	}
	message := request.ProtoReflect()
	what := message.WhichOneof(message.Descriptor().Oneofs().ByName("what")) // set, or there were no closing
	h.log.Info("something was closed", "audit", true, "by", who, "what", what.Name())
	if closed {
		h.closeWindow(ctx)
	}
	if err := h.applied(ctx); err != nil {
		return nil, err
	}
	if err := h.reconcile(); err != nil {
		h.log.Error("keys and posture disagree", "audit", true, "error", err)
	}
	return h.signed(request.GetNonce(), false)
}

func closingOf(request *systemv1.Restrict) (posture.Closing, error) {
	switch what := request.GetWhat().(type) {
	case *systemv1.Restrict_Lockdown:
		return posture.Closing{Type: posture.ClosingLockdown}, nil
	case *systemv1.Restrict_PairingShut:
		return posture.Closing{Type: posture.ClosingPairing}, nil
	case *systemv1.Restrict_EndLease:
		return posture.Closing{
			Type: posture.ClosingLease, Kind: posture.Kind(what.EndLease.GetKind()), GrantedIn: what.EndLease.GetGrantedIn(),
		}, nil
	case *systemv1.Restrict_AppCutOff:
		key := what.AppCutOff.GetSigningKey()
		if len(key) != len(posture.SigningKey{}) {
			return posture.Closing{}, helperclient.Errorf(helperclient.CodeMalformed, "the key of the App has %d bytes, not 32", len(key))
		}
		return posture.Closing{Type: posture.ClosingApp, App: posture.SigningKey(key)}, nil
	default:
		return posture.Closing{}, helperclient.Errorf(helperclient.CodeMalformed, "the restriction closes nothing that is known here")
	}
}

// local takes a change from root in place of an owner.
func (h *Helper) local(ctx context.Context, request *systemv1.LocalChange,
	progress func(*systemv1.Progress)) (*systemv1.SystemReply, error) {
	err := h.change(ctx, progress, func(now time.Duration) (posture.Output, error) {
		p, revision := h.ledger.Posture()
		var lifts []uint64
		switch change := request.GetChange().(type) {
		case *systemv1.LocalChange_Posture:
			for _, lease := range leases(change.Posture) {
				if lease.GetGrantedIn() == 0 {
					lease.GrantedIn = revision + 1
				}
			}
			var err error
			if p, err = posture.FromProto(change.Posture); err != nil {
				return posture.Output{}, err
			}
		case *systemv1.LocalChange_LiftRestrictions:
			lifts = h.ledger.Liftable()
			if len(lifts) == 0 {
				return posture.Output{}, helperclient.Errorf(helperclient.CodeNothing, "no lockdown and no closed pairing is in force")
			}
			if h.ledger.Effective().Lockdown && !change.LiftRestrictions.GetReopen() {
				p.SSH, p.Extras = nil, nil
			}
		case *systemv1.LocalChange_GoBack:
			var err error
			if p, err = h.ledger.Back(change.GoBack.GetRevision()); err != nil {
				return posture.Output{}, err
			}
		default:
			return posture.Output{}, helperclient.Errorf(helperclient.CodeMalformed, "the change is none that is known here")
		}
		return h.ledger.Local(p, lifts, request.GetNote(), now)
	})
	if err != nil {
		return nil, err
	}
	if err := h.reconcile(); err != nil {
		return nil, err
	}
	return &systemv1.SystemReply{}, nil
}

// leases lists the leases of a posture.
func leases(p *systemv1.Posture) []*systemv1.PostureLease {
	var list []*systemv1.PostureLease
	if p.GetSsh() != nil {
		list = append(list, p.GetSsh())
	}
	for _, extra := range p.GetExtraEndpoints() {
		if extra.GetLease() != nil {
			list = append(list, extra.GetLease())
		}
	}
	return list
}
