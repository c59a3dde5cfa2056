package noiseconn

import (
	"bytes"
	"crypto/mlkem"
	"crypto/rand"
	"errors"
	"slices"
	"testing"

	"github.com/flynn/noise"
)

func TestAPairingAgreesOnBothSides(t *testing.T) {
	appKey, baseKey := mustStatic(t), mustStatic(t)
	app, base := runPairing(t, appKey, baseKey)
	if app.HandshakeHash != base.HandshakeHash || app.HandshakeHash == [32]byte{} {
		t.Errorf("handshake hashes %x and %x", app.HandshakeHash, base.HandshakeHash)
	}
	if app.PeerStatic != must(PublicOf(baseKey)) || base.PeerStatic != must(PublicOf(appKey)) {
		t.Error("a side has another key for its peer")
	}
	assertSession(t, app, base)
}

func TestAConnectionAgreesOnBothSides(t *testing.T) {
	k := newConnectKeys(t)
	for range 3 { // from the second on, the static Diffie-Hellman is remembered
		app, base := k.connect(t)
		if app.HandshakeHash != base.HandshakeHash || app.HandshakeHash == [32]byte{} {
			t.Errorf("handshake hashes %x and %x", app.HandshakeHash, base.HandshakeHash)
		}
		if app.PeerStatic != must(PublicOf(k.base)) || base.PeerStatic != must(PublicOf(k.app)) {
			t.Error("a side has another key for its peer")
		}
		assertSession(t, app, base)
	}
}

// assertSession sends a text in each direction.
func assertSession(t *testing.T, app, base *Transport) {
	t.Helper()
	for _, direction := range []struct{ from, to *Transport }{{app, base}, {base, app}} {
		text := []byte("to and fro")
		sealed := must(direction.from.send().Encrypt(nil, nil, text))
		opened, err := direction.to.receive().Decrypt(nil, nil, sealed)
		if err != nil || !bytes.Equal(opened, text) {
			t.Fatalf("%q came through: %v", opened, err)
		}
	}
	if app.send().UnsafeKey() == app.receive().UnsafeKey() {
		t.Error("both directions have one key")
	}
}

// Every byte is as the reference, written from the specification, has it.
func TestEveryByteIsAsSpecified(t *testing.T) {
	s := fixedSecrets("pairing")
	commitment := [32]byte(fixed("C", 32))
	pairing := referencePair(s, commitment[:], must(testPayload().Marshal()), rightPSK)
	app := s.pairInitiator()
	base := must(s.pairResponder(app.P1()))
	p2 := must(base.WriteP2(commitment))
	must(app.ReadP2(p2))
	p3, transport, err := app.WriteP3(testPayload())
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "P1", app.P1(), pairing.p1)
	equal(t, "P2", p2, pairing.p2)
	equal(t, "P3", p3, pairing.p3)
	assertTransport(t, transport, pairing.h, pairing.toBase, pairing.toApp)

	s = fixedSecrets("connecting")
	for _, status := range []Status{StatusOK, StatusRevoked} {
		const seq = 1<<40 + 5
		connection := referenceConnect(s, seq, byte(status), rightPSK)
		app := s.connectInitiator(seq)
		base := must(s.connectResponder(app.R1()))
		r2, _, err := base.WriteR2(status)
		if err != nil {
			t.Fatal(err)
		}
		equal(t, "R1", app.R1(), connection.r1)
		equal(t, "R2", r2, connection.r2)
		read, transport, err := app.ReadR2(r2)
		if err != nil || read != status {
			t.Fatalf("ReadR2: %d, %v", read, err)
		}
		if status == StatusOK {
			assertTransport(t, transport, connection.h, connection.toBase, connection.toApp)
		}
	}
}

func equal(t *testing.T, what string, got, want []byte) {
	t.Helper()
	if !bytes.Equal(got, want) {
		t.Errorf("%s is\n%x, expected\n%x", what, got, want)
	}
}

// assertTransport checks the App's end.
func assertTransport(t *testing.T, transport *Transport, h, toBase, toApp []byte) {
	t.Helper()
	send, receive := transport.send().UnsafeKey(), transport.receive().UnsafeKey()
	equal(t, "h", transport.HandshakeHash[:], h)
	equal(t, "the key to the Base", send[:], toBase)
	equal(t, "the key to the App", receive[:], toApp)
}

// wrongPSKs are what a peer may mix that does not know the psk, or does not care.
var wrongPSKs = map[string]func([]byte) []byte{
	"no psk":        func([]byte) []byte { return nil },
	"zeros":         func([]byte) []byte { return make([]byte, 32) },
	"another":       func([]byte) []byte { return fixed("another psk", 32) },
	"one bit wrong": func(psk []byte) []byte { psk = slices.Clone(psk); psk[31] ^= 1; return psk },
}

func TestAnAppThatDoesNotSetThePSKIsRefused(t *testing.T) {
	s := fixedSecrets("pairing")
	commitment := [32]byte{1}
	read := func(alter func([]byte) []byte) error {
		messages := referencePair(s, commitment[:], must(testPayload().Marshal()), alter)
		base := must(s.pairResponder(messages.p1))
		must(base.WriteP2(commitment))
		_, transport, err := base.ReadP3(messages.p3)
		if err != nil && transport != nil {
			t.Error("an error and a Transport")
		}
		return err
	}
	for name, alter := range wrongPSKs {
		if read(alter) == nil {
			t.Errorf("%s: the Base went on", name)
		}
	}
	if err := read(rightPSK); err != nil {
		t.Errorf("the same App with the right psk: %v", err)
	}
}

func TestABaseThatDoesNotSetThePSKIsRefused(t *testing.T) {
	s := fixedSecrets("connecting")
	read := func(alter func([]byte) []byte) error {
		_, transport, err := s.connectInitiator(1).ReadR2(referenceConnect(s, 1, 0, alter).r2)
		if err != nil && transport != nil {
			t.Error("an error and a Transport")
		}
		return err
	}
	for name, alter := range wrongPSKs {
		if read(alter) == nil {
			t.Errorf("%s: the App went on", name)
		}
	}
	if err := read(rightPSK); err != nil {
		t.Errorf("the same Base with the right psk: %v", err)
	}
}

// The psk needs both the pairing key and the KEM's secret.
func TestABaseWithHalfOfThePSKIsRefused(t *testing.T) {
	s := fixedSecrets("connecting")
	ek, ct, kemSecret := s.kem()
	const label = "bitbox-base connect psk v1"
	for name, half := range map[string][]byte{
		"K_pair only":                   s.pair,
		"KEM only":                      kemSecret,
		"K_pair and zeros":              slices.Concat(s.pair, make([]byte, 32)),
		"zeros and KEM":                 slices.Concat(make([]byte, 32), kemSecret),
		"the other way round":           slices.Concat(kemSecret, s.pair),
		"right (control: must succeed)": slices.Concat(s.pair, kemSecret),
	} {
		r2 := referenceConnect(s, 1, 0, func([]byte) []byte { return referencePSK(label, half, ek, ct) }).r2
		_, _, err := s.connectInitiator(1).ReadR2(r2)
		if control := name == "right (control: must succeed)"; control != (err == nil) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Our own code cannot forget the psk either: the library would read on.
func TestAMessageWithThePSKTokenNeedsThePSK(t *testing.T) {
	start := func() (app, base *handshake) {
		key := mustStatic(t)
		app = must(newHandshake(connectSuite, true, nil, mustStatic(t), must(PublicOf(key)).bytes()))
		base = must(newHandshake(connectSuite, false, nil, key, nil))
		first := must(app.write(nil, nil))
		must(base.read(first, len(first)))
		return app, base
	}
	_, base := start()
	if _, err := base.write(nil, nil); !errors.Is(err, errNoPSK) {
		t.Errorf("writing without a psk: %v", err)
	}
	app, base := start()
	if err := base.setPSK(fixed("psk", 32)); err != nil {
		t.Fatal(err)
	}
	second := must(base.write(nil, nil))
	if _, err := app.read(second, len(second)); !errors.Is(err, errNoPSK) {
		t.Errorf("reading without a psk: %v", err)
	}
	for _, size := range []int{0, 31, 33} {
		app, _ := start()
		if err := app.setPSK(make([]byte, size)); err == nil {
			t.Errorf("a psk of %d bytes was taken", size)
		}
		if err := app.setPSK(make([]byte, 32)); !errors.Is(err, ErrOver) {
			t.Errorf("the handshake went on after a wrong psk: %v", err)
		}
	}
}

func (k PublicKey) bytes() []byte { return k[:] }

// The reason for the guard, and the control of the test above: the bare library,
// whose psk was never set, reads what a peer with an empty psk has written.
func TestTheBareLibraryReadsWithoutAPSK(t *testing.T) {
	s := fixedSecrets("connecting")
	suite := noise.NewCipherSuite(noise.DH25519, noise.CipherChaChaPoly, noise.HashSHA256)
	bare := must(noise.NewHandshakeState(noise.Config{
		CipherSuite: suite, Random: bytes.NewReader(s.appEphemeral), Pattern: noise.HandshakeIK, Initiator: true,
		Prologue: []byte("bitbox-base/1 connect"), PresharedKeyPlacement: 2, PeerStatic: s.basePub().bytes(),
		StaticKeypair: noise.DHKey{Private: s.appStatic, Public: referencePublic(s.appStatic)},
	}))
	ek, _, _ := s.kem()
	if _, _, _, err := bare.WriteMessage(nil, append(ek, 0, 0, 0, 0, 0, 0, 0, 1)); err != nil {
		t.Fatal(err)
	}
	r2 := referenceConnect(s, 1, 0, wrongPSKs["no psk"]).r2
	if _, _, _, err := bare.ReadMessage(nil, r2[mlkem.CiphertextSize768:]); err != nil {
		t.Errorf("it does not: %v; is the guard still needed?", err)
	}
}

// stepsOfPairing and stepsOfConnecting call each step once more than it works.
func TestEachStepWorksOnce(t *testing.T) {
	s := fixedSecrets("pairing")
	commitment := [32]byte{1}
	app := s.pairInitiator()
	base := must(s.pairResponder(app.P1()))
	p2 := must(base.WriteP2(commitment))
	must(app.ReadP2(p2))
	p3, _, err := app.WriteP3(testPayload())
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := base.ReadP3(p3); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		_, err1 := app.ReadP2(p2)
		_, t1, err2 := app.WriteP3(testPayload())
		_, err3 := base.WriteP2(commitment)
		_, t2, err4 := base.ReadP3(p3)
		for i, err := range []error{err1, err2, err3, err4} {
			if !errors.Is(err, ErrOver) {
				t.Errorf("pairing, step %d again: %v", i, err)
			}
		}
		if t1 != nil || t2 != nil {
			t.Error("a second Transport came out")
		}
	}

	s = fixedSecrets("connecting")
	initiator := s.connectInitiator(1)
	responder := must(s.connectResponder(initiator.R1()))
	r2, _, err := responder.WriteR2(StatusOK)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := initiator.ReadR2(r2); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		_, t1, err1 := responder.WriteR2(StatusOK)
		_, t2, err2 := initiator.ReadR2(r2)
		if !errors.Is(err1, ErrOver) || !errors.Is(err2, ErrOver) || t1 != nil || t2 != nil {
			t.Errorf("connecting again: %v, %v", err1, err2)
		}
	}
}

func TestAStepOutOfTurnEndsTheHandshake(t *testing.T) {
	s := fixedSecrets("pairing")
	commitment := [32]byte{1}
	messages := referencePair(s, commitment[:], must(testPayload().Marshal()), rightPSK)

	app := s.pairInitiator()
	if _, _, err := app.WriteP3(testPayload()); !errors.Is(err, ErrOver) {
		t.Errorf("P3 before P2: %v", err)
	}
	if _, err := app.ReadP2(messages.p2); !errors.Is(err, ErrOver) {
		t.Errorf("P2 after a mistake: %v", err)
	}
	base := must(s.pairResponder(messages.p1))
	if _, _, err := base.ReadP3(messages.p3); !errors.Is(err, ErrOver) {
		t.Errorf("P3 before P2: %v", err)
	}
	if _, err := base.WriteP2(commitment); !errors.Is(err, ErrOver) {
		t.Errorf("P2 after a mistake: %v", err)
	}
	app = s.pairInitiator()
	must(app.ReadP2(messages.p2))
	if _, err := app.ReadP2(messages.p2); !errors.Is(err, ErrOver) {
		t.Errorf("P2 twice: %v", err)
	}
	if _, _, err := app.WriteP3(testPayload()); !errors.Is(err, ErrOver) {
		t.Errorf("P3 after P2 twice: %v", err)
	}
}

// After an error the right message is refused as well.
func TestAnErrorEndsTheHandshake(t *testing.T) {
	s := fixedSecrets("pairing")
	commitment := [32]byte{1}
	messages := referencePair(s, commitment[:], must(testPayload().Marshal()), rightPSK)
	damaged := func(b []byte) []byte { b = slices.Clone(b); b[len(b)-1] ^= 1; return b }

	for _, wrong := range [][]byte{nil, messages.p2[1:], append(slices.Clone(messages.p2), 0), damaged(messages.p2)} {
		app := s.pairInitiator()
		if _, err := app.ReadP2(wrong); err == nil {
			t.Error("a wrong P2 was read")
		}
		if _, err := app.ReadP2(messages.p2); !errors.Is(err, ErrOver) {
			t.Errorf("P2 after a wrong one: %v", err)
		}
	}
	for _, wrong := range [][]byte{nil, messages.p3[1:], append(slices.Clone(messages.p3), 0), damaged(messages.p3)} {
		base := must(s.pairResponder(messages.p1))
		must(base.WriteP2(commitment))
		if _, _, err := base.ReadP3(wrong); err == nil {
			t.Error("a wrong P3 was read")
		}
		if _, _, err := base.ReadP3(messages.p3); !errors.Is(err, ErrOver) {
			t.Errorf("P3 after a wrong one: %v", err)
		}
	}
	app := s.pairInitiator()
	must(app.ReadP2(messages.p2))
	if _, _, err := app.WriteP3(&P3Payload{Name: "no key"}); err == nil {
		t.Error("P3 without a signing key was written")
	}
	if _, _, err := app.WriteP3(testPayload()); !errors.Is(err, ErrOver) {
		t.Errorf("P3 after a wrong one: %v", err)
	}

	s = fixedSecrets("connecting")
	connection := referenceConnect(s, 1, 0, rightPSK)
	for _, wrong := range [][]byte{nil, connection.r2[1:], append(slices.Clone(connection.r2), 0), damaged(connection.r2)} {
		app := s.connectInitiator(1)
		if _, _, err := app.ReadR2(wrong); err == nil {
			t.Error("a wrong R2 was read")
		}
		if _, _, err := app.ReadR2(connection.r2); !errors.Is(err, ErrOver) {
			t.Errorf("R2 after a wrong one: %v", err)
		}
	}
	base := must(s.connectResponder(connection.r1))
	if _, _, err := base.WriteR2(2); err == nil {
		t.Error("an unknown status was written")
	}
	if _, _, err := base.WriteR2(StatusOK); !errors.Is(err, ErrOver) {
		t.Errorf("R2 after a wrong one: %v", err)
	}
}

func TestAMessageOfAnotherLengthIsRefused(t *testing.T) {
	s := fixedSecrets("connecting")
	connection := referenceConnect(s, 1, 0, rightPSK)
	p1 := fixedSecrets("pairing").pairInitiator().P1()
	for _, cut := range []int{0, 1, 100} {
		if _, err := s.pairResponder(p1[:cut]); err == nil {
			t.Errorf("P1 of %d bytes was read", cut)
		}
		if _, err := s.connectResponder(connection.r1[:cut]); err == nil {
			t.Errorf("R1 of %d bytes was read", cut)
		}
	}
	if _, err := s.pairResponder(append(p1, 0)); err == nil {
		t.Error("P1 with a byte too many was read")
	}

	// From here on everything is right but the length: a peer that knows the keys
	// has encrypted a byte more or less.
	for _, change := range []int{-1, 1} {
		ek, _, _ := s.kem()
		initiator := must(newHandshake(connectSuite, true, nil, s.app(), s.basePub().bytes()))
		message := must(initiator.write(nil, append(ek, make([]byte, seqSize+change)...)))
		if _, err := s.connectResponder(append(referenceMAC1(s.pair, message), message...)); err == nil {
			t.Errorf("R1 with a payload changed by %d was read", change)
		}
		pairing := fixedSecrets("pairing")
		messages := referencePair(pairing, make([]byte, 32), make([]byte, P3PayloadSize+change), rightPSK)
		base := must(pairing.pairResponder(messages.p1))
		must(base.WriteP2([32]byte{}))
		if _, _, err := base.ReadP3(messages.p3); err == nil {
			t.Errorf("P3 with a payload changed by %d was read", change)
		}
		messages = referencePair(pairing, make([]byte, 32+change), nil, rightPSK)
		if _, err := pairing.pairInitiator().ReadP2(messages.p2); err == nil {
			t.Errorf("P2 with a payload changed by %d was read", change)
		}
	}
}

func TestAnUnknownStatusInR2IsRefused(t *testing.T) {
	s := fixedSecrets("connecting")
	for status := 2; status < 256; status++ {
		_, transport, err := s.connectInitiator(1).ReadR2(referenceConnect(s, 1, byte(status), rightPSK).r2)
		if err == nil || transport != nil {
			t.Fatalf("status %d was accepted", status)
		}
	}
}

func TestARevokedAppGetsNoTransport(t *testing.T) {
	s := fixedSecrets("connecting")
	app := s.connectInitiator(1)
	r2, baseEnd, err := must(s.connectResponder(app.R1())).WriteR2(StatusRevoked)
	if err != nil {
		t.Fatal(err)
	}
	status, appEnd, err := app.ReadR2(r2)
	if err != nil || status != StatusRevoked || appEnd != nil || baseEnd != nil {
		t.Errorf("status %d, %v; Transports: %t, %t", status, err, appEnd != nil, baseEnd != nil)
	}
}

// With a public key of low order the result of a Diffie-Hellman is zero, whatever
// the private key.
func TestPublicKeysOfLowOrderAreRefused(t *testing.T) {
	s := fixedSecrets("connecting")
	order8 := []byte{
		0xe0, 0xeb, 0x7a, 0x7c, 0x3b, 0x41, 0xb8, 0xae, 0x16, 0x56, 0xe3, 0xfa, 0xf1, 0x9f, 0xc4, 0x6a,
		0xda, 0x09, 0x8d, 0xeb, 0x9c, 0x32, 0xb1, 0xfd, 0x86, 0x62, 0x05, 0x16, 0x5f, 0x49, 0xb8, 0x00,
	}
	one := append([]byte{1}, make([]byte, 31)...)
	for _, point := range [][]byte{make([]byte, 32), one, order8} {
		// An App that is told of such a Base key.
		if _, err := NewConnectInitiator(nil, s.app(), PublicKey(point), s.pairKey(), 1); err == nil {
			t.Errorf("connected to a Base with the key %x", point)
		}
		// A pairing App whose ephemeral key is such a point: its P1 can be made
		// without any private key.
		ek, _, _ := s.kem()
		r := newReference("Noise_XXpsk3_25519_ChaChaPoly_SHA256", "bitbox-base/1 pair")
		r.mixHash(point)
		r.mixKey(point)
		base, err := s.pairResponder(slices.Concat(point, r.encrypt(ek)))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := base.WriteP2([32]byte{}); err == nil {
			t.Errorf("answered an App with the key %x", point)
		}
	}
}

// An encapsulation key has coefficients below 3329; the standard asks to check.
func TestAnInvalidKEMKeyIsRefused(t *testing.T) {
	s := fixedSecrets("pairing")
	invalid := bytes.Repeat([]byte{0xff}, mlkem.EncapsulationKeySize768)
	initiator := must(newHandshake(pairSuite, true, nil, s.app(), nil))
	if _, err := s.pairResponder(must(initiator.write(nil, invalid))); err == nil {
		t.Error("P1 with an invalid KEM key was accepted")
	}
	initiator = must(newHandshake(connectSuite, true, nil, s.app(), s.basePub().bytes()))
	message := must(initiator.write(nil, append(invalid, make([]byte, seqSize)...)))
	if _, err := s.connectResponder(append(referenceMAC1(s.pair, message), message...)); err == nil {
		t.Error("R1 with an invalid KEM key was accepted")
	}
}

func TestOnlyTheRightKeyMatchesMAC1(t *testing.T) {
	s := fixedSecrets("connecting")
	r1 := s.connectInitiator(1).R1()
	right := must(MAC1KeyOf(s.pairKey()))
	var keys []MAC1Key
	for range 5 {
		keys = append(keys, must(MAC1KeyOf(must(GeneratePairKey(nil)))))
	}
	if i := MatchMAC1(keys, r1); i != -1 {
		t.Errorf("the key %d of others matches", i)
	}
	keys[2] = MAC1Key{}
	keys = append(keys, right)
	if i := MatchMAC1(keys, r1); i != 5 || !CheckMAC1(right, r1) {
		t.Errorf("the right key was not found: %d", i)
	}
	if MatchMAC1(keys, r1[:R1Size-1]) != -1 || MatchMAC1(keys, nil) != -1 {
		t.Error("an R1 of another length matches")
	}
	if mac := MAC1(r1); !bytes.Equal(mac[:], r1[:16]) {
		t.Errorf("MAC1 returns %x", mac)
	}
	if MAC1(r1[1:]) != [16]byte{} {
		t.Error("MAC1 of an R1 of another length is not zero")
	}
}

func TestNewConnectResponderChecksMAC1Itself(t *testing.T) {
	s := fixedSecrets("connecting")
	r1 := s.connectInitiator(1).R1()
	r1[0] ^= 1
	if _, err := s.connectResponder(r1); !errors.Is(err, ErrMAC1) {
		t.Errorf("R1 with a wrong mac1: %v", err)
	}
	if _, err := NewConnectResponder(nil, s.base(), must(GeneratePairKey(nil)), s.connectInitiator(1).R1()); !errors.Is(err, ErrMAC1) {
		t.Errorf("R1 for another pairing: %v", err)
	}
}

// An R1 made for another Base, or with the key of another pairing, by somebody
// who has K_pair.
func TestAnR1ForAnotherBaseIsRefused(t *testing.T) {
	s := fixedSecrets("connecting")
	initiator := must(NewConnectInitiator(nil, s.app(), must(PublicOf(mustStatic(t))), s.pairKey(), 1))
	if _, err := s.connectResponder(initiator.R1()); err == nil || errors.Is(err, ErrMAC1) {
		t.Errorf("it was read: %v", err)
	}
}

// Nothing may keep the ephemeral key alive after a handshake: forward secrecy
// begins when it is gone.
func TestTheEphemeralKeyIsForgottenWhenTheHandshakeEnds(t *testing.T) {
	key := mustStatic(t)
	app := must(newHandshake(connectSuite, true, rand.Reader, mustStatic(t), must(PublicOf(key)).bytes()))
	must(app.write(nil, nil))
	dh := app.dh()
	if dh.ephemeral == nil || dh.static == nil {
		t.Fatal("the keys are not where this test looks for them")
	}
	app.abandon()
	if dh.ephemeral != nil || dh.static != nil || dh.computed != nil || app.state != nil || app.dh != nil {
		t.Error("a key is still there")
	}

	pairing, connecting := fixedSecrets("pairing"), fixedSecrets("connecting")
	for _, size := range []int{0, P2Size} {
		app := pairing.pairInitiator()
		_, _ = app.ReadP2(make([]byte, size))
		initiator := connecting.connectInitiator(1)
		_, _, _ = initiator.ReadR2(make([]byte, size))
		if app.kem != nil || initiator.kem != nil {
			t.Error("a KEM key is still there")
		}
	}
}

// A paired App may show any number of static keys; the Base's memory of them is
// bounded, and remembering changes no result.
func TestTheMemoryOfStaticKeysIsBounded(t *testing.T) {
	base, pair := mustStatic(t), must(GeneratePairKey(nil))
	for range maxShared + 10 {
		k := connectKeys{mustStatic(t), base, pair}
		k.connect(t)
		if n := len(base.parsed().shared); n == 0 || n > maxShared {
			t.Fatalf("%d are remembered", n)
		}
	}
}

// Only who finished a handshake is remembered.
func TestAnAbandonedHandshakeIsNotRemembered(t *testing.T) {
	k := newConnectKeys(t)
	initiator := must(NewConnectInitiator(nil, k.app, must(PublicOf(k.base)), k.pair, 1))
	must(NewConnectResponder(nil, k.base, k.pair, initiator.R1()))
	if n := len(k.base.parsed().shared); n != 0 {
		t.Errorf("%d are remembered", n)
	}
}
