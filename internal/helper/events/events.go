// Package events tells all who watch the helper what is, and what has happened.
package events

import (
	"context"
	"errors"
	"sync"

	"google.golang.org/protobuf/proto"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/caller"
)

// maxWaiting is how many events wait for one watcher. One that reads more slowly is ended, so
// that no stream has a gap.
const maxWaiting = 64

// Hub knows what is, and who watches. It calls nothing of the helper, so it may be called with
// any lock held.
type Hub struct {
	mu       sync.Mutex
	is       *systemv1.SystemEvent
	watchers map[chan *systemv1.SystemEvent]bool
	// middlewares is how many of them are the Middleware's.
	middlewares int
}

// New returns a Hub that knows nothing.
func New() *Hub {
	return &Hub{is: &systemv1.SystemEvent{}, watchers: map[chan *systemv1.SystemEvent]bool{}}
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
	return h.describeLocked(nil)
}

// Publish tells every watcher what is and what has happened; nil: the posture, a restriction or
// the phase is another.
func (h *Hub) Publish(happened *basev1.Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	event := h.describeLocked(happened)
	for watcher := range h.watchers {
		select {
		case watcher <- event:
		default:
			close(watcher)
			delete(h.watchers, watcher)
		}
	}
}

// describeLocked makes an event of what is. The roles of Apps go with those that may have
// changed them.
func (h *Hub) describeLocked(happened *basev1.Event) *systemv1.SystemEvent {
	event := proto.CloneOf(h.is)
	event.Event = happened
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

// Watch sends events until ctx ends, or the watcher is too slow.
func (h *Hub) Watch(ctx context.Context, c *caller.Call, _ *systemv1.WatchSystem) (*systemv1.SystemReply, error) {
	watcher := make(chan *systemv1.SystemEvent, maxWaiting)
	middlewares := 0
	if c.Who == caller.Middleware {
		middlewares = 1
	}
	h.mu.Lock()
	h.watchers[watcher] = true
	h.middlewares += middlewares
	first := h.describeLocked(nil)
	h.mu.Unlock()
	defer func() {
		h.mu.Lock()
		delete(h.watchers, watcher)
		h.middlewares -= middlewares
		h.mu.Unlock()
	}()
	for event, open := first, true; open; {
		if err := c.Send(&systemv1.SystemReply{Result: &systemv1.SystemReply_Event{Event: event}}); err != nil {
			return nil, err
		}
		select {
		case event, open = <-watcher:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return nil, errors.New("the watcher reads too slowly")
}
