package api

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/api/base/v1/basev1connect"
	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/helperclient"
	"github.com/BitBoxSwiss/bitbox-base/internal/middleware/registry"
	"github.com/BitBoxSwiss/bitbox-base/internal/middleware/registry/registrytest"
)

// toldHelper answers each verb as it is told.
type toldHelper struct {
	answer func(*systemv1.SystemRequest) ([]*systemv1.SystemReply, error)
}

func (h toldHelper) Do(_ context.Context, request *systemv1.SystemRequest, _ func(*systemv1.Progress)) (*systemv1.SystemReply, error) {
	replies, err := h.answer(request)
	if err != nil {
		return nil, err
	}
	return replies[len(replies)-1], nil
}

func (h toldHelper) Each(_ context.Context, request *systemv1.SystemRequest, receive func(*systemv1.SystemReply) error) error {
	replies, err := h.answer(request)
	for _, reply := range replies {
		if err := receive(reply); err != nil {
			return err
		}
	}
	return err
}

func TestTheNameIsThatOfThePostureInForce(t *testing.T) {
	h := registrytest.New(t, func(c *registry.Config) { c.Name = "its first name" })
	l := serve(h, t, fakeSystem{})
	var deaf error
	l.Helper = toldHelper{func(*systemv1.SystemRequest) ([]*systemv1.SystemReply, error) {
		return []*systemv1.SystemReply{{Result: &systemv1.SystemReply_Machine{Machine: &systemv1.MachineInfo{
			NodeName: "kitchen", TimeZone: "Europe/Zurich", Addresses: []string{"192.0.2.7"}, TemperatureCelsius: proto.Float64(40)}}}}, deaf
	}}
	client := basev1connect.NewInfoServiceClient(l.client(h.Active("phone", owner)), anyURL)
	info, err := client.GetInfo(t.Context(), &basev1.GetInfoRequest{})
	if err != nil || info.GetName() != "kitchen" || info.GetTimeZone() != "Europe/Zurich" || info.GetAddresses()[0] != "192.0.2.7" || info.GetTemperatureCelsius() != 40 || info.GetTime() == nil {
		t.Errorf("%v, %v", info, err)
	}
	deaf = errors.New("the helper restarts")
	if info, err = client.GetInfo(t.Context(), &basev1.GetInfoRequest{}); err != nil || info.GetName() != "kitchen" {
		t.Errorf("while the helper is away: %v, %v", info, err)
	}
}

func TestTheHistoryIsOfTheLastHour(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(Config{System: fakeSystem{}, StateDir: t.TempDir(), Logger: registrytest.New(t, nil).Config.Logger})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			s.KeepMeasuring(ctx)
		}()
		time.Sleep(3*time.Hour + time.Second)
		cancel()
		<-done
		answer, err := machineService{s}.GetHistory(t.Context(), nil)
		if err != nil || len(answer.GetSamples()) != MaxSamples || answer.GetIntervalSeconds() != 30 {
			t.Fatalf("%d samples, %v", len(answer.GetSamples()), err)
		}
		first, last := answer.GetSamples()[0], answer.GetSamples()[MaxSamples-1]
		if apart := last.GetTime().AsTime().Sub(first.GetTime().AsTime()); apart != (MaxSamples-1)*SampleInterval {
			t.Errorf("the oldest is %v older than the newest", apart)
		}
		if last.GetMemoryTotalBytes() == 0 || last.GetDiskTotalBytes() == 0 || last.GetTemperatureCelsius() != 41.5 {
			t.Errorf("measured: %v", last)
		}
	})
}

func TestAStreamThatNobodyReadsTakesNoPlaceAfterItsEnd(t *testing.T) {
	h := registrytest.New(t, nil)
	l := serve(h, t, fakeSystem{})
	l.Helper = &busyHelper{places: make(chan struct{}, 100)}
	a := h.Active("operator", operator)
	one := l.client(a)
	if err := call(t.Context(), one, basev1connect.AppsServiceListAppsProcedure); err != nil { // one connection for all
		t.Fatal(err)
	}
	client := basev1connect.NewServicesServiceClient(one, anyURL)
	follow := func() (end func() error) {
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() {
			stream, err := client.ReadLogs(ctx, &basev1.ReadLogsRequest{Follow: true})
			if err == nil {
				stream.Receive()
				err = stream.Err()
				_ = stream.Close()
			}
			ended <- err
		}()
		return func() error {
			cancel()
			return <-ended
		}
	}
	var ends []func() error
	for range maxStreaming {
		ends = append(ends, follow())
	}
	streams := func() int {
		l.places.mu.Lock()
		defer l.places.mu.Unlock()
		return l.places.streaming
	}
	registrytest.Eventually(t, "both are followed", func() bool { return streams() == maxStreaming })
	stream, err := client.ReadLogs(t.Context(), &basev1.ReadLogsRequest{})
	if err == nil {
		stream.Receive()
		err = stream.Err()
	}
	if codeOf(err) != connect.CodeResourceExhausted {
		t.Errorf("one more than an App may have: %v", err)
	}
	for _, end := range ends {
		_ = end()
	}
	registrytest.Eventually(t, "the places are free again", func() bool { return streams() == 0 })
}

func TestWhatTheHelperSaysOfServicesIsPassedOn(t *testing.T) {
	h := registrytest.New(t, nil)
	l := serve(h, t, fakeSystem{})
	var asked *systemv1.SystemRequest
	l.Helper = toldHelper{func(request *systemv1.SystemRequest) ([]*systemv1.SystemReply, error) {
		asked = request
		switch request.GetVerb().(type) {
		case *systemv1.SystemRequest_ReadLogs:
			return []*systemv1.SystemReply{
				{Result: &systemv1.SystemReply_Logs{Logs: &systemv1.LogsResult{Entries: []*basev1.LogEntry{{Service: "electrs", Text: "block 9"}}}}},
				{Result: &systemv1.SystemReply_Logs{Logs: &systemv1.LogsResult{Live: true}}}, {},
			}, nil
		case *systemv1.SystemRequest_InstallDebianUpdates:
			return []*systemv1.SystemReply{{Result: &systemv1.SystemReply_Progress{Progress: &systemv1.Progress{Step: "unpacking"}}}, {}}, nil
		}
		return nil, &helperclient.Error{Code: helperclient.CodeInvalid, Message: "there is no service \"x\" here"}
	}}
	client := l.client(h.Active("operator", operator))
	services := basev1connect.NewServicesServiceClient(client, anyURL)
	_, err := services.ChangeService(t.Context(), &basev1.ChangeServiceRequest{Name: "x", Action: basev1.ServiceAction_SERVICE_ACTION_STOP})
	if codeOf(err) != connect.CodeInvalidArgument || asked.GetChangeService().GetAction() != basev1.ServiceAction_SERVICE_ACTION_STOP {
		t.Errorf("%v; asked %v", err, asked)
	}
	stream, err := services.ReadLogs(t.Context(), &basev1.ReadLogsRequest{Contains: "block", Follow: true})
	if err != nil {
		t.Fatal(err)
	}
	if !stream.Receive() || stream.Msg().GetEntries()[0].GetText() != "block 9" || !stream.Receive() || !stream.Msg().GetLive() || stream.Receive() || stream.Err() != nil {
		t.Errorf("the log: %v, %v", stream.Msg(), stream.Err())
	}
	if asked.GetReadLogs().GetRequest().GetContains() != "block" {
		t.Errorf("asked %v", asked)
	}
	updates, err := basev1connect.NewUpdateServiceClient(client, anyURL).InstallDebianUpdates(t.Context(), &basev1.InstallDebianUpdatesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if !updates.Receive() || updates.Msg().GetProgress() != "unpacking" || !updates.Receive() || !updates.Msg().GetDone() || updates.Receive() || updates.Err() != nil {
		t.Errorf("the installation: %v, %v", updates.Msg(), updates.Err())
	}
}
