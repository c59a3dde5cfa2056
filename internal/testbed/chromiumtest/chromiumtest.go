//go:build linux

// Package chromiumtest drives Debian's Chromium for tests of the App's window, and for its
// measurements. Each browser is a process of the test's own, with a fresh profile that is removed
// at its end, and an ordinary user even where the test is root: the App refuses to run as root and
// answers nobody but its own user.
//
//	browser := chromiumtest.Start(t, chromiumtest.Options{})
//	tab := browser.Tab()
//	tab.Open("http://127.0.0.1:8080/")
//	tab.AwaitText("Paired")
//
// A tab waits for conditions, each until [Patience] is over. Where a test fails, [Tab] leaves a
// picture and the text of its page in build/window.
package chromiumtest

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/chromedp/chromedp"
)

// Program is Chromium itself. Debian's script before it reads settings of the machine and of the
// user, and writes into a home.
const Program = "/usr/lib/chromium/chromium"

// Patience bounds each wait. Only a test that fails reaches it: it is far more than a quiet machine
// needs, for one that has much else to do.
const Patience = 2 * time.Minute

// UserID is the user and group that browser and App have where the test is root. It is nobody's, and not
// 65534, which stands for all users whom a namespace does not have.
const UserID = 54321

// T is what a browser needs of a test, *testing.T. A measurement is another one.
type T interface {
	Helper()
	Name() string
	Logf(format string, args ...any)
	Errorf(format string, args ...any)
	Fatal(args ...any)
	Fatalf(format string, args ...any)
	Skip(args ...any)
	Failed() bool
	Cleanup(func())
	TempDir() string
}

// Options choose a browser. The zero value is what a person has.
type Options struct {
	// UserID replaces [UserID]: another user of the same computer. Only root can choose.
	UserID uint32
	// Arguments are further ones of Chromium's, without the dashes, such as
	// "host-resolver-rules=MAP home.example 127.0.0.1".
	Arguments []string
	// Folder of the pictures of failed tests; empty: build/window of the repository.
	Failures string
}

// Require skips a test where there is no Chromium. In CI it fails instead.
func Require(t T) {
	t.Helper()
	if _, err := os.Stat(Program); err == nil {
		return
	}
	const what = "Chromium is missing; install Debian's package chromium (scripts/setup-tests)"
	if os.Getenv("CI") != "" {
		t.Fatal(what)
	}
	t.Skip(what)
}

// As has a command run as an ordinary user where this process is root.
func As(command *exec.Cmd, user uint32) {
	if command.SysProcAttr == nil {
		command.SysProcAttr = &syscall.SysProcAttr{}
	}
	command.SysProcAttr.Pdeathsig = syscall.SIGKILL
	if os.Geteuid() == 0 {
		command.SysProcAttr.Credential = &syscall.Credential{Uid: user, Gid: user}
	}
}

// Home makes a folder that belongs to that user, and is removed with the test. It lies directly
// below the system's folder for temporary files, since t.TempDir is closed to other users.
func Home(t T, user uint32) string {
	t.Helper()
	folder, err := os.MkdirTemp("", "window-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { removeAll(t, folder) })
	if os.Geteuid() == 0 {
		if err := os.Chown(folder, int(user), int(user)); err != nil {
			t.Fatal(err)
		}
	}
	return folder
}

// removeAll removes a folder in which processes that are about to end may still write.
func removeAll(t T, folder string) {
	t.Helper()
	err := os.RemoveAll(folder)
	for end := time.Now().Add(Patience); err != nil && time.Now().Before(end); err = os.RemoveAll(folder) {
		time.Sleep(10 * time.Millisecond)
	}
	if err != nil {
		t.Errorf("remove %s: %v", folder, err)
	}
}

// Browser is a running Chromium.
type Browser struct {
	t        T
	ctx      context.Context // of the browser; a tab's is its child
	failures string

	mu   sync.Mutex
	tabs int
}

// Start starts a browser, which ends with the test.
func Start(t T, options Options) *Browser {
	t.Helper()
	Require(t)
	if options.UserID == 0 {
		options.UserID = UserID
	}
	home := Home(t, options.UserID)
	// A list of its own, since chromedp's has switches that a person does not have, such as those
	// that keep a hidden page's timers going.
	allocator := []chromedp.ExecAllocatorOption{
		chromedp.ExecPath(Program),
		chromedp.NoInheritEnv,
		// A Chromium that is killed leaves its socket in the folder for temporary files.
		chromedp.Env("HOME="+home, "TMPDIR="+home, "PATH=/usr/bin:/bin", "LANG=C.UTF-8", "TZ=UTC"),
		chromedp.Flag("user-data-dir", filepath.Join(home, "profile")),
		chromedp.Headless, chromedp.NoFirstRun, chromedp.NoDefaultBrowserCheck,
		chromedp.DisableGPU,
		// Nothing asks the internet for anything.
		chromedp.Flag("disable-background-networking", true), chromedp.Flag("disable-component-update", true),
		chromedp.Flag("disable-sync", true), chromedp.Flag("disable-breakpad", true), chromedp.Flag("no-pings", true),
		chromedp.Flag("disable-extensions", true), chromedp.Flag("disable-default-apps", true),
		chromedp.Flag("password-store", "basic"),
		chromedp.Flag("force-color-profile", "srgb"), chromedp.Flag("hide-scrollbars", true),
		chromedp.ModifyCmdFunc(func(command *exec.Cmd) {
			command.Dir = home
			As(command, options.UserID)
		}),
	}
	if !sandboxed() {
		allocator = append(allocator, chromedp.NoSandbox)
	}
	for _, argument := range options.Arguments {
		name, value, given := strings.Cut(argument, "=")
		if given {
			allocator = append(allocator, chromedp.Flag(name, value))
		} else {
			allocator = append(allocator, chromedp.Flag(name, true))
		}
	}
	root, end := chromedp.NewExecAllocator(context.Background(), allocator...)
	t.Cleanup(end)
	b := &Browser{t: t, failures: options.Failures}
	var stop context.CancelFunc
	b.ctx, stop = chromedp.NewContext(root, chromedp.WithErrorf(func(string, ...any) {}), chromedp.WithLogf(func(string, ...any) {}))
	t.Cleanup(stop)
	if err := within(b.ctx, func(context.Context) error { return chromedp.Do(b.ctx) }); err != nil {
		t.Fatalf("start Chromium: %v", err)
	}
	return b
}

// sandboxed tells whether Chromium can make the namespaces of its sandbox as an ordinary user.
// In many containers nobody can.
var sandboxed = sync.OnceValue(func() bool {
	try := exec.Command("/bin/true")
	As(try, UserID)
	try.SysProcAttr.Cloneflags = syscall.CLONE_NEWUSER | syscall.CLONE_NEWPID | syscall.CLONE_NEWNET
	return try.Run() == nil
})

// within runs f, which ends with its context, and gives up when [Patience] is over.
func within(parent context.Context, f func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(parent, Patience)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- f(ctx) }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return fmt.Errorf("nothing after %v: %w", Patience, ctx.Err())
	}
}

// folder returns where the pictures of failed tests go.
func (b *Browser) folder() (string, error) {
	if b.failures != "" {
		return b.failures, nil
	}
	here, err := os.Getwd()
	for err == nil {
		if _, gone := os.Stat(filepath.Join(here, "go.mod")); gone == nil {
			return filepath.Join(here, "build", "window"), nil
		} else if !errors.Is(gone, fs.ErrNotExist) || here == "/" {
			return "", gone
		}
		here = filepath.Dir(here)
	}
	return "", err
}
