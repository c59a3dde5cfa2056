package audit

import (
	"context"
	"fmt"
)

// The repairs that several kinds share. Their arguments are constants of this
// module.

// restart restarts a unit, also one that failed too often.
func restart(unit string) func(context.Context, System, Expectation) error {
	return func(ctx context.Context, system System, _ Expectation) error {
		if _, err := ask(ctx, system, systemctl, "reset-failed", unit); err != nil {
			return err
		}
		_, err := ask(ctx, system, systemctl, "restart", unit)
		return err
	}
}

// reload makes a unit read its configuration anew, and starts it if it does not run.
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

// repairUnit is the static unit that does one of the repairs in outsideRepairs, whose id is
// its instance.
func repairUnit(id string) string { return "bitbox-base-repair@" + id + ".service" }

// outsideRepairs are those that write where the system helper's own sandbox does not
// let it. They need no posture.
var outsideRepairs = map[string]func(context.Context, System) error{}

// outside registers a repair that a unit of its own does, and returns what
// starts that unit.
func outside(id string, repair func(context.Context, System) error) func(context.Context, System, Expectation) error {
	outsideRepairs[id] = repair
	return func(ctx context.Context, system System, _ Expectation) error {
		_, err := ask(ctx, system, systemctl, "start", repairUnit(id))
		return err
	}
}

// Repair does the work of repairUnit. It is for that unit alone: what may be
// asked for is Fix.
func Repair(ctx context.Context, system System, id string) error {
	repair, known := outsideRepairs[id]
	if !known {
		return fmt.Errorf("repair %q: %w", printable(id), ErrUnknown)
	}
	if err := repair(ctx, system); err != nil {
		return fmt.Errorf("repair %q: %w", id, err)
	}
	return nil
}
