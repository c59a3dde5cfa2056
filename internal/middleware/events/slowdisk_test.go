package events

import (
	"errors"
	"fmt"
	"path/filepath"
	"testing"
	"testing/synctest"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/failpoint"
)

// slowDisk has each write of an event wait until release is called.
func slowDisk(t *testing.T) (release func()) {
	t.Helper()
	room := make(chan struct{})
	clear := failpoint.Set(func(step string) error {
		if step == stepKeep {
			<-room
		}
		return nil
	})
	t.Cleanup(clear)
	return func() { close(room) }
}

func sessionOf(name string) *basev1.Event {
	return &basev1.Event{Event: &basev1.Event_SessionStarted{SessionStarted: &basev1.SessionStartedEvent{App: &basev1.App{Id: name}}}}
}

// The disk does not end its sync. A caller that publishes goes on all the same, and nobody hears of an
// event that may be lost. A hub that holds its lock over the sync deadlocks in this test.
func TestADiskThatHangsDelaysNoCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := eventsIn(t)
		release := slowDisk(t)
		s, err := h.Subscribe(false, 0)
		if err != nil {
			t.Fatal(err)
		}
		for n := range 3 {
			h.Publish(revokedOf(fmt.Sprint(n)))
			h.Publish(sessionOf(fmt.Sprint(n))) // of a kind that is not kept
		}
		synctest.Wait()
		if len(s.Events) != 0 {
			t.Errorf("%d events were sent before they were on the disk", len(s.Events))
		}
		past, err := h.Subscribe(true, 0) // a new App does not wait for good
		if err != nil || len(past.Past) != 0 || past.Gap {
			t.Errorf("the past is %v, %v", past, err)
		}
		release()
		h.Close()
		for _, stream := range []*Subscription{s, past} {
			for n := range 3 {
				revoked, session := <-stream.Events, <-stream.Events
				if revoked.GetSequence() != uint64(n+1) || revoked.GetAppRevoked().GetApp().GetId() != fmt.Sprint(n) ||
					session.GetSessionStarted().GetApp().GetId() != fmt.Sprint(n) {
					t.Errorf("in place %d came %v and %v", n, revoked, session)
				}
			}
		}
		if kept, gap := h.history.since(0); len(kept) != 3 || gap {
			t.Errorf("after the stop %d events are kept; gap: %v", len(kept), gap)
		}
	})
}

// More events than memory is kept for: all who listen are ended, and learn of the gap when they ask
// for what they missed.
func TestEventsThatADiskIsTooSlowForLeaveAGapThatIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := eventsIn(t)
		release := slowDisk(t)
		s, err := h.Subscribe(false, 0)
		if err != nil {
			t.Fatal(err)
		}
		h.Publish(revokedOf("first"))
		synctest.Wait() // the writer has it
		for n := range maxUnwritten + 10 {
			h.Publish(sessionOf(fmt.Sprint(n)))
			if len(h.unwritten) > maxUnwritten {
				t.Fatalf("%d events wait", len(h.unwritten))
			}
		}
		release()
		synctest.Wait()
		got := 0
		for range s.Events { // ends, because it is closed
			got++
		}
		if got > subscriberQueue {
			t.Errorf("%d events came", got)
		}
		again, err := h.Subscribe(true, 1)
		if err != nil || !again.Gap || len(again.Past) != 0 {
			t.Errorf("the past is %v, %v", again, err)
		}
		h.Publish(revokedOf("next"))
		if next := <-again.Events; next.GetSequence() != again.Last+2 { // the missing ones have one
			t.Errorf("the next is %v, after %d", next, again.Last)
		}
		h.Close()
	})
}

// fullDisk has each write of the history fail until room is called.
func fullDisk(t *testing.T) (room func()) {
	t.Helper()
	clear := failpoint.Set(func(step string) error {
		if step == stepKeep {
			return errors.New("no space left on device")
		}
		return nil
	})
	t.Cleanup(clear)
	return clear
}

// The disk takes an event no longer, and the Middleware starts again. No App that was connected takes
// the next event for one that it has, and one that was away learns that something is missing, or may be.
func TestAnEventThatTheDiskDidNotTakeIsMissedByNobodyUnknowingly(t *testing.T) {
	for name, c := range map[string]struct{ room, orderly bool }{
		"there is room again":     {room: true, orderly: true},
		"the disk is full to end": {orderly: true},
		"it is killed":            {},
	} {
		path := filepath.Join(t.TempDir(), "events.db")
		db, h, err := openEvents(path)
		if err != nil {
			t.Fatal(err)
		}
		s, err := h.Subscribe(true, 0)
		if err != nil {
			t.Fatal(err)
		}
		h.Publish(revokedOf("kept"))
		kept := (<-s.Events).GetSequence()
		room := fullDisk(t)
		h.Publish(revokedOf("not kept"))
		if e := <-s.Events; e.GetAppRevoked() == nil || e.GetSequence() != 0 {
			t.Errorf("%s: %v came, though a restart forgets its sequence", name, e)
		}
		again, err := h.Subscribe(true, kept)
		if err != nil || !again.Gap || len(again.Past) != 0 {
			t.Errorf("%s: before the restart: %v, %v", name, again, err)
		}
		seen := max(kept, again.Last)
		if c.room {
			room()
		}
		if c.orderly {
			h.Close()
		}
		room()
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}

		db, h, err = openEvents(path)
		if err != nil {
			t.Fatal(err)
		}
		h.PublishStart("")
		again, err = h.Subscribe(true, seen)
		if err != nil || len(again.Past) != 1 {
			t.Fatalf("%s: an App that was connected gets %v, %v", name, again, err)
		}
		if cutOff := again.Past[0].GetBaseStarted().GetCutOff(); again.Gap == cutOff || again.Gap != c.room {
			t.Errorf("%s: a gap is told: %v; that something may be missing: %v", name, again.Gap, cutOff)
		}
		h.Close()
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		if db, h, err = openEvents(path); err != nil || h.history.cutOff {
			t.Errorf("%s: after an orderly stop: %v, %v", name, err, h.history.cutOff)
		}
		_ = db.Close()
	}
}
