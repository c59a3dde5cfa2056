package system

import (
	"context"
	"encoding/gob"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"

	"github.com/BitBoxSwiss/bitbox-base/internal/helperclient"
	"github.com/BitBoxSwiss/bitbox-base/internal/ipc"
)

// Users of the tests: numbers that nobody has.
var testUsers = Users{Middleware: 64001, Console: 64002}

const strangerUser = 64003

const socketVariable = "BITBOX_BASE_SYSTEM_TEST_SOCKET"

// relay is a process of another user: it carries requests from its input to the
// socket, and what comes back to its output.
func relay() {
	requests, replies := gob.NewDecoder(os.Stdin), gob.NewEncoder(os.Stdout)
	port := helperclient.Dial(os.Getenv(socketVariable))
	for {
		var request []byte
		if err := requests.Decode(&request); err != nil {
			return
		}
		var reply relayed
		err := port.Stream(context.Background(), request, func(b []byte) error {
			reply.Replies = append(reply.Replies, b)
			return nil
		})
		if err != nil {
			reply.Err = err.Error()
		}
		if err := replies.Encode(reply); err != nil {
			return
		}
	}
}

type relayed struct {
	Replies [][]byte
	Err     string
}

// userPort is a Port through a relay.
type userPort struct {
	mu       sync.Mutex
	requests *gob.Encoder
	replies  *gob.Decoder
}

// serve opens the helper's socket, as systemd would with its mode.
func (b *base) serve() string {
	b.t.Helper()
	// Others have to reach it; the directories above are the test's.
	for directory := b.directory; directory != os.TempDir() && directory != "/"; directory = filepath.Dir(directory) {
		if err := os.Chmod(directory, 0o755); err != nil {
			b.t.Fatal(err)
		}
	}
	path := filepath.Join(b.directory, "s")
	listener, err := ipc.Listen(path, 0o666)
	if err != nil {
		b.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- b.helper.Serve(ctx, testUsers, listener) }()
	b.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			b.t.Errorf("serve: %v", err)
		}
	})
	return path
}

// user starts a process of a user that speaks to the socket.
func (b *base) user(socket string, uid uint32) helperclient.Client {
	b.t.Helper()
	// The other user has to reach the binary.
	program := filepath.Join(b.directory, "relay")
	if _, err := os.Stat(program); err != nil {
		content, err := os.ReadFile("/proc/self/exe")
		if err != nil {
			b.t.Fatal(err)
		}
		if err := os.WriteFile(program, content, 0o755); err != nil {
			b.t.Fatal(err)
		}
	}
	command := exec.Command(program)
	command.Env = []string{roleVariable + "=relay", socketVariable + "=" + socket}
	command.Dir = "/"
	command.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}, Pdeathsig: syscall.SIGKILL}
	in, errIn := command.StdinPipe()
	out, errOut := command.StdoutPipe()
	command.Stderr = os.Stderr
	if err := errors.Join(errIn, errOut); err != nil {
		b.t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() {
		_ = in.Close()
		_ = command.Wait()
	})
	return helperclient.Client{Port: &userPort{requests: gob.NewEncoder(in), replies: gob.NewDecoder(out)}}
}

func (p *userPort) Call(ctx context.Context, request []byte) (first []byte, err error) {
	err = p.Stream(ctx, request, func(reply []byte) error {
		if first == nil {
			first = reply
		}
		return nil
	})
	return first, err
}

func (p *userPort) Stream(_ context.Context, request []byte, receive func([]byte) error) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	var reply relayed
	if err := errors.Join(p.requests.Encode(request), p.replies.Decode(&reply)); err != nil {
		return fmt.Errorf("relay: %w", err)
	}
	for _, b := range reply.Replies {
		if err := receive(b); err != nil {
			return err
		}
	}
	if reply.Err != "" {
		return errors.New(reply.Err)
	}
	return nil
}

// needRoot skips what only root can play, and says so.
func needRoot(t *testing.T) {
	t.Helper()
	switch {
	case os.Geteuid() == 0:
	case os.Getenv("CI") == "true":
		t.Fatal("this test plays other users, for which it has to be root, and CI must run it")
	default:
		t.Skip("SKIPPED, not passed: this test plays other users, for which it has to be root")
	}
}
