package events

import (
	"context"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
)

// tellingHelper tells events, once.
type tellingHelper []*basev1.Event

func (h tellingHelper) Each(ctx context.Context, request *systemv1.SystemRequest, receive func(*systemv1.SystemReply) error) error {
	if request.GetWatchSystem() != nil {
		for _, event := range append([]*basev1.Event{nil}, h...) {
			if err := receive(&systemv1.SystemReply{Result: &systemv1.SystemReply_Event{Event: &systemv1.SystemEvent{Event: event}}}); err != nil {
				return err
			}
		}
	}
	<-ctx.Done()
	return ctx.Err()
}

// oneApp is a registry with one App.
type oneApp struct{ *basev1.App }

func (oneApp) SetRoles([]*systemv1.AppRole) {}
func (a oneApp) Known(id string) *basev1.App {
	if id != a.GetId() {
		return nil
	}
	return a.App
}

// The helper's events pass unchanged. Only the names of Apps, which the helper does not know, are
// added.
func TestTheHelpersEventsArePassedOn(t *testing.T) {
	laptop := &basev1.App{Id: "6b2c", Name: "Laptop"}
	stopping := func(by *basev1.App) *basev1.Event {
		return &basev1.Event{Event: &basev1.Event_MachineStopping{MachineStopping: &basev1.MachineStoppingEvent{PowerOff: true, By: by}}}
	}
	closed := func(app *basev1.App) *basev1.Event {
		return &basev1.Event{Event: &basev1.Event_PostureChanged{PostureChanged: &basev1.PostureChangedEvent{Changes: []string{
			"SSH was switched off."}, App: app}}}
	}
	failed := &basev1.Event{Event: &basev1.Event_ServiceFailed{ServiceFailed: &basev1.ServiceFailedEvent{
		Service: &basev1.Service{Name: "electrs", State: basev1.Service_STATE_FAILED}, Reason: "why"}}}
	nobody := &basev1.App{Id: "gone"}
	told := tellingHelper{failed, stopping(&basev1.App{Id: "6b2c"}), closed(&basev1.App{Id: "6b2c"}), stopping(nobody), stopping(nil)}
	want := []*basev1.Event{proto.CloneOf(failed), stopping(laptop), closed(laptop), stopping(nobody), stopping(nil)}

	h := eventsIn(t)
	s, err := h.Subscribe(false, 0)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); h.Follow(ctx, told, oneApp{laptop}, func(time.Duration) {}) }()
	defer func() { cancel(); <-done }()
	for i := range want {
		got := proto.CloneOf(<-s.Events)
		got.Time, got.Sequence = nil, 0
		if !proto.Equal(got, want[i]) {
			t.Errorf("%v was told, not %v", got, want[i])
		}
	}
}
