package changelog

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"

	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/atomicfile"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/posture"
	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
)

// The file:
//
//	"bitbox-base changes 1\n" | number (8) and hash (32) of the entry before the first | SHA-256 of all that
//	then for each entry: its length (4) | the length inverted (4) | its bytes | its hash (32)
//
// Numbers are big-endian. The file grows by one write and one sync for each entry, so an
// entry costs the same however many there are. The hash at the end of an entry tells one
// that a power cut has left half written from one that was whole.
const (
	magic      = "bitbox-base changes 1\n"
	headerSize = len(magic) + 8 + 32 + 32
	lengthSize = 4 + 4

	labelHeader = "bitbox-base changes file v1"

	// maxFile is far above 10,000 of the longest entries, in bytes.
	maxFile = 16 << 20
)

// File is a Log on a disk. It is safe for concurrent use.
type File struct {
	path string

	mu   sync.Mutex
	log  *Log
	file *os.File
	size int64 // of what is whole
	// torn: what is after size is not known to be nothing.
	torn bool
	// missed is how many entries could not be recorded since the last that was, and why.
	missed int
	why    string
	// broken: it is unknown which file is the log.
	broken error

	// fail, in tests, is called before each step.
	fail func(step string) error
}

// Floor is an entry that is known to have been written; the zero Floor, that the log was
// begun.
type Floor struct {
	Number uint64
	Hash   Hash
}

// Open reads the log at path. A log that does not have floor (and has not forgotten it) is
// damaged, and so is a file that is gone; a nil floor is a log that was never begun, which
// Open does. Whatever is wrong, nothing is replaced.
//
// A power cut may have left a piece of an entry that was never answered. Open cuts it off
// and says so by cut, and the caller records it.
func Open(path string, floor *Floor) (f *File, cut bool, err error) {
	b, err := read(path)
	switch {
	case errors.Is(err, fs.ErrNotExist) && floor == nil:
		if err := atomicfile.WriteFileAtomic(path, header(0, Hash{}), 0o600); err != nil {
			return nil, false, reason.Errorf("begin the log of changes: %w", err)
		}
		b = header(0, Hash{})
	case errors.Is(err, fs.ErrNotExist):
		return nil, false, reason.Errorf("read the log of changes %s: %w: the file is missing, though it had %d entries; restore it", path, ErrDamaged,
			floor.Number)
	case err != nil:
		return nil, false, reason.Errorf("read the log of changes: %w", err)
	}
	log, size, err := parseFile(b)
	if err != nil {
		return nil, false, reason.Errorf("read the log of changes %s: %w; restore a copy, or keep it to find out what has happened", path,
			err)
	}
	if floor != nil {
		if last, _ := log.Last(); last < floor.Number {
			return nil, false, reason.Errorf("read the log of changes %s: %w: it ends with entry %d, though it had %d", path, ErrDamaged, last,
				floor.Number)
		}
		if known, kept := log.hashOf(floor.Number); kept && known != floor.Hash {
			return nil, false, reason.Errorf("read the log of changes %s: %w: entry %d is not the one that was written",
				path, ErrDamaged, floor.Number)
		}
	}
	f = &File{path: path, log: log, size: int64(size), torn: size < len(b), fail: func(string) error { return nil }}
	if f.file, err = os.OpenFile(path, os.O_RDWR, 0o600); err != nil {
		return nil, false, reason.Errorf("open the log of changes: %w", err)
	}
	cut = f.torn
	if err := f.mend(); err != nil {
		return nil, false, errors.Join(err, f.file.Close())
	}
	return f, cut, nil
}

func read(path string) ([]byte, error) {
	info, err := os.Lstat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, reason.Errorf("%s: %w: it is no file", path, ErrDamaged)
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	b, err := io.ReadAll(io.LimitReader(file, maxFile+1))
	if err == nil && len(b) > maxFile {
		err = reason.Errorf("%s: %w: it has more than %d bytes", path, ErrDamaged, maxFile)
	}
	return b, err
}

func header(before uint64, anchor Hash) []byte {
	b := append([]byte(magic), binary.BigEndian.AppendUint64(nil, before)...)
	b = append(b, anchor[:]...)
	sum := posture.HashOf(labelHeader, b)
	return append(b, sum[:]...)
}

func frame(s Stored) []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(len(s.Bytes)))
	b = binary.BigEndian.AppendUint32(b, ^uint32(len(s.Bytes)))
	b = append(b, s.Bytes...)
	return append(b, s.Hash[:]...)
}

// parseFile returns the Log and how long the part is that it was read from: what follows is an
// entry of which a power cut has left a part.
func parseFile(b []byte) (*Log, int, error) {
	if len(b) < headerSize || !bytes.HasPrefix(b, []byte(magic)) {
		return nil, 0, reason.Errorf("%w: its beginning is not that of a log", ErrDamaged)
	}
	before, anchor := binary.BigEndian.Uint64(b[len(magic):]), Hash(b[len(magic)+8:])
	if !bytes.Equal(b[:headerSize], header(before, anchor)) || before == 0 && anchor != (Hash{}) {
		return nil, 0, reason.Errorf("%w: its beginning is not that of a log", ErrDamaged)
	}
	log, at := Restore(before, anchor), headerSize
	for at < len(b) {
		rest := b[at:]
		if isTorn(rest) {
			return log, at, nil
		}
		last, _ := log.Last()
		n := binary.BigEndian.Uint32(rest)
		if n != ^binary.BigEndian.Uint32(rest[4:]) || n > MaxEntrySize {
			return nil, 0, reason.Errorf("%w: entry %d has no length", ErrDamaged, last+1)
		}
		rest = rest[lengthSize:]
		s := Stored{Bytes: rest[:n], Hash: Hash(rest[n:])}
		if posture.HashOf(labelEntry, s.Bytes) != s.Hash {
			return nil, 0, reason.Errorf("%w: entry %d is not what was written", ErrDamaged, last+1)
		}
		if err := log.Add(s.Bytes); err != nil {
			return nil, 0, err
		}
		at += lengthSize + int(n) + len(s.Hash)
	}
	return log, at, nil
}

// isTorn tells whether rest is what a power cut leaves of a last entry: the beginning of
// one, or one whose end never reached the disk and reads as zeros. No whole entry is like
// that, but for one chance in 2^256, so none that was answered is taken for torn.
func isTorn(rest []byte) bool {
	zeros := func(b []byte) bool { return len(bytes.Trim(b, "\x00")) == 0 }
	if len(rest) < lengthSize || zeros(rest[lengthSize:]) {
		return true
	}
	n := binary.BigEndian.Uint32(rest)
	if n != ^binary.BigEndian.Uint32(rest[4:]) || n > MaxEntrySize {
		return false // no beginning of an entry: a flipped bit
	}
	end := lengthSize + int(n)
	return len(rest) < end+len(Hash{}) || len(rest) == end+len(Hash{}) && zeros(rest[end:])
}

// mend cuts off what is after the last whole entry.
func (f *File) mend() error {
	if !f.torn {
		return nil
	}
	if err := errors.Join(f.file.Truncate(f.size), f.file.Sync()); err != nil {
		return reason.Errorf("cut off the unfinished end of the log of changes: %w", err)
	}
	f.torn = false
	return nil
}

// Append records a draft; it is on the disk when Append returns nil. Entries that cannot be
// recorded are counted, and the next entry that can be recorded gives their number.
func (f *File) Append(draft *systemv1.ChangeEntry) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	err := f.appendMissed(draft.GetTime())
	if err == nil {
		err = f.append(draft)
	}
	if err != nil {
		f.missed++
		f.why = reason.Of(err)
		return reason.Errorf("record a change: %w", err)
	}
	return nil
}

func (f *File) appendMissed(time int64) error {
	if f.missed == 0 {
		return nil
	}
	err := f.append(&systemv1.ChangeEntry{
		Time: time, Actor: systemv1.ChangeEntry_ACTOR_BASE, What: NotRecorded,
		Detail: fmt.Sprintf("%d", f.missed), Failure: f.why,
	})
	if err == nil {
		f.missed, f.why = 0, ""
	}
	return err
}

func (f *File) append(draft *systemv1.ChangeEntry) error {
	if f.broken != nil {
		return f.broken
	}
	if err := f.mend(); err != nil {
		return err
	}
	if f.log.Len() >= MaxEntries {
		// If there is no room for that, the log grows a little meanwhile.
		if err := f.forget(); err != nil && (f.broken != nil || f.log.Len() >= MaxEntries+MaxStretch) {
			return err
		}
	}
	s, err := f.log.Next(draft)
	if err != nil {
		return err
	}
	b := frame(s)
	f.torn = true // until it is known to be whole
	if err := f.fail("append"); err != nil {
		return err
	}
	if _, err := f.file.WriteAt(b, f.size); err != nil {
		return err
	}
	if err := f.file.Sync(); err != nil {
		return err
	}
	if err := f.log.Add(s.Bytes); err != nil {
		return err
	}
	f.torn, f.size = false, f.size+int64(len(b))
	return nil
}

// forget rewrites the file without the oldest entries.
func (f *File) forget() error {
	next := &Log{anchor: f.log.anchor, before: f.log.before, entries: f.log.entries}
	next.Forget()
	b := header(next.before, next.anchor)
	for _, s := range next.entries {
		b = append(b, frame(s)...)
	}
	if err := f.fail("forget"); err != nil {
		return err
	}
	failed := atomicfile.WriteFileAtomic(f.path, b, 0o600)
	// Also when it has failed: the new file may be in its place.
	file, err := os.OpenFile(f.path, os.O_RDWR, 0o600)
	if err != nil {
		f.broken = reason.Errorf("open the log of changes again: %w; start the program again", err)
		return f.broken
	}
	if failed != nil {
		info, err := file.Stat()
		if err != nil || info.Size() != int64(len(b)) { // the old one is longer by 500 entries
			return errors.Join(reason.Errorf("forget the oldest entries: %w", failed), err, file.Close())
		}
	}
	_ = f.file.Close() // nothing of it is left to be written
	f.file, f.log, f.size = file, next, int64(len(b))
	return nil
}

// Floor is the last entry, for the next Open.
func (f *File) Floor() Floor {
	f.mu.Lock()
	defer f.mu.Unlock()
	number, hash := f.log.Last()
	return Floor{number, hash}
}

// Stretch returns entries (Log.Stretch) and the head that goes with them.
func (f *File) Stretch(after uint64, most uint32) ([][]byte, *systemv1.ChangesHead) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.log.Stretch(after, most), f.log.Head()
}

// Newest is Log.Newest.
func (f *File) Newest(look func(*systemv1.ChangeEntry) bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.log.Newest(look)
}

// Close ends the use of the file.
func (f *File) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.file.Close()
}
