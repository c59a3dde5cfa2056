//go:build linux

package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	uv "github.com/charmbracelet/ultraviolet"
	"github.com/charmbracelet/x/vt"
	"github.com/creack/pty"
	"golang.org/x/sys/unix"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/client"
	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/dashboard"
	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/owner"
	"github.com/BitBoxSwiss/bitbox-base/internal/app/terminal"
	"github.com/BitBoxSwiss/bitbox-base/internal/devbase"
	"github.com/BitBoxSwiss/bitbox-base/internal/digits"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/bruteforce"
	"github.com/BitBoxSwiss/bitbox-base/internal/helperclient"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/pairing"
	"github.com/BitBoxSwiss/bitbox-base/internal/testbed/appliancetest"
	"github.com/BitBoxSwiss/bitbox-base/internal/testbed/netnstest"
)

// screenful is a real terminal with bitbox-app in it, and a user before it.
type screenful struct {
	t      *testing.T
	mu     sync.Mutex // guards screen, whose type is not as safe as its name says
	screen *vt.SafeEmulator
	master *os.File
	slave  *os.File
	before *unix.Termios
	app    *exec.Cmd
	ended  chan error
	dir    string
}

// openTerminal runs bitbox-app in a terminal of 80 by 24.
func openTerminal(t *testing.T, dir string, environment []string, args ...string) *screenful {
	t.Helper()
	return openProgram(t, "bitbox-app", dir, environment, args...)
}

func openProgram(t *testing.T, name, dir string, environment []string, args ...string) *screenful {
	t.Helper()
	master, slave, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	x := &screenful{t: t, master: master, slave: slave, dir: dir, screen: vt.NewSafeEmulator(80, 24), ended: make(chan error, 1)}
	x.resize(80, 24)
	if x.before, err = unix.IoctlGetTermios(int(slave.Fd()), unix.TCGETS); err != nil {
		t.Fatal(err)
	}
	path, err := exec.LookPath(name)
	if err != nil {
		t.Fatal(err)
	}
	x.app = exec.Command(path, args...)
	x.app.Stdin, x.app.Stdout, x.app.Stderr = slave, slave, slave
	x.app.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	x.app.Env = append([]string{"TERM=xterm-256color", "LANG=C.UTF-8", "TZ=UTC", "HOME=" + dir, dirVariable + "=" + dir + "/app"},
		environment...)
	if err := x.app.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { x.ended <- x.app.Wait() }()
	go func() { _, _ = io.Copy(x, master) }()
	go func() { _, _ = io.Copy(master, x.screen) }() // a terminal's answers to questions
	t.Cleanup(func() {
		_ = x.app.Process.Kill()
		_ = x.screen.Close() // ends readers that wait for its answers
		_ = slave.Close()
		_ = master.Close()
	})
	return x
}

// Write draws what the program has written.
func (x *screenful) Write(b []byte) (int, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.screen.Write(b)
}

func (x *screenful) resize(columns, rows int) {
	x.t.Helper()
	x.mu.Lock()
	x.screen.Resize(columns, rows)
	x.mu.Unlock()
	if err := pty.Setsize(x.master, &pty.Winsize{Cols: uint16(columns), Rows: uint16(rows)}); err != nil {
		x.t.Fatal(err)
	}
}

func (x *screenful) text() string {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.screen.String()
}

// isFull tells whether the program uses the whole screen.
func (x *screenful) isFull() bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.screen.IsAltScreen() || x.screen.CursorHidden()
}

// cells calls a function with each cell.
func (x *screenful) cells(look func(*uv.Cell)) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for row := range 24 {
		for column := range 80 {
			if cell := x.screen.CellAt(column, row); cell != nil {
				look(cell)
			}
		}
	}
}

// shows waits until all of these texts are on the screen, and returns the screen.
func (x *screenful) shows(texts ...string) string {
	x.t.Helper()
	deadline := time.Now().Add(scriptTime)
	for {
		text, missing := x.text(), ""
		for _, want := range texts {
			if !strings.Contains(text, want) {
				missing = want
			}
		}
		if missing == "" {
			return text
		}
		if time.Now().After(deadline) {
			x.t.Fatalf("the screen does not show %q:\n%s", missing, text)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// showsWell waits until the Base is shown as well. Its disk is that of this machine, which may be nearly full.
func (x *screenful) showsWell(before string, texts ...string) {
	x.t.Helper()
	shown := func(text string) bool {
		return strings.Contains(text, before+"● well") || strings.Contains(text, before+"▲ disk nearly full")
	}
	for deadline := time.Now().Add(scriptTime); !shown(x.text()); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			x.t.Fatalf("the screen does not show that the Base is well:\n%s", x.text())
		}
	}
	x.shows(texts...)
}

// showsLarge waits until a number is shown in large digits.
func (x *screenful) showsLarge(number string) {
	x.t.Helper()
	for _, row := range digits.Large(number) {
		x.shows(strings.TrimRight(row, " "))
	}
}

func (x *screenful) types(keys string) {
	x.t.Helper()
	if _, err := io.WriteString(x.master, keys); err != nil {
		x.t.Fatal(err)
	}
}

// answers presses a key once the question has been on the screen long enough.
func (x *screenful) answers(question, key string) {
	x.t.Helper()
	x.shows(question)
	time.Sleep(1200 * time.Millisecond) // a key answers after a second at the earliest
	x.types(key)
}

var shownNumber = regexp.MustCompile(`(?:at the Base:|this code:) +(\d{3} \d{3})`)

func (x *screenful) number(before string) string {
	x.t.Helper()
	match := shownNumber.FindStringSubmatch(x.shows(before))
	if match == nil {
		x.t.Fatalf("no number is shown:\n%s", x.text())
	}
	return match[1]
}

// leaves waits until the program has ended with this code, and checks that the terminal is as it
// was.
func (x *screenful) leaves(code int) {
	x.t.Helper()
	select {
	case err := <-x.ended:
		got := 0
		if exit := new(exec.ExitError); errors.As(err, &exit) {
			got = exit.ExitCode()
		} else if err != nil {
			x.t.Fatal(err)
		}
		if got != code {
			x.t.Errorf("bitbox-app ended with %d, not %d", got, code)
		}
	case <-time.After(scriptTime):
		x.t.Fatalf("bitbox-app does not end:\n%s", x.text())
	}
	after, err := unix.IoctlGetTermios(int(x.slave.Fd()), unix.TCGETS)
	if err != nil {
		x.t.Fatal(err)
	}
	if *after != *x.before {
		x.t.Errorf("the terminal is not as it was: %+v, was %+v", after, x.before)
	}
	for deadline := time.Now().Add(scriptTime); x.isFull(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			x.t.Fatal("the screen is not given back, or the cursor is hidden")
		}
	}
}

// startBase runs a developer's Base that announces itself.
func startBase(t *testing.T, name string) *devbase.Base {
	t.Helper()
	b, err := devbase.Start(devbase.Config{
		StateDir: t.TempDir() + "/base", Listen: netnstest.IPv4.Addr().String() + ":0", Name: name, Announce: true,
		Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Stop() })
	return b
}

// accept is a person at the Base who accepts a number.
func accept(t *testing.T, b *devbase.Base, number string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), scriptTime)
	defer cancel()
	n := uint32(0)
	for _, r := range strings.ReplaceAll(number, " ", "") {
		n = 10*n + uint32(r-'0')
	}
	for err := b.Console().Accept(ctx, n, basev1.Role_ROLE_UNSPECIFIED); err != nil; err = b.Console().Accept(ctx, n,
		basev1.Role_ROLE_UNSPECIFIED) {
		if ctx.Err() != nil {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// display waits until the Base's display satisfies a condition.
func display(t *testing.T, b *devbase.Base, what string, fits func(*systemv1.Snapshot) bool) *systemv1.Snapshot {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), scriptTime)
	defer cancel()
	for seen := uint64(0); ; {
		snapshot, err := b.Console().Watch(ctx, seen)
		if err != nil {
			t.Fatalf("the Base's display never shows %s: %v", what, err)
		}
		if fits(snapshot) {
			return snapshot
		}
		seen = snapshot.GetVersion()
	}
}

func codeShown(s *systemv1.Snapshot) bool {
	return s.GetCeremony().GetPhase() == systemv1.Ceremony_PHASE_SHOWN
}

// toTheCode leads a new dashboard to a code, and returns the code.
func toTheCode(t *testing.T, x *screenful, b *devbase.Base) string {
	t.Helper()
	x.shows("Announced nearby", b.Name(), "pairing open")
	x.types("\r")
	number := x.number("Accept this number at the Base:")
	x.showsLarge(number)
	accept(t, b, number)
	code := x.number("exactly this code:")
	x.showsLarge(code)
	if atBase := display(t, b, "a code", codeShown).GetCeremony().GetCode(); atBase != code {
		t.Fatalf("the Base shows %s, the App %s", atBase, code)
	}
	return code
}

func TestTheDashboardFindsPairsShowsAndRestoresTheTerminal(t *testing.T) {
	netnstest.Require(t)
	b := startBase(t, "kitchen")
	x := openTerminal(t, t.TempDir(), nil)
	toTheCode(t, x, b)

	// A key that comes as soon as the code is visible answers nothing, and neither does a pasted
	// one.
	x.types("?")
	x.shows("this help")
	x.types("xy") // the first one closes the help
	x.shows("Too early: not an answer")
	x.types("\x1b[200~y\x1b[201~")
	snapshot := display(t, b, "a code", codeShown)
	id, _ := pairing.CeremonyIDOf(snapshot)
	if err := b.Console().Answer(t.Context(), id, true); err != nil {
		t.Fatal(err)
	}
	x.answers("y  yes, the same", "y")
	x.shows(`Paired with "kitchen".`, "the role owner")
	x.types("\r")
	x.showsWell("", "Memory", "Load", "this is ", "Pairing  closed")

	// Events there are shown as they happen.
	if err := b.Console().OpenWindow(t.Context()); err != nil {
		t.Fatal(err)
	}
	x.shows("Pairing  OPEN, ", "The pairing window is open for another")
	x.types("o")
	x.answers("The pairing window will be closed", "n")
	x.shows("Nothing was changed.", "Pairing  OPEN, ")
	x.types("o")
	x.answers("The pairing window will be closed", "y")
	x.shows("The pairing window is closed.", "Pairing  closed")

	for n := range 100 { // a user drags the corner of the window
		x.resize(20+n, 5+n%40)
	}
	x.resize(60, 15)
	x.showsWell("1 of 1 kitchen  ")
	x.resize(30, 8)
	x.shows("Too small")
	x.resize(100, 30)
	x.shows("> kitchen", "[1 Overview]")

	x.types("q")
	x.leaves(0)
}

func TestCtrlCDuringAPairingInTheDashboardLeavesNothingBehind(t *testing.T) {
	netnstest.Require(t)
	b := startBase(t, "cellar")
	nobody := func(t *testing.T, x *screenful) {
		t.Helper()
		display(t, b, "the end of the pairing", func(s *systemv1.Snapshot) bool { return s.GetCeremony() == nil && s.GetListening() })
		app, err := client.New(client.Options{Dir: x.dir + "/app", NoDiscovery: true})
		if err != nil {
			t.Fatal(err)
		}
		if bases, err := app.Bases(); err != nil || len(bases) > 0 {
			t.Errorf("the App keeps %v, %v", bases, err)
		}
	}
	t.Run("asking", func(t *testing.T) {
		x := openTerminal(t, t.TempDir(), nil)
		x.shows("pairing open")
		x.types("\r")
		x.number("Accept this number at the Base:")
		x.types("\x03")
		x.leaves(0)
		x.shows("You left before the Base had answered: no App was let in")
		nobody(t, x)
	})
	t.Run("at the code", func(t *testing.T) {
		x := openTerminal(t, t.TempDir(), nil)
		toTheCode(t, x, b)
		x.types("\x03")
		x.leaves(0)
		x.shows("You left before you had said yes to the code: the Base was told no")
		nobody(t, x)
	})
	t.Run("after a yes here", func(t *testing.T) {
		x := openTerminal(t, t.TempDir(), nil)
		toTheCode(t, x, b)
		x.answers("y  yes, the same", "y")
		x.shows("You have said yes. Now somebody at the Base has to")
		x.types("\x03")
		x.leaves(0)
		x.shows("You had said yes to the code, and left before the Base had")
		nobody(t, x)
	})
}

func TestASignalEndsTheDashboardAndRestoresTheTerminal(t *testing.T) {
	netnstest.Require(t)
	for _, signal := range []os.Signal{syscall.SIGTERM, syscall.SIGINT} {
		x := openTerminal(t, t.TempDir(), nil)
		x.shows("not paired with any Base yet")
		if err := x.app.Process.Signal(signal); err != nil {
			t.Fatal(err)
		}
		x.leaves(exitInterrupted)
	}
}

// buggy is a source of Bases with a bug: it panics in a goroutine of the owner.
type buggy struct{ owner.Source }

func (buggy) Bases() ([]client.Base, error) {
	return []client.Base{{Name: "kitchen", State: client.Active}}, nil
}

func (buggy) Browse(ctx context.Context) (<-chan client.Nearby, error) {
	return nil, errors.New("nobody searches here")
}

func (buggy) Open(string) (owner.Session, error) { panic("index 7\x1b[2J is out of range") }

func init() { programs["bitbox-app-with-a-bug"] = withABug }

// withABug is bitbox-app with the buggy source.
func withABug() {
	p := &program{errs: terminal.Open(os.Stderr, os.Getenv)}
	o := owner.New(owner.Options{Source: buggy{}, CallTime: callTime})
	err := dashboard.Run(context.Background(), dashboard.Options{Owner: o, In: os.Stdin, Out: os.Stdout, Environment: os.Environ()})
	p.complain(p.sentence(context.Background(), err))
	os.Exit(exitCode(context.Background(), err))
}

func TestAPanicAtTheSideRestoresTheTerminalAndIsTold(t *testing.T) {
	x := openProgram(t, "bitbox-app-with-a-bug", t.TempDir(), nil)
	x.shows("because of a bug in it")
	x.leaves(1)
	text := strings.Join(strings.Fields(x.text()), "")
	if !strings.Contains(text, "7?[2Jisoutofrange") || strings.Contains(text, "goroutine") || strings.Contains(text, "BitBoxBase") {
		t.Errorf("the terminal shows something else than the sentence:\n%s", text)
	}
}

// Whatever the keyboard sends, the dashboard keeps running, and Ctrl-C ends it.
func TestGarbageAtTheKeyboardDoesNoHarm(t *testing.T) {
	netnstest.Require(t)
	b := startBase(t, "shed")
	x := openTerminal(t, t.TempDir(), nil)
	x.shows("shed")
	random := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		garbage := make([]byte, 50)
		for n := range garbage {
			for garbage[n] = 'q'; garbage[n] == 'q' || garbage[n] == 0x03; {
				garbage[n] = byte(random.Uint32())
			}
		}
		x.types(string(garbage))
	}
	x.types("\x1b[99;99;99m\x1b]0;title\x07\x1bP1$r\x1b\\ x")
	for x.isFull() { // the last sequence may have swallowed one
		x.types("\x03")
		time.Sleep(time.Second)
	}
	x.leaves(0)
	display(t, b, "that nobody is paired", func(s *systemv1.Snapshot) bool { return s.GetCeremony() == nil && s.GetListening() })
}

// Without a terminal the help is printed, as a calling program expects.
func TestWithoutAScreenTheHelpIsPrinted(t *testing.T) {
	for name, c := range map[string]struct {
		environment, args []string
	}{
		"dumb":          {environment: []string{"TERM=dumb"}},
		"no TERM":       {environment: []string{"TERM="}},
		"for a program": {args: []string{"--json"}},
	} {
		t.Run(name, func(t *testing.T) {
			x := openTerminal(t, t.TempDir(), c.environment, c.args...)
			x.leaves(0)
			x.shows("Use \"bitbox-app [command] --help\"")
		})
	}
	x := openTerminal(t, t.TempDir(), []string{"TERM=dumb"}, "dashboard")
	x.leaves(2)
	x.shows("the full screen needs an interactive terminal")
	x = openTerminal(t, t.TempDir(), nil, "--base", "nowhere")
	x.leaves(3)
	x.shows("this App is not paired with any Base; pair first")
}

// Without colour and without UTF-8 the screen says the same.
func TestTheDashboardNeedsNeitherColourNorUTF8(t *testing.T) {
	netnstest.Require(t)
	startBase(t, "attic")
	for _, environment := range [][]string{{"NO_COLOR=1"}, {"TERM=vt220"}, {"LANG=C"}} {
		x := openTerminal(t, t.TempDir(), environment, "dashboard")
		x.shows("attic", "+ pairing open", "Press Enter to pair")
		x.cells(func(cell *uv.Cell) {
			switch {
			case environment[0] != "LANG=C" && (cell.Style.Fg != nil || cell.Style.Bg != nil):
				t.Errorf("%v: %q is coloured", environment, cell.Content)
			case environment[0] == "LANG=C" && strings.ContainsFunc(cell.Content, func(r rune) bool { return r < ' ' || r > '~' }):
				t.Errorf("%v: there is %q", environment, cell.Content)
			}
		})
		x.types("q")
		x.leaves(0)
	}
}

// deafPort swallows confirmations while it is told to.
type deafPort struct {
	helperclient.Port
	deaf *atomic.Bool
}

var errDeaf = errors.New("nothing is heard")

func (d deafPort) Stream(ctx context.Context, request *systemv1.SystemRequest, receive func(*systemv1.SystemReply) error) error {
	if request.GetConfirmTry() != nil && d.deaf.Load() {
		return errDeaf
	}
	return d.Port.Stream(ctx, request, receive)
}

func TestAnOwnerRunsAnApplianceFromTheDashboard(t *testing.T) {
	netnstest.Require(t)
	deaf := &atomic.Bool{}
	a, err := appliancetest.Start(func(p helperclient.Port) helperclient.Port { return deafPort{p, deaf} })
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := a.Stop(); err != nil {
			t.Error(err)
		}
	}()
	dir := t.TempDir()
	if err := pairInProcess(a, dir+"/app", "Laptop", basev1.Role_ROLE_OWNER); err != nil {
		t.Fatal(err)
	}
	a.Machine.Ban(bruteforce.Ban{Jail: "sshd", Addr: netip.MustParseAddr("192.0.2.7"), Since: time.Now(), Until: time.Now().Add(time.Hour)})
	a.Machine.Drift(&basev1.Finding{Id: "port-9999", Severity: basev1.Finding_SEVERITY_CRITICAL, Title: "Something is open",
		Expected: "closed", Found: "open", Why: "Because.", Fix: "It is closed.", Fixable: true})
	app, err := client.New(client.Options{Dir: dir + "/app", NoDiscovery: true})
	if err != nil {
		t.Fatal(err)
	}
	session, err := app.Open("")
	if err != nil {
		t.Fatal(err)
	}
	defer session.Close()
	yes := func([]client.PostureChange) (bool, error) { return true, nil }
	// An App ends before it has confirmed its change.
	deaf.Store(true)
	ctx, giveUp := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		_, err := session.Apply(ctx, client.Change{Edit: client.Expose("electrum", client.Opening{For: 24 * time.Hour}), Approve: yes})
		ended <- err
	}()

	x := openTerminal(t, dir, nil)
	x.shows("A change is on trial: undone in", "port 50002  electrum, ", "[critical] Something is open", "Bans     1: 192.0.2.7, 59 min")
	giveUp()
	if err := <-ended; err == nil {
		t.Error("the change was confirmed by the App that ended")
	}
	deaf.Store(false)
	x.types("c")
	x.answers("[opens] The Electrum API will be reachable for 1 day on port 50002.", "y")
	x.shows("The change is confirmed and stays in force.", "electrum, 23 h 59 min left")

	x.types("f")
	x.answers("It is closed.", "y")
	x.shows("Fixed.", "no findings")
	x.types("b")
	x.answers("[opens] The ban of 192.0.2.7 will be lifted.", "y")
	x.shows("The ban of 192.0.2.7 is lifted.", "Bans     none")
	x.types("e")
	x.answers("The Electrum API will be closed on port 50002", "y")
	x.shows("Closed. The Base has signed that this is in force.")

	// A habitual yes locks nothing down.
	x.types("L")
	x.answers("LOCK DOWN", "y")
	x.types("n")
	x.showsWell("", "Nothing was changed.")
	x.types("L")
	x.answers("LOCK DOWN", "L")
	x.shows("The Base is locked down and has signed that.", "Locked down: only this App's channel is open")
	x.types("U")
	x.answers("The lockdown will be lifted", "y")
	x.showsWell("", "The lockdown is lifted.")

	view, err := session.Posture(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if e := view.Effective(); e.Lockdown || len(e.Endpoints) != 1 {
		t.Errorf("in the end it is %+v", e)
	}

	// The Base goes away, a sentence says so, and it is found again by itself.
	a.Shut()
	x.shows("no answer", "Asked again in")
	a.Open()
	x.showsWell("")
	x.types("q")
	x.leaves(0)
}
