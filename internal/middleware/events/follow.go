package events

import (
	"context"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
)

// followAgain is how long after a broken stream the helper's events are asked for
// anew.
const followAgain = 2 * time.Second

// Helper is the system helper, as Follow reaches it.
type Helper interface {
	Each(ctx context.Context, request *systemv1.SystemRequest, receive func(*systemv1.SystemReply) error) error
}

// Follow tells subscribers what happens at the helper, and gives setRoles what the helper
// says of the roles of Apps, until ctx ends.
func (h *Hub) Follow(ctx context.Context, helper Helper, setRoles func([]*systemv1.AppRole)) {
	var following sync.WaitGroup
	defer following.Wait()
	following.Go(func() { h.followUpdates(ctx, helper) })
	for ctx.Err() == nil {
		err := helper.Each(ctx, &systemv1.SystemRequest{Verb: &systemv1.SystemRequest_WatchSystem{WatchSystem: &systemv1.WatchSystem{}}},
			func(reply *systemv1.SystemReply) error {
				setRoles(reply.GetEvent().GetAppRoles())
				if event := eventOf(reply.GetEvent()); event != nil {
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

// lookForUpdates is how often it is looked whether an update has ended.
const lookForUpdates = 10 * time.Second

// followUpdates tells subscribers how an update has ended, once: it ends this process as
// well, so that the mark is on the disk.
func (h *Hub) followUpdates(ctx context.Context, helper Helper) {
	for ctx.Err() == nil {
		var last *systemv1.Update
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

func (h *Hub) publishUpdate(u *systemv1.Update) {
	if u.GetEnded() == 0 {
		return
	}
	if other, _ := h.mark(markUpdate, u.GetId()); !other {
		return
	}
	h.Publish(&basev1.WatchEventsResponse{Event: &basev1.WatchEventsResponse_UpdateEnded{UpdateEnded: &basev1.UpdateEndedEvent{
		FromVersion: u.GetFromVersion(), ToVersion: u.GetToVersion(), Installed: u.GetPhase() == systemv1.Update_PHASE_DONE, Reason: u.GetReason()}}})
}

// eventOf returns nil for what subscribers are not told.
func eventOf(of *systemv1.SystemEvent) *basev1.WatchEventsResponse {
	switch happened := of.GetHappened().(type) {
	case *systemv1.SystemEvent_PostureChanged:
		return &basev1.WatchEventsResponse{Event: &basev1.WatchEventsResponse_PostureChanged{
			PostureChanged: &basev1.PostureChangedEvent{Reason: happened.PostureChanged.GetReason()}}}
	case *systemv1.SystemEvent_DriftFound:
		return &basev1.WatchEventsResponse{Event: &basev1.WatchEventsResponse_DriftFound{
			DriftFound: &basev1.DriftFoundEvent{Findings: Findings(happened.DriftFound.GetFindings())}}}
	case *systemv1.SystemEvent_BansChanged:
		return &basev1.WatchEventsResponse{Event: &basev1.WatchEventsResponse_BansChanged{
			BansChanged: &basev1.BansChangedEvent{Banned: Bans(happened.BansChanged.GetBanned()), Lifted: Bans(happened.BansChanged.GetLifted())}}}
	case *systemv1.SystemEvent_ApplyFailed:
		return &basev1.WatchEventsResponse{Event: &basev1.WatchEventsResponse_ApplyFailed{
			ApplyFailed: &basev1.ApplyFailedEvent{Reason: happened.ApplyFailed.GetReason()}}}
	case *systemv1.SystemEvent_ServiceFailed:
		return &basev1.WatchEventsResponse{Event: &basev1.WatchEventsResponse_ServiceFailed{ServiceFailed: &basev1.ServiceFailedEvent{
			Service: happened.ServiceFailed.GetService(), Reason: happened.ServiceFailed.GetReason()}}}
	case *systemv1.SystemEvent_ServiceRecovered:
		return &basev1.WatchEventsResponse{Event: &basev1.WatchEventsResponse_ServiceRecovered{
			ServiceRecovered: &basev1.ServiceRecoveredEvent{Service: happened.ServiceRecovered.GetService()}}}
	case *systemv1.SystemEvent_DiskFilling:
		return &basev1.WatchEventsResponse{Event: &basev1.WatchEventsResponse_DiskFilling{DiskFilling: &basev1.DiskFillingEvent{
			TotalBytes: happened.DiskFilling.GetTotalBytes(), AvailableBytes: happened.DiskFilling.GetAvailableBytes()}}}
	case *systemv1.SystemEvent_UpdateWaiting:
		return &basev1.WatchEventsResponse{Event: &basev1.WatchEventsResponse_UpdateWaiting{
			UpdateWaiting: &basev1.UpdateWaitingEvent{Packages: happened.UpdateWaiting.GetPackages()}}}
	case *systemv1.SystemEvent_MachineStopping:
		stopping := &basev1.MachineStoppingEvent{PowerOff: happened.MachineStopping.GetPowerOff()}
		if id := happened.MachineStopping.GetAppId(); id != "" {
			stopping.By = &basev1.App{Id: id}
		}
		return &basev1.WatchEventsResponse{Event: &basev1.WatchEventsResponse_MachineStopping{MachineStopping: stopping}}
	}
	return nil
}

// Bans are the helper's bans as the API tells them.
func Bans(of []*systemv1.Ban) []*basev1.Ban {
	var all []*basev1.Ban
	for _, b := range of {
		all = append(all, &basev1.Ban{
			Jail: b.GetJail(), Address: b.GetAddress(), Since: Timestamp(b.GetSince()), Until: Timestamp(b.GetUntil())})
	}
	return all
}

// Timestamp is absent for 0, which means that the helper does not know.
func Timestamp(seconds int64) *timestamppb.Timestamp {
	if seconds == 0 {
		return nil
	}
	return &timestamppb.Timestamp{Seconds: seconds}
}

// Findings are the helper's findings as the API tells them.
func Findings(of []*systemv1.Finding) []*basev1.Finding {
	var all []*basev1.Finding
	for _, f := range of {
		all = append(all, &basev1.Finding{
			Id: f.GetId(), Severity: basev1.Finding_Severity(f.GetSeverity()), Title: f.GetTitle(),
			Expected: f.GetExpected(), Found: f.GetFound(), Why: f.GetWhy(), Fix: f.GetFix(), Fixable: f.GetFixable()})
	}
	return all
}
