package events

import (
	"context"
	"sync"
	"time"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	nodev1 "github.com/BitBoxSwiss/bitbox-base/api/node/v1"
	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/backlog"
	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
)

// followAgain is the pause after a broken stream before the helper's events are asked for again.
const followAgain = 2 * time.Second

// Helper is the part of the system helper that Follow needs.
type Helper interface {
	Each(ctx context.Context, request *systemv1.SystemRequest, receive func(*systemv1.SystemReply) error) error
}

// Apps knows the paired Apps; the registry implements it.
type Apps interface {
	// SetRoles gives Apps the roles that the helper has reported.
	SetRoles([]*systemv1.AppRole)
	// Known returns the App with an id; nil if there is none.
	Known(id string) *basev1.App
}

// source is a process whose events the Middleware passes on.
type source int

const (
	fromHelper source = iota
	fromNode
	sourcesCount
)

// sources has the mark that keeps which event of a source was heard last, and the event that says how
// many of its events are missing; nil: nobody knows.
var sources = [sourcesCount]struct {
	mark    string
	missing func(count *uint64) *basev1.Event
}{
	fromHelper: {markHelper, func(count *uint64) *basev1.Event {
		return &basev1.Event{Event: &basev1.Event_EventsMissed{EventsMissed: &basev1.EventsMissedEvent{Count: count}}}
	}},
	fromNode: {markNode, func(count *uint64) *basev1.Event {
		return &basev1.Event{Event: &basev1.Event_NodeEventsMissed{NodeEventsMissed: &basev1.NodeEventsMissedEvent{Count: count}}}
	}},
}

// hearing is how far the events of a source were heard.
type hearing struct {
	reader backlog.Reader
	begun  bool // a stream of this start of the Middleware has begun
}

// ask is the place behind the last event that was heard.
func (h *Hub) ask(from source) backlog.Place {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.heard[from].reader.Place()
}

// begin hears the begin of a stream, and reports what is missing before it.
func (h *Hub) begin(from source, at backlog.Place, missed uint64) error {
	missing, err := h.gap(from, at, missed)
	if missing != nil {
		h.Publish(missing)
	}
	return err
}

// gap returns the event that says what is missing; nil: nothing is.
func (h *Hub) gap(from source, at backlog.Place, missed uint64) (*basev1.Event, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	heard := &h.heard[from]
	gap, err := heard.reader.Begin(at, missed)
	first := !heard.begun
	heard.begun = true
	switch {
	case err != nil || !gap.Is:
		return nil, err
	case gap.Count > 0:
		return sources[from].missing(&gap.Count), nil
	case first && h.history != nil && h.history.cutOff:
		return nil, nil // the event about the start says that the last events may be missing
	}
	return sources[from].missing(nil), nil
}

// next hears an event.
func (h *Hub) next(from source, at backlog.Place) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.heard[from].reader.Next(at)
}

// ended hears that a source has ended in an orderly way.
func (h *Hub) ended(from source) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.heard[from].reader.End()
}

// heardLocked is the marks of what was heard.
func (h *Hub) heardLocked() (marks []*mark) {
	for from := range h.heard {
		if value := h.heard[from].reader.Mark(); value != "" {
			marks = append(marks, &mark{name: sources[from].mark, value: value})
		}
	}
	return marks
}

// Follow passes on the helper's events, until ctx ends. After a broken stream, and after a start of the
// Middleware, it goes on behind the last event that was heard. With each message it calls entryReloaded
// with the time, on the boot-time clock, when NGINX was last told to read a new configuration;
// entryReloaded must not block.
func (h *Hub) Follow(ctx context.Context, helper Helper, apps Apps, entryReloaded func(time.Duration)) {
	var following sync.WaitGroup
	defer following.Wait()
	following.Go(func() { h.followUpdates(ctx, helper) })
	for ctx.Err() == nil {
		asked, begun := h.ask(fromHelper), false
		err := helper.Each(ctx, &systemv1.SystemRequest{Verb: &systemv1.SystemRequest_WatchSystem{
			WatchSystem: &systemv1.WatchSystem{Run: asked.Run, After: asked.Number}}},
			func(reply *systemv1.SystemReply) (err error) {
				system := reply.GetEvent()
				at := backlog.Place{Run: system.GetRun(), Number: system.GetNumber()}
				switch {
				case !begun:
					begun, err = true, h.begin(fromHelper, at, system.GetMissed())
				case system.GetEvent() != nil:
					err = h.next(fromHelper, at)
				}
				if err != nil {
					return err
				}
				apps.SetRoles(system.GetAppRoles())
				entryReloaded(time.Duration(system.GetEntryReloadedMs()) * time.Millisecond)
				if event := system.GetEvent(); event != nil {
					name(event, apps)
					h.Publish(event)
				}
				return nil
			})
		if ctx.Err() == nil {
			h.log.Warn("the stream of the system helper's events broke", "error", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(followAgain):
		}
	}
}

// Node is bitbox-node, as FollowNode reaches it.
type Node interface {
	// WatchEvents hands what is kept after a place, and then each event, to receive.
	WatchEvents(ctx context.Context, after backlog.Place, receive func(*nodev1.NodeEvent) error) error
}

// nodeAgain is how long after a broken stream the node's events are requested again. A Base may
// have no node at all.
const nodeAgain = 10 * time.Second

// FollowNode passes on what bitbox-node tells, until ctx ends. It goes on behind the last event that
// was heard, as Follow does. bitbox-node may have been taken over, so its events have the time at which
// they arrive, and its numbers decide about nothing but the sentence that events are missing.
func (h *Hub) FollowNode(ctx context.Context, node Node) {
	for ctx.Err() == nil {
		begun := false
		// The log of bitbox-node says why it has ended, and the App shows that it does not answer.
		_ = node.WatchEvents(ctx, h.ask(fromNode), func(e *nodev1.NodeEvent) error {
			at := backlog.Place{Run: e.GetRun(), Number: e.GetNumber()}
			if !begun {
				begun = true
				return h.begin(fromNode, at, e.GetMissed())
			}
			if e.GetEnded() {
				h.ended(fromNode)
				return errNodeEnds
			}
			if err := h.next(fromNode, at); err != nil {
				return err
			}
			if event := e.GetEvent(); event != nil {
				h.Publish(event)
			}
			return nil
		})
		select {
		case <-ctx.Done():
		case <-time.After(nodeAgain):
		}
	}
}

// errNodeEnds ends a stream.
var errNodeEnds = reason.New("bitbox-node ends")

// name completes the App in an event of the helper, which knows only its id.
func name(event *basev1.Event, apps Apps) {
	if known := apps.Known(event.GetMachineStopping().GetBy().GetId()); known != nil {
		event.GetMachineStopping().By = known
	}
	if known := apps.Known(event.GetPostureChanged().GetApp().GetId()); known != nil {
		event.GetPostureChanged().App = known
	}
}

// lookForUpdates is how often to check whether an update has ended.
const lookForUpdates = 10 * time.Second

// followUpdates reports the end of an update, once. An update also ends this process, so the mark
// is on disk.
func (h *Hub) followUpdates(ctx context.Context, helper Helper) {
	for ctx.Err() == nil {
		var last *basev1.Update
		err := helper.Each(ctx, &systemv1.SystemRequest{Verb: &systemv1.SystemRequest_WatchUpdate{WatchUpdate: &systemv1.WatchUpdate{}}},
			func(reply *systemv1.SystemReply) error {
				if u := reply.GetUpdateStatus().GetUpdate(); u != nil {
					last = u
				}
				return nil
			})
		if err == nil {
			h.publishUpdate(last)
		}
		select {
		case <-ctx.Done():
		case <-time.After(lookForUpdates):
		}
	}
}

func (h *Hub) publishUpdate(u *basev1.Update) {
	if u.GetEndedAt() == nil {
		return
	}
	m, _ := h.remember(markUpdate, u.GetId())
	if m == nil {
		return
	}
	h.publish(&basev1.Event{Event: &basev1.Event_UpdateEnded{UpdateEnded: &basev1.UpdateEndedEvent{
		FromVersion: u.GetFromVersion(), ToVersion: u.GetToVersion(), Installed: u.GetPhase() == basev1.Update_PHASE_DONE,
		Reason: u.GetReason()}}}, some(m)...)
}
