package bruteforce_test

import (
	"testing"

	"github.com/BitBoxSwiss/bitbox-base/internal/helper/bruteforce"
	"github.com/BitBoxSwiss/bitbox-base/internal/middleware/admission"
	"github.com/google/go-cmp/cmp"
)

// Who writes the log and who reads it must mean the same.
func TestReasonsAreThoseThatTheMiddlewareCounts(t *testing.T) {
	var counted []string
	for _, reason := range admission.Reasons() {
		if reason.CountsForBan() {
			counted = append(counted, string(reason))
		}
	}
	if d := cmp.Diff(counted, bruteforce.Reasons); d != "" {
		t.Errorf("the reasons that count differ:\n%s", d)
	}
}
