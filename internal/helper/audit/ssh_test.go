package audit

import (
	"context"
	"slices"
	"testing"

	"github.com/BitBoxSwiss/bitbox-base/internal/helper/generation"
)

func TestSSHThatDiffersFromThePostureIsFound(t *testing.T) {
	find(t, map[string]attack{
		"on":       {func(_ *testing.T, f *fake) { f.units[generation.SSHUnit]["ActiveState"] = "active" }, []string{idSSHState}},
		"starting": {func(_ *testing.T, f *fake) { f.units[generation.SSHUnit]["ActiveState"] = "activating" }, []string{idSSHState}},
		"a lease":  {func(_ *testing.T, f *fake) { f.stat[generation.SSHLease] = File{} }, []string{idSSHState}},
		"passwords": {func(t *testing.T, f *fake) {
			f.replace(t, "passwordauthentication no", "passwordauthentication yes", effectiveSSH...)
		}, []string{idSSHSettings}},
	})
}

func TestLeasedSSHMustRun(t *testing.T) {
	f, want := base(t), withSSH(t)
	check := func(expected ...string) {
		t.Helper()
		differences, err := checkSSH(context.Background(), f, want)
		var got []string
		for _, d := range differences {
			got = append(got, d.id)
		}
		if err != nil || !slices.Equal(got, expected) {
			t.Errorf("found %v, %v; not %v", differences, err, expected)
		}
	}
	check(idSSHState)
	f.units[generation.SSHUnit]["ActiveState"] = "active"
	check(idSSHState) // without a lease it would not outlive a restart
	f.stat[generation.SSHLease] = File{}
	check()
}

func TestFixingSSHStopsOrStartsIt(t *testing.T) {
	f := base(t)
	f.units[generation.SSHUnit]["ActiveState"] = "active"
	f.obeys = func(command string) bool {
		if command == systemctl+" stop "+generation.SSHUnit {
			f.units[generation.SSHUnit]["ActiveState"] = "inactive"
		}
		return true
	}
	if err := Fix(context.Background(), f, factory(), idSSHState); err != nil || f.reapply != 0 {
		t.Errorf("stop: %v, applied %d times", err, f.reapply)
	}
	if err := repairSSH(context.Background(), f, withSSH(t)); err != nil || f.reapply != 1 {
		t.Errorf("start: %v, applied %d times", err, f.reapply)
	}
}
