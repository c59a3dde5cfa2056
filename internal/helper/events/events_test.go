package events

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/backlog"
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
	for n := range 3 * backlog.MaxEvents {
		h.Publish(failed(fmt.Sprint(n + 1)))
		h.Publish(nil)
	}
	last, run := uint64(3*backlog.MaxEvents), h.log.Last().Run
	for name, asked := range map[string]struct{ run, after, missed, past uint64 }{
		"nothing":                {0, 0, 0, 0},
		"all of this run":        {run, 0, 2 * backlog.MaxEvents, backlog.MaxEvents},
		"what is kept":           {run, last - backlog.MaxEvents, 0, backlog.MaxEvents},
		"one more":               {run, last - backlog.MaxEvents - 1, 1, backlog.MaxEvents},
		"the last":               {run, last - 1, 0, 1},
		"none is missing":        {run, last, 0, 0},
		"of what is not yet":     {run, last + 9, 0, 0},
		"those of another start": {run + 1, last, 2 * backlog.MaxEvents, backlog.MaxEvents},
	} {
		first, past := watch(t, h, asked.run, asked.after)
		if first.GetEvent() != nil || first.GetRun() != run || first.GetMissed() != asked.missed || uint64(len(past)) != asked.past {
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
	run := h.log.Last().Run
	for range long {
		h.Publish(failed(strings.Repeat("x", backlog.MaxBytes/4)))
	}
	first, past := watch(t, h, run, 0)
	if len(past) != 3 || first.GetMissed() != long-3 {
		t.Errorf("%d events came, %d are missing", len(past), first.GetMissed())
	}
	h.Publish(failed(strings.Repeat("x", 2*backlog.MaxBytes)))
	if first, past = watch(t, h, run, 0); len(past) != 0 || first.GetMissed() != long+1 {
		t.Errorf("%d events came, %d are missing", len(past), first.GetMissed())
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

// A helper that ends in an orderly way leaves its events for the next one, which publishes something
// before it goes on with them. No event gets the number of another, although the file comes back. After
// a kill, or with a file that cannot be, a new run begins.
func TestAHelperThatEndsInOrderLeavesItsEventsForTheNext(t *testing.T) {
	directory := t.TempDir()
	file := filepath.Join(directory, keptFile)
	first := started(1)
	first.Publish(failed("1"))
	first.Publish(failed("2"))
	run := first.log.Last().Run
	if err := first.Keep(directory); err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}

	next := started(2)
	next.Publish(failed("3"))
	if err := next.Resume(directory); err != nil {
		t.Fatal(err)
	}
	next.Publish(failed("4"))
	begin, past := watch(t, next, run, 1)
	if begin.GetRun() != run || begin.GetMissed() != 0 || len(past) != 3 {
		t.Fatalf("%d events came after %v", len(past), begin)
	}
	for i, e := range past {
		if e.GetNumber() != uint64(i+2) || e.GetEvent().GetApplyFailed().GetReason() != fmt.Sprint(i+2) {
			t.Errorf("in place %d came %v", i, e)
		}
	}
	if past[0].GetEvent().GetTime().GetSeconds() != 1 {
		t.Errorf("an event of the last start has the time %v", past[0].GetEvent().GetTime())
	}

	killed := started(3) // next was killed
	if err := killed.Resume(directory); err != nil {
		t.Fatal(err)
	}
	if begin, _ := watch(t, killed, run, 4); begin.GetRun() == run {
		t.Errorf("after a kill the run goes on: %v", begin)
	}
	impossible, err := proto.Marshal(&systemv1.KeptEvents{Run: run, Number: 1, Events: []*basev1.Event{failed("1"), failed("2")}})
	if err != nil {
		t.Fatal(err)
	}
	for name, bad := range map[string][]byte{
		"empty": {}, "cut": content[:len(content)-1], "too long": make([]byte, maxKeptFile+1), "impossible": impossible,
	} {
		if err := os.WriteFile(file, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		h := started(4)
		h.Publish(failed("own"))
		if err := h.Resume(directory); err == nil {
			t.Errorf("%s: it was taken", name)
		}
		if begin, past := watch(t, h, run, 0); begin.GetRun() == run || len(past) != 1 {
			t.Errorf("%s: %d events came after %v", name, len(past), begin)
		}
		if _, err := os.Lstat(file); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: the file stays: %v", name, err)
		}
	}
}
