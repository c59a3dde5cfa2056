// Package release defines the files that the maker of releases signs: a new version of the Base's
// own package (this file), a new version of the whole image (slots.go), and the list of what there
// is (feed.go). It only reads and writes bytes. docs/updates.md describes each byte.
//
// A release file begins with a signed preamble that has the length and the hashes of the rest. So
// a Base that has received the preamble can decide whether it wants the rest before it stores a
// byte of it.
package release

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"io"
	"regexp"

	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/publickey"
	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
	"github.com/BitBoxSwiss/bitbox-base/internal/secret"
)

const (
	// HeaderSize is the length of the header in bytes. The package follows it.
	HeaderSize = signatureAt + ed25519.SignatureSize
	// MaxPackageSize is the longest package that a Base takes, in bytes. A Base's is 10 MiB.
	MaxPackageSize = 64 << 20

	magic  = "BITBOXUP"
	format = 1
	// label begins what is signed, so that a signature counts for nothing else.
	label = "bitbox-base release header, format 1\x00"

	versionSize      = 64
	architectureSize = 16

	// Where the fields stand; numbers are big endian.
	formatAt       = 8 // magic is before it
	versionAt      = formatAt + 2
	architectureAt = versionAt + versionSize
	sizeAt         = architectureAt + architectureSize
	hashAt         = sizeAt + 8
	signatureAt    = hashAt + sha256.Size
)

// Why a header is refused.
var (
	// ErrNotARelease: these bytes are something else.
	ErrNotARelease = reason.New("this is no release file")
	// ErrFormat: the file is of a format that is not known here.
	ErrFormat = reason.New("this release file has another format; install an intermediate release first")
	// ErrSignature: the maker of releases has not signed it.
	ErrSignature = reason.New("the release is not signed by the key that this Base knows")
	// ErrDamaged: it is not what was signed.
	ErrDamaged = reason.New("the release file is damaged or incomplete; fetch it again")
)

type signingSeedKind struct{}

// SigningSeed is the seed (RFC 8032) of the key that signs releases.
type SigningSeed = secret.Key[signingSeedKind]

// ParseSigningSeed makes a SigningSeed of its 32 bytes.
func ParseSigningSeed(b []byte) (SigningSeed, error) { return secret.New[signingSeedKind](b) }

// GenerateSigningSeed makes a new one.
func GenerateSigningSeed() (SigningSeed, error) { return secret.Generate[signingSeedKind](nil) }

// PublicKey is what a Base knows of the key.
func PublicKey(seed SigningSeed) ed25519.PublicKey {
	return ed25519.NewKeyFromSeed(seed.Expose()).Public().(ed25519.PublicKey)
}

// ParsePublicKey reads a key as it is given to the build: 64 hexadecimal digits.
func ParsePublicKey(text string) (ed25519.PublicKey, error) {
	key, err := hex.DecodeString(text)
	if err != nil || publickey.CheckSigning(key) != nil {
		return nil, reason.Errorf("a release key is %d hexadecimal digits, not %q", 2*ed25519.PublicKeySize, text)
	}
	return key, nil
}

// Header says what a release file holds.
type Header struct {
	// Version and Architecture are those of the package, as dpkg says them.
	Version, Architecture string
	// Size is the length of what follows the preamble, in bytes. Hash is the SHA-256 of a
	// package, and zero for an image.
	Size uint64
	Hash [sha256.Size]byte
	// Image is what a release of the image holds; nil: the file carries a Debian package.
	Image *Image
}

// version and architecture allow what dpkg allows (deb-version(7)), and nothing that a
// program could take for an option, or a path.
var (
	versionPattern      = regexp.MustCompile(`^[0-9][0-9A-Za-z.+~:-]*$`)
	architecturePattern = regexp.MustCompile(`^[a-z0-9][a-z0-9-]*$`)
)

// IsVersion tells whether a text is a version as a release can have it.
func IsVersion(text string) bool { return len(text) <= versionSize && versionPattern.MatchString(text) }

func isArchitecture(text string) bool {
	return len(text) <= architectureSize && architecturePattern.MatchString(text)
}

// check refuses fields that no package has.
func (h Header) check() error {
	switch {
	case !IsVersion(h.Version):
		return reason.Errorf("%q is not a version of a Debian package of at most %d characters", h.Version, versionSize)
	case !isArchitecture(h.Architecture):
		return reason.Errorf("%q is not an architecture of Debian", h.Architecture)
	case h.Image != nil:
		return h.Image.check()
	case h.Size == 0 || h.Size > MaxPackageSize:
		return reason.Errorf("a package of %d bytes is refused; at most %d are allowed", h.Size, MaxPackageSize)
	}
	return nil
}

// Sign returns the header as it stands in the file.
func Sign(h Header, seed SigningSeed) ([]byte, error) {
	if err := h.check(); err != nil {
		return nil, reason.Errorf("sign a release: %w", err)
	}
	b := h.marshal()
	private := ed25519.NewKeyFromSeed(seed.Expose())
	return append(b, ed25519.Sign(private, transcript(b))...), nil
}

// Whole reads what follows the preamble, to its end. It returns ErrDamaged if that is not what was
// signed.
func (h Header) Whole(r io.Reader) error {
	if h.Image != nil {
		_, err := h.Image.Whole(r)
		return err
	}
	hash := sha256.New()
	size, err := io.Copy(hash, io.LimitReader(r, int64(h.Size)+1))
	if err != nil {
		return err
	}
	if uint64(size) != h.Size || [sha256.Size]byte(hash.Sum(nil)) != h.Hash {
		return ErrDamaged
	}
	return nil
}

func (h Header) marshal() []byte {
	b := make([]byte, signatureAt, HeaderSize)
	copy(b, magic)
	binary.BigEndian.PutUint16(b[formatAt:], format)
	copy(b[versionAt:architectureAt], h.Version)
	copy(b[architectureAt:sizeAt], h.Architecture)
	binary.BigEndian.PutUint64(b[sizeAt:], h.Size)
	copy(b[hashAt:], h.Hash[:])
	return b
}

func transcript(unsigned []byte) []byte { return append([]byte(label), unsigned...) }

// Verify reads a preamble that the owner of the key has signed. Nothing of it is
// looked at before the signature fits.
func Verify(b []byte, key ed25519.PublicKey) (Header, error) {
	if isImage(b) {
		return verifyImage(b, key)
	}
	if err := recognise(b); err != nil {
		return Header{}, err
	}
	if !publickey.Verify(key, transcript(b[:signatureAt]), b[signatureAt:]) {
		return Header{}, ErrSignature
	}
	return parse(b)
}

// Parse reads a preamble of anybody's. It is for telling people early what is wrong with a
// file; what it says is not to be acted upon.
func Parse(b []byte) (Header, error) {
	if isImage(b) {
		return parseImage(b)
	}
	if err := recognise(b); err != nil {
		return Header{}, err
	}
	return parse(b)
}

func recognise(b []byte) error {
	switch {
	case len(b) < len(magic) || string(b[:len(magic)]) != magic:
		return ErrNotARelease
	case len(b) != HeaderSize:
		return ErrDamaged
	case binary.BigEndian.Uint16(b[formatAt:]) != format:
		return ErrFormat
	}
	return nil
}

func parse(b []byte) (Header, error) {
	h := Header{Size: binary.BigEndian.Uint64(b[sizeAt:]), Hash: [sha256.Size]byte(b[hashAt:signatureAt])}
	h.Version = text(b[versionAt:architectureAt])
	h.Architecture = text(b[architectureAt:sizeAt])
	if err := h.check(); err != nil {
		return Header{}, reason.Errorf("%w: %w", ErrDamaged, err)
	}
	// There is one way to write a header: what stands behind the end of a text is zero.
	if !bytes.Equal(h.marshal(), b[:signatureAt]) {
		return Header{}, ErrDamaged
	}
	return h, nil
}

// text is a field without the zeros at its end.
func text(field []byte) string {
	before, _, _ := bytes.Cut(field, []byte{0})
	return string(before)
}
