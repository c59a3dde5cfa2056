package api

import (
	"context"

	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/rpc"
	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
)

// Helper is the system helper as the Server reaches it; helperclient.Client is one. The Server
// decides nothing about what passes here: signed documents pass unchanged, and the helper signs
// the answers.
type Helper interface {
	Do(ctx context.Context, request *systemv1.SystemRequest, progress func(*systemv1.Progress)) (*systemv1.SystemReply, error)
	Each(ctx context.Context, request *systemv1.SystemRequest, receive func(*systemv1.SystemReply) error) error
}

// errNoHelper is the answer of a developer's Base.
var errNoHelper = reason.New("this Base runs on a developer's machine, where it configures nothing; posture, SSH, services, audit and updates need the appliance ('make appliance')")

// ask sends one request to the helper.
func (s *Server) ask(ctx context.Context, request *systemv1.SystemRequest,
	progress func(*systemv1.Progress)) (*systemv1.SystemReply, error) {
	if s.Helper == nil {
		return nil, rpc.NewError(rpc.Precondition, errNoHelper)
	}
	reply, err := s.Helper.Do(ctx, request, progress)
	if err != nil {
		return nil, s.helperError(err)
	}
	return reply, nil
}

// each asks the helper for a stream, and passes its replies on until it ends or the call does.
func (s *Server) each(ctx context.Context, request *systemv1.SystemRequest, receive func(*systemv1.SystemReply) error) error {
	if s.Helper == nil {
		return rpc.NewError(rpc.Precondition, errNoHelper)
	}
	err := s.Helper.Each(ctx, request, receive)
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	default:
		return s.helperError(err)
	}
}
