package verity

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"testing"
)

// The vector was made with veritysetup 2.6.1:
//
//	veritysetup format --salt=0102…0102 --uuid=00000000-0000-0000-0000-000000000001 data hashes
//
// of 300 blocks whose byte i is i mod 251: two levels of hashes.
const (
	vectorRoot   = "d9fcef76117dcbbfaf2767f0906213795e021edda5d769c1dd615639e8ab1a5f"
	vectorHashes = "6d52b250b480d29b8bc2821d21e566787f8cd838eb8aa0d631a0b849cf15da57"
)

func vector(t *testing.T) (data, hashes []byte, root [32]byte) {
	t.Helper()
	data = make([]byte, 300*BlockSize)
	for i := range data {
		data[i] = byte(i % 251)
	}
	salt := bytes.Repeat([]byte{1, 2}, 16)
	tree, root, err := Tree(bytes.NewReader(data), uint64(len(data)), salt)
	if err != nil {
		t.Fatal(err)
	}
	return data, append(Superblock(uint64(len(data)), salt, [16]byte{15: 1}), tree...), root
}

func TestHashesAreThoseOfVeritysetup(t *testing.T) {
	_, hashes, root := vector(t)
	if got := hex.EncodeToString(root[:]); got != vectorRoot {
		t.Errorf("the root hash is %s", got)
	}
	if got := sha256.Sum256(hashes); hex.EncodeToString(got[:]) != vectorHashes {
		t.Errorf("the %d bytes of hashes are other ones: %x", len(hashes), got)
	}
}

func TestAFlippedBitAnywhereIsFound(t *testing.T) {
	data, hashes, root := vector(t)
	verify := func(data, hashes []byte, root [32]byte) error {
		return Verify(bytes.NewReader(data), uint64(len(data)), bytes.NewReader(hashes), root)
	}
	if err := verify(data, hashes, root); err != nil {
		t.Fatal(err)
	}
	for _, at := range []int{0, BlockSize, len(data) - 1} {
		bad := bytes.Clone(data)
		bad[at] ^= 1
		if err := verify(bad, hashes, root); !errors.Is(err, ErrOther) {
			t.Errorf("byte %d of the data: %v", at, err)
		}
	}
	// The id counts for nothing.
	for _, at := range []int{0, 8, 12, 32, 64, 68, 72, 80, 88, BlockSize, 2 * BlockSize, len(hashes) - BlockSize} {
		bad := bytes.Clone(hashes)
		bad[at] ^= 1
		if err := verify(data, bad, root); !errors.Is(err, ErrOther) {
			t.Errorf("byte %d of the hashes: %v", at, err)
		}
	}
	for name, err := range map[string]error{
		"another root hash": verify(data, hashes, [32]byte{1}),
		"cut data":          Verify(bytes.NewReader(data[:BlockSize]), uint64(len(data)), bytes.NewReader(hashes), root),
		"cut hashes":        verify(data, hashes[:len(hashes)-1], root),
		"no hashes":         verify(data, nil, root),
		"less data":         verify(data[:len(data)-BlockSize], hashes, root),
		"half a block":      verify(data[:100], hashes, root),
		"no data":           verify(nil, hashes, root),
	} {
		if err == nil {
			t.Errorf("%s is taken", name)
		}
	}
}
