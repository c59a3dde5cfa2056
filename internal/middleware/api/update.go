package api

import (
	"context"
	"errors"
	"io"
	"time"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/rpc"
	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
)

const (
	// abortTime bounds telling the helper that no more will come.
	abortTime = 5 * time.Second
)

var (
	errNoHeader = reason.New("an update begins with the header of the release file")
	errNoPiece  = reason.New("after the header of a release file its pieces follow, and nothing else")
)

// updateService carries releases to the helper, which decides whether to accept them.
type updateService struct{ *Server }

func (s updateService) GetUpdate(ctx context.Context, _ *basev1.GetUpdateRequest) (*basev1.GetUpdateResponse, error) {
	reply, err := s.ask(ctx, &systemv1.SystemRequest{Verb: &systemv1.SystemRequest_GetUpdate{GetUpdate: &systemv1.GetUpdate{}}}, nil)
	if err != nil {
		return nil, err
	}
	status := reply.GetUpdateStatus()
	return &basev1.GetUpdateResponse{
		InstalledVersion: status.GetInstalled(), Update: status.GetUpdate(), TakesUpdates: status.GetTakesUpdates(),
		DebianWaiting: status.GetDebianWaiting(), DebianUnknown: status.GetDebianUnknown(),
		Image: status.GetImage(), OtherVersion: status.GetOther(), Architecture: status.GetArchitecture(),
		PartialDigest: status.GetPartialDigest(), PartialSize: status.GetPartialSize(),
	}, nil
}

// ConfirmUpdate tells the helper that an owner's App is back.
func (s updateService) ConfirmUpdate(ctx context.Context, request *basev1.ConfirmUpdateRequest) (*basev1.ConfirmUpdateResponse, error) {
	_, err := s.ask(ctx, &systemv1.SystemRequest{Verb: &systemv1.SystemRequest_ConfirmUpdate{
		ConfirmUpdate: &systemv1.ConfirmUpdate{Id: request.GetId()}}}, nil)
	return &basev1.ConfirmUpdateResponse{}, err
}

// GoBack makes the helper start the previous version.
func (s updateService) GoBack(ctx context.Context, _ *basev1.GoBackRequest) (*basev1.GoBackResponse, error) {
	reply, err := s.ask(ctx, &systemv1.SystemRequest{Verb: &systemv1.SystemRequest_StartOtherSlot{
		StartOtherSlot: &systemv1.StartOtherSlot{}}}, nil)
	if err != nil {
		return nil, err
	}
	s.audit.Warn("the Base goes back to another version", "version", reply.GetUpdate().GetToVersion(), "by", sessionOf(ctx).ID())
	return &basev1.GoBackResponse{Update: reply.GetUpdate()}, nil
}

// BringUpdate passes a release on, piece by piece. However it ends, no upload is left open at the
// helper.
func (s updateService) BringUpdate(ctx context.Context,
	stream *rpc.Receiver[basev1.BringUpdateRequest]) (*basev1.BringUpdateResponse, error) {
	first, err := stream.Receive()
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	if first.GetHeader() == nil {
		return nil, rpc.NewError(rpc.Invalid, errNoHeader)
	}
	began, err := s.ask(ctx, &systemv1.SystemRequest{Verb: &systemv1.SystemRequest_BeginUpdate{
		BeginUpdate: &systemv1.BeginUpdate{Header: first.GetHeader(), Offset: first.GetOffset()}}}, nil)
	if err != nil {
		return nil, err
	}
	upload := began.GetUpdateBegan().GetUpload()
	update, err := s.carry(ctx, upload, first.GetOffset(), stream)
	if err != nil {
		s.abort(ctx, upload)
		return nil, err
	}
	s.audit.Warn("an update was brought", "version", update.GetToVersion(), "by", sessionOf(ctx).ID())
	return &basev1.BringUpdateResponse{Update: update}, nil
}

func (s updateService) carry(ctx context.Context, upload []byte, offset uint64,
	stream *rpc.Receiver[basev1.BringUpdateRequest]) (*basev1.Update, error) {
	err := pieces(stream.Receive, offset, errNoPiece, func(offset uint64, piece []byte) error {
		_, err := s.ask(ctx, &systemv1.SystemRequest{Verb: &systemv1.SystemRequest_UpdatePiece{
			UpdatePiece: &systemv1.UpdatePiece{Upload: upload, Offset: offset, Data: piece}}}, nil)
		return err
	})
	if err != nil {
		return nil, err
	}
	// From here on it cannot be cancelled: the call continues when the App hangs up.
	reply, err := s.ask(ctx, &systemv1.SystemRequest{Verb: &systemv1.SystemRequest_FinishUpdate{
		FinishUpdate: &systemv1.FinishUpdate{Upload: upload}}}, nil)
	return reply.GetUpdate(), err
}

// pieces hands on what an App sends in pieces, each with its offset, until the App has sent all. missing
// refuses a message without a piece.
func pieces[M interface{ GetPiece() []byte }](receive func() (M, error), offset uint64, missing error,
	pass func(offset uint64, piece []byte) error) error {
	for {
		message, err := receive()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		piece := message.GetPiece()
		if len(piece) == 0 {
			return rpc.NewError(rpc.Invalid, missing)
		}
		if err := pass(offset, piece); err != nil {
			return err
		}
		offset += uint64(len(piece))
	}
}

// abort makes the helper drop an upload, even if the App has gone.
func (s updateService) abort(ctx context.Context, upload []byte) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), abortTime)
	defer cancel()
	if _, err := s.ask(ctx, &systemv1.SystemRequest{Verb: &systemv1.SystemRequest_AbortUpdate{
		AbortUpdate: &systemv1.AbortUpdate{Upload: upload}}}, nil); err != nil {
		s.Logger.Warn("have an unfinished upload removed", "error", err)
	}
}

// WatchUpdate passes on the helper's reports, which end with the update.
func (s updateService) WatchUpdate(ctx context.Context, _ *basev1.WatchUpdateRequest,
	stream *rpc.Sender[basev1.WatchUpdateResponse]) error {
	return s.each(ctx, &systemv1.SystemRequest{Verb: &systemv1.SystemRequest_WatchUpdate{WatchUpdate: &systemv1.WatchUpdate{}}},
		func(reply *systemv1.SystemReply) error {
			if reply.GetUpdateStatus() == nil {
				return nil // the end
			}
			return stream.Send(&basev1.WatchUpdateResponse{Update: reply.GetUpdateStatus().GetUpdate()})
		})
}

// InstallDebianUpdates makes the helper install Debian's pending updates. It ends with done, or
// with an error.
func (s updateService) InstallDebianUpdates(ctx context.Context, _ *basev1.InstallDebianUpdatesRequest,
	stream *rpc.Sender[basev1.InstallDebianUpdatesResponse]) error {
	s.audit.Info("Debian's updates are being installed", "by", sessionOf(ctx).ID())
	return s.each(ctx, &systemv1.SystemRequest{Verb: &systemv1.SystemRequest_InstallDebianUpdates{
		InstallDebianUpdates: &systemv1.InstallDebianUpdates{}}},
		func(reply *systemv1.SystemReply) error {
			if reply.GetProgress() == nil {
				return stream.Send(&basev1.InstallDebianUpdatesResponse{Done: true})
			}
			return stream.Send(&basev1.InstallDebianUpdatesResponse{Progress: reply.GetProgress().GetStep()})
		})
}
