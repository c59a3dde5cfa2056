package noiseconn

import (
	"crypto/cipher"
	"crypto/ecdh"
	"encoding/binary"
	"io"
	"sync"

	"github.com/flynn/noise"
	"golang.org/x/crypto/chacha20poly1305"

	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/publickey"
	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
)

// parsedStatic is a static key ready to compute with. Parsing one computes its
// public key, and IK has a Diffie-Hellman between the two static keys, which is
// the same in every handshake of a pairing: each costs as much as one of the five
// that a side has to do, and both are done once here.
type parsedStatic struct {
	key *ecdh.PrivateKey

	mu     sync.Mutex
	shared map[PublicKey][]byte // with the static keys of peers
}

// maxShared bounds what a paired App can make a Base remember, by showing ever
// new static keys. It is more than a Base has pairings.
const maxShared = 128

func (p *parsedStatic) recall(peer PublicKey) []byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.shared[peer]
}

func (p *parsedStatic) remember(peer PublicKey, shared []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.shared == nil || len(p.shared) >= maxShared {
		p.shared = make(map[PublicKey][]byte)
	}
	p.shared[peer] = shared
}

// handshakeDH is the X25519 of one handshake. It exists because the library's
// own parses the private key for every Diffie-Hellman, which is twice the work.
// The library gets handles in place of private keys, so it holds none.
type handshakeDH struct {
	static    *parsedStatic
	ephemeral *ecdh.PrivateKey
	computed  map[PublicKey][]byte // with the static key, in this handshake
}

var (
	staticHandle    = []byte("s")
	ephemeralHandle = []byte("e")
)

func newHandshakeDH(static StaticKey) *handshakeDH {
	return &handshakeDH{static: static.parsed(), computed: make(map[PublicKey][]byte)}
}

func (d *handshakeDH) staticKeypair() noise.DHKey {
	return noise.DHKey{Private: staticHandle, Public: d.static.key.PublicKey().Bytes()}
}

// GenerateKeypair makes the ephemeral key; both patterns have one on each side.
func (d *handshakeDH) GenerateKeypair(random io.Reader) (noise.DHKey, error) {
	var b [KeySize]byte
	defer clear(b[:])
	if _, err := io.ReadFull(random, b[:]); err != nil {
		return noise.DHKey{}, reason.Errorf("read %d random bytes for an ephemeral key: %w", KeySize, err)
	}
	key, err := ecdh.X25519().NewPrivateKey(b[:])
	if err != nil {
		return noise.DHKey{}, reason.Errorf("make an ephemeral key: %w", err)
	}
	d.ephemeral = key
	return noise.DHKey{Private: ephemeralHandle, Public: key.PublicKey().Bytes()}, nil
}

// DH refuses public keys that are not canonical, and those of small order, as
// crypto/ecdh does.
func (d *handshakeDH) DH(handle, public []byte) ([]byte, error) {
	if handle[0] == ephemeralHandle[0] {
		return diffieHellman(d.ephemeral, public)
	}
	peer := PublicKey(public)
	if shared := d.static.recall(peer); shared != nil {
		return shared, nil
	}
	shared, err := diffieHellman(d.static.key, public)
	if err == nil {
		d.computed[peer] = shared
	}
	return shared, err
}

func diffieHellman(private *ecdh.PrivateKey, public []byte) ([]byte, error) {
	if err := publickey.CheckAgreement(public); err != nil {
		return nil, err
	}
	peer, err := ecdh.X25519().NewPublicKey(public)
	if err != nil {
		return nil, err
	}
	return private.ECDH(peer)
}

func (d *handshakeDH) DHLen() int     { return KeySize }
func (d *handshakeDH) DHName() string { return "25519" }

// authenticated keeps the Diffie-Hellman with the peer's static key, if the
// pattern has one, for its next handshakes.
func (d *handshakeDH) authenticated(peer PublicKey) {
	if shared := d.computed[peer]; shared != nil {
		d.static.remember(peer, shared)
	}
}

// forget drops the keys. The cipher states of a session keep their suite, and
// with it this value: an ephemeral key must not live as long as they do.
func (d *handshakeDH) forget() { d.static, d.ephemeral, d.computed = nil, nil, nil }

// chachaPoly is ChaCha20-Poly1305 as Noise defines it. The library's own
// allocates a nonce for every record; this one has it beside the key. It is not
// for concurrent use: the holder of a cipher state holds a lock.
type chachaPoly struct{}

func (chachaPoly) CipherName() string { return "ChaChaPoly" }

func (chachaPoly) Cipher(key [KeySize]byte) noise.Cipher {
	aead, err := chacha20poly1305.New(key[:])
	if err != nil {
		panic(err) // only for a key of another length
	}
	return &chachaPolyKey{aead: aead}
}

type chachaPolyKey struct {
	aead  cipher.AEAD
	nonce [chacha20poly1305.NonceSize]byte // 32 zero bits, then n, little endian
}

func (c *chachaPolyKey) Encrypt(out []byte, n uint64, ad, plaintext []byte) []byte {
	binary.LittleEndian.PutUint64(c.nonce[4:], n)
	return c.aead.Seal(out, c.nonce[:], plaintext, ad)
}

func (c *chachaPolyKey) Decrypt(out []byte, n uint64, ad, ciphertext []byte) ([]byte, error) {
	binary.LittleEndian.PutUint64(c.nonce[4:], n)
	return c.aead.Open(out, c.nonce[:], ciphertext, ad)
}
