package chaindisk

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"

	"google.golang.org/protobuf/encoding/protojson"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/atomicfile"
	"github.com/BitBoxSwiss/bitbox-base/internal/harmless"
	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
	"github.com/BitBoxSwiss/bitbox-base/internal/rootfile"
)

// ListFile, in RunDirectory, has the disks as they were seen last in this boot.
const ListFile = "list.json"

// Files. The first three are in Directory, the others in RunDirectory.
const (
	orderFile   = "order.json"
	chosenFile  = "chosen.json"
	eraseFile   = "erase.json"
	troubleFile = "trouble"

	maxRecord = 4096 // bytes of any of them but the list
)

var (
	ids   = regexp.MustCompile(`^[0-9a-f]{32}$`)
	uuids = regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)
)

// errDamaged: nothing is guessed. A node that started on the disk of the system would fill it.
var errDamaged = reason.New("what is on record about the disk of the chain is damaged")

// Store keeps what was ordered and chosen, and what was seen. The helper and the unit that
// prepares a disk have it in common; each file has one writer at a time.
type Store struct {
	// Directory and Run are Directory and RunDirectory but for tests.
	Directory, Run string
}

// TheStore is that of a Base.
var TheStore = Store{Directory: Directory, Run: RunDirectory}

// read reads a record; false: there is none.
func (s Store) read(name string, record any) (bool, error) {
	text, err := rootfile.Read(filepath.Join(s.Directory, name), maxRecord)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err == nil {
		err = json.Unmarshal(text, record)
	}
	if err != nil {
		return false, reason.Errorf("%w: %s: %w", errDamaged, name, err)
	}
	return true, nil
}

func (s Store) write(name string, record any) error {
	text, err := json.Marshal(record)
	if err != nil {
		return err
	}
	return atomicfile.WriteFileAtomic(filepath.Join(s.Directory, name), append(text, '\n'), 0o600)
}

// Order returns the order that waits; nil: none does.
func (s Store) Order() (*Order, error) {
	o := &Order{}
	if found, err := s.read(orderFile, o); err != nil || !found {
		return nil, err
	}
	// They become arguments of programs.
	if !ids.MatchString(o.ID) || !uuids.MatchString(o.UUID) {
		return nil, reason.Errorf("%w: %s", errDamaged, orderFile)
	}
	return o, nil
}

// WriteOrder has an order wait.
func (s Store) WriteOrder(o Order) error { return s.write(orderFile, o) }

// ForgetOrder removes it.
func (s Store) ForgetOrder() error { return s.remove(orderFile) }

func (s Store) remove(name string) error {
	if err := os.Remove(filepath.Join(s.Directory, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return atomicfile.SyncDir(s.Directory)
}

// Chosen returns the disk of the chain; nil: none was chosen.
func (s Store) Chosen() (*Chosen, error) { return s.disk(chosenFile) }

func (s Store) disk(name string) (*Chosen, error) {
	c := &Chosen{}
	if found, err := s.read(name, c); err != nil || !found {
		return nil, err
	}
	if !uuids.MatchString(c.UUID) {
		return nil, reason.Errorf("%w: %s", errDamaged, name)
	}
	return c, nil
}

// WriteChosen records it.
func (s Store) WriteChosen(c Chosen) error { return s.write(chosenFile, c) }

// OrderErasing has the disk of the chain erased, and forgotten. It needs no room on the disk, and
// may be repeated. The disk is erased when [Keeper.Ready] finds it.
func (s Store) OrderErasing() error {
	if err := s.ForgetOrder(); err != nil {
		return err
	}
	err := os.Rename(filepath.Join(s.Directory, chosenFile), filepath.Join(s.Directory, eraseFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return errors.Join(err, atomicfile.SyncDir(s.Directory))
}

// Erasing returns the disk that is to be erased; nil: none is.
func (s Store) Erasing() (*Chosen, error) { return s.disk(eraseFile) }

// ForgetErasing says that it was.
func (s Store) ForgetErasing() error { return s.remove(eraseFile) }

// maxList is far more than MaxDisks take, in bytes.
const maxList = 128 << 10

// WriteList keeps what Look has returned.
func (s Store) WriteList(disks []*Disk) error {
	text, err := protojson.Marshal(&basev1.DiskList{Disks: disks})
	if err != nil {
		return err
	}
	return atomicfile.WriteFileAtomic(filepath.Join(s.Run, ListFile), text, 0o600)
}

// List returns what was kept last in this boot. Nobody has looked yet: an error that wraps
// fs.ErrNotExist.
func (s Store) List() ([]*Disk, error) {
	text, err := rootfile.Read(filepath.Join(s.Run, ListFile), maxList)
	if err != nil {
		return nil, reason.Errorf("read the list of the disks: %w", err)
	}
	return ParseList(text)
}

// ParseList reads the text of ListFile.
func ParseList(text []byte) ([]*Disk, error) {
	list := &basev1.DiskList{}
	err := protojson.Unmarshal(text, list)
	if err == nil && len(list.GetDisks()) > MaxDisks {
		err = reason.Errorf("it has more than %d disks", MaxDisks)
	}
	if err != nil {
		return nil, reason.Errorf("read the list of the disks: %w", err)
	}
	return list.GetDisks(), nil
}

// WriteTrouble keeps why the disk of the chain is not ready; nil: it is.
func (s Store) WriteTrouble(trouble error) error {
	path := filepath.Join(s.Run, troubleFile)
	if trouble != nil {
		return atomicfile.WriteFileAtomic(path, []byte(harmless.Cut(reason.Of(trouble), maxLine)), 0o600)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// Trouble is why the disk of the chain was not ready when the node was to start; empty: it was.
func (s Store) Trouble() string {
	text, err := rootfile.Read(filepath.Join(s.Run, troubleFile), maxRecord)
	if err != nil {
		return ""
	}
	return harmless.Cut(harmless.Line(string(text)), maxLine)
}
