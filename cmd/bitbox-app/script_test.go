//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/devbase"
	"github.com/BitBoxSwiss/bitbox-base/internal/middleware/admission"
	"github.com/BitBoxSwiss/bitbox-base/internal/node"
	"github.com/BitBoxSwiss/bitbox-base/internal/nodeclient"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/pairing"
	"github.com/BitBoxSwiss/bitbox-base/internal/testbed/nodetest"
)

// scriptTime bounds each wait of a script. Only a failing script reaches it.
const scriptTime = 3 * time.Minute

type stageKey struct{}

// stage is what a script has besides the command: Bases, by name.
type stage struct {
	bases map[string]*devbase.Base
	state string
	node  string // where a bitbox-node answers
}

// serveNode has btcd on regtest, with two blocks, watched at a socket.
func serveNode(t *testing.T) (socket string) {
	t.Helper()
	b := nodetest.StartBtcd(t, "regtest")
	b.Generate(2)
	dir, err := os.MkdirTemp("", "node") // a short path, for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	socket = filepath.Join(dir, "socket")
	nodetest.Serve(t, socket, node.Config{Node: b.Node(), Interval: nodetest.Quick})
	nodetest.Eventually(t, "its blocks are seen", func() bool {
		n, err := nodeclient.Dial(socket).Node(t.Context())
		return err == nil && n.GetHeight() == 2
	})
	return socket
}

func newStage(env *testscript.Env, socket string) *stage {
	s := &stage{bases: map[string]*devbase.Base{}, state: filepath.Join(env.WorkDir, "base"), node: socket}
	env.Defer(func() {
		for _, b := range s.bases {
			_ = b.Stop()
		}
	})
	return s
}

func stageOf(ts *testscript.TestScript) *stage { return ts.Value(stageKey{}).(*stage) }

// the returns the running Base with this name.
func (s *stage) the(ts *testscript.TestScript, name string) *devbase.Base {
	b, ok := s.bases[name]
	if !ok {
		ts.Fatalf("no Base %q runs", name)
	}
	return b
}

// baseCommand starts and stops Bases, and plays a person at one:
//
//	base start NAME [ADDRESS]   sets $NAME to the address it listens on
//	base node NAME              the same, with a Bitcoin node
//	base stop NAME
//	base open NAME              opens the pairing window
func baseCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: base start|node|stop|open NAME")
	}
	s, name := stageOf(ts), args[1]
	switch args[0] {
	case "start", "node":
		address, socket := "127.0.0.1:0", ""
		if args[0] == "node" {
			socket = s.node
		}
		if len(args) > 2 {
			address = args[2]
		}
		// A script is quicker than a person, and all its Apps have one address.
		limits := admission.DefaultLimits()
		limits.PerSecond, limits.Burst = 1000, 1000
		b, err := devbase.Start(devbase.Config{
			StateDir: s.state + "-" + name,
			Limits:   limits,
			Listen:   address,
			Node:     socket,
			Name:     name,
			Announce: !strings.HasPrefix(address, "127."),
			Logger:   slog.New(slog.NewTextHandler(io.Discard, nil)),
		})
		ts.Check(err)
		s.bases[name] = b
		ts.Setenv(name, b.Addr().String())
	case "stop":
		ts.Check(s.the(ts, name).Stop())
		delete(s.bases, name)
	case "open":
		ts.Check(s.the(ts, name).Console().OpenWindow(context.Background()))
	default:
		ts.Fatalf("unknown: base %s", args[0])
	}
}

// pairScript runs `bitbox-app pair` and plays the person at the Base: it accepts the number that
// the App shows, reads the code there and types it into the App. The App's output is in the files
// pair.out and pair.err.
//
//	pair NAME ROLE [answer=base-no|app-other] ARGUMENTS...
//	! pair ...                 the App must fail
func pairScript(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) < 2 {
		ts.Fatalf("usage: pair NAME ROLE [answer=...] arguments")
	}
	b, role := stageOf(ts).the(ts, args[0]), basev1.Role(basev1.Role_value["ROLE_"+strings.ToUpper(args[1])])
	args, answer := args[2:], ""
	if len(args) > 0 {
		if given, ok := strings.CutPrefix(args[0], "answer="); ok {
			args, answer = args[1:], given
		}
	}
	path, err := exec.LookPath("bitbox-app")
	ts.Check(err)
	var out, errs bytes.Buffer
	shown := &numberWatcher{found: make(chan uint32, 1), to: &out}
	app := exec.Command(path, append([]string{"pair"}, args...)...)
	app.Dir = ts.Getenv("WORK")
	app.Env = []string{dirVariable + "=" + ts.Getenv(dirVariable), "HOME=" + ts.Getenv("HOME")}
	app.Stdout, app.Stderr = shown, &errs
	typed, err := app.StdinPipe()
	ts.Check(err)
	ts.Check(app.Start())
	ended := make(chan error, 1)
	go func() { ended <- app.Wait() }()

	ctx, cancel := context.WithTimeout(context.Background(), scriptTime)
	defer cancel()
	standing := make(chan error, 1)
	go func() {
		standing <- standAtBase(ctx, b.Console(), shown.found, role, answer, typed)
		_ = typed.Close()
	}()
	select {
	case err = <-ended:
	case <-ctx.Done():
		_ = app.Process.Kill()
		err = <-ended
	}
	cancel()
	atBase := <-standing
	ts.Check(os.WriteFile(ts.MkAbs("pair.out"), out.Bytes(), 0o600))
	ts.Check(os.WriteFile(ts.MkAbs("pair.err"), errs.Bytes(), 0o600))
	ts.Logf("[pair stdout]\n%s[pair stderr]\n%s", out.String(), errs.String())
	if (err != nil) != neg {
		ts.Fatalf("the App ended with: %v; at the Base: %v", err, atBase)
	}
}

// standAtBase is the person at the Base.
func standAtBase(ctx context.Context, console pairing.Client, number <-chan uint32, role basev1.Role, answer string,
	typed io.Writer) error {
	select {
	case n := <-number:
		// The request may not have arrived yet.
		for {
			err := console.Accept(ctx, n, role)
			if err == nil {
				break
			}
			if ctx.Err() != nil {
				return err
			}
			time.Sleep(20 * time.Millisecond)
		}
	case <-ctx.Done():
		return ctx.Err()
	}
	for seen := uint64(0); ; {
		snapshot, err := console.Watch(ctx, seen)
		if err != nil {
			return err
		}
		if snapshot.GetCeremony().GetPhase() == systemv1.Ceremony_PHASE_SHOWN {
			id, _ := pairing.CeremonyIDOf(snapshot)
			code := snapshot.GetCeremony().GetCode()
			if answer == "app-other" {
				code = "000 000" // the chance that it is the code is one in a million
			}
			if err := console.Answer(ctx, id, answer != "base-no"); err != nil {
				return err
			}
			if answer == "base-no" {
				<-ctx.Done() // nobody types anything
				return nil
			}
			_, err := io.WriteString(typed, code+"\n")
			return err
		}
		seen = snapshot.GetVersion()
	}
}

// numberWatcher finds the request number in the App's output.
type numberWatcher struct {
	to    *bytes.Buffer
	found chan uint32
	done  bool
}

var requestNumber = regexp.MustCompile(`(?:Request number:  |"number":")(\d{3}) (\d{3})`)

func (w *numberWatcher) Write(p []byte) (int, error) {
	w.to.Write(p)
	if match := requestNumber.FindSubmatch(w.to.Bytes()); match != nil && !w.done {
		w.done = true
		number, err := strconv.ParseUint(string(match[1])+string(match[2]), 10, 32)
		if err != nil {
			return 0, err
		}
		w.found <- uint32(number)
	}
	return len(p), nil
}

// codeCommand runs a command that must end with this exit code:
//
//	code 3 bitbox-app status
func codeCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: code NUMBER COMMAND...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		var exit *exec.ExitError
		if !errors.As(err, &exit) {
			ts.Fatalf("run %s: %v", strings.Join(args[1:], " "), err)
		}
		got = exit.ExitCode()
	}
	if got != want {
		ts.Fatalf("%s ended with %d, not %d", strings.Join(args[1:], " "), got, want)
	}
}

// awaitCommand waits until a file, which a command in the background may be writing, has a line
// that matches:
//
//	await FILE PATTERN
func awaitCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: await FILE PATTERN")
	}
	pattern, err := regexp.Compile("(?m)" + args[1])
	ts.Check(err)
	for deadline := time.Now().Add(scriptTime); ; time.Sleep(20 * time.Millisecond) {
		content, _ := os.ReadFile(ts.MkAbs(args[0]))
		if pattern.Match(content) {
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("%q never came in %s:\n%s", args[1], args[0], content)
		}
	}
}

// serverCommand listens on a port that does not belong to a Base, and sets $NAME to its address:
//
//	server silent|http|closed NAME
func serverCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: server silent|http|closed NAME")
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	ts.Setenv(args[1], listener.Addr().String())
	if args[0] == "closed" {
		ts.Check(listener.Close())
		return
	}
	ts.Defer(func() { _ = listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				if args[0] == "http" {
					_, _ = conn.Read(make([]byte, 1))
					_, _ = io.WriteString(conn, "HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")
					return
				}
				_, _ = io.Copy(io.Discard, conn)
			}()
		}
	}()
}

// fullDiskCommand puts a directory on its own small file system, and fills that to the last byte.
// It needs root.
//
//	fulldisk mount DIR
//	fulldisk fill DIR
//	fulldisk free DIR
func fullDiskCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: fulldisk mount|fill|free DIR")
	}
	dir := ts.MkAbs(args[1])
	filler := filepath.Join(dir, "filler")
	switch args[0] {
	case "mount":
		ts.Check(os.MkdirAll(dir, 0o700))
		ts.Check(syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=512k,mode=700"))
		ts.Defer(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
	case "fill":
		file, err := os.Create(filler)
		ts.Check(err)
		defer file.Close()
		for block := make([]byte, 4096); len(block) > 0; {
			if _, err := file.Write(block); err != nil {
				block = block[:len(block)/2]
			}
		}
	case "free":
		ts.Check(os.Remove(filler))
	}
}
