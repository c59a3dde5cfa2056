// Package events tells subscribers about events at the Base, and keeps the history of those
// that an owner may want to see later.
//
//   - [Hub] passes each event to all subscribers. Events that are kept get a sequence number,
//     and are stored in the history on disk.
//   - [Hub.Follow] takes the events of the system helper.
//   - [Attempts] counts pairing requests.
//
// The package makes no decisions: it numbers events, merges those that come too fast, and
// passes them on.
package events

import (
	"log/slog"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/backlog"
	"github.com/BitBoxSwiss/bitbox-base/internal/state"
	"github.com/BitBoxSwiss/bitbox-base/internal/version"
)

const (
	// subscriberQueue is how many events a subscriber may be behind.
	subscriberQueue = 64
	// maxUnwritten is how many events wait for the disk. Each has at most maxKept bytes.
	maxUnwritten = 1024
	// settleTime is how long a subscriber who asks for the past waits for events that are being
	// written.
	settleTime = 2 * time.Second
)

// Hub passes each event to all subscribers, and keeps those that an owner may want to see later.
// It never waits for a subscriber, and no caller of Publish waits for the disk.
type Hub struct {
	log     *slog.Logger
	history *history // nil: nothing is kept; the writer alone changes it, with mu held

	mu          sync.Mutex
	subscribers map[*Subscription]struct{}
	paces       map[string]*pace
	later       *time.Timer // tells what waits; nil: nothing does
	closed      bool
	unwritten   []queued      // in the order of their sequences
	writer      chan struct{} // closed when the writer ends; nil: none runs
	overflowed  bool          // events were left out, because too many waited for the disk
	heard       [sourcesCount]hearing
}

// queued is an event on its way to subscribers.
type queued struct {
	event *basev1.Event
	kept  bool
	marks []*mark // kept with the event
}

// Subscription is one subscriber's queue.
type Subscription struct {
	hub *Hub
	// Events is closed when the subscriber fell behind.
	Events chan *basev1.Event

	// The past, read atomically with the start of the queue.
	Past []*basev1.Event
	Last uint64
	Gap  bool
}

// Open returns a Hub that keeps the history in db (HistoryKind). If db is nil or cannot be read,
// nothing is kept.
func Open(db *state.DB, log *slog.Logger) *Hub {
	if db == nil {
		return newHub(nil, log)
	}
	kept, err := openHistory(db)
	if err != nil {
		log.Error("the history of events cannot be used", "audit", true, "error", err)
	}
	return newHub(kept, log)
}

func newHub(history *history, log *slog.Logger) *Hub {
	h := &Hub{log: log, subscribers: map[*Subscription]struct{}{}, history: history, paces: map[string]*pace{}}
	if history != nil {
		for from := range h.heard {
			h.heard[from].reader = backlog.Parse(history.marks[sources[from].mark])
		}
	}
	return h
}

// Subscribe returns a queue for every later event; with replay, also for the kept events above a
// sequence. Close must follow.
func (h *Hub) Subscribe(replay bool, after uint64) (*Subscription, error) {
	if replay {
		h.settle()
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	s := &Subscription{hub: h, Events: make(chan *basev1.Event, subscriberQueue)}
	if h.history != nil {
		s.Last = h.history.last
		if replay {
			s.Past, s.Gap = h.history.since(after)
		}
	} else if replay {
		return nil, ErrNoHistory
	}
	h.subscribers[s] = struct{}{}
	return s, nil
}

// Subscribers is how many streams there are.
func (h *Hub) Subscribers() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.subscribers)
}

// Close ends the subscription.
func (s *Subscription) Close() {
	s.hub.mu.Lock()
	defer s.hub.mu.Unlock()
	delete(s.hub.subscribers, s)
}

// Publish stamps an event that has no time, and has it kept, if its kind is kept, and sent. Events that
// come too fast wait.
func (h *Hub) Publish(event *basev1.Event) { h.publish(event) }

// publish keeps marks with the event, unless it has to wait.
func (h *Hub) publish(event *basev1.Event, marks ...*mark) {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := time.Now()
	if event.GetTime() == nil {
		event.Time = timestamppb.New(now)
	}
	of := policies[KindOf(event)]
	if of.passing || h.history == nil {
		h.queueLocked(queued{event: event})
		return
	}
	event = proto.CloneOf(event)
	shrink(event)
	if !of.paced {
		h.queueLocked(queued{event: event, kept: true, marks: marks})
		return
	}
	p := h.paces[KindOf(event)]
	if p == nil {
		p = &pace{}
		h.paces[KindOf(event)] = p
	}
	if len(p.waiting) > 0 || !p.take(now) {
		p.wait(event, of)
		h.awaitLocked(now)
		return
	}
	h.queueLocked(queued{event: event, kept: true})
}

// queueLocked has an event sent behind those before it. It is kept before anybody is told of it:
// after a power cut no other event may have its sequence.
func (h *Hub) queueLocked(q queued) {
	switch {
	case h.writer == nil && !q.kept:
		h.sendLocked(q.event)
		return
	case len(h.unwritten) >= maxUnwritten:
		if !h.overflowed {
			h.log.Error("events are left out of the history: the disk is too slow")
		}
		h.overflowed = true
		return
	}
	if q.kept {
		q.marks = append(q.marks, h.heardLocked()...)
	}
	h.unwritten = append(h.unwritten, q)
	if h.writer == nil {
		h.writer = make(chan struct{})
		go h.write(h.writer)
	}
}

// write keeps and sends what is queued, until nothing is.
func (h *Hub) write(ended chan struct{}) {
	defer close(ended)
	h.mu.Lock()
	defer h.mu.Unlock()
	for len(h.unwritten) > 0 {
		q := h.unwritten[0]
		h.unwritten = h.unwritten[1:]
		if q.kept {
			h.mu.Unlock()
			added, err := h.history.write(q.event, q.marks...)
			h.mu.Lock()
			h.history.take(added)
			if err != nil {
				h.log.Error("an event is not in the history", "kind", KindOf(q.event), "error", err)
			}
		}
		h.sendLocked(q.event)
	}
	if h.overflowed {
		// Each subscriber asks again, and learns of the gap.
		h.overflowed = false
		h.history.unkept = true
		for s := range h.subscribers {
			h.endLocked(s)
		}
	}
	h.unwritten, h.writer = nil, nil
}

// settle waits, within a bound, until what is queued is written.
func (h *Hub) settle() {
	h.mu.Lock()
	writer := h.writer
	h.mu.Unlock()
	if writer == nil {
		return
	}
	bound := time.NewTimer(settleTime)
	defer bound.Stop()
	select {
	case <-writer:
	case <-bound.C:
	}
}

// awaitLocked makes tellWaiting run when a place is free for a waiting event.
func (h *Hub) awaitLocked(now time.Time) {
	if h.later != nil || h.closed {
		return
	}
	var first time.Time
	for _, p := range h.paces {
		if len(p.waiting) > 0 && (first.IsZero() || p.backAt.Before(first)) {
			first = p.backAt
		}
	}
	if first.IsZero() {
		return
	}
	h.later = time.AfterFunc(max(first.Sub(now), 0), h.tellWaiting)
}

func (h *Hub) tellWaiting() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.later = nil
	if h.closed {
		return
	}
	now := time.Now()
	for _, p := range h.paces {
		for len(p.waiting) > 0 && p.take(now) {
			event := p.waiting[0]
			p.waiting = p.waiting[1:]
			h.queueLocked(queued{event: event, kept: true})
		}
	}
	h.awaitLocked(now)
}

// Close keeps the waiting events, so an orderly stop loses nothing. It returns when they are on
// the disk.
func (h *Hub) Close() {
	if writer := h.close(); writer != nil {
		<-writer
	}
	if h.history == nil {
		return
	}
	h.mu.Lock()
	gap, heard := h.history.gap(), h.heardLocked()
	h.mu.Unlock()
	if err := h.history.end(gap, heard...); err != nil {
		h.log.Error("events may be missing", "error", err)
	}
}

// close returns the writer that is to be waited for; nil: none is.
func (h *Hub) close() (writer chan struct{}) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return h.writer
	}
	h.closed = true
	if h.later != nil {
		h.later.Stop()
	}
	for _, p := range h.paces {
		for _, event := range p.waiting {
			h.queueLocked(queued{event: event, kept: true})
		}
		p.waiting = nil
	}
	return h.writer
}

// sendLocked queues an event. A subscriber with a full queue is ended: a stream has no gaps.
func (h *Hub) sendLocked(event *basev1.Event) {
	for s := range h.subscribers {
		select {
		case s.Events <- event:
		default:
			h.endLocked(s)
		}
	}
}

func (h *Hub) endLocked(s *Subscription) {
	delete(h.subscribers, s)
	close(s.Events)
}

// remember returns the mark that is to be kept with an event; nil: it has this value already, or
// nothing is kept. had: there was one.
func (h *Hub) remember(name, value string) (m *mark, had bool) {
	if h.history == nil || value == "" {
		return nil, false
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	before, had := h.history.marks[name]
	if had && before == value {
		return nil, true
	}
	h.history.marks[name] = value
	return &mark{name: name, value: value}, had
}

// PublishStart reports that the Middleware was started, in the boot with this id; empty: it is
// not known.
func (h *Hub) PublishStart(bootID string) {
	m, had := h.remember(markBoot, bootID)
	started := &basev1.BaseStartedEvent{SoftwareVersion: version.Software, Booted: m != nil && had,
		CutOff: h.history != nil && h.history.cutOff}
	h.publish(&basev1.Event{Event: &basev1.Event_BaseStarted{BaseStarted: started}}, some(m)...)
}

// some is the marks that there are.
func some(m *mark) []*mark {
	if m == nil {
		return nil
	}
	return []*mark{m}
}

// PublishWindow tells subscribers that the pairing window was opened or closed.
func (h *Hub) PublishWindow(window *basev1.Window) {
	h.Publish(&basev1.Event{Event: &basev1.Event_WindowChanged{
		WindowChanged: &basev1.WindowChangedEvent{Window: window}}})
}

// WindowOf is the API's form of the window.
func WindowOf(snapshot *systemv1.Snapshot) *basev1.Window {
	return &basev1.Window{Open: snapshot.GetWindowOpen(), RemainingMs: snapshot.GetWindowRemainingMs(), Role: snapshot.GetWindowRole()}
}
