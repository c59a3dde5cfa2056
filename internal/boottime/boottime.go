// Package boottime tells how long the machine has been running, and identifies the boot.
package boottime

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
)

// Clock is CLOCK_BOOTTIME: it never goes back, and counts while the machine
// sleeps. Leases are counted on it.
func Clock() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		panic(fmt.Sprintf("boottime: read CLOCK_BOOTTIME: %v", err)) // every kernel since 2.6.39 has it
	}
	return time.Duration(ts.Nano())
}

// Files that name this boot. The first is in /run, so it disappears with the boot; systemd makes
// it (tmpfiles.d). The second is the kernel's (random(4)): in a container, a service with its own
// /proc sees the host's, and would miss the container's reboots.
const (
	idFile       = "/run/bitbox-base/boot-id"
	kernelIDFile = "/proc/sys/kernel/random/boot_id"
)

// ID returns the id of this boot.
func ID() (string, error) { return readID(idFile, kernelIDFile) }

func readID(files ...string) (string, error) {
	var id []byte
	err := error(fs.ErrNotExist)
	for _, file := range files {
		if id, err = os.ReadFile(file); !errors.Is(err, fs.ErrNotExist) {
			break
		}
	}
	text := strings.ReplaceAll(strings.TrimSpace(string(id)), "-", "")
	if err == nil && text == "" {
		err = reason.New("it is empty")
	}
	if err != nil {
		return "", reason.Errorf("read the id of this boot from %s: %w", strings.Join(files, " or "), err)
	}
	return text, nil
}
