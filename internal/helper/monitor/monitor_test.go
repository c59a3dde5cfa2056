package monitor

import (
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
		case *basev1.Event_DiskFilling:
			all = append(all, "filling")
		case *basev1.Event_UpdateWaiting:
			all = append(all, "waiting: "+strings.Join(happened.UpdateWaiting.GetPackages(), ","))
		}
	}
	return strings.Join(all, "; ")
}

func TestAFailingServiceIsReportedOnceUntilItRecovers(t *testing.T) {
	const running, failed, starting = basev1.Service_STATE_RUNNING, basev1.Service_STATE_FAILED, basev1.Service_STATE_STARTING
	const often = "failed: it was restarted 3 times within 10 minutes"
	type look struct {
		at       time.Duration
		state    basev1.Service_State
		restarts uint32
		want     string
	}
	for name, looks := range map[string][]look{
		"fails and recovers": {{0, running, 0, ""}, {time.Minute, failed, 0, "failed: it has failed: why"}, {2 * time.Minute, failed, 0, ""},
			{3 * time.Minute, starting, 0, ""}, {4 * time.Minute, running, 0, "recovered"},
			{5 * time.Minute, failed, 0, "failed: it has failed: why"}},
		"again and again": {{0, running, 7, ""}, {time.Minute, running, 8, ""}, {2 * time.Minute, running, 9, ""},
			{3 * time.Minute, running, 10, often + ": why"},
			{4 * time.Minute, running, 11, ""}, {13 * time.Minute, running, 11, "recovered"}},
		"many at once": {{0, running, 0, ""}, {15 * time.Second, starting, 14, often + ": why"}, {30 * time.Second, starting, 28, ""}},
		"now and then": {{0, running, 0, ""}, {6 * time.Minute, running, 1, ""}, {12 * time.Minute, running, 2, ""},
			{18 * time.Minute, running, 3, ""}, {24 * time.Minute, running, 4, ""}},
		"started by hand":    {{0, running, 2, ""}, {time.Minute, running, 0, ""}, {2 * time.Minute, running, 2, ""}},
		"before we looked":   {{0, running, 500, ""}, {time.Minute, running, 500, ""}},
		"from the beginning": {{0, failed, 0, "failed: it has failed: why"}},
	} {
		var m Monitor
		for _, l := range looks {
			s := &basev1.Service{Name: "electrs", State: l.state, Restarts: l.restarts, Reason: "why"}
			if got := kinds(m.Services([]*basev1.Service{s}, l.at)); got != l.want {
				t.Errorf("%s: after %v: %q, want %q", name, l.at, got, l.want)
			}
		}
	}
}

func TestAFullDiskIsReportedOnceUntilThereIsSpace(t *testing.T) {
	const gib = 1 << 30
	for name, c := range map[string]struct {
		total uint64
		looks []uint64 // MiB free
		want  []int    // events so far
	}{
		"a tenth":      {100 * gib, []uint64{20480, 10239, 9000, 12000, 10000, 16000, 9000}, []int{0, 1, 1, 1, 1, 1, 2}},
		"500 MiB":      {2 * gib, []uint64{600, 499, 510, 499}, []int{0, 1, 1, 1}},
		"not known":    {0, []uint64{0, 0}, []int{0, 0}},
		"much and few": {4000 * gib, []uint64{500000, 300000}, []int{0, 1}},
	} {
		var m Monitor
		told := 0
		for i, free := range c.looks {
			if told += len(m.Disk(c.total, free<<20)); told != c.want[i] {
				t.Errorf("%s: after %d MiB: %d events, want %d", name, free, told, c.want[i])
			}
		}
	}
}

func TestEachSetOfUpdatesIsReportedOnce(t *testing.T) {
	var m Monitor
	for i, l := range []struct {
		waiting []string
		want    string
	}{
		{nil, ""}, {[]string{"a 1"}, "waiting: a 1"}, {[]string{"a 1"}, ""}, {[]string{"a 1", "b 1"}, "waiting: a 1,b 1"}, {[]string{"b 1"}, ""},
		{nil, ""}, {[]string{"a 2"}, "waiting: a 2"},
	} {
		if got := kinds(m.Updates(l.waiting)); got != l.want {
			t.Errorf("look %d: %q, want %q", i, got, l.want)
		}
	}
}
