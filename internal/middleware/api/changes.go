package api

import (
	"context"
	"time"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
)

// changesService shows the log of changes. The helper keeps the log, and signs it.
type changesService struct{ *Server }

func (s changesService) ListChanges(ctx context.Context, request *basev1.ListChangesRequest) (*basev1.ListChangesResponse, error) {
	reply, err := s.ask(ctx, &systemv1.SystemRequest{Verb: &systemv1.SystemRequest_ListChanges{
		ListChanges: &systemv1.ListChanges{After: request.GetAfter(), Most: request.GetMost(), Nonce: request.GetNonce()}}}, nil)
	if err != nil {
		return nil, err
	}
	return &basev1.ListChangesResponse{Entries: reply.GetChanges().GetEntries(), Head: reply.GetChanges().GetHead()}, nil
}

// recordTime is how long recording may take. The caller waits for it, so that every answered
// change is recorded.
const recordTime = 5 * time.Second

// recordChange records a change that the Middleware has made by itself, or failed to. A change
// that cannot be recorded is made all the same.
func (s *Server) recordChange(ctx context.Context, what, detail string, failure error) {
	if s.Helper == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), recordTime)
	defer cancel()
	change := &systemv1.RecordChange{What: what, Detail: detail}
	if failure != nil {
		// The log is for owners. The Middleware's own journal has the whole error (apiError).
		change.Failure = reason.Of(failure)
	}
	if _, err := s.ask(ctx, &systemv1.SystemRequest{Verb: &systemv1.SystemRequest_RecordChange{RecordChange: change}}, nil); err != nil {
		s.audit.Error("a change could not be recorded", "what", what, "detail", detail, "by", sessionOf(ctx).ID(), "error", err)
	}
}
