package system

import (
	"context"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/caller"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/server"
	"github.com/BitBoxSwiss/bitbox-base/internal/testbed/systemdtest"
)

// managedBase is a Base whose services are the built-in ones and two of a builder.
func managedBase(t *testing.T) (*base, *systemdtest.Systemd) {
	t.Helper()
	b := newBase(t)
	m := b.systemd
	// These tests ask for more than a caller may have in a minute; the budgets have tests of
	// their own (table_test.go).
	b.config.Bounds = maps.Clone(server.CallerBounds)
	b.config.Bounds[caller.Middleware] = server.Bounds{Holds: server.CallerBounds[caller.Middleware].Holds, Calls: 1e6, Work: 1e6}
	m.Date(func(entry int) time.Time { return time.Unix(began+int64(entry), 0) })
	m.Set("bitcoind.service", "inactive")
	return b, m
}

// began is when a managed Base logged its first entry, in seconds; each next one is a second later.
const began = 1795723082

func listRequest() *systemv1.SystemRequest {
	return &systemv1.SystemRequest{Verb: &systemv1.SystemRequest_ListServices{ListServices: &systemv1.ListServices{}}}
}

func changeRequest(name string, action basev1.ServiceAction) *systemv1.SystemRequest {
	return &systemv1.SystemRequest{Verb: &systemv1.SystemRequest_ChangeService{ChangeService: &systemv1.ChangeService{Name: name,
		Action: action}}}
}

func logsRequest(r *basev1.ReadLogsRequest) *systemv1.SystemRequest {
	return &systemv1.SystemRequest{Verb: &systemv1.SystemRequest_ReadLogs{ReadLogs: &systemv1.ReadLogs{Request: r}}}
}

func (b *base) change(name string, action basev1.ServiceAction) (*basev1.Service, error) {
	reply, err := b.as(caller.Middleware).Do(b.t.Context(), changeRequest(name, action), nil)
	if err != nil {
		return nil, err
	}
	return reply.GetServices().GetServices()[0], nil
}

func (b *base) listed(name string) *basev1.Service {
	b.t.Helper()
	reply, err := b.as(caller.Middleware).Do(b.t.Context(), listRequest(), nil)
	if err != nil {
		b.t.Fatal(err)
	}
	for _, s := range reply.GetServices().GetServices() {
		if s.GetName() == name {
			return s
		}
	}
	b.t.Fatalf("%s is not listed", name)
	return nil
}

const (
	actStart   = basev1.ServiceAction_SERVICE_ACTION_START
	actStop    = basev1.ServiceAction_SERVICE_ACTION_STOP
	actRestart = basev1.ServiceAction_SERVICE_ACTION_RESTART
	actEnable  = basev1.ServiceAction_SERVICE_ACTION_ENABLE
	actDisable = basev1.ServiceAction_SERVICE_ACTION_DISABLE
)

// logs reads all that there is.
func (b *base) logs(r *basev1.ReadLogsRequest) ([]*basev1.LogEntry, error) {
	var all []*basev1.LogEntry
	err := b.as(caller.Middleware).Each(b.t.Context(), logsRequest(r), func(reply *systemv1.SystemReply) error {
		all = append(all, reply.GetLogs().GetEntries()...)
		return nil
	})
	return all, err
}

func texts(entries []*basev1.LogEntry) []string {
	var all []string
	for _, e := range entries {
		all = append(all, e.GetText())
	}
	return all
}

func seconds(n int64) *timestamppb.Timestamp { return &timestamppb.Timestamp{Seconds: n} }

// watchEvents collects what the helper tells.
func (b *base) watchEvents() (events func() []*basev1.Event) {
	b.t.Helper()
	var mu sync.Mutex
	var all []*basev1.Event
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	ready := make(chan struct{})
	go func() {
		defer close(done)
		_ = b.as(caller.Root).Each(ctx, &systemv1.SystemRequest{Verb: &systemv1.SystemRequest_WatchSystem{WatchSystem: &systemv1.WatchSystem{}}},
			func(reply *systemv1.SystemReply) error {
				mu.Lock()
				defer mu.Unlock()
				if len(all) == 0 {
					close(ready)
				}
				all = append(all, reply.GetEvent().GetEvent())
				return nil
			})
	}()
	<-ready
	b.t.Cleanup(func() {
		cancel()
		<-done
	})
	return func() []*basev1.Event {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(all)
	}
}
