package noiseconn

import (
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/mlkem"
	"crypto/sha256"
	"encoding/binary"
	"io"
	"slices"

	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
	"github.com/BitBoxSwiss/bitbox-base/internal/secret"
)

// R1 is mac1 | IK message 1, and R2 is ct | IK message 2.
//
//	R1  0   16    mac1                      R2  0     1088  ct
//	    16  32    e                             1088  32    e
//	    48  48    enc(s)                        1120  17    enc(status)
//	    96  1208  enc(ek (1184) | seq (8))
const (
	mac1Size = 16
	seqSize  = 8

	connectPSKLabel = "bitbox-base connect psk v1"
	mac1Label       = "bitbox-base mac1 v1"
)

// Bounds of seq. It grows by at least one, and is never below the clock; a number without
// an upper bound could lock its App out for good.
const (
	// MaxSeqClock is 2100-01-01 in milliseconds since 1970: what an App takes from its clock
	// is not above it.
	MaxSeqClock = 4_102_444_800_000
	// MaxSeqStep is how far above the highest that was accepted a number beyond MaxSeqClock may be.
	MaxSeqStep = 1 << 20
)

// NextSeq is the number of a connection after one with the number last, at a time in
// milliseconds since 1970.
func NextSeq(last uint64, nowMs int64) uint64 {
	return max(last+1, uint64(min(max(nowMs, 0), MaxSeqClock)))
}

// Status is the Base's answer in R2.
type Status byte

const (
	// StatusOK opens a session.
	StatusOK Status = 0
	// StatusRevoked tells an App that it was revoked; the connection ends.
	StatusRevoked Status = 1
)

// ErrMAC1 says that an R1 does not come from the holder of this PairKey.
var ErrMAC1 = reason.New("wrong mac1")

// MAC1KeyOf derives the key that checks mac1. It is the same for the life of a
// pairing, so a Base derives it once.
func MAC1KeyOf(pair PairKey) (MAC1Key, error) {
	if pair.Empty() {
		return MAC1Key{}, errEmptyPair
	}
	b, err := hkdf.Key(sha256.New, pair.Expose(), nil, mac1Label, KeySize)
	if err != nil {
		return MAC1Key{}, reason.Errorf("derive the mac1 key: %w", err)
	}
	defer clear(b)
	return secret.New[mac1Kind](b)
}

var errEmptyPair = reason.New("the pairing key is empty; pair first")

// MAC1 returns the mac1 that an R1 carries, unchecked; zeros if it has not R1Size
// bytes.
func MAC1(r1 []byte) (mac [mac1Size]byte) {
	if len(r1) == R1Size {
		mac = [mac1Size]byte(r1)
	}
	return mac
}

// CheckMAC1 tells whether an R1 was made by the holder of a key.
func CheckMAC1(key MAC1Key, r1 []byte) bool { return MatchMAC1([]MAC1Key{key}, r1) == 0 }

// MatchMAC1 returns the index of the key whose holder made an R1, or -1. It is
// what a stranger can make a Base compute: one hash of R1Size bytes, and one
// HMAC a key.
func MatchMAC1(keys []MAC1Key, r1 []byte) int {
	if len(r1) != R1Size {
		return -1
	}
	digest := sha256.Sum256(r1[mac1Size:])
	for i, key := range keys {
		if !key.Empty() && hmac.Equal(mac1(key, digest), r1[:mac1Size]) {
			return i
		}
	}
	return -1
}

func mac1(key MAC1Key, digest [sha256.Size]byte) []byte {
	mac := hmac.New(sha256.New, key.Expose())
	mac.Write(digest[:])
	return mac.Sum(nil)[:mac1Size]
}

// ConnectInitiator is the App's side of a connect handshake.
type ConnectInitiator struct {
	handshake *handshake
	pair      PairKey
	kem       hidden[*mlkem.DecapsulationKey768]
	ek        []byte
	r1        []byte
}

// NewConnectInitiator starts a connection to the Base with this static key. seq
// must be larger than in every R1 before it. random nil means the system's
// generator; of another one 64 bytes are read for the KEM key and 32 for the
// ephemeral key.
func NewConnectInitiator(random io.Reader, static StaticKey, base PublicKey, pair PairKey, seq uint64) (*ConnectInitiator, error) {
	key, err := MAC1KeyOf(pair)
	if err != nil {
		return nil, reason.Errorf("start a connection: %w", err)
	}
	defer key.Wipe()
	kem, err := generateKEM(random)
	if err != nil {
		return nil, reason.Errorf("start a connection: %w", err)
	}
	c := &ConnectInitiator{pair: pair, kem: hide(kem), ek: kem.EncapsulationKey().Bytes()}
	if c.handshake, err = newHandshake(connectSuite, true, random, static, base[:]); err != nil {
		return nil, reason.Errorf("start a connection: %w", err)
	}
	payload := binary.BigEndian.AppendUint64(slices.Clone(c.ek), seq)
	if c.r1, err = c.handshake.write(make([]byte, mac1Size, R1Size), payload); err != nil {
		return nil, reason.Errorf("write R1: %w", err)
	}
	copy(c.r1, mac1(key, sha256.Sum256(c.r1[mac1Size:])))
	return c, nil
}

// R1 returns the first message, R1Size bytes. It is the same at each call, but a
// Base answers it once.
func (c *ConnectInitiator) R1() []byte { return slices.Clone(c.r1) }

// ReadR2 reads the Base's answer. The Transport is nil unless the status is
// StatusOK.
func (c *ConnectInitiator) ReadR2(r2 []byte) (Status, *Transport, error) {
	if c.handshake.state == nil {
		return 0, nil, reason.Errorf("read R2: %w", ErrOver)
	}
	kem := c.kem()
	c.kem = nil
	if len(r2) != R2Size {
		c.handshake.abandon()
		return 0, nil, reason.Errorf("read R2: it has %d bytes, not %d", len(r2), R2Size)
	}
	ct, message := r2[:mlkem.CiphertextSize768], r2[mlkem.CiphertextSize768:]
	kemSecret, err := kem.Decapsulate(ct)
	if err != nil {
		c.handshake.abandon()
		return 0, nil, reason.Errorf("read the KEM ciphertext in R2: %w", err)
	}
	if err := setConnectPSK(c.handshake, c.pair, kemSecret, c.ek, ct); err != nil {
		return 0, nil, reason.Errorf("set the psk for R2: %w", err)
	}
	payload, err := c.handshake.read(message, len(message))
	if err != nil {
		return 0, nil, reason.Errorf("read R2: %w", err)
	}
	transport := c.handshake.result
	switch status := Status(payload[0]); status {
	case StatusOK:
		return status, transport, nil
	case StatusRevoked:
		return status, nil, nil
	default:
		return 0, nil, reason.Errorf("read R2: unknown status %d; this App may be too old", status)
	}
}

// ConnectResponder is the Base's side of a connect handshake.
type ConnectResponder struct {
	handshake   *handshake
	pair        PairKey
	peer        PublicKey
	seq         uint64
	ek          []byte
	kem         *mlkem.EncapsulationKey768
	encapsulate encapsulateFunc
}

// NewConnectResponder reads an R1 from the holder of a PairKey, found with
// CheckMAC1; mac1 is checked here again, because Noise does not cover it. The
// caller still has to compare Peer with that pairing's static key, and Seq with
// its window. random nil means the system's generator; of another one 32 bytes
// are read for the ephemeral key. (The KEM's secret is always the system's.)
func NewConnectResponder(random io.Reader, static StaticKey, pair PairKey, r1 []byte) (*ConnectResponder, error) {
	key, err := MAC1KeyOf(pair)
	if err != nil {
		return nil, reason.Errorf("answer a connection: %w", err)
	}
	defer key.Wipe()
	if !CheckMAC1(key, r1) {
		return nil, reason.Errorf("read R1: %w", ErrMAC1)
	}
	return readR1(random, static, pair, r1[mac1Size:])
}

func readR1(random io.Reader, static StaticKey, pair PairKey, message []byte) (*ConnectResponder, error) {
	c := &ConnectResponder{pair: pair, encapsulate: encapsulate}
	var err error
	if c.handshake, err = newHandshake(connectSuite, false, random, static, nil); err != nil {
		return nil, reason.Errorf("answer a connection: %w", err)
	}
	payload, err := c.handshake.read(message, R1Size-mac1Size)
	if err != nil {
		return nil, reason.Errorf("read R1: %w", err)
	}
	c.ek = payload[:mlkem.EncapsulationKeySize768]
	c.seq = binary.BigEndian.Uint64(payload[mlkem.EncapsulationKeySize768:])
	c.peer = PublicKey(c.handshake.state().PeerStatic())
	if c.kem, err = mlkem.NewEncapsulationKey768(c.ek); err != nil {
		return nil, reason.Errorf("read the KEM key in R1: %w", err)
	}
	return c, nil
}

// Peer returns the static key that the App has proved to hold.
func (c *ConnectResponder) Peer() PublicKey { return c.peer }

// Seq returns the number of this R1.
func (c *ConnectResponder) Seq() uint64 { return c.seq }

// WriteR2 answers: R2Size bytes. The Transport is nil unless the status is
// StatusOK. Nobody has proved to be alive yet: R1 may be a recording, until the
// first record arrives.
func (c *ConnectResponder) WriteR2(status Status) ([]byte, *Transport, error) {
	if status != StatusOK && status != StatusRevoked {
		c.handshake.abandon()
		return nil, nil, reason.Errorf("write R2: unknown status %d", status)
	}
	kemSecret, ct := c.encapsulate(c.kem)
	if err := setConnectPSK(c.handshake, c.pair, kemSecret, c.ek, ct); err != nil {
		return nil, nil, reason.Errorf("set the psk for R2: %w", err)
	}
	r2 := append(make([]byte, 0, R2Size), ct...)
	r2, err := c.handshake.write(r2, []byte{byte(status)})
	if err != nil {
		return nil, nil, reason.Errorf("write R2: %w", err)
	}
	transport := c.handshake.result
	if status != StatusOK {
		transport = nil
	}
	return r2, transport, nil
}

// setConnectPSK consumes the KEM's secret.
func setConnectPSK(h *handshake, pair PairKey, kemSecret, ek, ct []byte) error {
	var input [KeySize + kemSize]byte
	defer clear(input[:])
	copy(input[:], pair.Expose())
	copy(input[KeySize:], kemSecret)
	clear(kemSecret)
	psk, err := derivePSK(connectPSKLabel, input[:], ek, ct)
	if err != nil {
		h.abandon()
		return err
	}
	defer clear(psk)
	return h.setPSK(psk)
}
