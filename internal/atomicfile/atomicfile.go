// Package atomicfile writes small files atomically: after a crash, a power cut or a full disk
// the file has its complete old content or its complete new content. Except for databases,
// all files of this project are written by it.
package atomicfile

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
)

// WriteFileAtomic creates or replaces the file at path. When it returns nil, the new content is
// on disk (fsync of file and directory). Otherwise the old content is untouched, unless the error
// is from syncing the directory: then the new content is in place, and may be lost in a power
// cut.
//
// A process killed during the call may leave a temporary file ".NAME.*.new" of the same mode,
// which nothing reads.
func WriteFileAtomic(path string, data []byte, mode fs.FileMode) (err error) {
	dir, name := filepath.Split(path)
	if dir == "" {
		dir = "."
	}
	// CreateTemp makes it with mode 0600, in the same directory, so that it can be renamed.
	file, err := os.CreateTemp(dir, "."+name+".*.new")
	if err != nil {
		return reason.Errorf("write %s: %w", path, err)
	}
	temporary := file.Name()
	defer func() {
		if err != nil {
			err = reason.Errorf("write %s: %w", path, errors.Join(err, ignoreMissing(os.Remove(temporary))))
		}
	}()
	// The mode is set before the content is written.
	if err := errors.Join(file.Chmod(mode), write(file, data), file.Close()); err != nil {
		return err
	}
	if err := os.Rename(temporary, path); err != nil {
		return err
	}
	return SyncDir(dir)
}

func write(file *os.File, data []byte) error {
	if _, err := file.Write(data); err != nil {
		return err
	}
	return file.Sync()
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
