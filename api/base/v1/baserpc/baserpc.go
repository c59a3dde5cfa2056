// Package baserpc has the names, clients and handlers of the services in api/base/v1.
// The other files are generated from their descriptions (scripts/generate).
//
// How a call is carried is specified in docs/protocol.md and done by
// internal/protocol/rpc. An App uses the clients of package client, which find the Base,
// connect, and explain what went wrong.
package baserpc

import (
	"context"
	"errors"
	"io"
	"iter"

	"google.golang.org/protobuf/proto"

	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/rpc"
)

// Caller is what a client makes its calls by.
type Caller interface {
	// Session returns the session to make a call on.
	Session(ctx context.Context) (*rpc.Session, error)
	// Outcome is told of each answer (nil), of the end of a stream (io.EOF), and of each
	// failure. The client returns what it returns.
	Outcome(err error) error
}

// message is a pointer to a generated message type.
type message[M any] interface {
	*M
	proto.Message
}

func call[Resp any, PResp message[Resp]](ctx context.Context, c Caller, method string, request proto.Message) (*Resp, error) {
	session, err := c.Session(ctx)
	if err != nil {
		return nil, err
	}
	response, err := rpc.Call[Resp, PResp](ctx, session, method, request)
	if err := c.Outcome(err); err != nil {
		return nil, err
	}
	return response, nil
}

// Stream is the answers to one request. One goroutine at a time may use it.
type Stream[Resp any] struct {
	inner  *rpc.Stream[Resp]
	caller Caller
}

func watch[Resp any, PResp message[Resp]](ctx context.Context, c Caller, method string, request proto.Message) (*Stream[Resp], error) {
	session, err := c.Session(ctx)
	if err != nil {
		return nil, err
	}
	inner, err := rpc.Watch[Resp, PResp](ctx, session, method, request)
	if err != nil {
		return nil, c.Outcome(err)
	}
	return &Stream[Resp]{inner, c}, nil
}

// Receive waits for the next message. It returns io.EOF at the orderly end.
func (s *Stream[Resp]) Receive() (*Resp, error) {
	m, err := s.inner.Receive()
	if err := s.caller.Outcome(err); err != nil {
		return nil, err
	}
	return m, nil
}

// All yields the messages up to the orderly end, or an error as the last. The stream is
// closed then.
func (s *Stream[Resp]) All() iter.Seq2[*Resp, error] {
	return func(yield func(*Resp, error) bool) {
		defer s.Close()
		for {
			m, err := s.Receive()
			if errors.Is(err, io.EOF) || !yield(m, err) || err != nil {
				return
			}
		}
	}
}

// Retired is closed when another session has taken the place of the stream's: one that can
// be resumed is then better asked for there.
func (s *Stream[Resp]) Retired() <-chan struct{} { return s.inner.Retired() }

// Close ends the stream if it has not ended.
func (s *Stream[Resp]) Close() { s.inner.Close() }

// Sending is the messages of one request, and their answer. One goroutine at a time may
// use it.
type Sending[Req, Resp any] struct {
	send   func(*Req) error
	inner  *rpc.Sending[Resp]
	caller Caller
}

func upload[Req, Resp any, PReq message[Req], PResp message[Resp]](ctx context.Context, c Caller,
	method string) (*Sending[Req, Resp], error) {
	session, err := c.Session(ctx)
	if err != nil {
		return nil, err
	}
	inner, err := rpc.Upload[Resp, PResp](ctx, session, method)
	if err != nil {
		return nil, c.Outcome(err)
	}
	return &Sending[Req, Resp]{func(m *Req) error { return inner.Send(PReq(m)) }, inner, c}, nil
}

// Send sends one message. io.EOF means that the Base has answered before it had all:
// Finish returns what.
func (s *Sending[Req, Resp]) Send(m *Req) error {
	if err := s.send(m); err != nil {
		return s.caller.Outcome(err)
	}
	return nil
}

// Finish tells the Base that no more comes, and waits for its answer.
func (s *Sending[Req, Resp]) Finish() (*Resp, error) {
	m, err := s.inner.Finish()
	if err := s.caller.Outcome(err); err != nil {
		return nil, err
	}
	return m, nil
}

// Close gives up unless the Base has answered.
func (s *Sending[Req, Resp]) Close() { s.inner.Close() }
