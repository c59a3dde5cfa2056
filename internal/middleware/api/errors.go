package api

import (
	"context"
	"errors"
	"time"

	"github.com/BitBoxSwiss/bitbox-base/internal/helperclient"
	"github.com/BitBoxSwiss/bitbox-base/internal/middleware/events"
	"github.com/BitBoxSwiss/bitbox-base/internal/middleware/registry"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/pairing"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/rpc"
	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
)

// authorityTime bounds what an App makes the daemon ask of other processes.
const authorityTime = 10 * time.Second

// Texts of failures of the Base itself. Its log has the reasons.
var (
	errSlow   = reason.New("another part of the Base did not answer in time; try again")
	errAway   = reason.New("the Base's system helper does not answer; try again in a moment")
	errFailed = reason.New("the Base could not do that; its log says why")
)

// apiError gives an error the code that Apps act on. It logs details that are not for people.
func (s *Server) apiError(err error) error {
	var refused *pairing.Error
	switch {
	case errors.Is(err, registry.ErrNoRights):
		return rpc.NewError(rpc.Unauthenticated, err)
	case errors.Is(err, registry.ErrRole):
		return rpc.NewError(rpc.Denied, err)
	case errors.Is(err, registry.ErrUnknownApp):
		return rpc.NewError(rpc.NotFound, err)
	case errors.Is(err, registry.ErrLastOwner), errors.Is(err, events.ErrNoHistory):
		return rpc.NewError(rpc.Precondition, err)
	case errors.As(err, &refused):
		return rpc.NewError(rpc.Precondition, refused)
	case errors.Is(err, context.Canceled):
		return err // nobody is told
	}
	s.Logger.Warn("a call failed", "error", err)
	if errors.Is(err, context.DeadlineExceeded) {
		return rpc.NewError(rpc.Unavailable, errSlow)
	}
	return rpc.NewError(rpc.Internal, errFailed)
}

// helperCodes gives the helper's refusals the codes that Apps act on.
var helperCodes = map[helperclient.Code]rpc.Code{
	helperclient.CodeMalformed:  rpc.Invalid,
	helperclient.CodeInvalid:    rpc.Invalid,
	helperclient.CodePermission: rpc.Denied,
	helperclient.CodeRefused:    rpc.Precondition,
	helperclient.CodeStale:      rpc.Aborted,
	helperclient.CodeBusy:       rpc.Aborted,
	helperclient.CodeNotApplied: rpc.Precondition,
	helperclient.CodeNotYet:     rpc.Unavailable,
	helperclient.CodeReset:      rpc.Unavailable,
	helperclient.CodeNothing:    rpc.NotFound,
	helperclient.CodeStorage:    rpc.Exhausted,
}

// helperError keeps the helper's sentence. Codes without a row are internal.
func (s *Server) helperError(err error) error {
	var refused *helperclient.Error
	switch {
	case errors.As(err, &refused):
		code, known := helperCodes[refused.Code]
		if !known {
			code = rpc.Internal
		}
		return rpc.NewError(code, refused)
	case errors.Is(err, context.Canceled):
		return err // nobody is told
	}
	s.Logger.Warn("the system helper was asked", "error", err)
	if errors.Is(err, context.DeadlineExceeded) {
		return rpc.NewError(rpc.Unavailable, errSlow)
	}
	return rpc.NewError(rpc.Unavailable, errAway)
}
