package noiseconn

import (
	"crypto/cipher"
	"crypto/ecdh"
	"encoding/binary"
	"fmt"
	"io"

	"github.com/flynn/noise"
	"golang.org/x/crypto/chacha20poly1305"
)

// handshakeDH is the X25519 of one handshake. It exists because the library's
// own parses the private key anew for every Diffie-Hellman, and parsing one
// computes its public key: twice the work. The library gets handles in place of
// private keys, so it holds none.
type handshakeDH struct {
	static    *ecdh.PrivateKey
	ephemeral *ecdh.PrivateKey
}

var (
	staticHandle    = []byte("s")
	ephemeralHandle = []byte("e")
)

func (d *handshakeDH) staticKeypair() noise.DHKey {
	return noise.DHKey{Private: staticHandle, Public: d.static.PublicKey().Bytes()}
}

// GenerateKeypair makes the ephemeral key; both patterns have one on each side.
func (d *handshakeDH) GenerateKeypair(random io.Reader) (noise.DHKey, error) {
	var b [KeySize]byte
	defer clear(b[:])
	if _, err := io.ReadFull(random, b[:]); err != nil {
		return noise.DHKey{}, fmt.Errorf("read %d random bytes for an ephemeral key: %w", KeySize, err)
	}
	key, err := ecdh.X25519().NewPrivateKey(b[:])
	if err != nil {
		return noise.DHKey{}, fmt.Errorf("make an ephemeral key: %w", err)
	}
	d.ephemeral = key
	return noise.DHKey{Private: ephemeralHandle, Public: key.PublicKey().Bytes()}, nil
}

// DH refuses public keys of low order, as crypto/ecdh does.
func (d *handshakeDH) DH(handle, public []byte) ([]byte, error) {
	private := d.ephemeral
	if handle[0] == staticHandle[0] {
		private = d.static
	}
	peer, err := ecdh.X25519().NewPublicKey(public)
	if err != nil {
		return nil, err
	}
	return private.ECDH(peer)
}

func (d *handshakeDH) DHLen() int     { return KeySize }
func (d *handshakeDH) DHName() string { return "25519" }

// forget drops the keys. The cipher states of a session keep their suite, and
// with it this value: an ephemeral key must not live as long as they do.
func (d *handshakeDH) forget() { d.static, d.ephemeral = nil, nil }

// chachaPoly is ChaCha20-Poly1305 as Noise defines it. The library's own
// allocates a nonce for every record; this one has it beside the key. It is not
// for concurrent use: whoever holds a cipher state holds a lock.
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
