package api

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"
)

// System tells what the network-facing daemon of the appliance cannot see by
// itself. There the system helper answers; in `bitbox-base dev`, LocalSystem.
type System interface {
	// Addresses returns the Base's IP addresses, without a mask.
	Addresses(ctx context.Context) ([]string, error)
	// Temperature returns degrees Celsius; false if there is no sensor.
	Temperature(ctx context.Context) (celsius float64, ok bool, err error)
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
		return sysinfo{}, fmt.Errorf("ask the kernel for load and memory (sysinfo): %w", err)
	}
	var disk unix.Statfs_t
	if err := unix.Statfs(path, &disk); err != nil {
		return sysinfo{}, fmt.Errorf("ask the kernel for the free space of %s (statfs): %w", path, err)
	}
	meminfo, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return sysinfo{}, fmt.Errorf("read the available memory: %w", err)
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

// parseMemAvailable finds what could be used without swapping, in bytes. What
// sysinfo calls free lacks the caches.
func parseMemAvailable(meminfo []byte) (uint64, error) {
	for line := range bytes.Lines(meminfo) {
		value, found := bytes.CutPrefix(line, []byte("MemAvailable:"))
		if !found {
			continue
		}
		value, found = bytes.CutSuffix(bytes.TrimSpace(value), []byte(" kB"))
		kib, err := strconv.ParseUint(string(value), 10, 54)
		if err != nil || !found {
			return 0, fmt.Errorf("read the available memory: %q in /proc/meminfo is not a number of kB", line)
		}
		return kib << 10, nil
	}
	return 0, errors.New("read the available memory: /proc/meminfo has no MemAvailable")
}

// LocalSystem answers from the process's own view. It is for `bitbox-base dev`,
// which has no system helper.
type LocalSystem struct{}

// Addresses returns the addresses of all interfaces but loopback.
func (LocalSystem) Addresses(context.Context) ([]string, error) {
	all, err := net.InterfaceAddrs()
	if err != nil {
		return nil, fmt.Errorf("list the addresses of this machine: %w", err)
	}
	var addresses []string
	for _, addr := range all {
		if network, ok := addr.(*net.IPNet); ok && !network.IP.IsLoopback() {
			addresses = append(addresses, network.IP.String())
		}
	}
	slices.Sort(addresses)
	return addresses, nil
}

// Temperature returns the highest of the kernel's thermal zones.
func (LocalSystem) Temperature(context.Context) (celsius float64, ok bool, err error) {
	return hottest(os.DirFS("/sys/class/thermal"))
}

// hottest reads files that hold thousandths of a degree. One that cannot be read
// is no sensor: drivers answer with an error while a device sleeps.
func hottest(thermal fs.FS) (celsius float64, ok bool, err error) {
	zones, err := fs.Glob(thermal, "thermal_zone*/temp")
	if err != nil {
		return 0, false, fmt.Errorf("list the thermal sensors: %w", err)
	}
	for _, zone := range zones {
		text, err := fs.ReadFile(thermal, zone)
		if err != nil {
			continue
		}
		milli, err := strconv.ParseInt(string(bytes.TrimSpace(text)), 10, 32)
		if err != nil {
			continue
		}
		if degrees := float64(milli) / 1000; !ok || degrees > celsius {
			celsius, ok = degrees, true
		}
	}
	return celsius, ok, nil
}
