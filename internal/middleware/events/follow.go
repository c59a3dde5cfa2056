package events

import (
	"context"
	"fmt"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
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

// place is where the Middleware is among the events of the helper: after the one with this number, in
// this run of the helper. Run 0: it has heard none yet.
type place struct{ run, number uint64 }

func (p place) mark() *mark { return &mark{name: markHelper, value: fmt.Sprint(p.run, " ", p.number)} }

// readPlace reads a mark. An empty or an odd one is the place of none.
func readPlace(mark string) (p place) {
	if _, err := fmt.Sscan(mark, &p.run, &p.number); err != nil {
		return place{}
	}
	return p
}

// ask asks for the events after those that were heard.
func (h *Hub) ask() *systemv1.SystemRequest {
	h.mu.Lock()
	defer h.mu.Unlock()
	return &systemv1.SystemRequest{Verb: &systemv1.SystemRequest_WatchSystem{
		WatchSystem: &systemv1.WatchSystem{Run: h.heard.run, After: h.heard.number}}}
}

// hear remembers an event of the helper, and returns one that says what is missing; nil: nothing is.
// After a start of the Middleware, another run of the helper is no news: the event about the start
// says what may be missing.
func (h *Hub) hear(e *systemv1.SystemEvent) (missing *basev1.Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	before, following := h.heard, h.following
	h.heard, h.following = place{e.GetRun(), e.GetNumber()}, true
	missed := &basev1.EventsMissedEvent{}
	switch {
	case following && before.run != e.GetRun():
	case e.GetMissed() > 0:
		missed.Count = proto.Uint64(e.GetMissed())
	default:
		return nil
	}
	return &basev1.Event{Event: &basev1.Event_EventsMissed{EventsMissed: missed}}
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
		err := helper.Each(ctx, h.ask(),
			func(reply *systemv1.SystemReply) error {
				if missing := h.hear(reply.GetEvent()); missing != nil {
					h.Publish(missing)
				}
				apps.SetRoles(reply.GetEvent().GetAppRoles())
				entryReloaded(time.Duration(reply.GetEvent().GetEntryReloadedMs()) * time.Millisecond)
				if event := reply.GetEvent().GetEvent(); event != nil {
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
	WatchEvents(ctx context.Context, receive func(*basev1.Event)) error
}

// nodeAgain is how long after a broken stream the node's events are requested again. A Base may
// have no node at all.
const nodeAgain = 10 * time.Second

// FollowNode passes on what bitbox-node tells, until ctx ends.
func (h *Hub) FollowNode(ctx context.Context, node Node) {
	for ctx.Err() == nil {
		// The log of bitbox-node says why it has ended, and the App shows that it does not answer.
		_ = node.WatchEvents(ctx, h.Publish)
		select {
		case <-ctx.Done():
		case <-time.After(nodeAgain):
		}
	}
}

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
