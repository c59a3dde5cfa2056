// Package words puts values from a Base into words for people: times, sizes, roles. The App's
// commands and its dashboard share it, so that both use the same words.
package words

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
)

// Role names a role, such as "owner".
func Role(role basev1.Role) string {
	return role.Name()
}

// When writes a time for people: today without the date.
func When(t, now time.Time) string {
	t = t.Local()
	if t.Format(time.DateOnly) == now.Local().Format(time.DateOnly) {
		return t.Format("15:04")
	}
	return t.Format("2006-01-02 15:04")
}

// Duration writes seconds for people, with the two largest units.
func Duration(seconds uint64) string {
	days, hours, minutes := seconds/86400, seconds/3600%24, seconds/60%60
	switch {
	case days > 0:
		return fmt.Sprintf("%d d %d h", days, hours)
	case hours > 0:
		return fmt.Sprintf("%d h %d min", hours, minutes)
	case minutes > 0:
		return fmt.Sprintf("%d min %d s", minutes, seconds%60)
	}
	return fmt.Sprintf("%d s", seconds)
}

// Size writes bytes for people.
func Size(bytes uint64) string {
	const unit = 1024
	if bytes < unit {
		return fmt.Sprintf("%d B", bytes)
	}
	value, prefixes := float64(bytes)/unit, "KMGTPE"
	for value >= unit && len(prefixes) > 1 {
		value, prefixes = value/unit, prefixes[1:]
	}
	return fmt.Sprintf("%.1f %ciB", value, prefixes[0])
}

// Free says how much of something is free, in bytes.
func Free(available, total uint64) string {
	return Size(available) + " of " + Size(total) + " free"
}

// Severity names the severity of a finding, such as "critical".
func Severity(f *basev1.Finding) string {
	return strings.ToLower(strings.TrimPrefix(f.GetSeverity().String(), "SEVERITY_"))
}

// IsSerious tells whether a finding is more than information. An unknown severity is serious.
func IsSerious(f *basev1.Finding) bool { return f.GetSeverity() != basev1.Finding_SEVERITY_INFO }

// WorstFirst sorts findings.
func WorstFirst(findings []*basev1.Finding) {
	slices.SortStableFunc(findings, func(a, b *basev1.Finding) int { return cmp.Compare(b.GetSeverity(), a.GetSeverity()) })
}
