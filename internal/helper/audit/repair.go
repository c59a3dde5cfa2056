package audit

import (
	"context"

	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
)

// The repairs that several kinds share. Their arguments are constants of this module.

// restart restarts a unit, even one that failed too often.
func restart(unit string) func(context.Context, System, Expectation) error {
	return func(ctx context.Context, system System, _ Expectation) error {
		if _, err := ask(ctx, system, systemctl, "reset-failed", unit); err != nil {
			return err
		}
		_, err := ask(ctx, system, systemctl, "restart", unit)
		return err
	}
}

// reload makes a unit read its configuration again, and starts the unit if it is not running.
func reload(unit string) func(context.Context, System, Expectation) error {
	return func(ctx context.Context, system System, _ Expectation) error {
		_, err := ask(ctx, system, systemctl, "reload-or-restart", unit)
		return err
	}
}

// mask stops units and keeps them from being started.
func mask(units ...string) func(context.Context, System, Expectation) error {
	return func(ctx context.Context, system System, _ Expectation) error {
		_, err := ask(ctx, system, append([]string{systemctl, "mask", "--now"}, units...)...)
		return err
	}
}

func reapply(ctx context.Context, system System, _ Expectation) error { return system.Reapply(ctx) }

// repairUnit is the static unit that does the repair of a kind with outside set. Its instance is
// the id.
func repairUnit(id string) string { return "bitbox-base-repair@" + id + ".service" }

// Repair does the work of repairUnit, and only that unit calls it; callers use Fix.
func Repair(ctx context.Context, system System, id string) error {
	k, known := kindOf(id)
	if !known || k.outside == nil {
		return reason.Errorf("repair %q: %w", printable(id), ErrUnknown)
	}
	if err := k.outside(ctx, system); err != nil {
		return reason.Errorf("repair %q: %w", id, err)
	}
	return nil
}
