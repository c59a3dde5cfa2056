package changelog

import (
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

func TestWhatFindsNoPlaceIsCountedAndListedInSum(t *testing.T) {
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
