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

	"google.golang.org/protobuf/proto"

	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/caller"
	"github.com/BitBoxSwiss/bitbox-base/internal/helperclient"
	"github.com/BitBoxSwiss/bitbox-base/internal/ipc"
)

// Users of the tests: numbers that nobody has.
var testUsers = caller.Users{Middleware: 64001, Console: 64002}

const strangerUser = 64003

const socketVariable = "BITBOX_BASE_SYSTEM_TEST_SOCKET"

// relay is a process of another user: it carries requests from its input to the
// socket, and what comes back to its output.
func relay() {
	requests, replies := gob.NewDecoder(os.Stdin), gob.NewEncoder(os.Stdout)
	socket := ipc.Dial(os.Getenv(socketVariable))
	for {
		var request frame
		if err := requests.Decode(&request); err != nil {
			return
		}
		var reply relayed
		for b, err := range socket.Stream(context.Background(), request.Kind, request.Message) {
			if err != nil {
				reply.Err = err.Error()
				break
			}
			reply.Replies = append(reply.Replies, b)
		}
		if err := replies.Encode(reply); err != nil {
			return
		}
	}
}

type frame struct {
	Kind    uint16
	Message []byte
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

func (p *userPort) Stream(_ context.Context, request *systemv1.SystemRequest, receive func(*systemv1.SystemReply) error) error {
	message, err := proto.Marshal(request)
	if err != nil {
		return err
	}
	return p.send(frame{helperclient.Kind(request), message}, receive)
}

// send sends whatever it is given.
func (p *userPort) send(f frame, receive func(*systemv1.SystemReply) error) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	var replies relayed
	if err := errors.Join(p.requests.Encode(f), p.replies.Decode(&replies)); err != nil {
		return fmt.Errorf("relay: %w", err)
	}
	for _, b := range replies.Replies {
		reply := &systemv1.SystemReply{}
		if err := proto.Unmarshal(b, reply); err != nil {
			return err
		}
		if err := receive(reply); err != nil {
			return err
		}
	}
	if replies.Err != "" {
		return errors.New(replies.Err)
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
