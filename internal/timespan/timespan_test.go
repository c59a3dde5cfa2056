package timespan_test

import (
	"testing"
	"time"

	"github.com/BitBoxSwiss/bitbox-base/internal/timespan"
)

func TestALengthOfTimeIsReadAsPeopleTypeIt(t *testing.T) {
	const day = 24 * time.Hour
	for text, want := range map[string]time.Duration{
		"0s": 0, "90s": 90 * time.Second, "5m": 5 * time.Minute, "1h30m": 90 * time.Minute, "1.5h": 90 * time.Minute,
		"1d": day, "7d": 7 * day, "1d12h": 36 * time.Hour, "168h": 7 * day,
	} {
		if got, err := timespan.Parse(text); err != nil || got != want {
			t.Errorf("%q: %v, %v; want %v", text, got, err, want)
		}
		if again, err := timespan.Parse(timespan.Format(want)); err != nil || again != want {
			t.Errorf("%v is written as %q, which is read as %v, %v", want, timespan.Format(want), again, err)
		}
	}
	for _, text := range []string{"", "1", "d", "-1d", "-1s", "1d-1h", "+1h", "1x", "1 h", "5ms", "1ns", "2µs", "99999999d", "12h1d",
		"9999999999h", "1.5d", "1500ms", "1.5s", "0.1m1.5s"} {
		if got, err := timespan.Parse(text); err == nil {
			t.Errorf("%q was read as %v", text, got)
		}
	}
}
