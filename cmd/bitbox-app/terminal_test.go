//go:build linux

package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/client"
	"github.com/BitBoxSwiss/bitbox-base/internal/app/terminal"
	"github.com/BitBoxSwiss/bitbox-base/internal/testbed/appliancetest"
	"github.com/BitBoxSwiss/bitbox-base/internal/testbed/machinetest"
	"github.com/BitBoxSwiss/bitbox-base/internal/testbed/netnstest"
	"github.com/BitBoxSwiss/bitbox-base/packaging/manual"
)

const (
	ctrlC = "\x03"
	// ended comes before the exit code, once the program has ended.
	ended = "It has ended with "
)

// sitting is a person at a real terminal in which bitbox-app runs.
type sitting struct {
	t       *testing.T
	command *exec.Cmd
	master  *os.File

	mu     sync.Mutex
	come   *sync.Cond
	screen bytes.Buffer // everything that was written
	ended  bool
}

// sit runs bitbox-app in a pseudo-terminal (pty(7)) with this many columns.
func sit(t *testing.T, dir string, columns uint16, environment []string, args ...string) *sitting {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	fd := int(master.Fd())
	number, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		err = unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: columns})
	}
	if err != nil {
		t.Fatal(err)
	}
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer slave.Close()
	path, err := exec.LookPath("bitbox-app")
	if err != nil {
		t.Fatal(err)
	}
	// A shell stays in the terminal until everything was read: when the first process of a
	// terminal ends, the kernel hangs the terminal up, and drops unread output.
	s := &sitting{t: t, master: master,
		command: exec.Command("/bin/sh", append([]string{"-c", `trap : INT; "$@"; echo "` + ended + `$?."; read -r _`, "sh", path}, args...)...)}
	s.come = sync.NewCond(&s.mu)
	s.command.Env = append([]string{"TERM=xterm", "TZ=UTC", "HOME=" + dir, dirVariable + "=" + dir}, environment...)
	s.command.Stdin, s.command.Stdout, s.command.Stderr = slave, slave, slave
	s.command.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := s.command.Start(); err != nil {
		t.Fatal(err)
	}
	overdue := time.AfterFunc(scriptTime, func() { _ = syscall.Kill(-s.command.Process.Pid, syscall.SIGKILL) })
	go func() {
		defer overdue.Stop()
		for buffer := make([]byte, 4096); ; {
			n, err := master.Read(buffer)
			s.mu.Lock()
			s.screen.Write(buffer[:n])
			s.ended = err != nil // EIO: no process has the terminal open
			s.come.Broadcast()
			s.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	t.Cleanup(func() { _ = master.Close() })
	return s
}

// await waits for a text, and returns all output so far.
func (s *sitting) await(text string) string {
	s.t.Helper()
	return s.awaits(regexp.MustCompile(regexp.QuoteMeta(text)))
}

func (s *sitting) awaits(pattern *regexp.Regexp) string {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	for !pattern.Match(s.screen.Bytes()) {
		if s.ended {
			s.t.Fatalf("%s never came: %q", pattern, s.screen.String())
		}
		s.come.Wait()
	}
	return s.screen.String()
}

func (s *sitting) types(text string) {
	s.t.Helper()
	if _, err := io.WriteString(s.master, text); err != nil {
		s.t.Fatal(err)
	}
}

// yes answers until that has an effect. Input typed before the program has read its clock is not
// an answer, and a test cannot see when it has.
func (s *sitting) yes(effect func() bool) {
	s.t.Helper()
	for deadline := time.Now().Add(scriptTime); !effect(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			s.t.Fatalf("a yes has no effect: %q", s.await(""))
		}
		s.types("y\n")
	}
}

// end waits for the end, and returns the exit code and all output.
func (s *sitting) end() (int, string) {
	s.t.Helper()
	all := s.awaits(regexp.MustCompile(ended + `\d+\.`))
	screen, rest, _ := strings.Cut(all, ended)
	s.types("\n")
	_ = s.command.Wait()
	var code int
	if _, err := fmt.Sscanf(rest, "%d.", &code); err != nil {
		s.t.Fatalf("%v: %q", err, rest)
	}
	return code, strings.ReplaceAll(screen, "\r\n", "\n")
}

// unfolded joins a sentence that was broken between words.
func unfolded(screen string) string { return strings.ReplaceAll(screen, "\n  ", " ") }

// interrupted expects the program to end by Ctrl-C, with a sentence.
func (s *sitting) interrupted(sentence string) {
	s.t.Helper()
	s.types(ctrlC)
	code, screen := s.end()
	if want := "bitbox-app: interrupted: " + sentence + "\n"; code != exitInterrupted || !strings.HasSuffix(unfolded(screen), want) {
		s.t.Errorf("ended with %d, and without %q at the end:\n%q", code, want, screen)
	}
}

// paired starts an appliance and pairs an App with it.
func paired(t *testing.T) (a *appliancetest.Appliance, dir string) {
	t.Helper()
	netnstest.Require(t)
	a, err := appliancetest.Start(nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := a.Stop(); err != nil {
			t.Error(err)
		}
	})
	dir = t.TempDir()
	if err := pairInProcess(a, dir, "Laptop of the person who lives upstairs", basev1.Role_ROLE_OWNER); err != nil {
		t.Fatal(err)
	}
	return a, dir
}

// posture is the posture that the Base has signed.
func postureIn(t *testing.T, dir string) *client.PostureView {
	t.Helper()
	app, err := client.New(client.Options{Dir: dir, NoDiscovery: true})
	if err != nil {
		t.Fatal(err)
	}
	session, err := app.Open("")
	if err != nil {
		t.Fatal(err)
	}
	defer session.Close()
	ctx, cancel := context.WithTimeout(t.Context(), scriptTime)
	defer cancel()
	view, err := session.Posture(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return view
}

// halting forwards connections to an address, but only this many bytes of each.
func halting(t *testing.T, to string, bytes int64) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(func() { cancel(); _ = listener.Close() })
	go func() {
		for {
			from, err := listener.Accept()
			if err != nil {
				return
			}
			base, err := net.Dial("tcp", to)
			if err != nil {
				_ = from.Close()
				return
			}
			context.AfterFunc(ctx, func() { _ = from.Close(); _ = base.Close() })
			go func() {
				_, _ = io.CopyN(base, from, bytes)
				_, _ = io.Copy(io.Discard, from) // until the App closes the connection
				_ = base.Close()
			}()
			go func() { _, _ = io.Copy(from, base) }()
		}
	}()
	return listener.Addr().String()
}

func TestCtrlCBeforeTheYesChangesNothing(t *testing.T) {
	_, dir := paired(t)
	for _, args := range [][]string{{"expose", "electrum", "--for", "1h"}, {"lockdown"}, {"ssh", "enable", "--for", "1h"}} {
		s := sit(t, dir, 80, nil, args...)
		if args[0] == "ssh" { // without a key nothing is asked
			if code, screen := s.end(); code == 0 {
				t.Errorf("%d, %q", code, screen)
			}
			continue
		}
		s.await("Go on? [y/N] ")
		s.interrupted(nothingChanged)
	}
	if _, revision := postureIn(t, dir).Posture(); revision != 1 {
		t.Errorf("revision %d", revision)
	}
}

// A change that is being put in force is shown as such, in each form.
func TestPostureShowSaysThatAChangeIsBeingApplied(t *testing.T) {
	a, dir := paired(t)
	for pending := true; pending; {
		pending, _, _ = postureIn(t, dir).Pending()
	}
	examining, goOn, over := make(chan struct{}), make(chan struct{}), make(chan struct{})
	a.Machine.WhenExamined(func() {
		select {
		case examining <- struct{}{}:
			<-goOn
		case <-over:
		}
	})
	s := sit(t, dir, 80, nil, "expose", "electrum", "--for", "1h", "--yes")
	var view *client.PostureView
	for revision := uint64(1); revision == 1; { // the Base may examine what the pairing has left, too
		select {
		case <-examining:
		case <-time.After(scriptTime):
			t.Fatal("the Base examined no second posture")
		}
		view = postureIn(t, dir)
		if _, revision = view.Posture(); revision == 1 {
			goOn <- struct{}{}
		}
	}
	close(over)
	goOn <- struct{}{}
	if code, screen := s.end(); code != 0 {
		t.Fatalf("it ended with %d: %s", code, screen)
	}
	var printed strings.Builder
	if err := (&program{out: &terminal.Output{To: &printed}}).printPosture(view); err != nil {
		t.Fatal(err)
	}
	if want := ", being applied\n"; !strings.Contains(printed.String(), want) {
		t.Errorf("it prints\n%s", printed.String())
	}
	if json, cell := shownOf(view), postureRow(view)[0][0]; !json.Applying || json.Trying || !strings.HasSuffix(cell, " (being applied)") {
		t.Errorf("applying %t, trying %t in JSON, %q in the table of several Bases", json.Applying, json.Trying, cell)
	}
}

// The change is on trial, and its confirmation cannot get through. A user who gives up then is
// told what the Base does, and the Base does that.
func TestCtrlCDuringATryLeavesTheChangeToBeUndone(t *testing.T) {
	a, dir := paired(t)
	// The changes of the pairing are already in force.
	for pending := true; pending; {
		pending, _, _ = postureIn(t, dir).Pending()
	}
	s := sit(t, dir, 80, nil, "expose", "electrum", "--for", "1h")
	s.await("Go on? [y/N] ")
	var changes atomic.Int32
	examined := make(chan struct{})
	a.Machine.WhenExamined(func() {
		if changes.Add(1) == 1 { // the undoing is checked as well
			a.Shut()
			close(examined)
		}
	})
	s.yes(func() bool {
		select {
		case <-examined:
			return true
		default:
			return false
		}
	})
	s.interrupted("the change was not confirmed: the Base undoes it within 60 s")

	a.Open()
	for deadline := time.Now().Add(scriptTime); ; time.Sleep(20 * time.Millisecond) {
		view := postureIn(t, dir)
		pending, trying, _ := view.Pending()
		if trying {
			a.Advance(time.Minute)
		}
		if !pending && !trying && len(view.Effective().Endpoints) == 1 {
			return // only the entry
		}
		if time.Now().After(deadline) {
			t.Fatalf("after a minute: %+v", view.Effective())
		}
	}
}

func TestCtrlCWhileAFileIsSentInstallsNothing(t *testing.T) {
	a, dir := paired(t)
	file, err := machinetest.Release("1.1", machinetest.Architecture, 16<<20, false)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "release")
	if err := os.WriteFile(path, file, 0o600); err != nil {
		t.Fatal(err)
	}
	s := sit(t, dir, 80, nil, "update", path, "--yes", "--address", halting(t, a.Address(), 2<<20))
	screen := s.await("Sending: ")
	if strings.Contains(screen, "Sending: 0 % of 16.0 MiB\r\n") {
		t.Errorf("a line of its own: %q", screen)
	}
	s.interrupted("nothing was installed; the Base deletes the partial file")
	for deadline := time.Now().Add(scriptTime); len(a.Software.Uploads()) > 0; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("the Base keeps %v", a.Software.Uploads())
		}
	}
	if version, err := a.Software.Installed(t.Context()); version != "1.0" || err != nil {
		t.Errorf("version %s, %v", version, err)
	}
}

func TestCtrlCWhileWaitingErasesTheLine(t *testing.T) {
	a, dir := paired(t)
	s := sit(t, dir, 80, nil, "audit", "--address", halting(t, a.Address(), 0))
	s.await("The Base is inspecting itself")
	s.types(ctrlC)
	code, screen := s.end()
	// The terminal's own echo of the key is erased too, or comes before.
	if want := regexp.MustCompile(`\r\x1b\[K(\^C)?bitbox-app: interrupted: the audit changes nothing\n$`); code != exitInterrupted ||
		!want.MatchString(screen) {
		t.Errorf("%d: %q", code, screen)
	}
}

// One of two Bases does not answer, and the user loses patience.
func TestCtrlCShowsTheAnswersOfOtherBases(t *testing.T) {
	r := newReader(t)
	r.appliances["Cellar"].Shut()
	s := sit(t, r.dir, 100, nil, "lockdown", "--all")
	s.await("Go on? [y/N] ")
	s.yes(func() bool { return strings.Contains(s.await(""), "Waiting for Cellar") })
	s.awaits(regexp.MustCompile(`Waiting for Cellar\r`)) // and no more for Home
	s.types(ctrlC)
	code, screen := s.end()
	for _, want := range []string{"on, signed by the Base", "interrupted: " + perhapsDone,
		"bitbox-app: interrupted: 1 of 2 Bases failed; see their lines\n"} {
		if !strings.Contains(screen, want) || code != exitInterrupted {
			t.Errorf("%d, and not %q: %q", code, want, screen)
		}
	}
}

func TestCtrlCAtTheQuestionOfAFactoryResetWipesNothing(t *testing.T) {
	_, dir := paired(t)
	s := sit(t, dir, 80, nil, "factory-reset")
	s.await("To confirm, type the name of the Base, ")
	s.interrupted("nothing was done")
	postureIn(t, dir) // it is still there
}

func TestCtrlCDuringAPairingStoresNothing(t *testing.T) {
	a, _ := paired(t)
	dir := t.TempDir()
	s := sit(t, dir, 80, nil, "pair", a.Address())
	s.await("Waiting ...")
	s.interrupted("no code was shown and nothing is stored; the Base forgets the request")

	// Both ends are asked about the code.
	ctx, cancel := context.WithTimeout(t.Context(), scriptTime)
	defer cancel()
	s = sit(t, dir, 80, nil, "pair", a.Address())
	number := requestNumber.FindStringSubmatch(s.await("Waiting ..."))
	let := make(chan error, 1)
	go func() { let <- a.Let(ctx, number[1]+" "+number[2], basev1.Role_ROLE_VIEWER) }()
	s.await("Does the Base show the same code? [y/N] ")
	s.types(ctrlC)
	code, screen := s.end()
	if code != exitInterrupted || !strings.Contains(screen, "interrupted: ") || !strings.Contains(unfolded(screen), "nothing was stored") {
		t.Errorf("%d: %q", code, screen)
	}
	cancel()
	<-let
	app, err := client.New(client.Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	if bases, err := app.Bases(); err != nil || len(bases) > 0 {
		t.Errorf("%v, %v", bases, err)
	}
}

func TestCtrlCEndsWatchWithSuccess(t *testing.T) {
	_, dir := paired(t)
	s := sit(t, dir, 80, nil, "watch")
	s.await("Watching. Ctrl-C ends it.")
	s.types(ctrlC)
	if code, screen := s.end(); code != 0 || strings.Contains(screen, "bitbox-app:") {
		t.Errorf("%d: %q", code, screen)
	}
}

func TestColoursAndWidthFollowTheTerminal(t *testing.T) {
	_, dir := paired(t)
	const columns = 80
	const bold = "\x1b[1mID\x1b[0m"
	for name, c := range map[string]struct {
		environment []string
		args        []string
		colour      bool
	}{
		"a terminal":          {nil, []string{"apps", "list"}, true},
		"NO_COLOR":            {[]string{"NO_COLOR=1"}, []string{"apps", "list"}, false},
		"NO_COLOR that is no": {[]string{"NO_COLOR="}, []string{"apps", "list"}, true},
		"a dumb terminal":     {[]string{"TERM=dumb"}, []string{"apps", "list"}, false},
		"JSON":                {nil, []string{"apps", "list", "--json"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			code, screen := sit(t, dir, columns, c.environment, c.args...).end()
			if code != 0 || strings.Contains(screen, bold) != c.colour {
				t.Errorf("%d: %q", code, screen)
			}
			if !c.colour && strings.Contains(screen, "\x1b") && name != "NO_COLOR" {
				t.Errorf("an escape sequence: %q", screen)
			}
			cut := strings.Contains(screen, "…")
			if cut != (name != "JSON") {
				t.Errorf("cut: %q", screen)
			}
			if name == "JSON" {
				return
			}
			plain := regexp.MustCompile(`\x1b\[[0-9;]*[mK]|\r`).ReplaceAllString(screen, "")
			for line := range strings.Lines(plain) {
				if width := terminal.Width(strings.TrimSuffix(line, "\n")); width > columns {
					t.Errorf("%d columns: %q", width, line)
				}
			}
		})
	}
}

// Names and sentences come from the network. None of them may move the cursor.
func TestNoNameReachesTheTerminalAsAnEscapeSequence(t *testing.T) {
	const hostile = "Home\x1b[2J\u202e\r\n\x07"
	var to bytes.Buffer
	p := &program{out: &terminal.Output{To: &to, Color: true}}
	table := p.table("BASE", "STATE", "").styled("STATE", func(string) terminal.Style { return terminal.Red })
	table.row(hostile, hostile, hostile)
	table.sentence(hostile, hostile)
	if err := table.print(); err != nil {
		t.Fatal(err)
	}
	plain := regexp.MustCompile(`\x1b\[(0|1|31)m`).ReplaceAllString(to.String(), "")
	if strings.ContainsAny(plain, "\x1b\r\x07\u202e") || strings.Count(plain, "\n") != 3 {
		t.Errorf("%q", plain)
	}
}

func TestEachCommandAndFlagIsExplained(t *testing.T) {
	for _, gap := range manual.Gaps((&program{in: os.Stdin, out: &terminal.Output{To: io.Discard}}).rootCommand()) {
		t.Error(gap)
	}
}
