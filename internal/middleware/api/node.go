package api

import (
	"context"
	"errors"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/nodeclient"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/rpc"
	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
)

// Node is what the Server asks about the Bitcoin node; *nodeclient.Client is one, and nil is a
// Base without a node.
type Node interface {
	Node(ctx context.Context) (*basev1.Node, error)
	Peers(ctx context.Context) (*basev1.ListPeersResponse, error)
	Blocks(ctx context.Context, most uint32) (*basev1.ListBlocksResponse, error)
	Fees(ctx context.Context) (*basev1.GetFeesResponse, error)
	Transaction(ctx context.Context, request *basev1.GetTransactionRequest) (*basev1.GetTransactionResponse, error)
	Headers(ctx context.Context, request *basev1.ListHeadersRequest) (*basev1.ListHeadersResponse, error)
	WatchBlocks(ctx context.Context, most uint32, receive func(*basev1.Block) error) error
}

// nodeService tells about the node what bitbox-node knows. All that it says was bounded by
// nodeclient.
type nodeService struct{ *Server }

func (s nodeService) GetNode(ctx context.Context, _ *basev1.GetNodeRequest) (*basev1.GetNodeResponse, error) {
	n, err := s.Node.Node(ctx)
	if n.GetState() == basev1.Node_STATE_STOPPED {
		// bitbox-node sees that it is silent. The helper may know why.
		if machine, err := s.Machine.Machine(ctx); err == nil && machine.GetChainDisk().GetTrouble() != "" {
			n.Reason = machine.GetChainDisk().GetTrouble()
		}
	}
	return &basev1.GetNodeResponse{Node: n}, s.nodeError(err)
}

func (s nodeService) ListPeers(ctx context.Context, _ *basev1.ListPeersRequest) (*basev1.ListPeersResponse, error) {
	peers, err := s.Node.Peers(ctx)
	return peers, s.nodeError(err)
}

func (s nodeService) ListBlocks(ctx context.Context, request *basev1.ListBlocksRequest) (*basev1.ListBlocksResponse, error) {
	blocks, err := s.Node.Blocks(ctx, request.GetMost())
	return blocks, s.nodeError(err)
}

func (s nodeService) GetFees(ctx context.Context, _ *basev1.GetFeesRequest) (*basev1.GetFeesResponse, error) {
	fees, err := s.Node.Fees(ctx)
	return fees, s.nodeError(err)
}

func (s nodeService) GetTransaction(ctx context.Context, request *basev1.GetTransactionRequest) (*basev1.GetTransactionResponse, error) {
	answer, err := s.Node.Transaction(ctx, request)
	return answer, s.nodeError(err)
}

func (s nodeService) ListHeaders(ctx context.Context, request *basev1.ListHeadersRequest) (*basev1.ListHeadersResponse, error) {
	answer, err := s.Node.Headers(ctx, request)
	return answer, s.nodeError(err)
}

func (s nodeService) WatchBlocks(ctx context.Context, request *basev1.WatchBlocksRequest, stream *rpc.Sender[basev1.Block]) error {
	err := s.Node.WatchBlocks(ctx, request.GetMost(), stream.Send)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return s.nodeError(err)
}

func (s nodeService) ChangeNodeSettings(ctx context.Context, request *basev1.ChangeNodeSettingsRequest) (*basev1.ChangeNodeSettingsResponse,
	error) {
	if _, err := s.ask(ctx, &systemv1.SystemRequest{Verb: &systemv1.SystemRequest_ChangeNodeSettings{
		ChangeNodeSettings: &systemv1.ChangeNodeSettings{Order: request.GetOrder()}}}, nil); err != nil {
		return nil, err
	}
	s.audit.Info("the settings of the node were changed", "by", sessionOf(ctx).ID())
	return &basev1.ChangeNodeSettingsResponse{}, nil
}

// errNodeAway is what an App hears when bitbox-node gives no usable answer. Why, the log says.
var errNodeAway = reason.New("the Base's node process gives no usable answer; try again in a moment")

// nodeError gives an error about the node the code that Apps act on.
func (s *Server) nodeError(err error) error {
	switch {
	case err == nil, errors.Is(err, context.Canceled):
		return err
	case errors.Is(err, nodeclient.ErrNone):
		return rpc.NewError(rpc.Precondition, nodeclient.ErrNone)
	}
	s.Logger.Warn("the node process was asked", "error", err)
	if errors.Is(err, context.DeadlineExceeded) {
		return rpc.NewError(rpc.Unavailable, errSlow)
	}
	return rpc.NewError(rpc.Unavailable, errNodeAway)
}
