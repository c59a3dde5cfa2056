package audit

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"

	"github.com/BitBoxSwiss/bitbox-base/internal/helper/generation"
)

// checkNGINX checks the running processes: which configuration the master was given, and that no
// process is privileged.
//
// It does not use `nginx -T`. That shows the files, and the only file there includes no other and
// is compared byte for byte (generation.go). It would also have to listen and to write where the
// audit may not.
func checkNGINX(ctx context.Context, system System, _ Expectation) ([]difference, error) {
	units, err := showUnits(ctx, system, generation.ProxyUnit)
	if err != nil {
		return nil, err
	}
	master := units[0].Number("MainPID")
	if master == 0 {
		return nil, nil // checkUnits reports it when NGINX is not running
	}
	commandLine, err := system.ReadFile(fmt.Sprintf("/proc/%d/cmdline", master))
	if err != nil {
		return nil, err
	}
	var differences []difference
	if config := configOf(string(commandLine)); config != generation.Current(generation.ProxyConfig) {
		differences = append(differences, difference{id: idNGINXConfig, found: []string{fmt.Sprintf("process %d was given %q", master, config)}})
	}
	workers, err := system.ReadFile(fmt.Sprintf("/proc/%[1]d/task/%[1]d/children", master))
	if err != nil {
		return nil, err
	}
	var privileged []string
	for _, pid := range append([]string{strconv.FormatUint(master, 10)}, strings.Fields(string(workers))...) {
		status, err := system.ReadFile("/proc/" + pid + "/status")
		if errors.Is(err, fs.ErrNotExist) {
			continue // a worker from before a reload has just ended
		}
		if err != nil {
			return nil, err
		}
		for _, fault := range parseStatus(string(status)).privileges() {
			privileged = append(privileged, fmt.Sprintf("process %s %s", pid, fault))
		}
	}
	if privileged != nil {
		differences = append(differences, difference{id: idNGINXPrivileged, found: privileged})
	}
	return differences, nil
}

// configOf returns the argument of -c. The NGINX master overwrites its arguments, with blanks:
// "nginx: master process /usr/sbin/nginx -c FILE".
func configOf(commandLine string) string {
	arguments := strings.FieldsFunc(commandLine, func(r rune) bool { return r == 0 || r == ' ' })
	if i := slices.Index(arguments, "-c"); i >= 0 && i+1 < len(arguments) {
		return arguments[i+1]
	}
	return ""
}

// status is what /proc/PID/status says about the privileges of a process.
type status struct {
	uids []string
	// capabilities are those that it has or could get, in hexadecimal.
	capabilities map[string]uint64
	noNewPrivs   bool
	seccomp      bool
}

func parseStatus(text string) status {
	s := status{capabilities: map[string]uint64{}}
	for line := range strings.Lines(text) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		value = strings.TrimSpace(value)
		switch key {
		case "Uid":
			s.uids = strings.Fields(value)
		case "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb":
			number, err := strconv.ParseUint(value, 16, 64)
			if err != nil {
				number = ^uint64(0) // what cannot be read is not taken for none
			}
			s.capabilities[key] = number
		case "NoNewPrivs":
			s.noNewPrivs = value == "1"
		case "Seccomp":
			s.seccomp = value == "2"
		}
	}
	return s
}

// privileges lists what a process that faces strangers must not have.
func (s status) privileges() []string {
	var faults []string
	if len(s.uids) == 0 || slices.Contains(s.uids, "0") {
		faults = append(faults, "runs as root")
	}
	for _, set := range []string{"CapPrm", "CapEff", "CapAmb", "CapBnd"} {
		if value, known := s.capabilities[set]; !known || value != 0 {
			faults = append(faults, fmt.Sprintf("has capabilities (%s %x)", set, value))
		}
	}
	if !s.noNewPrivs {
		faults = append(faults, "may gain privileges (NoNewPrivs is 0)")
	}
	if !s.seccomp {
		faults = append(faults, "has no filter of system calls")
	}
	return faults
}
