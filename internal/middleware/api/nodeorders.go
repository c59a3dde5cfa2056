package api

import (
	"context"
	"errors"
	"io"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/rpc"
	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
)

var (
	errNoRelease = reason.New("a release of Bitcoin Core begins with what an owner has signed about it")
	errNoArchive = reason.New("after that the pieces of the archive follow, and nothing else")
)

// BringBitcoinCore passes a release on, piece by piece. However it ends, no upload is left open at
// the helper.
func (s nodeService) BringBitcoinCore(ctx context.Context,
	stream *rpc.Receiver[basev1.BringBitcoinCoreRequest]) (*basev1.BringBitcoinCoreResponse, error) {
	first, err := stream.Receive()
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	r := first.GetRelease()
	if r == nil {
		return nil, rpc.NewError(rpc.Invalid, errNoRelease)
	}
	began, err := s.ask(ctx, &systemv1.SystemRequest{Verb: &systemv1.SystemRequest_BeginBitcoinCore{
		BeginBitcoinCore: &systemv1.BeginBitcoinCore{Order: r.GetOrder(), Sums: r.GetSums(), Signatures: r.GetSignatures(),
			Size: r.GetSize()}}}, nil)
	if err != nil {
		return nil, err
	}
	upload := began.GetUpdateBegan().GetUpload()
	installed, err := s.carry(ctx, upload, r.GetOrder(), stream)
	if err != nil {
		s.abort(ctx, upload)
		return nil, err
	}
	s.audit.Warn("Bitcoin Core was brought", "version", installed.GetVersion(), "by", sessionOf(ctx).ID())
	return &basev1.BringBitcoinCoreResponse{Version: installed.GetVersion(), Signers: installed.GetSigners()}, nil
}

func (s nodeService) carry(ctx context.Context, upload, order []byte,
	stream *rpc.Receiver[basev1.BringBitcoinCoreRequest]) (*systemv1.BitcoinCoreInstalled, error) {
	err := pieces(stream.Receive, 0, errNoArchive, func(offset uint64, piece []byte) error {
		_, err := s.ask(ctx, &systemv1.SystemRequest{Verb: &systemv1.SystemRequest_BitcoinCorePiece{
			BitcoinCorePiece: &systemv1.BitcoinCorePiece{Upload: upload, Offset: offset, Data: piece}}}, nil)
		return err
	})
	if err != nil {
		return nil, err
	}
	// From here on it cannot be cancelled: the call continues when the App hangs up.
	reply, err := s.ask(ctx, &systemv1.SystemRequest{Verb: &systemv1.SystemRequest_FinishBitcoinCore{
		FinishBitcoinCore: &systemv1.FinishBitcoinCore{Upload: upload, Order: order}}}, nil)
	return reply.GetBitcoinCoreInstalled(), err
}

// abort makes the helper drop an upload, even if the App has gone.
func (s nodeService) abort(ctx context.Context, upload []byte) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), abortTime)
	defer cancel()
	if _, err := s.ask(ctx, &systemv1.SystemRequest{Verb: &systemv1.SystemRequest_AbortBitcoinCore{
		AbortBitcoinCore: &systemv1.AbortBitcoinCore{Upload: upload}}}, nil); err != nil {
		s.Logger.Warn("have an unfinished upload of Bitcoin Core removed", "error", err)
	}
}

// RebuildChain passes an owner's order on.
func (s nodeService) RebuildChain(ctx context.Context, request *basev1.RebuildChainRequest) (*basev1.RebuildChainResponse, error) {
	_, err := s.ask(ctx, &systemv1.SystemRequest{Verb: &systemv1.SystemRequest_OrderRebuild{
		OrderRebuild: &systemv1.OrderRebuild{Order: request.GetOrder()}}}, nil)
	return &basev1.RebuildChainResponse{}, err
}
