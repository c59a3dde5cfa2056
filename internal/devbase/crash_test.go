package devbase_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/devbase"
	"github.com/BitBoxSwiss/bitbox-base/internal/failpoint"
	"github.com/BitBoxSwiss/bitbox-base/internal/ipc"
	"github.com/BitBoxSwiss/bitbox-base/internal/middleware/admission"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/pairing"
)

// The second process of a crash test is this binary with these variables set.
const (
	crashState = "BITBOX_BASE_CRASH_STATE" // the state directory
	crashAt    = "BITBOX_BASE_CRASH_AT"    // the failpoint at which it kills itself, from 1; 0: none
)

// crashingBase is that process: a Base that ends as by kill -9 or a power cut, just before or
// after a write to disk.
func crashingBase() int {
	at, err := strconv.ParseInt(os.Getenv(crashAt), 10, 64)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	var passed atomic.Int64
	failpoint.Set(func(point string) error {
		if passed.Add(1) == at {
			fmt.Fprintf(os.Stderr, "killed %s\n", point)
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
		return nil
	})
	limits := admission.DefaultLimits()
	limits.Handshake = 1500 * time.Millisecond // an App that is not known waits for so long
	b, err := devbase.Start(devbase.Config{
		StateDir: os.Getenv(crashState),
		Listen:   "127.0.0.1:0",
		Limits:   limits,
		Logger:   slog.New(slog.NewTextHandler(os.Stderr, nil)),
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	fmt.Println(b.Addr())
	_, _ = io.Copy(io.Discard, os.Stdin) // until the test releases it
	if err := b.Stop(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// process is a Base in its own process.
type process struct {
	command *exec.Cmd
	stdin   io.Closer
	address string
	log     *logBuffer
}

// errCrashed is returned when the process ended before it listened.
var errCrashed = errors.New("the Base was killed before it listened")

func startProcess(t *testing.T, stateDir string, at int) (*process, error) {
	t.Helper()
	p := &process{command: exec.Command(os.Args[0]), log: &logBuffer{}}
	p.command.Env = append(os.Environ(), crashState+"="+stateDir, crashAt+"="+strconv.Itoa(at))
	p.command.Stderr = p.log
	stdin, err := p.command.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := p.command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.stdin = stdin
	if err := p.command.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		_ = p.command.Wait()
		if !strings.Contains(p.log.String(), "killed") {
			t.Fatalf("the Base does not start:\n%s", p.log)
		}
		return p, errCrashed
	}
	p.address = strings.TrimSpace(line)
	return p, nil
}

// end lets the process end by itself, or waits for one that was killed.
func (p *process) end() {
	_ = p.stdin.Close()
	_ = p.command.Wait()
}

// killed tells at which point the process was killed, "" if it was not.
func (p *process) killed() string {
	_, point, _ := strings.Cut(p.log.String(), "killed ")
	point, _, _ = strings.Cut(point, "\n")
	return point
}

// pairWith pairs an App with a Base in another process, as far as it gets, and calls once. Any
// error is from the network or the dead Base.
func pairWith(ctx context.Context, stateDir string, a *testApp) error {
	console := pairing.Client{Port: pairing.Over(ipc.Dial(devbase.ControlSocket(stateDir)).Call)}
	if err := console.Accept(ctx, a.number(), basev1.Role_ROLE_UNSPECIFIED); err != nil {
		return fmt.Errorf("accept: %w", err)
	}
	c, commitment, err := a.request()
	if err != nil {
		return fmt.Errorf("request: %w", err)
	}
	defer func() { _ = c.Close() }()
	s, err := a.reveal(c, commitment)
	if err != nil {
		return fmt.Errorf("reveal: %w", err)
	}
	snapshot, err := console.Watch(ctx, 0)
	if err != nil {
		return err
	}
	id, _ := pairing.CeremonyIDOf(snapshot)
	if err := console.Answer(ctx, id, true); err != nil {
		return fmt.Errorf("answer: %w", err)
	}
	if err := s.confirm(); err != nil {
		return fmt.Errorf("confirm: %w", err)
	}
	if err := s.confirmed(); err != nil {
		return fmt.Errorf("await the Base's confirmation: %w", err)
	}
	_, err = a.info(ctx)
	return err
}

// agree starts the Base on the leftovers of a crash, and says what is wrong: the App must either
// work, or be a stranger to a Base with which it can pair again.
func agree(t *testing.T, stateDir string, a *testApp) error {
	t.Helper()
	p, err := startProcess(t, stateDir, 0)
	if err != nil {
		return err
	}
	defer p.end()
	ctx, cancel := context.WithTimeout(t.Context(), testTime)
	defer cancel()
	a.address = p.address
	if !a.pair.Empty() {
		if _, err := a.info(ctx); err == nil {
			return nil
		} else if errors.Is(err, errRevoked) {
			return fmt.Errorf("the App is told that it was revoked, which nobody did")
		}
	}
	again, err := newTestApp(p.address, "again")
	if err != nil {
		t.Fatal(err)
	}
	if err := pairWith(ctx, stateDir, again); err != nil {
		return fmt.Errorf("the App does not work, and to pair again fails: %w", err)
	}
	return nil
}

func TestAKillAtAnyWriteLeavesBothSidesPairedOrReadyToPairAgain(t *testing.T) {
	points := 0
	for at := 1; ; at++ {
		stateDir := filepath.Join(t.TempDir(), "state")
		a, err := newTestApp("", "phone")
		if err != nil {
			t.Fatal(err)
		}
		p, err := startProcess(t, stateDir, at)
		if err == nil {
			a.address = p.address
			ctx, cancel := context.WithTimeout(t.Context(), testTime)
			err = pairWith(ctx, stateDir, a)
			cancel()
		}
		p.end()
		if p.killed() == "" {
			if err != nil {
				t.Fatalf("without a kill: %v\n%s", err, p.log)
			}
			break
		}
		points++
		if err := agree(t, stateDir, a); err != nil {
			t.Errorf("killed %s: %v", p.killed(), err)
		}
	}
	if points < 12 {
		t.Errorf("only %d moments were tried: something is written without a failpoint", points)
	}

	// This state must never be left: the authority has an owner's key, but no App is paired with
	// it.
	stateDir := filepath.Join(t.TempDir(), "state")
	p, err := startProcess(t, stateDir, 0)
	if err != nil {
		t.Fatal(err)
	}
	a, err := newTestApp(p.address, "phone")
	if err != nil {
		t.Fatal(err)
	}
	if err := pairWith(t.Context(), stateDir, a); err != nil {
		t.Fatal(err)
	}
	p.end()
	for _, file := range []string{"middleware.db", "middleware.db.lock"} {
		if err := os.Remove(filepath.Join(stateDir, file)); err != nil {
			t.Fatal(err)
		}
	}
	if err := agree(t, stateDir, a); err == nil {
		t.Error("an owner's key without an App was not noticed; this test proves nothing")
	}
}

func TestASecondBaseOnTheSameStateOrPortIsRefusedInASentence(t *testing.T) {
	b := startBase(t, nil)
	config := b.config
	if _, err := devbase.Start(config); err == nil || !strings.Contains(err.Error(), "end that program first") ||
		strings.Contains(err.Error(), "\n") {
		t.Errorf("on the same state: %v", err)
	}
	config.StateDir, config.Listen = filepath.Join(t.TempDir(), "other"), b.Addr().String()
	if _, err := devbase.Start(config); err == nil || !strings.Contains(err.Error(), "choose another port") ||
		strings.Contains(err.Error(), "\n") {
		t.Errorf("on the same port: %v", err)
	}
	a := b.pair("phone", basev1.Role_ROLE_OWNER)
	if _, err := a.info(t.Context()); err != nil {
		t.Errorf("the first one suffers: %v", err)
	}
}

func TestWithoutATerminalTheLogIsTheDisplay(t *testing.T) {
	b := startBase(t, nil)
	s := b.show(b.newApp("phone"), basev1.Role_ROLE_UNSPECIFIED)
	eventually(t, "the code is in the log", func() bool { return len(b.log.lines(s.code)) > 0 })
}
