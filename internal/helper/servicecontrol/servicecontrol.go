// Package servicecontrol lists the services of the one table (internal/helper/services), and
// starts, stops, restarts them and switches them off, as far as the table lets an App.
package servicecontrol

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/atomicfile"
	"github.com/BitBoxSwiss/bitbox-base/internal/failpoint"
	"github.com/BitBoxSwiss/bitbox-base/internal/harmless"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/caller"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/services"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/turns"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/units"
	"github.com/BitBoxSwiss/bitbox-base/internal/helperclient"
)

// changeTime is how long a service may take to start or stop until the answer says
// that it is still at it.
const changeTime = 20 * time.Second

// RestartRest is how long after a restart of what must not be stopped an App cannot restart
// it again. Otherwise an App that does so again and again would in effect stop it: bans do not
// stand while fail2ban starts, and no owner gets in to lock the Base down while the entry does.
const RestartRest = 2 * time.Minute

// Control has systemd do something with services.
type Control struct {
	config Config

	now *turns.Shared[[]*basev1.Service] // asked for all who want to know at the same time
	// restarted is when an App has restarted a service, by its name, on the boot-time clock.
	restarted map[string]time.Duration
}

// Systemd starts and stops units, and knows why it did not.
type Systemd interface {
	units.Manager
	units.Conditions
}

// Config is what a Control is made of.
type Config struct {
	Systemd   Systemd
	Table     services.Table
	Directory string // the helper's
	// Applying tells whether a posture is being applied, which starts and stops the same units.
	Applying func() bool
	// Turn is held while a service is changed; it guards Control.restarted.
	Turn  turns.Turn
	Later turns.Later
	Clock func() time.Duration // the boot-time clock
	Log   *slog.Logger
}

// New returns a Control.
func New(c Config) *Control {
	control := &Control{config: c, restarted: map[string]time.Duration{}}
	control.now = turns.NewShared(control.Services)
	return control
}

// List answers with all services.
func (c *Control) List(ctx context.Context, _ *caller.Call, _ *systemv1.ListServices) (*systemv1.SystemReply, error) {
	return reply(c.now.Get(ctx))
}

func reply(list []*basev1.Service, err error) (*systemv1.SystemReply, error) {
	if err != nil {
		return nil, err
	}
	return &systemv1.SystemReply{Result: &systemv1.SystemReply_Services{Services: &systemv1.ServicesResult{Services: list}}}, nil
}

// Services asks systemd for all services.
func (c *Control) Services(ctx context.Context) ([]*basev1.Service, error) {
	states, err := units.Show(ctx, c.config.Systemd, c.config.Table.Units()...)
	if err != nil {
		return nil, err
	}
	var list []*basev1.Service
	for i, s := range c.config.Table {
		list = append(list, units.Describe(s, states[i], c.disabled(s)))
	}
	return list, nil
}

// marker is the file that says that a service is switched off.
func (c *Control) marker(s services.Service) string {
	return filepath.Join(c.config.Directory, filepath.Base(services.DisabledDirectory), filepath.Base(s.Marker()))
}

// disabled tells whether a service is switched off. It is false if that is unknown.
func (c *Control) disabled(s services.Service) bool {
	if !s.May(basev1.ServiceAction_SERVICE_ACTION_DISABLE) {
		return false
	}
	_, err := os.Lstat(c.marker(s))
	return err == nil
}

// setDisabled is on disk when it returns nil.
func (c *Control) setDisabled(s services.Service, off bool) error {
	marker := c.marker(s)
	directory := filepath.Dir(marker)
	err := os.Mkdir(directory, 0o755)
	switch {
	case err == nil:
		err = atomicfile.SyncDir(filepath.Dir(directory))
	case errors.Is(err, fs.ErrExist):
		err = nil
	}
	if err == nil {
		err = failpoint.Reach("mark service")
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
func (c *Control) allowedService(name string, action basev1.ServiceAction) (services.Service, error) {
	s, found := c.config.Table.Find(name)
	if !found {
		return s, helperclient.Errorf(helperclient.CodeInvalid, "there is no service %q here; it is one of %s", harmless.Word(name),
			strings.Join(c.config.Table.Names(), ", "))
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

// Change does one thing to one service of the table, and answers what it is then.
func (c *Control) Change(ctx context.Context, by *caller.Call, request *systemv1.ChangeService) (*systemv1.SystemReply, error) {
	return reply(c.change(ctx, by.Who, request.GetName(), request.GetAction()))
}

func (c *Control) change(ctx context.Context, who caller.Who, name string, action basev1.ServiceAction) ([]*basev1.Service, error) {
	s, err := c.allowedService(name, action)
	if err != nil {
		return nil, err
	}
	if err := c.config.Turn.Take(ctx); err != nil {
		return nil, err
	}
	defer c.config.Turn.End()
	state, err := units.Show(ctx, c.config.Systemd, s.Unit)
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
	if c.config.Applying() {
		return nil, helperclient.Errorf(helperclient.CodeBusy, "a change of the posture is being applied; try again in a moment")
	}
	if who == caller.Middleware && action == basev1.ServiceAction_SERVICE_ACTION_RESTART && !s.May(basev1.ServiceAction_SERVICE_ACTION_STOP) {
		at, before := c.restarted[s.Name]
		if left := at + RestartRest - c.config.Clock(); before && left > 0 {
			return nil, helperclient.Errorf(helperclient.CodeBusy, "%s was restarted a moment ago, and an App can restart it again in %v", s.Name,
				left.Round(time.Second))
		}
		c.restarted[s.Name] = c.config.Clock()
	}
	verb := actionVerbs[action]
	switch action {
	case basev1.ServiceAction_SERVICE_ACTION_ENABLE, basev1.ServiceAction_SERVICE_ACTION_DISABLE:
		if err := c.setDisabled(s, action == basev1.ServiceAction_SERVICE_ACTION_DISABLE); err != nil {
			return nil, err
		}
	case basev1.ServiceAction_SERVICE_ACTION_START, basev1.ServiceAction_SERVICE_ACTION_RESTART:
		if c.disabled(s) {
			return nil, helperclient.Errorf(helperclient.CodeRefused, "%s is switched off; enable it, which starts it too", s.Name)
		}
	}
	c.config.Log.Info("a service is being changed", "audit", true, "service", s.Name, "action", verb.word)
	cuts := s.CutsCaller && action == basev1.ServiceAction_SERVICE_ACTION_RESTART
	if cuts {
		err = c.config.Later.Do(func(ctx context.Context) {
			if _, err := c.config.Systemd.Systemctl(ctx, "--no-block", verb.systemctl, s.Unit); err != nil {
				c.config.Log.Error("a service could not be restarted", "service", s.Name, "error", err)
			}
		})
	} else {
		err = c.waitForService(ctx, s, verb.systemctl)
	}
	if err != nil {
		return nil, err
	}
	if state, err = units.Show(ctx, c.config.Systemd, s.Unit); err != nil {
		return nil, err
	}
	now := units.Describe(s, state[0], c.disabled(s))
	if cuts {
		now.State = basev1.Service_STATE_STARTING // in a moment
	}
	if now.GetState() == basev1.Service_STATE_STOPPED && verb.systemctl != "stop" && state[0].Refused() {
		reasons, err := units.Unmet(ctx, c.config.Systemd, s)
		if err != nil {
			return nil, helperclient.Errorf(helperclient.CodeInternal, "%w", err)
		}
		return nil, helperclient.Errorf(helperclient.CodeRefused, "%s did not start: %s", s.Name, reasons)
	}
	if now.GetState() == basev1.Service_STATE_FAILED && verb.systemctl != "stop" {
		return nil, helperclient.Errorf(helperclient.CodeInternal, "%s did not start: %s; its log says more", s.Name, now.GetReason())
	}
	return []*basev1.Service{now}, nil
}

// waitForService has systemd do something, and waits a while for it to be done. That
// it was not done by then is no error: the state will say so.
func (c *Control) waitForService(ctx context.Context, s services.Service, verb string) error {
	waiting, cancel := context.WithTimeout(ctx, changeTime)
	defer cancel()
	_, err := c.config.Systemd.Systemctl(waiting, verb, s.Unit)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err == nil || waiting.Err() != nil:
		return nil
	}
	state, showErr := units.Show(ctx, c.config.Systemd, s.Unit)
	if showErr == nil && state[0]["ActiveState"] == "failed" {
		return nil // its own reason is the better sentence
	}
	return helperclient.Errorf(helperclient.CodeInternal, "systemd did not %s %s: %w", verb, s.Name, err)
}
