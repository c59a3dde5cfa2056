package events

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/caller"
)

func failed(reason string) *basev1.Event {
	return &basev1.Event{Event: &basev1.Event_ApplyFailed{ApplyFailed: &basev1.ApplyFailedEvent{Reason: reason}}}
}

func started(seconds int64) *Hub { return New(func() time.Time { return time.Unix(seconds, 0) }) }

// watch reads the first event of a stream, and those that had happened before.
func watch(t *testing.T, h *Hub, run, after uint64) (first *systemv1.SystemEvent, past []*systemv1.SystemEvent) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // the stream ends after the past
	_, err := h.Watch(ctx, &caller.Call{Send: func(reply *systemv1.SystemReply) error {
		if first == nil {
			first = reply.GetEvent()
		} else {
			past = append(past, reply.GetEvent())
		}
		return nil
	}}, &systemv1.WatchSystem{Run: run, After: after})
	if !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	return first, past
}

// A watcher that comes back gets each event that happened meanwhile, or their number.
func TestAWatcherThatComesBackGetsWhatItMissedOrItsNumber(t *testing.T) {
	h := started(1)
	for n := range 3 * maxKept {
		h.Publish(failed(fmt.Sprint(n + 1)))
		h.Publish(nil)
	}
	last := uint64(3 * maxKept)
	for name, asked := range map[string]struct{ run, after, missed, past uint64 }{
		"nothing":                {0, 0, 0, 0},
		"all of this run":        {h.run, 0, 2 * maxKept, maxKept},
		"what is kept":           {h.run, last - maxKept, 0, maxKept},
		"one more":               {h.run, last - maxKept - 1, 1, maxKept},
		"the last":               {h.run, last - 1, 0, 1},
		"none is missing":        {h.run, last, 0, 0},
		"of what is not yet":     {h.run, last + 9, 0, 0},
		"those of another start": {h.run + 1, last, 2 * maxKept, maxKept},
	} {
		first, past := watch(t, h, asked.run, asked.after)
		if first.GetEvent() != nil || first.GetRun() != h.run || first.GetMissed() != asked.missed || uint64(len(past)) != asked.past {
			t.Errorf("%s: %d events came after %v", name, len(past), first)
		}
		for i, e := range past {
			number := first.GetNumber() + uint64(i) + 1
			if e.GetNumber() != number || e.GetEvent().GetApplyFailed().GetReason() != fmt.Sprint(number) ||
				e.GetEvent().GetTime().GetSeconds() != 1 {
				t.Errorf("%s: in place %d came %v", name, number, e)
			}
		}
		if uint64(len(past))+first.GetNumber() != last {
			t.Errorf("%s: the stream begins after %d and has %d events", name, first.GetNumber(), len(past))
		}
	}
}

// Long events are kept within a bound, and those that had to go are counted.
func TestWhatIsKeptForAWatcherIsBounded(t *testing.T) {
	h := started(1)
	const long = 10
	for range long {
		h.Publish(failed(strings.Repeat("x", maxKeptBytes/4)))
	}
	first, past := watch(t, h, h.run, 0)
	if len(past) != 3 || first.GetMissed() != long-3 || h.keptBytes > maxKeptBytes {
		t.Errorf("%d events came, %d are missing, %d bytes are kept", len(past), first.GetMissed(), h.keptBytes)
	}
	h.Publish(failed(strings.Repeat("x", 2*maxKeptBytes)))
	if first, past = watch(t, h, h.run, 0); len(past) != 0 || first.GetMissed() != long+1 || h.keptBytes != 0 {
		t.Errorf("%d events came, %d are missing, %d bytes are kept", len(past), first.GetMissed(), h.keptBytes)
	}
}

// A watcher that is too slow is ended, and loses nothing when it asks again.
func TestASlowWatcherAsksAgainAndLosesNothing(t *testing.T) {
	h := started(1)
	var first *systemv1.SystemEvent
	_, err := h.Watch(t.Context(), &caller.Call{Send: func(reply *systemv1.SystemReply) error {
		if first == nil {
			first = reply.GetEvent()
			for n := range maxWaiting + 10 { // while it reads the first
				h.Publish(failed(fmt.Sprint(n + 1)))
			}
		}
		return nil
	}}, &systemv1.WatchSystem{})
	if err == nil {
		t.Fatal("it was not ended")
	}
	again, past := watch(t, h, first.GetRun(), first.GetNumber())
	if len(past) != maxWaiting+10 || again.GetMissed() != 0 {
		t.Errorf("%d events came, %d are missing", len(past), again.GetMissed())
	}
}
