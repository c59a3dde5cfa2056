package ipc

import (
	"context"
	"errors"
	"io"
	"iter"
	"net"
	"os"
	"syscall"
	"time"

	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
)

// DialTime is how long a client waits for a connection, and for its request to be accepted.
const DialTime = 5 * time.Second

// Client sends requests to the server at a path. It holds no connection between
// requests, and is safe for concurrent use.
type Client struct{ path string }

// Dial returns a client for the socket at path. It does not connect yet.
func Dial(path string) *Client { return &Client{path} }

// ErrNotRunning is returned when nobody listens on the socket.
var ErrNotRunning = reason.New("nothing is running there; start it first")

// ErrRefused is returned when the server closed the connection without an answer.
var ErrRefused = reason.New("the other program closed the connection without an answer; is it running as this user?")

// Call sends one request, of kind 0, and returns its first answer. It waits as long as ctx.
func (c *Client) Call(ctx context.Context, request []byte) ([]byte, error) {
	for answer, err := range c.Stream(ctx, 0, request) {
		return answer, err
	}
	return nil, reason.Errorf("call %s: %w", c.path, ErrRefused)
}

// Stream sends one request of a kind and yields its answers as they come. An error is the last
// value it yields; a stream that ends without one is complete.
func (c *Client) Stream(ctx context.Context, kind uint16, request []byte) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		err := c.stream(ctx, kind, request, func(answer []byte) bool { return yield(answer, nil) })
		if err == nil {
			return
		}
		if ctx.Err() != nil {
			err = ctx.Err() // the reason why the connection was closed
		}
		yield(nil, reason.Errorf("call %s: %w", c.path, err))
	}
}

func (c *Client) stream(ctx context.Context, kind uint16, request []byte, yield func([]byte) bool) error {
	address, err := addressOf(c.path)
	if err != nil {
		return err
	}
	conn, err := connect(ctx, address.Name)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
		return ErrNotRunning
	}
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	if err := conn.SetWriteDeadline(time.Now().Add(DialTime)); err != nil {
		return err
	}
	// A server that refuses this user hangs up while we write; only an answer counts.
	if err := writeRequest(conn, kind, request); err != nil && !hungUp(err) {
		return err
	}
	for {
		answer, err := readMessage(conn)
		switch {
		case errors.Is(err, errEndOfStream):
			return nil
		case err == io.EOF || hungUp(err):
			return ErrRefused
		case err != nil:
			return err
		case !yield(answer):
			return nil
		}
	}
}

// connect waits for its turn while the queue of the socket is full. Of a socket that does not block,
// as Go's are, the kernel would refuse it at once, so one user with many connections could keep the
// others out.
func connect(ctx context.Context, path string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, DialTime)
	defer cancel()
	for {
		conn, err := new(net.Dialer).DialContext(ctx, "unix", path)
		if !errors.Is(err, syscall.EAGAIN) {
			return conn, err
		}
		if wait(ctx, queuePause); ctx.Err() != nil {
			return nil, err
		}
	}
}

// queuePause is how long to wait before the next try to get into the queue. A server accepts some
// connections in that time.
const queuePause = time.Millisecond

func hungUp(err error) bool {
	return errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET)
}
