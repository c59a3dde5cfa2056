// Package timespan reads and writes lengths of time as people type them: in flags, forms and files.
package timespan

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
)

// maxDays keeps typed values within the range of a [time.Duration].
const maxDays = 36500

// Parse reads a length of time: numbers with the units s, m (minutes), h and d,
// the largest first, such as 90s, 30m, 1h30m or 2d. It has whole
// seconds, so that nothing is rounded later, and is not negative.
func Parse(text string) (time.Duration, error) {
	wrong := reason.Errorf("%q is not a length of time; write it like 90s, 30m (minutes), 12h or 7d", text)
	var days time.Duration
	rest := text
	if number, after, ok := strings.Cut(text, "d"); ok {
		n, err := strconv.ParseUint(number, 10, 32)
		if err != nil || n > maxDays {
			return 0, wrong
		}
		if days, rest = time.Duration(n)*24*time.Hour, after; rest == "" {
			return days, nil
		}
	}
	length, err := time.ParseDuration(rest)
	if err != nil || length < 0 || length > maxDays*24*time.Hour || length%time.Second != 0 ||
		strings.ContainsAny(rest, "nuµμ+-") || strings.Contains(rest, "ms") {
		return 0, wrong
	}
	return days + length, nil
}

// Format writes a length of time, in whole seconds, in the form that [Parse]
// reads.
func Format(length time.Duration) string {
	text := ""
	for _, unit := range []struct {
		name   string
		length time.Duration
	}{{"d", 24 * time.Hour}, {"h", time.Hour}, {"m", time.Minute}, {"s", time.Second}} {
		if n := length / unit.length; n > 0 {
			text += fmt.Sprintf("%d%s", n, unit.name)
			length -= n * unit.length
		}
	}
	return cmp.Or(text, "0s")
}
