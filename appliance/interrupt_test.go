//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/BitBoxSwiss/bitbox-base/test/stage"
)

const (
	// played has the binary of the tests be the program.
	played = "BITBOX_BASE_APPLIANCE_PLAYED"
	ctrlC  = "\x03"
)

func TestMain(m *testing.M) {
	if os.Getenv(played) != "" {
		main()
		return
	}
	os.Exit(stage.Main(m))
}

// visitor is a person at a terminal (pty(7)) in which the appliance runs, with a network of its own.
type visitor struct {
	t       *testing.T
	command *exec.Cmd
	master  *os.File
	mu      sync.Mutex
	shown   strings.Builder
}

func visit(t *testing.T, deb string) *visitor {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	number, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err = errors.Join(err, unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0),
		unix.IoctlSetWinsize(int(master.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 25, Col: 80})); err != nil {
		t.Fatal(err)
	}
	// It stays open: the kernel drops what nobody has read when the last one closes it.
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	v := &visitor{t: t, master: master, command: exec.Command("unshare", "--net", "--", program, deb)}
	v.command.Env = append(os.Environ(), played+"=1", "TERM=linux")
	v.command.Stdin, v.command.Stdout, v.command.Stderr = slave, slave, slave
	v.command.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := v.command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = v.command.Process.Kill() // of a failed test; the next stage clears up after it
		_, _ = v.command.Process.Wait()
		_ = slave.Close()
		_ = master.Close()
	})
	go func() {
		for buffer := make([]byte, 4096); ; {
			n, err := master.Read(buffer)
			v.mu.Lock()
			v.shown.Write(buffer[:n])
			v.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	return v
}

// screen is what can be read: all that was written after the screen was last cleared.
func (v *visitor) screen() string {
	v.mu.Lock()
	defer v.mu.Unlock()
	all := v.shown.String()
	return all[strings.LastIndex(all, asItWas)+1:]
}

// sees waits until one of some texts stands on the screen.
func (v *visitor) sees(texts ...string) {
	v.t.Helper()
	stage.Until(v.t, fmt.Sprintf("the terminal shows one of %q", texts), func() error {
		screen := v.screen()
		if !slices.ContainsFunc(texts, func(text string) bool { return strings.Contains(screen, text) }) {
			return fmt.Errorf("it shows %q", screen[max(0, len(screen)-500):])
		}
		return nil
	})
}

func (v *visitor) types(keys string) {
	v.t.Helper()
	if _, err := io.WriteString(v.master, keys); err != nil {
		v.t.Fatal(err)
	}
}

// places lists what the program has on this machine for its containers.
func (v *visitor) places() []string {
	v.t.Helper()
	var all []string
	for _, folder := range []string{"/run/bitbox-base-stage", "/run/netns", "/sys/fs/cgroup", "/sys/fs/cgroup/systemd"} {
		found, err := filepath.Glob(fmt.Sprintf("%s/bbstage-%d-*", folder, v.command.Process.Pid))
		if err != nil {
			v.t.Fatal(err)
		}
		all = append(all, found...)
	}
	return all
}

// holds waits until the program has something that could stay.
func (v *visitor) holds() {
	v.t.Helper()
	stage.Until(v.t, "the program has a place for its container", func() error {
		if v.places() == nil {
			return errors.New("it has none")
		}
		return nil
	})
}

// Ctrl-C ended the console and left a blank screen for half a minute: the program took it for a
// Base that stops.
func TestCtrlCSaysAtOnceThatTheApplianceEnds(t *testing.T) {
	stage.NeedRoot(t, "dpkg-deb", "unshare")
	t.Setenv("COMPRESSION", "none")
	deb, err := stage.MakePackage("0~test", t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	const prompt = "Press Enter."
	for _, c := range []struct {
		name  string
		reach func(*visitor)
		says  []string
	}{
		// The program of a step gets the same Ctrl-C, and may end at once by it.
		{"while it is made", func(v *visitor) { v.sees("Making a Debian") }, []string{endsSoon, ending}},
		{"before the console", func(v *visitor) { v.sees(prompt) }, []string{ending}},
		{"in the console", func(v *visitor) {
			v.sees(prompt)
			v.types("\r")
			v.sees("BitBox Base")
		}, []string{ending}},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := visit(t, deb)
			c.reach(v)
			v.holds()
			v.types(ctrlC)
			pressed := time.Now()
			v.sees(c.says...)
			if took := time.Since(pressed); took >= stopTime {
				t.Errorf("the screen said nothing for %v, as long as it waits for a Base that stops", took)
			}
			if err := v.command.Wait(); err != nil {
				t.Errorf("ended by its user, the program says %v:\n%s", err, v.screen())
			}
			if left := v.places(); left != nil {
				t.Errorf("left behind: %q", left)
			}
		})
	}
}

// The terminal sends Ctrl-C to the program of a step as well. This program may see how that ends
// before it gets its own signal.
func TestAStepThatCtrlCEndsIsNoError(t *testing.T) {
	ctx, press := context.WithCancel(t.Context())
	err := onStage(ctx, func(s *theatre) error {
		time.AfterFunc(noticeTime/10, press)
		s.Fatalf("make the network: signal: interrupt")
		return nil
	})
	if err != nil {
		t.Errorf("the one who ended it reads %v", err)
	}
	const broken = "the disk is full"
	err = onStage(t.Context(), func(s *theatre) error {
		s.Fatal(broken)
		return nil
	})
	if err == nil || err.Error() != broken {
		t.Errorf("a step that failed is told as %v", err)
	}
}
