//go:build linux

package stage_test

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/BitBoxSwiss/bitbox-base/internal/helper/generation"
	"github.com/BitBoxSwiss/bitbox-base/test/stage"
)

// An owner who changes the posture again and again, or updates and goes back, causes more starts
// of the servers than systemd's own limit allows. None may stay down because of that.
func TestServersThatAreStartedAgainAndAgainStayUp(t *testing.T) {
	t.Parallel()
	s := stage.Boot(t, stage.Config{})
	units := slices.Concat([]string{generation.FirewallUnit}, listening, generation.PreflightUnits)
	// In one go: the limit is one of starts in ten seconds.
	for range starts {
		if out, err := s.Exec(append([]string{"systemctl", "restart"}, units...)...); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
	}
	for _, unit := range append([]string{generation.FirewallUnit}, listening...) {
		s.WaitActive(unit)
	}
	for _, to := range entry(s) {
		s.Until("the entry is open", func() error { return reaches(s.Attacker(1), to) })
	}
}

// starts are more than systemd's limit, which is five.
const starts = 8

// The test above must be able to fail: with systemd's own limit the entry stays down.
func TestAServerWithALimitOfStartsStaysDown(t *testing.T) {
	t.Parallel()
	s := stage.Install(t, stage.Config{Prepare: func(t *testing.T, root string) {
		// For a day: this machine may be too slow for five starts in ten seconds.
		replaceIn(t, filepath.Join(root, "usr/lib/systemd/system", generation.ProxyUnit), "StartLimitIntervalSec=0\n",
			"StartLimitIntervalSec=1d\n")
	}})
	s.Start()
	s.WaitActive(generation.ProxyUnit)
	for range starts {
		_, _ = s.Exec("systemctl", "restart", generation.ProxyUnit) // in the end it fails
	}
	s.WaitState(generation.ProxyUnit, "failed")
	for _, to := range entry(s) {
		refused(t, s.Attacker(1), to)
	}
}

// A packet filter that could not be loaded at boot leaves the Base closed. Once it can be,
// the helper loads it and starts what waits for it.
func TestTheEntryComesBackWithThePacketFilter(t *testing.T) {
	t.Parallel()
	s := stage.Install(t, stage.Config{Real: true, Prepare: func(t *testing.T, root string) {
		dropIn := filepath.Join(root, "etc/systemd/system", generation.FirewallUnit+".d", "late.conf")
		if err := os.MkdirAll(filepath.Dir(dropIn), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(dropIn, []byte("[Service]\nExecStartPre=/usr/bin/test -e /etc/the-filter-can-be-loaded\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}})
	s.Start()
	s.WaitState(generation.FirewallUnit, "failed")
	for _, to := range entry(s) {
		refused(t, s.Attacker(1), to)
	}
	s.MustExec("touch", "/etc/the-filter-can-be-loaded")
	for _, unit := range append([]string{generation.FirewallUnit}, listening...) {
		s.WaitActive(unit)
	}
	for _, to := range entry(s) {
		s.Until("the entry is open", func() error { return reaches(s.Attacker(1), to) })
	}
}
