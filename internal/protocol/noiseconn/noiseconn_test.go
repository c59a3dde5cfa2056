package noiseconn

import (
	"bytes"
	"crypto/ed25519"
	"crypto/mlkem"
	"crypto/mlkem/mlkemtest"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"testing"
)

// must is for what cannot fail in a test.
func must[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}

// fixed returns size bytes that anybody can compute again from their name.
func fixed(name string, size int) []byte {
	digest := sha512.Sum512([]byte("bitbox-base test vector: " + name))
	return digest[:size]
}

// fixedSecrets are the random choices of the test vectors. All tests that need
// to run one handshake many times start from them.
func fixedSecrets(handshake string) secrets {
	return secrets{
		appStatic:     fixed("app static", 32),
		baseStatic:    fixed("base static", 32),
		appEphemeral:  fixed(handshake+" app ephemeral", 32),
		baseEphemeral: fixed(handshake+" base ephemeral", 32),
		kemSeed:       fixed(handshake+" kem seed", 64),
		kemRandom:     fixed(handshake+" kem randomness", 32),
		pair:          fixed("K_pair", 32),
	}
}

func (s secrets) appRandom() io.Reader {
	return bytes.NewReader(slices.Concat(s.kemSeed, s.appEphemeral))
}
func (s secrets) ephemeralOnly() io.Reader { return bytes.NewReader(s.appEphemeral) }
func (s secrets) baseRandom() io.Reader    { return bytes.NewReader(s.baseEphemeral) }

// The two static keys are the same in all fixed handshakes, and parsed once.
var (
	fixedApp  = sync.OnceValue(func() StaticKey { return must(ParseStatic(fixed("app static", 32))) })
	fixedBase = sync.OnceValue(func() StaticKey { return must(ParseStatic(fixed("base static", 32))) })
)

func (s secrets) app() StaticKey     { return fixedApp() }
func (s secrets) base() StaticKey    { return fixedBase() }
func (s secrets) pairKey() PairKey   { return must(ParsePairKey(s.pair)) }
func (s secrets) basePub() PublicKey { return must(PublicOf(s.base())) }

// encapsulate replaces the system's randomness in a responder.
func (s secrets) encapsulate(key *mlkem.EncapsulationKey768) (secret, ciphertext []byte) {
	secret, ciphertext, err := mlkemtest.Encapsulate768(key, s.kemRandom)
	if err != nil {
		panic(err)
	}
	return secret, ciphertext
}

func (s secrets) pairInitiator() *PairInitiator {
	return must(NewPairInitiator(s.appRandom(), s.app()))
}

func (s secrets) pairResponder(p1 []byte) (*PairResponder, error) {
	responder, err := NewPairResponder(s.baseRandom(), s.base(), p1)
	if err == nil {
		responder.encapsulate = s.encapsulate
	}
	return responder, err
}

func (s secrets) connectInitiator(seq uint64) *ConnectInitiator {
	return must(NewConnectInitiator(s.appRandom(), s.app(), s.basePub(), s.pairKey(), seq))
}

func (s secrets) connectResponder(r1 []byte) (*ConnectResponder, error) {
	responder, err := NewConnectResponder(s.baseRandom(), s.base(), s.pairKey(), r1)
	if err == nil {
		responder.encapsulate = s.encapsulate
	}
	return responder, err
}

func mustStatic(t testing.TB) StaticKey {
	t.Helper()
	key, err := GenerateStatic(nil)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// connectKeys is what an App and a Base hold after a pairing.
type connectKeys struct {
	app, base StaticKey
	pair      PairKey
}

func newConnectKeys(t testing.TB) connectKeys {
	t.Helper()
	return connectKeys{mustStatic(t), mustStatic(t), must(GeneratePairKey(nil))}
}

// connect runs a connect handshake and returns the App's and the Base's end.
func (k connectKeys) connect(t testing.TB) (app, base *Transport) {
	t.Helper()
	initiator, err := NewConnectInitiator(nil, k.app, must(PublicOf(k.base)), k.pair, 7)
	if err != nil {
		t.Fatal(err)
	}
	responder, err := NewConnectResponder(nil, k.base, k.pair, initiator.R1())
	if err != nil {
		t.Fatal(err)
	}
	if responder.Peer() != must(PublicOf(k.app)) || responder.Seq() != 7 {
		t.Fatalf("the Base read peer %v and seq %d", responder.Peer(), responder.Seq())
	}
	r2, base, err := responder.WriteR2(StatusOK)
	if err != nil {
		t.Fatal(err)
	}
	status, app, err := initiator.ReadR2(r2)
	if err != nil || status != StatusOK {
		t.Fatalf("ReadR2: %d, %v", status, err)
	}
	return app, base
}

func testPayload() *P3Payload {
	return &P3Payload{
		RA:         [32]byte(fixed("r_A", 32)),
		SigningKey: ed25519.NewKeyFromSeed(fixed("K_sign seed", 32)).Public().(ed25519.PublicKey),
		Name:       "Ada's phone",
	}
}

// runPairing runs a pairing handshake and returns the App's and the Base's end.
func runPairing(t testing.TB, appKey, baseKey StaticKey) (app, base *Transport) {
	t.Helper()
	initiator, err := NewPairInitiator(nil, appKey)
	if err != nil {
		t.Fatal(err)
	}
	responder, err := NewPairResponder(nil, baseKey, initiator.P1())
	if err != nil {
		t.Fatal(err)
	}
	commitment := [32]byte{3}
	p2, err := responder.WriteP2(commitment)
	if err != nil {
		t.Fatal(err)
	}
	if read, err := initiator.ReadP2(p2); err != nil || read != commitment {
		t.Fatalf("ReadP2: %x, %v", read, err)
	}
	p3, app, err := initiator.WriteP3(testPayload())
	if err != nil {
		t.Fatal(err)
	}
	payload, base, err := responder.ReadP3(p3)
	if err != nil || !bytes.Equal(payload, must(testPayload().Marshal())) {
		t.Fatalf("ReadP3: %x, %v", payload, err)
	}
	return app, base
}

func TestKeysAreParsedAtTheirExactLength(t *testing.T) {
	right := fixed("key", KeySize)
	for _, b := range [][]byte{nil, right[:31], append(right[:32:32], 0), make([]byte, 32)} {
		if _, err := ParseStatic(b); err == nil {
			t.Errorf("ParseStatic took %x", b)
		}
		if _, err := ParsePairKey(b); err == nil {
			t.Errorf("ParsePairKey took %x", b)
		}
		if _, err := ParseDiscoveryKey(b); err == nil {
			t.Errorf("ParseDiscoveryKey took %x", b)
		}
		if _, err := ParsePublicKey(b); err == nil && len(b) != KeySize {
			t.Errorf("ParsePublicKey took %x", b)
		}
	}
	static := must(ParseStatic(right))
	if public := must(PublicOf(static)); !bytes.Equal(public[:], referencePublic(right)) {
		t.Errorf("the public key is %v", public)
	}
	if public := must(ParsePublicKey(right)); public.String() != hex.EncodeToString(right) {
		t.Errorf("a public key prints as %v", public)
	}
}

func TestAnEmptyKeyIsRefused(t *testing.T) {
	static, pair := mustStatic(t), must(GeneratePairKey(nil))
	r1 := make([]byte, R1Size)
	for what, err := range map[string]error{
		"PublicOf":                             second(PublicOf(StaticKey{})),
		"MAC1KeyOf":                            second(MAC1KeyOf(PairKey{})),
		"NewPairInitiator":                     second(NewPairInitiator(nil, StaticKey{})),
		"NewPairResponder":                     second(NewPairResponder(nil, StaticKey{}, make([]byte, P1Size))),
		"NewConnectInitiator, no static key":   second(NewConnectInitiator(nil, StaticKey{}, PublicKey{9}, pair, 1)),
		"NewConnectInitiator, no pairing key":  second(NewConnectInitiator(nil, static, PublicKey{9}, PairKey{}, 1)),
		"NewConnectResponder, no pairing key":  second(NewConnectResponder(nil, static, PairKey{}, r1)),
		"MarshalBaseConfirm, no discovery key": second(MarshalBaseConfirm(pair, DiscoveryKey{})),
		"MarshalBaseConfirm, no pairing key":   second(MarshalBaseConfirm(PairKey{}, must(GenerateDiscoveryKey(nil)))),
	} {
		if err == nil {
			t.Errorf("%s took an empty key", what)
		}
	}
	// Anybody can compute an HMAC with no key.
	digest := sha256.Sum256(r1[mac1Size:])
	copy(r1, mac1(MAC1Key{}, digest))
	if CheckMAC1(MAC1Key{}, r1) {
		t.Error("CheckMAC1 took an empty key")
	}
}

func second[T any](_ T, err error) error { return err }

// Every byte of randomness comes from the reader that was given, and a reader
// that ends early is an error, not a weak key.
func TestShortRandomnessIsAnError(t *testing.T) {
	s := fixedSecrets("pairing")
	ends := func(n int) io.Reader { return bytes.NewReader(make([]byte, n)) }
	for n := range 64 + 32 {
		if _, err := NewPairInitiator(ends(n), s.app()); !isShort(err) {
			t.Fatalf("NewPairInitiator with %d random bytes: %v", n, err)
		}
		if _, err := NewConnectInitiator(ends(n), s.app(), s.basePub(), s.pairKey(), 1); !isShort(err) {
			t.Fatalf("NewConnectInitiator with %d random bytes: %v", n, err)
		}
	}
	p1, r1 := s.pairInitiator().P1(), s.connectInitiator(1).R1()
	for n := range 32 {
		pair := must(NewPairResponder(ends(n), s.base(), p1))
		if _, err := pair.WriteP2([32]byte{}); !isShort(err) {
			t.Fatalf("WriteP2 with %d random bytes: %v", n, err)
		}
		connect := must(NewConnectResponder(ends(n), s.base(), s.pairKey(), r1))
		if _, _, err := connect.WriteR2(StatusOK); !isShort(err) {
			t.Fatalf("WriteR2 with %d random bytes: %v", n, err)
		}
	}
	for n := range 32 {
		if _, err := GenerateStatic(ends(n)); !isShort(err) {
			t.Fatalf("GenerateStatic with %d random bytes: %v", n, err)
		}
	}
}

func isShort(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
}

// A StaticKey is more than a secret.Key, so it is tried here again.
func TestAStaticKeyIsNeitherPrintedNorMarshalled(t *testing.T) {
	key := must(ParseStatic(fixed("app static", 32)))
	for _, verb := range printVerbs {
		if out := fmt.Sprintf(verb, key); out != "[secret]" {
			t.Errorf("%s prints %s", verb, out)
		}
	}
	if b, err := json.Marshal(key); err == nil {
		t.Errorf("it marshals to %s", b)
	}
}
