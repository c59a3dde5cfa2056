// Package update installs new versions of the Base's own package.
//
// Two processes share the work and a directory ([Store]). The system helper receives a release
// file, and keeps it if it is signed, newer and for this machine ([Receiver]). The unit
// bitbox-base-upgrade.service installs it ([Installer]), checks whether the Base is healthy
// afterwards, and installs the previous version if it is not. Between them stands the journal:
// a small file with the progress of the update, on disk before each step. After a kill or a
// power cut the journal says what to do next.
//
// # The old version judges the new one
//
// The installer is not the program in /usr/bin, which the update replaces, but a copy of it
// that the helper makes first ([Store.Upgrader]). The copy also runs after a power cut, however
// broken the new version is.
//
// docs/updates.md has the whole description.
package update

import (
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/BitBoxSwiss/bitbox-base/internal/atomicfile"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/release"
	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
)

// Directory is where updates are kept on the appliance. Only root may enter.
const Directory = "/var/lib/bitbox-base/updates"

// Unit installs a package that has been staged, SlotsUnit an image. They are static; starting one
// takes no argument.
const (
	Unit      = "bitbox-base-upgrade.service"
	SlotsUnit = "bitbox-base-slots.service"
)

// Phase is how far an update is.
type Phase string

// The phases, in their order.
const (
	// Staged: the release is verified and on disk. Nothing of the system has changed.
	Staged Phase = "staged"
	// Installing: dpkg works; the files are those of both versions.
	Installing Phase = "installing"
	// Checking: the new version is installed, and has to prove itself.
	Checking Phase = "checking"
	// Undoing: the previous version is being installed again.
	Undoing Phase = "undoing"
	// Done: the new version is installed and well.
	Done Phase = "done"
	// Undone: the previous version is installed again, or nothing was changed.
	Undone Phase = "undone"
	// Failed: not even the previous version could be installed. A person has to look.
	Failed Phase = "failed"
)

// Ended tells whether the update has come to its end.
func (p Phase) Ended() bool { return p == Done || p == Undone || p == Failed }

func (p Phase) known() bool {
	switch p {
	case Staged, Installing, Checking, Undoing, Done, Undone, Failed:
		return true
	}
	return false
}

// Journal is the state of the last update.
type Journal struct {
	// ID is random: two attempts at the same version are two updates.
	ID string `json:"id"`
	// From and To are versions of the package.
	From  string `json:"from"`
	To    string `json:"to"`
	Phase Phase  `json:"phase"`
	// Step says for people what is being done, or was done last.
	Step string `json:"step"`
	// Reason says for people why the update did not hold.
	Reason string `json:"reason,omitempty"`
	// Boots counts how often the machine was started before the update had ended.
	Boots int `json:"boots,omitempty"`
	// Writable: the root file system was read-only, and has been made writable.
	Writable bool `json:"writable,omitempty"`
	// Before is what was not well already before anything was changed.
	Before []string `json:"before,omitempty"`
	// Back: an owner's App has ordered to go back to the version in the other slot.
	Back bool `json:"back,omitempty"`
	// Boot is the id of the boot during which the machine was told to start To.
	Boot string `json:"boot,omitempty"`
	// OnTrial: To runs, and waits for an owner's App once it is well.
	OnTrial bool      `json:"onTrial,omitempty"`
	Began   time.Time `json:"began"`
	Ended   time.Time `json:"ended,omitzero"`
}

// Names in the directory.
const (
	incomingFile = "incoming.deb" // an upload that is not complete
	packageFile  = "next.deb"     // what is to be installed, and its header
	headerFile   = "next.header"
	previousFile = "previous.deb" // what goes back
	upgraderFile = "upgrader"     // the program that does it
	journalFile  = "journal.json"
	// Of an image: an upload that is not complete, and its preamble; what is to be written into
	// the other slot; the id of the update that an App has confirmed; and what is in the slots.
	incomingImageFile  = "incoming.image"
	incomingHeaderFile = "incoming.header"
	imageFile          = "next.image"
	confirmedFile      = "confirmed"
	slotsFile          = "slots.json"
	lockFile           = "lock" // held by the process that installs
)

// maxJournalSize is far above what a journal has, in bytes.
const maxJournalSize = 64 << 10

// Store is the directory of updates.
type Store struct{ directory string }

// NewStore returns the Store in a directory, which exists and is root's alone.
func NewStore(directory string) Store { return Store{directory} }

func (s Store) path(name string) string { return filepath.Join(s.directory, name) }

// Upgrader is the path of the program that installs. It is there while an update
// is under way.
func (s Store) Upgrader() string { return s.path(upgraderFile) }

// Journal returns what is known of the last update; the zero Journal if there was
// none.
func (s Store) Journal() (Journal, error) {
	b, err := readAtMost(s.path(journalFile), maxJournalSize)
	if errors.Is(err, fs.ErrNotExist) {
		return Journal{}, nil
	}
	var j Journal
	if err == nil {
		err = json.Unmarshal(b, &j)
	}
	if err == nil && !j.Phase.known() {
		err = reason.Errorf("the phase %q is unknown", j.Phase)
	}
	if err != nil {
		return Journal{}, reason.Errorf("read how far the last update is: %w", err)
	}
	return j, nil
}

// write puts the journal on disk.
func (s Store) write(j Journal) error {
	b, err := json.Marshal(j)
	if err == nil {
		err = atomicfile.WriteFileAtomic(s.path(journalFile), append(b, '\n'), 0o600)
	}
	if err != nil {
		return reason.Errorf("write down how far the update is: %w", err)
	}
	return nil
}

// header returns the header of the staged release; its callers verify it.
func (s Store) header() ([]byte, error) {
	return readAtMost(s.path(headerFile), release.MaxPreambleSize)
}

func readAtMost(path string, size int) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	b, err := io.ReadAll(io.LimitReader(file, int64(size)+1))
	if err == nil && len(b) > size {
		err = reason.Errorf("%s is longer than %d bytes", path, size)
	}
	return b, err
}

// remove removes files by their names, also ones that are not there, and what writes
// left behind that were killed.
func (s Store) remove(names ...string) error {
	var errs []error
	for _, name := range names {
		leftovers, _ := filepath.Glob(s.path("." + name + ".*.new")) // its only error is a bad pattern
		for _, path := range append(leftovers, s.path(name)) {
			if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
				errs = append(errs, err)
			}
		}
	}
	return errors.Join(append(errs, atomicfile.SyncDir(s.directory))...)
}
