//go:build linux

package stage_test

import (
	"path/filepath"
	"slices"
	"testing"

	"github.com/BitBoxSwiss/bitbox-base/internal/generation"
	"github.com/BitBoxSwiss/bitbox-base/test/stage"
)

// Who changes the posture again and again, or updates and goes back, has the servers started
// more often than systemd's own limit allows. None may stay down for that.
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
		replaceIn(t, filepath.Join(root, "usr/lib/systemd/system", generation.ProxyUnit), "StartLimitIntervalSec=0\n", "StartLimitIntervalSec=1d\n")
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
