package api

import (
	"context"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/emptypb"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/api/base/v1/basev1connect"
	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/helperclient"
	"github.com/BitBoxSwiss/bitbox-base/internal/ipc"
	"github.com/BitBoxSwiss/bitbox-base/internal/middleware/events"
	"github.com/BitBoxSwiss/bitbox-base/internal/middleware/registry"
	"github.com/BitBoxSwiss/bitbox-base/internal/middleware/registry/registrytest"
)

// call calls a method with an empty request, whatever its type.
func call(ctx context.Context, client *http.Client, procedure string) error {
	c := connect.NewClient[emptypb.Empty, emptypb.Empty](client, anyURL+procedure)
	if procedure != basev1connect.EventsServiceWatchEventsProcedure && procedure != basev1connect.PostureServiceSubmitPostureProcedure &&
		procedure != basev1connect.UpdateServiceBringUpdateProcedure && procedure != basev1connect.UpdateServiceWatchUpdateProcedure &&
		procedure != basev1connect.UpdateServiceInstallDebianUpdatesProcedure && procedure != basev1connect.ServicesServiceReadLogsProcedure {
		_, err := c.CallUnary(ctx, connect.NewRequest(&emptypb.Empty{}))
		return err
	}
	stream, err := c.CallServerStream(ctx, connect.NewRequest(&emptypb.Empty{}))
	if err != nil {
		return err
	}
	defer func() { _ = stream.Close() }()
	stream.Receive()
	return stream.Err()
}

// whoMay is what the roles table must say, written down a second time.
var whoMay = map[basev1.Role][]string{
	viewer: {"GetHistory", "GetInfo", "GetPosture", "GetUpdate", "GetWindow", "ListApps", "ListBans", "ListChanges", "ListServices", "ListTimeZones",
		"WatchEvents"},
	operator: {"ChangeService", "GetHistory", "GetInfo", "GetPosture", "GetUpdate", "GetWindow", "InstallDebianUpdates", "ListApps", "ListBans",
		"ListChanges", "ListServices", "ListTimeZones", "ReadLogs", "Reboot", "RunAudit", "SetTimeZone", "WatchEvents"},
	owner: {"AcceptPairing", "AnswerPairing", "BringUpdate", "ChangeService", "CloseWindow", "ConfirmTry", "EndLease", "FactoryReset", "FixFinding",
		"GetHistory", "GetInfo", "GetPosture", "GetUpdate", "GetWindow", "InstallDebianUpdates", "LiftBan", "ListApps", "ListBans",
		"ListChanges", "ListServices", "ListTimeZones", "Lockdown", "OpenWindow", "PowerOff", "ReadLogs", "Reboot", "RenameApp", "RevokeApp",
		"RunAudit", "SetTimeZone", "SubmitPosture", "WatchEvents", "WatchUpdate"},
}

// allowed tries every method as each role, and returns what is not refused.
func allowed(t *testing.T, l *hall) map[basev1.Role][]string {
	t.Helper()
	got := map[basev1.Role][]string{}
	for role := range whoMay {
		client := l.client(l.house.Active("an "+role.String(), role))
		for procedure := range roles {
			if code := codeOf(call(t.Context(), client, procedure)); code != connect.CodePermissionDenied {
				got[role] = append(got[role], procedure[strings.LastIndex(procedure, "/")+1:])
			}
		}
		slices.Sort(got[role])
	}
	return got
}

func TestEachRoleMayCallWhatTheTableSaysAndNothingElse(t *testing.T) {
	got := allowed(t, serve(registrytest.New(t, nil), t, fakeSystem{}))
	for role, want := range whoMay {
		if !slices.Equal(got[role], want) {
			t.Errorf("%v may call %q, not %q", role, got[role], want)
		}
	}
	// A Server that does not ask the table.
	broken := serve(registrytest.New(t, nil), t, fakeSystem{})
	api := broken.api
	broken.http.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		deadline := http.NewResponseController(w)
		api.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), deadlineKey{}, deadline)))
	})
	if got := allowed(t, broken); len(got[viewer]) != len(roles) {
		t.Errorf("without the table a viewer should reach everything, not only %q; this attack proves nothing", got[viewer])
	}
}

func TestNothingIsServedBesideTheAPI(t *testing.T) {
	h := registrytest.New(t, nil)
	l := serve(h, t, fakeSystem{})
	client := l.client(h.Active("phone", owner))
	for _, c := range []struct {
		path, contentType string
		want              int
	}{
		{"/", "application/proto", http.StatusNotFound},
		{"/bitbox.base.v1.InfoService/", "application/proto", http.StatusNotFound},
		{"/bitbox.base.v1.InfoService/GetInfo/", "application/proto", http.StatusNotFound},
		{"/bitbox.base.v1.InfoService/Invented", "application/proto", http.StatusNotFound},
		{"/debug/pprof/", "application/proto", http.StatusNotFound},
		{basev1connect.InfoServiceGetInfoProcedure, "application/json", http.StatusUnsupportedMediaType},
		{basev1connect.InfoServiceGetInfoProcedure, "application/grpc", http.StatusUnsupportedMediaType},
		{basev1connect.InfoServiceGetInfoProcedure, "application/grpc-web", http.StatusUnsupportedMediaType},
		{basev1connect.InfoServiceGetInfoProcedure, "", http.StatusUnsupportedMediaType},
		{basev1connect.InfoServiceGetInfoProcedure, "application/proto", http.StatusOK},
	} {
		response, err := client.Post(anyURL+c.path, c.contentType, nil)
		if err != nil {
			t.Fatal(err)
		}
		_ = response.Body.Close()
		if response.StatusCode != c.want {
			t.Errorf("%s as %q: %s, not %d", c.path, c.contentType, response.Status, c.want)
		}
	}
	response, err := client.Get(anyURL + basev1connect.InfoServiceGetInfoProcedure)
	if err != nil {
		t.Fatal(err)
	}
	_ = response.Body.Close()
	if response.StatusCode == http.StatusOK {
		t.Error("a call is taken by GET")
	}
	too := make([]byte, maxMessage+1)
	response, err = client.Post(anyURL+basev1connect.AppsServiceRenameAppProcedure, "application/proto", strings.NewReader(string(too)))
	if err != nil {
		t.Fatal(err)
	}
	_ = response.Body.Close()
	if response.StatusCode != http.StatusTooManyRequests { // Connect's code for resource_exhausted
		t.Errorf("a message that is too long: %s", response.Status)
	}
}

func TestHTTP1GetsNoAnswerEvenInsideTheChannel(t *testing.T) {
	h := registrytest.New(t, nil)
	l := serve(h, t, fakeSystem{})
	c, err := l.dial(h.Active("phone", owner))
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		_, _ = io.WriteString(c, "GET /bitbox.base.v1.InfoService/GetInfo HTTP/1.1\r\nHost: base\r\n\r\n")
	}()
	if answer, _ := io.ReadAll(c); len(answer) != 0 {
		t.Errorf("answered: %q", answer)
	}
}

func TestInfoTellsOfTheMachineAndWhatIsMissingDoesNoHarm(t *testing.T) {
	h := registrytest.New(t, func(c *registry.Config) { c.Name = "kitchen" })
	a := h.Active("phone", owner)
	info, err := basev1connect.NewInfoServiceClient(serve(h, t, fakeSystem{}).client(a), anyURL).GetInfo(t.Context(), &basev1.GetInfoRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if info.GetName() != "kitchen" || info.GetMemoryTotalBytes() == 0 || info.GetDiskTotalBytes() == 0 || len(info.GetLoadAverage()) != 3 ||
		info.GetTemperatureCelsius() != 41.5 || len(info.GetAddresses()) != 1 || info.GetCaller().GetId() != a.ID() || info.GetProtocolVersion() != 1 {
		t.Errorf("info: %v", info)
	}
	deaf := serve(h, t, fakeSystem{broken: errors.New("the helper restarts")})
	info, err = basev1connect.NewInfoServiceClient(deaf.client(a), anyURL).GetInfo(t.Context(), &basev1.GetInfoRequest{})
	if err != nil || info.GetName() != "kitchen" || info.TemperatureCelsius != nil {
		t.Errorf("without a helper: %v, %v", info, err)
	}
}

func TestTheWindowIsOpenedAndClosedByAnOwner(t *testing.T) {
	h := registrytest.New(t, nil)
	client := basev1connect.NewPairingServiceClient(serve(h, t, fakeSystem{}).client(h.Active("phone", owner)), anyURL)
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
	apps := basev1connect.NewAppsServiceClient(serve(h, t, fakeSystem{}).client(a), anyURL)
	for name, want := range map[string]connect.Code{
		"":                       connect.CodeInvalidArgument,
		"two\nlines":             connect.CodeInvalidArgument,
		"\u202egnp.exe":          connect.CodeInvalidArgument,
		strings.Repeat("x", 64):  connect.CodeInvalidArgument,
		"a name that is allowed": 0,
	} {
		if _, err := apps.RenameApp(t.Context(), &basev1.RenameAppRequest{Id: a.ID(), Name: name}); codeOf(err) != want {
			t.Errorf("rename to %q: %v; want %v", name, err, want)
		}
	}
	if _, err := apps.RenameApp(t.Context(), &basev1.RenameAppRequest{Id: "nobody", Name: "x"}); codeOf(err) != connect.CodeNotFound {
		t.Errorf("rename nobody: %v", err)
	}
	if _, err := apps.RevokeApp(t.Context(), &basev1.RevokeAppRequest{Id: "nobody"}); codeOf(err) != connect.CodeNotFound {
		t.Errorf("revoke nobody: %v", err)
	}
	if _, err := apps.RevokeApp(t.Context(), &basev1.RevokeAppRequest{Id: a.ID()}); codeOf(err) != connect.CodeFailedPrecondition {
		t.Errorf("revoke the last owner: %v", err)
	}
}

// watcher watches events on a goroutine.
type watcher struct {
	events chan *basev1.WatchEventsResponse
	ended  chan error
}

func watch(ctx context.Context, t *testing.T, client *http.Client) *watcher {
	t.Helper()
	stream, err := basev1connect.NewEventsServiceClient(client, anyURL).WatchEvents(ctx, &basev1.WatchEventsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	w := &watcher{events: make(chan *basev1.WatchEventsResponse, 10_000), ended: make(chan error, 1)}
	go func() {
		for stream.Receive() {
			w.events <- stream.Msg()
		}
		w.ended <- stream.Err()
		_ = stream.Close()
	}()
	if first := w.next(t); first.GetSubscribed() == nil {
		t.Fatalf("the first event is %v", first)
	}
	return w
}

func (w *watcher) next(t *testing.T) *basev1.WatchEventsResponse {
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

func TestEventsTellWhatHappens(t *testing.T) {
	h := registrytest.New(t, nil)
	l := serve(h, t, fakeSystem{})
	boss := h.Active("boss", owner)
	client := l.client(boss)
	w := watch(t.Context(), t, client)
	phone := h.Active("phone", viewer)
	if got := w.next(t).GetAppPaired().GetApp(); got.GetId() != phone.ID() || got.GetRole() != viewer {
		t.Errorf("paired: %v", got)
	}
	if got := w.next(t).GetSessionStarted().GetApp(); got.GetId() != phone.ID() || got.GetSessions() != 1 {
		t.Errorf("started: %v", got)
	}
	if got := w.next(t).GetSessionEnded().GetApp(); got.GetId() != phone.ID() || got.GetSessions() != 0 {
		t.Errorf("ended: %v", got)
	}
	apps := basev1connect.NewAppsServiceClient(client, anyURL)
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
	l := serve(h, t, fakeSystem{})
	w := watch(t.Context(), t, l.client(h.Active("phone", viewer)))
	// Faster than anything can be sent.
	for {
		h.Events.Publish(&basev1.WatchEventsResponse{Event: &basev1.WatchEventsResponse_Subscribed{}})
		if h.Events.Subscribers() == 0 {
			break
		}
	}
	select {
	case err := <-w.ended:
		if codeOf(err) != connect.CodeResourceExhausted {
			t.Errorf("it ended with %v", err)
		}
	case <-time.After(registrytest.TestTime):
		t.Error("it does not end")
	}
}

// revokeInStream has an owner revoke an App in the middle of its stream. It tells
// whether the stream was cut, and whether an event arrived afterwards.
func revokeInStream(t *testing.T, noCut bool) (cut, heardMore bool) {
	t.Helper()
	h := registrytest.New(t, nil)
	l := serve(h, t, fakeSystem{})
	l.noCut = noCut
	boss, phone := h.Active("boss", owner), h.Active("phone", viewer)
	w := watch(t.Context(), t, l.client(phone))
	apps := basev1connect.NewAppsServiceClient(l.client(boss), anyURL)
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
	l := serve(h, t, fakeSystem{})
	l.noCut = true
	boss, phone := h.Active("boss", owner), h.Active("phone", viewer)
	session := registrytest.Must(h.Begin(t.Context(), boss.Peer, registrytest.From, func() {})).(*registry.Session)
	client := basev1connect.NewInfoServiceClient(l.client(phone), anyURL)
	if _, err := client.GetInfo(t.Context(), &basev1.GetInfoRequest{}); err != nil {
		t.Fatal(err)
	}
	if err := h.Revoke(t.Context(), phone.ID(), session); err != nil {
		t.Fatal(err)
	}
	if _, err := client.GetInfo(t.Context(), &basev1.GetInfoRequest{}); codeOf(err) != connect.CodeUnauthenticated {
		t.Errorf("after it was revoked: %v", err)
	}
}

func TestAnOwnerWhoRevokesItselfGetsItsAnswerAndIsCutThen(t *testing.T) {
	h := registrytest.New(t, nil)
	l := serve(h, t, fakeSystem{})
	h.Active("heir", owner)
	boss := h.Active("boss", owner)
	client := l.client(boss)
	w := watch(t.Context(), t, client)
	if _, err := basev1connect.NewAppsServiceClient(client, anyURL).RevokeApp(t.Context(), &basev1.RevokeAppRequest{Id: boss.ID()}); err != nil {
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
	l := serve(h, t, fakeSystem{})
	w := watch(t.Context(), t, l.client(h.Active("phone", viewer)))
	close(l.stopping)
	select {
	case err := <-w.ended:
		if codeOf(err) != connect.CodeUnavailable {
			t.Errorf("the stream ended with %v", err)
		}
	case <-time.After(registrytest.TestTime):
		t.Error("the stream goes on")
	}
	l.stopping = make(chan struct{}) // for the Stop at the end of the test
}

// slowWindow takes longer for an answer than an answer may take to leave.
type slowWindow struct{ *registrytest.Authority }

func (w slowWindow) OpenWindow(ctx context.Context) error {
	time.Sleep(2 * callTime)
	return w.Authority.OpenWindow(ctx)
}

func TestWorkThatTakesLongIsAnsweredAllTheSame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := registrytest.New(t, nil)
		l := serve(h, t, fakeSystem{})
		l.Window = slowWindow{h.Authority}
		client := l.client(h.Active("phone", owner))
		if _, err := basev1connect.NewPairingServiceClient(client, anyURL).OpenWindow(t.Context(), &basev1.OpenWindowRequest{}); err != nil {
			t.Error(err)
		}
		client.CloseIdleConnections()
	})
}

// busyHelper has as many places as the system helper gives the Middleware, and is slow
// with everything but a lockdown.
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

// An App that is no owner has all the calls under way that it may have.
func TestALesserAppCannotTakeTheHelperFromAnOwner(t *testing.T) {
	attack := func(t *testing.T, asking, streaming map[string]bool) (helper *busyHelper, lockdown error) {
		h := registrytest.New(t, nil)
		master, lesser := h.Active("owner", owner), h.Active("operator", operator)
		l := serve(h, t, fakeSystem{})
		helper = &busyHelper{places: make(chan struct{}, ipc.MaxPerUser)}
		l.Helper, l.asking, l.streaming = helper, asking, streaming
		ctx, cancel := context.WithCancel(t.Context())
		var calls sync.WaitGroup
		defer calls.Wait()
		defer cancel()
		for range registry.MaxSessions {
			client := l.client(lesser)
			if err := call(ctx, client, basev1connect.AppsServiceListAppsProcedure); err != nil { // one connection for all
				t.Fatal(err)
			}
			for n := range maxStreams {
				procedure := []string{basev1connect.AuditServiceRunAuditProcedure, basev1connect.BansServiceListBansProcedure, basev1connect.ServicesServiceReadLogsProcedure}[n%3]
				if streaming == nil {
					procedure = basev1connect.ServicesServiceReadLogsProcedure
				}
				calls.Go(func() { _ = call(ctx, client, procedure) })
			}
		}
		registrytest.Eventually(t, "the operator has all that it can get", func() bool {
			return helper.full.Load() || asking != nil && streaming != nil && len(helper.places) == maxAsking+maxStreaming
		})
		return helper, call(t.Context(), l.client(master), basev1connect.PostureServiceLockdownProcedure)
	}
	helper, err := attack(t, asking, streaming)
	if err != nil || helper.full.Load() {
		t.Errorf("an owner's lockdown: %v; the helper was full: %v", err, helper.full.Load())
	}
	// The same attack wins when nobody counts.
	if _, err = attack(t, nil, streaming); err == nil {
		t.Error("without a bound the operator should have kept the owner out; this attack proves nothing")
	}
	if _, err = attack(t, asking, nil); err == nil {
		t.Error("without a bound of streams the operator should have kept the owner out; this attack proves nothing")
	}
}

// What only owners may call does not wait behind what others call, and no method that
// asks elsewhere is forgotten.
func TestTheBoundOfAskingLeavesRoomForOwners(t *testing.T) {
	if registry.MaxPairings*maxAsking+helperclient.MaxMiddlewareReaders > ipc.MaxPerUser*3/4 {
		t.Errorf("%d Apps with %d calls each, and %d streams of all of them, leave owners too few of %d connections",
			registry.MaxPairings, maxAsking, helperclient.MaxMiddlewareReaders, ipc.MaxPerUser)
	}
	without := []string{basev1connect.AppsServiceListAppsProcedure, basev1connect.EventsServiceWatchEventsProcedure, basev1connect.MachineServiceGetHistoryProcedure}
	for procedure, least := range roles {
		if want := least < owner && !slices.Contains(without, procedure) && !streaming[procedure]; asking[procedure] != want {
			t.Errorf("%s: bounded %v, want %v", procedure, asking[procedure], want)
		}
	}
}
