package posture

import (
	"bytes"

	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
	"github.com/BitBoxSwiss/bitbox-base/internal/secret"
)

// Seal signs a message of another package, which has a label of its own, and returns a
// marshalled Signed.
func Seal[Kind any](label string, message []byte, seed secret.Key[Kind]) []byte {
	return encode(seal(label, message, seed))
}

// Unseal returns the message in what Seal has returned, if it was made with this label by
// this signer.
func Unseal(label string, sealed []byte, signer SigningKey) ([]byte, error) {
	var signed systemv1.Signed
	if err := readStrict(sealed, MaxDocumentSize, &signed); err != nil {
		return nil, err
	}
	if !bytes.Equal(signed.GetSigner(), signer[:]) {
		return nil, reason.Errorf("%w: it was signed by %x", ErrNotHelper, signed.GetSigner())
	}
	return signed.GetMessage(), verify(label, &signed)
}

// HashOf is the SHA-256 of a label and a message of another package.
func HashOf(label string, message []byte) Hash { return hashOf(label, message) }
