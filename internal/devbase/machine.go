package devbase

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"net"
	"os"
	"slices"
	"strconv"

	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/timezone"
)

// localMachine reports what this process sees, because there is no system helper.
type localMachine struct{}

// Machine returns the addresses of all interfaces but loopback, the time zone, and the
// highest of the kernel's thermal zones.
func (localMachine) Machine(context.Context) (*systemv1.MachineInfo, error) {
	all, err := net.InterfaceAddrs()
	if err != nil {
		return nil, fmt.Errorf("list the addresses of this machine: %w", err)
	}
	machine := &systemv1.MachineInfo{TimeZone: timezone.At("/").Current()}
	for _, addr := range all {
		if network, ok := addr.(*net.IPNet); ok && !network.IP.IsLoopback() {
			machine.Addresses = append(machine.Addresses, network.IP.String())
		}
	}
	slices.Sort(machine.Addresses)
	celsius, ok, err := hottest(os.DirFS("/sys/class/thermal"))
	if ok {
		machine.TemperatureCelsius = &celsius
	}
	return machine, err
}

// hottest reads files with thousandths of a degree. It skips a file that cannot be read: drivers
// answer with an error while a device sleeps.
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
