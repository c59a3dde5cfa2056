package api

import (
	"bytes"
	"context"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
)

// Machine tells what the network-facing daemon of the appliance cannot see by itself.
type Machine interface {
	// Machine returns what is known; without an error at least something.
	Machine(ctx context.Context) (*systemv1.MachineInfo, error)
}

// sysinfo is what any process can see of its machine.
type sysinfo struct {
	uptimeSeconds   uint64
	load            [3]float64
	memoryTotal     uint64 // bytes
	memoryAvailable uint64
	diskTotal       uint64
	diskAvailable   uint64
}

// loadScale is what the kernel multiplies load averages with: SI_LOAD_SHIFT of
// linux/sysinfo.h.
const loadScale = 1 << 16

// readSysinfo asks the kernel; path names the file system whose space counts.
func readSysinfo(path string) (sysinfo, error) {
	var si unix.Sysinfo_t
	if err := unix.Sysinfo(&si); err != nil {
		return sysinfo{}, reason.Errorf("ask the kernel for load and memory (sysinfo): %w", err)
	}
	var disk unix.Statfs_t
	if err := unix.Statfs(path, &disk); err != nil {
		return sysinfo{}, reason.Errorf("ask the kernel for the free space of %s (statfs): %w", path, err)
	}
	meminfo, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return sysinfo{}, reason.Errorf("read the available memory: %w", err)
	}
	info := sysinfo{
		uptimeSeconds: uint64(max(0, int64(si.Uptime))),
		memoryTotal:   uint64(si.Totalram) * uint64(si.Unit),
		diskTotal:     disk.Blocks * uint64(disk.Bsize),
		diskAvailable: disk.Bavail * uint64(disk.Bsize),
	}
	for i, load := range si.Loads {
		info.load[i] = float64(load) / loadScale
	}
	info.memoryAvailable, err = parseMemAvailable(meminfo)
	return info, err
}

// parseMemAvailable finds how much memory could be used without swapping, in bytes. sysinfo's
// free memory excludes the caches.
func parseMemAvailable(meminfo []byte) (uint64, error) {
	for line := range bytes.Lines(meminfo) {
		value, found := bytes.CutPrefix(line, []byte("MemAvailable:"))
		if !found {
			continue
		}
		value, found = bytes.CutSuffix(bytes.TrimSpace(value), []byte(" kB"))
		kib, err := strconv.ParseUint(string(value), 10, 54)
		if err != nil || !found {
			return 0, reason.Errorf("read the available memory: %q in /proc/meminfo is not a number of kB", line)
		}
		return kib << 10, nil
	}
	return 0, reason.New("read the available memory: /proc/meminfo has no MemAvailable")
}
