package owner

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/client"
)

// book is what is known, and what it takes in. It does no I/O.
type book struct {
	state State
	found []found
	round int
}

// found is an announced Base, and the round of searching in which it was heard last.
type found struct {
	Announced
	round int
}

// given returns the state, for somebody who keeps it.
func (b *book) given() State {
	s := b.state
	s.Bases = slices.Clone(s.Bases)
	for i := range s.Bases {
		s.Bases[i].Events = slices.Clone(s.Bases[i].Events)
		s.Bases[i].Parts = maps.Clone(s.Bases[i].Parts)
	}
	s.Nearby, s.Deeds = slices.Clone(s.Nearby), slices.Clone(s.Deeds)
	for i := range s.Deeds {
		s.Deeds[i].Steps = slices.Clone(s.Deeds[i].Steps)
	}
	return s
}

// base returns the Base that the App calls so; nil: none.
func (b *book) base(name string) *Base {
	for i := range b.state.Bases {
		if b.state.Bases[i].Name == name {
			return &b.state.Bases[i]
		}
	}
	return nil
}

// byID returns the Base with this id; nil: none.
func (b *book) byID(id string) *Base {
	for i := range b.state.Bases {
		if b.state.Bases[i].ID() == id {
			return &b.state.Bases[i]
		}
	}
	return nil
}

// take takes in the news of a Follower.
func (b *book) take(news any, now time.Time) {
	switch n := news.(type) {
	case Knows:
		b.know(n)
	case Heard:
		b.hear(n)
	case Searched:
		b.state.SearchErr = n.Err
		b.round++
		b.found = slices.DeleteFunc(b.found, func(f found) bool { return f.round < b.round-RoundsKept })
		b.list()
	case Healthy:
		if base := b.base(n.Base); base != nil && base.Look.Info != nil {
			base.Look.Info = n.Info
		}
	case Looked:
		b.look(n, now)
	case Audited:
		if base := b.base(n.Base); base != nil {
			base.Auditing, base.AuditErr = false, n.Err
			if n.Err == nil {
				base.Findings, base.HasAudit, base.AuditedAt = Most(n.Findings), n.Known, now
			}
		}
	case Happened:
		b.happen(n)
	case Doubt:
		if base := b.base(n.Base); base != nil {
			base.Connection = Doubted
		}
	case Silence:
		if base := b.base(n.Base); base != nil {
			base.Connection, base.Err, base.Again, base.Auditing = Lost, n.Err, now.Add(n.Again), false
			if n.Final {
				base.Connection = Ended
			}
		}
	}
}

func (b *book) look(n Looked, now time.Time) {
	base := b.base(n.Base)
	if base == nil {
		return
	}
	base.Connection, base.Look, base.At, base.Err = Connected, n.Look.Bounded(), now, nil
	if base.State == client.Pending {
		base.State = client.Active // the first answer makes it active
	}
}

// know takes the list of pairings.
func (b *book) know(n Knows) {
	b.state.StorageErr = n.Err
	if n.Err != nil {
		return
	}
	var pairings []client.Base // one of each name: a revoked one may have that of the one that replaces it
	for _, known := range n.Bases {
		at := slices.IndexFunc(pairings, func(p client.Base) bool { return p.Name == known.Name })
		if at < 0 {
			pairings = append(pairings, known)
		} else if known.State.Usable() {
			pairings[at] = known
		}
	}
	list := make([]Base, len(pairings))
	for n, known := range pairings {
		at := slices.IndexFunc(b.state.Bases, func(o Base) bool { return o.PublicKey == known.PublicKey && o.AppID == known.AppID })
		if at >= 0 { // it may have another name now
			list[n] = b.state.Bases[at]
		}
		list[n].Base = known
	}
	b.state.Bases = list
	for n, followed := 0, 0; n < len(list); n++ {
		switch usable, c := list[n].State.Usable(), &list[n].Connection; {
		case !usable:
			*c = Ended
		case followed == MaxFollowed:
			*c = Unfollowed
		default:
			if followed++; *c == Unfollowed {
				*c = Connecting
			}
		}
	}
}

// follow returns the Bases to ask.
func (b *book) follow() (bases []client.Base) {
	for _, base := range b.state.Bases {
		if base.State.Usable() && base.Connection != Unfollowed {
			bases = append(bases, base.Base)
		}
	}
	return bases
}

func (b *book) hear(n Heard) {
	f := found{Announced{n.Found, n.ID}, b.round}
	if at := slices.IndexFunc(b.found, func(o found) bool { return o.ID == n.ID }); at >= 0 {
		b.found[at] = f
	} else if len(b.found) < client.MaxNearby {
		b.found = append(b.found, f)
		slices.SortStableFunc(b.found, func(a, b found) int { return strings.Compare(a.Name, b.Name) })
	}
	b.list()
}

func (b *book) list() {
	b.state.Nearby = nil
	for _, f := range b.found {
		b.state.Nearby = append(b.state.Nearby, f.Announced)
	}
}

// longestEvent bounds an event that is kept, in bytes. A Base sends shorter ones (package events of the
// Middleware); one that lies could fill the memory with MaxEvents of them.
const longestEvent = 64 << 10

// sameWithin is among how many of the newest events the same one is looked for.
const sameWithin = 8

func (b *book) happen(n Happened) {
	base := b.base(n.Base)
	if base == nil {
		return
	}
	if s := n.Event.GetSubscribed(); s != nil {
		base.hear(s.GetLastSequence() + 1)
		base.heard = s.GetLastSequence() // after a reset a Base counts from 1 again
		return
	}
	if s := n.Event.GetSequence(); s != 0 {
		base.hear(s)
	}
	if proto.Size(n.Event) > longestEvent {
		base.Missing++
		return
	}
	if app := cmp.Or(n.Event.GetSessionStarted().GetApp(), n.Event.GetSessionEnded().GetApp()); app.GetId() == base.AppID && app != nil {
		return // that is this process, or commands of the same App
	}
	at := n.Event.GetTime().AsTime()
	e := Event{First: at, At: at, Times: 1, Event: n.Event}
	for i := len(base.Events) - 1; i >= max(0, len(base.Events)-sameWithin); i-- {
		if old := base.Events[i]; same(old.Event, n.Event) {
			e.First, e.Times = old.First, old.Times+1
			base.Events = slices.Delete(slices.Clone(base.Events), i, i+1)
			break
		}
	}
	base.Events = append(base.Events, e)
	if more := len(base.Events) - MaxEvents; more > 0 {
		base.Events = slices.Clone(base.Events[more:])
	}
}

// hear counts the events that are missing before the one with this sequence: a Base counts those that it
// keeps.
func (b *Base) hear(sequence uint64) {
	if sequence > b.heard {
		b.Missing = min(b.Missing+int(min(sequence-b.heard-1, mostMissing)), mostMissing)
		b.heard = sequence
	}
}

// mostMissing bounds a number that a Base decides.
const mostMissing = 1_000_000

// same tells whether two events differ in their times and numbers only.
func same(a, b *basev1.Event) bool {
	plain := func(e *basev1.Event) *basev1.Event {
		e = proto.CloneOf(e)
		e.Time, e.Sequence, e.Past = nil, 0, false
		return e
	}
	return proto.Equal(plain(a), plain(b))
}

// deed returns the deed with this number; nil: none.
func (b *book) deed(number uint64) *DeedState {
	for i := range b.state.Deeds {
		if b.state.Deeds[i].Number == number {
			return &b.state.Deeds[i]
		}
	}
	return nil
}

// begin adds a deed, before all others, and forgets the oldest that have ended.
func (b *book) begin(d DeedState) {
	b.state.Deeds = append([]DeedState{d}, b.state.Deeds...)
	for i := len(b.state.Deeds) - 1; i >= 0 && len(b.state.Deeds) > MaxDeeds; i-- {
		if !b.state.Deeds[i].Ended.IsZero() {
			b.state.Deeds = slices.Delete(b.state.Deeds, i, i+1)
		}
	}
}

// underWay counts the deeds that have not ended; of one Base, if base is not empty.
func (b *book) underWay(base string) (n int) {
	for _, d := range b.state.Deeds {
		if d.Ended.IsZero() && (base == "" || d.Base == base) {
			n++
		}
	}
	return n
}

// lockdowns counts those of a Base that are under way.
func (b *book) lockdowns(base string) (n int) {
	for _, d := range b.state.Deeds {
		if d.Deed.Kind == Lockdown && d.Base == base && d.Ended.IsZero() {
			n++
		}
	}
	return n
}

// forget drops the answer to a part.
func (b *book) forget(part wantedPart) {
	if base := b.byID(part.base); base != nil {
		delete(base.Parts, part.Want)
	}
}
