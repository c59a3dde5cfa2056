// Command demo plays the whole story of a Base and its Apps with the two real programs,
// without a person and without a terminal: discover, pair, call, move, watch, revoke, be
// refused. It prints what is typed and what is answered, and ends with 0 only if every step
// succeeded.
//
// It takes the part of the person at the Base (accept a number, read the code on the display,
// confirm) by reading the Base's log. On Linux, as root or with user namespaces, everything
// runs in its own network namespace, so that nothing is announced to the real network.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/BitBoxSwiss/bitbox-base/internal/testbed/netnstest"
)

// limit bounds the whole story. It takes some seconds.
const limit = 2 * time.Minute

func main() {
	code, err := run()
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		code = 1
	}
	os.Exit(code)
}

func run() (exitCode int, err error) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	root, err := moduleRoot(ctx)
	if err != nil {
		return 1, err
	}
	if !netnstest.Inside() {
		if err := build(ctx, root); err != nil {
			return 1, err
		}
	}
	exitCode, done, err := netnstest.Enter()
	switch {
	case done:
		return exitCode, nil
	case errors.Is(err, netnstest.ErrUnavailable):
		fmt.Printf("(%v. The Base will be announced on the real network for some seconds.)\n", err)
	case err != nil:
		return 1, err
	}
	return 0, tell(ctx, filepath.Join(root, "build"))
}

func moduleRoot(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}").Output()
	if err != nil {
		return "", fmt.Errorf("ask go for the root of this module (run the demo inside of it): %w", err)
	}
	return strings.TrimSpace(string(out)), nil
}

// build makes sure that the programs in build/ are those of the source.
func build(ctx context.Context, root string) error {
	command := exec.CommandContext(ctx, "make", "--no-print-directory", "--silent", "-C", root, "build")
	command.Stdout, command.Stderr = os.Stdout, os.Stderr
	if err := command.Run(); err != nil {
		return fmt.Errorf("build the two programs: %w", err)
	}
	return nil
}

// tell is the story, step by step.
func tell(ctx context.Context, programs string) (err error) {
	begun := time.Now()
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	dir, err := os.MkdirTemp("", "bitbox-demo-")
	if err != nil {
		return fmt.Errorf("make a directory for the demo: %w", err)
	}
	s := &story{ctx: ctx, programs: programs, dir: dir}
	defer func() { err = errors.Join(err, s.end(), os.RemoveAll(dir)) }()
	for n, step := range []struct {
		title string
		do    func(*story) error
	}{
		{"A Base starts. It has no terminal, so its log is its display.", (*story).start},
		{"An App finds it on the local network.", (*story).discover},
		{"They pair: the number is accepted at the Base, the code compared on both sides.", (*story).pairOwner},
		{"A new process of the App connects again, and asks how the Base does.", (*story).status},
		{"The Base restarts on another port, and the App finds it again.", (*story).move},
		{"The owner watches, opens the pairing window, and a second App is let in as viewer.", (*story).pairViewer},
		{"The second App may look, and nothing else.", (*story).viewer},
		{"The owner revokes the second App.", (*story).revoke},
		{"The second App is refused.", (*story).refused},
	} {
		fmt.Printf("\n%d. %s\n\n", n+1, step.title)
		if err := step.do(s); err != nil {
			return fmt.Errorf("step %d: %w", n+1, err)
		}
	}
	fmt.Printf("\nEvery step did what it should, in %.1f s.\n", time.Since(begun).Seconds())
	return nil
}
