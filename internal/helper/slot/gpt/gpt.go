// Package gpt gives partitions of a disk another id and another name, in such a way that a power
// cut at any point leaves a table that a kernel reads: the old one or the new one.
//
// # How one write decides
//
// A header and the list of partitions that it protects with a checksum cannot be written in one
// step, and Linux does not look at the copy at the end of the disk unless it is told to. So the new
// list goes to another place, where nothing refers to it: the gap before the first partition has
// room for two. Then one sector is written, the header that refers to the new list. The copy at
// the end of the disk follows, while the table in front is whole.
//
// The layout is that of the UEFI specification, section 5.3. Sectors have 512 bytes.
package gpt

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"hash/crc32"
	"io"
	"strings"
	"unicode/utf16"

	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
)

const (
	// sector is the size of a sector in bytes.
	sector = 512
	// headerSize is what the header's checksum covers, in bytes; entrySize is a partition's.
	headerSize = 92
	entrySize  = 128
	// maxEntries bounds the list. Everybody makes 128.
	maxEntries = 128
	// nameSize is the length of a name, in units of UTF-16.
	nameSize = 36

	signature = "EFI PART"
	revision  = 0x00010000

	// Where the fields of a header stand; numbers are little endian.
	crcAt         = 16
	ownAt         = 24
	otherAt       = 32
	firstUsableAt = 40
	lastUsableAt  = 48
	listAt        = 72
	countAt       = 80
	entrySizeAt   = 84
	listCRCAt     = 88

	// Where those of a partition stand.
	idAt    = 16
	firstAt = 32
	lastAt  = 40
	nameAt  = 56
)

// Device is a disk, or a file that holds one.
type Device interface {
	io.ReaderAt
	io.WriterAt
	// Sync returns when what was written is on disk.
	Sync() error
}

// ErrNoTable: the disk has no partition table that is whole.
var ErrNoTable = reason.New("the disk has no partition table that can be read")

// ErrNoRoom: the disk was not made by the maker of images.
var ErrNoRoom = reason.New("there is no room for a second list before the first partition")

// ID is the id of a partition, in the order in which it is written down.
type ID [16]byte

// String returns the usual form, in lower case.
func (id ID) String() string {
	s := hex.EncodeToString(id[:])
	return strings.Join([]string{s[:8], s[8:12], s[12:16], s[16:20], s[20:]}, "-")
}

// onDisk swaps the first three groups, which stand there in little endian. It is its own inverse.
func (id ID) onDisk() ID {
	return ID{id[3], id[2], id[1], id[0], id[5], id[4], id[7], id[6], id[8], id[9], id[10], id[11], id[12], id[13], id[14], id[15]}
}

// Partition is one that exists.
type Partition struct {
	// Number is its place in the list, from 1.
	Number   int
	Type, ID ID
	Name     string
	// First and Size are in bytes.
	First, Size uint64
}

// Table is the partition table of a disk.
type Table struct {
	header []byte // one sector
	list   []byte
}

// Read returns the table in front, or the copy at the end if the one in front is damaged. size is
// the length of the disk in bytes.
func Read(disk io.ReaderAt, size uint64) (*Table, error) {
	front, err := readAt(disk, 1, size)
	if err == nil {
		return front, nil
	}
	copied, errCopy := readAt(disk, size/sector-1, size)
	if errCopy != nil {
		return nil, reason.Errorf("%w: %w", ErrNoTable, err)
	}
	// As the front would be.
	own, other := copied.number(ownAt), copied.number(otherAt)
	if other != 1 {
		return nil, ErrNoTable
	}
	copied.setNumber(ownAt, other)
	copied.setNumber(otherAt, own)
	copied.setNumber(listAt, 2)
	copied.seal()
	return copied, nil
}

func readAt(disk io.ReaderAt, place, size uint64) (*Table, error) {
	t := &Table{header: make([]byte, sector)}
	if size/sector < 6 {
		return nil, reason.New("it is too small")
	}
	if _, err := disk.ReadAt(t.header, int64(place*sector)); err != nil {
		return nil, reason.Errorf("read the header: %w", err)
	}
	count, list := binary.LittleEndian.Uint32(t.header[countAt:]), t.number(listAt)
	switch {
	case string(t.header[:8]) != signature || binary.LittleEndian.Uint32(t.header[8:]) != revision ||
		binary.LittleEndian.Uint32(t.header[12:]) != headerSize:
		return nil, reason.New("there is no header")
	case binary.LittleEndian.Uint32(t.header[crcAt:]) != t.crc():
		return nil, reason.New("the header is damaged")
	case t.number(ownAt) != place || t.number(otherAt) >= size/sector:
		return nil, reason.New("the header belongs to another place")
	case count == 0 || count > maxEntries || binary.LittleEndian.Uint32(t.header[entrySizeAt:]) != entrySize:
		return nil, reason.New("the list has another shape")
	case list < 2 || list > size/sector-sectors(count):
		return nil, reason.New("the list is outside of the disk")
	}
	t.list = make([]byte, count*entrySize)
	if _, err := disk.ReadAt(t.list, int64(list*sector)); err != nil {
		return nil, reason.Errorf("read the list: %w", err)
	}
	if crc32.ChecksumIEEE(t.list) != binary.LittleEndian.Uint32(t.header[listCRCAt:]) {
		return nil, reason.New("the list is damaged")
	}
	return t, nil
}

// sectors is what a list takes.
func sectors(count uint32) uint64 { return (uint64(count)*entrySize + sector - 1) / sector }

func (t *Table) number(at int) uint64 { return binary.LittleEndian.Uint64(t.header[at:]) }

func (t *Table) setNumber(at int, n uint64) { binary.LittleEndian.PutUint64(t.header[at:], n) }

// crc is that of a header, with its own field empty.
func (t *Table) crc() uint32 {
	b := bytes.Clone(t.header[:headerSize])
	clear(b[crcAt : crcAt+4])
	return crc32.ChecksumIEEE(b)
}

// seal makes the checksums fit.
func (t *Table) seal() {
	binary.LittleEndian.PutUint32(t.header[listCRCAt:], crc32.ChecksumIEEE(t.list))
	binary.LittleEndian.PutUint32(t.header[crcAt:], t.crc())
}

// Partitions returns those that exist, in the order of the list.
func (t *Table) Partitions() (all []Partition) {
	for i := range len(t.list) / entrySize {
		e := t.list[i*entrySize : (i+1)*entrySize]
		if ID(e[:16]) == (ID{}) {
			continue
		}
		units := make([]uint16, 0, nameSize)
		for at := nameAt; at < entrySize; at += 2 {
			unit := binary.LittleEndian.Uint16(e[at:])
			if unit == 0 {
				break
			}
			units = append(units, unit)
		}
		first, last := binary.LittleEndian.Uint64(e[firstAt:]), binary.LittleEndian.Uint64(e[lastAt:])
		all = append(all, Partition{
			Number: i + 1, Type: ID(e[:16]).onDisk(), ID: ID(e[idAt:firstAt]).onDisk(), Name: string(utf16.Decode(units)),
			First: first * sector, Size: (last - first + 1) * sector,
		})
	}
	return all
}

// Change gives a partition another id and name. It is on disk after Write.
func (t *Table) Change(number int, id ID, name string) error {
	units := utf16.Encode([]rune(name))
	if number < 1 || number > len(t.list)/entrySize || len(units) > nameSize {
		return reason.Errorf("partition %d cannot be named %q", number, name)
	}
	e := t.list[(number-1)*entrySize : number*entrySize]
	raw := id.onDisk()
	copy(e[idAt:], raw[:])
	clear(e[nameAt:])
	for i, unit := range units {
		binary.LittleEndian.PutUint16(e[nameAt+2*i:], unit)
	}
	return nil
}

// Write puts the table on the disk that it was read from. It fails with ErrNoRoom, before anything
// is written, if the list has no second place.
func (t *Table) Write(disk Device) error {
	length := sectors(binary.LittleEndian.Uint32(t.header[countAt:]))
	front := uint64(2)
	if t.number(listAt) < front+length {
		front += length
	}
	if front+length > t.number(firstUsableAt) {
		return ErrNoRoom
	}
	t.setNumber(listAt, front)
	t.seal()
	// The copy refers to a list right behind what partitions may use.
	copied := &Table{header: bytes.Clone(t.header), list: t.list}
	copied.setNumber(ownAt, t.number(otherAt))
	copied.setNumber(otherAt, t.number(ownAt))
	copied.setNumber(listAt, t.number(lastUsableAt)+1)
	copied.seal()
	for _, one := range []*Table{t, copied} {
		for _, part := range []struct {
			place uint64
			bytes []byte
		}{{one.number(listAt), one.list}, {one.number(ownAt), one.header}} {
			if _, err := disk.WriteAt(part.bytes, int64(part.place*sector)); err != nil {
				return reason.Errorf("write the partition table: %w", err)
			}
			if err := disk.Sync(); err != nil {
				return reason.Errorf("write the partition table: %w", err)
			}
		}
	}
	return nil
}
