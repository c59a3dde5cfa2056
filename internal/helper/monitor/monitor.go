// Package monitor remembers the state of services, disk and updates, and turns changes into
// events. [Monitor] is pure: the caller passes in the present state and the time. [Looker] reads
// the state.
package monitor

import (
	"slices"
	"time"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
)

const (
	// A service that systemd has restarted this often within this time counts as failing
	// repeatedly.
	manyRestarts = 3
	restartsTime = 10 * time.Minute
	// The disk is filling up when less than a tenth of it, or less than this many bytes, is free.
	// It no longer is above one and a half times that.
	fillingParts = 10
	fillingBytes = 500 << 20
)

// Monitor remembers what it has reported, so that each thing is reported once. The zero Monitor
// has reported nothing. Only one goroutine may use it at a time.
type Monitor struct {
	services map[string]*watched
	filling  bool
	// updates are those that were reported.
	updates []string
}

// watched is one service.
type watched struct {
	// restarts is systemd's last count, and at are the times of the latest restarts.
	restarts uint32
	at       []time.Duration
	seen     bool
	failed   bool // it was reported
}

// Services finds those that have failed or recovered since the last call. now is from a clock
// that does not jump.
func (m *Monitor) Services(list []*basev1.Service, now time.Duration) []*basev1.Event {
	if m.services == nil {
		m.services = map[string]*watched{}
	}
	var events []*basev1.Event
	for _, s := range list {
		w := m.services[s.GetName()]
		if w == nil {
			w = &watched{}
			m.services[s.GetName()] = w
		}
		switch reason := w.failing(s, now); {
		case reason != "" && !w.failed:
			w.failed = true
			events = append(events, &basev1.Event{Event: &basev1.Event_ServiceFailed{
				ServiceFailed: &basev1.ServiceFailedEvent{Service: s, Reason: reason}}})
		case reason == "" && w.failed && settled(s):
			w.failed = false
			events = append(events, &basev1.Event{Event: &basev1.Event_ServiceRecovered{
				ServiceRecovered: &basev1.ServiceRecoveredEvent{Service: s}}})
		}
	}
	return events
}

// failing returns why a service is not healthy; empty if it is.
func (w *watched) failing(s *basev1.Service, now time.Duration) string {
	// systemd counts from 0 again when somebody starts the service.
	if count := s.GetRestarts(); w.seen && count > w.restarts {
		for range min(count-w.restarts, manyRestarts) {
			w.at = append(w.at, now)
		}
	} else if count < w.restarts {
		w.at = nil
	}
	w.restarts, w.seen = s.GetRestarts(), true
	w.at = slices.DeleteFunc(w.at, func(at time.Duration) bool { return now-at >= restartsTime })
	w.at = w.at[max(0, len(w.at)-manyRestarts):]
	switch {
	case s.GetState() == basev1.Service_STATE_FAILED:
		return "it has failed: " + s.GetReason()
	case len(w.at) >= manyRestarts:
		reason := "it was restarted 3 times within 10 minutes"
		if s.GetReason() != "" {
			reason += ": " + s.GetReason()
		}
		return reason
	}
	return ""
}

// settled: it is neither starting nor stopping.
func settled(s *basev1.Service) bool {
	return s.GetState() != basev1.Service_STATE_STARTING && s.GetState() != basev1.Service_STATE_STOPPING
}

// Disk reports once that the disk is filling up. A total of 0 bytes means unknown.
func (m *Monitor) Disk(total, available uint64) []*basev1.Event {
	switch {
	case total == 0:
	case available < fillingBytes || available < total/fillingParts:
		if m.filling {
			break
		}
		m.filling = true
		return []*basev1.Event{{Event: &basev1.Event_DiskFilling{
			DiskFilling: &basev1.DiskFillingEvent{TotalBytes: total, AvailableBytes: available}}}}
	case available > total/fillingParts*3/2 && available > fillingBytes*3/2:
		m.filling = false
	}
	return nil
}

// Updates reports each set of updates once. That some of them were installed is not reported.
func (m *Monitor) Updates(waiting []string) []*basev1.Event {
	fresh := slices.ContainsFunc(waiting, func(one string) bool { return !slices.Contains(m.updates, one) })
	m.updates = waiting
	if !fresh {
		return nil
	}
	return []*basev1.Event{{Event: &basev1.Event_UpdateWaiting{
		UpdateWaiting: &basev1.UpdateWaitingEvent{Packages: waiting}}}}
}
