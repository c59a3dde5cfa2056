package ledger

// This file connects the verbs of the posture with its ledger, which is [posture.Ledger]: what
// is in force, and when a try is undone, is decided there.

import (
	"context"
	"fmt"
	"time"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/apply"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/caller"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/refusal"
	"github.com/BitBoxSwiss/bitbox-base/internal/helperclient"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/pairing"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/posture"
	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
)

// updateLocked runs one call of the ledger, saves what comes of it, and wakes the
// worker when something else is in force.
func (k *Keeper) updateLocked(call func() (posture.Output, error)) error {
	return k.updateWithLocked(func() []byte { return nil }, call, func() {})
}

// updateWithLocked saves the registry as well, asked for after a call that did not
// fail, if it is not nil, and calls saved when both are on the disk. If saving fails,
// the ledger stays as it was.
func (k *Keeper) updateWithLocked(registry func() []byte, call func() (posture.Output, error), saved func()) error {
	out, err := call()
	c := Saved{Ledger: out.Save}
	if err == nil {
		c.Registry = registry()
	}
	wanted := k.inForceLocked()
	if failed := k.store.Save(c); failed != nil {
		k.log.Error("the posture could not be saved", "audit", true, "error", failed)
		if reloaded := k.loadLedger(); reloaded != nil {
			k.log.Error("the former posture could not be saved either", "error", reloaded)
		}
		k.unsaved = &wanted
		k.changedLocked()
		return helperclient.Errorf(helperclient.CodeStorage,
			"%w; what was to be closed is closed all the same, until the next start: make room on the disk", failed)
	}
	if err == nil {
		saved()
	}
	k.Changes.Acts(k.ledger.TakeActs())
	k.noteLocked()
	if out.Changed {
		k.changedLocked()
	}
	return err
}

// settling runs a call of the ledger that may settle a document. The roles of a settled
// one become those of the enrolled keys, in the same transaction: a power cut leaves
// the old role in both, or the new one.
func (k *Keeper) settling(call func(now time.Duration) (posture.Output, error)) error {
	return k.authority.With(func(m *pairing.Machine) error {
		k.mu.Lock()
		defer k.mu.Unlock()
		undo, saved := func() {}, false
		err := k.updateWithLocked(func() (registry []byte) {
			if k.ledger.Phase() == systemv1.PostureReport_PHASE_SETTLED {
				registry, undo = m.SetRoles(k.rolesLocked())
			}
			return registry
		}, func() (posture.Output, error) { return call(k.config.Clock()) }, func() { saved = true })
		if !saved {
			undo()
			return err
		}
		k.followRolesLocked()
		return err
	})
}

// rolesLocked are the roles in force, by key.
func (k *Keeper) rolesLocked() map[[32]byte]basev1.Role {
	roles := map[[32]byte]basev1.Role{}
	for _, app := range k.ledger.Effective().Apps {
		roles[app.SigningKey] = app.Role
	}
	return roles
}

// followRolesLocked notes the roles that the authority has taken over.
func (k *Keeper) followRolesLocked() {
	enrolled, err := byKey(k.store.Registry)
	if err != nil { // the authority has just written it
		panic(fmt.Sprintf("ledger: %v", err))
	}
	for key, e := range enrolled {
		if was := k.enrolled[key]; was.Role != e.Role {
			k.log.Info("the role of an App was changed", "audit", true, "app", e.Name, "before", was.Role, "role", e.Role, "signing_key", key)
		}
	}
	k.enrolled = enrolled
}

// changedLocked tells everybody that something else is in force.
func (k *Keeper) changedLocked() {
	k.version++
	k.Apply.Next(k.goalLocked())
	k.worker.Wake()
	k.pairings.Wake()
	k.Changed.Wake()
	k.noteLocked()
	k.Events.Publish(nil)
	k.tellLocked(k.askedBy)
}

// noteLocked notes for those who watch what a report would say, and the roles in force.
func (k *Keeper) noteLocked() {
	effective, apps := k.ledger.Effective(), k.inForceLocked().Apps
	k.Events.Note(func(is *systemv1.SystemEvent) {
		is.Revision, is.RestrictionNumber, is.Phase = effective.Revision, k.ledger.LastRestriction(), k.ledger.Phase()
		is.AppRoles = nil
		for _, app := range apps {
			is.AppRoles = append(is.AppRoles, &systemv1.AppRole{SigningKey: app.SigningKey[:], Role: app.Role})
		}
	})
}

// told is up to where Apps were told of the posture.
type told struct{ revision, restriction uint64 }

// tellLocked tells Apps what else is in force, once that is for good. app is the id of the
// App that has closed something, if there is one.
func (k *Keeper) tellLocked(app string) {
	if k.ledger.Phase() != systemv1.PostureReport_PHASE_SETTLED {
		return
	}
	for _, news := range k.ledger.News(k.told.revision, k.told.restriction) {
		event := &basev1.PostureChangedEvent{By: news.By, Note: news.Note}
		for _, change := range news.Changes {
			event.Changes = append(event.Changes, change.Told)
			event.Differences = append(event.Differences, change.Message())
		}
		switch {
		case news.Ended != "":
			event.By, event.Note = "", news.Ended
		case news.ByMiddleware && app != "":
			event.By, event.App = "", &basev1.App{Id: app}
		}
		k.Events.Publish(&basev1.Event{Event: &basev1.Event_PostureChanged{PostureChanged: event}})
	}
	k.told.revision, k.told.restriction = k.ledger.Effective().Revision, k.ledger.LastRestriction()
}

// inForceLocked is what is to be in force: what the ledger says, and no more than
// what could not be saved.
func (k *Keeper) inForceLocked() posture.Effective { return k.savedLocked(k.ledger.Effective()) }

func (k *Keeper) savedLocked(e posture.Effective) posture.Effective {
	if k.unsaved != nil {
		e = posture.Meet(e, *k.unsaved)
	}
	return e
}

// goalLocked is what the worker is to put in force.
func (k *Keeper) goalLocked() apply.Goal {
	goal := apply.Goal{Effective: k.inForceLocked()}
	if k.ledger.Phase() == systemv1.PostureReport_PHASE_APPLYING {
		undone := k.savedLocked(k.ledger.Undone())
		goal.Undone = &undone
	}
	return goal
}

// tick lets the ledger count time, and returns when it is due next.
func (k *Keeper) tick() (time.Duration, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	_ = k.updateLocked(func() (posture.Output, error) { return k.ledger.Tick(k.config.Clock()), nil })
	return k.ledger.Deadline()
}

// signed is the signed posture for the caller who changed it, or nothing if the caller sent no
// nonce.
func (k *Keeper) signed(nonce []byte, challenge bool) (*systemv1.SystemReply, error) {
	if len(nonce) == 0 {
		return &systemv1.SystemReply{}, nil
	}
	return k.posture(nonce, challenge)
}

// GetPosture answers how open the Base is.
func (k *Keeper) GetPosture(_ context.Context, _ *caller.Call, request *systemv1.GetPosture) (*systemv1.SystemReply, error) {
	return k.posture(request.GetNonce(), request.GetChallenge())
}

// posture signs what is in force and gives the history that it belongs to, both of one
// moment; with a challenge, if somebody is going to sign something.
func (k *Keeper) posture(nonce []byte, challenge bool) (*systemv1.SystemReply, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	signed := &basev1.SignedPosture{}
	err := k.updateLocked(func() (out posture.Output, err error) {
		if signed.Report, out, err = k.ledger.Report(nonce, k.config.Clock()); err != nil {
			return out, &helperclient.Error{Code: helperclient.CodeMalformed, Message: reason.Of(err)}
		}
		if challenge {
			signed.Challenge, _, err = k.ledger.Challenge(k.config.Clock())
		}
		return out, err
	})
	if err != nil {
		return nil, err
	}
	signed.Chain = k.ledger.Chain()
	return &systemv1.SystemReply{Result: &systemv1.SystemReply_Posture{Posture: signed}}, nil
}

// Submit takes a document that an owner has signed, and answers when it is in
// force or undone.
func (k *Keeper) Submit(ctx context.Context, c *caller.Call, request *systemv1.Submit) (*systemv1.SystemReply, error) {
	err := k.change(ctx, c.Progress, func(now time.Duration) (posture.Output, error) {
		return k.ledger.Submit(request.GetDocument(), now)
	})
	if err != nil {
		return nil, err
	}
	return k.signed(request.GetNonce(), true)
}

// change puts a new revision in force: the call, which must leave the ledger
// applying, and the wait for the worker.
func (k *Keeper) change(ctx context.Context, progress func(*systemv1.Progress),
	call func(now time.Duration) (posture.Output, error)) error {
	k.mu.Lock()
	err := k.updateLocked(func() (posture.Output, error) { return call(k.config.Clock()) })
	if err != nil {
		k.mu.Unlock()
		return err
	}
	k.unsaved = nil // a caller who decides again was told
	k.noteLocked()
	w := &waiter{progress: make(chan *systemv1.Progress, 16), done: make(chan error, 1)}
	revision := k.ledger.Effective().Revision
	k.waiters[revision] = w
	k.mu.Unlock()
	defer func() {
		k.mu.Lock()
		delete(k.waiters, revision)
		k.mu.Unlock()
	}()
	k.log.Info("a new posture was accepted", "audit", true, "revision", revision)
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

// Confirm takes the signed confirmation of a try. The caller says when the
// connection that brought it began, on the boot-time clock.
func (k *Keeper) Confirm(_ context.Context, _ *caller.Call, request *systemv1.ConfirmTry) (*systemv1.SystemReply, error) {
	connected := time.Duration(min(request.GetConnectedAtMs(), maxMilliseconds)) * time.Millisecond
	err := k.settling(func(now time.Duration) (posture.Output, error) {
		return k.ledger.Confirm(request.GetConfirmation(), connected > k.triedSince && connected <= now, now)
	})
	if err != nil {
		return nil, err
	}
	k.log.Info("a tried posture was confirmed", "audit", true)
	if err := k.reconcile(); err != nil {
		k.log.Error("keys and posture disagree", "audit", true, "error", err)
	}
	return k.signed(request.GetNonce(), false)
}

// maxMilliseconds fit into a time.Duration.
const maxMilliseconds = uint64(1<<63-1) / uint64(time.Millisecond)

// Restrict closes something at once, and answers when it is closed.
func (k *Keeper) Restrict(ctx context.Context, c *caller.Call, request *systemv1.Restrict) (*systemv1.SystemReply, error) {
	closing, err := closingOf(request)
	if err != nil {
		return nil, err
	}
	k.mu.Lock()
	k.askedBy = c.App
	err = k.updateLocked(func() (posture.Output, error) {
		return k.ledger.Restrict(closing, c.Who.Actor(), k.config.Clock())
	})
	k.askedBy = ""
	closed := k.inForceLocked().PairingClosed
	k.mu.Unlock()
	if err != nil {
		return nil, err
	}
	message := request.ProtoReflect()
	what := message.WhichOneof(message.Descriptor().Oneofs().ByName("what")) // set, or there were no closing
	k.log.Info("something was closed", "audit", true, "by", c.Who, "what", what.Name())
	if closed {
		k.closeWindow(ctx)
	}
	if err := k.applied(ctx); err != nil {
		return nil, err
	}
	if err := k.reconcile(); err != nil {
		k.log.Error("keys and posture disagree", "audit", true, "error", err)
	}
	return k.signed(request.GetNonce(), false)
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
		return posture.Closing{}, helperclient.Errorf(helperclient.CodeMalformed, "the restriction closes nothing known here")
	}
}

// LocalChange takes a change from root in place of an owner.
func (k *Keeper) LocalChange(ctx context.Context, c *caller.Call, request *systemv1.LocalChange) (*systemv1.SystemReply, error) {
	err := k.change(ctx, c.Progress, func(now time.Duration) (posture.Output, error) {
		out := k.ledger.Interrupt(now)
		p, revision := k.ledger.Posture()
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
				return out, err
			}
		case *systemv1.LocalChange_LiftRestrictions:
			lifts = k.ledger.Liftable()
			if len(lifts) == 0 {
				return out, helperclient.Errorf(helperclient.CodeNothing, "no lockdown and no closed pairing is in force")
			}
			if k.ledger.Effective().Lockdown && !change.LiftRestrictions.GetReopen() {
				p.SSH, p.Extras = nil, nil
			}
		case *systemv1.LocalChange_GoBack:
			var err error
			if p, err = k.ledger.Back(change.GoBack.GetRevision()); err != nil {
				return out, err
			}
		default:
			return out, helperclient.Errorf(helperclient.CodeMalformed, "the change is unknown here")
		}
		changed, err := k.ledger.Local(p, lifts, request.GetNote(), now)
		if err != nil {
			return out, err
		}
		return changed, nil
	})
	if err != nil {
		return nil, err
	}
	if err := k.reconcile(); err != nil {
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
