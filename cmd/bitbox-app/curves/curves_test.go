package curves

import (
	"math"
	"testing"

	"google.golang.org/protobuf/proto"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
)

func TestACurveIsDrawnBetweenItsBounds(t *testing.T) {
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
		if got := line(c.values, c.low, c.high, 30, blocks); got != c.want {
			t.Errorf("%v: %q, not %q", c.values, got, c.want)
		}
	}
	// A peak stays visible when there are more values than columns.
	const columns = 30
	many := make([]float64, 120)
	many[77] = 1
	if drawn := []rune(line(many, 0, 1, columns, plain)); len(drawn) != columns || drawn[77*columns/120] != '#' {
		t.Errorf("%q", string(drawn))
	}
}

func TestMeasurementsAreDrawnAndGapsAreLeftOut(t *testing.T) {
	samples := []*basev1.Sample{
		{Load: 0.1, MemoryAvailableBytes: 3, MemoryTotalBytes: 4, DiskAvailableBytes: 0, DiskTotalBytes: 9},
		{Load: 4, MemoryAvailableBytes: 1, MemoryTotalBytes: 4, TemperatureCelsius: proto.Float64(50)},
	}
	if got, want := Draw(samples, 30, true), (Curves{"▁█", "▃▇", "█▁", "▅"}); got != want {
		t.Errorf("%+v", got)
	}
	if got, want := Draw(samples, 30, false), (Curves{"_#", ":*", "#_", "="}); got != want {
		t.Errorf("%+v", got)
	}
	if got := Draw(nil, 30, true); got != (Curves{}) {
		t.Errorf("of nothing: %+v", got)
	}
}

// A Base can send any number, including NaN and infinity.
func TestNoNumberFromABaseBreaksACurve(t *testing.T) {
	for _, load := range []float64{math.NaN(), math.Inf(1), math.Inf(-1), math.MaxFloat64, -math.MaxFloat64} {
		for _, all := range [][]*basev1.Sample{{{Load: load}}, {{Load: 1}, {Load: load}, {Load: 2}}} {
			if got := []rune(Draw(all, 30, true).Load); len(got) != len(all) {
				t.Errorf("%v: %q", load, string(got))
			}
		}
	}
}
