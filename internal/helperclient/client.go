// Package helperclient connects the other processes of the Base to the system helper
// (internal/helper): over its unix socket, or within one process in tests. It knows the
// messages of api/system/v1, and nothing about how the helper handles them.
package helperclient

import (
	"context"

	"google.golang.org/protobuf/proto"

	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/ipc"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/pairing"
	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
)

// MaxMiddlewareReaders is how many logs are read for Apps at once. The helper keeps some more
// places for root.
const MaxMiddlewareReaders = 8

// Port carries requests to the helper.
type Port interface {
	// Stream gives each reply to receive, until there are no more or receive returns an error,
	// which is returned. A refusal is a reply.
	Stream(ctx context.Context, request *systemv1.SystemRequest, receive func(*systemv1.SystemReply) error) error
}

// Dial returns the Port of the socket at path. It does not connect yet.
func Dial(path string) Port { return socket{ipc.Dial(path)} }

// Kind is the kind of the frame that carries a request: the number of its verb in system.proto, 0
// if it has none.
func Kind(request *systemv1.SystemRequest) uint16 {
	m := request.ProtoReflect()
	if field := m.WhichOneof(m.Descriptor().Oneofs().ByName("verb")); field != nil {
		return uint16(field.Number())
	}
	return 0
}

type socket struct{ client *ipc.Client }

func (s socket) Stream(ctx context.Context, request *systemv1.SystemRequest, receive func(*systemv1.SystemReply) error) error {
	b, err := proto.Marshal(request)
	if err != nil {
		return err
	}
	for b, err := range s.client.Stream(ctx, Kind(request), b) {
		if err != nil {
			return err
		}
		reply := &systemv1.SystemReply{}
		if err := proto.Unmarshal(b, reply); err != nil {
			return reason.Errorf("read the system helper's reply: %w", err)
		}
		if err := receive(reply); err != nil {
			return err
		}
	}
	return nil
}

type appKey struct{}

// ForApp makes every request that a Client sends in ctx say which App it is for.
func ForApp(ctx context.Context, id string) context.Context {
	return context.WithValue(ctx, appKey{}, id)
}

// Client talks to the helper through a Port. A refusal is returned as *Error.
type Client struct{ Port }

// Do sends a request and returns its last reply. Earlier replies, which report progress, are
// given to progress, if it is not nil.
func (c Client) Do(ctx context.Context, request *systemv1.SystemRequest, progress func(*systemv1.Progress)) (*systemv1.SystemReply, error) {
	var last *systemv1.SystemReply
	err := c.Each(ctx, request, func(reply *systemv1.SystemReply) error {
		if reply.GetProgress() != nil {
			if progress != nil {
				progress(reply.GetProgress())
			}
			return nil
		}
		last = reply
		return nil
	})
	if err == nil && last == nil {
		err = ipc.ErrRefused
	}
	if err != nil {
		return nil, reason.Errorf("ask the system helper: %w", err)
	}
	return last, nil
}

// Each sends a request and gives each reply to receive.
func (c Client) Each(ctx context.Context, request *systemv1.SystemRequest, receive func(*systemv1.SystemReply) error) error {
	if id, ok := ctx.Value(appKey{}).(string); ok && request.GetAppId() == "" {
		request = proto.CloneOf(request)
		request.AppId = id
	}
	return c.Stream(ctx, request, func(reply *systemv1.SystemReply) error {
		if reply.GetErrorCode() != "" {
			return &Error{Code: Code(reply.GetErrorCode()), Message: reply.GetErrorMessage()}
		}
		return receive(reply)
	})
}

// Authority is the connection to the ceremony authority through the helper.
func (c Client) Authority() pairing.Client { return pairing.Client{Port: authorityPort{c}} }

type authorityPort struct{ Client }

func (p authorityPort) Call(ctx context.Context, request *systemv1.AuthorityRequest) (*systemv1.AuthorityReply, error) {
	reply, err := p.Do(ctx, &systemv1.SystemRequest{Verb: &systemv1.SystemRequest_Authority{Authority: request}}, nil)
	return reply.GetAuthority(), err
}
