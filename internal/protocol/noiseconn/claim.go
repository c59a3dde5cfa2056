package noiseconn

import (
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"io"
	"slices"

	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/publickey"
	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
	"github.com/BitBoxSwiss/bitbox-base/internal/secret"
)

const (
	claimLabel          = "bitbox-base claim v1"
	claimMACLabel       = "bitbox-base claim mac v1"
	claimProofLabel     = "bitbox-base claim proof v1"
	claimDiscoveryLabel = "bitbox-base claim discovery v1"
)

// Sizes of what a claim adds to a pairing, in bytes.
const (
	claimMACSize = 16
	// ClaimMarkSize is the length of what goes before P1.
	ClaimMarkSize = claimMACSize + ed25519.SignatureSize
	// ClaimSize is the length of the body of a frame of TypeClaim: mark | P1.
	ClaimSize = ClaimMarkSize + P1Size
	// ClaimProofSize is the length of what follows P4 in its record.
	ClaimProofSize = sha256.Size
)

type claimKind struct{}

// ClaimSecret is the one-time secret of a claim. The App makes it, and a provisioning file
// takes it to the Base. By it the App knows the Base. It is of no use once the App has
// connected.
type ClaimSecret = secret.Key[claimKind]

// GenerateClaimSecret reads a new ClaimSecret from random; nil means the system's generator.
func GenerateClaimSecret(random io.Reader) (ClaimSecret, error) {
	return secret.Generate[claimKind](random)
}

// ParseClaimSecret copies the 32 bytes of a stored ClaimSecret.
func ParseClaimSecret(b []byte) (ClaimSecret, error) { return secret.New[claimKind](b) }

var errNoClaim = reason.New("the secret of the claim is empty")

// ClaimMark is what goes before P1 and makes it a claim: mac (16) | signature (64).
//
//	mac        HMAC-SHA256(HKDF(secret, "", label), SHA256(P1))[:16]
//	signature  by K_sign over label | SHA256(P1)
//
// Anybody with a copy of the provisioning file can make the mac, and only the App the signature.
// The mac spares the Base the verification of strangers' signatures.
func ClaimMark(s ClaimSecret, signing ed25519.PrivateKey, p1 []byte) ([]byte, error) {
	mac, err := claimMAC(s, p1)
	if err != nil {
		return nil, reason.Errorf("make a claim: %w", err)
	}
	return append(mac, ed25519.Sign(signing, claimMessage(p1))...), nil
}

// CheckClaimMark tells whether the App with this K_sign has made the mark of this P1.
func CheckClaimMark(s ClaimSecret, signingKey ed25519.PublicKey, mark, p1 []byte) bool {
	mac, err := claimMAC(s, p1)
	return err == nil && len(mark) == ClaimMarkSize && subtle.ConstantTimeCompare(mac, mark[:claimMACSize]) == 1 &&
		publickey.Verify(signingKey, claimMessage(p1), mark[claimMACSize:])
}

func claimMAC(s ClaimSecret, p1 []byte) ([]byte, error) {
	if s.Empty() {
		return nil, errNoClaim
	}
	key, err := hkdf.Key(sha256.New, s.Expose(), nil, claimMACLabel, sha256.Size)
	if err != nil {
		return nil, err
	}
	digest := sha256.Sum256(p1)
	mac := hmac.New(sha256.New, key)
	mac.Write(digest[:])
	return mac.Sum(nil)[:claimMACSize], nil
}

func claimMessage(p1 []byte) []byte {
	digest := sha256.Sum256(p1)
	return slices.Concat([]byte(claimLabel), digest[:])
}

// ClaimProof is what follows P4 in its record: HKDF(secret | r_A | r_B, salt, label), with the
// salt of Code. It stands in the place of the two people who compare a code: the App takes it
// as the word of the authority that has the secret, for this very ceremony. h is the final
// handshake hash. It fails for an empty secret and for keys of a wrong length.
func ClaimProof(s ClaimSecret, ra, rb, h [32]byte, sign, state ed25519.PublicKey, role byte) ([]byte, error) {
	if s.Empty() {
		return nil, reason.Errorf("compute the proof of a claim: %w", errNoClaim)
	}
	salt, err := codeSalt(h, sign, state, role)
	if err != nil {
		return nil, reason.Errorf("compute the proof of a claim: %w", err)
	}
	return hkdf.Key(sha256.New, slices.Concat(s.Expose(), ra[:], rb[:]), salt[:], claimProofLabel, ClaimProofSize)
}

// ClaimDiscoveryKey is K_disc of a Base that waits for its claim: by it the App recognises
// the announcement.
func ClaimDiscoveryKey(s ClaimSecret) (DiscoveryKey, error) {
	if s.Empty() {
		return DiscoveryKey{}, errNoClaim
	}
	key, err := hkdf.Key(sha256.New, s.Expose(), nil, claimDiscoveryLabel, KeySize)
	if err != nil {
		return DiscoveryKey{}, err
	}
	defer clear(key)
	return ParseDiscoveryKey(key)
}
