package api

import (
	"context"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/rpc"
	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// eventsService streams what happens.
type eventsService struct{ *Server }

var errFellBehind = reason.New("this stream was read too slowly; watch again")

func (s eventsService) WatchEvents(ctx context.Context, request *basev1.WatchEventsRequest, stream *rpc.Sender[basev1.Event]) error {
	subscription, err := s.Events.Subscribe(request.GetReplay(), request.GetAfter())
	if err != nil {
		return s.apiError(err)
	}
	defer subscription.Close()
	for _, event := range subscription.Past {
		event = proto.CloneOf(event) // others are sent it, too
		event.Past = true
		if err := stream.Send(event); err != nil {
			return err
		}
	}
	event := &basev1.Event{
		Time: timestamppb.Now(),
		Event: &basev1.Event_Subscribed{
			Subscribed: &basev1.SubscribedEvent{LastSequence: subscription.Last, Gap: subscription.Gap}},
	}
	for {
		if err := stream.Send(event); err != nil {
			return err
		}
		if request.GetPastOnly() {
			return nil
		}
		var ok bool
		select {
		case event, ok = <-subscription.Events:
			if !ok {
				return rpc.NewError(rpc.Exhausted, errFellBehind)
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
