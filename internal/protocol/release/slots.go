package release

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"io"

	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/publickey"
	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
)

const (
	// ChunkSize is how much of an image one hash covers, in bytes. A chunk is brought in one
	// message, and verified before it is written.
	ChunkSize = 512 << 10

	// Bounds of the parts of an image, in bytes. A slot's root partition has 2 GiB, and the
	// hashes of as much take 16.3 MiB. A kernel with its initrd takes 32 to 53 MiB.
	MaxRootSize   = 2 << 30
	MaxVeritySize = 32 << 20
	MaxUKISize    = 64 << 20

	// MaxPreambleSize bounds what is signed of any release, in bytes: the header, and the hash
	// of each chunk.
	MaxPreambleSize = imageHeaderSize + maxChunks*sha256.Size

	// blockSize is that of dm-verity, in bytes: root and hashes are whole blocks.
	blockSize = 4096

	maxChunks = (MaxRootSize + MaxVeritySize + MaxUKISize) / ChunkSize

	imageFormat = 2
	imageLabel  = "bitbox-base image header, format 2\x00"

	// Where the fields of an image's header stand, behind those that both formats have.
	rootSizeAt      = sizeAt
	veritySizeAt    = rootSizeAt + 8
	ukiSizeAt       = veritySizeAt + 8
	rootHashAt      = ukiSizeAt + 8
	tableHashAt     = rootHashAt + sha256.Size
	imageSignedAt   = tableHashAt + sha256.Size
	imageHeaderSize = imageSignedAt + ed25519.SignatureSize
)

// Image is what a release of the image holds: the root file system, the hashes that dm-verity
// checks it with, and the signed kernel (UKI) that names the root hash. The parts stand in this
// order.
type Image struct {
	// RootSize, VeritySize and UKISize are lengths in bytes.
	RootSize, VeritySize, UKISize uint64
	// RootHash is the one that the UKI names.
	RootHash [sha256.Size]byte
	// Chunks are the SHA-256 of all chunks. Each part begins with a new one.
	Chunks [][sha256.Size]byte
}

// Size is the length of all parts in bytes.
func (i *Image) Size() uint64 { return i.RootSize + i.VeritySize + i.UKISize }

func (i *Image) check() error {
	switch {
	case !within(i.RootSize, MaxRootSize) || i.RootSize%blockSize != 0:
		return reason.Errorf("a root of %d bytes is refused; whole blocks of %d up to %d bytes are allowed", i.RootSize, blockSize, MaxRootSize)
	case !within(i.VeritySize, MaxVeritySize) || i.VeritySize%blockSize != 0:
		return reason.Errorf("hashes of %d bytes are refused; whole blocks of %d up to %d bytes are allowed",
			i.VeritySize, blockSize, MaxVeritySize)
	case !within(i.UKISize, MaxUKISize):
		return reason.Errorf("a UKI of %d bytes is refused; at most %d are allowed", i.UKISize, MaxUKISize)
	case len(i.Chunks) != i.chunks():
		return reason.Errorf("there are hashes of %d chunks, not of %d", len(i.Chunks), i.chunks())
	}
	return nil
}

func within(size, most uint64) bool { return size > 0 && size <= most }

func chunksOf(size uint64) int { return int((size + ChunkSize - 1) / ChunkSize) }

func (i *Image) chunks() int {
	return chunksOf(i.RootSize) + chunksOf(i.VeritySize) + chunksOf(i.UKISize)
}

// Chunk tells which chunk begins at an offset of the parts, and its length in bytes. ok is false
// where none begins.
func (i *Image) Chunk(offset uint64) (number int, size uint64, ok bool) {
	for _, part := range []uint64{i.RootSize, i.VeritySize, i.UKISize} {
		if offset < part {
			return number + int(offset/ChunkSize), min(ChunkSize, part-offset), offset%ChunkSize == 0
		}
		offset -= part
		number += chunksOf(part)
	}
	return 0, 0, false
}

// Begun is where the chunk that contains an offset begins: of a part of this length, whole chunks
// have arrived up to there.
func (i *Image) Begun(offset uint64) uint64 {
	before := uint64(0)
	for _, part := range []uint64{i.RootSize, i.VeritySize, i.UKISize} {
		if offset < before+part {
			return before + (offset-before)/ChunkSize*ChunkSize
		}
		before += part
	}
	return before
}

// CheckChunk compares the chunk that begins at an offset with what was signed.
func (i *Image) CheckChunk(offset uint64, b []byte) error {
	number, size, ok := i.Chunk(offset)
	if !ok || uint64(len(b)) != size || sha256.Sum256(b) != i.Chunks[number] {
		return ErrDamaged
	}
	return nil
}

// Whole reads the parts from r to their end, and compares each chunk. It returns how many bytes
// are as they were signed, from the beginning; the error is ErrDamaged if that is not all.
func (i *Image) Whole(r io.Reader) (good uint64, err error) {
	buffer := make([]byte, ChunkSize)
	for good < i.Size() {
		_, size, _ := i.Chunk(good)
		if _, err := io.ReadFull(r, buffer[:size]); err != nil {
			if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
				err = ErrDamaged
			}
			return good, err
		}
		if err := i.CheckChunk(good, buffer[:size]); err != nil {
			return good, err
		}
		good += size
	}
	if n, err := io.ReadFull(r, buffer[:1]); n != 0 || !errors.Is(err, io.EOF) {
		return good, ErrDamaged
	}
	return good, nil
}

// HashChunks reads the parts, and returns the hashes of their chunks.
func HashChunks(parts ...io.Reader) (chunks [][sha256.Size]byte, err error) {
	buffer := make([]byte, ChunkSize)
	for _, part := range parts {
		for {
			n, err := io.ReadFull(part, buffer)
			if n > 0 {
				chunks = append(chunks, sha256.Sum256(buffer[:n]))
			}
			if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
				break
			}
			if err != nil {
				return nil, err
			}
		}
	}
	return chunks, nil
}

// SignImage returns the preamble of an image's release: header, signature and hashes.
func SignImage(h Header, seed SigningSeed) ([]byte, error) {
	if h.Image == nil {
		return nil, reason.New("sign a release: there is no image")
	}
	if err := h.check(); err != nil {
		return nil, reason.Errorf("sign a release: %w", err)
	}
	b := h.marshalImage()
	b = append(b, ed25519.Sign(ed25519.NewKeyFromSeed(seed.Expose()), imageTranscript(b))...)
	return append(b, h.Image.table()...), nil
}

func imageTranscript(unsigned []byte) []byte { return append([]byte(imageLabel), unsigned...) }

func (i *Image) table() []byte {
	table := make([]byte, 0, len(i.Chunks)*sha256.Size)
	for _, hash := range i.Chunks {
		table = append(table, hash[:]...)
	}
	return table
}

func (h Header) marshalImage() []byte {
	b := make([]byte, imageSignedAt, imageHeaderSize)
	copy(b, magic)
	binary.BigEndian.PutUint16(b[formatAt:], imageFormat)
	copy(b[versionAt:architectureAt], h.Version)
	copy(b[architectureAt:sizeAt], h.Architecture)
	binary.BigEndian.PutUint64(b[rootSizeAt:], h.Image.RootSize)
	binary.BigEndian.PutUint64(b[veritySizeAt:], h.Image.VeritySize)
	binary.BigEndian.PutUint64(b[ukiSizeAt:], h.Image.UKISize)
	copy(b[rootHashAt:], h.Image.RootHash[:])
	table := sha256.Sum256(h.Image.table())
	copy(b[tableHashAt:], table[:])
	return b
}

// isImage tells what seems to be a release of the image from all else.
func isImage(b []byte) bool {
	return len(b) >= versionAt && string(b[:len(magic)]) == magic && binary.BigEndian.Uint16(b[formatAt:]) == imageFormat
}

func verifyImage(b []byte, key ed25519.PublicKey) (Header, error) {
	if len(b) < imageHeaderSize || len(b) > MaxPreambleSize {
		return Header{}, ErrDamaged
	}
	if !publickey.Verify(key, imageTranscript(b[:imageSignedAt]), b[imageSignedAt:imageHeaderSize]) {
		return Header{}, ErrSignature
	}
	return parseImage(b)
}

func parseImage(b []byte) (Header, error) {
	if len(b) < imageHeaderSize || len(b) > MaxPreambleSize || (len(b)-imageHeaderSize)%sha256.Size != 0 {
		return Header{}, ErrDamaged
	}
	i := &Image{
		RootSize: binary.BigEndian.Uint64(b[rootSizeAt:]), VeritySize: binary.BigEndian.Uint64(b[veritySizeAt:]),
		UKISize: binary.BigEndian.Uint64(b[ukiSizeAt:]), RootHash: [sha256.Size]byte(b[rootHashAt:tableHashAt]),
	}
	for table := b[imageHeaderSize:]; len(table) > 0; table = table[sha256.Size:] {
		i.Chunks = append(i.Chunks, [sha256.Size]byte(table))
	}
	h := Header{Version: text(b[versionAt:architectureAt]), Architecture: text(b[architectureAt:sizeAt]), Image: i}
	if err := h.check(); err != nil {
		return Header{}, reason.Errorf("%w: %w", ErrDamaged, err)
	}
	h.Size = i.Size()
	// There is one way to write a header, and the hashes are those that it names.
	if !bytes.Equal(h.marshalImage(), b[:imageSignedAt]) {
		return Header{}, ErrDamaged
	}
	return h, nil
}

// ReadPreamble reads what Verify and Parse take from the beginning of a file, and not a byte
// more. Of a file that is no release, the preamble is what could be read of it: Parse says what is
// wrong with it.
func ReadPreamble(r io.Reader) ([]byte, error) {
	b, err := readOn(r, nil, versionAt)
	if err != nil || len(b) < versionAt {
		return b, err
	}
	if !isImage(b) {
		return readOn(r, b, HeaderSize)
	}
	b, err = readOn(r, b, imageHeaderSize)
	if err != nil || len(b) < imageHeaderSize {
		return b, err
	}
	i := Image{
		RootSize: binary.BigEndian.Uint64(b[rootSizeAt:]), VeritySize: binary.BigEndian.Uint64(b[veritySizeAt:]),
		UKISize: binary.BigEndian.Uint64(b[ukiSizeAt:]),
	}
	if i.RootSize > MaxRootSize || i.VeritySize > MaxVeritySize || i.UKISize > MaxUKISize {
		return b, nil
	}
	return readOn(r, b, imageHeaderSize+i.chunks()*sha256.Size)
}

// readOn makes b as long as size, or as long as what there is.
func readOn(r io.Reader, b []byte, size int) ([]byte, error) {
	have := len(b)
	b = append(b, make([]byte, size-have)...)
	n, err := io.ReadFull(r, b[have:])
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = nil
	}
	return b[:have+n], err
}
