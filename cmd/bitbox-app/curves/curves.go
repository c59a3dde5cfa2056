// Package curves draws the measurements of a Base in one line of text. The App's commands and
// its dashboard share it, so that both use the same scales.
package curves

import (
	"strings"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
)

// The steps of a curve, from the lowest to the highest: in UTF-8, and in ASCII.
var (
	blocks = []rune("▁▂▃▄▅▆▇█")
	plain  = []rune("_.:-=+*#")
)

// Curves are drawn measurements. A measurement that is missing gives an empty curve.
type Curves struct{ Load, Memory, Disk, Temperature string }

// Draw draws samples, the oldest first, in at most this many columns. The scales are at least 0
// to 1 for load, the used part of all for memory and disk, and at least 20 °C to 80 °C for the
// temperature.
func Draw(samples []*basev1.Sample, columns int, utf8 bool) Curves {
	var load, memory, disk, temperature []float64
	most, hottest := 1.0, 80.0
	for _, s := range samples {
		load = append(load, s.GetLoad())
		most = max(most, s.GetLoad())
		memory = append(memory, used(s.GetMemoryAvailableBytes(), s.GetMemoryTotalBytes()))
		disk = append(disk, used(s.GetDiskAvailableBytes(), s.GetDiskTotalBytes()))
		if s.TemperatureCelsius != nil {
			temperature = append(temperature, s.GetTemperatureCelsius())
			hottest = max(hottest, s.GetTemperatureCelsius())
		}
	}
	steps := plain
	if utf8 {
		steps = blocks
	}
	return Curves{
		Load: line(load, 0, most, columns, steps), Memory: line(memory, 0, 1, columns, steps),
		Disk: line(disk, 0, 1, columns, steps), Temperature: line(temperature, 20, hottest, columns, steps),
	}
}

// line draws values between two bounds. If there are more values than columns, each column shows
// the highest of its values.
func line(values []float64, low, high float64, columns int, steps []rune) string {
	var b strings.Builder
	columns = min(len(values), columns)
	for column := range columns {
		from, to := column*len(values)/columns, (column+1)*len(values)/columns
		highest := values[from]
		for _, v := range values[from:to] {
			highest = max(highest, v)
		}
		step := 0
		if high > low {
			step = int((highest - low) / (high - low) * float64(len(steps)))
		}
		b.WriteRune(steps[min(max(step, 0), len(steps)-1)])
	}
	return b.String()
}

func used(available, total uint64) float64 {
	if total == 0 || available > total {
		return 0
	}
	return float64(total-available) / float64(total)
}
