package ipc

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
)

// Peer is the process at the other end of a socket, as the kernel identifies it.
type Peer struct {
	UID, GID uint32
	PID      int32
}

// Request is one request, of which only the header has been read.
type Request struct {
	// Kind tells what the request is about, before it is read.
	Kind uint16
	// Size is the length of the message in bytes.
	Size int
	read func() ([]byte, error)
}

// Read returns the message. It is called at most once; if it is not called, the message is never
// read.
func (r *Request) Read() ([]byte, error) { return r.read() }

// Handler answers one request through send, once or more, and returns. An error that it returns
// ends the connection without another message; a refusal is an answer. ctx ends when the peer
// hangs up or the server stops.
type Handler func(ctx context.Context, peer Peer, request *Request, send func(answer []byte) error) error

// Server serves a unix socket.
type Server struct {
	// Handler answers requests.
	Handler Handler
	// Authorize refuses peers by an error; nil means SameUser.
	Authorize func(Peer) error
	// Refused is called for connections that ended without an answer, for the log: for MaxTold of
	// one user in each RefusalTime. It may be nil, and must not block.
	Refused func(Peer, error)

	told told
}

// SameUser accepts peers that run as the user of this process, and root.
func SameUser(peer Peer) error {
	if peer.UID == 0 || int(peer.UID) == os.Geteuid() {
		return nil
	}
	return reason.Errorf("user %d may not use this socket", peer.UID)
}

// Serve serves peers that SameUser accepts. See Server.Serve.
func Serve(ctx context.Context, listener *net.UnixListener, handler Handler) error {
	return (&Server{Handler: handler}).Serve(ctx, listener)
}

// Serve accepts connections until ctx ends; then it closes the listener, cancels the running
// requests, waits for them and returns nil. Any other end is an error.
func (s *Server) Serve(ctx context.Context, listener *net.UnixListener) error {
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	// The second Close waits for the first: the socket is gone when Serve returns.
	defer func() { _ = listener.Close() }()
	defer context.AfterFunc(ctx, func() { _ = listener.Close() })()
	places, perUser := make(chan struct{}, MaxConnections), &users{most: MaxPerUser, count: map[uint32]int{}}
	refusing := &users{most: MaxRefusing, count: map[uint32]int{}}
	for {
		select {
		case places <- struct{}{}:
		case <-ctx.Done():
			return nil
		}
		conn, err := listener.AcceptUnix()
		switch {
		case ctx.Err() != nil:
			if err == nil {
				_ = conn.Close()
			}
			return nil
		case isTemporary(err):
			<-places
			wait(ctx, acceptPause)
			continue
		case err != nil:
			return reason.Errorf("accept on %s: %w", listener.Addr(), err)
		}
		peer, err := s.admit(conn, perUser)
		if err != nil {
			<-places
			if errors.Is(err, errTooMany) && refusing.enter(peer.UID) {
				running.Go(func() {
					defer refusing.leave(peer.UID)
					defer func() { _ = conn.Close() }()
					wait(ctx, RefusalTime)
				})
			} else {
				_ = conn.Close()
			}
			s.refuse(peer, err)
			continue
		}
		running.Go(func() {
			defer func() { <-places }()
			defer perUser.leave(peer.UID)
			defer func() { _ = conn.Close() }()
			if err := s.answer(ctx, conn, peer); err != nil && ctx.Err() == nil {
				s.refuse(peer, err)
			}
		})
	}
}

func (s *Server) refuse(peer Peer, err error) {
	if s.Refused != nil && s.told.more(peer.UID, time.Now()) {
		s.Refused(peer, err)
	}
}

// admit decides by the peer's identity, and gives it one of its user's places.
func (s *Server) admit(conn *net.UnixConn, perUser *users) (Peer, error) {
	peer, err := peerOf(conn)
	if err != nil {
		return peer, err
	}
	authorize := s.Authorize
	if authorize == nil {
		authorize = SameUser
	}
	if err := authorize(peer); err != nil {
		return peer, err
	}
	if !perUser.enter(peer.UID) {
		return peer, reason.Errorf("user %d has %d %w", peer.UID, MaxPerUser, errTooMany)
	}
	return peer, nil
}

var errTooMany = reason.New("connections already")

// users counts connections by user.
type users struct {
	most  int // of one user
	mu    sync.Mutex
	count map[uint32]int
}

// enter counts a connection, unless its user has the most already.
func (u *users) enter(uid uint32) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.count[uid] >= u.most {
		return false
	}
	u.count[uid]++
	return true
}

func (u *users) leave(uid uint32) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.count[uid]--; u.count[uid] == 0 {
		delete(u.count, uid)
	}
}

// told counts refusals that were told, by user. A user who hangs up again and again must not drown
// what else a server logs: journald drops lines of a service that logs too much.
type told struct {
	mu    sync.Mutex
	since time.Time
	count map[uint32]int // from since on
}

// more tells whether one more refusal of a user is told.
func (t *told) more(uid uint32, now time.Time) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if now.Sub(t.since) >= RefusalTime {
		t.since, t.count = now, map[uint32]int{}
	}
	t.count[uid]++
	return t.count[uid] <= MaxTold
}

// answer runs one connection.
func (s *Server) answer(ctx context.Context, conn *net.UnixConn, peer Peer) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	if err := conn.SetReadDeadline(time.Now().Add(RequestTime)); err != nil {
		return err
	}
	kind, size, err := readRequest(conn)
	if err != nil {
		return reason.Errorf("read a request: %w", err)
	}
	request := &Request{Kind: kind, Size: size, read: func() ([]byte, error) {
		// The peer is not to blame for its own waiting time.
		if err := conn.SetReadDeadline(time.Now().Add(RequestTime)); err != nil {
			return nil, err
		}
		message, err := readBody(conn, size)
		if err != nil {
			return nil, reason.Errorf("read a request: %w", err)
		}
		if err := conn.SetReadDeadline(time.Time{}); err != nil {
			return nil, err
		}
		go func() {
			// The peer sends nothing more; when this returns, it has hung up.
			defer cancel()
			_, _ = conn.Read(make([]byte, 1))
		}()
		return message, nil
	}}
	err = s.Handler(ctx, peer, request, func(answer []byte) error {
		if err := conn.SetWriteDeadline(time.Now().Add(AnswerTime)); err != nil {
			return err
		}
		return writeMessage(conn, answer)
	})
	if err != nil {
		return reason.Errorf("answer a request: %w", err)
	}
	if err := conn.SetWriteDeadline(time.Now().Add(AnswerTime)); err != nil {
		return err
	}
	// A peer that wanted only one answer may have hung up by now.
	_ = writeEndOfStream(conn)
	return nil
}

// Listen makes a unix socket at path, with a mode such as 0600. It replaces a socket that a
// killed process left behind, but not one that still answers.
func Listen(path string, mode fs.FileMode) (*net.UnixListener, error) {
	address, err := addressOf(path)
	if err != nil {
		return nil, reason.Errorf("listen on %s: %w", path, err)
	}
	conn, err := net.DialUnix("unix", nil, address)
	if err == nil {
		_ = conn.Close()
		return nil, reason.Errorf("listen on %s: another program answers there; end it first", path)
	}
	info, missing := os.Lstat(path)
	if errors.Is(err, syscall.ECONNREFUSED) && missing == nil && info.Mode().Type() == fs.ModeSocket {
		if err := os.Remove(path); err != nil {
			return nil, reason.Errorf("listen on %s: remove the socket that an ended program left: %w", path, err)
		}
	}
	listener, err := net.ListenUnix("unix", address)
	if err != nil {
		return nil, reason.Errorf("listen on %s: %w", path, err)
	}
	if err := os.Chmod(path, mode); err != nil {
		return nil, reason.Errorf("listen on %s: %w", path, errors.Join(err, listener.Close()))
	}
	return listener, nil
}

// addressOf refuses a path that does not fit into a sockaddr_un: 108 bytes with
// the zero byte at its end (unix(7)).
func addressOf(path string) (*net.UnixAddr, error) {
	if len(path) > 107 {
		return nil, reason.Errorf("the path of a socket has at most 107 bytes, not %d; choose a shorter directory", len(path))
	}
	return &net.UnixAddr{Name: path, Net: "unix"}, nil
}

// acceptPause is how long to wait when the system is short of a resource.
const acceptPause = 50 * time.Millisecond

func wait(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
