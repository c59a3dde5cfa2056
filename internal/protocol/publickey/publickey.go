// Package publickey decides which public keys and which signatures the project accepts. Every
// key from outside passes through it: K_sign and K_state (Ed25519), and the static and ephemeral
// keys of the handshakes (X25519). docs/protocol.md, section 2, is the specification.
//
// # Why the standard library is not enough
//
// crypto/ed25519 follows RFC 8032 loosely. It accepts keys of small order, such as 32 zero
// bytes; for such a key anybody can make a signature without a private key. It also accepts a
// second encoding of some keys. crypto/ecdh accepts, for every X25519 key, a second encoding
// with the top bit set, as RFC 7748, section 5, demands. With two encodings, a revoked key could
// come back as a new one.
//
// # Which Ed25519 this is
//
// A key is accepted if its encoding is canonical and its point has prime order: it is not the
// neutral element, and has no part in the torsion group. A signature is then verified without
// cofactor (RFC 8032, section 5.1.7, last sentence), with S < L and R compared as bytes, as
// crypto/ed25519 does. With a key of prime order, verification with cofactor, without it and in
// batches differs only for signatures that the holder of the key has malformed on purpose. Those
// are refused.
package publickey

import (
	"bytes"
	"crypto/ed25519"

	"filippo.io/edwards25519"

	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
)

// Size is the length of a public key of either kind, in bytes.
const Size = 32

// Reasons to refuse a key, for errors.Is.
var (
	// ErrEncoding: the bytes are not the canonical encoding of a point.
	ErrEncoding = reason.New("the key is not encoded as it must be")
	// ErrOrder: the point does not have prime order. A signature for it needs no private key, or
	// fits more than one key.
	ErrOrder = reason.New("the key has no prime order")
)

// minusOne is L-1, the largest scalar.
var minusOne = func() *edwards25519.Scalar {
	one, err := edwards25519.NewScalar().SetCanonicalBytes(append([]byte{1}, make([]byte, Size-1)...))
	if err != nil {
		panic(err) // only for 32 bytes that are not below L
	}
	return one.Negate(one)
}()

// CheckSigning tells whether a key may verify signatures. The error wraps ErrEncoding or
// ErrOrder.
func CheckSigning(key []byte) error {
	if len(key) != Size {
		return reason.Errorf("a signing key has %d bytes, not %d: %w", len(key), Size, ErrEncoding)
	}
	point, err := new(edwards25519.Point).SetBytes(key)
	if err != nil || !bytes.Equal(point.Bytes(), key) {
		return reason.Errorf("check a signing key: %w", ErrEncoding)
	}
	neutral := edwards25519.NewIdentityPoint()
	// [L]A as [L-1]A + A: a scalar below L is all that the multiplication takes.
	product := new(edwards25519.Point).VarTimeDoubleScalarBaseMult(minusOne, point, edwards25519.NewScalar())
	if point.Equal(neutral) == 1 || product.Add(product, point).Equal(neutral) != 1 {
		return reason.Errorf("check a signing key: %w", ErrOrder)
	}
	return nil
}

// Verify tells whether a signature over a message was made with the private half of a
// key that CheckSigning takes. It is the only place that verifies signatures.
func Verify(key, message, signature []byte) bool {
	return CheckSigning(key) == nil && ed25519.Verify(key, message, signature)
}

// CheckAgreement tells whether 32 bytes are the canonical encoding of an X25519 public
// key: a number below 2^255-19, the top bit clear. Keys of small order are found out by
// the Diffie-Hellman with them, whose result is zero; crypto/ecdh refuses that.
func CheckAgreement(key []byte) error {
	if len(key) != Size {
		return reason.Errorf("a public key has %d bytes, not %d: %w", len(key), Size, ErrEncoding)
	}
	// 2^255-19, little endian, is ed ff … ff 7f.
	aboveOrEqual := key[0] >= 0xed && key[Size-1] == 0x7f
	for _, b := range key[1 : Size-1] {
		aboveOrEqual = aboveOrEqual && b == 0xff
	}
	if aboveOrEqual || key[Size-1] > 0x7f {
		return reason.Errorf("check a public key: %w", ErrEncoding)
	}
	return nil
}
