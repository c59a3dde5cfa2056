package backlog

import (
	"fmt"

	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
)

// maxMissed is the largest number of missing events that is believed: a bitbox-node that was taken
// over may claim any. It is 3 years of one event in 100 seconds.
const maxMissed = 1_000_000

// Reader knows which event of a Log was read last. The Log may lie. The zero Reader has read nothing.
type Reader struct {
	place Place
	ended bool // the run ended in an orderly way, and had no event after place
}

// Parse reads a Mark. An empty or an odd one is that of a Reader that has read nothing.
func Parse(mark string) (r Reader) {
	if _, err := fmt.Sscan(mark, &r.place.Run, &r.place.Number); err != nil {
		return Reader{}
	}
	var end string
	_, _ = fmt.Sscan(mark, new(uint64), new(uint64), &end)
	r.ended = end == endMark
	return r
}

const endMark = "end"

// Mark is the Reader in a word that can be stored; empty: it has read nothing.
func (r *Reader) Mark() string {
	switch {
	case r.place.Run == 0:
		return ""
	case r.ended:
		return fmt.Sprint(r.place.Run, " ", r.place.Number, " ", endMark)
	}
	return fmt.Sprint(r.place.Run, " ", r.place.Number)
}

// Place is what a stream has to be requested with.
func (r *Reader) Place() Place { return r.place }

// Gap says what is missing between two events that were read.
type Gap struct {
	// Is: something is missing, or may be.
	Is bool
	// Count is how many; 0: nobody knows, and there may be none.
	Count uint64
}

var (
	errNoRun = reason.New("the stream of events does not say to which run they belong")
	errOrder = reason.New("the numbers of events do not follow each other")
)

// Begin takes the begin of a stream that was requested with Place, and tells what is missing.
func (r *Reader) Begin(begin Place, missed uint64) (Gap, error) {
	if begin.Run == 0 {
		return Gap{}, errNoRun
	}
	before := *r
	r.place, r.ended = begin, false
	from, known := before.place.Number, before.place.Run == begin.Run
	if before.ended && !known {
		from, known = 0, true // all of the new run was requested
	}
	switch {
	case before.place.Run == 0:
		return Gap{}, nil
	case !known || begin.Number < from || begin.Number-from != missed || missed > maxMissed:
		return Gap{Is: true}, nil
	}
	return Gap{Is: missed > 0, Count: missed}, nil
}

// Next takes the place of the next event. An error means that the stream cannot be used any longer.
func (r *Reader) Next(place Place) error {
	if place.Run != r.place.Run || place.Number-1 != r.place.Number || place.Number == 0 {
		return errOrder
	}
	r.place = place
	return nil
}

// End says that the process has ended in an orderly way, and that no event came after the last one.
func (r *Reader) End() { r.ended = true }
