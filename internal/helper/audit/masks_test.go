package audit

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/BitBoxSwiss/bitbox-base/internal/helper/units"
)

func TestDebiansUnitsThatCouldStartAreFound(t *testing.T) {
	find(t, map[string]attack{
		"unmasked":  {func(_ *testing.T, f *fake) { f.units["ssh.socket"]["LoadState"] = "loaded" }, []string{idDebianSSH}},
		"running":   {func(_ *testing.T, f *fake) { f.units["ssh.service"]["ActiveState"] = "active" }, []string{idDebianSSH}},
		"NGINX":     {func(_ *testing.T, f *fake) { f.units["nginx.service"]["LoadState"] = "loaded" }, []string{idDebianServices}},
		"not there": {func(_ *testing.T, f *fake) { delete(f.units, "nginx.service") }, []string{}},
		"no answer": {func(_ *testing.T, f *fake) { f.units["nginx.service"] = units.State{} }, []string{"unchecked-masks"}},
	})
}

// The audit checks everything that the package masks.
func TestEachMaskOfThePackageIsChecked(t *testing.T) {
	links, err := filepath.Glob("../../../packaging/root/usr/lib/bitbox-base/setup/etc/systemd/system/*")
	if err != nil || len(links) == 0 {
		t.Fatalf("no masks: %v", err)
	}
	var masked []string
	for _, link := range links {
		target, err := os.Readlink(link)
		name := filepath.Base(link)
		// A login prompt starts no server; the console takes its place.
		if err == nil && target == "/dev/null" && name != "getty@tty1.service" {
			masked = append(masked, name)
		}
	}
	checked := slices.Concat(debianSSH, debianServices)
	slices.Sort(checked)
	slices.Sort(masked)
	if !slices.Equal(checked, masked) {
		t.Errorf("the package masks %v; the audit looks at %v", masked, checked)
	}
}
