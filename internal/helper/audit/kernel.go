package audit

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/BitBoxSwiss/bitbox-base/packaging"
)

const sysctlFile = "/etc/sysctl.d/60-bitbox-base.conf"

// checkKernel compares the kernel's settings with those of the package. A setting
// that this kernel does not have (IPv6 that is switched off) protects nothing. Some
// (net.core.bpf_jit_harden) the kernel shows only to a process that could do anything,
// which the system helper is not: those are left to the image's own test.
func checkKernel(_ context.Context, system System, _ Expectation) ([]difference, error) {
	var found []string
	known := 0
	for _, setting := range sysctls(packaging.Sysctl) {
		content, err := system.ReadFile("/proc/sys/" + strings.ReplaceAll(setting.name, ".", "/"))
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
			continue
		}
		if err != nil {
			return nil, err
		}
		known++
		if value := strings.Join(strings.Fields(string(content)), " "); value != setting.value {
			found = append(found, fmt.Sprintf("%s is %s, not %s", setting.name, value, setting.value))
		}
	}
	if known == 0 {
		return nil, errors.New("read the kernel's settings: there are none in /proc/sys; is it mounted?")
	}
	if found == nil {
		return nil, nil
	}
	return []difference{{id: idKernel, found: found}}, nil
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
