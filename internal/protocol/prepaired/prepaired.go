// Package prepaired makes a Base pre-paired with the App that has built its image. It defines
// the keys that the App makes, the file that gives the Base its half of them, and the
// certificate by which the App recognises the board afterwards.
//
// The image's keys are for one connection. At its first boot a board draws its own keys (K_pair,
// K_state), and certifies K_state with the image's certifying key, which it then erases. The App
// fetches the board's keys over its first connection. After that the image's keys are of no use
// to a second board or to a thief of the image. docs/pre-paired.md has the whole description.
package prepaired

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/noiseconn"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/publickey"
	"github.com/BitBoxSwiss/bitbox-base/internal/secret"
)

type certifyingKind struct{}

// CertifyingKey is the seed of the Ed25519 key with which a board vouches, once, for the
// K_state that it has drawn.
type CertifyingKey = secret.Key[certifyingKind]

// Half is the Base's half: what the provisioning file holds.
type Half struct {
	// Static and Discovery become the Base's.
	Static    noiseconn.StaticKey
	Discovery noiseconn.DiscoveryKey
	// Image is K_pair of the first connection, ImageApp the public key that the App
	// has for it.
	Image    noiseconn.PairKey
	ImageApp noiseconn.PublicKey
	// Certifying vouches for K_state.
	Certifying CertifyingKey
	// App and SigningKey are the App's public key, and K_sign. The App is an owner.
	App        noiseconn.PublicKey
	SigningKey [ed25519.PublicKeySize]byte
	AppName    string
	BaseName   string
}

// Keys is the App's half.
type Keys struct {
	Base      noiseconn.PublicKey
	Discovery noiseconn.DiscoveryKey
	Static    noiseconn.StaticKey
	Signing   ed25519.PrivateKey
	// The first connection's.
	Image       noiseconn.PairKey
	ImageStatic noiseconn.StaticKey
	// Certifying is the public half of the certifying key.
	Certifying ed25519.PublicKey
}

// New makes both halves. random nil means the system's generator.
func New(random io.Reader, appName, baseName string) (*Half, *Keys, error) {
	h, k := &Half{AppName: appName, BaseName: baseName}, &Keys{}
	for what, name := range map[string]string{"App": appName, "Base": baseName} {
		if err := noiseconn.CheckName(name); err != nil {
			return nil, nil, fmt.Errorf("the name of the %s: %w", what, err)
		}
	}
	for _, static := range []struct {
		private *noiseconn.StaticKey
		public  *noiseconn.PublicKey
	}{{&h.Static, &k.Base}, {&k.Static, &h.App}, {&k.ImageStatic, &h.ImageApp}} {
		var err error
		if *static.private, err = noiseconn.GenerateStatic(random); err != nil {
			return nil, nil, err
		}
		if *static.public, err = noiseconn.PublicOf(*static.private); err != nil {
			return nil, nil, err
		}
	}
	var errs [4]error
	var signing secret.Key[signingKind]
	h.Discovery, errs[0] = noiseconn.GenerateDiscoveryKey(random)
	h.Image, errs[1] = noiseconn.GeneratePairKey(random)
	h.Certifying, errs[2] = secret.Generate[certifyingKind](random)
	signing, errs[3] = secret.Generate[signingKind](random)
	if err := errors.Join(errs[:]...); err != nil {
		return nil, nil, err
	}
	k.Discovery, k.Image = h.Discovery, h.Image
	k.Certifying = ed25519.NewKeyFromSeed(h.Certifying.Expose()).Public().(ed25519.PublicKey)
	k.Signing = ed25519.NewKeyFromSeed(signing.Expose())
	h.SigningKey = [ed25519.PublicKeySize]byte(k.Signing.Public().(ed25519.PublicKey))
	return h, k, nil
}

type signingKind struct{}

// The file:
//
//	offset  size
//	0       24    "bitbox-base prepaired 1\n": what it is, and its version
//	24      32    the Base's static private key
//	56      32    K_disc
//	88      32    K_pair of the first connection
//	120     32    the seed of the certifying key
//	152     32    the App's public key of the first connection
//	184     32    the App's public key
//	216     32    K_sign
//	248     1+63  the App's name: length, zero padded
//	312     1+63  the Base's name
//	376     32    SHA-256 of all before
const (
	magic     = "bitbox-base prepaired 1\n"
	nameField = 1 + noiseconn.MaxNameSize
	// FileSize is the file's length in bytes.
	FileSize = len(magic) + 7*secret.Size + 2*nameField + sha256.Size
)

// ErrFile is what every error of Parse wraps.
var ErrFile = errors.New("not a provisioning file of a pre-paired Base")

// Marshal returns the file's content. It holds private keys: it belongs in a file of
// mode 0600, in one image, for one board.
func (h *Half) Marshal() []byte {
	b := []byte(magic)
	for _, key := range [][]byte{h.Static.Expose(), h.Discovery.Expose(), h.Image.Expose(), h.Certifying.Expose(), h.ImageApp[:], h.App[:],
		h.SigningKey[:]} {
		b = append(b, key...)
	}
	for _, name := range []string{h.AppName, h.BaseName} {
		field := make([]byte, nameField)
		field[0] = byte(copy(field[1:], name))
		b = append(b, field...)
	}
	digest := sha256.Sum256(b)
	return append(b, digest[:]...)
}

// Parse accepts what Marshal writes and nothing else.
func Parse(b []byte) (*Half, error) {
	if len(b) >= len(magic) && !bytes.HasPrefix(b, []byte(magic)) && bytes.HasPrefix(b, []byte(magic[:len(magic)-2])) {
		return nil, fmt.Errorf("%w: it is of another version than this program knows; build the image with the same release", ErrFile)
	}
	if len(b) != FileSize || !bytes.HasPrefix(b, []byte(magic)) {
		return nil, fmt.Errorf("%w: it does not begin as one or is cut off", ErrFile)
	}
	content, digest := b[:FileSize-sha256.Size], sha256.Sum256(b[:FileSize-sha256.Size])
	if !bytes.Equal(digest[:], b[len(content):]) {
		return nil, fmt.Errorf("%w: it is damaged", ErrFile)
	}
	rest := content[len(magic):]
	next := func(n int) []byte {
		field := rest[:n]
		rest = rest[n:]
		return field
	}
	h := &Half{}
	var errs [9]error
	h.Static, errs[0] = noiseconn.ParseStatic(next(secret.Size))
	h.Discovery, errs[1] = noiseconn.ParseDiscoveryKey(next(secret.Size))
	h.Image, errs[2] = noiseconn.ParsePairKey(next(secret.Size))
	h.Certifying, errs[3] = secret.New[certifyingKind](next(secret.Size))
	h.ImageApp, errs[4] = noiseconn.ParsePublicKey(next(secret.Size))
	h.App, errs[5] = noiseconn.ParsePublicKey(next(secret.Size))
	h.SigningKey = [ed25519.PublicKeySize]byte(next(secret.Size))
	h.AppName, errs[6] = parseName(next(nameField))
	h.BaseName, errs[7] = parseName(next(nameField))
	if zero := (noiseconn.PublicKey{}); h.App == zero || h.ImageApp == zero || h.App == h.ImageApp {
		errs[8] = errors.New("a public key is missing or there twice")
	}
	if err := publickey.CheckSigning(h.SigningKey[:]); err != nil {
		errs[8] = err
	}
	if err := errors.Join(errs[:]...); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrFile, err)
	}
	return h, nil
}

func parseName(field []byte) (string, error) {
	length := int(field[0])
	if length > noiseconn.MaxNameSize || slices.ContainsFunc(field[1+min(length, noiseconn.MaxNameSize):],
		func(c byte) bool { return c != 0 }) {
		return "", errors.New("the length of a name is wrong")
	}
	name := string(field[1 : 1+length])
	return name, noiseconn.CheckName(name)
}

// certified is what the certifying key signs: for whom, of which image, and the key that
// the board has drawn.
func certified(base, app noiseconn.PublicKey, stateKey []byte) []byte {
	return slices.Concat([]byte("bitbox-base prepaired v1"), base[:], app[:], stateKey)
}

// Certify vouches for the K_state that a board has drawn.
func (h *Half) Certify(stateKey ed25519.PublicKey) ([]byte, error) {
	base, err := noiseconn.PublicOf(h.Static)
	if err != nil {
		return nil, err
	}
	return ed25519.Sign(ed25519.NewKeyFromSeed(h.Certifying.Expose()), certified(base, h.App, stateKey)), nil
}

// Verify tells whether the board that has drawn stateKey had the image's certifying key.
func Verify(certifying ed25519.PublicKey, base, app noiseconn.PublicKey, stateKey, signature []byte) bool {
	return publickey.CheckSigning(stateKey) == nil && publickey.Verify(certifying, certified(base, app, stateKey), signature)
}
