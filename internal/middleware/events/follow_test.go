package events

import (
	"testing"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"google.golang.org/protobuf/proto"
)

func TestWhatHappensAtTheMachineIsTold(t *testing.T) {
	service := &basev1.Service{Name: "electrs", State: basev1.Service_STATE_FAILED}
	for name, c := range map[string]struct {
		happened *systemv1.SystemEvent
		want     *basev1.WatchEventsResponse
	}{
		"failed": {&systemv1.SystemEvent{Happened: &systemv1.SystemEvent_ServiceFailed{ServiceFailed: &systemv1.ServiceFailed{Service: service, Reason: "why"}}},
			&basev1.WatchEventsResponse{Event: &basev1.WatchEventsResponse_ServiceFailed{ServiceFailed: &basev1.ServiceFailedEvent{Service: service, Reason: "why"}}}},
		"recovered": {&systemv1.SystemEvent{Happened: &systemv1.SystemEvent_ServiceRecovered{ServiceRecovered: &systemv1.ServiceRecovered{Service: service}}},
			&basev1.WatchEventsResponse{Event: &basev1.WatchEventsResponse_ServiceRecovered{ServiceRecovered: &basev1.ServiceRecoveredEvent{Service: service}}}},
		"disk": {&systemv1.SystemEvent{Happened: &systemv1.SystemEvent_DiskFilling{DiskFilling: &systemv1.DiskFilling{TotalBytes: 9, AvailableBytes: 1}}},
			&basev1.WatchEventsResponse{Event: &basev1.WatchEventsResponse_DiskFilling{DiskFilling: &basev1.DiskFillingEvent{TotalBytes: 9, AvailableBytes: 1}}}},
		"updates": {&systemv1.SystemEvent{Happened: &systemv1.SystemEvent_UpdateWaiting{UpdateWaiting: &systemv1.UpdateWaiting{Packages: []string{"dpkg 1"}}}},
			&basev1.WatchEventsResponse{Event: &basev1.WatchEventsResponse_UpdateWaiting{UpdateWaiting: &basev1.UpdateWaitingEvent{Packages: []string{"dpkg 1"}}}}},
		"stopping": {&systemv1.SystemEvent{Happened: &systemv1.SystemEvent_MachineStopping{MachineStopping: &systemv1.MachineStopping{PowerOff: true, AppId: "0123456789abcdef"}}},
			&basev1.WatchEventsResponse{Event: &basev1.WatchEventsResponse_MachineStopping{MachineStopping: &basev1.MachineStoppingEvent{PowerOff: true, By: &basev1.App{Id: "0123456789abcdef"}}}}},
	} {
		if got := eventOf(c.happened); !proto.Equal(got, c.want) {
			t.Errorf("%s: %v", name, got)
		}
	}
}
