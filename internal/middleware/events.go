package middleware

import (
	"errors"
	"log/slog"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
)

const (
	// subscriberQueue is how many events a subscriber may be behind.
	subscriberQueue = 64
	// maxSubscriptions bounds the streams of events of one App.
	maxSubscriptions = 16
)

var errTooManySubscriptions = errors.New("this App has too many streams of events open; close one")

// hub hands each event to all subscribers, and keeps those that an owner wants to hear of
// later, too. It never waits for a subscriber.
type hub struct {
	log *slog.Logger

	mu          sync.Mutex
	subscribers map[*subscription]struct{}
	history     *history // nil: nothing is kept
	paces       map[string]*pace
	later       *time.Timer // tells what waits; nil: nothing does
	closed      bool
}

// subscription is one subscriber's queue.
type subscription struct {
	hub    *hub
	app    *record
	events chan *basev1.WatchEventsResponse // closed when the subscriber fell behind

	// What was before, in one moment with the beginning of the queue.
	past []*basev1.WatchEventsResponse
	last uint64
	gap  bool
}

func newHub(history *history, log *slog.Logger) *hub {
	return &hub{log: log, subscribers: map[*subscription]struct{}{}, history: history, paces: map[string]*pace{}}
}

// subscribe returns a queue in which every later event is. close must follow.
func (h *hub) subscribe(app *record) (*subscription, error) {
	return h.subscribeAfter(app, false, 0)
}

// subscribeAfter returns the events that are kept above a sequence as well.
func (h *hub) subscribeAfter(app *record, replay bool, after uint64) (*subscription, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	open := 0
	for s := range h.subscribers {
		if s.app == app {
			open++
		}
	}
	if open >= maxSubscriptions {
		return nil, errTooManySubscriptions
	}
	s := &subscription{hub: h, app: app, events: make(chan *basev1.WatchEventsResponse, subscriberQueue)}
	if h.history != nil {
		s.last = h.history.last
		if replay {
			s.past, s.gap = h.history.since(after)
		}
	} else if replay {
		return nil, ErrNoHistory
	}
	h.subscribers[s] = struct{}{}
	return s, nil
}

func (s *subscription) close() {
	s.hub.mu.Lock()
	defer s.hub.mu.Unlock()
	delete(s.hub.subscribers, s)
}

// publish stamps an event, keeps it if it is to be kept, and queues it. What comes too
// quickly waits.
func (h *hub) publish(event *basev1.WatchEventsResponse) {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := time.Now()
	event.Time = timestamppb.New(now)
	of := policies[kindOf(event)]
	if !of.kept || h.history == nil {
		h.sendLocked(event)
		return
	}
	event = proto.CloneOf(event)
	shrink(event)
	p := h.paces[kindOf(event)]
	if p == nil {
		p = &pace{}
		h.paces[kindOf(event)] = p
	}
	if len(p.waiting) > 0 || !p.take(now) {
		p.wait(event, of)
		h.awaitLocked(now)
		return
	}
	h.keepLocked(event)
}

// keepLocked keeps an event before anybody is told of it: its sequence must not be another
// event's after a power cut.
func (h *hub) keepLocked(event *basev1.WatchEventsResponse) {
	if err := h.history.add(event); err != nil {
		h.log.Error("an event is not in the history", "kind", kindOf(event), "error", err)
	}
	h.sendLocked(event)
}

// awaitLocked has tellWaiting called when a place comes back for something that waits.
func (h *hub) awaitLocked(now time.Time) {
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

func (h *hub) tellWaiting() {
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

// close keeps what waits, so that ending in order loses nothing.
func (h *hub) close() {
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

// sendLocked queues an event. A subscriber whose queue is full is ended: a stream has no gaps.
func (h *hub) sendLocked(event *basev1.WatchEventsResponse) {
	for s := range h.subscribers {
		select {
		case s.events <- event:
		default:
			delete(h.subscribers, s)
			close(s.events)
		}
	}
}

// mark is history.mark, or says that nothing is known.
func (h *hub) mark(name, value string) (other, had bool) {
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
