package rpc

import (
	"context"
	"time"

	"google.golang.org/protobuf/proto"
)

// Method is a row of the table of methods.
type Method struct {
	// Name is the full name in the descriptor: "bitbox.base.v1.InfoService.GetInfo".
	Name string
	// Allow refuses a caller by an error, before anything of the request is
	// parsed. Its context is that of the call.
	Allow func(ctx context.Context) error
	// MaxRequest is the largest message of a request in bytes, at most
	// rpc.MaxRequest; 0 means one frame's worth (about 16 KiB).
	MaxRequest int
	// Deadline ends a call that has taken so long; a caller may ask for less, not for
	// more. 0 means no end by itself: for streams.
	Deadline time.Duration
	// GoesOn: the call is not cancelled when its caller cancels, times out or is
	// gone. It needs a Deadline.
	GoesOn bool
	// Class is a limit that several methods share; nil: none but the session's.
	Class *Class
	// Handler is made by Unary, ServerStream or ClientStream.
	Handler Handler
}

// Class limits how many calls of its methods are under way.
type Class struct {
	// PerPeer is how many calls of one Peer; 0: any number.
	PerPeer int
	// Total is how many calls of all; 0: any number.
	Total int
	// Wait: a call above PerPeer waits for its turn. Otherwise, and above Total, it is
	// refused with Full.
	Wait bool
	// Full is the text of the refusal.
	Full string

	total int // guarded by Server.mu
}

// Handler is what answers the calls of one method.
type Handler struct {
	serve func(c *serverCall) (proto.Message, error)
	// stream: the answer is messages and an end without one.
	stream bool
	// upload: the request is messages and a finish, not one message in the open.
	upload bool
}

// Unary is a method with one request and one answer.
func Unary[Req, Resp any, PReq message[Req], PResp message[Resp]](handle func(context.Context, *Req) (*Resp, error)) Handler {
	return Handler{}
}

// ServerStream is a method with one request and a stream of answers. The stream
// ends when handle returns; once the caller is gone Send fails and the context ends.
func ServerStream[Req, Resp any, PReq message[Req], PResp message[Resp]](handle func(context.Context, *Req, *Sender[Resp]) error) Handler {
	return Handler{stream: true}
}

// ClientStream is a method with a stream of requests and one answer.
func ClientStream[Req, Resp any, PReq message[Req], PResp message[Resp]](handle func(context.Context, *Receiver[Req]) (*Resp, error)) Handler {
	return Handler{upload: true}
}

// Sender sends the answers of a ServerStream.
type Sender[Resp any] struct{ c *serverCall }

// Send sends one message. It waits while the caller does not read, at most
// SendTime, and then fails with Exhausted; the handler must return after an error.
func (s *Sender[Resp]) Send(m *Resp) error { return nil }

// Receiver receives the requests of a ClientStream.
type Receiver[Req any] struct{ c *serverCall }

// Receive waits for the next message, at most ReceiveTime (then: TimedOut). It
// returns io.EOF when the caller has finished.
func (r *Receiver[Req]) Receive() (*Req, error) { return nil, nil }
