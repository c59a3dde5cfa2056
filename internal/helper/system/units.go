package system

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/atomicfile"
	"github.com/BitBoxSwiss/bitbox-base/internal/harmless"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/caller"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/services"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/units"
	"github.com/BitBoxSwiss/bitbox-base/internal/helperclient"
)

// changeTime is how long a service may take to start or stop until the answer says
// that it is still at it.
const changeTime = 20 * time.Second

// restartRest is how long after a restart of what must not be stopped an App cannot restart
// it again. Otherwise who does so again and again has as good as stopped it: bans do not
// stand while fail2ban starts, and no owner gets in to lock the Base down while the entry does.
const restartRest = 2 * time.Minute

func (h *Helper) listServices(ctx context.Context) ([]*basev1.Service, error) {
	states, err := units.Show(ctx, h.config.Manager, h.config.Services.Units()...)
	if err != nil {
		return nil, err
	}
	var list []*basev1.Service
	for i, s := range h.config.Services {
		list = append(list, units.Describe(s, states[i], h.disabled(s)))
	}
	return list, nil
}

// marker is the file that says that a service is switched off.
func (h *Helper) marker(s services.Service) string {
	return filepath.Join(h.config.Directory, filepath.Base(services.DisabledDirectory), filepath.Base(s.Marker()))
}

// disabled tells whether a service is switched off. What cannot be known is not off.
func (h *Helper) disabled(s services.Service) bool {
	if !s.May(basev1.ServiceAction_SERVICE_ACTION_DISABLE) {
		return false
	}
	_, err := os.Lstat(h.marker(s))
	return err == nil
}

// setDisabled is on disk when it returns nil.
func (h *Helper) setDisabled(s services.Service, off bool) error {
	marker := h.marker(s)
	directory := filepath.Dir(marker)
	err := os.Mkdir(directory, 0o755)
	switch {
	case err == nil:
		err = atomicfile.SyncDir(filepath.Dir(directory))
	case errors.Is(err, fs.ErrExist):
		err = nil
	}
	if err == nil {
		err = h.config.Failpoint("mark service")
	}
	if err == nil && off {
		err = atomicfile.WriteFileAtomic(marker, nil, 0o644)
	} else if err == nil {
		if err = os.Remove(marker); errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
		if err == nil {
			err = atomicfile.SyncDir(directory)
		}
	}
	if err != nil {
		return helperclient.Errorf(helperclient.CodeStorage, "store that %s is %s: %w; nothing has changed", s.Name,
			map[bool]string{true: "off", false: "on"}[off], err)
	}
	return nil
}

// actionVerbs are the words of systemctl and of people for each action.
var actionVerbs = map[basev1.ServiceAction]struct{ systemctl, word string }{
	basev1.ServiceAction_SERVICE_ACTION_START:   {"start", "start"},
	basev1.ServiceAction_SERVICE_ACTION_STOP:    {"stop", "stop"},
	basev1.ServiceAction_SERVICE_ACTION_RESTART: {"restart", "restart"},
	basev1.ServiceAction_SERVICE_ACTION_ENABLE:  {"start", "enable"},
	basev1.ServiceAction_SERVICE_ACTION_DISABLE: {"stop", "disable"},
}

// allowedService finds a service and an action in the table, or says what there is.
func (h *Helper) allowedService(name string, action basev1.ServiceAction) (services.Service, error) {
	s, found := h.config.Services.Find(name)
	if !found {
		return s, helperclient.Errorf(helperclient.CodeInvalid, "there is no service %q here; it is one of %s", harmless.Word(name),
			strings.Join(h.config.Services.Names(), ", "))
	}
	if s.May(action) {
		return s, nil
	}
	var may []string
	for _, allowed := range s.Actions {
		may = append(may, actionVerbs[allowed].word)
	}
	if len(may) == 0 {
		return s, helperclient.Errorf(helperclient.CodeInvalid,
			"nothing can be done to %s from an App: it keeps the Base closed, or has another way to be switched", s.Name)
	}
	return s, helperclient.Errorf(helperclient.CodeInvalid, "an App can %s %s, and nothing else", strings.Join(may, " or "), s.Name)
}

// changeService does one thing to one service of the table, and returns what it is then.
func (h *Helper) changeService(ctx context.Context, who caller.Who, name string, action basev1.ServiceAction) ([]*basev1.Service, error) {
	s, err := h.allowedService(name, action)
	if err != nil {
		return nil, err
	}
	if err := h.serviceTurn.Take(ctx); err != nil {
		return nil, err
	}
	defer h.serviceTurn.End()
	state, err := units.Show(ctx, h.config.Manager, s.Unit)
	if err != nil {
		return nil, err
	}
	switch u := state[0]; {
	case u["Id"] != s.Unit:
		// A link with this name leads to another unit, which is not in the table.
		return nil, helperclient.Errorf(helperclient.CodeRefused,
			"the unit of %s is another one's name on this machine (%s), so it is left alone", s.Name, harmless.Line(harmless.Word(u["Id"])))
	case u["LoadState"] == "not-found":
		return nil, helperclient.Errorf(helperclient.CodeRefused, "%s is not installed on this machine", s.Name)
	}
	if err := h.refuseWhileApplying(); err != nil {
		return nil, err
	}
	if who == caller.Middleware && action == basev1.ServiceAction_SERVICE_ACTION_RESTART && !s.May(basev1.ServiceAction_SERVICE_ACTION_STOP) {
		at, before := h.restarted[s.Name]
		if left := at + restartRest - h.config.Clock(); before && left > 0 {
			return nil, helperclient.Errorf(helperclient.CodeBusy, "%s was restarted a moment ago, and an App can restart it again in %v", s.Name,
				left.Round(time.Second))
		}
		h.restarted[s.Name] = h.config.Clock()
	}
	verb := actionVerbs[action]
	switch action {
	case basev1.ServiceAction_SERVICE_ACTION_ENABLE, basev1.ServiceAction_SERVICE_ACTION_DISABLE:
		if err := h.setDisabled(s, action == basev1.ServiceAction_SERVICE_ACTION_DISABLE); err != nil {
			return nil, err
		}
	case basev1.ServiceAction_SERVICE_ACTION_START, basev1.ServiceAction_SERVICE_ACTION_RESTART:
		if h.disabled(s) {
			return nil, helperclient.Errorf(helperclient.CodeRefused, "%s is switched off; enable it, which starts it too", s.Name)
		}
	}
	h.log.Info("a service is being changed", "audit", true, "service", s.Name, "action", verb.word)
	cuts := s.CutsCaller && action == basev1.ServiceAction_SERVICE_ACTION_RESTART
	if cuts {
		err = h.laters.Do(func(ctx context.Context) {
			if _, err := h.config.Manager.Systemctl(ctx, "--no-block", verb.systemctl, s.Unit); err != nil {
				h.log.Error("a service could not be restarted", "service", s.Name, "error", err)
			}
		})
	} else {
		err = h.waitForService(ctx, s, verb.systemctl)
	}
	if err != nil {
		return nil, err
	}
	if state, err = units.Show(ctx, h.config.Manager, s.Unit); err != nil {
		return nil, err
	}
	now := units.Describe(s, state[0], h.disabled(s))
	if cuts {
		now.State = basev1.Service_STATE_STARTING // in a moment
	}
	if now.GetState() == basev1.Service_STATE_FAILED && verb.systemctl != "stop" {
		return nil, helperclient.Errorf(helperclient.CodeInternal, "%s did not start: %s; its log says more", s.Name, now.GetReason())
	}
	return []*basev1.Service{now}, nil
}

// waitForService has systemd do something, and waits a while for it to be done. That
// it was not done by then is no error: the state will say so.
func (h *Helper) waitForService(ctx context.Context, s services.Service, verb string) error {
	waiting, cancel := context.WithTimeout(ctx, changeTime)
	defer cancel()
	_, err := h.config.Manager.Systemctl(waiting, verb, s.Unit)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err == nil || waiting.Err() != nil:
		return nil
	}
	state, showErr := units.Show(ctx, h.config.Manager, s.Unit)
	if showErr == nil && state[0]["ActiveState"] == "failed" {
		return nil // its own reason is the better sentence
	}
	return helperclient.Errorf(helperclient.CodeInternal, "systemd did not %s %s: %w", verb, s.Name, err)
}

// refuseWhileApplying: the posture's own work starts and stops the same units.
func (h *Helper) refuseWhileApplying() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.applyingLocked() {
		return helperclient.Errorf(helperclient.CodeBusy, "a change of the posture is being applied; try again in a moment")
	}
	return nil
}
