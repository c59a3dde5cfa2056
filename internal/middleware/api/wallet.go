package api

import (
	"context"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
)

// walletService tells what the helper knows about wallets.
type walletService struct{ *Server }

func (s walletService) GetWallets(ctx context.Context, request *basev1.GetWalletsRequest) (*basev1.GetWalletsResponse, error) {
	reply, err := s.ask(ctx, &systemv1.SystemRequest{Verb: &systemv1.SystemRequest_GetWallets{
		GetWallets: &systemv1.GetWallets{Kind: request.GetKind()}}}, nil)
	if err != nil {
		return nil, err
	}
	return reply.GetWallets(), nil
}
