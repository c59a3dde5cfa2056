package client

import (
	"context"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/posture"
)

// FactoryReset wipes the Base: its identity, all pairings, its posture and all keys. It restarts
// at once as a new Base; all Apps, including this one, have to pair again. typed is called with
// the Base's name and returns what the owner has typed, which must be that name.
//
// When it returns nil the reset is certain, and the pairing is in the state Reset until the Base
// is paired again or forgotten (App.Forget).
func (s *Session) FactoryReset(ctx context.Context, typed func(name string) (string, error)) error {
	view, err := s.Posture(ctx)
	if err != nil {
		return err
	}
	name := view.Effective().NodeName
	answer, err := typed(name)
	if err != nil {
		return err
	}
	if answer != name {
		return fail(ErrNotApproved, nil, "that is not the name of the Base, %q, so nothing was done", Printable(name))
	}
	seen, err := s.look(ctx, true) // the user may have typed for long
	if err != nil {
		return err
	}
	_, err = s.posture.FactoryReset(ctx, &basev1.FactoryResetRequest{Order: posture.SignReset(seen.view.ResetOrder(name, seen.challenge),
		seen.seed)})
	if err != nil && !Refused(err) {
		// The restart may have come before the answer.
		return fail(ErrUnreachable, err, "the connection ended before the Base answered (%v): check whether it is being reset, and if not, try again", reason(err))
	}
	if err != nil {
		return err
	}
	return s.transport.app.store.reset(s.transport.id)
}
