package middleware

import (
	"context"
	"errors"
	"sync"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/helperclient"
)

// Helper is the system helper as the Server reaches it; helperclient.Client is one. The
// Server decides nothing of what passes here: signed documents go through
// untouched, and what comes back is signed by the helper.
type Helper interface {
	Do(ctx context.Context, request *systemv1.SystemRequest, progress func(*systemv1.Progress)) (*systemv1.SystemReply, error)
	Each(ctx context.Context, request *systemv1.SystemRequest, receive func(*systemv1.SystemReply) error) error
}

// followAgain is how long after a broken stream the helper's events are asked for
// anew.
const followAgain = 2 * time.Second

// FollowHelper tells subscribers what happens at the helper, and gives Apps the roles
// that the helper says they have, until ctx ends.
func (r *Registry) FollowHelper(ctx context.Context, helper Helper) {
	var following sync.WaitGroup
	defer following.Wait()
	following.Go(func() { r.followUpdates(ctx, helper) })
	for ctx.Err() == nil {
		err := helper.Each(ctx, &systemv1.SystemRequest{Verb: &systemv1.SystemRequest_WatchSystem{WatchSystem: &systemv1.WatchSystem{}}},
			func(reply *systemv1.SystemReply) error {
				r.setRoles(reply.GetEvent().GetAppRoles())
				if event := eventOf(reply.GetEvent()); event != nil {
					r.events.publish(event)
				}
				return nil
			})
		if ctx.Err() == nil {
			r.logger.Warn("the stream of the system helper's events broke", "error", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(followAgain):
		}
	}
}

// lookForUpdates is how often it is looked whether an update has ended.
const lookForUpdates = 10 * time.Second

// followUpdates tells subscribers how an update has ended, once: it ends this process as
// well, so that the mark is on the disk.
func (r *Registry) followUpdates(ctx context.Context, helper Helper) {
	for ctx.Err() == nil {
		var last *systemv1.Update
		err := helper.Each(ctx, &systemv1.SystemRequest{Verb: &systemv1.SystemRequest_WatchUpdate{WatchUpdate: &systemv1.WatchUpdate{}}},
			func(reply *systemv1.SystemReply) error {
				if u := reply.GetUpdateStatus().GetUpdate(); u != nil {
					last = u
				}
				return nil
			})
		if err == nil {
			r.publishUpdate(last)
		}
		select {
		case <-ctx.Done():
		case <-time.After(lookForUpdates):
		}
	}
}

func (r *Registry) publishUpdate(u *systemv1.Update) {
	if u.GetEnded() == 0 {
		return
	}
	if other, _ := r.events.mark(markUpdate, u.GetId()); !other {
		return
	}
	r.events.publish(&basev1.WatchEventsResponse{Event: &basev1.WatchEventsResponse_UpdateEnded{UpdateEnded: &basev1.UpdateEndedEvent{
		FromVersion: u.GetFromVersion(), ToVersion: u.GetToVersion(), Installed: u.GetPhase() == systemv1.Update_PHASE_DONE, Reason: u.GetReason()}}})
}

// eventOf returns nil for what subscribers are not told.
func eventOf(of *systemv1.SystemEvent) *basev1.WatchEventsResponse {
	switch happened := of.GetHappened().(type) {
	case *systemv1.SystemEvent_PostureChanged:
		return &basev1.WatchEventsResponse{Event: &basev1.WatchEventsResponse_PostureChanged{
			PostureChanged: &basev1.PostureChangedEvent{Reason: happened.PostureChanged.GetReason()}}}
	case *systemv1.SystemEvent_DriftFound:
		return &basev1.WatchEventsResponse{Event: &basev1.WatchEventsResponse_DriftFound{
			DriftFound: &basev1.DriftFoundEvent{Findings: findings(happened.DriftFound.GetFindings())}}}
	case *systemv1.SystemEvent_BansChanged:
		return &basev1.WatchEventsResponse{Event: &basev1.WatchEventsResponse_BansChanged{
			BansChanged: &basev1.BansChangedEvent{Banned: bans(happened.BansChanged.GetBanned()), Lifted: bans(happened.BansChanged.GetLifted())}}}
	case *systemv1.SystemEvent_ApplyFailed:
		return &basev1.WatchEventsResponse{Event: &basev1.WatchEventsResponse_ApplyFailed{
			ApplyFailed: &basev1.ApplyFailedEvent{Reason: happened.ApplyFailed.GetReason()}}}
	case *systemv1.SystemEvent_ServiceFailed:
		return &basev1.WatchEventsResponse{Event: &basev1.WatchEventsResponse_ServiceFailed{ServiceFailed: &basev1.ServiceFailedEvent{
			Service: happened.ServiceFailed.GetService(), Reason: happened.ServiceFailed.GetReason()}}}
	case *systemv1.SystemEvent_ServiceRecovered:
		return &basev1.WatchEventsResponse{Event: &basev1.WatchEventsResponse_ServiceRecovered{
			ServiceRecovered: &basev1.ServiceRecoveredEvent{Service: happened.ServiceRecovered.GetService()}}}
	case *systemv1.SystemEvent_DiskFilling:
		return &basev1.WatchEventsResponse{Event: &basev1.WatchEventsResponse_DiskFilling{DiskFilling: &basev1.DiskFillingEvent{
			TotalBytes: happened.DiskFilling.GetTotalBytes(), AvailableBytes: happened.DiskFilling.GetAvailableBytes()}}}
	case *systemv1.SystemEvent_UpdateWaiting:
		return &basev1.WatchEventsResponse{Event: &basev1.WatchEventsResponse_UpdateWaiting{
			UpdateWaiting: &basev1.UpdateWaitingEvent{Packages: happened.UpdateWaiting.GetPackages()}}}
	case *systemv1.SystemEvent_MachineStopping:
		stopping := &basev1.MachineStoppingEvent{PowerOff: happened.MachineStopping.GetPowerOff()}
		if id := happened.MachineStopping.GetAppId(); id != "" {
			stopping.By = &basev1.App{Id: id}
		}
		return &basev1.WatchEventsResponse{Event: &basev1.WatchEventsResponse_MachineStopping{MachineStopping: stopping}}
	}
	return nil
}

// errNoHelper is what a developer's Base says.
var errNoHelper = errors.New("this Base runs on a developer's machine, where it configures nothing; what needs the appliance, such as its posture, cannot be seen or changed")

// ask sends one request to the helper.
func (s *Server) ask(ctx context.Context, request *systemv1.SystemRequest, progress func(*systemv1.Progress)) (*systemv1.SystemReply, error) {
	if s.Helper == nil {
		return nil, connect.NewError(connect.CodeFailedPrecondition, errNoHelper)
	}
	reply, err := s.Helper.Do(ctx, request, progress)
	if err != nil {
		return nil, helperError(err)
	}
	return reply, nil
}

// helperCodes gives the helper's refusals the codes that Apps act on.
var helperCodes = map[helperclient.Code]connect.Code{
	helperclient.CodeMalformed:  connect.CodeInvalidArgument,
	helperclient.CodeInvalid:    connect.CodeInvalidArgument,
	helperclient.CodePermission: connect.CodePermissionDenied,
	helperclient.CodeRefused:    connect.CodeFailedPrecondition,
	helperclient.CodeStale:      connect.CodeAborted,
	helperclient.CodeBusy:       connect.CodeAborted,
	helperclient.CodeNotApplied: connect.CodeFailedPrecondition,
	helperclient.CodeNotYet:     connect.CodeUnavailable,
	helperclient.CodeReset:      connect.CodeUnavailable,
	helperclient.CodeNothing:    connect.CodeNotFound,
	helperclient.CodeStorage:    connect.CodeResourceExhausted,
}

// helperError keeps the helper's sentence. Codes without a row are internal.
func helperError(err error) error {
	code := connect.CodeInternal
	var refused *helperclient.Error
	switch {
	case errors.As(err, &refused):
		if known, ok := helperCodes[refused.Code]; ok {
			code = known
		}
		err = refused
	case errors.Is(err, context.DeadlineExceeded):
		code = connect.CodeUnavailable
	}
	return connect.NewError(code, err)
}

// each asks the helper for a stream, and passes its replies on until it ends, the App
// hangs up, or the Base stops.
func (s *Server) each(ctx context.Context, request *systemv1.SystemRequest, receive func(*systemv1.SystemReply) error) error {
	if s.Helper == nil {
		return connect.NewError(connect.CodeFailedPrecondition, errNoHelper)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-s.stopping:
			cancel()
		case <-ctx.Done():
		}
	}()
	err := s.Helper.Each(ctx, request, receive)
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return connect.NewError(connect.CodeUnavailable, errStopping)
	default:
		return helperError(err)
	}
}

// postureService carries signed documents to the helper, and its reports back.
type postureService struct{ *Server }

func (s postureService) GetPosture(ctx context.Context, request *basev1.GetPostureRequest) (*basev1.GetPostureResponse, error) {
	// If something changes in between, the report does not fit the chain, and the
	// App asks again.
	chain, err := s.ask(ctx, &systemv1.SystemRequest{Verb: &systemv1.SystemRequest_GetChain{GetChain: &systemv1.GetChain{}}}, nil)
	if err != nil {
		return nil, err
	}
	report, err := s.ask(ctx, &systemv1.SystemRequest{Verb: &systemv1.SystemRequest_GetReport{
		GetReport: &systemv1.GetReport{Nonce: request.GetNonce()}}}, nil)
	if err != nil {
		return nil, err
	}
	return &basev1.GetPostureResponse{Report: report.GetReport().GetReport(), Chain: chain.GetChain().GetChain()}, nil
}

func (s postureService) GetChallenge(ctx context.Context, _ *basev1.GetChallengeRequest) (*basev1.GetChallengeResponse, error) {
	reply, err := s.ask(ctx, &systemv1.SystemRequest{Verb: &systemv1.SystemRequest_GetChallenge{GetChallenge: &systemv1.GetChallenge{}}}, nil)
	if err != nil {
		return nil, err
	}
	return &basev1.GetChallengeResponse{Challenge: reply.GetChallenge().GetChallenge()}, nil
}

func (s postureService) SubmitPosture(ctx context.Context, request *basev1.SubmitPostureRequest, stream *connect.ServerStream[basev1.SubmitPostureResponse]) error {
	send := func(message *basev1.SubmitPostureResponse) error {
		return sendWithin(deadlineOf(ctx).SetWriteDeadline, func() error { return stream.Send(message) })
	}
	reply, err := s.ask(ctx, &systemv1.SystemRequest{Verb: &systemv1.SystemRequest_Submit{
		Submit: &systemv1.Submit{Document: request.GetDocument(), Nonce: request.GetNonce()}}},
		func(p *systemv1.Progress) {
			text := p.GetStep()
			if p.GetDetail() != "" {
				text += ": " + p.GetDetail()
			}
			// An App that hung up does not stop the change.
			_ = send(&basev1.SubmitPostureResponse{Step: &basev1.SubmitPostureResponse_Progress{Progress: text}})
		})
	if err != nil {
		return err
	}
	s.Registry.logger.Info("a posture was submitted", "by", sessionOf(ctx).id())
	return send(&basev1.SubmitPostureResponse{Step: &basev1.SubmitPostureResponse_Report{Report: reply.GetReport().GetReport()}})
}

func (s postureService) ConfirmTry(ctx context.Context, request *basev1.ConfirmTryRequest) (*basev1.ConfirmTryResponse, error) {
	reply, err := s.ask(ctx, &systemv1.SystemRequest{Verb: &systemv1.SystemRequest_ConfirmTry{ConfirmTry: &systemv1.ConfirmTry{
		Confirmation:  request.GetConfirmation(),
		ConnectedAtMs: uint64(sessionOf(ctx).beganAt.Milliseconds()),
		Nonce:         request.GetNonce(),
	}}}, nil)
	if err != nil {
		return nil, err
	}
	s.Registry.logger.Info("a tried posture was confirmed", "by", sessionOf(ctx).id())
	return &basev1.ConfirmTryResponse{Report: reply.GetReport().GetReport()}, nil
}

// restrict closes something, and returns the helper's report.
func (s *Server) restrict(ctx context.Context, restrict *systemv1.Restrict) ([]byte, error) {
	reply, err := s.ask(ctx, &systemv1.SystemRequest{Verb: &systemv1.SystemRequest_Restrict{Restrict: restrict}}, nil)
	if err != nil {
		return nil, err
	}
	return reply.GetReport().GetReport(), nil
}

// Lockdown ends the other sessions and closes the window even if the helper
// cannot do its part: each of the three closes something for itself.
func (s postureService) Lockdown(ctx context.Context, request *basev1.LockdownRequest) (*basev1.LockdownResponse, error) {
	caller := sessionOf(ctx)
	s.Registry.logger.Warn("lockdown", "by", caller.id())
	s.Registry.endOtherSessions(caller)
	windowErr := s.Window.CloseWindow(ctx)
	report, err := s.restrict(ctx, &systemv1.Restrict{
		What: &systemv1.Restrict_Lockdown{Lockdown: &systemv1.Lockdown{}}, Nonce: request.GetNonce()})
	if err == nil && windowErr != nil {
		err = apiError(windowErr)
	}
	if err != nil {
		return nil, err
	}
	return &basev1.LockdownResponse{Report: report}, nil
}

func (s postureService) EndLease(ctx context.Context, request *basev1.EndLeaseRequest) (*basev1.EndLeaseResponse, error) {
	report, err := s.restrict(ctx, &systemv1.Restrict{
		What: &systemv1.Restrict_EndLease{EndLease: &systemv1.LeaseEnded{Kind: request.GetKind()}}, Nonce: request.GetNonce()})
	if err != nil {
		return nil, err
	}
	s.Registry.logger.Info("a lease was ended", "kind", request.GetKind(), "by", sessionOf(ctx).id())
	return &basev1.EndLeaseResponse{Report: report}, nil
}

// FactoryReset carries the order. The helper restarts the Base, which ends all
// sessions; this answer comes first, or not at all.
func (s postureService) FactoryReset(ctx context.Context, request *basev1.FactoryResetRequest) (*basev1.FactoryResetResponse, error) {
	if _, err := s.ask(ctx, &systemv1.SystemRequest{Verb: &systemv1.SystemRequest_FactoryReset{
		FactoryReset: &systemv1.FactoryReset{By: &systemv1.FactoryReset_Order{Order: request.GetOrder()}}}}, nil); err != nil {
		return nil, err
	}
	s.Registry.logger.Warn("factory reset", "by", sessionOf(ctx).id())
	return &basev1.FactoryResetResponse{}, nil
}

// bansService shows what fail2ban has banned.
type bansService struct{ *Server }

func (s bansService) ListBans(ctx context.Context, _ *basev1.ListBansRequest) (*basev1.ListBansResponse, error) {
	reply, err := s.ask(ctx, &systemv1.SystemRequest{Verb: &systemv1.SystemRequest_ListBans{ListBans: &systemv1.ListBans{}}}, nil)
	if err != nil {
		return nil, err
	}
	return &basev1.ListBansResponse{Bans: bans(reply.GetBans().GetBans()), Total: reply.GetBans().GetTotal()}, nil
}

func bans(of []*systemv1.Ban) []*basev1.Ban {
	var all []*basev1.Ban
	for _, b := range of {
		all = append(all, &basev1.Ban{
			Jail: b.GetJail(), Address: b.GetAddress(), Since: timestamp(b.GetSince()), Until: timestamp(b.GetUntil())})
	}
	return all
}

// timestamp is absent for 0, which means that the helper does not know.
func timestamp(seconds int64) *timestamppb.Timestamp {
	if seconds == 0 {
		return nil
	}
	return &timestamppb.Timestamp{Seconds: seconds}
}

func (s bansService) LiftBan(ctx context.Context, request *basev1.LiftBanRequest) (*basev1.LiftBanResponse, error) {
	reply, err := s.ask(ctx, &systemv1.SystemRequest{Verb: &systemv1.SystemRequest_LiftBan{
		LiftBan: &systemv1.LiftBan{By: &systemv1.LiftBan_Order{Order: request.GetOrder()}}}}, nil)
	if err != nil {
		return nil, err
	}
	s.Registry.logger.Info("a ban was lifted", "by", sessionOf(ctx).id())
	return &basev1.LiftBanResponse{Lifted: reply.GetLiftBan().GetLifted()}, nil
}

// auditService has the helper look at the live system.
type auditService struct{ *Server }

func (s auditService) RunAudit(ctx context.Context, _ *basev1.RunAuditRequest) (*basev1.RunAuditResponse, error) {
	reply, err := s.ask(ctx, &systemv1.SystemRequest{Verb: &systemv1.SystemRequest_RunAudit{RunAudit: &systemv1.RunAudit{}}}, nil)
	if err != nil {
		return nil, err
	}
	return &basev1.RunAuditResponse{Findings: findings(reply.GetAudit().GetFindings())}, nil
}

func findings(of []*systemv1.Finding) []*basev1.Finding {
	var all []*basev1.Finding
	for _, f := range of {
		all = append(all, &basev1.Finding{
			Id: f.GetId(), Severity: basev1.Finding_Severity(f.GetSeverity()), Title: f.GetTitle(),
			Expected: f.GetExpected(), Found: f.GetFound(), Why: f.GetWhy(), Fix: f.GetFix(), Fixable: f.GetFixable()})
	}
	return all
}

func (s auditService) FixFinding(ctx context.Context, request *basev1.FixFindingRequest) (*basev1.FixFindingResponse, error) {
	if _, err := s.ask(ctx, &systemv1.SystemRequest{Verb: &systemv1.SystemRequest_FixFinding{
		FixFinding: &systemv1.FixFinding{Id: request.GetId()}}}, nil); err != nil {
		return nil, err
	}
	s.Registry.logger.Info("a finding was fixed", "finding", request.GetId(), "by", sessionOf(ctx).id())
	return &basev1.FixFindingResponse{}, nil
}
