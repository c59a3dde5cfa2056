package api

import (
	"cmp"
	"context"
	"errors"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/api/base/v1/baserpc"
	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/helperclient"
	"github.com/BitBoxSwiss/bitbox-base/internal/ipc"
	"github.com/BitBoxSwiss/bitbox-base/internal/middleware/events"
	"github.com/BitBoxSwiss/bitbox-base/internal/middleware/registry"
	"github.com/BitBoxSwiss/bitbox-base/internal/middleware/registry/registrytest"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/pairing"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/rpc"
)

// call calls a method with an empty request, whatever its type.
func call(ctx context.Context, c *caller, name string) error {
	session, err := c.Session(ctx)
	if err != nil {
		return err
	}
	switch described := methodsOfAPI()[name]; {
	case described == nil || !described.IsStreamingClient() && !described.IsStreamingServer():
		_, err = rpc.Call[emptypb.Empty](ctx, session, name, &emptypb.Empty{})
	case described.IsStreamingClient():
		var sending *rpc.Sending[emptypb.Empty]
		if sending, err = rpc.Upload[emptypb.Empty](ctx, session, name); err == nil {
			defer sending.Close()
			_, err = sending.Finish()
		}
	default:
		var stream *rpc.Stream[emptypb.Empty]
		if stream, err = rpc.Watch[emptypb.Empty](ctx, session, name, &emptypb.Empty{}); err == nil {
			defer stream.Close()
			if _, err = stream.Receive(); errors.Is(err, io.EOF) {
				err = nil
			}
		}
	}
	return err
}

// whoMay is the expected content of the roles table, written down a second time.
var whoMay = map[basev1.Role][]string{
	viewer: {"GetFees", "GetHistory", "GetInfo", "GetNode", "GetPosture", "GetTransaction", "GetUpdate", "GetWallets",
		"GetWindow", "ListApps", "ListBans", "ListBlocks", "ListChanges", "ListDisks", "ListHeaders", "ListPeers", "ListServices",
		"ListTimeZones", "WatchBlocks", "WatchEvents"},
	operator: {"ChangeService", "GetFees", "GetHistory", "GetInfo", "GetNode", "GetPosture",
		"GetTransaction", "GetUpdate", "GetWallets", "GetWindow", "InstallDebianUpdates", "ListApps", "ListBans", "ListBlocks", "ListChanges",
		"ListDisks", "ListHeaders", "ListPeers", "ListServices", "ListTimeZones", "ReadLogs", "Reboot", "RunAudit", "SetTimeZone",
		"WatchBlocks", "WatchEvents"},
	owner: {"AcceptPairing", "AnswerPairing", "BringBitcoinCore", "BringUpdate", "ChangeNodeSettings", "ChangeService",
		"CloseWindow", "ConfirmTry", "ConfirmUpdate", "EndLease", "FactoryReset", "FixFinding", "GetFees", "GetHistory",
		"GetInfo", "GetNode", "GetPosture", "GetTransaction", "GetUpdate", "GetWallets", "GetWindow", "GoBack",
		"InstallDebianUpdates", "LiftBan", "ListApps", "ListBans", "ListBlocks", "ListChanges", "ListDisks", "ListHeaders", "ListPeers",
		"ListServices", "ListTimeZones", "Lockdown", "OpenWindow", "PowerOff", "ReadLogs", "Reboot", "RebuildChain",
		"RenameApp", "RevokeApp", "RunAudit", "SetTimeZone", "SubmitPosture", "UseDisk", "WatchBlocks", "WatchEvents",
		"WatchUpdate"},
}

// allowed tries every method as each role, and returns those that are not refused.
func allowed(t *testing.T, l *hall) map[basev1.Role][]string {
	t.Helper()
	got := map[basev1.Role][]string{}
	for role := range whoMay {
		client := l.client(l.house.Active("an "+role.String(), role))
		for name := range methods {
			if code := rpc.CodeOf(call(t.Context(), client, name)); code != rpc.Denied {
				got[role] = append(got[role], name[strings.LastIndex(name, ".")+1:])
			}
		}
		slices.Sort(got[role])
	}
	return got
}

func TestEachRoleMayCallExactlyTheMethodsOfTheTable(t *testing.T) {
	got := allowed(t, serve(t, registrytest.New(t, nil), nil))
	for role, want := range whoMay {
		if !slices.Equal(got[role], want) {
			t.Errorf("%v may call %q, not %q", role, got[role], want)
		}
	}
	// The broken variant lets everybody do what the lowest role may. The window alone stays shut: the registry closes
	// it again behind an App that is no owner when the window has opened.
	lax := maps.Clone(methods)
	for name, m := range lax {
		m.least = viewer
		lax[name] = m
	}
	broken := serveTable(t, registrytest.New(t, nil), lax, newClasses(), nil)
	want := slices.DeleteFunc(slices.Clone(whoMay[owner]), func(name string) bool { return name == "OpenWindow" })
	if got := allowed(t, broken); !slices.Equal(got[viewer], want) {
		t.Errorf("without the roles a viewer should reach everything, not only %q; this attack proves nothing", got[viewer])
	}
}

func TestNothingIsServedBesideTheAPI(t *testing.T) {
	h := registrytest.New(t, nil)
	client := serve(t, h, nil).client(h.Active("phone", owner))
	for name, want := range map[string]rpc.Code{
		"/":                                    rpc.Unimplemented,
		"bitbox.base.v1.InfoService":           rpc.Unimplemented,
		"bitbox.base.v1.InfoService.":          rpc.Unimplemented,
		"bitbox.base.v1.InfoService.Invented":  rpc.Unimplemented,
		"/bitbox.base.v1.InfoService/GetInfo":  rpc.Unimplemented,
		"bitbox.system.v1.System.Restrict":     rpc.Unimplemented,
		"debug/pprof":                          rpc.Unimplemented,
		baserpc.InfoServiceGetInfo:             rpc.OK,
		baserpc.EventsServiceWatchEvents + "x": rpc.Unimplemented,
	} {
		if err := call(t.Context(), client, name); rpc.CodeOf(err) != want {
			t.Errorf("%s: %v, not %v", name, err, want)
		}
	}
}

func TestARequestIsNoLongerThanTheTableSays(t *testing.T) {
	h := registrytest.New(t, nil)
	apps := baserpc.NewAppsServiceClient(serve(t, h, nil).client(h.Active("boss", owner)))
	long := &basev1.RenameAppRequest{Name: strings.Repeat("x", rpc.DefaultRequest)}
	if _, err := apps.RenameApp(t.Context(), long); rpc.CodeOf(err) != rpc.Exhausted {
		t.Errorf("a long request: %v", err)
	}
}

// An App without the role learns nothing about the parsing of its request, and causes no cost.
func TestTheRoleIsCheckedBeforeTheRequestIsParsed(t *testing.T) {
	h := registrytest.New(t, nil)
	l := serve(t, h, nil)
	noText := &wrapperspb.BytesValue{Value: []byte{0xff}} // where the request has a text
	for role, want := range map[basev1.Role]rpc.Code{viewer: rpc.Denied, owner: rpc.Invalid} {
		session := registrytest.Must(l.client(h.Active("an "+role.String(), role)).Session(t.Context()))
		if _, err := rpc.Call[emptypb.Empty](t.Context(), session, baserpc.AppsServiceRenameApp, noText); rpc.CodeOf(err) != want {
			t.Errorf("a request that cannot be parsed, of %v: %v, not %v", role, err, want)
		}
	}
}

// The former HTTP API no longer exists, not even inside the channel.
func TestHTTPGetsNoAnswerEvenInsideTheChannel(t *testing.T) {
	for name, said := range map[string]string{
		"HTTP/1": "GET /bitbox.base.v1.InfoService/GetInfo HTTP/1.1\r\nHost: base\r\n\r\n",
		"HTTP/2": "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
	} {
		h := registrytest.New(t, nil)
		c, err := serve(t, h, nil).dial(h.Active("phone", owner))
		if err != nil {
			t.Fatal(err)
		}
		go func() { _, _ = io.WriteString(c, said) }()
		if answer, _ := io.ReadAll(c); len(answer) != 0 {
			t.Errorf("%s is answered: %q", name, answer)
		}
	}
}

func TestInfoTellsOfTheMachineAndWhatIsMissingDoesNoHarm(t *testing.T) {
	h := registrytest.New(t, func(c *registry.Config) { c.Name = "kitchen" })
	a := h.Active("phone", owner)
	info, err := baserpc.NewInfoServiceClient(serve(t, h, nil).client(a)).GetInfo(t.Context(), &basev1.GetInfoRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if info.GetName() != "kitchen" || info.GetMemoryTotalBytes() == 0 || info.GetDiskTotalBytes() == 0 || len(info.GetLoadAverage()) != 3 ||
		info.GetTemperatureCelsius() != 41.5 || len(info.GetAddresses()) != 1 || info.GetCaller().GetId() != a.ID() ||
		info.GetProtocolVersion() != 1 {
		t.Errorf("info: %v", info)
	}
	deaf := serve(t, h, func(c *Config) { c.Machine = machine{broken: errors.New("the helper restarts")} })
	info, err = baserpc.NewInfoServiceClient(deaf.client(a)).GetInfo(t.Context(), &basev1.GetInfoRequest{})
	if err != nil || info.GetName() != "kitchen" || info.TemperatureCelsius != nil {
		t.Errorf("without a helper: %v, %v", info, err)
	}
}

func TestTheWindowIsOpenedAndClosedByAnOwner(t *testing.T) {
	h := registrytest.New(t, nil)
	client := baserpc.NewPairingServiceClient(serve(t, h, nil).client(h.Active("phone", owner)))
	opened, err := client.OpenWindow(t.Context(), &basev1.OpenWindowRequest{})
	if err != nil || !opened.GetWindow().GetOpen() || opened.GetWindow().GetRemainingMs() != 180_000 {
		t.Errorf("open: %v, %v", opened, err)
	}
	if _, err := client.CloseWindow(t.Context(), &basev1.CloseWindowRequest{}); err != nil {
		t.Error(err)
	}
	got, err := client.GetWindow(t.Context(), &basev1.GetWindowRequest{})
	if err != nil || got.GetWindow().GetOpen() {
		t.Errorf("closed: %v, %v", got, err)
	}
	h.Authority.Mu.Lock()
	h.Authority.Broken = errors.New("the helper restarts")
	h.Authority.Mu.Unlock()
	if _, err := client.GetWindow(t.Context(), &basev1.GetWindowRequest{}); err == nil {
		t.Error("a window is made up")
	}
}

func TestBadRequestsAboutAppsGetAClearCode(t *testing.T) {
	h := registrytest.New(t, nil)
	a := h.Active("phone", owner)
	apps := baserpc.NewAppsServiceClient(serve(t, h, nil).client(a))
	for name, want := range map[string]rpc.Code{
		"":                       rpc.Invalid,
		"two\nlines":             rpc.Invalid,
		"\u202egnp.exe":          rpc.Invalid,
		strings.Repeat("x", 64):  rpc.Invalid,
		"a name that is allowed": 0,
	} {
		if _, err := apps.RenameApp(t.Context(), &basev1.RenameAppRequest{Id: a.ID(), Name: name}); rpc.CodeOf(err) != want {
			t.Errorf("rename to %q: %v; want %v", name, err, want)
		}
	}
	if _, err := apps.RenameApp(t.Context(), &basev1.RenameAppRequest{Id: "nobody", Name: "x"}); rpc.CodeOf(err) != rpc.NotFound {
		t.Errorf("rename nobody: %v", err)
	}
	if _, err := apps.RevokeApp(t.Context(), &basev1.RevokeAppRequest{Id: "nobody"}); rpc.CodeOf(err) != rpc.NotFound {
		t.Errorf("revoke nobody: %v", err)
	}
	if _, err := apps.RevokeApp(t.Context(), &basev1.RevokeAppRequest{Id: a.ID()}); rpc.CodeOf(err) != rpc.Precondition {
		t.Errorf("revoke the last owner: %v", err)
	}
}

// watcher watches events on a goroutine.
type watcher struct {
	events chan *basev1.Event
	ended  chan error
}

func watch(ctx context.Context, t *testing.T, client *caller) *watcher {
	t.Helper()
	stream, err := baserpc.NewEventsServiceClient(client).WatchEvents(ctx, &basev1.WatchEventsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	w := &watcher{events: make(chan *basev1.Event, 10_000), ended: make(chan error, 1)}
	go func() {
		defer stream.Close()
		for {
			event, err := stream.Receive()
			if err != nil {
				w.ended <- err
				return
			}
			w.events <- event
		}
	}()
	if first := w.next(t); first.GetSubscribed() == nil {
		t.Fatalf("the first event is %v", first)
	}
	return w
}

func (w *watcher) next(t *testing.T) *basev1.Event {
	t.Helper()
	select {
	case event := <-w.events:
		return event
	case err := <-w.ended:
		t.Fatalf("the stream ended: %v", err)
	case <-time.After(registrytest.TestTime):
		t.Fatal("no event came")
	}
	return nil
}

// isAbout tells whether an event is about an App that has paired, connected or left.
func isAbout(e *basev1.Event, id string) bool {
	app := cmp.Or(e.GetAppPaired().GetApp(), e.GetSessionStarted().GetApp(), e.GetSessionEnded().GetApp())
	return app.GetId() == id
}

func TestEventsTellWhatHappens(t *testing.T) {
	h := registrytest.New(t, nil)
	l := serve(t, h, nil)
	boss := h.Active("boss", owner)
	client := l.client(boss)
	w := watch(t.Context(), t, client)
	phone := h.Active("phone", viewer)
	// The events of the boss are told once they are on the disk, which may be only now.
	event := w.next(t)
	for isAbout(event, boss.ID()) {
		event = w.next(t)
	}
	if got := event.GetAppPaired().GetApp(); got.GetId() != phone.ID() || got.GetRole() != viewer {
		t.Errorf("paired: %v", got)
	}
	if got := w.next(t).GetSessionStarted().GetApp(); got.GetId() != phone.ID() || got.GetSessions() != 1 {
		t.Errorf("started: %v", got)
	}
	if got := w.next(t).GetSessionEnded().GetApp(); got.GetId() != phone.ID() || got.GetSessions() != 0 {
		t.Errorf("ended: %v", got)
	}
	apps := baserpc.NewAppsServiceClient(client)
	if _, err := apps.RenameApp(t.Context(), &basev1.RenameAppRequest{Id: phone.ID(), Name: "tablet"}); err != nil {
		t.Fatal(err)
	}
	if got := w.next(t).GetAppRenamed().GetApp(); got.GetName() != "tablet" {
		t.Errorf("renamed: %v", got)
	}
	if _, err := apps.RevokeApp(t.Context(), &basev1.RevokeAppRequest{Id: phone.ID()}); err != nil {
		t.Fatal(err)
	}
	if event := w.next(t); event.GetAppRevoked().GetApp().GetId() != phone.ID() || event.GetTime() == nil {
		t.Errorf("revoked: %v", event)
	}
	h.Events.PublishWindow(events.WindowOf(registrytest.Must(h.Authority.Watch(t.Context(), 0))))
	if w.next(t).GetWindowChanged() == nil {
		t.Error("no event about the window")
	}
}

func TestAStreamThatIsReadTooSlowlyEndsAndHasNoGaps(t *testing.T) {
	h := registrytest.New(t, nil)
	l := serve(t, h, nil)
	w := watch(t.Context(), t, l.client(h.Active("phone", viewer)))
	// Faster than anything can be sent.
	for {
		h.Events.Publish(&basev1.Event{Event: &basev1.Event_Subscribed{}})
		if h.Events.Subscribers() == 0 {
			break
		}
	}
	select {
	case err := <-w.ended:
		if rpc.CodeOf(err) != rpc.Exhausted {
			t.Errorf("it ended with %v", err)
		}
	case <-time.After(registrytest.TestTime):
		t.Error("it does not end")
	}
}

// revokeInStream makes an owner revoke an App in the middle of its stream. It tells whether the
// stream was cut, and whether an event arrived afterwards.
func revokeInStream(t *testing.T, noCut bool) (cut, heardMore bool) {
	t.Helper()
	h := registrytest.New(t, nil)
	l := serve(t, h, nil)
	l.noCut = noCut
	boss, phone := h.Active("boss", owner), h.Active("phone", viewer)
	w := watch(t.Context(), t, l.client(phone))
	apps := baserpc.NewAppsServiceClient(l.client(boss))
	if _, err := apps.RevokeApp(t.Context(), &basev1.RevokeAppRequest{Id: phone.ID()}); err != nil {
		t.Fatal(err)
	}
	h.Events.PublishWindow(events.WindowOf(registrytest.Must(h.Authority.Watch(t.Context(), 0))))
	for {
		select {
		case event := <-w.events:
			if event.GetWindowChanged() != nil {
				return false, true
			}
		case <-w.ended:
			return true, heardMore
		case <-time.After(registrytest.TestTime):
			return false, heardMore
		}
	}
}

func TestRevokedAppIsCutOffInTheMiddleOfAStream(t *testing.T) {
	if cut, heardMore := revokeInStream(t, false); !cut || heardMore {
		t.Errorf("cut %t, heard more %t", cut, heardMore)
	}
	if cut, heardMore := revokeInStream(t, true); cut || !heardMore {
		t.Errorf("without the cut the stream should go on; this attack proves nothing (cut %t, heard more %t)", cut, heardMore)
	}
}

func TestARevokedAppsOtherCallsAreRefusedEvenBeforeItIsCut(t *testing.T) {
	h := registrytest.New(t, nil)
	l := serve(t, h, nil)
	l.noCut = true
	boss, phone := h.Active("boss", owner), h.Active("phone", viewer)
	session := registrytest.Must(h.Begin(t.Context(), boss.Peer, registrytest.From, func() {})).(*registry.Session)
	client := baserpc.NewInfoServiceClient(l.client(phone))
	if _, err := client.GetInfo(t.Context(), &basev1.GetInfoRequest{}); err != nil {
		t.Fatal(err)
	}
	if err := h.Revoke(t.Context(), phone.ID(), session); err != nil {
		t.Fatal(err)
	}
	if _, err := client.GetInfo(t.Context(), &basev1.GetInfoRequest{}); rpc.CodeOf(err) != rpc.Unauthenticated {
		t.Errorf("after it was revoked: %v", err)
	}
}

func TestAnOwnerWhoRevokesItselfGetsItsAnswerAndIsCutThen(t *testing.T) {
	h := registrytest.New(t, nil)
	l := serve(t, h, nil)
	h.Active("heir", owner)
	boss := h.Active("boss", owner)
	client := l.client(boss)
	w := watch(t.Context(), t, client)
	if _, err := baserpc.NewAppsServiceClient(client).RevokeApp(t.Context(), &basev1.RevokeAppRequest{Id: boss.ID()}); err != nil {
		t.Errorf("its answer: %v", err)
	}
	select {
	case <-w.ended:
	case <-time.After(registrytest.TestTime):
		t.Error("it is not cut")
	}
}

func TestStopEndsStreamsWithAWord(t *testing.T) {
	h := registrytest.New(t, nil)
	l := serve(t, h, nil)
	w := watch(t.Context(), t, l.client(h.Active("phone", viewer)))
	l.Stop()
	select {
	case err := <-w.ended:
		if rpc.CodeOf(err) != rpc.Unavailable || err.Error() != "the Base is stopping" {
			t.Errorf("the stream ended with %v", err)
		}
	case <-time.After(registrytest.TestTime):
		t.Error("the stream goes on")
	}
}

// slowWindow takes longer to answer than an answer may take to be sent.
type slowWindow struct{ *registrytest.Authority }

func (w slowWindow) OpenWindow(ctx context.Context) error {
	time.Sleep(2 * authorityTime)
	return w.Authority.OpenWindow(ctx)
}

func TestWorkThatTakesLongIsAnsweredAllTheSame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := registrytest.New(t, nil)
		l := serve(t, h, func(c *Config) { c.Window = slowWindow{h.Authority} })
		client := l.client(h.Active("phone", owner))
		if _, err := baserpc.NewPairingServiceClient(client).OpenWindow(t.Context(), &basev1.OpenWindowRequest{}); err != nil {
			t.Error(err)
		}
	})
}

// busyHelper has as many places as the system helper gives the Middleware, and is slow with
// everything except a lockdown.
type busyHelper struct {
	places chan struct{}
	full   atomic.Bool // somebody found no place
}

func (h *busyHelper) Do(ctx context.Context, request *systemv1.SystemRequest, _ func(*systemv1.Progress)) (*systemv1.SystemReply, error) {
	select {
	case h.places <- struct{}{}:
		defer func() { <-h.places }()
	default:
		h.full.Store(true)
		return nil, ipc.ErrRefused
	}
	if request.GetRestrict() != nil {
		return &systemv1.SystemReply{}, nil
	}
	<-ctx.Done()
	return nil, ctx.Err()
}

func (h *busyHelper) Each(ctx context.Context, request *systemv1.SystemRequest, _ func(*systemv1.SystemReply) error) error {
	_, err := h.Do(ctx, request, nil)
	return err
}

// An App that is not an owner has as many calls under way as it may have.
func TestALesserAppCannotTakeTheHelperFromAnOwner(t *testing.T) {
	attack := func(t *testing.T, without ...holds) (helper *busyHelper, closing error) {
		h := registrytest.New(t, nil)
		master, lesser := h.Active("owner", owner), h.Active("operator", operator)
		helper = &busyHelper{places: make(chan struct{}, ipc.MaxPerUser)}
		classes := newClasses()
		for _, held := range without {
			delete(classes, held)
		}
		l := serveTable(t, h, methods, classes, func(c *Config) { c.Helper = helper })
		ctx, cancel := context.WithCancel(t.Context())
		var calls sync.WaitGroup
		defer calls.Wait()
		defer cancel()
		for range registry.MaxSessions {
			client := l.client(lesser)
			for n := range rpc.MaxCalls {
				name := []string{baserpc.AuditServiceRunAudit, baserpc.BansServiceListBans, baserpc.ServicesServiceReadLogs}[n%3]
				if slices.Contains(without, follows) {
					name = baserpc.ServicesServiceReadLogs
				}
				calls.Go(func() { _ = call(ctx, client, name) })
			}
		}
		registrytest.Eventually(t, "the operator has all that it can get", func() bool {
			return helper.full.Load() || len(without) == 0 && len(helper.places) == maxAsking+maxFollowing
		})
		// A lockdown ends the operator's sessions first, and may so find a place all the same.
		return helper, call(t.Context(), l.client(master), baserpc.PostureServiceEndLease)
	}
	helper, err := attack(t)
	if err != nil || helper.full.Load() {
		t.Errorf("an owner closes something: %v; the helper was full: %v", err, helper.full.Load())
	}
	// Without the limits the same attack succeeds.
	if _, err = attack(t, asks); err == nil {
		t.Error("without a bound the operator should have kept the owner out; this attack proves nothing")
	}
	if _, err = attack(t, follows); err == nil {
		t.Error("without a bound of streams the operator should have kept the owner out; this attack proves nothing")
	}
}

// lateWindow closes only once the helper was asked to close, or refuses after a while, like an
// overloaded authority.
type lateWindow struct {
	*registrytest.Authority
	asked chan struct{}
}

func (w lateWindow) CloseWindow(ctx context.Context) error {
	select {
	case <-w.asked:
		return w.Authority.CloseWindow(ctx)
	case <-time.After(registrytest.TestTime):
		return pairing.ErrBusy
	}
}

func (w lateWindow) Do(context.Context, *systemv1.SystemRequest, func(*systemv1.Progress)) (*systemv1.SystemReply, error) {
	close(w.asked)
	return &systemv1.SystemReply{}, nil
}

func (w lateWindow) Each(context.Context, *systemv1.SystemRequest, func(*systemv1.SystemReply) error) error {
	return nil
}

// The attack: the authority is busy with requests of others, and a lockdown closes the window,
// too.
func TestALockdownWaitsForNoWindow(t *testing.T) {
	h := registrytest.New(t, nil)
	late := lateWindow{h.Authority, make(chan struct{})}
	l := serve(t, h, func(c *Config) { c.Window, c.Helper = late, late })
	if err := call(t.Context(), l.client(h.Active("owner", owner)), baserpc.PostureServiceLockdown); err != nil {
		t.Errorf("an owner's lockdown has waited for the window: %v", err)
	}
}

func TestOneAppCannotTakeAllStreamsOfEvents(t *testing.T) {
	attack := func(t *testing.T, classes map[holds]*rpc.Class) (greedy, modest error) {
		h := registrytest.New(t, nil)
		l := serveTable(t, h, methods, classes, nil)
		taking := l.client(h.Active("greedy", viewer))
		for range maxWatching {
			watch(t.Context(), t, taking)
		}
		return call(t.Context(), taking, baserpc.EventsServiceWatchEvents), call(t.Context(), l.client(h.Active("modest", viewer)),
			baserpc.EventsServiceWatchEvents)
	}
	if greedy, modest := attack(t, newClasses()); rpc.CodeOf(greedy) != rpc.Exhausted || modest != nil {
		t.Errorf("one stream too many: %v; another App: %v", greedy, modest)
	}
	if greedy, _ := attack(t, nil); greedy != nil {
		t.Errorf("without a bound it should have one more (%v); this attack proves nothing", greedy)
	}
}

// The attack: operators together hold all the streams of events, and all the logs, that they
// can get. An owner still gets what is kept for owners.
func TestLesserAppsTogetherLeaveStreamsForAnOwner(t *testing.T) {
	for name, held := range map[string]holds{baserpc.EventsServiceWatchEvents: watches, baserpc.ServicesServiceReadLogs: follows} {
		attack := func(t *testing.T, keep bool) error {
			h := registrytest.New(t, nil)
			classes := newClasses()
			class := classes[held]
			class.Total = class.Kept + 2*class.PerPeer // fewer, so that two operators are enough
			if !keep {
				class.Total, class.Kept = class.Total-class.Kept, 0
			}
			helper := &busyHelper{places: make(chan struct{}, ipc.MaxPerUser)}
			l := serveTable(t, h, methods, classes, func(c *Config) { c.Helper = helper })
			ctx, cancel := context.WithCancel(t.Context())
			var calls sync.WaitGroup
			defer calls.Wait()
			defer cancel()
			hold := func(c *caller) {
				if held == watches {
					watch(ctx, t, c)
				} else {
					calls.Go(func() { _ = call(ctx, c, name) })
				}
			}
			for _, greedy := range []string{"one", "two"} {
				c := l.client(h.Active(greedy, operator))
				for range class.PerPeer {
					hold(c)
				}
			}
			if held == follows {
				registrytest.Eventually(t, "they have all", func() bool { return len(helper.places) == 2*class.PerPeer })
			}
			if err := call(ctx, l.client(h.Active("three", operator)), name); rpc.CodeOf(err) != rpc.Exhausted {
				t.Errorf("%s: a third operator: %v", name, err)
			}
			// Nothing ends the owner's stream but its context.
			short, end := context.WithTimeout(ctx, time.Second)
			defer end()
			return call(short, l.client(h.Active("owner", owner)), name)
		}
		if err := attack(t, true); rpc.CodeOf(err) == rpc.Exhausted {
			t.Errorf("%s: an owner: %v", name, err)
		}
		if err := attack(t, false); rpc.CodeOf(err) != rpc.Exhausted {
			t.Errorf("%s: if nothing is kept the owner should get nothing (%v); this attack proves nothing", name, err)
		}
	}
}

// Methods for owners only do not wait behind those of others, and no method that asks another
// process is forgotten.
func TestTheBoundOfAskingLeavesRoomForOwners(t *testing.T) {
	if registry.MaxPairings*maxAsking+helperclient.MaxMiddlewareReaders > ipc.MaxPerUser*3/4 {
		t.Errorf("%d Apps with %d calls each, and %d streams of all of them, leave owners too few of %d connections",
			registry.MaxPairings, maxAsking, helperclient.MaxMiddlewareReaders, ipc.MaxPerUser)
	}
	if registry.MaxPairings*maxAsking+maxNodeReaders > ipc.MaxPerUser*3/4 {
		t.Errorf("%d Apps with %d calls each, and %d streams of all of them, leave too few of the %d connections to bitbox-node",
			registry.MaxPairings, maxAsking, maxNodeReaders, ipc.MaxPerUser)
	}
	without := []string{baserpc.AppsServiceListApps, baserpc.EventsServiceWatchEvents, baserpc.MachineServiceGetHistory}
	for name, m := range methods {
		bounded := slices.Contains([]holds{asks, follows, asksNode, followsNode}, m.holds)
		if want := m.least < owner && !slices.Contains(without, name); bounded != want {
			t.Errorf("%s: bounded %v, want %v", name, !want, want)
		}
	}
}
