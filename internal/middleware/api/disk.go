package api

import (
	"context"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
)

// diskService lists the disks, and carries an owner's order to use one for the chain.
type diskService struct{ *Server }

func (s diskService) ListDisks(ctx context.Context, _ *basev1.ListDisksRequest) (*basev1.ListDisksResponse, error) {
	reply, err := s.ask(ctx, &systemv1.SystemRequest{Verb: &systemv1.SystemRequest_ListDisks{ListDisks: &systemv1.ListDisks{}}}, nil)
	if err != nil {
		return nil, err
	}
	return &basev1.ListDisksResponse{Disks: reply.GetDisks().GetDisks(), Chain: reply.GetDisks().GetChain()}, nil
}

func (s diskService) UseDisk(ctx context.Context, request *basev1.UseDiskRequest) (*basev1.UseDiskResponse, error) {
	if _, err := s.ask(ctx, &systemv1.SystemRequest{Verb: &systemv1.SystemRequest_UseDisk{
		UseDisk: &systemv1.UseDisk{Order: request.GetOrder()}}}, nil); err != nil {
		return nil, err
	}
	s.audit.Warn("a disk is prepared for the chain", "by", sessionOf(ctx).ID())
	return &basev1.UseDiskResponse{}, nil
}
