// Package noiseconn implements the secure channel between a Base and an App: two Noise
// handshakes, the records that follow them, and the payloads of a pairing.
//
// # Handshakes
//
// Pairing uses Noise_XXpsk3_25519_ChaChaPoly_SHA256, connecting uses
// Noise_IKpsk2_25519_ChaChaPoly_SHA256. Both are hybrid: the secret of an ephemeral ML-KEM-768
// exchange is part of the psk, so a quantum computer cannot decrypt today's recordings later.
//
//	pairing      App                        Base
//	  P1         NewPairInitiator, P1  -->  NewPairResponder
//	  P2                       ReadP2  <--  WriteP2
//	  P3                      WriteP3  -->  ReadP3
//
//	connecting   App                        Base
//	  R1     NewConnectInitiator, R1   -->  CheckMAC1, NewConnectResponder
//	  R2                       ReadR2  <--  WriteR2
//
// The machines do no I/O. Each can be used once: after the last step, after any error and after
// a step out of order the state is erased and every call fails. Two goroutines must not use one
// at the same time.
//
// # Records
//
// A handshake ends with a [Transport]. It makes a [Conn], which is a net.Conn with records,
// rekeying and an authenticated end of stream.
//
// # Secrets
//
// Keys have types of package secret. Other secrets in exported structs are behind a function,
// where package fmt cannot print them.
//
// docs/protocol.md has the layout of every message, and docs/protocol.vectors.json has an
// example of each.
package noiseconn

import (
	"crypto/ecdh"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"io"

	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/publickey"
	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
	"github.com/BitBoxSwiss/bitbox-base/internal/secret"
)

// ProtocolVersion is the version of the protocol, as announced by mDNS and
// named in the prologues.
const ProtocolVersion = 1

// KeySize is the length of every key, public or secret, in bytes.
const KeySize = secret.Size

// Sizes of the handshake messages in bytes. They follow from X25519 (32), the
// AEAD tag (16), and ML-KEM-768: encapsulation key 1184, ciphertext 1088.
const (
	P1Size = 32 + 1184 + 16                    // e | enc(ek)
	P2Size = 32 + (32 + 16) + (1088 + 32) + 16 // e | enc(s) | enc(ct | C)
	P3Size = (32 + 16) + P3PayloadSize + 16    // enc(s) | enc(payload)
	R1Size = 16 + 32 + (32 + 16) + 1184 + 8 + 16
	R2Size = 1088 + 32 + 1 + 16
)

type (
	pairKind      struct{}
	discoveryKind struct{}
	mac1Kind      struct{}
)

// PairKey is K_pair: what Base and App share from a pairing on.
type PairKey = secret.Key[pairKind]

// DiscoveryKey is K_disc: what lets paired Apps recognise a Base in mDNS.
type DiscoveryKey = secret.Key[discoveryKind]

// MAC1Key is what R1's mac1 is computed with. MAC1KeyOf derives it from a
// PairKey.
type MAC1Key = secret.Key[mac1Kind]

// GeneratePairKey reads a new PairKey from random; nil means the system's
// generator.
func GeneratePairKey(random io.Reader) (PairKey, error) { return secret.Generate[pairKind](random) }

// ParsePairKey copies the 32 bytes of a stored PairKey.
func ParsePairKey(b []byte) (PairKey, error) { return secret.New[pairKind](b) }

// GenerateDiscoveryKey reads a new DiscoveryKey from random; nil means the
// system's generator.
func GenerateDiscoveryKey(random io.Reader) (DiscoveryKey, error) {
	return secret.Generate[discoveryKind](random)
}

// ParseDiscoveryKey copies the 32 bytes of a stored DiscoveryKey.
func ParseDiscoveryKey(b []byte) (DiscoveryKey, error) { return secret.New[discoveryKind](b) }

type staticKind struct{}

// StaticKey is an X25519 private key, the identity of a Base or of one pairing
// of an App. It is a secret.Key that also keeps values that are costly to compute from
// it. So keep a StaticKey rather than parse it for each handshake. Copies share these
// values; several goroutines may use them. Wipe empties the
// secret.Key only. The zero StaticKey is empty.
type StaticKey struct {
	secret.Key[staticKind]
	parsed hidden[*parsedStatic]
}

// GenerateStatic reads a new StaticKey from random; nil means the system's
// generator.
func GenerateStatic(random io.Reader) (StaticKey, error) {
	key, err := secret.Generate[staticKind](random)
	if err != nil {
		return StaticKey{}, reason.Errorf("generate a static key: %w", err)
	}
	return parseStatic(key)
}

// ParseStatic copies the 32 bytes of a stored StaticKey.
func ParseStatic(b []byte) (StaticKey, error) {
	key, err := secret.New[staticKind](b)
	if err != nil {
		return StaticKey{}, reason.Errorf("parse a static key: %w", err)
	}
	return parseStatic(key)
}

func parseStatic(key secret.Key[staticKind]) (StaticKey, error) {
	parsed, err := ecdh.X25519().NewPrivateKey(key.Expose())
	if err != nil {
		return StaticKey{}, reason.Errorf("parse a static key: %w", err)
	}
	return StaticKey{Key: key, parsed: hide(&parsedStatic{key: parsed})}, nil
}

// errEmptyStatic is a mistake of the caller.
var errEmptyStatic = reason.New("the static key is empty; generate or parse one first")

// PublicKey is an X25519 public key. It is comparable.
type PublicKey [KeySize]byte

// String returns the key in hexadecimal.
func (k PublicKey) String() string { return hex.EncodeToString(k[:]) }

// AppID is what the API calls the App with this static key: the first 8 bytes of the
// SHA-256 of the key, in hexadecimal.
func (k PublicKey) AppID() string {
	digest := sha256.Sum256(k[:])
	return hex.EncodeToString(digest[:8])
}

// ParsePublicKey copies a public key. It refuses what publickey.CheckAgreement does.
// Keys of small order are found out by the handshake, which refuses them.
func ParsePublicKey(b []byte) (PublicKey, error) {
	if err := publickey.CheckAgreement(b); err != nil {
		return PublicKey{}, err
	}
	return PublicKey(b), nil
}

// PublicOf returns the public key that belongs to a StaticKey. It fails only
// for an empty one.
func PublicOf(static StaticKey) (PublicKey, error) {
	if static.Empty() {
		return PublicKey{}, errEmptyStatic
	}
	return PublicKey(static.parsed().key.PublicKey().Bytes()), nil
}

// orSystem replaces a missing source of randomness by the system's.
func orSystem(random io.Reader) io.Reader {
	if random == nil {
		return rand.Reader
	}
	return random
}

// hidden keeps a value where package fmt does not look: behind a function. It
// prints the bytes of unexported fields, and even follows pointers to them when
// the verb does not fit (see package secret).
type hidden[T any] func() T

func hide[T any](value T) hidden[T] { return func() T { return value } }
