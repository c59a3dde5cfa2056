package changelog

import (
	"slices"
	"strings"
	"testing"
	"time"

	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
)

// flooded plays an owner's change, and then two weeks of fifty refused requests an hour.
// It returns whether the owner's change is still in the log, and how often the flood is.
func flooded(t *testing.T, limited bool) (owners bool, flood int, sums string) {
	t.Helper()
	var limiter Limiter
	l := Restore(0, Hash{})
	record := func(e *systemv1.ChangeEntry) {
		if s, err := l.Next(e); err != nil {
			t.Fatal(err)
		} else if err := l.Add(s.Bytes); err != nil {
			t.Fatal(err)
		}
		l.Forget()
	}
	owner := draft(Posture, "revision 7")
	owner.Actor = systemv1.ChangeEntry_ACTOR_OWNER
	record(owner)
	refused := draft(Reboot, "")
	refused.Failure = "the role does not allow that"
	const hours = 14 * 24
	for hour := range hours {
		for n := range 50 {
			now := time.Duration(hour)*time.Hour + time.Duration(n)*time.Second
			for _, sum := range limiter.Sums(now, false) {
				record(sum)
			}
			if !limited || limiter.Take(Refused, refused, now) {
				record(refused)
			}
		}
	}
	l.Newest(func(e *systemv1.ChangeEntry) bool {
		switch e.GetWhat() {
		case Posture:
			owners = true
		case NotListed:
			flood++
			sums = e.GetDetail()
		default:
			flood++
		}
		return true
	})
	return owners, flood, sums
}

func TestAFloodOfRefusedRequestsDoesNotPushTheLogOut(t *testing.T) {
	owners, flood, sum := flooded(t, true)
	if !owners || flood > MaxEntries/2 {
		t.Errorf("after two weeks of it the owner's change is there: %v; %d entries are of the flood", owners, flood)
	}
	if !strings.Contains(sum, "reboot by Laptop refused") {
		t.Errorf("the sum says %q", sum)
	}
	if owners, _, _ := flooded(t, false); owners {
		t.Error("without places the owner's change is still there; this attack proves nothing")
	}
}

func TestEntriesWithoutAPlaceAreCountedAndListedInSum(t *testing.T) {
	var limiter Limiter
	e := draft(TimeZone, "Europe/Zurich")
	for range Places {
		if !limiter.Take(Unsigned, e, 0) {
			t.Fatal("no place")
		}
	}
	for n := range 10 {
		e.AppName = strings.Repeat("x", n+1)
		if limiter.Take(Unsigned, e, time.Second) {
			t.Fatal("there is a place too many")
		}
	}
	if !limiter.Take(Refused, e, time.Second) || !limiter.Take(Unlimited, e, time.Second) {
		t.Error("a flood of one kind takes the places of another")
	}
	if sums := limiter.Sums(PlaceBack-1, false); len(sums) != 0 {
		t.Errorf("too early: %v", sums)
	}
	sums := limiter.Sums(PlaceBack, false)
	if len(sums) != 1 || !strings.HasPrefix(sums[0].GetDetail(), "10 since 2027-01-15 08:00:00 UTC: 1 time-zone by x, 1 time-zone by xx") ||
		!strings.HasSuffix(sums[0].GetDetail(), ", 4 others") {
		t.Errorf("%v", sums)
	}
	if sums := limiter.Sums(10*PlaceBack, true); len(sums) != 0 {
		t.Errorf("counted twice: %v", sums)
	}
	// Nothing counted is lost when the helper ends.
	limiter = Limiter{}
	for range Places + 1 {
		limiter.Take(Unsigned, e, 0)
	}
	if sums := limiter.Sums(0, true); len(sums) != 1 {
		t.Errorf("at the end: %v", sums)
	}
}

// restarts plays a flood for a day by somebody who restarts the machine every six
// minutes, and returns how many entries that makes.
func restarts(t *testing.T, recall bool) int {
	t.Helper()
	l := Restore(0, Hash{})
	const begun = 1795723082
	record := func(entries ...*systemv1.ChangeEntry) {
		for _, e := range entries {
			if s, err := l.Next(e); err != nil {
				t.Fatal(err)
			} else if err := l.Add(s.Bytes); err != nil {
				t.Fatal(err)
			}
		}
	}
	for boot := range 24 * 10 {
		var limiter Limiter
		wall := begun + int64(boot)*6*60
		if recall {
			limiter.Recall(l.Newest, wall, 0)
		}
		for n := range 2 * Places {
			e := draft(Reboot, "")
			e.Time = wall + int64(n)
			if limiter.Take(Unsigned, e, time.Duration(n)*time.Second) {
				record(e)
			}
		}
		for _, e := range limiter.Sums(5*time.Minute, true) {
			e.Time = wall + 300
			record(e)
		}
	}
	return l.Len()
}

func TestPlacesThatWereTakenAreTakenAfterARestart(t *testing.T) {
	if got := restarts(t, true); got > Places+144+240 {
		t.Errorf("a day of restarts makes %d entries", got)
	}
	if got := restarts(t, false); got < MaxEntries {
		t.Errorf("without it a day makes %d entries; this attack proves nothing", got)
	}
}

func TestRecallingGoesByWhatTheLogSays(t *testing.T) {
	const wall = 1795723082
	unsigned := func(age time.Duration) *systemv1.ChangeEntry {
		e := draft(Reboot, "")
		e.Time = wall - int64(age/time.Second)
		return e
	}
	refused := func(age time.Duration) *systemv1.ChangeEntry {
		e := unsigned(age)
		e.Failure = "no"
		return e
	}
	owners := unsigned(0)
	owners.Actor = systemv1.ChangeEntry_ACTOR_OWNER
	many := func(n int, e *systemv1.ChangeEntry) []*systemv1.ChangeEntry {
		return slices.Repeat([]*systemv1.ChangeEntry{e}, n)
	}
	for name, c := range map[string]struct {
		entries []*systemv1.ChangeEntry
		free    int // places of the kind Unsigned
	}{
		"nothing":                        {nil, Places},
		"some":                           {many(10, unsigned(0)), Places - 10},
		"too many":                       {many(2*Places, unsigned(0)), 0},
		"long ago":                       {many(Places, unsigned(Places*PlaceBack)), Places},
		"an hour ago":                    {many(Places, unsigned(time.Hour)), 6},
		"a clock that was set back":      {many(Places, unsigned(-1000*time.Hour)), 0},
		"before an hour of one each":     {append(many(5, unsigned(time.Hour)), unsigned(0)), Places - 1},
		"others":                         {append(many(Places, owners), many(Places, refused(0))...), Places},
		"a flood, and an owner after it": {append(many(Places, unsigned(0)), many(500, owners)...), 0},
	} {
		var limiter Limiter
		limiter.Recall(func(look func(*systemv1.ChangeEntry) bool) {
			for _, e := range slices.Backward(c.entries) {
				if !look(e) {
					return
				}
			}
		}, wall, 7*time.Second)
		free := 0
		for range Places + 1 {
			if limiter.Take(Unsigned, unsigned(0), 7*time.Second) {
				free++
			}
		}
		if free != c.free {
			t.Errorf("%s: %d places are free, not %d", name, free, c.free)
		}
	}
}
