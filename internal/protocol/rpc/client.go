package rpc

import (
	"context"

	"google.golang.org/protobuf/proto"
)

// Session is the App's end of one connection.
type Session struct{}

// NewSession starts a session on a connection that nothing was written to, and
// owns the connection from then on. Close must follow.
func NewSession(conn Conn) *Session { return &Session{} }

// Close ends the connection. Calls that are under way fail with Unavailable.
func (s *Session) Close() error { return nil }

// Done is closed when the session has ended, for whatever reason.
func (s *Session) Done() <-chan struct{} { return nil }

// Err returns why the session ended; nil while it has not.
func (s *Session) Err() error { return nil }

// Calls returns how many calls are under way.
func (s *Session) Calls() int { return 0 }

// Call makes a call with one request and one answer. Errors are *Error. When ctx
// ends the Base is told.
func Call[Resp any, PResp message[Resp]](ctx context.Context, s *Session, method string, request proto.Message) (*Resp, error) {
	return nil, nil
}

// Watch makes a call with one request and a stream of answers. It does not wait
// for the Base. Close must follow, or ctx must end.
func Watch[Resp any, PResp message[Resp]](ctx context.Context, s *Session, method string, request proto.Message) (*Stream[Resp], error) {
	return nil, nil
}

// Stream is the answers of Watch. One goroutine at a time may use it.
type Stream[Resp any] struct{}

// Receive waits for the next message. It returns io.EOF at the orderly end.
func (s *Stream[Resp]) Receive() (*Resp, error) { return nil, nil }

// Close cancels the call unless it has ended.
func (s *Stream[Resp]) Close() {}

// Upload makes a call with a stream of requests and one answer. Close must follow,
// or ctx must end.
func Upload[Resp any, PResp message[Resp]](ctx context.Context, s *Session, method string) (*Sending[Resp], error) {
	return nil, nil
}

// Sending is the requests of Upload. One goroutine at a time may use it.
type Sending[Resp any] struct{}

// Send sends one message. io.EOF means that the Base has answered before it had
// all: Finish says what.
func (s *Sending[Resp]) Send(m proto.Message) error { return nil }

// Finish tells the Base that no more comes, and waits for its answer.
func (s *Sending[Resp]) Finish() (*Resp, error) { return nil, nil }

// Close cancels the call unless it has ended.
func (s *Sending[Resp]) Close() {}
