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
	"github.com/BitBoxSwiss/bitbox-base/internal/state"
	"github.com/BitBoxSwiss/bitbox-base/internal/version"
)

const (
	// subscriberQueue is how many events a subscriber may be behind.
	subscriberQueue = 64
)

// Hub passes each event to all subscribers, and keeps those that an owner may want to see later.
// It never waits for a subscriber.
type Hub struct {
	log *slog.Logger

	mu          sync.Mutex
	subscribers map[*Subscription]struct{}
	history     *history // nil: nothing is kept
	paces       map[string]*pace
	later       *time.Timer // tells what waits; nil: nothing does
	closed      bool
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
	return &Hub{log: log, subscribers: map[*Subscription]struct{}{}, history: history, paces: map[string]*pace{}}
}

// Subscribe returns a queue for every later event; with replay, also for the kept events above a
// sequence. Close must follow.
func (h *Hub) Subscribe(replay bool, after uint64) (*Subscription, error) {
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

// Publish stamps an event, keeps it if its kind is kept, and queues it. Events that come too fast
// wait.
func (h *Hub) Publish(event *basev1.Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := time.Now()
	event.Time = timestamppb.New(now)
	of := policies[KindOf(event)]
	if of.passing || h.history == nil {
		h.sendLocked(event)
		return
	}
	event = proto.CloneOf(event)
	shrink(event)
	if !of.paced {
		h.keepLocked(event)
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
	h.keepLocked(event)
}

// keepLocked keeps an event before anybody is told of it: after a power cut no other event may
// have its sequence.
func (h *Hub) keepLocked(event *basev1.Event) {
	if err := h.history.add(event); err != nil {
		h.log.Error("an event is not in the history", "kind", KindOf(event), "error", err)
	}
	h.sendLocked(event)
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
			h.keepLocked(event)
		}
	}
	h.awaitLocked(now)
}

// Close keeps the waiting events, so an orderly stop loses nothing.
func (h *Hub) Close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return
	}
	h.closed = true
	if h.later != nil {
		h.later.Stop()
	}
	for _, p := range h.paces {
		for _, event := range p.waiting {
			h.keepLocked(event)
		}
		p.waiting = nil
	}
}

// sendLocked queues an event. A subscriber with a full queue is ended: a stream has no gaps.
func (h *Hub) sendLocked(event *basev1.Event) {
	for s := range h.subscribers {
		select {
		case s.Events <- event:
		default:
			delete(h.subscribers, s)
			close(s.Events)
		}
	}
}

// mark is history.mark, or reports that nothing is known.
func (h *Hub) mark(name, value string) (other, had bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.history == nil {
		return false, false
	}
	other, had, err := h.history.mark(name, value)
	if err != nil {
		h.log.Error("keep what was told", "mark", name, "error", err)
		return false, had
	}
	return other, had
}

// PublishStart reports that the Middleware was started, in the boot with this id; empty: it is
// not known.
func (h *Hub) PublishStart(bootID string) {
	booted := false
	if bootID != "" {
		other, had := h.mark(markBoot, bootID)
		booted = other && had
	}
	h.Publish(&basev1.Event{Event: &basev1.Event_BaseStarted{
		BaseStarted: &basev1.BaseStartedEvent{SoftwareVersion: version.Software, Booted: booted}}})
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
