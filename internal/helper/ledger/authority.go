package ledger

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"time"

	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/caller"
	"github.com/BitBoxSwiss/bitbox-base/internal/helperclient"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/pairing"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/posture"
	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
)

// Authority passes a request on to the ceremony authority.
func (k *Keeper) Authority(ctx context.Context, c *caller.Call, request *systemv1.AuthorityRequest) (*systemv1.SystemReply, error) {
	reply, err := k.callAuthority(ctx, c.Who, request)
	if err != nil {
		return nil, helperclient.Errorf(helperclient.CodeInternal, "%w", err)
	}
	return &systemv1.SystemReply{Result: &systemv1.SystemReply_Authority{Authority: reply}}, nil
}

// callAuthority passes a request on to the ceremony authority, which decides.
// Two things it cannot know are decided here: whether the posture lets the network
// open a pairing window, and who takes a key away.
func (k *Keeper) callAuthority(ctx context.Context, who caller.Who, request *systemv1.AuthorityRequest) (*systemv1.AuthorityReply, error) {
	if request.GetOpenWindow() != nil && who == caller.Middleware && k.Effective().PairingClosed {
		return &systemv1.AuthorityReply{
			ErrorCode:    string(pairing.CodePermission),
			ErrorMessage: "pairing from the network is closed; lift that first ('bitbox-app posture unlock'), or open the window at the Base's console",
		}, nil
	}
	if len(request.GetCloseWindow().GetRevokedOwner()) > 0 {
		// This owner has lost the way to a new challenge. An order that is signed and still on its
		// way takes effect before the close, which ends it, or never: an order is checked and
		// obeyed under one lock, which the close takes after this.
		k.mu.Lock()
		k.ledger.VoidChallenges()
		k.mu.Unlock()
	}
	if request.GetRetire() != nil {
		k.retiring.Lock()
		defer k.retiring.Unlock()
		k.retirer = who
	}
	reply, err := k.authority.Call(ctx, who.Pairing(), request)
	if err != nil {
		return nil, reason.Errorf("ask the ceremony authority: %w", err)
	}
	return reply, nil
}

func byKey(registry []byte) (map[posture.SigningKey]pairing.Enrolled, error) {
	list, err := pairing.ParseRegistry(registry)
	if err != nil {
		return nil, err
	}
	keys := make(map[posture.SigningKey]pairing.Enrolled, len(list))
	for _, e := range list {
		keys[e.SigningKey] = e
	}
	return keys, nil
}

// saveRegistry is told by the authority which keys are active, and brings the
// ledger in line in the same transaction: an enrolled App becomes one
// of the posture's Apps, and an App that was removed is no longer one. orderedBy tells which
// owner has ordered the pairing of a key. The authority's lock is held.
func (k *Keeper) saveRegistry(registry []byte, orderedBy func(key [32]byte) pairing.OwnerKey) error {
	keys, err := byKey(registry)
	if err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.updateWithLocked(func() []byte { return registry }, func() (posture.Output, error) {
		var last posture.Output
		note := func(out posture.Output, err error) error {
			if out.Save != nil {
				last.Save = out.Save
			}
			last.Changed = last.Changed || out.Changed
			return err
		}
		now := k.config.Clock()
		for key, e := range keys {
			if _, known := k.enrolled[key]; !known {
				if err := note(k.ledger.Enrol(appOf(e), k.orderedByLocked(orderedBy(key)), now)); err != nil {
					return last, err
				}
				k.log.Info("an App was enrolled", "audit", true, "app", e.Name, "role", e.Role, "signing_key", key)
			}
		}
		for key, e := range k.enrolled {
			if _, stays := keys[key]; stays {
				continue
			}
			if err := k.takeAwayLocked(key, note); err != nil {
				return last, err
			}
			k.log.Info("an App was taken away", "audit", true, "by", k.retirer, "app", e.Name, "signing_key", key)
		}
		return last, nil
	}, func() { k.enrolled = keys })
}

// takeAwayLocked takes an App out of what is in force: the console writes a
// revision, the Middleware can only restrict, and no owner.
func (k *Keeper) takeAwayLocked(key posture.SigningKey, note func(posture.Output, error) error) error {
	now := k.config.Clock()
	if k.retirer == caller.Middleware {
		err := note(k.ledger.Restrict(posture.Closing{Type: posture.ClosingApp, App: key}, posture.ActorMiddleware, now))
		if errors.Is(err, posture.ErrNothingToClose) {
			return nil
		}
		return err
	}
	return note(k.ledger.Retire(key, "", now))
}

// appOf is the App that the posture lists for an enrolled key.
func appOf(e pairing.Enrolled) posture.App {
	id := sha256.Sum256(e.AppKey[:])
	return posture.App{SigningKey: e.SigningKey, Role: e.Role, Name: e.Name, ID: hex.EncodeToString(id[:8])}
}

// reconcile makes authority and ledger agree, towards closed: a key that only one
// of them knows is taken away there, and of two roles the lower counts. They can
// disagree because an owner's document has taken an App away, or because somebody
// exchanged a file; or because a version before this one let a role be lowered. While a document is
// not settled it may be undone, so nothing is taken away then; its Apps have no
// rights all the same.
func (k *Keeper) reconcile() error {
	k.mu.Lock()
	if k.ledger.Phase() != systemv1.PostureReport_PHASE_SETTLED {
		k.mu.Unlock()
		return nil
	}
	listed := map[posture.SigningKey]bool{}
	lowered := false
	var raised []pairing.Enrolled
	for _, app := range k.ledger.Effective().Apps {
		listed[app.SigningKey] = true
		switch e, known := k.enrolled[app.SigningKey]; {
		case known && e.Role > app.Role:
			lowered = true
		case known && e.Role < app.Role:
			raised = append(raised, e)
		}
	}
	var orphans []posture.SigningKey
	for key := range k.enrolled {
		if !listed[key] {
			orphans = append(orphans, key)
		}
	}
	err := errors.Join(k.dropUnknownLocked(listed), k.limitLocked(raised))
	k.mu.Unlock()
	if lowered && err == nil {
		err = k.settling(func(now time.Duration) (posture.Output, error) { return k.ledger.Tick(now), nil })
	}
	for _, key := range orphans {
		request := &systemv1.AuthorityRequest{Verb: &systemv1.AuthorityRequest_Retire{Retire: &systemv1.Retire{SigningKey: key[:]}}}
		reply, callErr := k.callAuthority(context.Background(), caller.Root, request)
		if callErr == nil && reply.GetErrorCode() != "" {
			callErr = reason.New(reply.GetErrorMessage())
		}
		if callErr != nil {
			err = errors.Join(err, reason.Errorf("take away the key of an App that the posture does not list: %w", callErr))
		}
	}
	return err
}

// dropUnknownLocked takes Apps out of the posture whose key was never enrolled.
func (k *Keeper) dropUnknownLocked(listed map[posture.SigningKey]bool) error {
	for key := range listed {
		if _, known := k.enrolled[key]; known {
			continue
		}
		k.log.Warn("an App of the posture is not enrolled; it is taken away", "audit", true, "signing_key", key)
		err := k.updateLocked(func() (posture.Output, error) {
			return k.ledger.Retire(key, "its key was not enrolled", k.config.Clock())
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// limitLocked lowers Apps of the posture to what their keys were enrolled with.
func (k *Keeper) limitLocked(raised []pairing.Enrolled) error {
	for _, e := range raised {
		k.log.Warn("an App of the posture has a higher role than its key was enrolled with; it is lowered", "audit", true, "signing_key", posture.SigningKey(e.SigningKey))
		err := k.updateLocked(func() (posture.Output, error) {
			return k.ledger.Limit(e.SigningKey, e.Role, "its key was not enrolled as that", k.config.Clock())
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// closeWindow ends pairing from the network when the posture has it closed.
func (k *Keeper) closeWindow(ctx context.Context) {
	request := &systemv1.AuthorityRequest{Verb: &systemv1.AuthorityRequest_CloseWindow{CloseWindow: &systemv1.CloseWindow{}}}
	if _, err := k.callAuthority(ctx, caller.Root, request); err != nil {
		k.log.Error("the pairing window could not be closed", "error", err)
	}
}
