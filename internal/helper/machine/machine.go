// Package machine answers what is known of the machine, sets its time zone, restarts it and
// switches it off.
package machine

import (
	"context"
	"log/slog"
	"math"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/caller"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/events"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/timezone"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/turns"
	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
)

// thermalZones is where the kernel tells temperatures, in thousandths of a degree
// (Documentation/driver-api/thermal/sysfs-api.rst).
const thermalZones = "/sys/class/thermal/thermal_zone*/temp"

// Systemd is systemd, as far as it is asked here.
type Systemd interface {
	Systemctl(ctx context.Context, arguments ...string) (string, error)
}

// Machine is the machine.
type Machine struct {
	config Config
	// Refuse says why the machine may not be stopped now; each is asked in turn.
	Refuse []func(ctx context.Context) error

	mu       sync.Mutex
	stopping bool // the machine restarts, or is being switched off
}

// Config is what a Machine is made of.
type Config struct {
	Systemd Systemd
	Zone    timezone.Place
	// Reading is held while systemd reloads its units: it does nothing else meanwhile.
	Reading turns.Turn
	Name    func() string // of the Base
	// Disks tells what is wrong with disks, and how that of the chain is.
	Disks  func() (troubles []string, chain *basev1.ChainDisk)
	Later  turns.Later
	Events *events.Hub
	Clock  func() time.Duration // the boot-time clock
	Log    *slog.Logger
}

// New returns a Machine.
func New(c Config) *Machine { return &Machine{config: c} }

// Get answers what the Middleware cannot see by itself.
func (m *Machine) Get(context.Context, *caller.Call, *systemv1.GetMachine) (*systemv1.SystemReply, error) {
	info := &systemv1.MachineInfo{Addresses: Addresses(), NodeName: m.config.Name(), TimeZone: m.config.Zone.Current()}
	info.DiskTroubles, info.ChainDisk = m.config.Disks()
	if celsius, ok := temperature(); ok {
		info.TemperatureCelsius = &celsius
	}
	return &systemv1.SystemReply{Result: &systemv1.SystemReply_Machine{Machine: info}}, nil
}

// Addresses are those of the machine, without those of loopback.
func Addresses() (list []string) {
	addresses, _ := net.InterfaceAddrs() // unknown ones are not shown
	for _, address := range addresses {
		if ip, ok := address.(*net.IPNet); ok && !ip.IP.IsLoopback() {
			list = append(list, ip.IP.String())
		}
	}
	return list
}

// DiskSpace asks for the file system of a path, in bytes.
func DiskSpace(path string) (total, available uint64, err error) {
	var disk unix.Statfs_t
	if err := unix.Statfs(path, &disk); err != nil {
		return 0, 0, reason.Errorf("ask for the free space of %s: %w", path, err)
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
