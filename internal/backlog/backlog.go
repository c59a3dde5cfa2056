// Package backlog numbers the events of a process, and keeps the last of them for a reader that
// was away for a while. So each event reaches the reader, or it learns how many are missing.
//
//   - [Log] is in the process that makes the events: the system helper, and bitbox-node.
//   - [Reader] is in the Middleware. It knows which event was read last, and what is missing
//     before the next one.
//
// The package does no input and output. Neither type may be used by two goroutines at once.
package backlog

import (
	"slices"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
)

// Bounds of what a Log keeps.
const (
	MaxEvents = 128
	MaxBytes  = 256 << 10
)

// Place is where a reader is: behind the event with this number, in this run of the process.
type Place struct {
	// Run tells starts of the process apart. 0: nothing has been read.
	Run uint64
	// Number is how many events there were in this run.
	Number uint64
}

// Log numbers events, and keeps the last of them.
type Log struct {
	now   func() time.Time
	last  Place
	kept  []*basev1.Event
	bytes int
}

// New returns a Log without events. Its run is the time in nanoseconds: it only has to differ between
// two starts.
func New(now func() time.Time) *Log {
	return &Log{now: now, last: Place{Run: uint64(now().UnixNano())}}
}

// Resume returns a Log that goes on behind the place last, in the same run. The events are the last
// ones up to that place; too many are forgotten.
func Resume(now func() time.Time, last Place, events []*basev1.Event) *Log {
	l := &Log{now: now, last: last}
	for _, e := range events[max(0, len(events)-int(min(last.Number, MaxEvents))):] {
		l.keep(e)
	}
	return l
}

// Last is the place behind the last event.
func (l *Log) Last() Place { return l.last }

// Kept is the last events, the oldest first. They must not be changed.
func (l *Log) Kept() []*basev1.Event { return l.kept }

// Add gives an event a number and the present time, and keeps it. It returns the event with its time.
func (l *Log) Add(happened *basev1.Event) *basev1.Event {
	happened = proto.CloneOf(happened)
	happened.Time = timestamppb.New(l.now())
	l.last.Number++
	l.keep(happened)
	return happened
}

func (l *Log) keep(e *basev1.Event) {
	l.kept = append(l.kept, e)
	l.bytes += proto.Size(e)
	for len(l.kept) > MaxEvents || l.bytes > MaxBytes {
		l.bytes -= proto.Size(l.kept[0])
		l.kept[0] = nil // its memory is free at once
		l.kept = l.kept[1:]
	}
}

// Past is what a stream begins with.
type Past struct {
	// Begin is the place before the first event of the stream.
	Begin Place
	// Missed is how many of the requested events are no longer kept.
	Missed uint64
	// Events are those that had happened before. The first one has the number Begin.Number + 1.
	Events []*basev1.Event
}

// After returns the events after a place of this run; after a place of another run, all of this run;
// after no place, none.
func (l *Log) After(asked Place) Past {
	after := l.last.Number
	switch asked.Run {
	case l.last.Run:
		after = min(after, asked.Number)
	case 0:
	default:
		after = 0
	}
	begin := max(after, l.last.Number-uint64(len(l.kept)))
	return Past{Begin: Place{Run: l.last.Run, Number: begin}, Missed: begin - after,
		Events: slices.Clone(l.kept[uint64(len(l.kept))-(l.last.Number-begin):])}
}
