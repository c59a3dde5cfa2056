package main

import (
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
)

func TestAHistoryIsDrawnBetweenItsBounds(t *testing.T) {
	for _, c := range []struct {
		values    []float64
		low, high float64
		want      string
	}{
		{nil, 0, 1, ""},
		{[]float64{0, 0.5, 1, 2, -1}, 0, 1, "▁▅██▁"},
		{[]float64{3, 3}, 3, 3, "▁▁"},
		{[]float64{0, 1, 2, 3, 4, 5, 6, 7}, 0, 8, "▁▂▃▄▅▆▇█"},
	} {
		if got := spark(c.values, c.low, c.high, sparkBlocks); got != c.want {
			t.Errorf("%v: %q, not %q", c.values, got, c.want)
		}
	}
	// A peak is not lost when there are more values than columns.
	many := make([]float64, 120)
	many[77] = 1
	if drawn := []rune(spark(many, 0, 1, sparkPlain)); len(drawn) != sparkWidth || drawn[77*sparkWidth/120] != '#' {
		t.Errorf("%q", string(drawn))
	}
}

func TestWhatWasMeasuredIsDrawnAndGapsAreNone(t *testing.T) {
	h := drawHistory([]*basev1.Sample{
		{Load: 0.1, MemoryAvailableBytes: 3, MemoryTotalBytes: 4, DiskAvailableBytes: 0, DiskTotalBytes: 9},
		{Load: 4, MemoryAvailableBytes: 1, MemoryTotalBytes: 4, TemperatureCelsius: proto.Float64(50)},
	}, sparkBlocks)
	if h.load != "▁█" || h.memory != "▃▇" || h.disk != "█▁" || h.temperature != "▅" {
		t.Errorf("%+v", h)
	}
	if h := drawHistory(nil, sparkBlocks); h != (histories{}) {
		t.Errorf("of nothing: %+v", h)
	}
}

func TestATerminalWithoutUTF8GetsPlainCharacters(t *testing.T) {
	for _, c := range []struct {
		all, ctype, lang string
		blocks           bool
	}{
		{"", "", "en_US.UTF-8", true}, {"", "de_CH.utf8", "C", true}, {"C", "", "en_US.UTF-8", false}, {"", "", "", false}, {"POSIX", "", "", false}, {"C.UTF-8", "C", "C", true},
	} {
		t.Setenv("LC_ALL", c.all)
		t.Setenv("LC_CTYPE", c.ctype)
		t.Setenv("LANG", c.lang)
		if got := sparkSteps()[0] == sparkBlocks[0]; got != c.blocks {
			t.Errorf("%+v: %v", c, got)
		}
	}
}

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
