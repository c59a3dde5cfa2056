package api

import (
	"context"

	"connectrpc.com/connect"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
)

// InstallDebianUpdates has the helper install what waits of Debian's updates. It ends
// with done, or with an error.
func (s updateService) InstallDebianUpdates(ctx context.Context, _ *basev1.InstallDebianUpdatesRequest, stream *connect.ServerStream[basev1.InstallDebianUpdatesResponse]) error {
	send := func(message *basev1.InstallDebianUpdatesResponse) error {
		return sendWithin(deadlineOf(ctx).SetWriteDeadline, func() error { return stream.Send(message) })
	}
	s.audit.Info("Debian's updates are being installed", "by", sessionOf(ctx).ID())
	return s.each(ctx, &systemv1.SystemRequest{Verb: &systemv1.SystemRequest_InstallDebianUpdates{InstallDebianUpdates: &systemv1.InstallDebianUpdates{}}},
		func(reply *systemv1.SystemReply) error {
			if reply.GetProgress() == nil {
				return send(&basev1.InstallDebianUpdatesResponse{Done: true})
			}
			return send(&basev1.InstallDebianUpdatesResponse{Progress: reply.GetProgress().GetStep()})
		})
}
