package ledger

import (
	"context"
	"fmt"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/caller"
	"github.com/BitBoxSwiss/bitbox-base/internal/helperclient"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/noiseconn"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/pairing"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/posture"
)

// OrderPairing obeys an order about pairing that an owner's App has signed. The ledger says
// whether an owner has signed this, just now and once; the authority, whose lock is held
// meanwhile, does it within its bounds.
func (k *Keeper) OrderPairing(_ context.Context, _ *caller.Call, request *systemv1.OrderPairing) (reply *systemv1.SystemReply, err error) {
	err = k.authority.With(func(m *pairing.Machine) error {
		k.mu.Lock()
		defer k.mu.Unlock()
		err := k.orderPairingLocked(m, request.GetOrder())
		reply = &systemv1.SystemReply{Result: &systemv1.SystemReply_Authority{Authority: &systemv1.AuthorityReply{
			Result: &systemv1.AuthorityReply_Snapshot{Snapshot: m.Snapshot(pairing.CallerMiddleware)}}}}
		return err
	})
	return reply, err
}

// AnswerPairing takes an owner's signed answer to a pairing, as OrderPairing takes an order.
func (k *Keeper) AnswerPairing(_ context.Context, _ *caller.Call, request *systemv1.AnswerPairing) (reply *systemv1.SystemReply,
	err error) {
	err = k.authority.With(func(m *pairing.Machine) error {
		k.mu.Lock()
		defer k.mu.Unlock()
		report, err := k.answerPairingLocked(m, request.GetAnswer())
		reply = &systemv1.SystemReply{Result: &systemv1.SystemReply_PairingAnswered{
			PairingAnswered: &systemv1.PairingAnswered{Report: report}}}
		return err
	})
	return reply, err
}

// orderPairingLocked opens a window, or makes the act, by an owner's order.
func (k *Keeper) orderPairingLocked(m *pairing.Machine, signed []byte) error {
	var owner posture.SigningKey
	var order *systemv1.PairingOrder
	err := k.updateLocked(func() (out posture.Output, err error) {
		owner, order, out, err = k.ledger.PairingOrder(signed, k.config.Clock())
		return out, err
	})
	switch {
	case err != nil:
		return err
	case k.inForceLocked().PairingClosed:
		return helperclient.Errorf(helperclient.CodePermission,
			"pairing from the network is closed; lift that first ('bitbox-app posture unlock'), or open the window at the Base's console")
	case order.Number == nil:
		err = m.OpenWindowFor(pairing.OwnerKey(owner), order.GetRole())
	case !k.config.NoDisplay:
		// A person who reads the display is at the Base. That proves more than an App's word.
		return helperclient.Errorf(helperclient.CodePermission,
			"this Base has a display: accept the number there; open the window for it with 'bitbox-app pairing open'")
	default:
		err = m.AcceptFor(pairing.OwnerKey(owner), order.GetNumber(), order.GetRole())
	}
	if err != nil {
		return err
	}
	what := "an owner's App has opened the pairing window"
	if order.Number != nil {
		what = "an owner's App has accepted a pairing request"
	}
	k.log.Info(what, "audit", true, "role", order.GetRole(), "signing_key", owner)
	return nil
}

// answerPairingLocked returns the signed report that judges an owner's answer.
func (k *Keeper) answerPairingLocked(m *pairing.Machine, signed []byte) ([]byte, error) {
	var owner posture.SigningKey
	var answer *systemv1.PairingAnswer
	err := k.updateLocked(func() (out posture.Output, err error) {
		owner, answer, out, err = k.ledger.PairingAnswer(signed, k.config.Clock())
		return out, err
	})
	switch {
	case err != nil:
		return nil, err
	case len(answer.GetWords()) > 0 && k.inForceLocked().PairingClosed:
		return nil, helperclient.Errorf(helperclient.CodePermission, "the posture has closed pairing meanwhile; no App is let in")
	}
	matched, err := m.AnswerFor(pairing.OwnerKey(owner), answer)
	if err != nil {
		return nil, err
	}
	k.log.Info("an owner's App has answered a pairing", "audit", true, "matched", matched, "signing_key", owner)
	return k.ledger.PairingReport(answer, matched), nil
}

// isOwner tells the authority whether a key is an owner's now, by what is in force: an owner who
// was lowered or cut off lets nobody in, even while that change is still being applied.
func (k *Keeper) isOwner(owner pairing.OwnerKey) bool {
	for _, app := range k.Effective().Apps {
		if app.SigningKey == posture.SigningKey(owner) {
			return app.Role == basev1.Role_ROLE_OWNER
		}
	}
	return false
}

// orderedByLocked names the owner who has ordered a pairing, for the history. It is empty
// if the person at the Base made the pairing.
func (k *Keeper) orderedByLocked(owner pairing.OwnerKey) string {
	p, _ := k.ledger.Posture()
	for _, app := range p.Apps {
		if app.SigningKey != posture.SigningKey(owner) {
			continue
		}
		if note := fmt.Sprintf("ordered by the App '%s'", app.Name); noiseconn.CheckName(note) == nil {
			return note
		}
		return "ordered by the App " + app.ID // a long name
	}
	return ""
}
