package daemon

import (
	"testing"

	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
)

func TestAWindowReopenedBetweenTwoChecksIsReported(t *testing.T) {
	open := func(left uint64) *systemv1.Snapshot {
		return &systemv1.Snapshot{WindowOpen: true, WindowRemainingMs: left}
	}
	shut := &systemv1.Snapshot{}
	for name, c := range map[string]struct {
		seen, now *systemv1.Snapshot
		want      bool
	}{
		"opened":                  {shut, open(180_000), true},
		"closed":                  {open(2_000), shut, true},
		"closed and opened again": {open(150_000), open(180_000), true},
		"as before":               {open(150_000), open(149_900), false},
		"closed as before":        {shut, shut, false},
	} {
		if got := otherWindow(c.seen, c.now); got != c.want {
			t.Errorf("%s: told %v", name, got)
		}
	}
}
