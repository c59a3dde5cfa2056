// Package words puts values from a Base into words for people: times, sizes, roles, changes, events.
// The App's commands, its full screen and its window share it, so that all say the same.
//
// Each language has its sentences in one file (english.go, german.go), by key; a test compares the
// two. Commands and the full screen speak English.
//
// golang.org/x/text was considered. Its message package would bring a catalogue that has to be
// generated, and the names and plurals of every language of the world into the App. Two languages
// with the same two plural forms need a map and a few lines instead.
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
func (l Language) Role(role basev1.Role) string {
	return l.known("values.role."+role.Name(), role.Name())
}

// When writes a time for people: today without the date.
func (l Language) When(t, now time.Time) string {
	t = t.Local()
	if t.Format(time.DateOnly) == now.Local().Format(time.DateOnly) {
		return t.Format("15:04")
	}
	return t.Format(l.date + "15:04")
}

// Day writes a day of the next months, in few letters.
func (l Language) Day(t time.Time) string { return t.Local().Format(l.day) }

// Duration writes seconds for people: in the largest unit that fits, and the next one unless that is zero.
func (l Language) Duration(seconds uint64) string {
	days, hours, minutes := seconds/86400, seconds/3600%24, seconds/60%60
	switch {
	case days > 0:
		return l.Count("values.days", int(days)) + andSome(hours, "h")
	case hours > 0:
		return fmt.Sprintf("%d h", hours) + andSome(minutes, "min")
	case minutes > 0:
		return fmt.Sprintf("%d min", minutes) + andSome(seconds%60, "s")
	}
	return fmt.Sprintf("%d s", seconds)
}

func andSome(n uint64, unit string) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprintf(" %d %s", n, unit)
}

// Size writes bytes for people.
func (l Language) Size(bytes uint64) string {
	const unit = 1024
	if bytes < unit {
		return fmt.Sprintf("%d B", bytes)
	}
	value, prefixes := float64(bytes)/unit, "KMGTPE"
	for value >= unit && len(prefixes) > 1 {
		value, prefixes = value/unit, prefixes[1:]
	}
	return l.Decimal(value, 1) + fmt.Sprintf(" %ciB", prefixes[0])
}

// Decimal writes a number with this many digits after the decimal point or comma.
func (l Language) Decimal(value float64, digits int) string {
	return strings.Replace(fmt.Sprintf("%.*f", digits, value), ".", l.decimal, 1)
}

// Free says how much of something is free, in bytes.
func (l Language) Free(available, total uint64) string {
	return l.Say("values.free", l.Size(available), l.Size(total))
}

// Severity names the severity of a finding, such as "critical".
func (l Language) Severity(f *basev1.Finding) string {
	name := SeverityName(f)
	return l.known("values.severity."+name, name)
}

// SeverityName names the severity of a finding for programs, such as "critical".
func SeverityName(f *basev1.Finding) string {
	return strings.ToLower(strings.TrimPrefix(f.GetSeverity().String(), "SEVERITY_"))
}

// IsSerious tells whether a finding is more than information. An unknown severity is serious.
func IsSerious(f *basev1.Finding) bool { return f.GetSeverity() != basev1.Finding_SEVERITY_INFO }

// WorstFirst sorts findings.
func WorstFirst(findings []*basev1.Finding) {
	slices.SortStableFunc(findings, func(a, b *basev1.Finding) int { return cmp.Compare(b.GetSeverity(), a.GetSeverity()) })
}
