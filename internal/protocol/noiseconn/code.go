package noiseconn

import (
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
)

const (
	requestLabel = "bitbox-base request v1"
	commitLabel  = "bitbox-base commit v1"
	sasSaltLabel = "bitbox-base sas salt v1"
	sasLabel     = "bitbox-base sas v1"
	enrolLabel   = "bitbox-base enrol v1"
)

const (
	// CodeModulus is the number of different codes and request numbers.
	CodeModulus = 1_000_000
	// codeLimit is the largest multiple of CodeModulus in 32 bits: a number below
	// it gives every code with the same probability.
	codeLimit = 4_294_000_000
)

// RequestNumber is the number by which a person at the Base picks a pairing
// request: the first four bytes of SHA256(label | P1), mod 10^6. It authenticates
// nothing.
func RequestNumber(p1 []byte) uint32 {
	digest := sha256.Sum256(slices.Concat([]byte(requestLabel), p1))
	return binary.BigEndian.Uint32(digest[:]) % CodeModulus
}

// FormatNumber writes a code or a request number as people read it: "012 345".
func FormatNumber(n uint32) string {
	n %= CodeModulus
	return fmt.Sprintf("%03d %03d", n/1000, n%1000)
}

// Commit returns C, the Base's commitment to what P4 will reveal:
// SHA256(label | r_B | K_state | role). It covers all that the Base puts into the
// code. Whatever were left out, a man in the middle could choose last, until the
// App's code is the Base's.
func Commit(rb [32]byte, state ed25519.PublicKey, role byte) [32]byte {
	return sha256.Sum256(slices.Concat([]byte(commitLabel), rb[:], state, []byte{role}))
}

// errNoCode has a probability of 2^-97.
var errNoCode = reason.New("these keys give no code; start the pairing again")

// Code returns the number, below 10^6, that both people compare. h is the final
// handshake hash. It fails for keys of a wrong length, and with a probability of
// 2^-97 otherwise: the pairing must then be given up.
func Code(ra, rb, h [32]byte, sign, state ed25519.PublicKey, role byte) (uint32, error) {
	return CodeDigits(ra, rb, h, sign, state, role, CodeModulus)
}

// CodeDigits is Code with another number of codes, so that a test can attack a
// short one.
func CodeDigits(ra, rb, h [32]byte, sign, state ed25519.PublicKey, role byte, modulus uint32) (uint32, error) {
	if modulus == 0 {
		return 0, reason.New("compute the code: the number of codes is zero")
	}
	salt, err := codeSalt(h, sign, state, role)
	if err != nil {
		return 0, reason.Errorf("compute the code: %w", err)
	}
	k, err := hkdf.Key(sha256.New, slices.Concat(ra[:], rb[:]), salt[:], sasLabel, 32)
	if err != nil {
		return 0, reason.Errorf("compute the code: %w", err)
	}
	return pickCode(k, modulus)
}

// codeSalt is what binds the code to the ceremony, beside r_A and r_B.
func codeSalt(h [32]byte, sign, state ed25519.PublicKey, role byte) ([32]byte, error) {
	if len(sign) != ed25519.PublicKeySize || len(state) != ed25519.PublicKeySize {
		return [32]byte{}, reason.Errorf("the keys have %d and %d bytes, not %d", len(sign), len(state), ed25519.PublicKeySize)
	}
	return sha256.Sum256(slices.Concat([]byte(sasSaltLabel), h[:], sign, state, []byte{role})), nil
}

// pickCode takes the first 32-bit number of k that is below codeLimit.
func pickCode(k []byte, modulus uint32) (uint32, error) {
	for ; len(k) >= 4; k = k[4:] {
		if n := binary.BigEndian.Uint32(k); n < codeLimit {
			return n % modulus, nil
		}
	}
	return 0, errNoCode
}

// EnrolMessage is what K_sign signs in the App's Confirm:
// label | h | K_sign | r_A | r_B.
func EnrolMessage(h [32]byte, sign ed25519.PublicKey, ra, rb [32]byte) []byte {
	return slices.Concat([]byte(enrolLabel), h[:], sign, ra[:], rb[:])
}
