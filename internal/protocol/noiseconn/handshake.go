package noiseconn

import (
	"crypto/hkdf"
	"crypto/mlkem"
	"crypto/sha256"
	"io"

	"github.com/flynn/noise"

	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
)

// ErrOver is returned by every step of a handshake that is complete, was given
// up after an error, or is called out of turn.
var ErrOver = reason.New("this handshake is over: each step works once and any error ends it; start a new one")

// errNoPSK guards against a mistake in this package: the library would read a
// message with an empty psk without complaint.
var errNoPSK = reason.New("the psk of this message is not set")

// Transport is what a complete handshake leaves. NewConn takes its two cipher
// states; a Transport therefore carries one Conn.
type Transport struct {
	// HandshakeHash is h, the same on both sides and on no other connection.
	HandshakeHash [sha256.Size]byte
	// PeerStatic is the static key the other side has proved to hold.
	PeerStatic PublicKey

	send, receive hidden[*noise.CipherState]
}

// suiteParameters are what differs between the two handshakes, and from the
// test vectors of the library.
type suiteParameters struct {
	pattern      noise.HandshakePattern
	pskPlacement int // the psk token ends the message of this number, counted from 1
	prologue     string
}

var (
	pairSuite    = suiteParameters{pattern: noise.HandshakeXX, pskPlacement: 3, prologue: "bitbox-base/1 pair"}
	connectSuite = suiteParameters{pattern: noise.HandshakeIK, pskPlacement: 2, prologue: "bitbox-base/1 connect"}
)

// handshake wraps the library's state with the rules it does not enforce: the
// psk is set before its message, the state is gone after any error, and the
// results are copied out.
type handshake struct {
	state      hidden[*noise.HandshakeState] // nil: over
	dh         hidden[*handshakeDH]
	initiator  bool
	pskMessage int // counted from 0
	pskSet     bool
	result     *Transport // nil until complete
}

// newHandshake starts a handshake. peer is the responder's static key for the
// initiator of IK, else nil.
func newHandshake(suite suiteParameters, initiator bool, random io.Reader, static StaticKey, peer []byte) (*handshake, error) {
	if static.Empty() {
		return nil, errEmptyStatic
	}
	dh := newHandshakeDH(static)
	state, err := noise.NewHandshakeState(noise.Config{
		CipherSuite:           noise.NewCipherSuite(dh, chachaPoly{}, noise.HashSHA256),
		Random:                orSystem(random),
		Pattern:               suite.pattern,
		Initiator:             initiator,
		Prologue:              []byte(suite.prologue),
		PresharedKeyPlacement: suite.pskPlacement,
		StaticKeypair:         dh.staticKeypair(),
		PeerStatic:            peer,
	})
	if err != nil {
		return nil, err
	}
	return &handshake{
		state:      hide(state),
		dh:         hide(dh),
		initiator:  initiator,
		pskMessage: suite.pskPlacement - 1,
	}, nil
}

// setPSK must come before the message that ends with the psk token.
func (h *handshake) setPSK(psk []byte) error {
	if h.state == nil {
		return ErrOver
	}
	if err := h.state().SetPresharedKey(psk); err != nil {
		h.abandon()
		return err
	}
	h.pskSet = true
	return nil
}

// write appends the next message to out.
func (h *handshake) write(out, payload []byte) ([]byte, error) {
	return h.step(true, func(state *noise.HandshakeState) ([]byte, *noise.CipherState, *noise.CipherState, error) {
		return state.WriteMessage(out, payload)
	})
}

// read returns the payload of the next message, which must have the given size.
func (h *handshake) read(message []byte, size int) ([]byte, error) {
	if len(message) != size {
		h.abandon()
		return nil, reason.Errorf("the message has %d bytes, not %d", len(message), size)
	}
	return h.step(false, func(state *noise.HandshakeState) ([]byte, *noise.CipherState, *noise.CipherState, error) {
		return state.ReadMessage(nil, message)
	})
}

func (h *handshake) step(write bool, do func(*noise.HandshakeState) ([]byte, *noise.CipherState, *noise.CipherState,
	error)) ([]byte, error) {
	if h.state == nil {
		return nil, ErrOver
	}
	state := h.state()
	index := state.MessageIndex()
	if sentByInitiator := index%2 == 0; write != (sentByInitiator == h.initiator) {
		h.abandon()
		return nil, ErrOver
	}
	if index == h.pskMessage && !h.pskSet {
		h.abandon()
		return nil, errNoPSK
	}
	out, toResponder, toInitiator, err := do(state)
	if err != nil {
		h.abandon()
		return nil, err
	}
	if toResponder != nil {
		h.complete(state, toResponder, toInitiator)
	}
	return out, nil
}

// complete copies the results out of the library's state and drops it.
func (h *handshake) complete(state *noise.HandshakeState, toResponder, toInitiator *noise.CipherState) {
	h.result = &Transport{
		HandshakeHash: [sha256.Size]byte(state.ChannelBinding()),
		PeerStatic:    PublicKey(state.PeerStatic()),
	}
	if h.initiator {
		h.result.send, h.result.receive = hide(toResponder), hide(toInitiator)
	} else {
		h.result.send, h.result.receive = hide(toInitiator), hide(toResponder)
	}
	h.dh().authenticated(h.result.PeerStatic)
	h.abandon()
}

// abandon throws the state away. After an error the library has changed it and
// would take another call, whose result the other side rejects.
func (h *handshake) abandon() {
	if h.state == nil {
		return
	}
	h.dh().forget()
	h.state, h.dh = nil, nil
}

// kemSize is the length of an ML-KEM shared secret in bytes.
const kemSize = mlkem.SharedKeySize

// encapsulateFunc makes a KEM secret and the ciphertext that carries it. It is
// a field of the responders, so that the test vectors can fix its randomness:
// crypto/mlkem takes that from the system only.
type encapsulateFunc func(*mlkem.EncapsulationKey768) (secret, ciphertext []byte)

func encapsulate(key *mlkem.EncapsulationKey768) (secret, ciphertext []byte) {
	return key.Encapsulate()
}

// generateKEM makes the ephemeral KEM key of one handshake from random.
func generateKEM(random io.Reader) (*mlkem.DecapsulationKey768, error) {
	var seed [mlkem.SeedSize]byte
	defer clear(seed[:])
	if _, err := io.ReadFull(orSystem(random), seed[:]); err != nil {
		return nil, reason.Errorf("read %d random bytes for a KEM key: %w", len(seed), err)
	}
	return mlkem.NewDecapsulationKey768(seed[:])
}

// derivePSK binds a psk to the KEM's public values by the salt:
// HKDF-SHA256(secret, SHA256(ek | ct), label), 32 bytes.
func derivePSK(label string, secret, ek, ct []byte) ([]byte, error) {
	hash := sha256.New()
	hash.Write(ek)
	hash.Write(ct)
	return hkdf.Key(sha256.New, secret, hash.Sum(nil), label, KeySize)
}
