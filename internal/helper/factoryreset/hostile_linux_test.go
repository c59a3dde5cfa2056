package factoryreset

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// levels is how deep an intruder nests folders. A path to the last one would be far longer than
// the kernel accepts.
const levels = 100_000

// nest makes folders inside each other below a folder.
func nest(t *testing.T, folder string, levels int) {
	t.Helper()
	directory, err := openDirectory(unix.AT_FDCWD, folder)
	for range levels {
		if err == nil {
			err = unix.Mkdirat(directory, "d", 0o700)
		}
		if err != nil {
			break
		}
		inner, openErr := openDirectory(directory, "d")
		_ = unix.Close(directory)
		directory, err = inner, openErr
	}
	if err != nil {
		t.Fatal(err)
	}
	_ = unix.Close(directory)
}

// crowd makes many files in a folder.
func crowd(t *testing.T, folder string, files int) {
	t.Helper()
	for n := range files {
		descriptor, err := unix.Open(filepath.Join(folder, strconv.Itoa(n)), unix.O_CREAT|unix.O_WRONLY|unix.O_CLOEXEC, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		_ = unix.Close(descriptor)
	}
}

// limited runs a role with few descriptors, and returns its peak memory.
func limited(t *testing.T, name, root string) (kibibytes int64, err error) {
	t.Helper()
	command := exec.Command("prlimit", "--nofile=32", "--", os.Args[0])
	command.Env = role(name, root).Env
	var complaint bytes.Buffer
	command.Stderr = &complaint
	if err := command.Run(); err != nil {
		return 0, fmt.Errorf("%w: %.200s", err, complaint.String())
	}
	return command.ProcessState.SysUsage().(*syscall.Rusage).Maxrss, nil
}

// maxMemory is what taking apart may need, whatever is taken apart: most of it is Go's own, for
// this test binary.
const maxMemory = 48 << 10 // KiB

// An intruder in a daemon leaves folders nested without end, or files without number. The reset
// puts them aside without reading them, and takes them apart with a few descriptors.
func TestFilesOfAnIntruderDoNotDelayAReset(t *testing.T) {
	for name, leave := range map[string]func(*testing.T, string, int){"nested folders": nest, "many files": crowd} {
		t.Run(name, func(t *testing.T) {
			// In memory: the question is whether it can be done, not how fast a disk is.
			t.Setenv("TMPDIR", "/dev/shm")
			root := used(t)
			p := planIn(root)
			leave(t, p.Folders[0], levels)
			leave(t, p.Homes[0], levels/100)
			if err := errors.Join(Prepare(p.Directory), Order(p.Directory, ordered)); err != nil {
				t.Fatal(err)
			}
			if err := finish(p); err != nil {
				t.Fatal(err)
			}
			if got := files(t, root); !same(got, keeps) {
				t.Errorf("it left %v", got)
			}
			// It has not gone through them: everything is still there.
			lying := aside(t, root)
			for _, folder := range lying {
				if entries, err := os.ReadDir(folder); err != nil || len(entries) == 0 {
					t.Errorf("%s was emptied, so the reset's cost depends on what is in it: %v", folder, err)
				}
			}
			if len(lying) == 0 {
				t.Error("nothing lies aside")
			}
			memory, err := limited(t, "discard", root)
			if err != nil {
				t.Fatal(err)
			}
			if lying := aside(t, root); lying != nil {
				t.Errorf("%v still lies aside", lying)
			}
			if memory > maxMemory {
				t.Errorf("it took %d KiB of memory", memory)
			}
			t.Logf("%d KiB of memory", memory)
		})
	}
}

// The attack works on code that holds a descriptor for each level.
func TestNestedFoldersDefeatARecursiveRemoval(t *testing.T) {
	root := used(t)
	folder := planIn(root).Folders[0]
	nest(t, folder, levels/100)
	if _, err := limited(t, "os.RemoveAll", root); err == nil {
		t.Error("os.RemoveAll removed them with few descriptors: the attack shows nothing")
	}
	if err := emptyInPlace(context.Background(), folder); err != nil { // or the end of the test would fail as well
		t.Fatal(err)
	}
}

// usedUp is a child in its own mount namespace: on a small file system an attacker uses up all
// inodes and all space, and then the reset is ordered and finished.
func usedUp(root string, prepared bool) error {
	if err := unix.Mount("reset-test", root, "tmpfs", 0, "nr_inodes=200,size=1m"); err != nil {
		return err
	}
	p := planIn(root)
	err := errors.Join(os.MkdirAll(p.Directory, 0o755), os.MkdirAll(p.Folders[0], 0o700), os.MkdirAll(p.Homes[0], 0o700),
		os.WriteFile(filepath.Join(p.Directory, "system.db"), []byte("secret"), 0o600), os.WriteFile(p.Keys[0], []byte("secret"), 0o600))
	if err == nil && prepared {
		err = Prepare(p.Directory)
	}
	if err != nil {
		return err
	}
	full := false
	for n := 0; !full; n++ {
		err := os.WriteFile(filepath.Join(p.Folders[0], strconv.Itoa(n)), bytes.Repeat([]byte("x"), 1<<14), 0o600)
		full = errors.Is(err, unix.ENOSPC)
		if err != nil && !full {
			return err
		}
	}
	full = false
	for n := 0; !full; n++ {
		err := os.Symlink("x", filepath.Join(p.Homes[0], strconv.Itoa(n)))
		full = errors.Is(err, unix.ENOSPC)
		if err != nil && !full {
			return err
		}
	}
	if err := errors.Join(Order(p.Directory, ordered), Finish(p)); err != nil {
		return err
	}
	if r, ok := Last(p.Directory); !ok || r != ordered {
		return fmt.Errorf("the record is %+v, %v", r, ok)
	}
	for _, folder := range []string{p.Directory, p.Folders[0], p.Homes[0]} {
		if err := os.WriteFile(filepath.Join(folder, "new"), bytes.Repeat([]byte("x"), 1<<14), 0o600); err != nil {
			return fmt.Errorf("there is no room for a new Base: %w", err)
		}
	}
	return nil
}

func TestAResetNeedsNoInodeAndNoRoom(t *testing.T) {
	if os.Geteuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("this test needs root, and CI must run it")
		}
		t.Skip("SKIPPED, not passed: this test mounts a small file system and needs root")
	}
	run := func(name string) (string, error) {
		command := role(name, t.TempDir())
		command.Stderr = nil
		command.SysProcAttr = &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNS}
		out, err := command.CombinedOutput()
		return string(out), err
	}
	if out, err := run("used up"); err != nil {
		t.Errorf("%v: %s", err, out)
	}
	// Without the file that is prepared in advance, there is no inode for the order.
	if out, err := run("used up, unprepared"); err == nil || !strings.Contains(out, "no space left") {
		t.Errorf("without its file the order succeeds, so this test shows nothing: %v %s", err, out)
	}
}
