package middleware

import (
	"errors"
	"log/slog"
	"testing"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
)

func anEvent() *basev1.WatchEventsResponse {
	return &basev1.WatchEventsResponse{Event: &basev1.WatchEventsResponse_Subscribed{}}
}

func TestASubscriberThatFallsBehindIsEndedAndTheOthersAreNot(t *testing.T) {
	h := newHub(nil, slog.New(slog.DiscardHandler))
	slow, err := h.subscribe(&record{})
	if err != nil {
		t.Fatal(err)
	}
	quick, err := h.subscribe(&record{})
	if err != nil {
		t.Fatal(err)
	}
	for range subscriberQueue + 1 {
		h.publish(anEvent())
		<-quick.events
	}
	queued := 0
	for range slow.events { // ends, because it is closed
		queued++
	}
	if queued != subscriberQueue {
		t.Errorf("the slow subscriber got %d events before its end, not the %d that it was given in time", queued, subscriberQueue)
	}
	h.publish(anEvent())
	if event, ok := <-quick.events; !ok || event == nil {
		t.Error("the quick subscriber was ended as well")
	}
	slow.close() // after its end: no panic
	quick.close()
	h.publish(anEvent())
	if len(quick.events) != 0 {
		t.Error("a closed subscription gets events")
	}
}

func TestOneAppCannotTakeAllStreamsOfEvents(t *testing.T) {
	h := newHub(nil, slog.New(slog.DiscardHandler))
	greedy, modest := &record{}, &record{}
	for range maxSubscriptions {
		if _, err := h.subscribe(greedy); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := h.subscribe(greedy); !errors.Is(err, errTooManySubscriptions) {
		t.Errorf("one stream too many: %v", err)
	}
	if _, err := h.subscribe(modest); err != nil {
		t.Errorf("another App suffers from it: %v", err)
	}
}
