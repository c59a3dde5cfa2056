package state

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/BitBoxSwiss/bitbox-base/internal/state/killtest"
)

// The test binary runs itself as the program that is killed, or that fills a disk.
const roleVariable = "BITBOX_STATE_TEST_ROLE"

func TestMain(m *testing.M) {
	switch os.Getenv(roleVariable) {
	case "":
		os.Exit(m.Run())
	case "writer":
		exit(writer(os.Args[1]))
	case "filler":
		exit(filler(os.Args[1]))
	case "limited filler":
		signal.Ignore(syscall.SIGXFSZ)
		if err := limitFiles(128 << 10); err != nil {
			exit(err)
		}
		exit(filler(os.Args[1]))
	case "tmpfs filler":
		// The mount is in this process's own namespace, and disappears with it.
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			exit(fmt.Errorf("make the mounts private: %w", err))
		}
		if err := unix.Mount("tmpfs", os.Args[1], "tmpfs", 0, "size=256k"); err != nil {
			exit(fmt.Errorf("mount a small disk: %w", err))
		}
		exit(filler(os.Args[1]))
	}
}

func exit(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

func child(role, dir string) *exec.Cmd {
	command := exec.Command(os.Args[0], dir)
	command.Env = append(os.Environ(), roleVariable+"="+role, "GOMAXPROCS=1")
	return command
}

const updates = 4

// writer makes a state and changes it, and reports each step. Each change touches many keys, one
// of which needs several pages.
func writer(dir string) error {
	db, err := Open(filepath.Join(dir, "state.db"), standard)
	if err != nil {
		return err
	}
	fmt.Println(0)
	for i := 1; i <= updates; i++ {
		if err := db.Update(func(tx *Tx) error { return put(tx, i) }); err != nil {
			return err
		}
		fmt.Println(i)
	}
	return db.Close()
}

func put(tx *Tx, i int) error {
	for key := range 5 {
		if err := tx.Put("small", strconv.Itoa(key), []byte(strconv.Itoa(i))); err != nil {
			return err
		}
	}
	return tx.Put("large", "key", bytes.Repeat([]byte{byte(i)}, i*3000))
}

// whole returns the step that the state has reached, and fails if it holds parts of two.
func whole(db *DB) (step int, err error) {
	err = db.View(func(tx *Tx) error {
		values := map[string]bool{}
		for key := range 5 {
			values[string(tx.Get("small", strconv.Itoa(key)))] = true
		}
		if len(values) != 1 {
			return fmt.Errorf("torn: %v", values)
		}
		for value := range values {
			step, _ = strconv.Atoi(value)
		}
		if large := tx.Get("large", "key"); !bytes.Equal(large, bytes.Repeat([]byte{byte(step)}, step*3000)) {
			return fmt.Errorf("torn: step %d with a large value of %d bytes", step, len(large))
		}
		return nil
	})
	return step, err
}

// lastLine is the last number that a program has printed, -1 if none.
func lastLine(t *testing.T, path string) int {
	t.Helper()
	printed, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	last := -1
	for scanner := bufio.NewScanner(bytes.NewReader(printed)); scanner.Scan(); {
		if last, err = strconv.Atoi(scanner.Text()); err != nil {
			t.Fatal(err)
		}
	}
	return last
}

// The creation of the state is included.
func TestKillAtEveryWriteLeavesTheOldStateOrTheNewOne(t *testing.T) {
	dir, steps := "", map[int]bool{}
	command := func(int) *exec.Cmd {
		dir = t.TempDir()
		output, err := os.Create(filepath.Join(dir, "output"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = output.Close() })
		c := child("writer", dir)
		c.Stdout, c.Stderr = output, os.Stderr
		return c
	}
	kills := killtest.AtEachWrite(t, command, func(n int) {
		said := lastLine(t, filepath.Join(dir, "output"))
		db, err := Open(filepath.Join(dir, "state.db"), standard)
		if err != nil {
			t.Fatalf("killed at write %d, having reported step %d: %v", n, said, err)
		}
		defer func() { _ = db.Close() }()
		step, err := whole(db)
		if err != nil || step < said || step > said+1 && said >= 0 {
			t.Fatalf("killed at write %d, having reported step %d, the state is at step %d: %v", n, said, step, err)
		}
		steps[step] = true
		if err := db.Update(func(tx *Tx) error { return put(tx, step+1) }); err != nil {
			t.Fatalf("killed at write %d: the next change: %v", n, err)
		}
		if got, err := whole(db); err != nil || got != step+1 {
			t.Fatalf("killed at write %d: after the next change the state is at step %d: %v", n, got, err)
		}
	})
	if kills < 10*updates || len(steps) != updates+1 {
		t.Fatalf("%d kills reached the steps %v; the test does not test anything", kills, steps)
	}
	t.Logf("%d kills", kills)
}

// filler changes the state until a write fails, and checks that the state is unchanged, both for
// itself and for the next program that opens it. Then it makes room, and continues.
func filler(dir string) error {
	path := filepath.Join(dir, "state.db")
	ballast := filepath.Join(dir, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 64<<10), 0o600); err != nil {
		return err
	}
	db, err := Open(path, standard)
	if err != nil {
		return err
	}
	failures := 0
	for i := 1; i < 200; i++ {
		err := db.Update(func(tx *Tx) error {
			if err := tx.Put("b", strconv.Itoa(i), make([]byte, 2000)); err != nil {
				return err
			}
			return tx.Put("b", "count", []byte(strconv.Itoa(i)))
		})
		if err == nil {
			continue
		}
		// bbolt does not wrap all of its errors.
		if !strings.Contains(err.Error(), unix.ENOSPC.Error()) && !strings.Contains(err.Error(), unix.EFBIG.Error()) {
			return fmt.Errorf("not the failure that was meant: %w", err)
		}
		if !strings.Contains(err.Error(), "disk full") {
			return fmt.Errorf("the error does not say what to do: %w", err)
		}
		failures++
		want := strconv.Itoa(i - 1)
		check := func() error {
			return db.View(func(tx *Tx) error {
				if got := string(tx.Get("b", "count")); got != want || tx.Get("b", strconv.Itoa(i)) != nil {
					return fmt.Errorf("after a failed write the count is %s, not %s", got, want)
				}
				return nil
			})
		}
		if err := check(); err != nil {
			return err
		}
		if err := db.Close(); err != nil {
			return err
		}
		if db, err = Open(path, standard); err != nil {
			return fmt.Errorf("after a failed write: %w", err)
		}
		if err := check(); err != nil {
			return err
		}
		if failures == 3 {
			break
		}
		i--
	}
	if failures != 3 {
		return errors.New("the disk did not become full")
	}
	// Make room again, by lifting the limit of the disk or of the file size.
	if err := os.Remove(ballast); err != nil {
		return err
	}
	if err := limitFiles(unix.RLIM_INFINITY); err != nil {
		return err
	}
	if err := db.Update(func(tx *Tx) error { return tx.Put("b", "after", nil) }); err != nil {
		return fmt.Errorf("with room again: %w", err)
	}
	return db.Close()
}

func limitFiles(size uint64) error {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_FSIZE, &limit); err != nil {
		return err
	}
	limit.Cur = min(size, limit.Max)
	return unix.Setrlimit(unix.RLIMIT_FSIZE, &limit)
}

func TestFullDiskLeavesTheOldState(t *testing.T) {
	t.Run("small disk", func(t *testing.T) {
		command := child("tmpfs filler", t.TempDir())
		command.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
		if os.Geteuid() != 0 {
			command.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
			command.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}}
			command.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}}
		}
		if output, err := command.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, output)
		}
	})
	t.Run("limit of a file's size", func(t *testing.T) {
		if output, err := child("limited filler", t.TempDir()).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, output)
		}
	})
}
