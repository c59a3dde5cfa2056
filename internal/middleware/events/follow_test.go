package events

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/caller"
	helperevents "github.com/BitBoxSwiss/bitbox-base/internal/helper/events"
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

// aHelper is the hub of the helper's events, whose streams a test can break.
type aHelper struct {
	mu        sync.Mutex
	hub       *helperevents.Hub
	down      bool
	forgetful bool // the broken variant: nobody says which events are missing
	hangUp    context.CancelFunc
}

var errDown = errors.New("the helper is down")

func (h *aHelper) Each(ctx context.Context, request *systemv1.SystemRequest, receive func(*systemv1.SystemReply) error) error {
	ask := request.GetWatchSystem()
	if ask == nil {
		<-ctx.Done()
		return ctx.Err()
	}
	ctx, hangUp := context.WithCancel(ctx)
	defer hangUp()
	h.mu.Lock()
	hub, down := h.hub, h.down
	h.hangUp = hangUp
	h.mu.Unlock()
	if down {
		return errDown
	}
	if h.forgetful {
		ask = &systemv1.WatchSystem{}
	}
	_, err := hub.Watch(ctx, &caller.Call{Who: caller.Middleware, Send: receive}, ask)
	return err
}

// stop breaks the stream; start allows another one.
func (h *aHelper) stop() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.down = true
	h.hangUp()
}

func (h *aHelper) start(hub *helperevents.Hub) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.hub, h.down = hub, false
}

// The helper tells events while nobody listens: between two streams, while the Middleware is down, and
// more of them than it keeps. Each one reaches the history of the Middleware once, or is counted in it;
// if the helper was started again, the history says that nobody knows. In the broken variant the
// Middleware asks for nothing of the past.
func TestTheHelpersEventsArriveThoughNobodyWatchedOrAreSaidToBeMissing(t *testing.T) {
	for name, forgetful := range map[string]bool{"as it is": false, "forgetful": true} {
		synctest.Test(t, func(t *testing.T) {
			helper := &aHelper{hub: helperevents.New(time.Now), forgetful: forgetful}
			path, published, next := t.TempDir()+"/events.db", 0, 0
			publish := func(n int) {
				for range n {
					published++
					helper.hub.Publish(&basev1.Event{Event: &basev1.Event_PostureChanged{
						PostureChanged: &basev1.PostureChangedEvent{Note: fmt.Sprint(published)}}})
				}
			}
			// told counts the events of the history from next on, those that are said to be missing, and how
			// often it says that nobody knows.
			told := func(h *Hub) (came, missed, unknown int) {
				for _, e := range h.history.events {
					if e.GetSequence() <= uint64(next) {
						continue
					}
					next = int(e.GetSequence())
					switch missing := e.GetEventsMissed(); {
					case missing != nil && missing.Count == nil:
						unknown++
					case missing != nil:
						missed += int(missing.GetCount())
					case e.GetPostureChanged() != nil:
						came++
					}
				}
				return came, missed, unknown
			}
			// run runs a Middleware, and returns what it told.
			run := func(during func()) (came, missed, unknown int) {
				db, h, err := openEvents(path)
				if err != nil {
					t.Fatal(err)
				}
				defer db.Close()
				ctx, cancel := context.WithCancel(t.Context())
				done := make(chan struct{})
				go func() { defer close(done); h.Follow(ctx, helper, oneApp{}, func(time.Duration) {}) }()
				synctest.Wait()
				during()
				time.Sleep(2 * followAgain)
				synctest.Wait()
				cancel()
				<-done
				h.Close()
				return told(h)
			}
			check := func(what string, came, missed, unknown, wantCame, wantMissed, wantUnknown int) {
				right := came == wantCame && missed == wantMissed && unknown == wantUnknown
				if right == forgetful {
					t.Errorf("%s: %s: %d came, %d are missing, %d times nobody knows", name, what, came, missed, unknown)
				}
			}
			came, _, _ := run(func() { publish(3) })
			if came != 3 {
				t.Fatalf("%d came", came)
			}
			publish(4) // while the Middleware is down
			came, missed, unknown := run(func() {})
			check("after a restart of the Middleware", came, missed, unknown, 4, 0, 0)

			came, missed, unknown = run(func() {
				helper.stop()
				publish(5)
				helper.start(helper.hub)
			})
			check("after a broken stream", came, missed, unknown, 5, 0, 0)

			publish(1) // so that the next one has a place
			_, _, _ = run(func() {})
			publish(140)
			came, missed, unknown = run(func() {})
			// Of the 128 that come, the history keeps the last 100 of a kind.
			check("more than is kept", came, missed, unknown, keptOfAKind, 12, 0)

			came, missed, unknown = run(func() {
				helper.stop()
				helper.start(helperevents.New(time.Now))
				publish(6)
			})
			check("after a restart of the helper", came, missed, unknown, 6, 0, 1)
		})
	}
}
