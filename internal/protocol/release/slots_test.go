package release

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"math/rand/v2"
	"testing"
)

// anImage returns a release of three small parts, and the parts.
func anImage(t testing.TB) (Header, []byte) {
	t.Helper()
	random := rand.NewChaCha8([32]byte{1})
	part := func(size int) []byte {
		b := make([]byte, size)
		_, _ = random.Read(b) // it never fails
		return b
	}
	root, verity, uki := part(ChunkSize+blockSize), part(2*blockSize), part(ChunkSize/2+1)
	chunks, err := HashChunks(bytes.NewReader(root), bytes.NewReader(verity), bytes.NewReader(uki))
	if err != nil {
		t.Fatal(err)
	}
	i := &Image{RootSize: uint64(len(root)), VeritySize: uint64(len(verity)), UKISize: uint64(len(uki)), RootHash: [32]byte{7}, Chunks: chunks}
	return Header{Version: "1.2.3", Architecture: "amd64", Size: i.Size(), Image: i}, bytes.Join([][]byte{root, verity, uki}, nil)
}

func signedImage(t testing.TB) ([]byte, []byte) {
	t.Helper()
	h, parts := anImage(t)
	b, err := SignImage(h, seedOf(t, 1))
	if err != nil {
		t.Fatal(err)
	}
	return b, parts
}

func TestAnImageIsReadAsItWasSigned(t *testing.T) {
	preamble, parts := signedImage(t)
	file := append(bytes.Clone(preamble), parts...)
	reader := bytes.NewReader(file)
	read, err := ReadPreamble(reader)
	if err != nil || !bytes.Equal(read, preamble) {
		t.Fatalf("the preamble has %d bytes, not %d: %v", len(read), len(preamble), err)
	}
	h, err := Verify(read, PublicKey(seedOf(t, 1)))
	want, _ := anImage(t)
	if err != nil || h.Version != want.Version || h.Size != want.Size || h.Image.RootHash != want.Image.RootHash {
		t.Fatalf("read %+v, %v", h, err)
	}
	if good, err := h.Image.Whole(reader); err != nil || good != h.Size {
		t.Errorf("%d bytes are good: %v", good, err)
	}
	if number, size, ok := h.Image.Chunk(h.Image.RootSize); number != 2 || size != h.Image.VeritySize || !ok {
		t.Errorf("the hashes begin with chunk %d of %d bytes, %v", number, size, ok)
	}
}

// attackImage returns how many changed preambles a reader takes.
func attackImage(t *testing.T, read func([]byte) error) (taken int) {
	good, _ := signedImage(t)
	for bit := range 8 * len(good) {
		bad := bytes.Clone(good)
		bad[bit/8] ^= 1 << (bit % 8)
		if read(bad) == nil {
			taken++
		}
	}
	for n := range good {
		if read(good[:n]) == nil {
			taken++
		}
	}
	for _, more := range []int{1, 32, 64} {
		if read(append(bytes.Clone(good), make([]byte, more)...)) == nil {
			taken++
		}
	}
	return taken
}

func TestAFlippedBitAnywhereInAPreambleIsRefused(t *testing.T) {
	key := PublicKey(seedOf(t, 1))
	if taken := attackImage(t, func(b []byte) error { _, err := Verify(b, key); return err }); taken != 0 {
		t.Errorf("%d changed preambles are taken", taken)
	}
	// A reader that does not look at the signature takes many.
	if taken := attackImage(t, func(b []byte) error { _, err := Parse(b); return err }); taken == 0 {
		t.Error("without the signature some should be taken; this attack proves nothing")
	}
	b, _ := signedImage(t)
	if _, err := Verify(b, PublicKey(seedOf(t, 2))); !errors.Is(err, ErrSignature) {
		t.Errorf("with another key: %v", err)
	}
}

func TestAChangedChunkIsFoundWhereItIs(t *testing.T) {
	h, parts := anImage(t)
	for _, at := range []int{0, ChunkSize, ChunkSize + blockSize, len(parts) - 1} {
		bad := bytes.Clone(parts)
		bad[at] ^= 1
		good, err := h.Image.Whole(bytes.NewReader(bad))
		if !errors.Is(err, ErrDamaged) || good > uint64(at) {
			t.Errorf("with byte %d changed %d bytes are good: %v", at, good, err)
		}
	}
	for _, bad := range [][]byte{nil, parts[:1], parts[:len(parts)-1], append(bytes.Clone(parts), 0)} {
		if _, err := h.Image.Whole(bytes.NewReader(bad)); !errors.Is(err, ErrDamaged) {
			t.Errorf("%d bytes instead of %d are taken: %v", len(bad), len(parts), err)
		}
	}
	if err := h.Image.CheckChunk(1, parts[1:ChunkSize+1]); !errors.Is(err, ErrDamaged) {
		t.Errorf("a chunk that begins nowhere is taken: %v", err)
	}
}

func TestAnImageOutOfBoundsIsRefusedThoughSigned(t *testing.T) {
	for name, change := range map[string]func(*Header){
		"an option":          func(h *Header) { h.Version = "--root=/" },
		"no architecture":    func(h *Header) { h.Architecture = "" },
		"no root":            func(h *Header) { h.Image.RootSize = 0 },
		"half a block":       func(h *Header) { h.Image.RootSize++ },
		"a root too long":    func(h *Header) { h.Image.RootSize = MaxRootSize + blockSize },
		"hashes too long":    func(h *Header) { h.Image.VeritySize = MaxVeritySize + blockSize },
		"no UKI":             func(h *Header) { h.Image.UKISize = 0 },
		"a UKI too long":     func(h *Header) { h.Image.UKISize = MaxUKISize + 1 },
		"a UKI with no end":  func(h *Header) { h.Image.UKISize = 1<<64 - 1 },
		"a chunk is missing": func(h *Header) { h.Image.Chunks = h.Image.Chunks[1:] },
	} {
		h, _ := anImage(t)
		change(&h)
		b := h.marshalImage()
		b = append(b, ed25519.Sign(ed25519.NewKeyFromSeed(seedOf(t, 1).Expose()), imageTranscript(b))...)
		b = append(b, h.Image.table()...)
		if _, err := Verify(b, PublicKey(seedOf(t, 1))); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := SignImage(h, seedOf(t, 1)); err == nil {
			t.Errorf("%s can be signed", name)
		}
		if read, err := ReadPreamble(bytes.NewReader(b)); err != nil || len(read) > MaxPreambleSize {
			t.Errorf("%s: a preamble of %d bytes, %v", name, len(read), err)
		}
	}
}

func FuzzVerifyImage(f *testing.F) {
	key := PublicKey(seedOf(f, 1))
	good, _ := signedImage(f)
	f.Add(good)
	f.Add(good[:10])
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := Verify(b, key); err == nil && isImage(b) && !bytes.Equal(b, good) {
			t.Errorf("took %x", b)
		}
		if h, err := Parse(b); err == nil && h.Image != nil && !bytes.Equal(h.marshalImage(), b[:imageSignedAt]) {
			t.Errorf("a header is read that would be written in another way: %x", b)
		}
		if read, err := ReadPreamble(bytes.NewReader(b)); err != nil || !bytes.HasPrefix(b, read) || len(read) > MaxPreambleSize {
			t.Errorf("read %d bytes, %v", len(read), err)
		}
	})
}
