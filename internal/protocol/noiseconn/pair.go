package noiseconn

import (
	"crypto/mlkem"
	"crypto/sha256"
	"io"
	"slices"

	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
)

const pairPSKLabel = "bitbox-base pair psk v1"

// PairInitiator is the App's side of a pairing handshake.
type PairInitiator struct {
	handshake *handshake
	kem       hidden[*mlkem.DecapsulationKey768]
	ek        []byte
	p1        []byte
}

// NewPairInitiator starts a pairing with a static key that was made for it.
// random nil means the system's generator; of another one 64 bytes are read for
// the KEM key and 32 for the ephemeral key.
func NewPairInitiator(random io.Reader, static StaticKey) (*PairInitiator, error) {
	p := &PairInitiator{}
	kem, err := generateKEM(random)
	if err != nil {
		return nil, reason.Errorf("start a pairing: %w", err)
	}
	p.kem, p.ek = hide(kem), kem.EncapsulationKey().Bytes()
	if p.handshake, err = newHandshake(pairSuite, true, random, static, nil); err != nil {
		return nil, reason.Errorf("start a pairing: %w", err)
	}
	if p.p1, err = p.handshake.write(make([]byte, 0, P1Size), p.ek); err != nil {
		return nil, reason.Errorf("write P1: %w", err)
	}
	return p, nil
}

// P1 returns the first message, P1Size bytes: e | enc(ek). It is the same at
// each call, and may be called at any time.
func (p *PairInitiator) P1() []byte { return slices.Clone(p.p1) }

// ReadP2 reads the Base's answer to P1 and returns its commitment C.
func (p *PairInitiator) ReadP2(p2 []byte) (commitment [sha256.Size]byte, err error) {
	kem := p.kem
	p.kem = nil
	payload, err := p.handshake.read(p2, P2Size)
	if err != nil {
		return commitment, reason.Errorf("read P2: %w", err)
	}
	ct := payload[:mlkem.CiphertextSize768]
	secret, err := kem().Decapsulate(ct)
	if err != nil {
		p.handshake.abandon()
		return commitment, reason.Errorf("read the KEM ciphertext in P2: %w", err)
	}
	if err := setPairPSK(p.handshake, secret, p.ek, ct); err != nil {
		return commitment, reason.Errorf("set the psk after P2: %w", err)
	}
	return [sha256.Size]byte(payload[mlkem.CiphertextSize768:]), nil
}

// WriteP3 writes the App's reveal. The PeerStatic of the Transport is the
// Base's static key. Nobody has vouched for it yet: that is what the code is for.
func (p *PairInitiator) WriteP3(payload *P3Payload) (p3 []byte, t *Transport, err error) {
	b, err := payload.Marshal()
	if err != nil {
		p.handshake.abandon()
		return nil, nil, reason.Errorf("write P3: %w", err)
	}
	p3, err = p.handshake.write(make([]byte, 0, P3Size), b)
	if err != nil {
		return nil, nil, reason.Errorf("write P3: %w", err)
	}
	return p3, p.handshake.result, nil
}

// PairResponder is the Base's side of a pairing handshake.
type PairResponder struct {
	handshake   *handshake
	ek          []byte
	kem         *mlkem.EncapsulationKey768
	encapsulate encapsulateFunc
}

// NewPairResponder reads a P1. random nil means the system's generator; of
// another one 32 bytes are read for the ephemeral key. (The KEM's secret is
// always the system's.)
func NewPairResponder(random io.Reader, static StaticKey, p1 []byte) (*PairResponder, error) {
	p := &PairResponder{encapsulate: encapsulate}
	var err error
	if p.handshake, err = newHandshake(pairSuite, false, random, static, nil); err != nil {
		return nil, reason.Errorf("answer a pairing: %w", err)
	}
	if p.ek, err = p.handshake.read(p1, P1Size); err != nil {
		return nil, reason.Errorf("read P1: %w", err)
	}
	if p.kem, err = mlkem.NewEncapsulationKey768(p.ek); err != nil {
		return nil, reason.Errorf("read the KEM key in P1: %w", err)
	}
	return p, nil
}

// WriteP2 answers with the commitment C of the authority: P2Size bytes.
func (p *PairResponder) WriteP2(commitment [sha256.Size]byte) ([]byte, error) {
	secret, ct := p.encapsulate(p.kem)
	p2, err := p.handshake.write(make([]byte, 0, P2Size), slices.Concat(ct, commitment[:]))
	if err != nil {
		return nil, reason.Errorf("write P2: %w", err)
	}
	if err := setPairPSK(p.handshake, secret, p.ek, ct); err != nil {
		return nil, reason.Errorf("set the psk after P2: %w", err)
	}
	return p2, nil
}

// ReadP3 reads the App's reveal: P3PayloadSize bytes as they were sent, for the
// authority, which parses them itself. The PeerStatic of the Transport is the
// App's static key. Nobody has vouched for it yet: that is what the code is for.
func (p *PairResponder) ReadP3(p3 []byte) (payload []byte, t *Transport, err error) {
	payload, err = p.handshake.read(p3, P3Size)
	if err != nil {
		return nil, nil, reason.Errorf("read P3: %w", err)
	}
	return payload, p.handshake.result, nil
}

// setPairPSK consumes the KEM's secret.
func setPairPSK(h *handshake, secret, ek, ct []byte) error {
	defer clear(secret)
	psk, err := derivePSK(pairPSKLabel, secret, ek, ct)
	if err != nil {
		h.abandon()
		return err
	}
	defer clear(psk)
	return h.setPSK(psk)
}
