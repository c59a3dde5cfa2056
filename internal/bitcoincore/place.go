//go:build unix

package bitcoincore

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"syscall"
	"time"

	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
	"github.com/BitBoxSwiss/bitbox-base/internal/rootfile"
)

// The two places of a Base. Both are root's, and no other user writes to them.
const (
	// Built has the programs of the package or the image, which a builder has brought.
	Built = "/usr/lib/bitbox-base/bitcoin-core"
	// Owned has those that an owner has brought. It is on the data partition of an image.
	Owned = "/var/lib/bitbox-node/bitcoin-core"
)

// recordFile says which folder of a place is in use. It is replaced by one rename.
const recordFile = "release.json"

// maxRecord is far above what a Record has, in bytes.
const maxRecord = 16 << 10

// Record is the release that a place has.
type Record struct {
	Version string `json:"version"`
	// Folder has the programs, in the same place.
	Folder string `json:"folder"`
	// Archive is the SHA-256 of the file that they come from, in hexadecimal.
	Archive string `json:"archive"`
	// Signers are the names of those whose signatures were counted.
	Signers []string `json:"signers"`
	// Installed is when; zero in a package, whose bytes are always the same.
	Installed time.Time `json:"installed,omitzero"`
}

// RecordFile is the path of the Record of a place.
func RecordFile(place string) string { return filepath.Join(place, recordFile) }

// folderName is the name of a folder with programs: a version and eight hexadecimal digits.
var folderName = regexp.MustCompile(`^\d{1,3}\.\d{1,3}-[0-9a-f]{8}$`)

// FolderOf is the name of the folder of an archive, given as its SHA-256 in hexadecimal.
func FolderOf(version Version, archive string) string { return version.String() + "-" + archive[:8] }

// ReadRecord reads the Record of a place. An error that wraps fs.ErrNotExist: the place has none.
func ReadRecord(place string) (Record, error) {
	text, err := rootfile.Read(RecordFile(place), maxRecord)
	var r Record
	if err == nil {
		err = json.Unmarshal(text, &r)
	}
	if err == nil {
		_, err = ParseVersion(r.Version)
	}
	if err == nil && !folderName.MatchString(r.Folder) {
		err = reason.New("its folder has no name that a Base gives")
	}
	if err != nil {
		return Record{}, reason.Errorf("read which Bitcoin Core is in %s: %w", place, err)
	}
	return r, nil
}

// ErrNone: neither the builder nor an owner has brought Bitcoin Core.
var ErrNone = reason.New("no release of Bitcoin Core is installed")

// Find returns the path of the newest bitcoind of some places; of two that are equal, that of the
// first. A place whose record or program cannot be used counts as empty, unless all are: then the
// error says why.
func Find(places ...string) (path string, of Record, err error) {
	var newest Version
	var faults []error
	for _, place := range places {
		r, err := ReadRecord(place)
		program := filepath.Join(place, r.Folder, Programs[0])
		if err == nil {
			err = Executable(program)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			faults = append(faults, err)
		}
		version, _ := ParseVersion(r.Version)
		if err == nil && (path == "" || version.Newer(newest)) {
			path, of, newest = program, r, version
		}
	}
	if path == "" {
		return "", Record{}, errors.Join(append([]error{ErrNone}, faults...)...)
	}
	return path, of, nil
}

// Executable refuses a program that is not root's alone: a regular file in a folder of root's, to
// which no other user may write.
func Executable(path string) error {
	for _, p := range []string{filepath.Dir(path), path} {
		info, err := os.Lstat(p)
		if err != nil {
			return err
		}
		owner, ok := info.Sys().(*syscall.Stat_t)
		switch want := p != path; {
		case info.IsDir() != want || !want && !info.Mode().IsRegular():
			return reason.Errorf("%s is neither a regular file nor a folder where one has to be", p)
		case info.Mode().Perm()&0o022 != 0:
			return reason.Errorf("%s can be written by users other than root (mode %04o)", p, info.Mode().Perm())
		case ok && owner.Uid != 0 && int(owner.Uid) != os.Geteuid():
			return reason.Errorf("%s belongs to user %d, not to root", p, owner.Uid)
		}
	}
	return nil
}
