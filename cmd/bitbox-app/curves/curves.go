// Package curves has the measurements of a Base with their scales, and draws them in one line of
// text. The App's commands, its dashboard and its window share it, so that all use the same scales.
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

// Series are the values of one measurement, the oldest first, and the scale to draw them on.
type Series struct {
	Values    []float64
	Low, High float64
}

// Measured are the series of a Base. A measurement that is missing gives an empty series.
type Measured struct{ Load, Memory, Disk, Temperature Series }

// Measure sorts samples, the oldest first. The scales are at least 0 to 1 for load, the used part of
// all for memory and disk, and at least 20 °C to 80 °C for the temperature.
func Measure(samples []*basev1.Sample) Measured {
	m := Measured{Load: Series{High: 1}, Memory: Series{High: 1}, Disk: Series{High: 1}, Temperature: Series{Low: 20, High: 80}}
	for _, s := range samples {
		m.Load.add(s.GetLoad())
		m.Memory.Values = append(m.Memory.Values, used(s.GetMemoryAvailableBytes(), s.GetMemoryTotalBytes()))
		m.Disk.Values = append(m.Disk.Values, used(s.GetDiskAvailableBytes(), s.GetDiskTotalBytes()))
		if s.TemperatureCelsius != nil {
			m.Temperature.add(s.GetTemperatureCelsius())
		}
	}
	return m
}

// add adds a value, and makes the scale high enough for it.
func (s *Series) add(v float64) {
	s.Values = append(s.Values, v)
	s.High = max(s.High, v)
}

// Draw draws samples, the oldest first, in at most this many columns.
func Draw(samples []*basev1.Sample, columns int, utf8 bool) Curves {
	steps := plain
	if utf8 {
		steps = blocks
	}
	m := Measure(samples)
	draw := func(s Series) string { return line(s.Values, s.Low, s.High, columns, steps) }
	return Curves{Load: draw(m.Load), Memory: draw(m.Memory), Disk: draw(m.Disk), Temperature: draw(m.Temperature)}
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
