package state

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// readVariable makes the test binary read the state at a path, see below.
const readVariable = "STATE_TEST_READ"

func readsTheValue(path string) error {
	return Read(path, standard, func(tx *Tx) error {
		if got := string(tx.Get("names", "one")); got != "Anna" {
			return errors.New("read " + got)
		}
		return nil
	})
}

func TestReadingWritesNothing(t *testing.T) {
	if path := os.Getenv(readVariable); path != "" {
		if err := readsTheValue(path); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(path, standard); err == nil {
			t.Fatal("the disk is not read-only")
		}
		return
	}
	dir := t.TempDir()

	// A directory that is not there.
	empty := false
	err := Read(filepath.Join(dir, "mistyped", "state.db"), standard, func(tx *Tx) error {
		empty = tx.Get("names", "one") == nil
		return nil
	})
	if err != nil || !empty {
		t.Errorf("a state that never was: %v", err)
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 0 {
		t.Errorf("reading made %v", entries)
	}

	// A read-only disk.
	path := filepath.Join(dir, "state.db")
	db := mustOpen(t, path)
	if err := db.Update(func(tx *Tx) error { return tx.Put("names", "one", []byte("Anna")) }); err != nil {
		t.Fatal(err)
	}
	if err := readsTheValue(path); !errors.Is(err, ErrInUse) {
		t.Errorf("read while another program may write: %v", err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("unshare", "-rm", "true").CombinedOutput(); err != nil {
		t.Skipf("SKIPPED, not passed: this user may not make a mount namespace: %s", out)
	}
	child := exec.Command("unshare", "-rm", "sh", "-c",
		`mount --bind "$1" "$1" && mount -o remount,ro,bind "$1" && exec "$2" -test.run '^TestReadingWritesNothing$'`, "sh", dir, self)
	child.Env = append(os.Environ(), readVariable+"="+path)
	if out, err := child.CombinedOutput(); err != nil {
		t.Errorf("on a read-only disk: %v\n%s", err, out)
	}

	// Open refuses these.
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := readsTheValue(path); !errors.Is(err, ErrMode) {
		t.Errorf("a file that others can read: %v", err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := readsTheValue(path); !errors.Is(err, ErrMissing) {
		t.Errorf("a state that was there before: %v", err)
	}
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a new file was made: %v", err)
	}
}
