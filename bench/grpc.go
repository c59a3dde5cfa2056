package main

import (
	"context"
	"crypto/tls"
	"errors"
	"net"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
)

// grpcService is the rival of a whole Base that others would take: gRPC-Go over mutual
// TLS 1.3, with the same answers. Its methods are described here by hand, as its code
// generator would.
type grpcService struct {
	tls    *rivalTLS
	server *grpc.Server
	addr   string
	apps   *basev1.ListAppsResponse
	// events are handed to every stream.
	events func() (<-chan *basev1.Event, func())
}

const (
	grpcList  = "/bench.Rival/List"
	grpcWatch = "/bench.Rival/Watch"
)

func newGRPC(
	apps *basev1.ListAppsResponse, events func() (<-chan *basev1.Event, func()), options ...grpc.ServerOption,
) (*grpcService, error) {
	rival, err := newRivalTLS()
	if err != nil {
		return nil, err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &grpcService{tls: rival, addr: listener.Addr().String(), apps: apps, events: events,
		server: grpc.NewServer(append(options, grpc.Creds(credentials.NewTLS(rival.server)))...)}
	s.server.RegisterService(&grpc.ServiceDesc{
		ServiceName: "bench.Rival",
		Methods: []grpc.MethodDesc{{MethodName: "List",
			Handler: func(_ any, _ context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
				return s.apps, decode(&basev1.ListAppsRequest{})
			}}},
		Streams: []grpc.StreamDesc{{StreamName: "Watch", ServerStreams: true,
			Handler: func(_ any, stream grpc.ServerStream) error { return s.watch(stream) }}},
	}, nil)
	go func() { _ = s.server.Serve(listener) }()
	return s, nil
}

func (s *grpcService) watch(stream grpc.ServerStream) error {
	if err := stream.RecvMsg(&basev1.WatchEventsRequest{}); err != nil {
		return err
	}
	events, unsubscribe := s.events()
	defer unsubscribe()
	if err := stream.SendMsg(&basev1.Event{}); err != nil { // it is live
		return err
	}
	for {
		select {
		case event := <-events:
			if err := stream.SendMsg(event); err != nil {
				return err
			}
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
	}
}

// grpcDial connects to a rival at an address.
func grpcDial(address string, config *tls.Config, options ...grpc.DialOption) (*grpc.ClientConn, error) {
	return grpc.NewClient("passthrough:///"+address, append(options, grpc.WithTransportCredentials(credentials.NewTLS(config)))...)
}

func grpcCall(ctx context.Context, conn *grpc.ClientConn) (*basev1.ListAppsResponse, error) {
	apps := &basev1.ListAppsResponse{}
	return apps, conn.Invoke(ctx, grpcList, &basev1.ListAppsRequest{}, apps)
}

// grpcFollow opens a stream and waits until it is live.
func grpcFollow(ctx context.Context, conn *grpc.ClientConn) (grpc.ClientStream, error) {
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{StreamName: "Watch", ServerStreams: true}, grpcWatch)
	if err != nil {
		return nil, err
	}
	return stream, errors.Join(stream.SendMsg(&basev1.WatchEventsRequest{}), stream.CloseSend(), stream.RecvMsg(&basev1.Event{}))
}

func (s *grpcService) close() error {
	s.server.Stop()
	return nil
}
