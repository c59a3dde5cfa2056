// Package slot keeps the two versions of the image that a disk holds.
//
// A slot is a root partition and the partition with its dm-verity hashes. A UKI on the EFI
// partition starts a slot: a signed kernel whose command line names the slot's root hash. The
// ids of the two partitions are the halves of that hash, so a UKI finds its slot and no other.
//
// # Old or new, at any moment
//
// A new version is written into the slot from which the machine does not run, in this order: the
// other slot's UKI is removed and the slot is named empty, then root and hashes are written and
// verified, then the partition table names them (gpt), then the UKI is written under another name, verified, and renamed. Before
// the last step nothing refers to the new files. After it the new version starts. Each step can be
// done again from its beginning, so whatever was cut is begun again.
//
// # Attempts
//
// systemd-boot starts a new version three times at most, and counts in the name of the UKI. After the
// version has proved healthy, Bless takes the counter away. Without that the machine starts the
// other version again.
package slot

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/BitBoxSwiss/bitbox-base/internal/bootdisk"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/slot/gpt"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/slot/verity"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/release"
	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
)

// Why a slot cannot be used.
var (
	// ErrLayout: the disk is not as the maker of images makes it.
	ErrLayout = reason.New("the disk does not have the two slots of the image")
	// ErrTooLong: the slots have a fixed size.
	ErrTooLong = reason.New("the release does not fit into the slot")
	// ErrReadBack: what was written is not what is there.
	ErrReadBack = reason.New("what was written to the disk is not what is read back; the disk may be failing")
	// ErrNoOther: there is no other version to go to.
	ErrNoOther = reason.New("there is no other version in the other slot")
)

// Disk is the disk that the machine has started from.
type Disk interface {
	gpt.Device
	// Size is its length in bytes.
	Size() uint64
	// Forget makes the next reads come from the disk and not from memory.
	Forget() error
}

// ESP is the folder of UKIs on the EFI partition of that disk. When a method returns, what it did
// is on disk.
type ESP interface {
	Names() ([]string, error)
	Open(name string) (io.ReadCloser, error)
	// Write makes a file. One of that name is replaced.
	Write(name string, content io.Reader) error
	Rename(from, to string) error
	Remove(name string) error
}

// Slots are those of a disk.
type Slots struct {
	Disk Disk
	ESP  ESP
	// Running is the version that the machine runs, and Letter the slot that it runs from: "a" or
	// "b".
	Running string
	Letter  string
}

// pair is a slot.
type pair struct{ root, verity gpt.Partition }

// numbers are those of the partitions of each slot.
var numbers = map[string][2]int{"a": {bootdisk.RootA, bootdisk.VerityA}, "b": {bootdisk.RootB, bootdisk.VerityB}}

// other reads the table, and finds the slot that the machine does not run from.
func (s *Slots) other() (*gpt.Table, pair, error) {
	table, err := gpt.Read(s.Disk, s.Disk.Size())
	if err != nil {
		return nil, pair{}, err
	}
	var to pair
	for _, p := range table.Partitions() {
		switch p.Number {
		case numbers[Opposite(s.Letter)][0]:
			to.root = p
		case numbers[Opposite(s.Letter)][1]:
			to.verity = p
		}
	}
	if !isOneOf(to.root.Type.String(), bootdisk.RootTypes) || !isOneOf(to.verity.Type.String(), bootdisk.VerityTypes) {
		return nil, pair{}, ErrLayout
	}
	return table, to, nil
}

func isOneOf(kind string, types map[string]string) bool {
	return slices.Contains(slices.Collect(maps.Values(types)), kind)
}

// Opposite is the letter of the other slot; empty if there is no such slot.
func Opposite(letter string) string { return map[string]string{"a": "b", "b": "a"}[letter] }

// Entries are the UKIs, in the order in which they are started.
func (s *Slots) Entries() ([]Entry, error) {
	names, err := s.ESP.Names()
	if err != nil {
		return nil, reason.Errorf("list the versions on the EFI partition: %w", err)
	}
	var entries []Entry
	for _, name := range names {
		if e, ok := ParseEntry(name); ok {
			entries = append(entries, e)
		}
	}
	Order(entries)
	return entries, nil
}

// Other is the version in the other slot; ErrNoOther if there is none.
func (s *Slots) Other() (Entry, error) {
	entries, err := s.Entries()
	if err != nil {
		return Entry{}, err
	}
	for _, e := range entries {
		if e.Version != s.Running {
			return e, nil
		}
	}
	return Entry{}, ErrNoOther
}

// RemoveOther removes every UKI but that of the running version, and what a write has left
// unfinished. From then on the machine starts nothing else.
func (s *Slots) RemoveOther() error {
	names, err := s.ESP.Names()
	if err != nil {
		return reason.Errorf("list the versions on the EFI partition: %w", err)
	}
	for _, name := range names {
		e, ok := ParseEntry(name)
		if ok && e.Version != s.Running || strings.HasSuffix(name, unfinished) {
			if err := s.ESP.Remove(name); err != nil {
				return reason.Errorf("remove %s: %w", name, err)
			}
		}
	}
	return nil
}

// Clear leaves no version beside the running one, for good. UKIs are public, so somebody who writes
// to the EFI partition can put one back that was removed: it no longer finds its slot.
func (s *Slots) Clear() error {
	table, to, err := s.other()
	if err != nil {
		return err
	}
	if to.root.Name != bootdisk.EmptyName || to.verity.Name != bootdisk.EmptyName {
		if err := s.empty(table, to); err != nil {
			return err
		}
	}
	return s.RemoveOther()
}

// empty has the partition table name no version in a slot. No root hash has the ids that it gives.
func (s *Slots) empty(table *gpt.Table, to pair) error {
	return s.name(table, to, otherID(to.root.ID), otherID(to.verity.ID), bootdisk.EmptyName, bootdisk.EmptyName)
}

func otherID(id gpt.ID) gpt.ID {
	hash := sha256.Sum256(id[:])
	return gpt.ID(hash[:len(id)])
}

// Write writes a release into the other slot. parts are root, hashes and UKI, as they stand in the
// file; each chunk is compared with what was signed before it is written. At the end the new
// version is what starts next.
func (s *Slots) Write(h release.Header, parts io.Reader) error {
	table, to, err := s.other()
	switch {
	case err != nil:
		return err
	case h.Version == s.Running:
		return reason.Errorf("version %s runs already", h.Version)
	case h.Image.RootSize > to.root.Size || h.Image.VeritySize > to.verity.Size:
		return reason.Errorf("%w: it has %d and %d bytes, and there is room for %d and %d", ErrTooLong,
			h.Image.RootSize, h.Image.VeritySize, to.root.Size, to.verity.Size)
	}
	for _, step := range []struct {
		name string
		do   func() error
	}{
		{"remove the other version", s.RemoveOther},
		{"empty the slot", func() error { return s.empty(table, to) }},
		{"write the slot", func() error { return s.fill(h.Image, to, parts) }},
		{"verify the slot", func() error { return s.verify(h.Image, to) }},
		{"name the slot", func() error {
			root, hashes := IDs(h.Image.RootHash)
			return s.name(table, to, root, hashes, bootdisk.RootName, bootdisk.VerityName)
		}},
		{"write the UKI", func() error { return s.writeUKI(h, parts) }},
		{"start the new version from now on", func() error {
			return s.ESP.Rename(Entry{Version: h.Version}.Name()+unfinished, Entry{Version: h.Version, Counted: true, Left: bootdisk.Tries}.Name())
		}},
	} {
		if err := step.do(); err != nil {
			return reason.Errorf("%s: %w", step.name, err)
		}
	}
	return nil
}

// fill copies root and hashes.
func (s *Slots) fill(i *release.Image, to pair, parts io.Reader) error {
	for offset := uint64(0); offset < i.RootSize+i.VeritySize; {
		b, err := chunk(i, offset, parts)
		if err != nil {
			return err
		}
		at := to.root.First + offset
		if offset >= i.RootSize {
			at = to.verity.First + offset - i.RootSize
		}
		if _, err := s.Disk.WriteAt(b, int64(at)); err != nil {
			return err
		}
		offset += uint64(len(b))
	}
	return s.Disk.Sync()
}

// chunk reads the next one, as it was signed.
func chunk(i *release.Image, offset uint64, parts io.Reader) ([]byte, error) {
	_, size, _ := i.Chunk(offset)
	b := make([]byte, size)
	if _, err := io.ReadFull(parts, b); err != nil {
		return nil, reason.Errorf("read the release: %w", err)
	}
	return b, i.CheckChunk(offset, b)
}

// verify reads the slot back.
func (s *Slots) verify(i *release.Image, to pair) error {
	if err := s.Disk.Forget(); err != nil {
		return err
	}
	return verity.Verify(io.NewSectionReader(s.Disk, int64(to.root.First), int64(i.RootSize)), i.RootSize,
		io.NewSectionReader(s.Disk, int64(to.verity.First), int64(i.VeritySize)), i.RootHash)
}

// name has the partition table say what is in the slot.
func (s *Slots) name(table *gpt.Table, to pair, root, hashes gpt.ID, rootName, hashesName string) error {
	if err := errors.Join(table.Change(to.root.Number, root, rootName), table.Change(to.verity.Number, hashes, hashesName)); err != nil {
		return err
	}
	return table.Write(s.Disk)
}

// IDs are those of the two partitions with a root hash: its halves.
func IDs(hash [sha256.Size]byte) (root, hashes gpt.ID) {
	return gpt.ID(hash[:len(hash)/2]), gpt.ID(hash[len(hash)/2:])
}

// writeUKI writes the UKI under a name that nothing starts, and reads it back.
func (s *Slots) writeUKI(h release.Header, parts io.Reader) error {
	name, offset := Entry{Version: h.Version}.Name()+unfinished, h.Image.RootSize+h.Image.VeritySize
	var uki bytes.Buffer // at most release.MaxUKISize
	for offset < h.Image.Size() {
		b, err := chunk(h.Image, offset, parts)
		if err != nil {
			return err
		}
		uki.Write(b)
		offset += uint64(len(b))
	}
	content := uki.Bytes()
	if err := s.ESP.Write(name, bytes.NewReader(content)); err != nil {
		return err
	}
	back, err := s.ESP.Open(name)
	if err != nil {
		return err
	}
	defer func() { _ = back.Close() }()
	read, err := io.ReadAll(io.LimitReader(back, release.MaxUKISize+1))
	if err != nil {
		return err
	}
	if !bytes.Equal(read, content) {
		return ErrReadBack
	}
	return nil
}

// Bless keeps the running version: it starts from now on without a counter.
func (s *Slots) Bless() error { return s.set(s.Running, Entry{Version: s.Running}) }

// Abandon has the machine start the other version from now on.
func (s *Slots) Abandon() error { return s.set(s.Running, Entry{Version: s.Running, Counted: true}) }

// Try has the machine start the other version a few times, even if it is older.
func (s *Slots) Try(other string) error {
	if err := s.set(other, Entry{Version: other, Counted: true, Left: bootdisk.Tries}); err != nil {
		return err
	}
	return s.Abandon()
}

// Restore takes the counter of a version away that is not the running one.
func (s *Slots) Restore(version string) error { return s.set(version, Entry{Version: version}) }

// set gives the UKI of a version another name. A power cut during a rename can have left it with
// two: then the others are removed.
func (s *Slots) set(version string, want Entry) error {
	entries, err := s.Entries()
	if err != nil {
		return err
	}
	entries = slices.DeleteFunc(entries, func(e Entry) bool { return e.Version != version })
	if len(entries) == 0 {
		return reason.Errorf("version %s is not on the EFI partition", version)
	}
	if !slices.Contains(entries, want) {
		if err := s.ESP.Rename(entries[0].Name(), want.Name()); err != nil {
			return err
		}
		entries = entries[1:]
	}
	for _, e := range entries {
		if e != want {
			if err := s.ESP.Remove(e.Name()); err != nil {
				return err
			}
		}
	}
	return nil
}

// Counted tells whether the running version was not blessed yet.
func (s *Slots) Counted() (bool, error) {
	entries, err := s.Entries()
	for _, e := range entries {
		if e.Version == s.Running {
			return e.Counted, nil
		}
	}
	return false, err
}
