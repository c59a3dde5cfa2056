package node

import (
	"slices"
	"time"
)

// trend estimates when a quantity reaches a value, by how it has changed lately.
type trend struct {
	// every is the pause between two samples, window how long they count, and least how far
	// apart the first and the last must be for an estimate.
	every, window, least time.Duration
	samples              []sample
}

type sample struct {
	at    time.Duration
	value float64
}

// newSyncTrend and newDiskTrend are the two that there are: progress changes in minutes, a disk
// fills in days.
func newSyncTrend() trend {
	return trend{every: 30 * time.Second, window: 30 * time.Minute, least: 2 * time.Minute}
}
func newDiskTrend() trend {
	return trend{every: time.Hour, window: 7 * 24 * time.Hour, least: 6 * time.Hour}
}

// add takes a sample. now is a clock that does not jump.
func (t *trend) add(now time.Duration, value float64) {
	if n := len(t.samples); n > 0 && now-t.samples[n-1].at < t.every {
		return
	}
	t.samples = append(t.samples, sample{now, value})
	t.samples = slices.DeleteFunc(t.samples, func(s sample) bool { return now-s.at > t.window })
}

// forget starts over: the old samples say nothing about the next ones.
func (t *trend) forget() { t.samples = nil }

// until estimates how long it takes from the last sample until the value is reached. ok is false
// if it is not known yet, or if the quantity does not move towards it.
func (t *trend) until(value float64) (left time.Duration, ok bool) {
	if len(t.samples) < 2 {
		return 0, false
	}
	first, last := t.samples[0], t.samples[len(t.samples)-1]
	moved, ahead := last.value-first.value, value-last.value
	if last.at-first.at < t.least || moved == 0 || (moved > 0) != (ahead > 0) {
		return 0, false
	}
	seconds := ahead / moved * (last.at - first.at).Seconds()
	if seconds > longest.Seconds() {
		return 0, false
	}
	return time.Duration(seconds * float64(time.Second)), true
}

// longest is what an estimate may say: more than 10 years is never.
const longest = 10 * 365 * 24 * time.Hour
