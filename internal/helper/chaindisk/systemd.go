package chaindisk

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/coreos/go-systemd/v22/dbus"

	"github.com/BitBoxSwiss/bitbox-base/internal/atomicfile"
	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
)

// unitDirectory is where units are that last until the machine stops.
const unitDirectory = "/run/systemd/system"

// mountTime bounds a mount, in seconds: a journal that was not closed is replayed.
const mountTime = 300

// mountUnit is the unit that mounts the disk of the chain. With it the node stops if the disk is
// pulled out: systemd knows that the one needs the other by their paths.
func mountUnit(device string) string {
	return fmt.Sprintf(`[Unit]
Description=BitBox Base: disk of the chain
[Mount]
What=%s
Where=%s
Type=ext4
Options=%s
TimeoutSec=%d
`, device, MountPoint, MountOptions, mountTime)
}

// MountBySystemd implements Keeper.Mount. It mounts the device that was checked: the name by UUID may
// be that of a stick which says that it has the same UUID.
func MountBySystemd(ctx context.Context, device string) error {
	conn, err := dbus.NewSystemdConnectionContext(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	path, text := filepath.Join(unitDirectory, MountUnit), mountUnit(device)
	before, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if string(before) != text {
		if err := atomicfile.WriteFileAtomic(path, []byte(text), 0o644); err != nil {
			return err
		}
		if err := conn.ReloadContext(ctx); err != nil {
			return err
		}
	}
	return job(ctx, MountUnit, conn.StartUnitContext)
}

// LookBySystemd implements Keeper.Look.
func LookBySystemd(ctx context.Context) error {
	conn, err := dbus.NewSystemdConnectionContext(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	return job(ctx, LookUnit, conn.StartUnitContext)
}

// UnmountBySystemd implements Keeper.Unmount.
func UnmountBySystemd(ctx context.Context) error {
	conn, err := dbus.NewSystemdConnectionContext(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	return job(ctx, MountUnit, conn.StopUnitContext)
}

// job has systemd start or stop a unit, and waits for the end.
func job(ctx context.Context, unit string, begin func(ctx context.Context, name, mode string, ended chan<- string) (int, error)) error {
	ended := make(chan string, 1)
	if _, err := begin(ctx, unit, "replace", ended); err != nil {
		return err
	}
	select {
	case result := <-ended:
		if result != "done" {
			return reason.Errorf("systemd's job ended with '%s'; its journal says more", result)
		}
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
