package events

import (
	"encoding/binary"
	"errors"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/failpoint"
	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
	"github.com/BitBoxSwiss/bitbox-base/internal/state"
)

// The options of the database of the history. It is separate from the one of the pairings: each
// connection writes to that, and would have to hash the history as well; and a damaged history
// must not keep an owner out.
const (
	HistoryKind   = "bitbox-base events"
	HistorySchema = 1
)

// Buckets and keys of the history:
//
//	events  sequence (8)   -> Event
//	marks   forgotten      the highest sequence that was forgotten (8)
//	        boot           the boot in which the Middleware was started last
//	        update         the update whose end was told last
//	        helper         the last event of the system helper that was heard (backlog.Reader)
//	        node           the last event of bitbox-node that was heard
//	        running        there from the first event after a start to an orderly stop
const (
	bucketEvents = "events"
	bucketMarks  = "marks"

	markForgotten = "forgotten"
	markBoot      = "boot"
	markUpdate    = "update"
	markHelper    = "helper"
	markNode      = "node"
	markRunning   = "running"
)

// Bounds of the history.
const (
	// keptOfAKind is how many events of each kind are kept, so that a kind that strangers can
	// cause (bans, pairing attempts) does not displace others.
	keptOfAKind = 100
	// maxKept is the size of a kept event, in bytes. Longer lists are shortened: ListBans and
	// RunAudit have all entries.
	maxKept = 2048
)

// ErrNoHistory: the history of events cannot be used.
var ErrNoHistory = reason.New("the history of events cannot be used; what happens from now on is told all the same")

// policies has the kinds of events, by their names in events.proto, that are not simply kept and
// reported at once.
var policies = map[string]policy{
	"subscribed":      {passing: true},
	"session_started": {passing: true},
	"session_ended":   {passing: true},

	// Strangers and faults can cause these as often as they like.
	"bans_changed": {paced: true, merge: func(into, e *basev1.Event) {
		into.GetBansChanged().Banned = append(into.GetBansChanged().Banned, e.GetBansChanged().GetBanned()...)
		into.GetBansChanged().Lifted = append(into.GetBansChanged().Lifted, e.GetBansChanged().GetLifted()...)
	}},
	"pairing_attempt": {paced: true, merge: func(into, e *basev1.Event) {
		a, b := into.GetPairingAttempt(), e.GetPairingAttempt()
		a.Requests, a.Ignored = a.GetRequests()+b.GetRequests(), a.GetIgnored() && b.GetIgnored()
	}},
	"drift_found": {paced: true, merge: func(into, e *basev1.Event) {
		into.GetDriftFound().Findings = append(into.GetDriftFound().Findings, e.GetDriftFound().GetFindings()...)
	}},
	"events_missed": {paced: true, merge: func(into, e *basev1.Event) {
		a, b := into.GetEventsMissed(), e.GetEventsMissed()
		a.Count = sum(a.Count, b.Count)
	}},
	"apply_failed":      {paced: true},
	"service_failed":    {paced: true, subject: func(e *basev1.Event) string { return e.GetServiceFailed().GetService().GetName() }},
	"service_recovered": {paced: true, subject: func(e *basev1.Event) string { return e.GetServiceRecovered().GetService().GetName() }},
	"disk_filling":      {paced: true},
	"update_waiting":    {paced: true},

	// A node, or an attacker who has taken it over, causes these at will.
	"node_stopped":      {paced: true},
	"node_behind":       {paced: true},
	"node_caught_up":    {paced: true},
	"node_lonely":       {paced: true},
	"chain_reorganised": {paced: true},
	"node_disk_filling": {paced: true},
	"node_unmaintained": {paced: true},
	"node_events_missed": {paced: true, merge: func(into, e *basev1.Event) {
		a, b := into.GetNodeEventsMissed(), e.GetNodeEventsMissed()
		a.Count = sum(a.Count, b.Count)
	}},
}

// sum adds two numbers of missing events; nil: nobody knows.
func sum(a, b *uint64) *uint64 {
	if a == nil || b == nil {
		return nil
	}
	return proto.Uint64(*a + *b)
}

// policy says what happens to events of a kind.
type policy struct {
	// passing: it is not in the history, and has the sequence 0.
	passing bool
	// paced: an event that comes faster than eventPlaces allows waits, and is merged.
	paced bool
	// subject tells apart two events of a kind that must not be merged; nil: there is only one.
	subject func(*basev1.Event) string
	// merge adds a later event to a waiting one; nil: the later one replaces it, and says how
	// many it stands for (left_out).
	merge func(into, e *basev1.Event)
}

func (p policy) subjectOf(e *basev1.Event) string {
	if p.subject == nil {
		return ""
	}
	return p.subject(e)
}

// KindOf is the name of an event's kind.
func KindOf(e *basev1.Event) string {
	m := e.ProtoReflect()
	field := m.WhichOneof(m.Descriptor().Oneofs().ByName("event"))
	if field == nil {
		return ""
	}
	return string(field.Name())
}

// shrink makes an event fit.
func shrink(e *basev1.Event) {
	for _, f := range e.GetDriftFound().GetFindings() {
		if proto.Size(e) <= maxKept {
			return
		}
		f.Expected, f.Found, f.Why, f.Fix = "", "", "", ""
	}
	for proto.Size(e) > maxKept {
		switch findings, banned, lifted, packages := e.GetDriftFound().GetFindings(), e.GetBansChanged().GetBanned(),
			e.GetBansChanged().GetLifted(),
			e.GetUpdateWaiting().GetPackages(); {
		case len(findings) > 1:
			e.GetDriftFound().Findings = shorter(e, findings)
		case len(lifted) > 0:
			e.GetBansChanged().Lifted = shorter(e, lifted)
		case len(banned) > 1:
			e.GetBansChanged().Banned = shorter(e, banned)
		case len(packages) > 1:
			e.GetUpdateWaiting().Packages = shorter(e, packages)
		default:
			return
		}
	}
}

// shorter cuts an eighth off a list of an event, rounded up, and counts it: strangers can make a
// list of bans so long that measuring it again after each entry would take minutes.
func shorter[T any](e *basev1.Event, list []T) []T {
	off := (len(list) + 7) / 8
	e.Cut = proto.Uint32(e.GetCut() + uint32(off))
	return list[:len(list)-off]
}

// history is the events that are kept. The hub guards what is in memory; one goroutine at a time
// writes.
type history struct {
	db        *state.DB
	events    []*basev1.Event // by their sequence
	last      uint64
	forgotten uint64
	unkept    bool                       // after the last one there were events that are not kept
	cutOff    bool                       // the Middleware had not been stopped in an orderly way
	marks     map[string]string          // those of names that have words as values
	kindOf    func(*basev1.Event) string // replaced in tests
}

// mark is a short value that is kept with an event, so that the event is told once.
type mark struct{ name, value string }

// openHistory reads what is kept.
func openHistory(db *state.DB) (*history, error) {
	h := &history{db: db, marks: map[string]string{}, kindOf: KindOf}
	err := db.View(func(tx *state.Tx) error {
		for _, name := range []string{markBoot, markUpdate, markHelper, markNode} {
			if value := tx.Get(bucketMarks, name); value != nil {
				h.marks[name] = string(value)
			}
		}
		h.cutOff = tx.Get(bucketMarks, markRunning) != nil
		if mark := tx.Get(bucketMarks, markForgotten); len(mark) == 8 {
			h.forgotten = binary.BigEndian.Uint64(mark)
		}
		return tx.ForEach(bucketEvents, func(key string, value []byte) error {
			e := &basev1.Event{}
			if err := proto.Unmarshal(value, e); err != nil || len(key) != 8 || binary.BigEndian.Uint64([]byte(key)) != e.GetSequence() {
				return reason.Errorf("%w: an event cannot be read: %w", state.ErrDamaged, err)
			}
			h.events = append(h.events, e)
			return nil
		})
	})
	if err != nil {
		return nil, reason.Errorf("read the history of events: %w", err)
	}
	h.last = h.forgotten
	if n := len(h.events); n > 0 {
		h.last = max(h.last, h.events[n-1].GetSequence())
	}
	return h, nil
}

func key(sequence uint64) string { return string(binary.BigEndian.AppendUint64(nil, sequence)) }

// stepKeep is where the disk is reached, for tests.
const stepKeep = "keep an event"

// added is what the history remembers of a write.
type added struct {
	event     *basev1.Event // nil: it could not be kept
	forgotten uint64
	oldest    int // the index of the event that had to go; -1: none
}

// write gives an event its sequence and keeps it on the disk, with marks. If it cannot be kept, it
// has no sequence: after a restart another event could get the same one. Then the next event that is
// kept leaves a gap of one sequence before it. write changes nothing in memory: take does. Nobody else
// may write meanwhile.
func (h *history) write(e *basev1.Event, marks ...*mark) (added, error) {
	forgotten := h.gap()
	e.Sequence = max(h.last, forgotten) + 1
	kind, of, oldest := h.kindOf(e), 0, -1
	for i, kept := range h.events {
		if h.kindOf(kept) == kind {
			if of++; oldest < 0 {
				oldest = i
			}
		}
	}
	if of < keptOfAKind {
		oldest = -1
	} else {
		forgotten = max(forgotten, h.events[oldest].GetSequence())
	}
	value, err := proto.Marshal(e)
	if err == nil {
		err = h.db.Update(func(tx *state.Tx) error {
			if oldest >= 0 {
				if err := tx.Delete(bucketEvents, key(h.events[oldest].GetSequence())); err != nil {
					return err
				}
			}
			for _, m := range append(marks, &mark{markRunning, "yes"}) {
				if err := tx.Put(bucketMarks, m.name, []byte(m.value)); err != nil {
					return err
				}
			}
			return errors.Join(failpoint.Reach(stepKeep), tx.Put(bucketEvents, key(e.GetSequence()), value),
				tx.Put(bucketMarks, markForgotten, binary.BigEndian.AppendUint64(nil, forgotten)))
		})
	}
	if err != nil {
		e.Sequence = 0
		return added{}, reason.Errorf("keep an event: %w", err)
	}
	return added{event: e, forgotten: forgotten, oldest: oldest}, nil
}

// gap is the highest sequence that is forgotten, with those that the events that are not kept take
// together.
func (h *history) gap() uint64 {
	if h.unkept {
		return h.last + 1
	}
	return h.forgotten
}

// end says on the disk that the Middleware was stopped in an orderly way, up to which sequence events
// are forgotten, and what was heard.
func (h *history) end(gap uint64, heard ...*mark) error {
	err := h.db.Update(func(tx *state.Tx) error {
		for _, m := range heard {
			if err := tx.Put(bucketMarks, m.name, []byte(m.value)); err != nil {
				return err
			}
		}
		return errors.Join(failpoint.Reach(stepKeep), tx.Delete(bucketMarks, markRunning),
			tx.Put(bucketMarks, markForgotten, binary.BigEndian.AppendUint64(nil, gap)))
	})
	if err != nil {
		return reason.Errorf("end the history of events: %w", err)
	}
	return nil
}

// take remembers what was written.
func (h *history) take(a added) {
	if a.event == nil {
		h.unkept = true
		return
	}
	h.last, h.forgotten, h.unkept = a.event.GetSequence(), a.forgotten, false
	if a.oldest >= 0 {
		h.events = slices.Delete(slices.Clone(h.events), a.oldest, a.oldest+1)
	}
	h.events = append(slices.Clip(h.events), a.event)
}

// since returns the kept events with a sequence above after; gap: there were others that are no
// longer kept.
func (h *history) since(after uint64) (events []*basev1.Event, gap bool) {
	i, _ := slices.BinarySearchFunc(h.events, after+1, func(e *basev1.Event, sequence uint64) int {
		switch {
		case e.GetSequence() < sequence:
			return -1
		case e.GetSequence() > sequence:
			return 1
		}
		return 0
	})
	return h.events[i:], h.gap() > after
}

// The pace of paced events of one kind. Events that come faster are merged and reported when a
// place is free again, so nobody can wear out the disk, or the patience of a reader.
const (
	// eventPlaces is how many events of a kind come at once.
	eventPlaces = 20
	// eventPlaceBack is how long until a place is free again.
	eventPlaceBack = 5 * time.Minute
	// maxWaitingEvents is how many events of a kind wait, each about something else: more than
	// there are services or Apps.
	maxWaitingEvents = 64
)

// pace limits how fast events of one kind come.
type pace struct {
	taken   int
	backAt  time.Time
	waiting []*basev1.Event
}

func (p *pace) take(now time.Time) bool {
	for p.taken > 0 && !now.Before(p.backAt) {
		p.taken--
		p.backAt = p.backAt.Add(eventPlaceBack)
	}
	if p.taken >= eventPlaces {
		return false
	}
	if p.taken == 0 {
		p.backAt = now.Add(eventPlaceBack)
	}
	p.taken++
	return true
}

// wait merges an event with a waiting one about the same thing, or makes it wait, too.
func (p *pace) wait(e *basev1.Event, of policy) {
	for i, waiting := range p.waiting {
		if of.subjectOf(waiting) != of.subjectOf(e) {
			continue
		}
		if of.merge == nil {
			e.LeftOut = proto.Uint32(waiting.GetLeftOut() + 1)
			p.waiting[i] = e
			return
		}
		of.merge(waiting, e)
		if cut := waiting.GetCut() + e.GetCut(); cut > 0 {
			waiting.Cut = proto.Uint32(cut)
		}
		waiting.Time = e.GetTime()
		shrink(waiting)
		return
	}
	p.waiting = append(p.waiting, e)
	if len(p.waiting) > maxWaitingEvents {
		p.waiting[1].LeftOut = proto.Uint32(p.waiting[1].GetLeftOut() + p.waiting[0].GetLeftOut() + 1)
		p.waiting = p.waiting[1:]
	}
}
