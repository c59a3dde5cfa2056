package noiseconn

import (
	"crypto/ecdh"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/mlkem"
	"crypto/mlkem/mlkemtest"
	"crypto/sha256"
	"encoding/binary"
	"slices"

	"golang.org/x/crypto/chacha20poly1305"
)

// This is the protocol a second time, written from docs/protocol.md and the Noise
// specification, without the library and without the package's own code. It knows
// the private keys of both sides, so that a handshake is a straight line. The
// tests use it to check every byte, and to play a peer that leaves the psk out.

// reference is Noise's symmetric state.
type reference struct {
	h, ck  []byte
	key    []byte
	n      uint64
	hasKey bool
}

func newReference(name, prologue string) *reference {
	h := sha256.Sum256([]byte(name)) // both names are longer than 32 bytes
	r := &reference{h: h[:], ck: h[:]}
	r.mixHash([]byte(prologue))
	return r
}

func (r *reference) mixHash(data []byte) {
	h := sha256.Sum256(slices.Concat(r.h, data))
	r.h = h[:]
}

// mix is Noise's HKDF, which is that of RFC 5869 without info.
func (r *reference) mix(input []byte, outputs int) []byte {
	out := must(hkdf.Key(sha256.New, input, r.ck, "", 32*outputs))
	r.ck, r.key, r.n, r.hasKey = out[:32], out[32*(outputs-1):], 0, true
	return out[32:64]
}

func (r *reference) mixKey(input []byte)        { r.mix(input, 2) }
func (r *reference) mixKeyAndHash(input []byte) { r.mixHash(r.mix(input, 3)) }

func (r *reference) encrypt(plaintext []byte) []byte {
	ciphertext := referenceSeal(r.key, r.n, r.h, plaintext)
	r.n++
	r.mixHash(ciphertext)
	return ciphertext
}

// split returns the keys of the two directions.
func (r *reference) split() (toBase, toApp []byte) {
	out := must(hkdf.Key(sha256.New, nil, r.ck, "", 64))
	return out[:32], out[32:]
}

func referenceSeal(key []byte, n uint64, ad, plaintext []byte) []byte {
	nonce := binary.LittleEndian.AppendUint64(make([]byte, 4), n)
	return must(chacha20poly1305.New(key)).Seal(nil, nonce, plaintext, ad)
}

// referenceRecord returns record n of a direction whose first key is given.
func referenceRecord(key []byte, n uint64, plaintext []byte) []byte {
	for range n / RekeyInterval {
		key = referenceSeal(key, 1<<64-1, nil, make([]byte, 32))[:32]
	}
	ciphertext := referenceSeal(key, n, nil, plaintext)
	return append(binary.BigEndian.AppendUint16(nil, uint16(len(ciphertext))), ciphertext...)
}

// secrets is every random choice that goes into a handshake.
type secrets struct {
	appStatic, appEphemeral   []byte
	baseStatic, baseEphemeral []byte
	kemSeed, kemRandom        []byte
	pair                      []byte // connecting only
}

func referenceDH(private, public []byte) []byte {
	key := must(ecdh.X25519().NewPrivateKey(private))
	return must(key.ECDH(must(ecdh.X25519().NewPublicKey(public))))
}

func referencePublic(private []byte) []byte {
	return must(ecdh.X25519().NewPrivateKey(private)).PublicKey().Bytes()
}

func (s secrets) kem() (ek, ct, secret []byte) {
	key := must(mlkem.NewDecapsulationKey768(s.kemSeed)).EncapsulationKey()
	secret, ct, err := mlkemtest.Encapsulate768(key, s.kemRandom)
	if err != nil {
		panic(err)
	}
	return key.Bytes(), ct, secret
}

func referencePSK(label string, secret, ek, ct []byte) []byte {
	salt := sha256.Sum256(slices.Concat(ek, ct))
	return must(hkdf.Key(sha256.New, secret, salt[:], label, 32))
}

type referencePairing struct {
	p1, p2, p3, h, toBase, toApp []byte
}

// referencePair computes a pairing. alterPSK may replace the psk of P3.
func referencePair(s secrets, commitment, payload []byte, alterPSK func(psk []byte) []byte) (out referencePairing) {
	ek, ct, secret := s.kem()
	appE, baseE := referencePublic(s.appEphemeral), referencePublic(s.baseEphemeral)
	r := newReference("Noise_XXpsk3_25519_ChaChaPoly_SHA256", "bitbox-base/1 pair")

	r.mixHash(appE) // e
	r.mixKey(appE)
	out.p1 = slices.Concat(appE, r.encrypt(ek))

	r.mixHash(baseE) // e
	r.mixKey(baseE)
	r.mixKey(referenceDH(s.baseEphemeral, appE)) // ee
	static := r.encrypt(referencePublic(s.baseStatic))
	r.mixKey(referenceDH(s.baseStatic, appE)) // es
	out.p2 = slices.Concat(baseE, static, r.encrypt(slices.Concat(ct, commitment)))

	static = r.encrypt(referencePublic(s.appStatic))
	r.mixKey(referenceDH(s.appStatic, baseE)) // se
	r.mixKeyAndHash(alterPSK(referencePSK("bitbox-base pair psk v1", secret, ek, ct)))
	out.p3 = slices.Concat(static, r.encrypt(payload))
	out.h = r.h
	out.toBase, out.toApp = r.split()
	return out
}

type referenceConnection struct {
	r1, r2, h, toBase, toApp []byte
}

// referenceConnect computes a connection. alterPSK may replace the psk of R2.
func referenceConnect(s secrets, seq uint64, status byte, alterPSK func(psk []byte) []byte) (out referenceConnection) {
	ek, ct, secret := s.kem()
	appE, baseE := referencePublic(s.appEphemeral), referencePublic(s.baseEphemeral)
	basePublic := referencePublic(s.baseStatic)
	r := newReference("Noise_IKpsk2_25519_ChaChaPoly_SHA256", "bitbox-base/1 connect")
	r.mixHash(basePublic)

	r.mixHash(appE) // e
	r.mixKey(appE)
	r.mixKey(referenceDH(s.appEphemeral, basePublic)) // es
	static := r.encrypt(referencePublic(s.appStatic))
	r.mixKey(referenceDH(s.appStatic, basePublic)) // ss
	message := slices.Concat(appE, static, r.encrypt(binary.BigEndian.AppendUint64(ek, seq)))
	out.r1 = slices.Concat(referenceMAC1(s.pair, message), message)

	r.mixHash(baseE) // e
	r.mixKey(baseE)
	r.mixKey(referenceDH(s.baseEphemeral, appE))                         // ee
	r.mixKey(referenceDH(s.baseEphemeral, referencePublic(s.appStatic))) // se
	psk := referencePSK("bitbox-base connect psk v1", slices.Concat(s.pair, secret), ek[:1184], ct)
	r.mixKeyAndHash(alterPSK(psk))
	out.r2 = slices.Concat(ct, baseE, r.encrypt([]byte{status}))
	out.h = r.h
	out.toBase, out.toApp = r.split()
	return out
}

func referenceMAC1(pair, message []byte) []byte {
	digest := sha256.Sum256(message)
	mac := hmac.New(sha256.New, must(hkdf.Key(sha256.New, pair, nil, "bitbox-base mac1 v1", 32)))
	mac.Write(digest[:])
	return mac.Sum(nil)[:16]
}

func referenceClaimMessage(p1 []byte) []byte {
	digest := sha256.Sum256(p1)
	return append([]byte("bitbox-base claim v1"), digest[:]...)
}

func referenceClaimMAC(claim, p1 []byte) []byte {
	digest := sha256.Sum256(p1)
	mac := hmac.New(sha256.New, must(hkdf.Key(sha256.New, claim, nil, "bitbox-base claim mac v1", 32)))
	mac.Write(digest[:])
	return mac.Sum(nil)[:16]
}

func referenceClaimProof(claim []byte, payload *P3Payload, p4 *P4, h []byte) []byte {
	salt := sha256.Sum256(slices.Concat([]byte("bitbox-base sas salt v1"), h, payload.SigningKey, p4.StateKey, []byte{p4.Role}))
	return must(hkdf.Key(sha256.New, slices.Concat(claim, payload.RA[:], p4.RB[:]), salt[:], "bitbox-base claim proof v1", 32))
}

func rightPSK(psk []byte) []byte { return psk }
