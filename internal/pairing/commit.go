package pairing

import (
	"crypto/ed25519"
	"crypto/sha256"
	"slices"
)

// commit is replaced by noiseconn.Commit.
func commit(rb [32]byte, state ed25519.PublicKey, role byte) [32]byte {
	return sha256.Sum256(slices.Concat([]byte("bitbox-base commit v1"), rb[:], state, []byte{role}))
}
