// Package events tells all who watch the helper what is, and what has happened.
package events

import (
	"context"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/backlog"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/caller"
	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
)

// maxWaiting is how many events wait for one watcher. One that reads more slowly is ended, so that
// no stream has a gap.
const maxWaiting = 64

// Hub knows what is, and who watches. It calls nothing of the helper, so it may be called with
// any lock held.
type Hub struct {
	mu       sync.Mutex
	is       *systemv1.SystemEvent
	watchers map[chan *systemv1.SystemEvent]bool
	// middlewares is how many of them are the Middleware's.
	middlewares int

	now func() time.Time
	log *backlog.Log // what has happened
}

// New returns a Hub that knows nothing.
func New(now func() time.Time) *Hub {
	return &Hub{is: &systemv1.SystemEvent{}, watchers: map[chan *systemv1.SystemEvent]bool{}, now: now, log: backlog.New(now)}
}

// Note changes what is, and tells nobody.
func (h *Hub) Note(change func(is *systemv1.SystemEvent)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	change(h.is)
}

// Is returns what is.
func (h *Hub) Is() *systemv1.SystemEvent {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.describeLocked(nil, h.log.Last())
}

// Publish tells every watcher what is and what has happened; nil: the posture, a restriction or
// the phase is another.
func (h *Hub) Publish(happened *basev1.Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if happened != nil {
		happened = h.log.Add(happened)
	}
	event := h.describeLocked(happened, h.log.Last())
	for watcher := range h.watchers {
		select {
		case watcher <- event:
		default:
			close(watcher)
			delete(h.watchers, watcher)
		}
	}
}

// pastLocked returns the first events of a stream: what is, then what has happened after an event
// and is still kept.
func (h *Hub) pastLocked(asked *systemv1.WatchSystem) []*systemv1.SystemEvent {
	kept := h.log.After(backlog.Place{Run: asked.GetRun(), Number: asked.GetAfter()})
	first := h.describeLocked(nil, kept.Begin)
	first.Missed = kept.Missed
	past, at := []*systemv1.SystemEvent{first}, kept.Begin
	for _, happened := range kept.Events {
		at.Number++
		past = append(past, h.describeLocked(happened, at))
	}
	return past
}

// describeLocked makes an event of what is. The roles of Apps go with those that may have
// changed them.
func (h *Hub) describeLocked(happened *basev1.Event, at backlog.Place) *systemv1.SystemEvent {
	event := proto.CloneOf(h.is)
	event.Event, event.Run, event.Number = happened, at.Run, at.Number
	if happened != nil {
		event.AppRoles = nil
	}
	return event
}

// Watched tells whether somebody watches, and whether the Middleware does.
func (h *Hub) Watched() (anybody, middleware bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.watchers) > 0, h.middlewares > 0
}

// Watch sends what the watcher has missed, and events until ctx ends or the watcher is too slow.
func (h *Hub) Watch(ctx context.Context, c *caller.Call, asked *systemv1.WatchSystem) (*systemv1.SystemReply, error) {
	watcher := make(chan *systemv1.SystemEvent, maxWaiting)
	middlewares := 0
	if c.Who == caller.Middleware {
		middlewares = 1
	}
	h.mu.Lock()
	h.watchers[watcher] = true
	h.middlewares += middlewares
	past := h.pastLocked(asked)
	h.mu.Unlock()
	defer func() {
		h.mu.Lock()
		delete(h.watchers, watcher)
		h.middlewares -= middlewares
		h.mu.Unlock()
	}()
	send := func(event *systemv1.SystemEvent) error {
		return c.Send(&systemv1.SystemReply{Result: &systemv1.SystemReply_Event{Event: event}})
	}
	for _, event := range past {
		if err := send(event); err != nil {
			return nil, err
		}
	}
	for {
		select {
		case event, open := <-watcher:
			if !open {
				return nil, reason.New("the watcher reads too slowly")
			}
			if err := send(event); err != nil {
				return nil, err
			}
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}
