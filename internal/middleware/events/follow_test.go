package events

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	nodev1 "github.com/BitBoxSwiss/bitbox-base/api/node/v1"
	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/backlog"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/caller"
	helperevents "github.com/BitBoxSwiss/bitbox-base/internal/helper/events"
)

// tellingHelper tells events, once.
type tellingHelper []*basev1.Event

func (h tellingHelper) Each(ctx context.Context, request *systemv1.SystemRequest, receive func(*systemv1.SystemReply) error) error {
	if request.GetWatchSystem() != nil {
		for n, event := range append([]*basev1.Event{nil}, h...) {
			if err := receive(&systemv1.SystemReply{Result: &systemv1.SystemReply_Event{Event: &systemv1.SystemEvent{
				Event: event, Run: 1, Number: uint64(n)}}}); err != nil {
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

// runMiddleware runs a Middleware that follows somebody, and returns its history after what happens during it and
// some time more.
func runMiddleware(t *testing.T, path string, follow func(context.Context, *Hub), during func(), more time.Duration) *Hub {
	t.Helper()
	db, h, err := openEvents(path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); follow(ctx, h) }()
	synctest.Wait()
	during()
	time.Sleep(more)
	synctest.Wait()
	cancel()
	<-done
	h.Close()
	return h
}

// The helper tells events while nobody listens: between two streams, while the Middleware is down, and
// more of them than it keeps. Each one reaches the history of the Middleware once, or is counted in it.
// That holds across an orderly stop of the helper; if it was killed, the history says that nobody knows,
// whether the Middleware ran meanwhile or not. In the broken variant the Middleware asks for nothing of
// the past.
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
				return told(runMiddleware(t, path, func(ctx context.Context, h *Hub) { h.Follow(ctx, helper, oneApp{}, func(time.Duration) {}) },
					during, 2*followAgain))
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
			check("after the helper was killed", came, missed, unknown, 6, 0, 1)

			// Both end within seconds, and the helper tells more in between, and at its end.
			publish(2)
			directory := t.TempDir()
			after := helperevents.New(time.Now)
			if err := errors.Join(helper.hub.Keep(directory), after.Resume(directory)); err != nil {
				t.Fatal(err)
			}
			helper.start(after)
			publish(3)
			came, missed, unknown = run(func() {})
			check("after an orderly stop of both", came, missed, unknown, 5, 0, 0)

			publish(2)
			helper.start(helperevents.New(time.Now))
			publish(3)
			came, missed, unknown = run(func() {})
			check("after the helper was killed while the Middleware was down", came, missed, unknown, 3, 0, 1)

			// A power cut takes both. The event about the start says it, and nothing says it again.
			db, h, err := openEvents(path)
			if err != nil {
				t.Fatal(err)
			}
			h.PublishStart("")
			synctest.Wait()
			if err := db.Close(); err != nil {
				t.Fatal(err)
			}
			helper.start(helperevents.New(time.Now))
			publish(1)
			came, missed, unknown = run(func() {})
			check("after a power cut", came, missed, unknown, 1, 0, 0)
		})
	}
}

// aNode is bitbox-node, whose streams a test can break.
type aNode struct {
	mu        sync.Mutex
	log       *backlog.Log
	changed   chan struct{} // closed when there is more, or the stream is to end
	down      bool
	ended     bool // it ends in an orderly way
	forgetful bool // the broken variant: it is asked for nothing of the past
}

func newNode() *aNode { return &aNode{log: backlog.New(time.Now), changed: make(chan struct{})} }

func (n *aNode) change(change func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	change()
	close(n.changed)
	n.changed = make(chan struct{})
}

func (n *aNode) publish(height uint64) {
	n.change(func() {
		n.log.Add(&basev1.Event{Event: &basev1.Event_NodeBehind{NodeBehind: &basev1.NodeBehindEvent{Height: height}}})
	})
}

func (n *aNode) WatchEvents(ctx context.Context, after backlog.Place, receive func(*nodev1.NodeEvent) error) error {
	if n.forgetful {
		after = backlog.Place{}
	}
	for first := true; ; first = false {
		n.mu.Lock()
		past, changed, down, ended := n.log.After(after), n.changed, n.down, n.ended
		n.mu.Unlock()
		if down && !ended {
			return errDown
		}
		after = past.Begin
		if first {
			if err := receive(&nodev1.NodeEvent{Run: after.Run, Number: after.Number, Missed: past.Missed}); err != nil {
				return err
			}
		}
		for _, event := range past.Events {
			after.Number++
			if err := receive(&nodev1.NodeEvent{Run: after.Run, Number: after.Number, Event: event}); err != nil {
				return err
			}
		}
		if ended {
			return receive(&nodev1.NodeEvent{Run: after.Run, Number: after.Number, Ended: true})
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// accounted waits for all that an hour of the history tells of the node, and counts it.
func accounted(h *Hub, next *uint64) (came, missed, unknown int) {
	for _, e := range h.history.events {
		if e.GetSequence() <= *next {
			continue
		}
		*next = e.GetSequence()
		switch missing := e.GetNodeEventsMissed(); {
		case missing != nil && missing.Count == nil:
			unknown++
		case missing != nil:
			missed += int(missing.GetCount())
		case e.GetNodeBehind() != nil:
			came += 1 + int(e.GetLeftOut())
		}
	}
	return came, missed, unknown
}

// runNode runs a Middleware that follows a node for a while, and returns what it told. None of its
// events has to wait for a place of its kind.
func runNode(t *testing.T, path string, next *uint64, node Node, during func()) (came, missed, unknown int) {
	t.Helper()
	return accounted(runMiddleware(t, path, func(ctx context.Context, h *Hub) { h.FollowNode(ctx, node) }, during, 2*nodeAgain), next)
}

// bitbox-node tells events while nobody listens: in the pause between two streams, while the Middleware
// is down, and more of them than it keeps. Each one reaches the history once, or is counted in it. An
// orderly end of bitbox-node that the Middleware has heard leaves no doubt; one that it has not heard
// does. In the broken variant the Middleware asks for nothing of the past, as it once did.
func TestTheNodesEventsArriveThoughNobodyWatchedOrAreSaidToBeMissing(t *testing.T) {
	for name, forgetful := range map[string]bool{"as it is": false, "forgetful": true} {
		synctest.Test(t, func(t *testing.T) {
			node, path, next, height := newNode(), t.TempDir()+"/events.db", uint64(0), uint64(0)
			node.forgetful = forgetful
			publish := func(n int) {
				for range n {
					height++
					node.publish(height)
				}
			}
			again := func() { // another start of bitbox-node
				time.Sleep(time.Second)
				node.change(func() { node.log, node.down, node.ended = backlog.New(time.Now), false, false })
			}
			run := func(during func()) (came, missed, unknown int) { return runNode(t, path, &next, node, during) }
			check := func(what string, came, missed, unknown, wantCame, wantMissed, wantUnknown int) {
				t.Helper()
				right := came == wantCame && missed == wantMissed && unknown == wantUnknown
				if right == forgetful {
					t.Errorf("%s: %s: %d came, %d are missing, %d times nobody knows", name, what, came, missed, unknown)
				}
			}
			if came, missed, unknown := run(func() { publish(3) }); came != 3 || missed+unknown != 0 {
				t.Fatalf("%d came, %d are missing, %d times nobody knows", came, missed, unknown)
			}
			publish(4) // while the Middleware is down
			came, missed, unknown := run(func() {})
			check("after a restart of the Middleware", came, missed, unknown, 4, 0, 0)

			came, missed, unknown = run(func() {
				node.change(func() { node.down = true })
				synctest.Wait()
				publish(5) // in the pause
				node.change(func() { node.down = false })
			})
			check("after a broken stream", came, missed, unknown, 5, 0, 0)

			publish(150)
			came, missed, unknown = run(func() {})
			check("more than is kept", came, missed, unknown, backlog.MaxEvents, 150-backlog.MaxEvents, 0)

			came, missed, unknown = run(func() {
				node.change(func() { node.down = true })
				again()
				publish(6)
			})
			check("after bitbox-node was killed", came, missed, unknown, 6, 0, 1)

			publish(2)
			came, missed, unknown = run(func() {
				node.change(func() { node.ended = true })
				synctest.Wait()
			})
			check("until its orderly end", came, missed, unknown, 2, 0, 0)
			again()
			publish(3) // the Middleware was down, too
			came, missed, unknown = run(func() {})
			check("after an orderly end that was heard", came, missed, unknown, 3, 0, 0)
			again()
			publish(3)
			came, missed, unknown = run(func() {})
			check("after an end that nobody has heard", came, missed, unknown, 3, 0, 1)
		})
	}
}

// lyingNode sends messages, in each stream.
type lyingNode []*nodev1.NodeEvent

func (l lyingNode) WatchEvents(_ context.Context, _ backlog.Place, receive func(*nodev1.NodeEvent) error) error {
	for _, message := range l {
		if err := receive(message); err != nil {
			return err
		}
	}
	return errDown
}

// The attack: a bitbox-node that was taken over sends numbers that cannot be. The Middleware passes on no
// event out of order, and never claims a number that it has not been able to check against what it
// heard itself, nor more than a million. Whatever comes, in the history it stays within the places of
// its own kind.
func TestANodeProcessThatLiesAboutNumbersMakesNoNumberOfMissingEvents(t *testing.T) {
	behind := &basev1.Event{Event: &basev1.Event_NodeBehind{NodeBehind: &basev1.NodeBehindEvent{}}}
	for name, c := range map[string]struct {
		lies          lyingNode
		came, unknown bool
	}{
		"no run":                {lyingNode{{Number: 7, Missed: 7}, {Number: 8, Event: behind}}, false, false},
		"a huge gap":            {lyingNode{{Run: 1, Number: math.MaxUint64, Missed: math.MaxUint64 - 1}}, false, true},
		"a gap without a count": {lyingNode{{Run: 1, Number: 50}}, false, true},
		"a count without a gap": {lyingNode{{Run: 1, Number: 1, Missed: 1000}}, false, true},
		"backwards":             {lyingNode{{Run: 1}}, false, true},
		"another run each time": {lyingNode{{Run: 3, Missed: 9}}, false, true},
		"numbers that jump":     {lyingNode{{Run: 1, Number: 1}, {Run: 1, Number: 9, Event: behind}}, false, false},
		"numbers that stay":     {lyingNode{{Run: 1, Number: 1}, {Run: 1, Number: 1, Event: behind}}, false, false},
		"a change of the run":   {lyingNode{{Run: 1, Number: 1}, {Run: 2, Number: 2, Event: behind}}, false, false},
		"an end without a run":  {lyingNode{{Ended: true}}, false, false},
		"nothing wrong":         {lyingNode{{Run: 1, Number: 1}, {Run: 1, Number: 2, Event: behind}}, true, false},
	} {
		synctest.Test(t, func(t *testing.T) {
			db, h, err := openEvents(t.TempDir() + "/events.db")
			if err != nil {
				t.Fatal(err)
			}
			defer db.Close()
			if err := errors.Join(h.begin(fromNode, backlog.Place{Run: 1}, 0), h.next(fromNode, backlog.Place{Run: 1, Number: 1})); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan struct{})
			go func() { defer close(done); h.FollowNode(ctx, c.lies) }()
			synctest.Wait()
			first, next := len(h.history.events), uint64(0)
			came, missed, unknown := accounted(h, &next)
			if (came > 0) != c.came || missed > 0 || (unknown > 0) != c.unknown {
				t.Errorf("%s: %d came, %d are missing, %d times nobody knows", name, came, missed, unknown)
			}
			time.Sleep(1000 * nodeAgain) // it goes on
			cancel()
			<-done
			synctest.Wait()
			if most := first + 2*(eventPlaces+int(1000*nodeAgain/eventPlaceBack)+1); len(h.history.events) > most {
				t.Errorf("%s: %d events are written", name, len(h.history.events))
			}
			next = 0
			if _, missed, _ := accounted(h, &next); missed > 0 {
				t.Errorf("%s: %d are said to be missing", name, missed)
			}
			h.Close()
		})
	}
}
