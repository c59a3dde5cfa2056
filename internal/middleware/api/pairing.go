package api

import (
	"context"
	"time"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/middleware/events"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/rpc"
)

// pairingService opens and closes the window for further Apps.
type pairingService struct{ *Server }

func (s pairingService) GetWindow(ctx context.Context, _ *basev1.GetWindowRequest) (*basev1.GetWindowResponse, error) {
	window, err := s.window(ctx, func(context.Context) error { return nil })
	if err != nil {
		return nil, err
	}
	return &basev1.GetWindowResponse{Window: window}, nil
}

func (s pairingService) OpenWindow(ctx context.Context, request *basev1.OpenWindowRequest) (*basev1.OpenWindowResponse, error) {
	if len(request.GetOrder()) > 0 {
		snapshot, err := s.order(ctx, request.GetOrder())
		if err != nil {
			return nil, err
		}
		s.audit.Info("the pairing window was opened by an order", "by", sessionOf(ctx).ID())
		return &basev1.OpenWindowResponse{Window: events.WindowOf(snapshot)}, nil
	}
	window, err := s.window(ctx, func(ctx context.Context) error {
		if err := s.Window.OpenWindow(ctx); err != nil {
			return err
		}
		return s.Registry.Opened(ctx, sessionOf(ctx))
	})
	if err != nil {
		return nil, err
	}
	s.audit.Info("the pairing window was opened", "by", sessionOf(ctx).ID())
	return &basev1.OpenWindowResponse{Window: window}, nil
}

func (s pairingService) CloseWindow(ctx context.Context, _ *basev1.CloseWindowRequest) (*basev1.CloseWindowResponse, error) {
	if _, err := s.window(ctx, s.Window.CloseWindow); err != nil {
		return nil, err
	}
	s.audit.Info("the pairing window was closed", "by", sessionOf(ctx).ID())
	return &basev1.CloseWindowResponse{}, nil
}

// window changes the window and returns its new state.
func (s pairingService) window(ctx context.Context, change func(context.Context) error) (*basev1.Window, error) {
	ctx, cancel := context.WithTimeout(ctx, authorityTime)
	defer cancel()
	if err := change(ctx); err != nil {
		return nil, s.apiError(err)
	}
	snapshot, err := s.Window.Watch(ctx, 0) // 0: answers at once
	if err != nil {
		return nil, s.apiError(err)
	}
	return events.WindowOf(snapshot), nil
}

// Orders about pairing, which owners have signed. This daemon carries them and the signed answers
// of the Base's authority, and reports what it sees in between. It decides nothing, and an
// owner's App does not rely on its word.

// followStep is the least time between two checks of a ceremony: a flood of requests changes the
// snapshot each time.
const followStep = 100 * time.Millisecond

// order carries an order, and returns the authority's state afterwards.
func (s *Server) order(ctx context.Context, order []byte) (*systemv1.Snapshot, error) {
	ctx, cancel := context.WithTimeout(ctx, authorityTime)
	defer cancel()
	reply, err := s.ask(ctx, &systemv1.SystemRequest{Verb: &systemv1.SystemRequest_OrderPairing{
		OrderPairing: &systemv1.OrderPairing{Order: order}}}, nil)
	return reply.GetAuthority().GetSnapshot(), err
}

// AcceptPairing carries an owner's order to accept a request, and reports the progress of the
// ceremony until its end.
func (s pairingService) AcceptPairing(ctx context.Context, request *basev1.AcceptPairingRequest,
	stream *rpc.Sender[basev1.AcceptPairingResponse]) error {
	snapshot, err := s.order(ctx, request.GetOrder())
	if err != nil {
		return err
	}
	s.audit.Info("a pairing request was accepted by an order", "by", sessionOf(ctx).ID())
	id, last := snapshot.GetCeremony().GetId(), basev1.AcceptPairingResponse_PHASE_UNSPECIFIED
	for {
		message := progressOf(snapshot, id)
		if message.GetPhase() != last {
			if err := stream.Send(message); err != nil {
				return err
			}
		}
		if last = message.GetPhase(); last >= basev1.AcceptPairingResponse_PHASE_ENROLLED {
			return nil
		}
		select {
		case <-time.After(followStep):
		case <-ctx.Done():
			return ctx.Err()
		}
		if snapshot, err = s.Window.Watch(ctx, snapshot.GetVersion()); err != nil {
			return s.apiError(err)
		}
	}
}

// progressOf is the progress of the ceremony with this id.
func progressOf(s *systemv1.Snapshot, id []byte) *basev1.AcceptPairingResponse {
	c := s.GetCeremony()
	if len(id) == 0 || string(c.GetId()) != string(id) {
		return endOf(s.GetLast(), id)
	}
	message := &basev1.AcceptPairingResponse{Phase: basev1.AcceptPairingResponse_PHASE_ACCEPTED}
	switch {
	case c.GetPhase() == systemv1.Ceremony_PHASE_COMMITTED:
		message.Phase, message.CeremonyId = basev1.AcceptPairingResponse_PHASE_COMMITTED, id
	case c.GetPhase() == systemv1.Ceremony_PHASE_SHOWN:
		message.Phase, message.CeremonyId = basev1.AcceptPairingResponse_PHASE_SHOWN, id
		message.AppName, message.SigningKey = c.GetAppName(), c.GetSigningKey()
		if c.GetBaseConfirmed() {
			message.Phase = basev1.AcceptPairingResponse_PHASE_ANSWERED
		}
	}
	return message
}

// endOf is the end of the ceremony with this id.
func endOf(last *systemv1.LastCeremony, id []byte) *basev1.AcceptPairingResponse {
	message := &basev1.AcceptPairingResponse{Phase: basev1.AcceptPairingResponse_PHASE_ENDED, CeremonyId: id,
		Reason: "it was cancelled at the Base"}
	if len(id) == 0 || string(last.GetId()) != string(id) {
		return message
	}
	switch last.GetOutcome() {
	case systemv1.LastCeremony_OUTCOME_ENROLLED:
		return &basev1.AcceptPairingResponse{Phase: basev1.AcceptPairingResponse_PHASE_ENROLLED, CeremonyId: id, AppName: last.GetAppName()}
	case systemv1.LastCeremony_OUTCOME_REJECTED_AT_BASE:
		message.Reason = "it was refused"
	case systemv1.LastCeremony_OUTCOME_REJECTED_BY_APP:
		message.Reason = "the new App's user said no"
	case systemv1.LastCeremony_OUTCOME_TIMED_OUT:
		message.Reason = "it took too long"
	case systemv1.LastCeremony_OUTCOME_CONNECTION_LOST:
		message.Reason = "the connection to the new App was lost"
	case systemv1.LastCeremony_OUTCOME_REFUSED:
		message.Reason = "the messages do not fit together: somebody may have interfered"
	}
	return message
}

// AnswerPairing carries an owner's answer, and the authority's report back.
func (s pairingService) AnswerPairing(ctx context.Context, request *basev1.AnswerPairingRequest) (*basev1.AnswerPairingResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, authorityTime)
	defer cancel()
	reply, err := s.ask(ctx, &systemv1.SystemRequest{Verb: &systemv1.SystemRequest_AnswerPairing{
		AnswerPairing: &systemv1.AnswerPairing{Answer: request.GetAnswer()}}}, nil)
	if err != nil {
		return nil, err
	}
	s.audit.Info("a pairing was answered by an order", "by", sessionOf(ctx).ID())
	return &basev1.AnswerPairingResponse{Report: reply.GetPairingAnswered().GetReport()}, nil
}
