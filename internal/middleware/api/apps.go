package api

import (
	"context"
	"fmt"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/changelog"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/noiseconn"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/rpc"
)

// appsService lists and changes the paired Apps.
type appsService struct{ *Server }

func (s appsService) ListApps(ctx context.Context, _ *basev1.ListAppsRequest) (*basev1.ListAppsResponse, error) {
	return &basev1.ListAppsResponse{Apps: s.Registry.Apps(sessionOf(ctx))}, nil
}

func (s appsService) RenameApp(ctx context.Context, request *basev1.RenameAppRequest) (*basev1.RenameAppResponse, error) {
	if err := noiseconn.CheckName(request.GetName()); err != nil {
		return nil, rpc.NewError(rpc.Invalid, err)
	}
	before := s.Registry.NameOf(request.GetId())
	app, err := s.Registry.Rename(request.GetId(), request.GetName(), sessionOf(ctx))
	s.recordChange(ctx, changelog.RenameApp, fmt.Sprintf("%s (%s) to %s", before, request.GetId(), request.GetName()), err)
	if err != nil {
		return nil, s.apiError(err)
	}
	return &basev1.RenameAppResponse{App: app}, nil
}

func (s appsService) RevokeApp(ctx context.Context, request *basev1.RevokeAppRequest) (*basev1.RevokeAppResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, authorityTime)
	defer cancel()
	name := s.Registry.NameOf(request.GetId())
	err := s.Registry.Revoke(ctx, request.GetId(), sessionOf(ctx))
	s.recordChange(ctx, changelog.RevokeApp, fmt.Sprintf("%s (%s)", name, request.GetId()), err)
	if err != nil {
		return nil, s.apiError(err)
	}
	return &basev1.RevokeAppResponse{}, nil
}
