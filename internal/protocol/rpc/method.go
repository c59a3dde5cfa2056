package rpc

import (
	"context"
	"errors"
	"io"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
)

// Method is a row of the table of methods.
type Method struct {
	// Name is the full name in the descriptor: "bitbox.base.v1.InfoService.GetInfo".
	Name string
	// Allow refuses a caller by an error: first before the call takes a place and memory,
	// and again before each message of its request is parsed. Its context is that of the
	// call.
	Allow func(ctx context.Context) error
	// MaxRequest is the largest message of a request in bytes, at most
	// rpc.MaxRequest; 0 means DefaultRequest.
	MaxRequest int
	// Deadline ends a call that has taken so long; a caller may ask for less, not for
	// more. 0 means no end by itself: for streams.
	Deadline time.Duration
	// GoesOn: once its handler has begun, the call is not cancelled when its caller
	// cancels, times out or is gone. It needs a Deadline.
	GoesOn bool
	// Class is a limit that several methods may share; nil: none but the session's.
	Class *Class
	// Handler is made by Unary, ServerStream or ClientStream.
	Handler Handler
}

// DefaultRequest is the largest message of a request, in bytes, of a method that
// names no other size. Messages in memory are larger than on the wire, so it is small.
const DefaultRequest = 16 << 10

// Class limits how many calls of its methods are under way.
type Class struct {
	// PerPeer is how many calls of one Peer, 1 or more.
	PerPeer int
	// Total is how many calls of all Peers; 0: any number.
	Total int
	// Kept is how many places of Total only those get of whom First says so; First is asked
	// with the context of the call, for each.
	Kept  int
	First func(ctx context.Context) bool
	// Wait: a call above PerPeer waits for its turn. Otherwise, and above Total, it is
	// refused with the code Exhausted and the text Full.
	Wait bool
	// Full is the text of the refusal.
	Full string

	total atomic.Int64
}

// Handler answers the calls of one method.
type Handler struct {
	serve func(c *serverCall) (proto.Message, error)
	// stream: the answer is messages, and an end without one.
	stream bool
	// upload: the request is messages and a finish, not one message.
	upload bool
}

// errNoAnswer is what a handler's nil without an error becomes.
var errNoAnswer = reason.New("the handler returned neither an answer nor an error")

// Unary is a method with one request and one answer.
func Unary[Req, Resp any, PReq message[Req], PResp message[Resp]](handle func(context.Context, *Req) (*Resp, error)) Handler {
	return Handler{serve: func(c *serverCall) (proto.Message, error) {
		request := new(Req)
		if err := c.receive(PReq(request)); err != nil {
			return nil, err
		}
		return answerOf[Resp, PResp](handle(c.ctx, request))
	}}
}

// ServerStream is a method with one request and a stream of answers. The stream
// ends when handle returns. Once the caller is gone, Send fails and the context ends.
func ServerStream[Req, Resp any, PReq message[Req], PResp message[Resp]](handle func(context.Context, *Req, *Sender[Resp]) error) Handler {
	return Handler{stream: true, serve: func(c *serverCall) (proto.Message, error) {
		request := new(Req)
		if err := c.receive(PReq(request)); err != nil {
			return nil, err
		}
		return nil, handle(c.ctx, request, &Sender[Resp]{func(m *Resp) error { return c.send(PResp(m)) }})
	}}
}

// ClientStream is a method with a stream of requests and one answer.
func ClientStream[Req, Resp any, PReq message[Req], PResp message[Resp]](
	handle func(context.Context, *Receiver[Req]) (*Resp, error),
) Handler {
	return Handler{upload: true, serve: func(c *serverCall) (proto.Message, error) {
		return answerOf[Resp, PResp](handle(c.ctx, &Receiver[Req]{func() (*Req, error) {
			request := new(Req)
			return request, c.receive(PReq(request))
		}}))
	}}
}

func answerOf[Resp any, PResp message[Resp]](answer *Resp, err error) (proto.Message, error) {
	if err != nil {
		return nil, err
	}
	if answer == nil {
		return nil, errNoAnswer
	}
	return PResp(answer), nil
}

// Sender sends the answers of a ServerStream. One goroutine at a time may use it.
type Sender[Resp any] struct{ send func(*Resp) error }

// Send sends one message. It waits while the caller does not read, at most
// SendTime, and then fails with Exhausted. After an error the handler must return.
func (s *Sender[Resp]) Send(m *Resp) error { return s.send(m) }

// Receiver receives the requests of a ClientStream. One goroutine at a time may use it.
type Receiver[Req any] struct{ receive func() (*Req, error) }

// Receive waits for the next message, at most ReceiveTime, and then fails with
// TimedOut. It returns io.EOF when the caller has finished.
func (r *Receiver[Req]) Receive() (*Req, error) { return r.receive() }

// receive waits for the next message of the request, and parses it. io.EOF: there is none.
func (c *serverCall) receive(m proto.Message) error {
	there := false
	err := c.session.await(c.ctx, &c.call, c.session.limits.receiveTime, func() bool {
		there = len(c.in.queue) > 0
		return there || c.in.over
	})
	switch {
	case errors.Is(err, errLate):
		return Errorf(TimedOut, "no message came for %s", c.session.limits.receiveTime)
	case err != nil:
		return err
	case !there:
		return io.EOF
	}
	data, err := c.session.takeMessage(&c.call)
	if err != nil {
		return err
	}
	// It may have waited for its turn or its end, and the App may have lost its rights meanwhile.
	if err := c.method.Allow(c.ctx); err != nil {
		return err
	}
	if err := unmarshal(data, m); err != nil {
		return Errorf(Invalid, "the request cannot be parsed")
	}
	return nil
}

// unmarshal parses a message of a peer. Unknown fields cost no memory.
func unmarshal(data []byte, m proto.Message) error {
	return proto.UnmarshalOptions{DiscardUnknown: true, RecursionLimit: 100}.Unmarshal(data, m)
}
