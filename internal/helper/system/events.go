package system

import (
	"context"
	"errors"

	"google.golang.org/protobuf/proto"

	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
)

// maxWaiting is how many events wait for one watcher. One that reads more slowly
// is ended, so that no stream has a gap.
const maxWaiting = 64

// events are those who watch.
type events struct {
	watchers map[chan *systemv1.SystemEvent]bool
	// middlewares is how many of them are the Middleware's.
	middlewares int
}

// publishLocked fills in what is and tells every watcher.
func (h *Helper) publishLocked(event *systemv1.SystemEvent) {
	event = h.describeLocked(event)
	for watcher := range h.events.watchers {
		select {
		case watcher <- event:
		default:
			close(watcher)
			delete(h.events.watchers, watcher)
		}
	}
}

// describeLocked adds to an event what is.
func (h *Helper) describeLocked(event *systemv1.SystemEvent) *systemv1.SystemEvent {
	event = proto.CloneOf(event)
	event.Revision, event.RestrictionNumber, event.Phase = h.numbersLocked()
	event.Bans = uint32(len(h.bans))
	if event.GetStarted() != nil || event.GetPostureChanged() != nil {
		for _, app := range h.inForceLocked().Apps {
			event.AppRoles = append(event.AppRoles, &systemv1.AppRole{SigningKey: app.SigningKey[:], Role: app.Role})
		}
	}
	for _, finding := range h.findings {
		if finding.GetSeverity() >= systemv1.Finding_SEVERITY_WARNING {
			event.Findings++
		}
	}
	return event
}

// numbersLocked are what a report would say.
func (h *Helper) numbersLocked() (revision, restriction uint64, phase systemv1.PostureReport_Phase) {
	return h.ledger.Effective().Revision, h.ledger.LastRestriction(), h.ledger.Phase()
}

// watch sends events until ctx ends, or the watcher is too slow.
func (h *Helper) watch(ctx context.Context, who Who, send func(*systemv1.SystemReply) error) error {
	watcher := make(chan *systemv1.SystemEvent, maxWaiting)
	h.mu.Lock()
	if h.events.watchers == nil {
		h.events.watchers = map[chan *systemv1.SystemEvent]bool{}
	}
	h.events.watchers[watcher] = true
	middlewares := 0
	if who == WhoMiddleware {
		middlewares = 1
	}
	h.events.middlewares += middlewares
	first := h.describeLocked(&systemv1.SystemEvent{Happened: &systemv1.SystemEvent_Started{Started: &systemv1.WatchStarted{}}})
	h.mu.Unlock()
	defer func() {
		h.mu.Lock()
		delete(h.events.watchers, watcher)
		h.events.middlewares -= middlewares
		h.mu.Unlock()
	}()
	for event, open := first, true; open; {
		if err := send(&systemv1.SystemReply{Result: &systemv1.SystemReply_Event{Event: event}}); err != nil {
			return err
		}
		select {
		case event, open = <-watcher:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return errors.New("whoever watches reads too slowly")
}
