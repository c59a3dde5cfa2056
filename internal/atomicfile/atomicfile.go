// Package atomicfile writes small files atomically: after a crash, a power cut or a full disk
// the file has its complete old content or its complete new content. Except for databases,
// all files of this project are written by it.
package atomicfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// WriteFileAtomic replaces the file at path, or makes it. The new content is on
// disk (fsync of file and directory) when it returns nil; otherwise the old one
// is untouched, unless the error is that of syncing the directory: then the new
// one is in place, and may be lost in a power cut.
//
// A kill in the middle may leave a temporary file ".NAME.*.new" of the same mode
// behind, which nothing reads.
func WriteFileAtomic(path string, data []byte, mode fs.FileMode) (err error) {
	dir, name := filepath.Split(path)
	if dir == "" {
		dir = "."
	}
	// CreateTemp makes it 0600, in the same directory so that it can be renamed.
	file, err := os.CreateTemp(dir, "."+name+".*.new")
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	temporary := file.Name()
	defer func() {
		if err != nil {
			err = fmt.Errorf("write %s: %w", path, errors.Join(err, ignoreMissing(os.Remove(temporary))))
		}
	}()
	// The mode is set before the content is there.
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
