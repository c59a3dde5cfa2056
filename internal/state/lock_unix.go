//go:build unix

package state

import (
	"errors"
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
)

const noFollow = unix.O_NOFOLLOW

func tryLock(file *os.File) error {
	err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return ErrInUse
	}
	if err != nil {
		return reason.Errorf("lock %s: %w", file.Name(), err)
	}
	return nil
}

func unlock(file *os.File) error { return unix.Flock(int(file.Fd()), unix.LOCK_UN) }

func checkOwner(path string, info fs.FileInfo) error {
	if stat, ok := info.Sys().(*syscall.Stat_t); ok && int(stat.Uid) != os.Geteuid() {
		return reason.Errorf("%w: %s belongs to user %d, and this program runs as user %d; run it as the owner", ErrMode, path, stat.Uid,
			os.Geteuid())
	}
	return nil
}
