package host

import (
	"context"
	"slices"
	"time"

	"github.com/coreos/go-systemd/v22/dbus"

	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
)

// jobs are the requests to systemd about a unit, by the names of systemctl(1).
var jobs = map[string]func(*dbus.Conn, context.Context, string, string, chan<- string) (int, error){
	"start":   (*dbus.Conn).StartUnitContext,
	"restart": (*dbus.Conn).RestartUnitContext,
	"stop":    (*dbus.Conn).StopUnitContext,
	// A unit that is not running stays stopped.
	"try-reload-or-restart": (*dbus.Conn).ReloadOrTryRestartUnitContext,
	"reload-or-restart":     (*dbus.Conn).ReloadOrRestartUnitContext,
}

// systemd talks to systemd over its own socket. That needs no new process, so it works even when
// none can be started.
func (m Host) systemd(ctx context.Context, what string, do func(context.Context, *dbus.Conn) error) error {
	conn, err := dbus.NewSystemdConnectionContext(ctx)
	if err == nil {
		defer conn.Close()
		err = do(ctx, conn)
	}
	if err != nil {
		return reason.Errorf("have systemd %s: %w", what, err)
	}
	return nil
}

// unit makes systemd do a job for units, one after the other, and waits for each.
func (m Host) unit(ctx context.Context, job string, units ...string) error {
	return m.unitWithin(ctx, stepTime, job, units...)
}

// unitWithin is unit for jobs that take their time.
func (m Host) unitWithin(ctx context.Context, limit time.Duration, job string, units ...string) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for _, unit := range units {
		if err := m.AwaitClosing(ctx); err != nil {
			return err
		}
		if err := m.systemd(ctx, job+" "+unit, func(ctx context.Context, conn *dbus.Conn) error {
			ended := make(chan string, 1)
			if _, err := jobs[job](conn, ctx, unit, "replace", ended); err != nil {
				return err
			}
			select {
			case result := <-ended:
				return jobResult(result)
			case <-ctx.Done():
				return ctx.Err()
			}
		}); err != nil {
			return err
		}
	}
	return nil
}

// jobResult is nil for the results of a job that systemctl counts as success.
func jobResult(result string) error {
	if result == "done" || result == "skipped" {
		return nil
	}
	return reason.New("its job ended with '" + result + "'; its journal says more")
}

// active tells whether a unit is running. If that cannot be known, the answer is no.
func (m Host) active(ctx context.Context, unit string) bool { return m.state(ctx, unit) == "active" }

// state is the ActiveState of a unit (org.freedesktop.systemd1(5)); empty if it is not known.
func (m Host) state(ctx context.Context, unit string) (state string) {
	_ = m.systemd(ctx, "tell the state of "+unit, func(ctx context.Context, conn *dbus.Conn) error {
		property, err := conn.GetUnitPropertyContext(ctx, unit, "ActiveState")
		if err == nil {
			state, _ = property.Value.Value().(string)
		}
		return err
	})
	return state
}

// Unmet implements units.Conditions.
func (m Host) Unmet(ctx context.Context, unit string) (unmet []string, err error) {
	err = m.systemd(ctx, "tell the conditions of "+unit, func(ctx context.Context, conn *dbus.Conn) error {
		for _, name := range []string{"Conditions", "Asserts"} {
			property, err := conn.GetUnitPropertyContext(ctx, unit, name)
			if err != nil {
				return err
			}
			var conditions []condition
			if err := property.Value.Store(&conditions); err != nil {
				return err
			}
			unmet = append(unmet, unmetOf(conditions)...)
		}
		return nil
	})
	return unmet, err
}

// condition is one entry of the properties Conditions and Asserts (org.freedesktop.systemd1(5)).
type condition struct {
	Type             string
	Trigger, Negated bool
	Parameter        string
	// State is above 0 if the condition was met, below if not, and 0 if it was not checked.
	State int32
}

// unmetOf returns the conditions that kept a unit from starting. One of those that are no triggers is
// enough for that. Of the triggers none must be met.
func unmetOf(conditions []condition) []string {
	var unmet, triggers []string
	for _, c := range conditions {
		text := c.Parameter
		if c.Negated {
			text = "!" + text
		}
		switch {
		case c.State >= 0:
		case c.Trigger:
			triggers = append(triggers, c.Type+"=|"+text)
		default:
			unmet = append(unmet, c.Type+"="+text)
		}
	}
	if len(unmet) == 0 && !slices.ContainsFunc(conditions, func(c condition) bool { return c.Trigger && c.State > 0 }) {
		return triggers
	}
	return unmet
}
