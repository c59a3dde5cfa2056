package audit

import (
	"strings"
	"testing"
)

func TestLoosenedKernelSettingsAreFound(t *testing.T) {
	find(t, map[string]attack{
		"forwarding": {func(_ *testing.T, f *fake) { f.files["/proc/sys/net/ipv4/ip_forward"] = "1\n" }, []string{idKernel}},
		"no IPv6":    {func(_ *testing.T, f *fake) { delete(f.files, "/proc/sys/net/ipv6/conf/all/forwarding") }, []string{}},
		"of the host": {func(_ *testing.T, f *fake) {
			f.stat[containerFile], f.files["/proc/sys/kernel/sysrq"] = File{}, "176\n"
		}, []string{idKernelHost}},
		"of the host, and hidden": {func(_ *testing.T, f *fake) {
			f.stat[containerFile] = File{}
			delete(f.files, "/proc/sys/net/core/bpf_jit_harden")
		}, []string{idKernelHost}},
		"hidden": {func(_ *testing.T, f *fake) { delete(f.files, "/proc/sys/net/core/bpf_jit_harden") }, []string{}},
		"of a container": {func(_ *testing.T, f *fake) {
			f.stat[containerFile], f.files["/proc/sys/net/ipv4/ip_forward"] = File{}, "1\n"
		}, []string{idKernel}},
		"nothing there": {func(_ *testing.T, f *fake) {
			for path := range f.files {
				if strings.HasPrefix(path, "/proc/sys/") {
					delete(f.files, path)
				}
			}
		}, []string{"unchecked-kernel"}},
	})
}
