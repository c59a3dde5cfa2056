package system

import (
	"context"
	"time"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/harmless"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/caller"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/services"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/units"
	"github.com/BitBoxSwiss/bitbox-base/internal/helperclient"
)

// stopRest is how long after a boot an App cannot stop the machine again. Otherwise a
// Middleware that was taken over could do so at each boot, before anybody at the
// console had time to take the Base back.
const stopRest = 5 * time.Minute

// applyingLocked tells whether a new posture is being applied.
func (h *Helper) applyingLocked() bool {
	return h.ledger.Phase() == systemv1.PostureReport_PHASE_APPLYING
}

// stopMachine restarts the machine or switches it off, once the answer had time to
// leave. Neither opens anything: what comes back is what the ledger says, less SSH's lease.
func (h *Helper) stopMachine(ctx context.Context, who caller.Who, powerOff bool, app string) error {
	if left := stopRest - h.config.Clock(); who == caller.Middleware && left > 0 {
		return helperclient.Errorf(helperclient.CodeBusy, "the machine was started a moment ago, and an App can stop it again in %v",
			left.Round(time.Second))
	}
	if err := h.refuseWhileInstalling(ctx); err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.stopping:
		return helperclient.Errorf(helperclient.CodeBusy, "the machine is stopping already")
	case h.applyingLocked():
		return helperclient.Errorf(helperclient.CodeBusy, "a change of the posture is being applied; try again in a moment")
	}
	target := "reboot.target"
	if powerOff {
		target = "poweroff.target"
	}
	if err := h.laters.Do(func(ctx context.Context) {
		_, err := h.config.Manager.Systemctl(ctx, "--no-block", "--job-mode=replace-irreversibly", "start", target)
		if err == nil || ctx.Err() != nil {
			return
		}
		h.log.Error("the machine could not be stopped", "audit", true, "target", target, "error", err)
		h.mu.Lock()
		h.stopping = false
		h.mu.Unlock()
	}); err != nil {
		return err
	}
	h.stopping = true
	h.log.Warn("the machine is being stopped", "audit", true, "by", who, "app", harmless.Line(harmless.Word(app)), "power_off", powerOff)
	event := &basev1.MachineStoppingEvent{PowerOff: powerOff}
	if app != "" {
		event.By = &basev1.App{Id: app} // the Middleware knows its name
	}
	h.publishLocked(&basev1.Event{Event: &basev1.Event_MachineStopping{MachineStopping: event}})
	return nil
}

// refuseWhileInstalling: a machine that is stopped in the middle of an installation
// may not come back.
func (h *Helper) refuseWhileInstalling(ctx context.Context) error {
	if h.config.Updates != nil {
		j, err := h.config.Updates.Journal()
		if err != nil {
			return updateError(err)
		}
		if j.Phase != "" && !j.Phase.Ended() {
			return helperclient.Errorf(helperclient.CodeBusy, "an update is being installed; wait until it has ended")
		}
	}
	state, err := units.Show(ctx, h.config.Manager, services.DebianUpdatesUnit)
	if err != nil {
		return err
	}
	if state[0].Busy() {
		return helperclient.Errorf(helperclient.CodeBusy, "Debian's updates are being installed; wait until that has ended")
	}
	return nil
}
