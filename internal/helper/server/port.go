package server

import (
	"context"

	"google.golang.org/protobuf/proto"

	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/caller"
	"github.com/BitBoxSwiss/bitbox-base/internal/helperclient"
)

// Port returns the way to the Server within its own process, for the caller who. Messages are not
// marshalled; all else is as it is over the socket.
func (s *Server) Port(who caller.Who) helperclient.Port { return local{s, who} }

type local struct {
	server *Server
	who    caller.Who
}

func (l local) Stream(ctx context.Context, request *systemv1.SystemRequest, receive func(*systemv1.SystemReply) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var refused error
	err := l.server.Handle(ctx, l.who, Incoming{Kind: helperclient.Kind(request), Size: proto.Size(request), Life: context.WithoutCancel(ctx),
		Read: func() (*systemv1.SystemRequest, error) {
			request := proto.CloneOf(request)
			return request, checkRequest(request)
		}}, func(reply *systemv1.SystemReply) error {
		if refused == nil {
			refused = receive(proto.CloneOf(reply))
		}
		if refused != nil {
			cancel()
		}
		return refused
	})
	if refused != nil {
		return refused
	}
	return err
}
