package events

import (
	"log/slog"
	"testing"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
)

func anEvent() *basev1.Event {
	return &basev1.Event{Event: &basev1.Event_Subscribed{}}
}

func TestASubscriberThatFallsBehindIsEndedAndTheOthersAreNot(t *testing.T) {
	h := newHub(nil, slog.New(slog.DiscardHandler))
	slow, err := h.Subscribe(false, 0)
	if err != nil {
		t.Fatal(err)
	}
	quick, err := h.Subscribe(false, 0)
	if err != nil {
		t.Fatal(err)
	}
	for range subscriberQueue + 1 {
		h.Publish(anEvent())
		<-quick.Events
	}
	queued := 0
	for range slow.Events { // ends, because it is closed
		queued++
	}
	if queued != subscriberQueue {
		t.Errorf("the slow subscriber got %d events before its end, not the %d that it was given in time", queued, subscriberQueue)
	}
	h.Publish(anEvent())
	if event, ok := <-quick.Events; !ok || event == nil {
		t.Error("the quick subscriber was ended as well")
	}
	slow.Close() // after its end: no panic
	quick.Close()
	h.Publish(anEvent())
	if len(quick.Events) != 0 {
		t.Error("a closed subscription gets events")
	}
}
