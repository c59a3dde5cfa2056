package system

import (
	"context"
	"errors"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/apply"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/caller"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/generation"
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

// told is up to where Apps were told of the posture.
type told struct{ revision, restriction uint64 }

// publishLocked tells every watcher what is, and what has happened; nil: the posture, a
// restriction or the phase is another.
func (h *Helper) publishLocked(happened *basev1.Event) {
	event := h.describeLocked(happened)
	for watcher := range h.events.watchers {
		select {
		case watcher <- event:
		default:
			close(watcher)
			delete(h.events.watchers, watcher)
		}
	}
}

// tellLocked tells Apps what else is in force, once that is for good. app is the id of the
// App that has closed something, if there is one.
func (h *Helper) tellLocked(app string) {
	if h.ledger.Phase() != systemv1.PostureReport_PHASE_SETTLED {
		return
	}
	for _, news := range h.ledger.News(h.told.revision, h.told.restriction) {
		event := &basev1.PostureChangedEvent{By: news.By, Note: news.Note}
		for _, change := range news.Changes {
			event.Changes = append(event.Changes, change.Told)
		}
		switch {
		case news.Ended != "":
			event.By, event.Note = "", news.Ended
		case news.ByMiddleware && app != "":
			event.By, event.App = "", &basev1.App{Id: app}
		}
		h.publishLocked(&basev1.Event{Event: &basev1.Event_PostureChanged{PostureChanged: event}})
	}
	h.told.revision, h.told.restriction, _ = h.numbersLocked()
}

// describeLocked makes an event of what is.
func (h *Helper) describeLocked(happened *basev1.Event) *systemv1.SystemEvent {
	event := &systemv1.SystemEvent{Event: happened, EntryReloadedMs: uint64(h.entryReloaded.Milliseconds())}
	event.Revision, event.RestrictionNumber, event.Phase = h.numbersLocked()
	event.Bans = uint32(len(h.bans))
	if happened == nil {
		for _, app := range h.inForceLocked().Apps {
			event.AppRoles = append(event.AppRoles, &systemv1.AppRole{SigningKey: app.SigningKey[:], Role: app.Role})
		}
	}
	for _, finding := range h.findings {
		if finding.GetSeverity() >= basev1.Finding_SEVERITY_WARNING {
			event.Findings++
		}
	}
	return event
}

// tellingReloads is the machine, and tells those who watch when NGINX reads a new
// configuration: the Middleware then asks Apps to leave its old processes.
type tellingReloads struct {
	apply.Live
	helper *Helper
}

func (t tellingReloads) Reload(ctx context.Context, unit string) error {
	err := t.Live.Reload(ctx, unit)
	if unit != generation.ProxyUnit {
		return err
	}
	h := t.helper
	h.mu.Lock()
	defer h.mu.Unlock()
	h.entryReloaded = h.config.Clock() // it may have read it even if that failed
	h.publishLocked(nil)
	return err
}

// numbersLocked are what a report would say.
func (h *Helper) numbersLocked() (revision, restriction uint64, phase systemv1.PostureReport_Phase) {
	return h.ledger.Effective().Revision, h.ledger.LastRestriction(), h.ledger.Phase()
}

// watch sends events until ctx ends, or the watcher is too slow.
func (h *Helper) watch(ctx context.Context, who caller.Who, send func(*systemv1.SystemReply) error) error {
	watcher := make(chan *systemv1.SystemEvent, maxWaiting)
	h.mu.Lock()
	if h.events.watchers == nil {
		h.events.watchers = map[chan *systemv1.SystemEvent]bool{}
	}
	h.events.watchers[watcher] = true
	middlewares := 0
	if who == caller.Middleware {
		middlewares = 1
	}
	h.events.middlewares += middlewares
	first := h.describeLocked(nil)
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
