//go:build linux

// Package image does what an update asks of a machine that runs the image.
package image

import (
	"context"
	"os"
	"runtime"
	"strings"

	"github.com/BitBoxSwiss/bitbox-base/internal/helper/slot"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/update"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/update/debian"
	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
)

// bootID is the file with the id of this start of the machine.
const bootID = "/proc/sys/kernel/random/boot_id"

// Machine is this machine. It implements update.ImageHost.
type Machine struct {
	// Debian looks at the services, and speaks to systemd.
	Debian debian.Machine
}

// Architecture implements update.Machine, as do the next four.
func (m Machine) Architecture(context.Context) (string, error) { return runtime.GOARCH, nil }

// Installed is the version that runs.
func (m Machine) Installed(context.Context) (string, error) {
	running, err := slot.Look()
	return running.Version, err
}

// IsImage is true.
func (m Machine) IsImage() bool { return true }

// Describe is for packages, which an image does not take.
func (m Machine) Describe(context.Context, string) (update.Package, error) {
	return update.Package{}, reason.New("the image takes no package")
}

// Start starts the unit that looks after the slots.
func (m Machine) Start(ctx context.Context) error { return m.Debian.StartUnit(ctx, update.SlotsUnit) }

// Look tells how the Base is.
func (m Machine) Look(ctx context.Context) (update.Condition, error) { return m.Debian.Look(ctx) }

// Oldest asks the system helper.
func (m Machine) Oldest(ctx context.Context) (string, error) {
	health, err := m.Debian.Health(ctx)
	if err != nil {
		return "", reason.Errorf("ask which version is the oldest that is allowed: %w", err)
	}
	return health.GetOldestVersion(), nil
}

// BootID is the kernel's.
func (m Machine) BootID() (string, error) {
	b, err := os.ReadFile(bootID)
	if err != nil {
		return "", reason.Errorf("ask which start of the machine this is: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
}

// Reboot does not wait.
func (m Machine) Reboot(ctx context.Context) error { return m.Debian.Reboot(ctx) }
