package audit

import (
	"fmt"
	"strings"
	"testing"

	"github.com/BitBoxSwiss/bitbox-base/internal/helper/generation"
)

func TestAPrivilegedNGINXIsFound(t *testing.T) {
	worker := func(old, new string) func(*testing.T, *fake) {
		return func(t *testing.T, f *fake) {
			changed := strings.Replace(f.files["/proc/901/status"], old, new, 1)
			if changed == f.files["/proc/901/status"] {
				t.Fatalf("%q is not in the status", old)
			}
			f.files["/proc/901/status"] = changed
		}
	}
	find(t, map[string]attack{
		"root":          {worker("Uid:\t33", "Uid:\t0"), []string{idNGINXPrivileged}},
		"saved root":    {worker("33\nCapInh", "0\nCapInh"), []string{idNGINXPrivileged}},
		"capabilities":  {worker("CapEff:\t0000000000000000", "CapEff:\t0000000000000400"), []string{idNGINXPrivileged}},
		"could get one": {worker("CapBnd:\t0000000000000000", "CapBnd:\t0000000000000001"), []string{idNGINXPrivileged}},
		"unreadable":    {worker("CapPrm:\t0000000000000000", "CapPrm:\tx"), []string{idNGINXPrivileged}},
		"no new privs":  {worker("NoNewPrivs:\t1", "NoNewPrivs:\t0"), []string{idNGINXPrivileged}},
		"no filter":     {worker("Seccomp:\t2", "Seccomp:\t0"), []string{idNGINXPrivileged}},
		"another configuration": {func(_ *testing.T, f *fake) {
			master := f.units[generation.ProxyUnit].Number("MainPID")
			f.files[fmt.Sprintf("/proc/%d/cmdline", master)] = "/usr/sbin/nginx\x00-c\x00/tmp/nginx.conf\x00"
		}, []string{idNGINXConfig}},
		"Debian's configuration": {func(_ *testing.T, f *fake) {
			f.files[fmt.Sprintf("/proc/%d/cmdline", f.units[generation.ProxyUnit].Number("MainPID"))] = "nginx: master process /usr/sbin/nginx"
		}, []string{idNGINXConfig}},
	})
}
