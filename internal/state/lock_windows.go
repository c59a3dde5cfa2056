package state

import (
	"errors"
	"io/fs"
	"os"

	"golang.org/x/sys/windows"

	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
)

const noFollow = 0

// lockOffset is far behind the text, so that others can read the text while we run.
const lockOffset = 1 << 30

func tryLock(file *os.File) error {
	err := windows.LockFileEx(windows.Handle(file.Fd()), windows.LOCKFILE_EXCLUSIVE_LOCK|windows.LOCKFILE_FAIL_IMMEDIATELY,
		0, 1, 0, &windows.Overlapped{Offset: lockOffset})
	if errors.Is(err, windows.ERROR_LOCK_VIOLATION) {
		return ErrInUse
	}
	if err != nil {
		return reason.Errorf("lock %s: %w", file.Name(), err)
	}
	return nil
}

// unlock has nothing to do: no program inherits the file.
func unlock(*os.File) error { return nil }

func checkOwner(string, fs.FileInfo) error { return nil }
