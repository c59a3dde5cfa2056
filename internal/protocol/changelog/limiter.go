package changelog

import (
	"fmt"
	"slices"
	"strings"
	"time"

	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
)

// Entries that need no signature could push all others out of the log: a Middleware that
// was taken over can cause them, and so can an App with a lesser role. So each kind of them has
// places, which come back slowly. Entries without a place are counted and listed in sum.
const (
	// Places is how many entries of one kind come at once.
	Places = 50
	// PlaceBack is how soon one place comes back: 144 a day, so that a flood of one kind takes
	// more than two months to fill the log; three weeks, if the machine is restarted with it
	// again and again, since each end lists in sum what was not yet.
	PlaceBack = 10 * time.Minute
	// maxSum is how many different things one entry of the kind "not listed" names.
	maxSum = 6
)

// Kind is what shares places.
type Kind int

// Kinds.
const (
	// Unlimited is what takes an owner's signature or a hand at the Base, and what the
	// Base does by itself.
	Unlimited Kind = iota
	// Unsigned was done by the Middleware's word alone.
	Unsigned
	// Refused was refused, or failed, and was asked for by the Middleware.
	Refused
	// RefusedLocal is the same, asked for by a user at the Base.
	RefusedLocal
	kinds
)

// Limiter gives out places, by a clock that never goes back. The zero Limiter has none
// taken.
type Limiter struct {
	kinds [kinds]places
}

type places struct {
	taken  int
	backAt time.Duration // when the next one comes back; meaningless while none is taken
	// The entries that found no place, counted by their text.
	sums  []sum
	since int64
}

type sum struct {
	what string
	n    int
}

// kindsOf returns with which kinds an entry of the log shares its place. That in sum does not
// say of which kind it is, so it counts for each.
func kindsOf(e *systemv1.ChangeEntry) []Kind {
	switch e.GetActor() {
	case systemv1.ChangeEntry_ACTOR_APP:
		if e.GetFailure() != "" {
			return []Kind{Refused}
		}
		return []Kind{Unsigned}
	case systemv1.ChangeEntry_ACTOR_CONSOLE, systemv1.ChangeEntry_ACTOR_ROOT:
		if e.GetFailure() != "" {
			return []Kind{RefusedLocal}
		}
	case systemv1.ChangeEntry_ACTOR_BASE:
		switch e.GetWhat() {
		case NotListed:
			return []Kind{Unsigned, Refused, RefusedLocal}
		case UpdateEnded: // the Middleware can bring one again and again
			return []Kind{Unsigned}
		}
	}
	return nil
}

// Recall has a zero Limiter know of the places that the newest entries of a log have taken
// (Log.Newest), by the time of day, now and in them: otherwise all would be free after each
// restart, and an App may restart the machine. An entry from the future counts as new.
func (l *Limiter) Recall(newest func(look func(*systemv1.ChangeEntry) bool), wall int64, now time.Duration) {
	const remembered = Places * PlaceBack
	var ages [kinds][]time.Duration // the newest first
	newest(func(e *systemv1.ChangeEntry) bool {
		seconds := min(max(0, wall-e.GetTime()), int64(remembered/time.Second))
		for _, kind := range kindsOf(e) {
			if age := time.Duration(seconds) * time.Second; age < remembered {
				ages[kind] = append(ages[kind], age)
			}
		}
		return true
	})
	for kind := range ages {
		for _, age := range slices.Backward(ages[kind]) {
			l.kinds[kind].refill(now - age)
			l.kinds[kind].take(now - age)
		}
	}
}

// Take tells whether an entry is to be recorded. If not, it is counted.
func (l *Limiter) Take(kind Kind, e *systemv1.ChangeEntry, now time.Duration) bool {
	if kind == Unlimited {
		return true
	}
	p := &l.kinds[kind]
	p.refill(now)
	// While something waits to be listed in sum, its entry comes first.
	if len(p.sums) == 0 && p.take(now) {
		return true
	}
	p.count(e)
	return false
}

func (p *places) take(now time.Duration) bool {
	if p.taken >= Places {
		return false
	}
	if p.taken == 0 {
		p.backAt = now + PlaceBack
	}
	p.taken++
	return true
}

func (p *places) refill(now time.Duration) {
	for p.taken > 0 && now >= p.backAt {
		p.taken--
		p.backAt += PlaceBack
	}
}

func (p *places) count(e *systemv1.ChangeEntry) {
	if len(p.sums) == 0 {
		p.since = e.GetTime()
	}
	what := e.GetWhat()
	if e.GetAppName() != "" {
		what += " by " + e.GetAppName()
	}
	if e.GetFailure() != "" {
		what += " refused"
	}
	i := slices.IndexFunc(p.sums, func(s sum) bool { return s.what == what })
	switch {
	case i >= 0:
		p.sums[i].n++
	case len(p.sums) < maxSum:
		p.sums = append(p.sums, sum{what, 1})
	case len(p.sums) == maxSum:
		p.sums = append(p.sums, sum{"others", 1})
	default:
		p.sums[maxSum].n++
	}
}

// Sums returns an entry for each kind of which something was counted and a place has come
// back; all: whether or not one has. It forgets the counts that it returns.
func (l *Limiter) Sums(now time.Duration, all bool) []*systemv1.ChangeEntry {
	var entries []*systemv1.ChangeEntry
	for kind := range l.kinds {
		p := &l.kinds[kind]
		p.refill(now)
		if len(p.sums) == 0 || !p.take(now) && !all {
			continue
		}
		total, parts := 0, []string(nil)
		for _, s := range p.sums {
			total += s.n
			parts = append(parts, fmt.Sprintf("%d %s", s.n, s.what))
		}
		entries = append(entries, &systemv1.ChangeEntry{
			Actor: systemv1.ChangeEntry_ACTOR_BASE, What: NotListed,
			Detail: fmt.Sprintf("%d since %s: %s", total, time.Unix(p.since, 0).UTC().Format(time.DateTime+" UTC"), strings.Join(parts, ", ")),
		})
		p.sums = nil
	}
	return entries
}
