package machine

import (
	"context"
	"errors"

	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/apply"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/caller"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/timezone"
	"github.com/BitBoxSwiss/bitbox-base/internal/helperclient"
)

// ListTimeZones answers with the names that can be set.
func (m *Machine) ListTimeZones(context.Context, *caller.Call, *systemv1.ListTimeZones) (*systemv1.SystemReply, error) {
	names, err := m.config.Zone.Names()
	if err != nil {
		return nil, helperclient.Errorf(helperclient.CodeInternal, "%w", err)
	}
	return &systemv1.SystemReply{Result: &systemv1.SystemReply_TimeZones{
		TimeZones: &systemv1.TimeZonesResult{Names: names, Current: m.config.Zone.Current()}}}, nil
}

// SetTimeZone sets the time zone, and has systemd follow.
func (m *Machine) SetTimeZone(ctx context.Context, _ *caller.Call, request *systemv1.SetTimeZone) (*systemv1.SystemReply, error) {
	if err := m.config.Reading.Take(ctx); err != nil {
		return nil, err
	}
	defer m.config.Reading.End()
	name := request.GetName()
	switch err := m.config.Zone.Set(name); {
	case errors.Is(err, timezone.ErrUnknown):
		return nil, helperclient.Errorf(helperclient.CodeInvalid, "%w", err)
	case errors.Is(err, timezone.ErrNotOurs):
		return nil, helperclient.Errorf(helperclient.CodeRefused, "%w", err)
	case err != nil:
		return nil, helperclient.Errorf(helperclient.CodeStorage, "%w", err)
	}
	m.config.Log.Info("the time zone was set", "audit", true, "zone", name)
	// systemd looks when a timer is due when it starts it, and when it reloads.
	ctx, cancel := context.WithTimeout(ctx, apply.StepTime)
	defer cancel()
	if _, err := m.config.Systemd.Systemctl(ctx, "daemon-reload"); err != nil {
		return nil, helperclient.Errorf(helperclient.CodeInternal,
			"the time zone is %s, but timers of the machine follow only after a reboot: %w", name, err)
	}
	return &systemv1.SystemReply{}, nil
}
