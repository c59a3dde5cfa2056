package main

import (
	"testing"
	"time"
)

func TestATimeIsReadAsPeopleWriteIt(t *testing.T) {
	zone := time.FixedZone("somewhere", 3600)
	now := time.Date(2026, 11, 26, 12, 0, 0, 0, zone)
	for text, want := range map[string]time.Time{
		"1h": now.Add(-time.Hour), "90m": now.Add(-90 * time.Minute), "3d": now.AddDate(0, 0, -3), "0s": now,
		"15:04": time.Date(2026, 11, 26, 15, 4, 0, 0, zone), "15:04:05": time.Date(2026, 11, 26, 15, 4, 5, 0, zone),
		"2026-11-20": time.Date(2026, 11, 20, 0, 0, 0, 0, zone), "2026-11-20 15:04": time.Date(2026, 11, 20, 15, 4, 0, 0, zone),
		"2026-11-20 15:04:05": time.Date(2026, 11, 20, 15, 4, 5, 0, zone), "2026-11-20T15:04:05Z": time.Date(2026, 11, 20, 15, 4, 5, 0, time.UTC),
	} {
		if got, err := parseTime(text, now); err != nil || !got.Equal(want) {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "yesterday", "-1h", "25:00", "1h ago", "-3d", "999999999d", "2026-13-01"} {
		if got, err := parseTime(text, now); err == nil {
			t.Errorf("%q was taken for %v", text, got)
		}
	}
}
