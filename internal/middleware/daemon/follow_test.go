package daemon

import (
	"testing"

	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
)

func TestAWindowReopenedBetweenTwoChecksIsReported(t *testing.T) {
	open := func(number, left uint64) *systemv1.Snapshot {
		return &systemv1.Snapshot{WindowOpen: true, WindowNumber: number, WindowRemainingMs: left}
	}
	shut := &systemv1.Snapshot{WindowNumber: 1}
	for name, c := range map[string]struct {
		seen, now *systemv1.Snapshot
		want      bool
	}{
		"opened":           {shut, open(2, 180_000), true},
		"closed":           {open(1, 2_000), shut, true},
		"prolonged":        {open(1, 150_000), open(2, 180_000), true},
		"as before":        {open(1, 150_000), open(1, 149_900), false},
		"closed as before": {shut, shut, false},
		// The look was late: as much is left of this window as was left of the one before.
		"closed and opened again": {open(1, 150_000), open(2, 150_000), true},
	} {
		if got := otherWindow(c.seen, c.now); got != c.want {
			t.Errorf("%s: told %v", name, got)
		}
	}
}
