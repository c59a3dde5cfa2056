package owner

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/client"
)

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

// hears has a book take news.
func (b *book) hears(news ...any) {
	for _, n := range news {
		b.take(n, noon)
	}
}

func names(bases []client.Base) (list []string) {
	for _, b := range bases {
		list = append(list, b.Name)
	}
	return list
}

func TestManyBasesAreAskedWithinBounds(t *testing.T) {
	b := &book{}
	var bases []client.Base
	for n := range MaxFollowed + 10 {
		bases = append(bases, client.Base{Name: fmt.Sprintf("%02d", n), PublicKey: [32]byte{byte(n)}, State: client.Active})
	}
	bases[0].State = client.Revoked
	b.hears(Knows{Bases: bases})
	asked := names(b.follow())
	if len(asked) != MaxFollowed || asked[0] != "01" {
		t.Errorf("%d are asked: %v", len(asked), asked)
	}
	last := b.state.Bases[MaxFollowed+9]
	if last.Connection != Unfollowed || b.state.Bases[0].Connection != Ended {
		t.Errorf("the last one is %d, a revoked one %d", last.Connection, b.state.Bases[0].Connection)
	}
	b.hears(Knows{Bases: bases[10:]}) // some were forgotten
	if asked = names(b.follow()); !slices.Contains(asked, last.Name) || b.base(last.Name).Connection != Connecting {
		t.Errorf("in their place %v are asked", asked)
	}
	for n := range 10_000 {
		b.hears(Heard{ID: n, Found: client.Nearby{Name: fmt.Sprint(n)}})
	}
	if len(b.state.Nearby) != client.MaxNearby {
		t.Errorf("%d are nearby", len(b.state.Nearby))
	}
}

func TestABaseDisappearsWhenItsAnnouncementsEnd(t *testing.T) {
	b := &book{}
	b.hears(Heard{ID: 0, Found: client.Nearby{Name: "a"}}, Heard{ID: 1, Found: client.Nearby{Name: "b"}})
	for range RoundsKept {
		b.hears(Searched{})
	}
	if len(b.state.Nearby) != 2 {
		t.Errorf("they are gone too early: %v", b.state.Nearby)
	}
	b.hears(Heard{ID: 0, Found: client.Nearby{Name: "a"}}, Searched{})
	if got := b.state.Nearby; len(got) != 1 || got[0].ID != 0 {
		t.Errorf("%v are left", got)
	}
}

func TestARePairedBaseTakesTheRevokedOnesPlace(t *testing.T) {
	b := &book{}
	b.hears(Knows{Bases: []client.Base{{Name: "kitchen", State: client.Active, AppID: "old"}}},
		Silence{Base: "kitchen", Err: client.ErrRevoked, Final: true},
		Knows{Bases: []client.Base{
			{Name: "kitchen", State: client.Revoked, AppID: "old"},
			{Name: "kitchen", State: client.Active, AppID: "new"},
		}})
	if got := b.state.Bases; len(got) != 1 || got[0].AppID != "new" || got[0].Connection != Connecting {
		t.Errorf("the Bases are %+v", got)
	}
	if asked := b.follow(); len(asked) != 1 || asked[0].AppID != "new" {
		t.Errorf("%v are asked", asked)
	}
}

func numbered(sequence uint64, past bool, e *basev1.Event) Happened {
	e.Sequence, e.Past = sequence, past
	return Happened{Base: "kitchen", Event: e}
}

func aChange(reason string) *basev1.Event {
	return &basev1.Event{Event: &basev1.Event_ApplyFailed{ApplyFailed: &basev1.ApplyFailedEvent{Reason: reason}}}
}

func subscribed(last uint64) Happened {
	return numbered(0, false, &basev1.Event{Event: &basev1.Event_Subscribed{Subscribed: &basev1.SubscribedEvent{LastSequence: last}}})
}

func TestEventsThatAreMissingAreCounted(t *testing.T) {
	b := &book{}
	b.hears(Knows{Bases: []client.Base{{Name: "kitchen", State: client.Active}}})
	missing := func(what string, want int) {
		t.Helper()
		if got := b.base("kitchen").Missing; got != want {
			t.Errorf("%s: %d are missing, not %d", what, got, want)
		}
	}
	b.hears(numbered(4, true, aChange("a")), numbered(6, true, aChange("b")), subscribed(7))
	missing("1 to 3, 5 and 7", 5)
	b.hears(numbered(8, false, aChange("c")), numbered(0, false, &basev1.Event{Event: &basev1.Event_BansChanged{}}))
	missing("8 has come", 5)
	b.hears(subscribed(8), numbered(9, false, aChange("d")))
	missing("the stream was cut", 5)
	b.hears(subscribed(10), numbered(11, false, aChange("e")))
	missing("10 was forgotten meanwhile", 6)
	b.hears(subscribed(1), numbered(2, false, aChange("f")))
	missing("after a reset it counts from 1 again", 6)
	b.hears(numbered(1<<63, false, aChange("g")), subscribed(1), numbered(1<<63, false, aChange("h")))
	missing("a Base lies", mostMissing)
}

// MaxEvents of the longest answers would be 800 MB.
func TestALongEventIsNotKept(t *testing.T) {
	for length, kept := range map[int]int{1000: 1, longestEvent: 0} {
		b := &book{}
		b.hears(Knows{Bases: []client.Base{{Name: "kitchen", State: client.Active}}}, numbered(1, false, aChange(strings.Repeat("x", length))))
		if got := b.base("kitchen"); len(got.Events) != kept || got.Missing != 1-kept {
			t.Errorf("%d bytes: %d events, %d missing", length, len(got.Events), got.Missing)
		}
	}
}

func TestEventsThatSayTheSameAreMerged(t *testing.T) {
	b := &book{}
	b.hears(Knows{Bases: []client.Base{{Name: "kitchen", State: client.Active}}})
	for n := range uint64(100) {
		b.hears(numbered(2*n+1, false, aChange("a")), numbered(2*n+2, false, aChange("b")))
	}
	if got := b.base("kitchen").Events; len(got) != 2 || got[0].Times != 100 || got[1].Times != 100 {
		t.Errorf("they are %v", got)
	}
}
