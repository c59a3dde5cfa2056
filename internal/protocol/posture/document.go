package posture

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"

	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/publickey"
	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
	"github.com/BitBoxSwiss/bitbox-base/internal/secret"
)

// Labels stand in front of what is signed or hashed, so that bytes made for one
// purpose mean nothing for another. ASCII, without a terminator.
const (
	labelDocument      = "bitbox-base posture v1"
	labelConfirmation  = "bitbox-base confirm try v1"
	labelReport        = "bitbox-base report v1"
	labelAnchor        = "bitbox-base anchor v1"
	labelLiftBan       = "bitbox-base lift ban v1"
	labelReset         = "bitbox-base factory reset v1"
	labelDisk          = "bitbox-base use disk v1"
	labelNodeOrder     = "bitbox-base node order v1"
	labelNodeSettings  = "bitbox-base node settings v1"
	labelPairingOrder  = "bitbox-base pairing order v1"
	labelPairingAnswer = "bitbox-base pairing answer v1"
	labelPairingReport = "bitbox-base pairing report v1"
	labelRestriction   = "bitbox-base restriction v1" // hashed only
)

// documentVersion is PostureDocument.version.
const documentVersion = 2

type (
	appSeedKind   struct{}
	stateSeedKind struct{}
)

// AppSeed is the seed (RFC 8032) of an App's signing key K_sign.
type AppSeed = secret.Key[appSeedKind]

// StateSeed is the seed (RFC 8032) of the Base's K_state, with which the system
// helper signs what it vouches for.
type StateSeed = secret.Key[stateSeedKind]

// Hash is a SHA-256 of a label and a message. The zero Hash stands before the
// first.
type Hash [sha256.Size]byte

// String returns the hash in hexadecimal.
func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// Epoch is random. A reset or a restored backup gives a Base a new one. Documents
// and orders that were signed in another epoch are void.
type Epoch [16]byte

// String returns the epoch in hexadecimal.
func (e Epoch) String() string { return hex.EncodeToString(e[:]) }

// ErrSignature: a signature does not fit.
var ErrSignature = reason.New("the signature does not fit; it was made with another key or over other bytes")

// PublicKey returns the public key of a seed.
func PublicKey[Kind any](seed secret.Key[Kind]) SigningKey {
	return SigningKey(ed25519.NewKeyFromSeed(seed.Expose()).Public().(ed25519.PublicKey))
}

// SignDocument signs a document with an App's key. The result is what
// Ledger.Submit takes.
func SignDocument(document *systemv1.PostureDocument, seed AppSeed) []byte {
	return encode(seal(labelDocument, encode(document), seed))
}

// SignConfirmation signs the confirmation of a try with an App's key. The result
// is what Ledger.Confirm takes.
func SignConfirmation(confirmation *systemv1.TryConfirmation, seed AppSeed) []byte {
	return encode(seal(labelConfirmation, encode(confirmation), seed))
}

// seal puts a message into an envelope.
func seal[Kind any](label string, message []byte, seed secret.Key[Kind]) *systemv1.Signed {
	key := ed25519.NewKeyFromSeed(seed.Expose())
	defer clear(key)
	return &systemv1.Signed{
		Message:   message,
		Signature: ed25519.Sign(key, append([]byte(label), message...)),
		Signer:    key.Public().(ed25519.PublicKey), // a copy
	}
}

// verify checks the signature of an envelope by the signer that it names. Whether
// that signer may sign is for the caller to ask.
func verify(label string, signed *systemv1.Signed) error {
	if !publickey.Verify(signed.GetSigner(), append([]byte(label), signed.GetMessage()...), signed.GetSignature()) {
		return ErrSignature
	}
	return nil
}

func hashOf(label string, message []byte) Hash {
	h := sha256.New()
	h.Write([]byte(label))
	h.Write(message)
	return Hash(h.Sum(nil))
}
