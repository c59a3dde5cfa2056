package backlog

import (
	"math"
	"testing"
	"time"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
)

// reading returns a Reader that has read up to a place.
func reading(at Place, ended bool) Reader { return Reader{place: at, ended: ended} }

func TestAReaderTellsWhatIsMissing(t *testing.T) {
	for name, c := range map[string]struct {
		before Reader
		begin  Place
		missed uint64
		want   Gap
	}{
		"it has read nothing":                       {Reader{}, Place{1, 9}, 0, Gap{}},
		"it has read nothing, others lie":           {Reader{}, Place{1, 9}, 9, Gap{}},
		"nothing is missing":                        {reading(Place{1, 9}, false), Place{1, 9}, 0, Gap{}},
		"some are no longer kept":                   {reading(Place{1, 9}, false), Place{1, 12}, 3, Gap{Is: true, Count: 3}},
		"another run":                               {reading(Place{1, 9}, false), Place{2, 0}, 0, Gap{Is: true}},
		"another run that has forgotten some":       {reading(Place{1, 9}, false), Place{2, 3}, 3, Gap{Is: true}},
		"the run had ended":                         {reading(Place{1, 9}, true), Place{2, 0}, 0, Gap{}},
		"it had ended, the next has forgotten some": {reading(Place{1, 9}, true), Place{2, 3}, 3, Gap{Is: true, Count: 3}},
		"it had ended, and goes on all the same":    {reading(Place{1, 9}, true), Place{1, 11}, 2, Gap{Is: true, Count: 2}},
		// The attack: numbers that cannot be.
		"backwards":                       {reading(Place{1, 9}, false), Place{1, 3}, 0, Gap{Is: true}},
		"backwards, past zero":            {reading(Place{1, 9}, false), Place{1, 0}, math.MaxUint64 - 8, Gap{Is: true}},
		"a hole that is not admitted":     {reading(Place{1, 9}, false), Place{1, 12}, 0, Gap{Is: true}},
		"more missing than there were":    {reading(Place{1, 9}, false), Place{1, 12}, 7, Gap{Is: true}},
		"more missing than is believed":   {reading(Place{1, 0}, false), Place{1, math.MaxUint64}, math.MaxUint64, Gap{Is: true}},
		"the most that is believed":       {reading(Place{1, 0}, false), Place{1, maxMissed}, maxMissed, Gap{Is: true, Count: maxMissed}},
		"one more than that":              {reading(Place{1, 0}, false), Place{1, maxMissed + 1}, maxMissed + 1, Gap{Is: true}},
		"ended, and more than there were": {reading(Place{1, 9}, true), Place{2, 0}, 5, Gap{Is: true}},
	} {
		r := c.before
		got, err := r.Begin(c.begin, c.missed)
		if err != nil || got != c.want || r.Place() != c.begin || r.ended {
			t.Errorf("%s: %v, %v, at %v", name, got, err, r.Place())
		}
	}
	r := reading(Place{1, 9}, true)
	if _, err := r.Begin(Place{}, 0); err == nil || r.Place() != (Place{1, 9}) || !r.ended {
		t.Errorf("a stream without a run: %v, at %v", err, r.Place())
	}
}

func TestNumbersFollowEachOther(t *testing.T) {
	for name, next := range map[string]Place{
		"the same": {1, 9}, "backwards": {1, 8}, "zero": {1, 0}, "a hole": {1, 11}, "another run": {2, 10}, "no run": {0, 10},
		"the largest": {1, math.MaxUint64},
	} {
		r := reading(Place{1, 9}, false)
		if err := r.Next(next); err == nil || r.Place() != (Place{1, 9}) {
			t.Errorf("%s: %v, at %v", name, err, r.Place())
		}
	}
	r := reading(Place{1, 9}, false)
	if err := r.Next(Place{1, 10}); err != nil || r.Place() != (Place{1, 10}) {
		t.Errorf("%v, at %v", err, r.Place())
	}
	if r = reading(Place{1, math.MaxUint64}, false); r.Next(Place{1, 0}) == nil {
		t.Error("after the largest number comes zero")
	}
}

func TestAMarkIsReadBack(t *testing.T) {
	for _, r := range []Reader{{}, reading(Place{1, 0}, false), reading(Place{math.MaxUint64, math.MaxUint64}, true)} {
		if got := Parse(r.Mark()); got != r {
			t.Errorf("%v became %q and %v", r, r.Mark(), got)
		}
	}
	for _, odd := range []string{"", "x", "1", "-1 5", "end", "18446744073709551616 1"} {
		if got := Parse(odd); got != (Reader{}) {
			t.Errorf("%q became %v", odd, got)
		}
	}
}

// A Log that goes on keeps no more than it may, and what it returns is not changed by later events.
func TestALogGoesOnWithinItsBounds(t *testing.T) {
	clock := func() time.Time { return time.Unix(7, 0) }
	var events []*basev1.Event
	for range 3 * MaxEvents {
		events = append(events, &basev1.Event{})
	}
	l := Resume(clock, Place{Run: 5, Number: 1000}, events)
	past := l.After(Place{Run: 5})
	if len(past.Events) != MaxEvents || past.Missed != 1000-MaxEvents || past.Begin != (Place{5, 1000 - MaxEvents}) {
		t.Errorf("%d events, %d missed, from %v", len(past.Events), past.Missed, past.Begin)
	}
	for range MaxEvents {
		l.Add(&basev1.Event{})
	}
	if past.Events[0] == nil || l.Last() != (Place{5, 1000 + MaxEvents}) {
		t.Errorf("%v, at %v", past.Events[0], l.Last())
	}
	if l = Resume(clock, Place{Run: 5, Number: 2}, events); len(l.Kept()) != 2 {
		t.Errorf("of 2 events %d are kept", len(l.Kept()))
	}
}
