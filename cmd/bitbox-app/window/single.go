package window

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/window/peer"
	"github.com/BitBoxSwiss/bitbox-base/internal/state"
)

const (
	// lockFile is held by the process that serves the window, and socketFile is where it answers a
	// second start. Both are in the App's own folder, which only its user can enter.
	lockFile   = "window.lock"
	socketFile = "window.sock"
	// longestPath is what every system takes for the path of a unix socket, in bytes: 104 on macOS
	// with the final 0 (sys/un.h).
	longestPath = 103
	// askTime bounds one question to the running process, and joinTime all tries: it may be just
	// starting, or just ending.
	askTime  = 2 * time.Second
	joinTime = 10 * time.Second
	// longestAnswer bounds question and answer, in bytes.
	longestAnswer = 1 << 10
)

// invitation is how a browser gets in.
type invitation struct {
	// Address is that of the window, such as http://127.0.0.1:45678.
	Address string `json:"address"`
	// Ticket is for a browser that is started, Code for a person who types; one of them is "".
	Ticket string `json:"ticket,omitempty"`
	Code   string `json:"code,omitempty"`
}

// enterAt is the address that a browser is started with.
func (i invitation) enterAt() string { return i.Address + "/enter#" + i.Ticket }

// question is what a second start asks.
type question struct {
	// Code: a code is wanted, and not a ticket.
	Code bool `json:"code"`
}

// claim makes this process the one that serves the window, or returns the invitation of the process
// that does. The claim is released by the function that it returns.
func claim(ctx context.Context, dir string, wanted question) (*net.UnixListener, func(), *invitation, error) {
	path := filepath.Join(dir, socketFile)
	if len(path) > longestPath {
		return nil, nil, nil, fmt.Errorf("the path %s is too long for a socket, by %d bytes; choose a shorter folder with --dir", path,
			len(path)-longestPath)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, nil, nil, fmt.Errorf("make the App's folder: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, joinTime)
	defer cancel()
	for {
		held, err := state.OpenLocked(filepath.Join(dir, lockFile), 0)
		if err == nil {
			listener, err := listenAt(path)
			if err != nil {
				return nil, nil, nil, errors.Join(err, held.Close())
			}
			return listener, func() { _, _ = listener.Close(), held.Close() }, nil, nil
		}
		if !errors.Is(err, state.ErrInUse) {
			return nil, nil, nil, fmt.Errorf("lock the App's window: %w", err)
		}
		found, err := askRunning(ctx, path, wanted)
		if err == nil {
			return nil, nil, &found, nil
		}
		select {
		case <-ctx.Done():
			return nil, nil, nil, fmt.Errorf("a window of this App is open, but its process does not answer (%w); end that process", err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// listenAt listens on the socket; the caller holds the lock, so one that exists is left over.
func listenAt(path string) (*net.UnixListener, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("remove the socket that another window has left: %w", err)
	}
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("listen for further starts: %w", err)
	}
	return listener, nil
}

// askRunning asks the process that serves the window for an invitation.
func askRunning(ctx context.Context, path string, wanted question) (answer invitation, err error) {
	dialer := net.Dialer{Timeout: askTime}
	dialled, err := dialer.DialContext(ctx, "unix", path)
	if err != nil {
		return answer, err
	}
	conn := dialled.(*net.UnixConn)
	defer func() { _ = conn.Close() }()
	if peer.OfSocket(conn) == peer.Other {
		return answer, errors.New("another user listens there")
	}
	if err := conn.SetDeadline(time.Now().Add(askTime)); err != nil {
		return answer, err
	}
	if err := json.NewEncoder(conn).Encode(wanted); err != nil {
		return answer, err
	}
	if err := json.NewDecoder(io.LimitReader(conn, longestAnswer)).Decode(&answer); err != nil {
		return answer, err
	}
	return answer, nil
}

// serveStarts answers further starts, one after the other, until the listener is closed.
func serveStarts(listener *net.UnixListener, invite func(question) (invitation, error)) {
	for {
		conn, err := listener.AcceptUnix()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			time.Sleep(50 * time.Millisecond) // descriptors are short; others may give some back
			continue
		}
		answerStart(conn, invite)
	}
}

// answerStart gives an invitation to a process of the same user.
func answerStart(conn *net.UnixConn, invite func(question) (invitation, error)) {
	defer func() { _ = conn.Close() }()
	if peer.OfSocket(conn) != peer.Own || conn.SetDeadline(time.Now().Add(askTime)) != nil {
		return
	}
	var wanted question
	if json.NewDecoder(io.LimitReader(conn, longestAnswer)).Decode(&wanted) != nil {
		return
	}
	if answer, err := invite(wanted); err == nil {
		_ = json.NewEncoder(conn).Encode(answer) // a caller that has left needs none
	}
}
