package state

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/BitBoxSwiss/bitbox-base/internal/atomicfile"
	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
)

// lockText records that the state was once made.
const lockText = `This file belongs to the state file beside it. It is locked while a program runs
on that state, and says that the state was made: if the state file is missing,
the program says so, and does not start over with another identity.
`

// lockPoll is how often to try a lock that another program holds.
const lockPoll = 20 * time.Millisecond

// lock is the file beside the state. The system releases it when the process ends, however it
// ends.
type lock struct{ file *os.File }

// takeLock takes the lock and makes its file if it is missing. It waits for another holder.
func takeLock(path string, wait time.Duration) (*lock, error) {
	file, err := openPrivate(path, os.O_RDWR|os.O_CREATE)
	if err != nil {
		return nil, err
	}
	return waitForLock(file, wait)
}

// OpenLocked opens a private file, makes it if it is missing, and locks it against other programs
// until it is closed. It is for data that is too small and changes too often for a state file.
// The errors are those of Open for the file beside a state.
func OpenLocked(path string, wait time.Duration) (*os.File, error) {
	l, err := takeLock(path, wait)
	if err != nil {
		return nil, err
	}
	return l.file, nil
}

// readingLock takes the lock for a reader, which makes no file: it returns nil if there is none.
// If the file cannot be opened for writing, it opens it for reading.
func readingLock(path string, wait time.Duration) (*lock, error) {
	file, err := openPrivate(path, os.O_RDWR)
	if err != nil && !errors.Is(err, ErrMode) {
		file, err = openPrivate(path, os.O_RDONLY)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return waitForLock(file, wait)
}

func waitForLock(file *os.File, wait time.Duration) (*lock, error) {
	var err error
	for deadline := time.Now().Add(wait); ; time.Sleep(lockPoll) {
		if err = tryLock(file); err == nil {
			return &lock{file}, nil
		}
		if !errors.Is(err, ErrInUse) || time.Now().After(deadline) {
			return nil, errors.Join(err, file.Close())
		}
	}
}

// marked tells whether the state was once made.
func (l *lock) marked() (bool, error) {
	info, err := l.file.Stat()
	if err != nil {
		return false, err
	}
	return info.Size() > 0, nil
}

// mark records on disk that the state was made.
func (l *lock) mark(path string) error {
	if marked, err := l.marked(); marked || err != nil {
		return err
	}
	if _, err := l.file.WriteString(lockText); err != nil {
		return err
	}
	return errors.Join(l.file.Sync(), atomicfile.SyncDir(filepath.Dir(path)))
}

// release unlocks before it closes: a program that this process is just starting has the file for a
// moment, until it runs, and would keep it locked.
func (l *lock) release() error { return errors.Join(unlock(l.file), l.file.Close()) }

// openPrivate opens a regular file of our own that others can neither read nor write. With
// O_CREATE it creates such a file.
func openPrivate(path string, flag int) (*os.File, error) {
	file, err := os.OpenFile(path, flag|noFollow, mode)
	if err != nil {
		if isLink(path) {
			return nil, reason.Errorf("%w: %s is a link; name the file itself", ErrMode, path)
		}
		return nil, err
	}
	if err := checkPrivate(file); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return file, nil
}

func checkPrivate(file *os.File) error {
	info, err := file.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return reason.Errorf("%w: %s is not a regular file", ErrMode, file.Name())
	}
	if runtime.GOOS == "windows" {
		return nil // modes mean nothing here; the profile's directory is private
	}
	if got := info.Mode().Perm(); got != mode {
		return reason.Errorf("%w: the mode of %s is %04o, not %04o; find out which users could read or change it, then: chmod 600 %s",
			ErrMode, file.Name(), got, mode, file.Name())
	}
	return checkOwner(file.Name(), info)
}

func isLink(path string) bool {
	info, err := os.Lstat(path)
	return err == nil && info.Mode()&fs.ModeSymlink != 0
}
