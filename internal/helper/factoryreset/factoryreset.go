// Package factoryreset makes a Base as new: who it is, who may come in and what it
// remembers of its owner is removed.
//
// It is done in two steps, so that a power cut leaves the old Base whole or a new
// one, and never something in between that runs:
//
//	Order   the running Base writes a marker, in one rename, and restarts
//	Finish  the next boot, before anything reads what is to go, removes it all,
//	        and then renames the marker to a record that it was done
//
// While the marker is there, nothing of the Base starts. Finish can be cut at any
// point and begins again at the next boot.
//
// What is removed is unlinked, not overwritten: on flash memory nobody could
// promise more.
package factoryreset

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/BitBoxSwiss/bitbox-base/internal/atomicfile"
)

// Files in the system helper's directory.
const (
	// Marker is there from the order of a reset until it is finished. The unit
	// that calls Finish has it as its condition.
	Marker = "factory-reset"
	// Unit is that unit.
	Unit = "bitbox-base-reset.service"
	// record is what Marker becomes.
	record = "factory-reset.done"
)

// maxRecordSize bounds what is read of either, in bytes.
const maxRecordSize = 4096

// Record says that a reset was ordered.
type Record struct {
	OrderedAt time.Time `json:"ordered_at"`
	// By is who: "console", "root" or "an owner's App".
	By string `json:"by"`
}

// Order writes the marker into the helper's directory. When it returns nil, the
// reset is certain.
func Order(directory string, r Record) error {
	text, err := json.Marshal(r)
	if err == nil {
		err = atomicfile.WriteFileAtomic(filepath.Join(directory, Marker), append(text, '\n'), 0o600)
	}
	if err != nil {
		return fmt.Errorf("order the factory reset: %w", err)
	}
	return nil
}

// Ordered tells whether a reset was ordered and is not finished. A marker that
// cannot be read counts: half of what it stands for may be gone.
func Ordered(directory string) (Record, bool) { return read(filepath.Join(directory, Marker)) }

// Last returns the record of the last reset, if there was one.
func Last(directory string) (Record, bool) { return read(filepath.Join(directory, record)) }

func read(path string) (Record, bool) {
	file, err := os.Open(path)
	if err != nil {
		return Record{}, !errors.Is(err, fs.ErrNotExist)
	}
	defer file.Close()
	var r Record
	text := make([]byte, maxRecordSize)
	n, _ := file.Read(text)
	_ = json.Unmarshal(text[:n], &r) // a damaged one is a record without words
	return r, true
}

// Plan says what goes. Of each folder only the content does: the folder itself,
// with its owner and mode, belongs to the package.
type Plan struct {
	// Directory is the system helper's. All in it goes but the marker.
	Directory string
	// Folders are emptied before that, in this order.
	Folders []string
	// Homes are emptied, too. On a read-only system they hold nothing of the owner's,
	// and stay.
	Homes []string
	// Files go as they are.
	Files []string
}

// Finish does what was ordered, if anything was. It may be repeated.
func Finish(p Plan) error {
	if _, ordered := Ordered(p.Directory); !ordered {
		return nil
	}
	if err := finish(p); err != nil {
		return fmt.Errorf("finish the factory reset: %w; nothing of the Base starts before it is done, and each start tries again", err)
	}
	return nil
}

func finish(p Plan) error {
	for _, folder := range p.Folders {
		if err := empty(folder); err != nil {
			return err
		}
	}
	for _, home := range p.Homes {
		if err := empty(home); err != nil && !errors.Is(err, syscall.EROFS) {
			return err
		}
	}
	for _, file := range p.Files {
		if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err := syncIfThere(filepath.Dir(file)); err != nil {
			return err
		}
	}
	if err := empty(p.Directory, Marker, record); err != nil {
		return err
	}
	// All of it is on the disk. This is the one step that makes it done.
	if err := os.Rename(filepath.Join(p.Directory, Marker), filepath.Join(p.Directory, record)); err != nil {
		return err
	}
	return atomicfile.SyncDir(p.Directory)
}

// empty removes what is in a folder, but for what stays, and has it on the disk
// when it returns. It follows no link.
func empty(folder string, stays ...string) error {
	switch info, err := os.Lstat(folder); {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case !info.IsDir():
		return fmt.Errorf("%s is no folder", folder)
	}
	entries, err := os.ReadDir(folder)
	if err != nil {
		return err
	}
	var failed []error
	for _, entry := range entries {
		if !slices.Contains(stays, entry.Name()) {
			failed = append(failed, os.RemoveAll(filepath.Join(folder, entry.Name())))
		}
	}
	return errors.Join(append(failed, atomicfile.SyncDir(folder))...)
}

func syncIfThere(folder string) error {
	err := atomicfile.SyncDir(folder)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
