package system

import (
	"fmt"
	"math"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
)

// thermalZones is where the kernel tells temperatures, in thousandths of a degree
// (Documentation/driver-api/thermal/sysfs-api.rst).
const thermalZones = "/sys/class/thermal/thermal_zone*/temp"

// machineInfo is what the Middleware cannot see by itself.
func machineInfo() *systemv1.MachineInfo {
	info := &systemv1.MachineInfo{}
	addresses, err := net.InterfaceAddrs()
	if err == nil {
		for _, address := range addresses {
			if ip, ok := address.(*net.IPNet); ok && !ip.IP.IsLoopback() {
				info.Addresses = append(info.Addresses, ip.IP.String())
			}
		}
	}
	if celsius, ok := temperature(); ok {
		info.TemperatureCelsius = &celsius
	}
	return info
}

// machine adds what the helper decides.
func (h *Helper) machine() *systemv1.MachineInfo {
	info := machineInfo()
	if h.config.Manager != nil {
		info.TimeZone = h.config.TimeZone.Current()
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	info.NodeName = h.inForceLocked().NodeName
	return info
}

// diskSpace asks for the file system of a path, in bytes.
func diskSpace(path string) (total, available uint64, err error) {
	var disk unix.Statfs_t
	if err := unix.Statfs(path, &disk); err != nil {
		return 0, 0, fmt.Errorf("ask for the free space of %s: %w", path, err)
	}
	return disk.Blocks * uint64(disk.Bsize), disk.Bavail * uint64(disk.Bsize), nil
}

// temperature is that of the hottest zone.
func temperature() (celsius float64, ok bool) {
	zones, err := filepath.Glob(thermalZones)
	if err != nil {
		return 0, false
	}
	celsius = math.Inf(-1)
	for _, zone := range zones {
		text, err := os.ReadFile(zone)
		if err != nil {
			continue
		}
		if thousandths, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 32); err == nil {
			celsius, ok = max(celsius, float64(thousandths)/1000), true
		}
	}
	return celsius, ok
}
