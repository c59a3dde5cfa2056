//go:build linux

// Package windowtest runs the App's window as a process of its own, for a browser of package
// chromiumtest: the program that users have, as an ordinary user, with a stand-in in the place of
// the browser that it would start. The stand-in writes down what it was asked to open.
//
//	app := windowtest.Start(t, windowtest.Options{Dir: dir})
//	tab.Open(app.Enter())
package windowtest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/BitBoxSwiss/bitbox-base/client"
	"github.com/BitBoxSwiss/bitbox-base/internal/testbed/appliancetest"
	"github.com/BitBoxSwiss/bitbox-base/internal/testbed/chromiumtest"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
)

// repository is the top of the source tree, from the place of this file.
var repository = func() string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Join(filepath.Dir(file), "../../..")
}()

// Change is a piece of the source that a broken variant has otherwise.
type Change struct{ File, Old, New string }

// builds has the programs that were built, by the changes in them.
var builds struct {
	sync.Mutex
	folder string
	made   map[string]func() (string, error)
}

// Build builds the App, once for each set of changes, and returns its path. Every user may start it.
func Build(t chromiumtest.T, changes ...Change) string {
	t.Helper()
	builds.Lock()
	if builds.made == nil {
		builds.made = map[string]func() (string, error){}
	}
	key := fmt.Sprintf("%q", changes)
	made, known := builds.made[key]
	if !known {
		number := len(builds.made)
		made = sync.OnceValues(func() (string, error) { return build(number, changes) })
		builds.made[key] = made
	}
	builds.Unlock()
	program, err := made()
	if err != nil {
		t.Fatalf("build the App: %v", err)
	}
	return program
}

// Clear removes what was built, at the end of all tests.
func Clear() error {
	builds.Lock()
	defer builds.Unlock()
	if builds.folder == "" {
		return nil
	}
	defer func() { builds.folder, builds.made = "", nil }()
	return os.RemoveAll(builds.folder)
}

func build(number int, changes []Change) (string, error) {
	builds.Lock()
	var err error
	if builds.folder == "" {
		if builds.folder, err = os.MkdirTemp("", "window-build-"); err == nil {
			err = os.Chmod(builds.folder, 0o755)
		}
	}
	folder := builds.folder
	builds.Unlock()
	if err != nil {
		return "", err
	}
	program := filepath.Join(folder, fmt.Sprint("bitbox-app-", number))
	arguments := []string{"build", "-o", program}
	if len(changes) > 0 {
		overlay, err := overlay(filepath.Join(folder, fmt.Sprint("overlay-", number)), changes)
		if err != nil {
			return "", err
		}
		arguments = append(arguments, "-overlay", overlay)
	}
	command := exec.Command("go", append(arguments, "./cmd/bitbox-app")...)
	command.Dir = repository
	command.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := command.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	return program, nil
}

// overlay has the compiler read changed files in the place of the repository's.
func overlay(folder string, changes []Change) (string, error) {
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return "", err
	}
	replace := map[string]string{}
	for n, c := range changes {
		path := filepath.Join(repository, c.File)
		from, changed := replace[path]
		if !changed {
			from = path
			replace[path] = filepath.Join(folder, fmt.Sprint(n, filepath.Ext(path)))
		}
		text, err := os.ReadFile(from)
		if err != nil {
			return "", err
		}
		if bytes.Count(text, []byte(c.Old)) != 1 {
			return "", fmt.Errorf("%s has %q %d times, want once: the broken variant no longer breaks what it should", c.File, c.Old,
				bytes.Count(text, []byte(c.Old)))
		}
		if err := os.WriteFile(replace[path], bytes.Replace(text, []byte(c.Old), []byte(c.New), 1), 0o644); err != nil {
			return "", err
		}
	}
	list, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return "", err
	}
	file := filepath.Join(folder, "overlay.json")
	return file, os.WriteFile(file, list, 0o644)
}

// Options of an App's window.
type Options struct {
	// Dir is the App's folder; empty: a new one.
	Dir string
	// Program is the App's; empty: built from the source as it is.
	Program string
	// Arguments are further ones of the command.
	Arguments []string
}

// App is a window's process.
type App struct {
	t       chromiumtest.T
	options Options
	home    string
	command *exec.Cmd
	output  *output
	ended   chan struct{}

	mu    sync.Mutex
	entry string // the address with the ticket that was opened last
}

// Start starts the window of an App, which ends with the test.
func Start(t chromiumtest.T, options Options) *App {
	t.Helper()
	if options.Program == "" {
		options.Program = Build(t)
	}
	a := &App{t: t, options: options, home: chromiumtest.Home(t, chromiumtest.UserID), output: &output{}, ended: make(chan struct{})}
	if a.options.Dir == "" {
		a.options.Dir = filepath.Join(a.home, "app")
	}
	bin := filepath.Join(a.home, "bin")
	err := os.Mkdir(bin, 0o755)
	if err == nil {
		err = os.WriteFile(filepath.Join(bin, "chromium"), []byte(standIn), 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	a.command = a.Command("window")
	a.command.Stdout, a.command.Stderr = a.output, a.output
	if err := a.command.Start(); err != nil {
		t.Fatalf("start the App: %v", err)
	}
	go func() {
		defer close(a.ended)
		_ = a.command.Wait()
	}()
	t.Cleanup(func() {
		a.Stop()
		if t.Failed() {
			t.Logf("the App has printed:\n%s", a.Printed())
		}
	})
	return a
}

// standIn is in the place of a browser. It says what it is to open, whole or not at all.
const standIn = "#!/bin/sh\nprintf '%s\\n' \"$@\" >\"$HOME/opened.new\" && mv \"$HOME/opened.new\" \"$HOME/opened\"\n"

// Command is the App with other arguments, as the same user with the same folder.
func (a *App) Command(arguments ...string) *exec.Cmd {
	command := exec.Command(a.options.Program, append(append(arguments, a.options.Arguments...), "--dir", a.options.Dir)...)
	command.Env = []string{"HOME=" + a.home, "PATH=" + filepath.Join(a.home, "bin") + ":/usr/bin:/bin", "DISPLAY=:0", "LANG=en_GB.UTF-8"}
	command.Dir = a.home
	chromiumtest.As(command, chromiumtest.UserID)
	return command
}

// Entry waits until the App has a browser opened, and returns the address: it has a ticket that is
// good once.
func (a *App) Entry() string {
	a.t.Helper()
	path := filepath.Join(a.home, "opened")
	for end := time.Now().Add(chromiumtest.Patience); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		text, err := os.ReadFile(path)
		if err != nil {
			if !a.Running() {
				break
			}
			continue
		}
		if err := os.Remove(path); err != nil {
			a.t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			if address, found := strings.CutPrefix(strings.TrimSpace(line), "--app="); found {
				a.mu.Lock()
				defer a.mu.Unlock()
				a.entry = address
				return address
			}
		}
		a.t.Fatalf("the App has a browser started with %q", text)
	}
	a.t.Fatalf("the App opens no browser; it has printed:\n%s", a.Printed())
	return ""
}

// Again starts the window a second time, which hands over to the process that runs, and returns the
// address of its new ticket.
func (a *App) Again() string {
	a.t.Helper()
	second := a.Command("window")
	ctx, cancel := context.WithTimeout(context.Background(), chromiumtest.Patience)
	defer cancel()
	var printed bytes.Buffer
	second.Stdout, second.Stderr = &printed, &printed
	ended := make(chan error, 1)
	if err := second.Start(); err != nil {
		a.t.Fatal(err)
	}
	go func() { ended <- second.Wait() }()
	select {
	case err := <-ended:
		if err != nil {
			a.t.Fatalf("a second start: %v: %s", err, &printed)
		}
	case <-ctx.Done():
		_ = second.Process.Kill()
		<-ended
		a.t.Fatalf("a second start does not end; it has printed %s", &printed)
	}
	return a.Entry()
}

// Origin returns where the window is, such as http://127.0.0.1:45678, once it was opened.
func (a *App) Origin() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	origin, _, _ := strings.Cut(a.entry, "/enter")
	return origin
}

// Open has a tab enter, and waits until it is in.
func (a *App) Open(tab *chromiumtest.Tab) {
	a.t.Helper()
	tab.Open(a.Entry())
	tab.Await("the ticket never lets it in", "location.pathname !== '/enter' && document.querySelector('meta[name=proof]')")
}

// Running tells whether the process runs.
func (a *App) Running() bool {
	select {
	case <-a.ended:
		return false
	default:
		return true
	}
}

// Dir is the App's folder.
func (a *App) Dir() string { return a.options.Dir }

// Process is the App's process id.
func (a *App) Process() int { return a.command.Process.Pid }

// Printed returns what the App has printed.
func (a *App) Printed() string { return a.output.String() }

// Stop asks the process to end, and waits for it.
func (a *App) Stop() { a.end(syscall.SIGTERM) }

// Kill ends the process as a crash does.
func (a *App) Kill() { a.end(syscall.SIGKILL) }

func (a *App) end(with syscall.Signal) {
	a.t.Helper()
	if !a.Running() {
		return
	}
	_ = a.command.Process.Signal(with) // it may just have ended
	select {
	case <-a.ended:
	case <-time.After(chromiumtest.Patience):
		_ = a.command.Process.Kill()
		<-a.ended
		a.t.Errorf("the App does not end; it has printed:\n%s", a.Printed())
	}
}

// output keeps what a process prints, up to a limit.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

const longestOutput = 1 << 20 // bytes

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.text.Len()+len(b) > longestOutput {
		return 0, io.ErrShortWrite
	}
	return o.text.Write(b)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// BaseName is what an App that was paired by Pair calls its Base. No page has this word by itself.
const BaseName = "Attic"

// Pair pairs an App with an appliance, in a folder that then belongs to the user of windows. An
// empty dir is a new one.
func Pair(t chromiumtest.T, base *appliancetest.Appliance, dir, name string, role basev1.Role) string {
	t.Helper()
	return PairAs(t, base, dir, BaseName, name, role)
}

// PairAs is Pair with another name of the Base.
func PairAs(t chromiumtest.T, base *appliancetest.Appliance, dir, baseName, name string, role basev1.Role) string {
	t.Helper()
	if dir == "" {
		dir = filepath.Join(chromiumtest.Home(t, chromiumtest.UserID), "app")
	}
	app, err := client.New(client.Options{Dir: dir, Name: name, NoDiscovery: true})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), chromiumtest.Patience)
	defer cancel()
	let := make(chan error, 1)
	_, err = app.Pair(ctx, []string{base.Address()}, client.PairOptions{
		Name:      baseName,
		Requested: func(number string) { go func() { let <- base.Let(ctx, number, role) }() },
		Confirm:   func(context.Context, client.Code) (bool, error) { return true, nil },
	})
	if err = errors.Join(err, <-let); err != nil {
		t.Fatalf("pair %s: %v", name, err)
	}
	Give(t, dir)
	return dir
}

// Give gives a folder, and all that is in it, to the user of windows.
func Give(t chromiumtest.T, dir string) {
	t.Helper()
	if os.Geteuid() != 0 {
		return
	}
	err := filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, chromiumtest.UserID, chromiumtest.UserID)
	})
	if err != nil {
		t.Fatal(err)
	}
}
