package noiseconn

import (
	"bytes"
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

var update = flag.Bool("update", false, "rewrite docs/protocol.vectors.json")

// vectorsFile holds the test vectors for authors of a client, who start from docs/protocol.md.
var vectorsFile = filepath.Join("..", "..", "..", "docs", "protocol.vectors.json")

// hexBytes is hexadecimal in the file.
type hexBytes []byte

func (b hexBytes) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, b), nil }

type vectorFile struct {
	Comment    []string         `json:"comment"`
	Pairing    pairingVector    `json:"pairing"`
	Connecting connectingVector `json:"connecting"`
	Discovery  discoveryVector  `json:"discovery"`
	Claim      claimVector      `json:"claim"`
}

// handshakeInputs are the private values of one handshake.
type handshakeInputs struct {
	AppStaticPrivate     hexBytes `json:"app_static_private"`
	AppStaticPublic      hexBytes `json:"app_static_public"`
	BaseStaticPrivate    hexBytes `json:"base_static_private"`
	BaseStaticPublic     hexBytes `json:"base_static_public"`
	AppEphemeralPrivate  hexBytes `json:"app_ephemeral_private"`
	BaseEphemeralPrivate hexBytes `json:"base_ephemeral_private"`
	KEMSeed              hexBytes `json:"kem_seed"`
	KEMRandomness        hexBytes `json:"kem_randomness"`
	EncapsulationKey     hexBytes `json:"ek"`
	Ciphertext           hexBytes `json:"ct"`
	KEMSecret            hexBytes `json:"ss"`
}

func (s secrets) inputs() handshakeInputs {
	ek, ct, kemSecret := s.kem()
	return handshakeInputs{
		AppStaticPrivate: s.appStatic, AppStaticPublic: must(PublicOf(s.app())).bytes(),
		BaseStaticPrivate: s.baseStatic, BaseStaticPublic: s.basePub().bytes(),
		AppEphemeralPrivate: s.appEphemeral, BaseEphemeralPrivate: s.baseEphemeral,
		KEMSeed: s.kemSeed, KEMRandomness: s.kemRandom,
		EncapsulationKey: ek, Ciphertext: ct, KEMSecret: kemSecret,
	}
}

type pairingVector struct {
	Inputs          handshakeInputs `json:"inputs"`
	RA              hexBytes        `json:"r_a"`
	RB              hexBytes        `json:"r_b"`
	SigningKeySeed  hexBytes        `json:"k_sign_seed"`
	SigningKey      hexBytes        `json:"k_sign"`
	StateKeySeed    hexBytes        `json:"k_state_seed"`
	StateKey        hexBytes        `json:"k_state"`
	AppName         string          `json:"app_name"`
	BaseName        string          `json:"base_name"`
	Role            byte            `json:"role"`
	PairKey         hexBytes        `json:"k_pair"`
	DiscoveryKey    hexBytes        `json:"k_disc"`
	P1              hexBytes        `json:"p1"`
	RequestNumber   string          `json:"request_number"`
	Commitment      hexBytes        `json:"c"`
	P2              hexBytes        `json:"p2"`
	PSK             hexBytes        `json:"psk"`
	P3Payload       hexBytes        `json:"p3_payload"`
	P3              hexBytes        `json:"p3"`
	HandshakeHash   hexBytes        `json:"h"`
	KeyToBase       hexBytes        `json:"key_to_base"`
	KeyToApp        hexBytes        `json:"key_to_app"`
	Code            string          `json:"code"`
	Words           string          `json:"words"`
	EnrolMessage    hexBytes        `json:"enrol_message"`
	EnrolSignature  hexBytes        `json:"enrol_signature"`
	Records         []recordVector  `json:"records"`
	RecordsRejected []recordVector  `json:"records_rejected"`
}

type connectingVector struct {
	Inputs        handshakeInputs `json:"inputs"`
	PairKey       hexBytes        `json:"k_pair"`
	Seq           uint64          `json:"seq"`
	MAC1Key       hexBytes        `json:"mac1_key"`
	MAC1          hexBytes        `json:"mac1"`
	R1            hexBytes        `json:"r1"`
	PSK           hexBytes        `json:"psk"`
	R2            hexBytes        `json:"r2"`
	R2Revoked     hexBytes        `json:"r2_revoked"`
	HandshakeHash hexBytes        `json:"h"`
	KeyToBase     hexBytes        `json:"key_to_base"`
	KeyToApp      hexBytes        `json:"key_to_app"`
	Records       []recordVector  `json:"records"`
}

type discoveryVector struct {
	DiscoveryKey hexBytes `json:"k_disc"`
	Nonce        hexBytes `json:"n"`
	ID           hexBytes `json:"id"`
}

// claimVector is a claim whose ceremony is that of the pairing above.
type claimVector struct {
	Secret       hexBytes `json:"secret"`
	Mark         hexBytes `json:"mark"`
	DiscoveryKey hexBytes `json:"k_disc"`
	Proof        hexBytes `json:"proof"`
}

// recordVector is one record of a direction, header included.
type recordVector struct {
	From      string   `json:"from"`
	Number    int      `json:"number"`
	What      string   `json:"what"`
	Plaintext hexBytes `json:"plaintext"`
	Record    hexBytes `json:"record"`
}

var vectorComment = []string{
	"Test vectors of docs/protocol.md. All bytes are hexadecimal, messages stand without their frame header, records with their length.",
	"Each private or random value is the beginning of SHA512(\"bitbox-base test vector: \" | its name), so that nobody mistakes it for a real one.",
	"Records of connecting: record n of the App has the plaintext \"record n\", and those that are left out are like it; the record with an empty plaintext closes.",
	"Made by: go test ./internal/protocol/noiseconn -run TestVectorsOfTheProtocolHold -update",
}

// capture is a Conn whose records go into a buffer.
func capture(transport *Transport) (*Conn, *bytes.Buffer) {
	wire := &bytes.Buffer{}
	return NewConn(&streamConn{Writer: wire}, transport), wire
}

func computePairingVector(t *testing.T) pairingVector {
	s := fixedSecrets("pairing")
	payload, p4 := testPayload(), testP4()
	signer := ed25519.NewKeyFromSeed(fixed("K_sign seed", 32))
	pairKey, discoveryKey := must(ParsePairKey(fixed("K_pair", 32))), must(ParseDiscoveryKey(fixed("K_disc", 32)))

	app := s.pairInitiator()
	base := must(s.pairResponder(app.P1()))
	commitment := Commit(p4.RB, p4.StateKey, p4.Role)
	p2 := must(base.WriteP2(commitment))
	must(app.ReadP2(p2))
	p3, appEnd, err := app.WriteP3(payload)
	if err != nil {
		t.Fatal(err)
	}
	p3Payload, baseEnd, err := base.ReadP3(p3)
	if err != nil {
		t.Fatal(err)
	}
	h := appEnd.HandshakeHash
	toBase, toApp := appEnd.send().UnsafeKey(), appEnd.receive().UnsafeKey()
	code := must(Code(payload.RA, p4.RB, h, payload.SigningKey, p4.StateKey, p4.Role))
	words := must(ComputeWords(payload.RA, p4.RB, h, payload.SigningKey, p4.StateKey, p4.Role))
	message := EnrolMessage(h, payload.SigningKey, payload.RA, p4.RB)
	signature := ed25519.Sign(signer, message)
	inputs := s.inputs()

	v := pairingVector{
		Inputs: inputs, RA: payload.RA[:], RB: p4.RB[:],
		SigningKeySeed: fixed("K_sign seed", 32), SigningKey: hexBytes(payload.SigningKey),
		StateKeySeed: fixed("K_state seed", 32), StateKey: hexBytes(p4.StateKey),
		AppName: payload.Name, BaseName: p4.Name, Role: p4.Role,
		PairKey: pairKey.Expose(), DiscoveryKey: discoveryKey.Expose(),
		P1: app.P1(), RequestNumber: FormatNumber(RequestNumber(app.P1())), Commitment: commitment[:], P2: p2,
		PSK:       must(derivePSK(pairPSKLabel, inputs.KEMSecret, inputs.EncapsulationKey, inputs.Ciphertext)),
		P3Payload: p3Payload, P3: p3, HandshakeHash: h[:], KeyToBase: toBase[:], KeyToApp: toApp[:],
		Code: FormatNumber(code), Words: words.String(), EnrolMessage: message, EnrolSignature: signature,
	}
	appConn, appWire := capture(appEnd)
	baseConn, baseWire := capture(baseEnd)
	send := func(what, from string, conn *Conn, wire *bytes.Buffer, number int, plaintext []byte) {
		if err := conn.WriteRecord(plaintext); err != nil {
			t.Fatal(err)
		}
		v.Records = append(v.Records, recordVector{from, number, what, plaintext, bytes.Clone(wire.Bytes())})
		wire.Reset()
	}
	send("P4", "base", baseConn, baseWire, 0, must(p4.Marshal()))
	send("Confirm of the App", "app", appConn, appWire, 0, must(MarshalAppConfirm(signature)))
	send("Confirm of the Base", "base", baseConn, baseWire, 1, must(MarshalBaseConfirm(pairKey, discoveryKey)))
	// Reject would stand in the place of either Confirm.
	for _, side := range []struct {
		from   string
		key    []byte
		number int
	}{{"app", toBase[:], 0}, {"base", toApp[:], 1}} {
		record := referenceRecord(side.key, uint64(side.number), MarshalReject())
		v.RecordsRejected = append(v.RecordsRejected, recordVector{side.from, side.number, "Reject", MarshalReject(), record})
	}
	return v
}

func computeConnectingVector(t *testing.T) connectingVector {
	const seq = 1_700_000_000_123 // milliseconds, as an App's clock may say
	s := fixedSecrets("connecting")
	answer := func(status Status) (*ConnectInitiator, []byte, *Transport) {
		app := s.connectInitiator(seq)
		r2, baseEnd, err := must(s.connectResponder(app.R1())).WriteR2(status)
		if err != nil {
			t.Fatal(err)
		}
		return app, r2, baseEnd
	}
	_, revoked, _ := answer(StatusRevoked)
	app, r2, baseEnd := answer(StatusOK)
	_, appEnd, err := app.ReadR2(r2)
	if err != nil {
		t.Fatal(err)
	}
	toBase, toApp := appEnd.send().UnsafeKey(), appEnd.receive().UnsafeKey()
	mac, inputs := MAC1(app.R1()), s.inputs()
	v := connectingVector{
		Inputs: inputs, PairKey: s.pair, Seq: seq, MAC1Key: must(MAC1KeyOf(s.pairKey())).Expose(), MAC1: mac[:],
		R1: app.R1(), R2: r2, R2Revoked: revoked,
		PSK: must(derivePSK(connectPSKLabel, append(bytes.Clone(s.pair), inputs.KEMSecret...),
			inputs.EncapsulationKey, inputs.Ciphertext)),
		HandshakeHash: appEnd.HandshakeHash[:], KeyToBase: toBase[:], KeyToApp: toApp[:],
	}
	baseConn, baseWire := capture(baseEnd)
	v.Records = append(v.Records, recordsWithRekey(t, appEnd)...)
	if err := baseConn.WriteRecord([]byte("record 0")); err != nil {
		t.Fatal(err)
	}
	v.Records = append(v.Records, recordVector{"base", 0, "", []byte("record 0"), baseWire.Bytes()})
	return v
}

// recordsWithRekey sends until both changes of the key are over, and closes.
func recordsWithRekey(t *testing.T, end *Transport) (list []recordVector) {
	const last = 2*RekeyInterval + 1
	what := map[int]string{
		0: "the first", 1: "the second",
		RekeyInterval - 1:   "the last with the first key",
		RekeyInterval:       "the first with the second key",
		2*RekeyInterval - 1: "the last with the second key",
		2 * RekeyInterval:   "the first with the third key",
	}
	conn, wire := capture(end)
	for n := range last {
		plaintext := fmt.Appendf(nil, "record %d", n)
		if err := conn.WriteRecord(plaintext); err != nil {
			t.Fatal(err)
		}
		if what[n] != "" {
			list = append(list, recordVector{"app", n, what[n], plaintext, bytes.Clone(wire.Bytes())})
		}
		wire.Reset()
	}
	if err := conn.End(); err != nil {
		t.Fatal(err)
	}
	return append(list, recordVector{"app", last, "close", nil, wire.Bytes()})
}

func computeClaimVector(v pairingVector) claimVector {
	s := must(ParseClaimSecret(fixed("claim", 32)))
	payload, p4 := testPayload(), testP4()
	return claimVector{
		Secret: s.Expose(), Mark: must(ClaimMark(s, ed25519.NewKeyFromSeed(v.SigningKeySeed), v.P1)),
		DiscoveryKey: must(ClaimDiscoveryKey(s)).Expose(),
		Proof:        must(ClaimProof(s, payload.RA, p4.RB, [32]byte(v.HandshakeHash), payload.SigningKey, p4.StateKey, p4.Role)),
	}
}

func computeVectors(t *testing.T) []byte {
	discoveryKey, nonce := must(ParseDiscoveryKey(fixed("K_disc", 32))), fixed("nonce", 16)
	id := DiscoveryID(discoveryKey, nonce)
	pairing := computePairingVector(t)
	out, err := json.MarshalIndent(vectorFile{
		Comment:    vectorComment,
		Pairing:    pairing,
		Connecting: computeConnectingVector(t),
		Discovery:  discoveryVector{discoveryKey.Expose(), nonce, id[:]},
		Claim:      computeClaimVector(pairing),
	}, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	return append(out, '\n')
}

// The published vectors are what the code does today.
func TestVectorsOfTheProtocolHold(t *testing.T) {
	computed := computeVectors(t)
	if *update {
		if err := os.WriteFile(vectorsFile, computed, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	published, err := os.ReadFile(vectorsFile)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Equal(published, computed) {
		return
	}
	was, is := bytes.Split(published, []byte("\n")), bytes.Split(computed, []byte("\n"))
	for i := range min(len(was), len(is)) {
		if !bytes.Equal(was[i], is[i]) {
			t.Fatalf("line %d of %s is\n%s\nbut the code makes\n%s", i+1, vectorsFile, was[i], is[i])
		}
	}
	t.Fatalf("%s has %d lines, and the code makes %d", vectorsFile, len(was), len(is))
}

// The published vectors are also what the specification says: the reference does
// not use the code.
func TestVectorsOfTheProtocolAreAsSpecified(t *testing.T) {
	published, err := os.ReadFile(vectorsFile)
	if err != nil {
		t.Fatal(err)
	}
	var v struct {
		Pairing    map[string]any
		Connecting map[string]any
		Claim      map[string]any
	}
	if err := json.Unmarshal(published, &v); err != nil {
		t.Fatal(err)
	}
	compare := func(part map[string]any, name string, want []byte) {
		t.Helper()
		if got, _ := part[name].(string); got != hex.EncodeToString(want) {
			t.Errorf("%s is %s, expected %x", name, got, want)
		}
	}
	payload, p4 := testPayload(), testP4()
	commitment := sha256.Sum256(slices.Concat([]byte("bitbox-base commit v1"), p4.RB[:], p4.StateKey, []byte{p4.Role}))
	p := referencePair(fixedSecrets("pairing"), commitment[:], must(payload.Marshal()), rightPSK)
	compare(v.Pairing, "c", commitment[:])
	compare(v.Pairing, "p1", p.p1)
	compare(v.Pairing, "p2", p.p2)
	compare(v.Pairing, "p3", p.p3)
	compare(v.Pairing, "h", p.h)
	compare(v.Pairing, "key_to_base", p.toBase)
	compare(v.Pairing, "key_to_app", p.toApp)
	ek, ct, kemSecret := fixedSecrets("pairing").kem()
	compare(v.Pairing, "psk", referencePSK("bitbox-base pair psk v1", kemSecret, ek, ct))
	code := referenceCode(payload.RA, p4.RB, [32]byte(p.h), payload.SigningKey, p4.StateKey, p4.Role)
	if got := v.Pairing["code"]; got != FormatNumber(code) {
		t.Errorf("the code is %v, expected %s", got, FormatNumber(code))
	}

	if got, want := v.Pairing["words"], referenceWords(payload.RA, p4.RB, [32]byte(p.h), payload.SigningKey, p4.StateKey,
		p4.Role); got != want {
		t.Errorf("the words are %v, expected %s", got, want)
	}

	compare(v.Claim, "mark", slices.Concat(referenceClaimMAC(fixed("claim", 32), p.p1),
		ed25519.Sign(ed25519.NewKeyFromSeed(fixed("K_sign seed", 32)), referenceClaimMessage(p.p1))))
	compare(v.Claim, "k_disc", must(hkdf.Key(sha256.New, fixed("claim", 32), nil, "bitbox-base claim discovery v1", 32)))
	compare(v.Claim, "proof", referenceClaimProof(fixed("claim", 32), payload, p4, p.h))

	seq := uint64(v.Connecting["seq"].(float64))
	c := referenceConnect(fixedSecrets("connecting"), seq, 0, rightPSK)
	compare(v.Connecting, "r1", c.r1)
	compare(v.Connecting, "r2", c.r2)
	compare(v.Connecting, "r2_revoked", referenceConnect(fixedSecrets("connecting"), seq, 1, rightPSK).r2)
	compare(v.Connecting, "h", c.h)
	compare(v.Connecting, "key_to_base", c.toBase)
	compare(v.Connecting, "key_to_app", c.toApp)
	compare(v.Connecting, "mac1", c.r1[:16])
	ek, ct, kemSecret = fixedSecrets("connecting").kem()
	compare(v.Connecting, "psk", referencePSK("bitbox-base connect psk v1", slices.Concat(fixedSecrets("connecting").pair, kemSecret), ek, ct))

	checkRecords := func(part map[string]any, list string, toBase, toApp []byte) {
		t.Helper()
		records := part[list].([]any)
		for _, entry := range records {
			record := entry.(map[string]any)
			key := map[any][]byte{"app": toBase, "base": toApp}[record["from"]]
			plaintext := must(hex.DecodeString(record["plaintext"].(string)))
			compare(record, "record", referenceRecord(key, uint64(record["number"].(float64)), plaintext))
		}
		if len(records) < 2 {
			t.Errorf("%s has %d records", list, len(records))
		}
	}
	checkRecords(v.Pairing, "records", p.toBase, p.toApp)
	checkRecords(v.Pairing, "records_rejected", p.toBase, p.toApp)
	checkRecords(v.Connecting, "records", c.toBase, c.toApp)
}
