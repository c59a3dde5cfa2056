package audit

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
	"github.com/BitBoxSwiss/bitbox-base/packaging"
)

const sysctlFile = "/etc/sysctl.d/60-bitbox-base.conf"

// checkKernel compares the kernel's settings with those of the package. A setting
// that this kernel does not have (when IPv6 is switched off) protects nothing. The kernel shows
// some settings (net.core.bpf_jit_harden) only to a fully privileged process, which the system
// helper is not; the image's own test checks those. In a container the kernel is the host's; only
// the network's settings are the container's own, and those that cannot be seen are told too.
func checkKernel(_ context.Context, system System, _ Expectation) ([]difference, error) {
	container, err := inContainer(system)
	if err != nil {
		return nil, err
	}
	own, hosts := difference{id: idKernel}, difference{id: idKernelHost}
	known, unseen := 0, []string(nil)
	for _, setting := range sysctls(packaging.Sysctl) {
		content, err := system.ReadFile("/proc/sys/" + strings.ReplaceAll(setting.name, ".", "/"))
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
			unseen = append(unseen, setting.name)
			continue
		}
		if err != nil {
			return nil, err
		}
		known++
		if value := strings.Join(strings.Fields(string(content)), " "); value != setting.value {
			line := fmt.Sprintf("%s is %s, not %s", setting.name, value, setting.value)
			if container && !strings.HasPrefix(setting.name, "net.ipv") {
				hosts.found = append(hosts.found, line)
			} else {
				own.found = append(own.found, line)
			}
		}
	}
	if known == 0 {
		return nil, reason.New("read the kernel's settings: there are none in /proc/sys; is it mounted?")
	}
	if container && unseen != nil {
		hosts.found = append(hosts.found, "not there, or not shown: "+strings.Join(unseen, ", "))
	}
	return slices.DeleteFunc([]difference{own, hosts}, func(d difference) bool { return d.found == nil }), nil
}

// containerFile names the manager of the container that systemd runs in.
const containerFile = "/run/systemd/container"

func inContainer(system System) (bool, error) {
	_, err := system.Lstat(containerFile)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

type sysctl struct{ name, value string }

// sysctls reads a file of sysctl.d(5).
func sysctls(text string) []sysctl {
	var list []sysctl
	for line := range strings.Lines(text) {
		name, value, found := strings.Cut(line, "=")
		if name = strings.TrimSpace(name); found && !strings.HasPrefix(name, "#") {
			list = append(list, sysctl{name, strings.TrimSpace(value)})
		}
	}
	return list
}
