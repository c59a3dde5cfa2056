package client

import (
	"context"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/posture"
)

// ResetAnswer is an owner's answer to the question before a factory reset.
type ResetAnswer struct {
	// Typed is the name of the Base.
	Typed string
	// EraseChain: the chain of the node goes, too.
	EraseChain bool
}

// FactoryReset wipes the Base: its identity, all pairings, its posture and all keys. It restarts
// at once as a new Base; all Apps, including this one, have to pair again. asked is called with
// the Base's name and returns the owner's answer, which must have that name. The chain of the node
// stays, unless the answer says otherwise.
//
// When it returns nil the reset is certain, and the pairing is in the state Reset until the Base
// is paired again or forgotten (App.Forget), if that can be stored (Options.Unstored).
func (s *Session) FactoryReset(ctx context.Context, asked func(name string) (ResetAnswer, error)) error {
	view, err := s.Posture(ctx)
	if err != nil {
		return err
	}
	name := view.Effective().NodeName
	answer, err := asked(name)
	if err != nil {
		return err
	}
	if answer.Typed != name {
		return fail(ErrNotApproved, nil, "that is not the name of the Base, %q, so nothing was done", Printable(name))
	}
	seen, err := s.look(ctx, true) // the user may have typed for long
	if err != nil {
		return err
	}
	order := seen.view.ResetOrder(name, seen.challenge)
	order.EraseChain = answer.EraseChain
	_, err = s.posture.FactoryReset(ctx, &basev1.FactoryResetRequest{Order: posture.SignReset(order, seen.seed)})
	if err != nil && !Refused(err) {
		// The restart may have come before the answer.
		return fail(ErrUnreachable, err, "the connection ended before the Base answered (%v): check whether it is being reset, and if not, try again", reason(err))
	}
	if err != nil {
		return err
	}
	app := s.transport.app
	return app.notes.kept(app.store.reset(s.transport.id))
}
