package api

import (
	"context"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/rpc"
)

// postureService carries signed documents to the helper, and its reports back.
type postureService struct{ *Server }

func (s postureService) GetPosture(ctx context.Context, request *basev1.GetPostureRequest) (*basev1.GetPostureResponse, error) {
	// There are few challenges: one for an App that may sign nothing would take another's place.
	challenge := request.GetChallenge() && s.Registry.Authorise(sessionOf(ctx), basev1.Role_ROLE_OWNER) == nil
	reply, err := s.ask(ctx, &systemv1.SystemRequest{Verb: &systemv1.SystemRequest_GetPosture{
		GetPosture: &systemv1.GetPosture{Nonce: request.GetNonce(), Challenge: challenge}}}, nil)
	if err != nil {
		return nil, err
	}
	return &basev1.GetPostureResponse{Posture: reply.GetPosture()}, nil
}

func (s postureService) SubmitPosture(ctx context.Context, request *basev1.SubmitPostureRequest,
	stream *rpc.Sender[basev1.SubmitPostureResponse]) error {
	reply, err := s.ask(ctx, &systemv1.SystemRequest{Verb: &systemv1.SystemRequest_Submit{
		Submit: &systemv1.Submit{Document: request.GetDocument(), Nonce: request.GetNonce()}}},
		func(p *systemv1.Progress) {
			text := p.GetStep()
			if p.GetDetail() != "" {
				text += ": " + p.GetDetail()
			}
			// The change continues even if the App hangs up.
			_ = stream.Send(&basev1.SubmitPostureResponse{Step: &basev1.SubmitPostureResponse_Progress{Progress: text}})
		})
	if err != nil {
		return err
	}
	s.audit.Info("a posture was submitted", "by", sessionOf(ctx).ID())
	return stream.Send(&basev1.SubmitPostureResponse{Step: &basev1.SubmitPostureResponse_Posture{Posture: reply.GetPosture()}})
}

func (s postureService) ConfirmTry(ctx context.Context, request *basev1.ConfirmTryRequest) (*basev1.ConfirmTryResponse, error) {
	reply, err := s.ask(ctx, &systemv1.SystemRequest{Verb: &systemv1.SystemRequest_ConfirmTry{ConfirmTry: &systemv1.ConfirmTry{
		Confirmation:  request.GetConfirmation(),
		ConnectedAtMs: uint64(sessionOf(ctx).BeganAt().Milliseconds()),
		Nonce:         request.GetNonce(),
	}}}, nil)
	if err != nil {
		return nil, err
	}
	s.audit.Info("a tried posture was confirmed", "by", sessionOf(ctx).ID())
	return &basev1.ConfirmTryResponse{Posture: reply.GetPosture()}, nil
}

// restrict closes something, and returns the posture in force afterwards.
func (s *Server) restrict(ctx context.Context, restrict *systemv1.Restrict) (*basev1.SignedPosture, error) {
	reply, err := s.ask(ctx, &systemv1.SystemRequest{Verb: &systemv1.SystemRequest_Restrict{Restrict: restrict}}, nil)
	if err != nil {
		return nil, err
	}
	return reply.GetPosture(), nil
}

// Lockdown ends the other sessions and closes the window even if the helper cannot do its part:
// each of the three closes something by itself, and waits for none of the others.
func (s postureService) Lockdown(ctx context.Context, request *basev1.LockdownRequest) (*basev1.LockdownResponse, error) {
	caller := sessionOf(ctx)
	s.audit.Warn("lockdown", "by", caller.ID())
	s.Registry.EndOtherSessions(caller)
	window := make(chan error, 1)
	go func() { window <- s.Window.CloseWindow(ctx) }()
	signed, err := s.restrict(ctx, &systemv1.Restrict{
		What: &systemv1.Restrict_Lockdown{Lockdown: &systemv1.Lockdown{}}, Nonce: request.GetNonce()})
	if windowErr := <-window; err == nil && windowErr != nil {
		err = s.apiError(windowErr)
	}
	if err != nil {
		return nil, err
	}
	return &basev1.LockdownResponse{Posture: signed}, nil
}

func (s postureService) EndLease(ctx context.Context, request *basev1.EndLeaseRequest) (*basev1.EndLeaseResponse, error) {
	signed, err := s.restrict(ctx, &systemv1.Restrict{
		What: &systemv1.Restrict_EndLease{EndLease: &systemv1.LeaseEnded{Kind: request.GetKind()}}, Nonce: request.GetNonce()})
	if err != nil {
		return nil, err
	}
	s.audit.Info("a lease was ended", "kind", request.GetKind(), "by", sessionOf(ctx).ID())
	return &basev1.EndLeaseResponse{Posture: signed}, nil
}

// FactoryReset carries the order. The helper restarts the Base, which ends all sessions; this
// answer comes before that, or not at all.
func (s postureService) FactoryReset(ctx context.Context, request *basev1.FactoryResetRequest) (*basev1.FactoryResetResponse, error) {
	if _, err := s.ask(ctx, &systemv1.SystemRequest{Verb: &systemv1.SystemRequest_FactoryReset{
		FactoryReset: &systemv1.FactoryReset{By: &systemv1.FactoryReset_Order{Order: request.GetOrder()}}}}, nil); err != nil {
		return nil, err
	}
	s.audit.Warn("factory reset", "by", sessionOf(ctx).ID())
	return &basev1.FactoryResetResponse{}, nil
}

// bansService shows what fail2ban has banned.
type bansService struct{ *Server }

func (s bansService) ListBans(ctx context.Context, _ *basev1.ListBansRequest) (*basev1.ListBansResponse, error) {
	reply, err := s.ask(ctx, &systemv1.SystemRequest{Verb: &systemv1.SystemRequest_ListBans{ListBans: &systemv1.ListBans{}}}, nil)
	if err != nil {
		return nil, err
	}
	return &basev1.ListBansResponse{Bans: reply.GetBans().GetBans(), Total: reply.GetBans().GetTotal(),
		Current: reply.GetBans().GetCurrent()}, nil
}

func (s bansService) LiftBan(ctx context.Context, request *basev1.LiftBanRequest) (*basev1.LiftBanResponse, error) {
	reply, err := s.ask(ctx, &systemv1.SystemRequest{Verb: &systemv1.SystemRequest_LiftBan{
		LiftBan: &systemv1.LiftBan{By: &systemv1.LiftBan_Order{Order: request.GetOrder()}}}}, nil)
	if err != nil {
		return nil, err
	}
	s.audit.Info("a ban was lifted", "by", sessionOf(ctx).ID())
	return &basev1.LiftBanResponse{Lifted: reply.GetLiftBan().GetLifted()}, nil
}

// auditService makes the helper audit the live system.
type auditService struct{ *Server }

func (s auditService) RunAudit(ctx context.Context, _ *basev1.RunAuditRequest) (*basev1.RunAuditResponse, error) {
	reply, err := s.ask(ctx, &systemv1.SystemRequest{Verb: &systemv1.SystemRequest_RunAudit{RunAudit: &systemv1.RunAudit{}}}, nil)
	if err != nil {
		return nil, err
	}
	return &basev1.RunAuditResponse{Findings: reply.GetAudit().GetFindings(), BuiltWith: reply.GetAudit().GetBuiltWith()}, nil
}

func (s auditService) FixFinding(ctx context.Context, request *basev1.FixFindingRequest) (*basev1.FixFindingResponse, error) {
	if _, err := s.ask(ctx, &systemv1.SystemRequest{Verb: &systemv1.SystemRequest_FixFinding{
		FixFinding: &systemv1.FixFinding{Id: request.GetId()}}}, nil); err != nil {
		return nil, err
	}
	s.audit.Info("a finding was fixed", "finding", request.GetId(), "by", sessionOf(ctx).ID())
	return &basev1.FixFindingResponse{}, nil
}
