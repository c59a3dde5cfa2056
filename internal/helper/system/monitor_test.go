package system

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
)

func kinds(events []*basev1.Event) string {
	var all []string
	for _, event := range events {
		switch happened := event.GetEvent().(type) {
		case *basev1.Event_ServiceFailed:
			all = append(all, "failed: "+happened.ServiceFailed.GetReason())
		case *basev1.Event_ServiceRecovered:
			all = append(all, "recovered")
		}
	}
	return strings.Join(all, "; ")
}

func TestTheHelperTellsWhatFails(t *testing.T) {
	b, m := managedBase(t)
	b.config.MonitorInterval = time.Millisecond
	b.config.Disk = func() (uint64, uint64, error) { return 100 << 30, 1 << 30, nil }
	m.Set("electrs.service", "failed")
	m.Change("electrs.service", "Result", "oom-kill")
	b.start()
	events := b.watchEvents()
	m.Set("bitcoind.service", "failed")
	wait := func(want string) {
		t.Helper()
		until(t, want, func() error {
			if got := kinds(events()); !strings.Contains(got, want) {
				return errors.New(got)
			}
			return nil
		})
	}
	wait("failed: it has failed: ")
	m.Set("bitcoind.service", "active")
	wait("recovered")
	var log []string
	for _, event := range events() {
		if f := event.GetServiceFailed(); f != nil {
			log = append(log, fmt.Sprint(f.GetService().GetName(), " ", f.GetReason()))
		}
	}
	if n := len(log); n > 2 {
		t.Errorf("told %d times: %q", n, log)
	}
}
