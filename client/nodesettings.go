package client

import (
	"context"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/posture"
)

// NodeSettings returns the node that was chosen for the Base, as its helper has signed it: who
// changes one setting signs all of them, and nobody in between chooses the rest.
func (s *Session) NodeSettings(ctx context.Context) (*basev1.ChosenNode, error) {
	view, err := s.Posture(ctx)
	if err != nil {
		return nil, err
	}
	chosen := view.Identities().Node
	switch {
	case chosen == nil:
		return nil, fail(ErrInvalid, nil, "the Base's software does not sign which node it runs; update the Base")
	case chosen.GetFault() != "":
		return nil, fail(ErrInvalid, nil, "the Base cannot use what was chosen for its node: %s", Printable(chosen.GetFault()))
	}
	return chosen, nil
}

// ChangeNodeSettings has the Base run another node, or the same with other settings, by an order
// that this App signs. When it returns nil, the settings are stored and the node restarts; whether
// it comes up, Session.Node tells.
func (s *Session) ChangeNodeSettings(ctx context.Context, settings *basev1.NodeSettings) error {
	seen, err := s.look(ctx, true)
	if err != nil {
		return err
	}
	_, err = s.Node.ChangeNodeSettings(ctx, &basev1.ChangeNodeSettingsRequest{
		Order: posture.SignNodeSettings(seen.view.NodeSettingsOrder(settings, seen.challenge), seen.seed)})
	return err
}
