package main

import (
	"os"
	"strings"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
)

// sparkWidth is how many characters a history has at most.
const sparkWidth = 30

// The steps of a history, from the lowest to the highest.
var (
	sparkBlocks = []rune("▁▂▃▄▅▆▇█")
	sparkPlain  = []rune("_.:-=+*#")
)

// sparkSteps are those that this terminal can show.
func sparkSteps() []rune {
	// POSIX: the first that is set counts (locale(7)).
	for _, variable := range []string{"LC_ALL", "LC_CTYPE", "LANG"} {
		if value := strings.ToLower(os.Getenv(variable)); value != "" {
			if strings.Contains(value, "utf-8") || strings.Contains(value, "utf8") {
				return sparkBlocks
			}
			break
		}
	}
	return sparkPlain
}

// spark draws values between two bounds. Of more than sparkWidth of them the highest
// of several stands for these.
func spark(values []float64, low, high float64, steps []rune) string {
	var b strings.Builder
	columns := min(len(values), sparkWidth)
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

// histories are what was measured, drawn.
type histories struct{ load, memory, disk, temperature string }

// drawHistory draws load from 0 to 1 at least, memory and disk by what is used of all,
// and the temperature over 20 °C to 80 °C at least.
func drawHistory(samples []*basev1.Sample, steps []rune) histories {
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
	return histories{spark(load, 0, most, steps), spark(memory, 0, 1, steps), spark(disk, 0, 1, steps), spark(temperature, 20, hottest, steps)}
}

func used(available, total uint64) float64 {
	if total == 0 || available > total {
		return 0
	}
	return float64(total-available) / float64(total)
}
