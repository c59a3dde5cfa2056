// Package slottest makes machines with two slots: a disk whose power can be cut at any write, an
// EFI partition, and what the firmware, systemd-boot and the kernel do with both at a start. The
// real packages slot, gpt and verity work with it.
package slottest

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"

	"github.com/BitBoxSwiss/bitbox-base/internal/bootdisk"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/slot"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/slot/gpt"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/slot/verity"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/release"
)

// ErrCut is what every operation returns from the power cut on.
var ErrCut = errors.New("the power was cut")

// Sizes in bytes. Everything is small, since it is written thousands of times.
const (
	sector     = 512
	rootSize   = 2 << 20
	hashesSize = 64 << 10
	firstByte  = 1 << 20 // the EFI partition, of one sector: its files are kept apart
	rootA      = firstByte + sector
	diskSize   = firstByte + 2*(rootSize+hashesSize) + 1<<20
)

// Machine is a machine whose disk has two slots.
type Machine struct {
	mu sync.Mutex
	// stable is what is on the disk, seen what programs read.
	stable, seen []byte
	pending      []write
	files        map[string][]byte

	// Left is how many operations are done before the power is cut; negative: it is not.
	Left int
	// Done counts operations.
	Done int
	// Random decides what of the last writes is on disk after a cut.
	Random *rand.Rand
}

type write struct {
	at int64
	b  []byte
}

// Release is a release of the image: its signed preamble, and what follows.
type Release struct {
	Header   release.Header
	Preamble []byte
	Parts    []byte
}

// Seed signs the releases of tests, and makes nobody's real ones.
func Seed(b byte) release.SigningSeed {
	seed, err := release.ParseSigningSeed(bytes.Repeat([]byte{b}, ed25519.SeedSize))
	if err != nil {
		panic(err)
	}
	return seed
}

// NewRelease makes one of a version. The version decides its bytes.
func NewRelease(version, architecture string, seed release.SigningSeed) Release {
	random := rand.NewChaCha8(sha256.Sum256([]byte(version)))
	part := func(size int) []byte {
		b := make([]byte, size)
		_, _ = random.Read(b) // it never fails
		return b
	}
	root, salt := part(release.ChunkSize+5*verity.BlockSize), part(32)
	tree, hash, err := verity.Tree(bytes.NewReader(root), uint64(len(root)), salt)
	if err != nil {
		panic(err)
	}
	hashes := append(verity.Superblock(uint64(len(root)), salt, [16]byte(salt)), tree...)
	uki := sealed(append([]byte("UKI "+version+" "+hex.EncodeToString(hash[:])+"\n"), part(release.ChunkSize+777)...))
	chunks, err := release.HashChunks(bytes.NewReader(root), bytes.NewReader(hashes), bytes.NewReader(uki))
	if err != nil {
		panic(err)
	}
	i := &release.Image{RootSize: uint64(len(root)), VeritySize: uint64(len(hashes)),
		UKISize: uint64(len(uki)), RootHash: hash, Chunks: chunks}
	h := release.Header{Version: version, Architecture: architecture, Size: i.Size(), Image: i}
	preamble, err := release.SignImage(h, seed)
	if err != nil {
		panic(err)
	}
	return Release{h, preamble, slices.Concat(root, hashes, uki)}
}

// sealed ends in its own hash, as a signed UKI does in a way.
func sealed(b []byte) []byte {
	hash := sha256.Sum256(b)
	return append(b, hash[:]...)
}

// NewMachine returns a machine that has a release in slot A, and nothing in slot B.
func NewMachine(r Release) *Machine {
	m := &Machine{stable: make([]byte, diskSize), files: map[string][]byte{}, Left: -1, Random: rand.New(rand.NewPCG(1, 2))}
	i := r.Header.Image
	copy(m.stable[rootA:], r.Parts[:i.RootSize])
	copy(m.stable[rootA+rootSize:], r.Parts[i.RootSize:i.RootSize+i.VeritySize])
	m.files[slot.Entry{Version: r.Header.Version}.Name()] = r.Parts[i.RootSize+i.VeritySize:]
	root, hashes := slot.IDs(i.RootHash)
	m.partition(root, hashes)
	m.seen = bytes.Clone(m.stable)
	return m
}

// partition writes the table, as the UEFI specification describes it.
func (m *Machine) partition(root, hashes gpt.ID) {
	list := make([]byte, 128*128)
	at := uint64(firstByte)
	for n, p := range []struct {
		kind string
		id   gpt.ID
		size uint64
	}{
		{bootdisk.ESPType, gpt.ID{3}, sector}, {bootdisk.RootTypes["amd64"], root, rootSize}, {bootdisk.VerityTypes["amd64"], hashes, hashesSize},
		{bootdisk.RootTypes["amd64"], gpt.ID{1}, rootSize}, {bootdisk.VerityTypes["amd64"], gpt.ID{2}, hashesSize},
	} {
		kind, err := hex.DecodeString(strings.ReplaceAll(p.kind, "-", ""))
		if err != nil {
			panic(err)
		}
		e := list[n*128:]
		copy(e, mixed([16]byte(kind)))
		copy(e[16:], mixed(p.id))
		binary.LittleEndian.PutUint64(e[32:], at/sector)
		binary.LittleEndian.PutUint64(e[40:], (at+p.size)/sector-1)
		at += p.size
	}
	last := uint64(diskSize/sector - 1)
	for _, h := range []struct{ own, other, list uint64 }{{1, last, 2}, {last, 1, last - 32}} {
		b := make([]byte, sector)
		copy(b, "EFI PART")
		binary.LittleEndian.PutUint32(b[8:], 0x00010000)
		binary.LittleEndian.PutUint32(b[12:], 92)
		binary.LittleEndian.PutUint64(b[24:], h.own)
		binary.LittleEndian.PutUint64(b[32:], h.other)
		binary.LittleEndian.PutUint64(b[40:], firstByte/sector)
		binary.LittleEndian.PutUint64(b[48:], last-33)
		binary.LittleEndian.PutUint64(b[72:], h.list)
		binary.LittleEndian.PutUint32(b[80:], 128)
		binary.LittleEndian.PutUint32(b[84:], 128)
		binary.LittleEndian.PutUint32(b[88:], crc32.ChecksumIEEE(list))
		binary.LittleEndian.PutUint32(b[16:], crc32.ChecksumIEEE(b[:92]))
		copy(m.stable[h.own*sector:], b)
		copy(m.stable[h.list*sector:], list)
	}
}

// mixed is how a GUID stands on disk.
func mixed(id [16]byte) []byte {
	return []byte{id[3], id[2], id[1], id[0], id[5], id[4], id[7], id[6], id[8], id[9], id[10], id[11], id[12], id[13], id[14], id[15]}
}

// operation counts one, and tells whether the power is cut in the middle of it.
func (m *Machine) operation() (cut bool, err error) {
	if m.Left == 0 {
		return false, ErrCut
	}
	m.Left--
	m.Done++
	return m.Left == 0, nil
}

// Restart is a power cut, or a restart, at which what was written but not synced is on disk in
// part.
func (m *Machine) Restart() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, w := range m.pending {
		for at := 0; at < len(w.b); at += sector {
			if m.Random.IntN(2) == 0 {
				copy(m.stable[w.at+int64(at):], w.b[at:min(at+sector, len(w.b))])
			}
		}
	}
	m.pending, m.seen, m.Left = nil, bytes.Clone(m.stable), -1
}

// Clone returns a machine with the same disk.
func (m *Machine) Clone(seed uint64) *Machine {
	return &Machine{stable: bytes.Clone(m.stable), seen: bytes.Clone(m.seen), files: maps.Clone(m.files), Left: -1,
		Random: rand.New(rand.NewPCG(seed, 3))}
}

// Size implements slot.Disk, as do the next four.
func (m *Machine) Size() uint64 { return diskSize }

// ReadAt reads what was written, synced or not.
func (m *Machine) ReadAt(b []byte, at int64) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.Left == 0 {
		return 0, ErrCut
	}
	return bytes.NewReader(m.seen).ReadAt(b, at)
}

// WriteAt is on disk after Sync.
func (m *Machine) WriteAt(b []byte, at int64) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	cut, err := m.operation()
	if err != nil {
		return 0, err
	}
	m.pending = append(m.pending, write{at, bytes.Clone(b)})
	copy(m.seen[at:], b)
	if cut {
		return 0, ErrCut
	}
	return len(b), nil
}

// Sync puts all on disk, unless the power is cut.
func (m *Machine) Sync() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	cut, err := m.operation()
	if err != nil || cut {
		return ErrCut
	}
	for _, w := range m.pending {
		copy(m.stable[w.at:], w.b)
	}
	m.pending = nil
	return nil
}

// Forget has nothing to do.
func (m *Machine) Forget() error { return nil }

// ESP is the machine's EFI partition.
func (m *Machine) ESP() slot.ESP { return esp{m} }

type esp struct{ m *Machine }

func (e esp) Names() ([]string, error) {
	e.m.mu.Lock()
	defer e.m.mu.Unlock()
	if e.m.Left == 0 {
		return nil, ErrCut
	}
	return slices.Sorted(maps.Keys(e.m.files)), nil
}

func (e esp) Open(name string) (io.ReadCloser, error) {
	e.m.mu.Lock()
	defer e.m.mu.Unlock()
	b, found := e.m.files[name]
	if !found {
		return nil, errors.New("there is no such file")
	}
	return io.NopCloser(bytes.NewReader(b)), nil
}

// Write leaves a part of the file when the power is cut.
func (e esp) Write(name string, content io.Reader) error {
	b, err := io.ReadAll(content)
	if err != nil {
		return err
	}
	e.m.mu.Lock()
	defer e.m.mu.Unlock()
	cut, err := e.m.operation()
	switch {
	case err != nil:
		return err
	case cut:
		e.m.files[name] = b[:e.m.Random.IntN(len(b))]
		return ErrCut
	}
	e.m.files[name] = b
	return nil
}

// Rename on FAT can leave the old name, the new one or both when the power is cut.
func (e esp) Rename(from, to string) error {
	e.m.mu.Lock()
	defer e.m.mu.Unlock()
	cut, err := e.m.operation()
	if err != nil {
		return err
	}
	b, found := e.m.files[from]
	if !found {
		return errors.New("there is no such file")
	}
	left := 2
	if cut {
		left = e.m.Random.IntN(3)
	}
	if left > 0 {
		e.m.files[to] = b
	}
	if left > 1 {
		delete(e.m.files, from)
	}
	if cut {
		return ErrCut
	}
	return nil
}

func (e esp) Remove(name string) error {
	e.m.mu.Lock()
	defer e.m.mu.Unlock()
	cut, err := e.m.operation()
	if err != nil {
		return err
	}
	if !cut || e.m.Random.IntN(2) == 0 {
		delete(e.m.files, name)
	}
	if cut {
		return ErrCut
	}
	return nil
}

// Front is the disk as Linux reads its partition table: the copy at the end does not count.
func (m *Machine) Front() io.ReaderAt {
	b := bytes.Clone(m.seen)
	clear(b[len(b)-sector:])
	return bytes.NewReader(b)
}

// Start is what happens at a start: systemd-boot takes the first entry and counts an attempt, and
// the kernel finds the slot by the root hash. It returns the slots as the version that starts sees
// them. An error is a machine that does not start.
func (m *Machine) Start() (*slot.Slots, error) {
	s := &slot.Slots{Disk: m, ESP: m.ESP()}
	entries, err := s.Entries()
	if err != nil || len(entries) == 0 {
		return nil, errors.Join(errors.New("there is nothing to start"), err)
	}
	e := entries[0]
	uki := m.files[e.Name()]
	if e.Counted && e.Left > 0 {
		counted := e
		counted.Left, counted.Done = e.Left-1, e.Done+1
		delete(m.files, e.Name())
		m.files[counted.Name()] = uki
	}
	if len(uki) < sha256.Size || !bytes.Equal(sealed(bytes.Clone(uki[:len(uki)-sha256.Size])), uki) {
		return nil, fmt.Errorf("the UKI %s is not whole", e.Name())
	}
	line, _, _ := strings.Cut(string(uki), "\n")
	fields := strings.Fields(line)
	hash, err := hex.DecodeString(fields[2])
	if err != nil {
		return nil, err
	}
	s.Running = fields[1]
	table, err := gpt.Read(m.Front(), m.Size())
	if err != nil {
		return nil, err
	}
	rootID, hashesID := slot.IDs([32]byte(hash))
	var root, hashes gpt.Partition
	for _, p := range table.Partitions() {
		switch p.ID {
		case rootID:
			root = p
		case hashesID:
			hashes = p
		}
	}
	if root.Number == 0 || hashes.Number == 0 {
		return nil, fmt.Errorf("the slot of version %s is not found", s.Running)
	}
	s.Letter = map[int]string{bootdisk.RootA: "a", bootdisk.RootB: "b"}[root.Number]
	super := make([]byte, verity.BlockSize)
	if _, err := m.ReadAt(super, int64(hashes.First)); err != nil {
		return nil, err
	}
	size := binary.LittleEndian.Uint64(super[72:]) * verity.BlockSize
	return s, verity.Verify(io.NewSectionReader(m, int64(root.First), int64(size)), size,
		io.NewSectionReader(m, int64(hashes.First), hashesSize), [32]byte(hash))
}
