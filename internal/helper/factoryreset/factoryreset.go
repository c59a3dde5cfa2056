// Package factoryreset makes a Base as new. It removes the Base's identity, its pairings, and
// everything that it remembers of its owner.
//
// It works in steps, so that a power cut leaves the complete old Base or a new one, and no
// state in between ever runs:
//
//	Order   the running Base renames a file that Prepare has made to a marker, and restarts
//	Finish  the next boot, before anything reads the old data, unlinks the files with keys,
//	        moves the folders aside, and renames the marker to a record of the reset
//	Discard the running Base removes the folders that were moved aside
//
// While the marker exists, no part of the Base starts. [Finish] can be interrupted at any
// point and starts over at the next boot.
//
// Some of the folders belong to daemons that may have been taken over, or to a person. So the
// order needs no space on the disk, and the reset takes the same effort whatever they contain.
//
// The program has a table of the things to remove, in cmd/bitbox-base/reset.go.
//
// Files are unlinked, not overwritten: on flash memory overwriting would guarantee nothing.
package factoryreset

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/BitBoxSwiss/bitbox-base/internal/atomicfile"
	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
)

// Files in the system helper's directory.
const (
	// Marker exists from the order of a reset until the reset is finished. The unit that calls
	// Finish has it as its condition.
	Marker = "factory-reset"
	// Unit is that unit.
	Unit = "bitbox-base-reset.service"
	// ready becomes Marker. It exists from the first boot on, so that the order needs no new
	// inode and no new block.
	ready = "factory-reset.ready"
	// record is what Marker becomes.
	record = "factory-reset.done"
)

// maxRecordSize bounds how much of either is read, in bytes.
const maxRecordSize = 4096

// Record says that a reset was ordered.
type Record struct {
	OrderedAt time.Time `json:"ordered_at"`
	// By is the author of the order: "console", "root" or "an owner's App".
	By string `json:"by"`
	// EraseChain: the chain of the node goes, too.
	EraseChain bool `json:"erase_chain,omitempty"`
}

// Prepare makes the file that Order renames, unless it exists. It has the size of the largest
// record, so that writing one needs no space.
func Prepare(directory string) error {
	path := filepath.Join(directory, ready)
	_, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		err = atomicfile.WriteFileAtomic(path, bytes.Repeat([]byte{' '}, maxRecordSize), 0o600)
	}
	if err != nil {
		return reason.Errorf("prepare for a factory reset: %w", err)
	}
	return nil
}

// Order puts the marker into the helper's directory, in one rename. When it returns nil, the
// reset is certain. The text of the record is lost if the disk does not accept it.
func Order(directory string, r Record) error {
	err := order(directory, r)
	if err != nil {
		return reason.Errorf("order the factory reset: %w", err)
	}
	return nil
}

func order(directory string, r Record) error {
	text, err := json.Marshal(r)
	if err != nil {
		return err
	}
	text = append(text, '\n')
	path := filepath.Join(directory, ready)
	file, err := os.OpenFile(path, os.O_WRONLY, 0)
	if errors.Is(err, fs.ErrNotExist) { // the Base has not been started since it learnt to do this
		return atomicfile.WriteFileAtomic(filepath.Join(directory, Marker), text, 0o600)
	}
	if err != nil {
		return err
	}
	_, _ = file.Write(text) // a record without text is one, too
	_ = file.Sync()
	_ = file.Close()
	if err := os.Rename(path, filepath.Join(directory, Marker)); err != nil {
		return err
	}
	return atomicfile.SyncDir(directory)
}

// Ordered tells whether a reset was ordered and is not finished. A marker that cannot be read
// counts: half of the old data may already be gone.
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
	_ = json.Unmarshal(text[:n], &r) // a damaged record is one without text
	return r, true
}

// Plan says what to remove. Of each folder only the content is removed: an empty one with its
// owner and mode takes its place.
type Plan struct {
	// Directory is the system helper's. Everything in it is removed except the marker.
	Directory string
	// Keys are the files that hold keys. They are removed first of all.
	Keys []string
	// Folders are put aside after that, in this order.
	Folders []string
	// Homes are, too. On a read-only system they hold nothing of the owner's, and stay.
	Homes []string
	// Files are removed as they are.
	Files []string
	// Chain is the folder of the node's chain. It is one of Folders if the order says so; then
	// EraseChainDisk has the disk of the chain erased later. Otherwise both stay.
	Chain          string
	EraseChainDisk func() error
}

// parents are the directories in which folders are put aside.
func (p Plan) parents() []string {
	var parents []string
	for _, folder := range slices.Concat(p.Folders, p.Homes, p.chain()) {
		parents = append(parents, filepath.Dir(folder))
	}
	slices.Sort(parents)
	return slices.Compact(parents)
}

// chain is the folder of the chain, if the plan names it.
func (p Plan) chain() []string {
	if p.Chain == "" {
		return nil
	}
	return []string{p.Chain}
}

// discardTime is how long Finish itself removes what was put aside, so that a full disk has space
// for a new Base.
const discardTime = 20 * time.Second

// Finish carries out the order, if there is one. It may be repeated.
func Finish(p Plan) error {
	r, ordered := Ordered(p.Directory)
	if !ordered {
		return nil
	}
	if r.EraseChain {
		p.Folders = append(slices.Clone(p.Folders), p.chain()...)
	} else {
		p.EraseChainDisk = nil
	}
	if err := finish(p); err != nil {
		return reason.Errorf("finish the factory reset: %w; no part of the Base starts until it is done, and each start tries again", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), discardTime)
	defer cancel()
	_, _ = Discard(ctx, p) // the rest is removed later, and failures are reported then
	return nil
}

func finish(p Plan) error {
	for _, file := range slices.Concat(p.Keys, p.Files) {
		if err := unlink(file); err != nil {
			return err
		}
	}
	for _, folder := range p.Folders {
		if err := renameAside(folder); err != nil {
			return err
		}
	}
	for _, home := range p.Homes {
		if err := renameAside(home); err != nil && !errors.Is(err, syscall.EROFS) {
			return err
		}
	}
	if p.EraseChainDisk != nil {
		if err := p.EraseChainDisk(); err != nil {
			return err
		}
	}
	if err := emptyInPlace(context.Background(), p.Directory, Marker, record, ready); err != nil {
		return err
	}
	// Everything is on the disk. Only this step makes the reset complete.
	if err := os.Rename(filepath.Join(p.Directory, Marker), filepath.Join(p.Directory, record)); err != nil {
		return err
	}
	return atomicfile.SyncDir(p.Directory)
}

// unlink removes a file, and syncs the removal before it returns. A folder in its place is not a
// file of ours: it is removed with the folder that contains it.
func unlink(file string) error {
	err := syscall.Unlink(file)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR), errors.Is(err, syscall.EISDIR):
		return nil
	case err != nil:
		return pathError("remove", file, err)
	}
	return atomicfile.SyncDir(filepath.Dir(file))
}
