package api

import (
	"context"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/rpc"
)

// servicesService shows and changes the services that run on the Base, and their logs. The helper
// decides which services there are, and what may be done to them.
type servicesService struct{ *Server }

func (s servicesService) ListServices(ctx context.Context, _ *basev1.ListServicesRequest) (*basev1.ListServicesResponse, error) {
	reply, err := s.ask(ctx, &systemv1.SystemRequest{Verb: &systemv1.SystemRequest_ListServices{ListServices: &systemv1.ListServices{}}}, nil)
	if err != nil {
		return nil, err
	}
	return &basev1.ListServicesResponse{Services: reply.GetServices().GetServices()}, nil
}

func (s servicesService) ChangeService(ctx context.Context, request *basev1.ChangeServiceRequest) (*basev1.ChangeServiceResponse, error) {
	reply, err := s.ask(ctx, &systemv1.SystemRequest{Verb: &systemv1.SystemRequest_ChangeService{
		ChangeService: &systemv1.ChangeService{Name: request.GetName(), Action: request.GetAction()}}}, nil)
	if err != nil {
		return nil, err
	}
	response := &basev1.ChangeServiceResponse{}
	for _, service := range reply.GetServices().GetServices() {
		response.Service = service
	}
	s.audit.Info("a service was changed", "service", response.GetService().GetName(), "action", request.GetAction(), "by", sessionOf(ctx).ID())
	return response, nil
}

func (s servicesService) ReadLogs(ctx context.Context, request *basev1.ReadLogsRequest, stream *rpc.Sender[basev1.ReadLogsResponse]) error {
	return s.each(ctx, &systemv1.SystemRequest{Verb: &systemv1.SystemRequest_ReadLogs{ReadLogs: &systemv1.ReadLogs{Request: request}}},
		func(reply *systemv1.SystemReply) error {
			logs := reply.GetLogs()
			if logs == nil {
				return nil // the end
			}
			return stream.Send(&basev1.ReadLogsResponse{Entries: logs.GetEntries(), Live: logs.GetLive()})
		})
}
