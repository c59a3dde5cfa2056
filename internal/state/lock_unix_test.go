//go:build unix

package state

import (
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// A program that is being started has a copy of each open file until it runs.
func TestAReleasedLockIsFreeThoughAStartingProgramHasItsFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.lock")
	first, err := takeLock(path, 0)
	if err != nil {
		t.Fatal(err)
	}
	inherited, err := unix.Dup(int(first.file.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close(inherited) }()
	if err := first.release(); err != nil {
		t.Fatal(err)
	}
	second, err := takeLock(path, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := second.release(); err != nil {
		t.Fatal(err)
	}
}
