package machine

import (
	"context"
	"time"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/harmless"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/caller"
	"github.com/BitBoxSwiss/bitbox-base/internal/helperclient"
)

// StopRest is how long after a boot an App cannot stop the machine again. Otherwise a
// Middleware that was taken over could do so at each boot, before anybody at the
// console had time to take the Base back.
const StopRest = 5 * time.Minute

// Reboot restarts the machine, once the answer had time to leave.
func (m *Machine) Reboot(ctx context.Context, c *caller.Call, _ *systemv1.Reboot) (*systemv1.SystemReply, error) {
	return &systemv1.SystemReply{}, m.stop(ctx, c, false)
}

// PowerOff switches the machine off, once the answer had time to leave.
func (m *Machine) PowerOff(ctx context.Context, c *caller.Call, _ *systemv1.PowerOff) (*systemv1.SystemReply, error) {
	return &systemv1.SystemReply{}, m.stop(ctx, c, true)
}

// Stopping tells whether the machine is being stopped.
func (m *Machine) Stopping() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.stopping
}

// MayStop refuses what stops or restarts the machine, if a caller may not have that now. Whatever
// restarts the machine on request asks it first.
func (m *Machine) MayStop(ctx context.Context, who caller.Who) error {
	if left := StopRest - m.config.Clock(); who == caller.Middleware && left > 0 {
		return helperclient.Errorf(helperclient.CodeBusy, "the machine was started a moment ago, and an App can stop it again in %v",
			left.Round(time.Second))
	}
	for _, refuse := range m.Refuse {
		if err := refuse(ctx); err != nil {
			return err
		}
	}
	return nil
}

// stop stops the machine. That opens nothing: what comes back is what the ledger says, less
// SSH's lease.
func (m *Machine) stop(ctx context.Context, c *caller.Call, powerOff bool) error {
	if err := m.MayStop(ctx, c.Who); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.stopping {
		return helperclient.Errorf(helperclient.CodeBusy, "the machine is stopping already")
	}
	target := "reboot.target"
	if powerOff {
		target = "poweroff.target"
	}
	if err := m.config.Later.Do(func(ctx context.Context) {
		_, err := m.config.Systemd.Systemctl(ctx, "--no-block", "--job-mode=replace-irreversibly", "start", target)
		if err == nil || ctx.Err() != nil {
			return
		}
		m.config.Log.Error("the machine could not be stopped", "audit", true, "target", target, "error", err)
		m.mu.Lock()
		m.stopping = false
		m.mu.Unlock()
	}); err != nil {
		return err
	}
	m.stopping = true
	m.config.Log.Warn("the machine is being stopped", "audit", true, "by", c.Who, "app", harmless.Line(harmless.Word(c.App)),
		"power_off", powerOff)
	event := &basev1.MachineStoppingEvent{PowerOff: powerOff}
	if c.App != "" {
		event.By = &basev1.App{Id: c.App} // the Middleware knows its name
	}
	m.config.Events.Publish(&basev1.Event{Event: &basev1.Event_MachineStopping{MachineStopping: event}})
	return nil
}
