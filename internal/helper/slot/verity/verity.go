// Package verity verifies a file system and its hashes as dm-verity does, before they are started
// from. The layout is that of the kernel's documentation (admin-guide/device-mapper/verity.rst) and
// of veritysetup(8): one superblock, then the levels of the tree, the highest first.
package verity

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"io"

	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
)

const (
	// BlockSize is that of data and hashes, in bytes.
	BlockSize = 4096
	// maxBlocks bounds what is verified: 4 GiB.
	maxBlocks = 1 << 20

	magic     = "verity\x00\x00"
	version   = 1
	hashType  = 1
	algorithm = "sha256"

	// Where the fields of the superblock stand; numbers are little endian.
	hashTypeAt  = 12
	algorithmAt = 32
	dataSizeAt  = 64
	hashSizeAt  = 68
	blocksAt    = 72
	saltSizeAt  = 80
	saltAt      = 88
	maxSalt     = 256
)

// ErrOther: data and hashes do not belong together, or not to this root hash.
var ErrOther = reason.New("the root file system is not the one that its root hash names")

// Verify reads size bytes of data, and compares them with the hashes and with the root hash. All
// that counts are the bytes: nothing is taken from the superblock without being checked by root.
func Verify(data io.Reader, size uint64, hashes io.Reader, root [sha256.Size]byte) error {
	super := make([]byte, BlockSize)
	if _, err := io.ReadFull(hashes, super); err != nil {
		return reason.Errorf("read the hashes of the root file system: %w", err)
	}
	number := func(at int) uint64 { return uint64(binary.LittleEndian.Uint32(super[at:])) }
	saltSize := int(binary.LittleEndian.Uint16(super[saltSizeAt:]))
	switch {
	case string(super[:8]) != magic || number(8) != version || number(hashTypeAt) != hashType,
		string(bytes.TrimRight(super[algorithmAt:dataSizeAt], "\x00")) != algorithm,
		number(dataSizeAt) != BlockSize || number(hashSizeAt) != BlockSize || saltSize > maxSalt,
		binary.LittleEndian.Uint64(super[blocksAt:])*BlockSize != size:
		return reason.Errorf("%w: the hashes are of another kind", ErrOther)
	}
	tree, got, err := Tree(data, size, super[saltAt:saltAt+saltSize])
	if err != nil {
		return err
	}
	if got != root {
		return ErrOther
	}
	block := make([]byte, BlockSize)
	for ; len(tree) > 0; tree = tree[BlockSize:] {
		if _, err := io.ReadFull(hashes, block); err != nil {
			return reason.Errorf("read the hashes of the root file system: %w", err)
		}
		if !bytes.Equal(block, tree[:BlockSize]) {
			return reason.Errorf("%w: its hashes are damaged", ErrOther)
		}
	}
	return nil
}

// Tree returns what stands behind the superblock, and the root hash.
func Tree(data io.Reader, size uint64, salt []byte) (tree []byte, root [sha256.Size]byte, err error) {
	if size == 0 || size%BlockSize != 0 || size/BlockSize > maxBlocks {
		return nil, root, reason.Errorf("a root file system has whole blocks of %d bytes, at most %d, not %d bytes", BlockSize, maxBlocks, size)
	}
	block := make([]byte, BlockSize)
	salted := append(bytes.Clone(salt), block...)
	hashOf := func(block []byte) [sha256.Size]byte {
		copy(salted[len(salt):], block)
		return sha256.Sum256(salted)
	}
	var level []byte
	for range size / BlockSize {
		if _, err := io.ReadFull(data, block); err != nil {
			return nil, root, reason.Errorf("read the root file system: %w", err)
		}
		hash := hashOf(block)
		level = append(level, hash[:]...)
	}
	for len(level) > sha256.Size {
		if rest := len(level) % BlockSize; rest != 0 {
			level = append(level, make([]byte, BlockSize-rest)...)
		}
		tree = append(level, tree...) // the highest comes first
		var next []byte
		for at := 0; at < len(level); at += BlockSize {
			hash := hashOf(level[at : at+BlockSize])
			next = append(next, hash[:]...)
		}
		level = next
	}
	return tree, [sha256.Size]byte(level), nil
}

// Superblock returns the first block of the hashes.
func Superblock(size uint64, salt []byte, id [16]byte) []byte {
	super := make([]byte, BlockSize)
	copy(super, magic)
	binary.LittleEndian.PutUint32(super[8:], version)
	binary.LittleEndian.PutUint32(super[hashTypeAt:], hashType)
	copy(super[16:], id[:])
	copy(super[algorithmAt:], algorithm)
	binary.LittleEndian.PutUint32(super[dataSizeAt:], BlockSize)
	binary.LittleEndian.PutUint32(super[hashSizeAt:], BlockSize)
	binary.LittleEndian.PutUint64(super[blocksAt:], size/BlockSize)
	binary.LittleEndian.PutUint16(super[saltSizeAt:], uint16(len(salt)))
	copy(super[saltAt:], salt)
	return super
}
