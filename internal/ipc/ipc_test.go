package ipc

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// patience is how long a test waits for something that is immediate on an idle machine.
const patience = 3 * time.Minute

// serve runs a server until the test ends, and returns the path of its socket.
func serve(t *testing.T, server *Server) (path string, stop func()) {
	t.Helper()
	dir, err := os.MkdirTemp("", "ipc") // t.TempDir is too long for a socket's path
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	path = filepath.Join(dir, "socket")
	listener, err := Listen(path, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(ctx, listener) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("the server ended: %v", err)
		}
	})
	t.Cleanup(stop)
	return path, stop
}

func echo(_ context.Context, _ Peer, request *Request, send func([]byte) error) error {
	message, err := request.Read()
	if err != nil {
		return err
	}
	return send(message)
}

func TestAnswerComesBack(t *testing.T) {
	var peer Peer
	path, _ := serve(t, &Server{Handler: func(ctx context.Context, p Peer, request *Request, send func([]byte) error) error {
		peer = p
		return echo(ctx, p, request, send)
	}})
	for _, size := range []int{0, 1, MaxMessageSize} {
		request := bytes.Repeat([]byte{7}, size)
		answer, err := Dial(path).Call(t.Context(), request)
		if err != nil || !bytes.Equal(answer, request) {
			t.Fatalf("%d bytes: %d came back, %v", size, len(answer), err)
		}
	}
	if int(peer.UID) != os.Getuid() || int(peer.GID) != os.Getgid() || int(peer.PID) != os.Getpid() {
		t.Fatalf("the peer is %+v", peer)
	}
	if _, err := Dial(path).Call(t.Context(), make([]byte, MaxMessageSize+1)); err == nil {
		t.Fatal("a request that is too long was sent")
	}
}

func TestACompleteStreamDiffersFromABrokenOne(t *testing.T) {
	var fail atomic.Bool
	path, _ := serve(t, &Server{Handler: func(_ context.Context, _ Peer, request *Request, send func([]byte) error) error {
		if _, err := request.Read(); err != nil {
			return err
		}
		for i := range 3 {
			if err := send([]byte{byte(i)}); err != nil {
				return err
			}
		}
		if fail.Load() {
			return errors.New("in the middle")
		}
		return nil
	}})
	for _, broken := range []bool{false, true} {
		fail.Store(broken)
		var got []byte
		var last error
		for answer, err := range Dial(path).Stream(t.Context(), 0, nil) {
			got, last = append(got, answer...), err
		}
		if !bytes.Equal(got, []byte{0, 1, 2}) || errors.Is(last, ErrRefused) != broken {
			t.Errorf("broken %v: %v, %v", broken, got, last)
		}
	}
}

func TestAnUnauthorizedPeerIsNotRead(t *testing.T) {
	refused := make(chan error, 10)
	path, _ := serve(t, &Server{
		Handler: func(context.Context, Peer, *Request, func([]byte) error) error {
			t.Error("the handler ran")
			return nil
		},
		Authorize: func(Peer) error { return errors.New("not you") },
		Refused:   func(_ Peer, err error) { refused <- err },
	})
	for _, size := range []int{0, MaxMessageSize} {
		if _, err := Dial(path).Call(t.Context(), make([]byte, size)); !errors.Is(err, ErrRefused) {
			t.Fatalf("%d bytes: %v", size, err)
		}
		if err := <-refused; err == nil || err.Error() != "not you" {
			t.Fatal(err)
		}
	}
}

// A handler that refuses a request by its kind or size reads no more of it.
func TestARequestIsRefusedByItsHeader(t *testing.T) {
	path, _ := serve(t, &Server{Handler: func(_ context.Context, _ Peer, request *Request, send func([]byte) error) error {
		return send(fmt.Appendf(nil, "%d: %d", request.Kind, request.Size))
	}})
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	// Only the header is ever sent.
	if err := errors.Join(conn.SetDeadline(time.Now().Add(patience)), writeHeader(conn, 7, MaxMessageSize)); err != nil {
		t.Fatal(err)
	}
	if answer, err := readMessage(conn); err != nil || string(answer) != fmt.Sprintf("7: %d", MaxMessageSize) {
		t.Fatalf("%q, %v", answer, err)
	}
	// A client gets the answer while it is still writing.
	for answer, err := range Dial(path).Stream(t.Context(), 9, make([]byte, MaxMessageSize)) {
		if err != nil || string(answer) != fmt.Sprintf("9: %d", MaxMessageSize) {
			t.Errorf("%q, %v", answer, err)
		}
	}
}

func writeHeader(w io.Writer, kind uint16, size int) error {
	_, err := w.Write(binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint32(nil, uint32(size)), kind))
	return err
}

func TestSameUser(t *testing.T) {
	for uid, want := range map[uint32]bool{0: true, uint32(os.Geteuid()): true, 54321: false} {
		if got := SameUser(Peer{UID: uid}) == nil; got != want {
			t.Errorf("user %d: %v", uid, got)
		}
	}
}

// A server does not wait for a message that is too long, and does not allocate memory for it.
func TestBadRequestsAreRefusedAtOnce(t *testing.T) {
	refused := make(chan error, 10)
	path, _ := serve(t, &Server{Handler: echo, Refused: func(_ Peer, err error) { refused <- err }})
	for name, request := range map[string][]byte{
		"too long":      append(binary.BigEndian.AppendUint32(nil, MaxMessageSize+1), 0, 7),
		"end of stream": append(binary.BigEndian.AppendUint32(nil, endOfStream), 0, 7),
		"cut off":       append(binary.BigEndian.AppendUint32(nil, 10), 0, 7, 1, 2, 3),
		"half a header": {0, 0, 0, 1, 0},
		"nothing":       {},
	} {
		conn, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Write(request); err != nil {
			t.Fatal(err)
		}
		if err := conn.(*net.UnixConn).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if err := conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		if answer, err := io.ReadAll(conn); len(answer) != 0 || err != nil && !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%s: %x came back, %v", name, answer, err)
		}
		if err := <-refused; err == nil {
			t.Errorf("%s: no error", name)
		}
		_ = conn.Close()
	}
}

// One user takes all the places that it may have. Another user could still connect; this one can
// when RequestTime is over.
func TestSilentPeersLoseTheirPlaces(t *testing.T) {
	t.Parallel()
	refused := make(chan error, MaxConnections)
	path, _ := serve(t, &Server{Handler: echo, Refused: func(_ Peer, err error) { refused <- err }})
	for range MaxPerUser {
		conn, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close() }()
	}
	// Connections are accepted in order, so this one finds no place.
	if _, err := Dial(path).Call(t.Context(), nil); !errors.Is(err, ErrRefused) {
		t.Fatalf("one connection more than a user may have: %v", err)
	}
	if err := <-refused; !strings.Contains(err.Error(), "connections already") {
		t.Fatal(err)
	}
	for range min(MaxPerUser, MaxTold) { // more are not told
		if err := <-refused; !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatal(err)
		}
	}
	for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		if _, err := Dial(path).Call(t.Context(), nil); err == nil {
			return
		} else if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

// This test needs root, in order to be another user.
func TestOneUserLeavesPlacesForOthers(t *testing.T) {
	if os.Geteuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("this test needs root")
		}
		t.Skip("this test needs root, in order to be another user")
	}
	answer := make(chan struct{})
	path, _ := serve(t, &Server{
		Authorize: func(Peer) error { return nil },
		Handler: func(ctx context.Context, p Peer, request *Request, send func([]byte) error) error {
			if p.UID == 0 {
				return echo(ctx, p, request, send)
			}
			select {
			case <-answer:
			case <-ctx.Done():
			}
			return send(nil)
		},
	})
	if err := errors.Join(os.Chmod(path, 0o666), os.Chmod(filepath.Dir(path), 0o755)); err != nil {
		t.Fatal(err)
	}
	// The credentials are those of the connecting thread. The thread is not reused.
	connected := make(chan error)
	go func() {
		runtime.LockOSThread()
		if _, _, errno := syscall.RawSyscall(syscall.SYS_SETRESUID, ^uintptr(0), 65534, ^uintptr(0)); errno != 0 {
			connected <- errno
			return
		}
		for range MaxConnections {
			conn, err := net.Dial("unix", path)
			if err != nil {
				connected <- err
				return
			}
			t.Cleanup(func() { _ = conn.Close() })
			if err := writeRequest(conn, 0, nil); err != nil && !hungUp(err) {
				connected <- err
				return
			}
		}
		connected <- nil
	}()
	if err := <-connected; err != nil {
		t.Fatal(err)
	}
	if _, err := Dial(path).Call(t.Context(), nil); err != nil {
		t.Fatalf("root was kept out: %v", err)
	}
	close(answer)
}

// ask sends a request, and leaves the connection open to the end of the test.
func ask(t *testing.T, path string) {
	t.Helper()
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := writeRequest(conn, 0, nil); err != nil {
		t.Fatal(err)
	}
}

// The attack: one user has all its places, and asks for more without a pause. The server does not
// spend its time on refusing: each such connection takes RefusalTime, and few are logged.
func TestARefusedUserIsSlowedDown(t *testing.T) {
	t.Parallel()
	var refused atomic.Int64
	answer := make(chan struct{})
	path, _ := serve(t, &Server{Refused: func(Peer, error) { refused.Add(1) },
		Handler: func(ctx context.Context, p Peer, request *Request, send func([]byte) error) error {
			select {
			case <-answer:
			case <-ctx.Done():
			}
			return nil
		}})
	for range MaxPerUser {
		ask(t, path)
	}
	const callers = 32
	var asked atomic.Int64
	began := time.Now()
	var calling sync.WaitGroup
	for range callers {
		calling.Go(func() {
			for time.Since(began) < 2*RefusalTime {
				if _, err := Dial(path).Call(t.Context(), nil); !errors.Is(err, ErrRefused) {
					t.Errorf("a connection beyond those that a user may have: %v", err)
				}
				asked.Add(1)
			}
		})
	}
	calling.Wait()
	times := int64(time.Since(began)/RefusalTime) + 1
	if most := callers * times; asked.Load() > most || refused.Load() > MaxTold*times {
		t.Errorf("%d connections were refused, and not %d, and %d logged", asked.Load(), most, refused.Load())
	}
	close(answer)
}

// The attack: so many connections wait to be accepted that the kernel takes no more. A call waits for
// its turn then.
func TestACallWaitsWhileTheQueueIsFull(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp("", "ipc")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	path := filepath.Join(dir, "socket")
	listener, err := Listen(path, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := listener.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var shortened error
	if err := errors.Join(raw.Control(func(fd uintptr) { shortened = syscall.Listen(int(fd), 1) }), shortened); err != nil {
		t.Fatal(err)
	}
	for err == nil {
		var conn net.Conn
		if conn, err = net.Dial("unix", path); err == nil {
			defer func() { _ = conn.Close() }()
		}
	}
	if !errors.Is(err, syscall.EAGAIN) {
		t.Fatalf("the queue is not full: %v; this attack proves nothing", err)
	}
	bounded, cancel := context.WithTimeout(t.Context(), 10*queuePause)
	defer cancel()
	if _, err := Dial(path).Call(bounded, nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a call does not wait: %v", err)
	}
	serving, end := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- Serve(serving, listener, echo) }()
	if _, err := Dial(path).Call(t.Context(), []byte("x")); err != nil {
		t.Errorf("a call whose turn has come: %v", err)
	}
	end()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// The attack: a user connects and hangs up without a request, again and again. Each is a refusal, and
// many thousands a second in the log would have journald drop what else the server logs.
func TestAUserWhoHangsUpDoesNotFillTheLog(t *testing.T) {
	t.Parallel()
	var refused atomic.Int64
	path, stop := serve(t, &Server{Handler: echo, Refused: func(Peer, error) { refused.Add(1) }})
	began := time.Now()
	const calls = 100 * MaxTold
	for range calls {
		conn, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.Close()
	}
	// The server accepts in order, so it has accepted all of them when it answers.
	for {
		if _, err := Dial(path).Call(t.Context(), nil); err == nil {
			break
		} else if !errors.Is(err, ErrRefused) {
			t.Fatal(err)
		}
	}
	stop()
	most := MaxTold * (int64(time.Since(began)/RefusalTime) + 1)
	if n := refused.Load(); n == 0 || n > most {
		t.Errorf("of %d connections that ended without a request %d were logged, and not %d", calls, n, most)
	}
}

func TestPeerThatHangsUpCancelsItsRequest(t *testing.T) {
	began, ended := make(chan struct{}), make(chan struct{})
	path, _ := serve(t, &Server{Handler: func(ctx context.Context, _ Peer, request *Request, _ func([]byte) error) error {
		if _, err := request.Read(); err != nil {
			return err
		}
		close(began)
		<-ctx.Done()
		close(ended)
		return ctx.Err()
	}})
	ctx, cancel := context.WithCancel(t.Context())
	called := make(chan error)
	go func() {
		_, err := Dial(path).Call(ctx, nil)
		called <- err
	}()
	<-began
	cancel()
	if err := <-called; !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	<-ended
}

func TestAPeerThatReadsNoAnswerIsDropped(t *testing.T) {
	t.Parallel()
	ended := make(chan error, 1)
	path, _ := serve(t, &Server{Handler: func(_ context.Context, _ Peer, request *Request, send func([]byte) error) error {
		if _, err := request.Read(); err != nil {
			return err
		}
		for {
			if err := send(make([]byte, MaxMessageSize)); err != nil {
				ended <- err
				return err
			}
		}
	}})
	ask(t, path)
	select {
	case err := <-ended:
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatal(err)
		}
	case <-time.After(AnswerTime + patience):
		t.Fatal("the server still tries")
	}
}

func TestStoppingEndsRunningRequests(t *testing.T) {
	began := make(chan struct{})
	path, stop := serve(t, &Server{Handler: func(ctx context.Context, _ Peer, request *Request, _ func([]byte) error) error {
		if _, err := request.Read(); err != nil {
			return err
		}
		close(began)
		<-ctx.Done()
		return ctx.Err()
	}})
	called := make(chan error)
	go func() {
		_, err := Dial(path).Call(t.Context(), nil)
		called <- err
	}()
	<-began
	stop()
	if err := <-called; !errors.Is(err, ErrRefused) {
		t.Fatal(err)
	}
	if _, err := Dial(path).Call(t.Context(), nil); !errors.Is(err, ErrNotRunning) {
		t.Fatal(err)
	}
}

func TestOnlyTheSocketOfAKilledProgramIsReplaced(t *testing.T) {
	path, stop := serve(t, &Server{Handler: echo})
	if _, err := Listen(path, 0o600); err == nil || !strings.Contains(err.Error(), "another program") {
		t.Fatalf("beside a running one: %v", err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("%v, %v", info.Mode(), err)
	}
	stop()
	// SIGKILL leaves a socket without a listener.
	left, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	left.SetUnlinkOnClose(false)
	if err := left.Close(); err != nil {
		t.Fatal(err)
	}
	listener, err := Listen(path, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	// A file is not ours to remove.
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(path, 0o600); err == nil {
		t.Fatal("a file was replaced")
	}
	if _, err := Listen("/"+strings.Repeat("x", 107), 0o600); err == nil || !strings.Contains(err.Error(), "107") {
		t.Fatalf("a long path: %v", err)
	}
	if _, err := Dial("/"+strings.Repeat("x", 107)).Call(t.Context(), nil); err == nil || !strings.Contains(err.Error(), "107") {
		t.Fatalf("a long path: %v", err)
	}
}

func TestManyCallersLeaveNoGoroutineBehind(t *testing.T) {
	path, _ := serve(t, &Server{Handler: echo})
	client := Dial(path)
	before := runtime.NumGoroutine()
	var callers sync.WaitGroup
	for i := range 8 {
		callers.Go(func() {
			for j := range 100 {
				request := fmt.Appendf(nil, "%d %d", i, j)
				if answer, err := client.Call(t.Context(), request); err != nil || !bytes.Equal(answer, request) {
					t.Errorf("%q, %v", answer, err)
					return
				}
			}
		})
	}
	callers.Wait()
	for deadline := time.Now().Add(patience); runtime.NumGoroutine() > before+1; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d goroutines, %d before", runtime.NumGoroutine(), before)
		}
	}
}

// The parser returns what was written, and accepts nothing else.
func FuzzReadMessage(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{0, 0, 0, 0})
	f.Add([]byte{0, 0, 0, 2, 'a', 'b', 'c'})
	f.Add([]byte{0, 0x10, 0, 1})
	f.Add([]byte{0xFF, 0xFF, 0xFF, 0xFF})
	f.Fuzz(func(t *testing.T, b []byte) {
		message, err := readMessage(bytes.NewReader(b))
		if err != nil {
			return
		}
		var again bytes.Buffer
		if err := writeMessage(&again, message); err != nil || !bytes.HasPrefix(b, again.Bytes()) {
			t.Fatalf("%x was read from %x: %v", message, b, err)
		}
	})
}
