package middleware

import (
	"errors"
	"sync"
	"time"

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

// hub hands each event to all subscribers. It never waits for one of them.
type hub struct {
	mu          sync.Mutex
	subscribers map[*subscription]struct{}
}

// subscription is one subscriber's queue.
type subscription struct {
	hub    *hub
	app    *record
	events chan *basev1.WatchEventsResponse // closed when the subscriber fell behind
}

func newHub() *hub { return &hub{subscribers: map[*subscription]struct{}{}} }

// subscribe returns a queue in which every later event is. close must follow.
func (h *hub) subscribe(app *record) (*subscription, error) {
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
	h.subscribers[s] = struct{}{}
	return s, nil
}

func (s *subscription) close() {
	s.hub.mu.Lock()
	defer s.hub.mu.Unlock()
	delete(s.hub.subscribers, s)
}

// publish stamps an event and queues it. A subscriber whose queue is full is
// ended: a stream has no gaps.
func (h *hub) publish(event *basev1.WatchEventsResponse) {
	event.Time = timestamppb.New(time.Now())
	h.mu.Lock()
	defer h.mu.Unlock()
	for s := range h.subscribers {
		select {
		case s.events <- event:
		default:
			delete(h.subscribers, s)
			close(s.events)
		}
	}
}
