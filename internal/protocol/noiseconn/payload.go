package noiseconn

import (
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/sha256"
	"slices"

	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/publickey"
	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
)

// Sizes of the payloads of a pairing in bytes.
const (
	// P3PayloadSize is the length of what the App reveals in P3.
	P3PayloadSize = 32 + ed25519.PublicKeySize + nameFieldSize
	// P4Size is the length of the plaintext of the record P4.
	P4Size = 32 + ed25519.PublicKeySize + 1 + nameFieldSize
	// ConfirmSize is the length of the plaintext of either side's Confirm.
	ConfirmSize = 1 + 64
	// RejectSize is the length of the plaintext of Reject.
	RejectSize = 1
)

// P3Payload is what the App reveals.
//
//	offset  size
//	0       32    r_A, random
//	32      32    K_sign, the Ed25519 key the App will sign with
//	64      1     length of the name
//	65      63    name, zero padded
type P3Payload struct {
	RA         [32]byte
	SigningKey ed25519.PublicKey
	Name       string
}

// Marshal returns P3PayloadSize bytes. It fails for a key that
// publickey.CheckSigning refuses and a name that CheckName refuses.
func (p *P3Payload) Marshal() ([]byte, error) {
	if err := publickey.CheckSigning(p.SigningKey); err != nil {
		return nil, reason.Errorf("the App's key in P3: %w", err)
	}
	b := make([]byte, 0, P3PayloadSize)
	b = append(b, p.RA[:]...)
	b = append(b, p.SigningKey...)
	return appendName(b, p.Name)
}

// ParseP3Payload is the reverse of Marshal and accepts nothing else.
func ParseP3Payload(b []byte) (*P3Payload, error) {
	if len(b) != P3PayloadSize {
		return nil, reason.Errorf("the payload of P3 has %d bytes, not %d", len(b), P3PayloadSize)
	}
	if err := publickey.CheckSigning(b[32:64]); err != nil {
		return nil, reason.Errorf("the App's key in P3: %w", err)
	}
	name, err := parseName(b[64:])
	if err != nil {
		return nil, reason.Errorf("the App's name in P3: %w", err)
	}
	return &P3Payload{RA: [32]byte(b), SigningKey: slices.Clone(b[32:64]), Name: name}, nil
}

// P4 is what the Base reveals, in the first record.
//
//	offset  size
//	0       32    r_B, which opens the commitment C
//	32      32    K_state, the Ed25519 key of the ceremony authority
//	64      1     role granted; the numbers are those of the API
//	65      1     length of the name
//	66      63    name, zero padded
type P4 struct {
	RB       [32]byte
	StateKey ed25519.PublicKey
	Role     byte
	Name     string
}

// Marshal returns P4Size bytes. It fails for a key that publickey.CheckSigning
// refuses and a name that CheckName refuses.
func (p *P4) Marshal() ([]byte, error) {
	if err := publickey.CheckSigning(p.StateKey); err != nil {
		return nil, reason.Errorf("the Base's key in P4: %w", err)
	}
	b := make([]byte, 0, P4Size)
	b = append(b, p.RB[:]...)
	b = append(b, p.StateKey...)
	b = append(b, p.Role)
	return appendName(b, p.Name)
}

// ParseP4 is the reverse of Marshal and accepts nothing else. It does not check
// that the role exists, nor that RB opens the commitment.
func ParseP4(b []byte) (*P4, error) {
	if len(b) != P4Size {
		return nil, reason.Errorf("P4 has %d bytes, not %d", len(b), P4Size)
	}
	if err := publickey.CheckSigning(b[32:64]); err != nil {
		return nil, reason.Errorf("the Base's key in P4: %w", err)
	}
	name, err := parseName(b[65:])
	if err != nil {
		return nil, reason.Errorf("the Base's name in P4: %w", err)
	}
	return &P4{RB: [32]byte(b), StateKey: slices.Clone(b[32:64]), Role: b[64], Name: name}, nil
}

// The last records of a pairing are Confirm or Reject, one in each direction.
//
//	Confirm of the App   1 | Ed25519 signature of EnrolMessage (64)
//	Confirm of the Base  1 | K_pair (32) | K_disc (32)
//	Reject               2
const (
	RecordConfirm byte = 1
	RecordReject  byte = 2
)

// ErrRejected is returned in place of a Confirm when the other side's user said
// no.
var ErrRejected = reason.New("the other side rejected the pairing")

// MarshalAppConfirm returns the App's Confirm with its signature by K_sign over
// EnrolMessage.
func MarshalAppConfirm(signature []byte) ([]byte, error) {
	if len(signature) != ed25519.SignatureSize {
		return nil, reason.Errorf("the signature has %d bytes, not %d", len(signature), ed25519.SignatureSize)
	}
	return append([]byte{RecordConfirm}, signature...), nil
}

// ParseAppConfirm returns the signature, unchecked, or ErrRejected.
func ParseAppConfirm(record []byte) (signature []byte, err error) {
	body, err := parseConfirm(record)
	if err != nil {
		return nil, reason.Errorf("the App's answer: %w", err)
	}
	return slices.Clone(body), nil
}

// MarshalBaseConfirm returns the Base's Confirm with the two keys it hands out.
func MarshalBaseConfirm(pair PairKey, discovery DiscoveryKey) ([]byte, error) {
	if pair.Empty() || discovery.Empty() {
		return nil, reason.New("confirm a pairing: a key is empty")
	}
	return slices.Concat([]byte{RecordConfirm}, pair.Expose(), discovery.Expose()), nil
}

// ParseBaseConfirm returns the two keys, or ErrRejected.
func ParseBaseConfirm(record []byte) (PairKey, DiscoveryKey, error) {
	fail := func(err error) (PairKey, DiscoveryKey, error) {
		return PairKey{}, DiscoveryKey{}, reason.Errorf("the Base's answer: %w", err)
	}
	body, err := parseConfirm(record)
	if err != nil {
		return fail(err)
	}
	pair, err := ParsePairKey(body[:KeySize])
	if err != nil {
		return fail(err)
	}
	discovery, err := ParseDiscoveryKey(body[KeySize:])
	if err != nil {
		return fail(err)
	}
	return pair, discovery, nil
}

// MarshalReject returns a Reject.
func MarshalReject() []byte { return []byte{RecordReject} }

func parseConfirm(record []byte) (body []byte, err error) {
	switch {
	case len(record) == RejectSize && record[0] == RecordReject:
		return nil, ErrRejected
	case len(record) == ConfirmSize && record[0] == RecordConfirm:
		return record[1:], nil
	}
	return nil, reason.Errorf("%d bytes are neither Confirm nor Reject", len(record))
}

// DiscoveryID is the TXT value `id` for the TXT value `n` (nonce): by it a paired
// App recognises its Base, and to others it says nothing.
func DiscoveryID(key DiscoveryKey, nonce []byte) [8]byte {
	mac := hmac.New(sha256.New, key.Expose())
	mac.Write(nonce)
	return [8]byte(mac.Sum(nil))
}
