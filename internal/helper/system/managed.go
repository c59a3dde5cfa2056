package system

import (
	"context"
	"errors"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/apply"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/caller"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/journal"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/timezone"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/units"
	"github.com/BitBoxSwiss/bitbox-base/internal/helperclient"
)

// Manager is systemd and its journal. Whoever calls it gives it no word that came from
// a request, but for numbers.
type Manager interface {
	units.Manager
	journal.Source
	// Unmet returns the conditions of a unit that kept it from starting last, as they stand
	// in the unit, such as "ConditionACPower=true".
	Unmet(ctx context.Context, unit string) ([]string, error)
}

func servicesReply(list []*basev1.Service, err error) (*systemv1.SystemReply, error) {
	if err != nil {
		return nil, err
	}
	return &systemv1.SystemReply{Result: &systemv1.SystemReply_Services{Services: &systemv1.ServicesResult{Services: list}}}, nil
}

func (h *Helper) readLogs(ctx context.Context, who caller.Who, request *basev1.ReadLogsRequest,
	send func(*systemv1.SystemReply) error) error {
	q, err := journal.Check(h.config.Services, request)
	if err != nil {
		return err
	}
	give, err := h.readers.Take(who == caller.Middleware)
	if err != nil {
		return err
	}
	defer give()
	return q.Read(ctx, h.config.Manager, func(logs *systemv1.LogsResult) error {
		return send(&systemv1.SystemReply{Result: &systemv1.SystemReply_Logs{Logs: logs}})
	})
}

func (h *Helper) listTimeZones() (*systemv1.SystemReply, error) {
	names, err := h.config.TimeZone.Names()
	if err != nil {
		return nil, helperclient.Errorf(helperclient.CodeInternal, "%w", err)
	}
	return &systemv1.SystemReply{Result: &systemv1.SystemReply_TimeZones{
		TimeZones: &systemv1.TimeZonesResult{Names: names, Current: h.config.TimeZone.Current()}}}, nil
}

func (h *Helper) setTimeZone(ctx context.Context, name string) error {
	// systemd does nothing else while it reads its units anew.
	if err := h.serviceTurn.Take(ctx); err != nil {
		return err
	}
	defer h.serviceTurn.End()
	switch err := h.config.TimeZone.Set(name); {
	case errors.Is(err, timezone.ErrUnknown):
		return helperclient.Errorf(helperclient.CodeInvalid, "%w", err)
	case errors.Is(err, timezone.ErrNotOurs):
		return helperclient.Errorf(helperclient.CodeRefused, "%w", err)
	case err != nil:
		return helperclient.Errorf(helperclient.CodeStorage, "%w", err)
	}
	h.log.Info("the time zone was set", "audit", true, "zone", name)
	// systemd looks when a timer is due when it starts it, and when it reloads.
	ctx, cancel := context.WithTimeout(ctx, apply.StepTime)
	defer cancel()
	if _, err := h.config.Manager.Systemctl(ctx, "daemon-reload"); err != nil {
		return helperclient.Errorf(helperclient.CodeInternal, "the time zone is %s, but timers of the machine follow only after a reboot: %w",
			name, err)
	}
	return nil
}
