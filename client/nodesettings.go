package client

import (
	"context"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/posture"
)

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
