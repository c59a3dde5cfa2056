package api

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/api/base/v1/baserpc"
	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/helperclient"
	"github.com/BitBoxSwiss/bitbox-base/internal/middleware/registry"
	"github.com/BitBoxSwiss/bitbox-base/internal/middleware/registry/registrytest"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/rpc"
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
	l := serve(t, h, nil)
	kitchen := &systemv1.MachineInfo{NodeName: "kitchen", TimeZone: "Europe/Zurich", Addresses: []string{"192.0.2.7"},
		TemperatureCelsius: proto.Float64(40)}
	l.Machine = machine{told: kitchen}
	client := baserpc.NewInfoServiceClient(l.client(h.Active("phone", owner)))
	info, err := client.GetInfo(t.Context(), &basev1.GetInfoRequest{})
	if err != nil || info.GetName() != "kitchen" || info.GetTimeZone() != "Europe/Zurich" || info.GetAddresses()[0] != "192.0.2.7" ||
		info.GetTemperatureCelsius() != 40 || info.GetTime() == nil {
		t.Errorf("%v, %v", info, err)
	}
	l.Machine = machine{broken: errors.New("the helper restarts")}
	if info, err = client.GetInfo(t.Context(), &basev1.GetInfoRequest{}); err != nil || info.GetName() != "kitchen" {
		t.Errorf("while the helper is away: %v, %v", info, err)
	}
}

func TestTheHistoryIsOfTheLastHour(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := registrytest.Must(New(Config{Machine: machine{}, StateDir: t.TempDir(), Logger: registrytest.New(t, nil).Config.Logger}))
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
	l := serve(t, h, nil)
	helper := &busyHelper{places: make(chan struct{}, 100)}
	l.Helper = helper
	a := h.Active("operator", operator)
	one := l.client(a)
	if err := call(t.Context(), one, baserpc.AppsServiceListApps); err != nil { // one connection for all
		t.Fatal(err)
	}
	client := baserpc.NewServicesServiceClient(one)
	follow := func() (end func() error) {
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() {
			stream, err := client.ReadLogs(ctx, &basev1.ReadLogsRequest{Follow: true})
			if err == nil {
				_, err = stream.Receive()
				stream.Close()
			}
			ended <- err
		}()
		return func() error {
			cancel()
			return <-ended
		}
	}
	var ends []func() error
	for range maxFollowing {
		ends = append(ends, follow())
	}
	registrytest.Eventually(t, "both are followed", func() bool { return len(helper.places) == maxFollowing })
	if err := call(t.Context(), one, baserpc.ServicesServiceReadLogs); rpc.CodeOf(err) != rpc.Exhausted {
		t.Errorf("one more than an App may have: %v", err)
	}
	for _, end := range ends {
		_ = end()
	}
	l.Helper = toldHelper{func(*systemv1.SystemRequest) ([]*systemv1.SystemReply, error) { return nil, nil }}
	registrytest.Eventually(t, "the places are free again",
		func() bool { return call(t.Context(), one, baserpc.ServicesServiceReadLogs) == nil })
}

func TestTheHelpersAnswersAboutServicesArePassedOn(t *testing.T) {
	h := registrytest.New(t, nil)
	l := serve(t, h, nil)
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
	services := baserpc.NewServicesServiceClient(client)
	_, err := services.ChangeService(t.Context(), &basev1.ChangeServiceRequest{Name: "x", Action: basev1.ServiceAction_SERVICE_ACTION_STOP})
	if rpc.CodeOf(err) != rpc.Invalid || asked.GetChangeService().GetAction() != basev1.ServiceAction_SERVICE_ACTION_STOP {
		t.Errorf("%v; asked %v", err, asked)
	}
	stream, err := services.ReadLogs(t.Context(), &basev1.ReadLogsRequest{Contains: "block", Follow: true})
	if err != nil {
		t.Fatal(err)
	}
	var told []string
	for m, err := range stream.All() {
		if err != nil {
			t.Fatal(err)
		}
		told = append(told, fmt.Sprint(len(m.GetEntries()), m.GetLive()))
	}
	if want := []string{"1 false", "0 true"}; !slices.Equal(told, want) {
		t.Errorf("the log: %v", told)
	}
	if asked.GetReadLogs().GetRequest().GetContains() != "block" {
		t.Errorf("asked %v", asked)
	}
	updates, err := baserpc.NewUpdateServiceClient(client).InstallDebianUpdates(t.Context(), &basev1.InstallDebianUpdatesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	told = nil
	for m, err := range updates.All() {
		if err != nil {
			t.Fatal(err)
		}
		told = append(told, fmt.Sprintf("%s %v", m.GetProgress(), m.GetDone()))
	}
	if want := []string{"unpacking false", " true"}; !slices.Equal(told, want) {
		t.Errorf("the installation: %q", told)
	}
}
