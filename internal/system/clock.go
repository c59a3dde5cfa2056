package system

import (
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// BootClock is CLOCK_BOOTTIME: it never goes back, and counts while the machine
// sleeps. Leases are counted on it.
func BootClock() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		panic(fmt.Sprintf("system: read CLOCK_BOOTTIME: %v", err)) // every kernel since 2.6.39 has it
	}
	return time.Duration(ts.Nano())
}

// bootIDFile names this boot, see random(4).
const bootIDFile = "/proc/sys/kernel/random/boot_id"

// ReadBootID returns the id of this boot.
func ReadBootID() (string, error) {
	id, err := os.ReadFile(bootIDFile)
	if err != nil || len(strings.TrimSpace(string(id))) == 0 {
		return "", fmt.Errorf("read the id of this boot from %s: %w", bootIDFile, err)
	}
	return strings.TrimSpace(string(id)), nil
}
