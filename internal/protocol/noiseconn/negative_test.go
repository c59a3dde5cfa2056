package noiseconn

import (
	"bytes"
	"crypto/ed25519"
	"crypto/mlkem"
	"encoding/binary"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/publickey"
)

// negativeFile is what a client must refuse, or get right in cases that never occur by chance.
var negativeFile = filepath.Join("..", "..", "..", "docs", "protocol.negative.json")

type negativeVectors struct {
	Comment     []string           `json:"comment"`
	Names       []nameVector       `json:"names"`
	P3Payloads  []refusedVector    `json:"p3_payloads_refused"`
	P4          []refusedVector    `json:"p4_refused"`
	Commitments []commitmentVector `json:"commitments_that_do_not_open"`
	Codes       []codeVector       `json:"codes"`
	KEM         []kemVector        `json:"ml_kem_implicit_rejection"`
	SigningKeys []refusedVector    `json:"signing_keys_refused"`
	StaticKeys  []refusedVector    `json:"x25519_keys_refused"`
	KEMKeys     []refusedVector    `json:"encapsulation_keys_refused"`
	Numbers     []seqVector        `json:"seq_refused"`
}

type nameVector struct {
	Name hexBytes `json:"name"` // UTF-8, or not
	Why  string   `json:"why"`
	OK   bool     `json:"ok"`
}

type refusedVector struct {
	Bytes hexBytes `json:"bytes"`
	Why   string   `json:"why"`
}

// commitmentVector is a P4 whose values do not open C.
type commitmentVector struct {
	Commitment hexBytes `json:"c"`
	RB         hexBytes `json:"r_b"`
	StateKey   hexBytes `json:"k_state"`
	Role       byte     `json:"role"`
	Why        string   `json:"why"`
}

type codeVector struct {
	K    hexBytes `json:"k"` // as in section 4.3
	Code string   `json:"code,omitempty"`
	Why  string   `json:"why"`
}

// kemVector is a ciphertext that was changed: decapsulation does not fail, and gives
// another secret (FIPS 203, algorithm 18).
type kemVector struct {
	Seed       hexBytes `json:"kem_seed"`
	Ciphertext hexBytes `json:"ct"`
	Genuine    hexBytes `json:"ss_of_the_sender"`
	Secret     hexBytes `json:"ss"`
}

type seqVector struct {
	Highest uint64 `json:"highest_accepted"`
	Seq     uint64 `json:"seq"`
	Why     string `json:"why"`
}

func computeNegativeVectors(t *testing.T) negativeVectors {
	v := negativeVectors{Comment: []string{
		"What an implementation of docs/protocol.md must refuse, and what it must get right in cases that hardly occur by chance. All bytes are hexadecimal.",
		"Made by: go test ./internal/protocol/noiseconn -run TestNegativeVectorsHold -update",
	}}
	for _, n := range []struct {
		name, why string
		ok        bool
	}{
		{"Küche", "letters", true},
		{"❤️", "a variation selector after a visible character", true},
		{"a b", "a space within", true},
		{"a\ufffd", "the replacement character, which is a symbol", true},
		{"", "empty", false},
		{string(bytes.Repeat([]byte("x"), 64)), "64 bytes", false},
		{"a ", "a space at the end", false},
		{"　a", "an ideographic space at the beginning", false},
		{"a\nb", "a control character", false},
		{"a\u202eb", "right-to-left override", false},
		{"a\u200db", "zero width joiner", false},
		{"\u3164", "Hangul filler, a letter that shows nothing", false},
		{"\u2800", "Braille blank, a symbol that shows nothing", false},
		{"\ufe0f", "a variation selector alone", false},
		{"a\ufe0f\ufe0f", "two variation selectors", false},
		{"a\ufe00", "a variation selector other than U+FE0E and U+FE0F", false},
		{"a\ue000", "private use", false},
		{"\u0301", "a combining mark alone", false},
		{"a\xff", "not UTF-8", false},
		{"a\xed\xa0\x80", "an encoded surrogate", false},
	} {
		v.Names = append(v.Names, nameVector{[]byte(n.name), n.why, n.ok})
	}

	p3, p4 := must(testPayload().Marshal()), must(testP4().Marshal())
	changed := func(message []byte, change func(b []byte)) hexBytes {
		b := bytes.Clone(message)
		change(b)
		return b
	}
	v.P3Payloads = []refusedVector{
		{changed(p3, func(b []byte) { b[len(b)-1] = 1 }), "the padding is not zero"},
		{changed(p3, func(b []byte) { b[64] = 64 }), "the length of the name is above 63"},
		{changed(p3, func(b []byte) { b[64]++ }), "the name ends in a zero byte, a control character"},
		{changed(p3, func(b []byte) { clear(b[64:]) }), "no name"},
		{changed(p3, func(b []byte) { clear(b[32:64]) }), "K_sign is a point of order 4"},
		{p3[:len(p3)-1], "a byte is missing"},
		{append(bytes.Clone(p3), 0), "a byte too much"},
	}
	v.P4 = []refusedVector{
		{changed(p4, func(b []byte) { b[len(b)-1] = 1 }), "the padding is not zero"},
		{changed(p4, func(b []byte) { clear(b[32:64]); b[32] = 1 }), "K_state is the neutral element"},
		{p4[:len(p4)-1], "a byte is missing"},
	}

	genuine := testP4()
	c := Commit(genuine.RB, genuine.StateKey, genuine.Role)
	other := ed25519.NewKeyFromSeed(fixed("another K_state seed", 32)).Public().(ed25519.PublicKey)
	rb := genuine.RB
	rb[31] ^= 1
	v.Commitments = []commitmentVector{
		{c[:], rb[:], hexBytes(genuine.StateKey), genuine.Role, "another r_B"},
		{c[:], genuine.RB[:], hexBytes(other), genuine.Role, "another K_state"},
		{c[:], genuine.RB[:], hexBytes(genuine.StateKey), genuine.Role + 1, "another role"},
	}

	k := func(numbers ...uint32) (b hexBytes) {
		for len(numbers) < 8 {
			numbers = append(numbers, 0xffffffff)
		}
		for _, n := range numbers {
			b = binary.BigEndian.AppendUint32(b, n)
		}
		return b
	}
	for _, n := range []struct {
		k   hexBytes
		why string
	}{
		{k(codeLimit - 1), "the largest number that is taken"},
		{k(0), "leading zeros"},
		{k(codeLimit, 12345), "the first number is too large by one, the second counts"},
		{k(0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff, 7), "only the last one counts"},
		{k(codeLimit), "none counts: the ceremony ends"},
	} {
		code := codeVector{K: n.k, Why: n.why}
		if number, err := pickCode(n.k, CodeModulus); err == nil {
			code.Code = FormatNumber(number)
		}
		v.Codes = append(v.Codes, code)
	}

	s := fixedSecrets("pairing")
	key := must(mlkem.NewDecapsulationKey768(s.kemSeed))
	_, ct, secret := s.kem()
	for _, at := range []int{0, len(ct) - 1} {
		bad := bytes.Clone(ct)
		bad[at] ^= 1
		v.KEM = append(v.KEM, kemVector{s.kemSeed, bad, secret, must(key.Decapsulate(bad))})
	}

	mixed := fixed("no point", 32)
	for ; publickey.CheckSigning(mixed) == nil; mixed[0]++ {
	}
	v.SigningKeys = []refusedVector{
		{make([]byte, 32), "a point of order 4: anybody can sign for it"},
		{append([]byte{1}, make([]byte, 31)...), "the neutral element"},
		{append([]byte{0xec}, append(bytes.Repeat([]byte{0xff}, 30), 0x7f)...), "a point of order 2"},
		{append([]byte{0xee}, append(bytes.Repeat([]byte{0xff}, 30), 0x7f)...), "a second encoding of the neutral element"},
		{append([]byte{1}, append(make([]byte, 30), 0x80)...), "the neutral element with a sign"},
		{mixed, "no point, or one without prime order"},
	}
	second := bytes.Clone(must(PublicOf(s.app())).bytes())
	second[31] |= 0x80
	v.StaticKeys = []refusedVector{
		{second, "a second encoding, with the top bit set"},
		{append([]byte{0xed}, append(bytes.Repeat([]byte{0xff}, 30), 0x7f)...), "2^255 - 19, a second encoding of 0"},
		{make([]byte, 32), "0: the result of a Diffie-Hellman is zero"},
		{append([]byte{1}, make([]byte, 31)...), "1, of small order: the result of a Diffie-Hellman is zero"},
	}
	v.KEMKeys = []refusedVector{
		{bytes.Repeat([]byte{0xff}, mlkem.EncapsulationKeySize768), "a coefficient is not below 3329"},
		{must(mlkem.NewDecapsulationKey768(s.kemSeed)).EncapsulationKey().Bytes()[1:], "a byte is missing"},
	}
	v.Numbers = []seqVector{
		{MaxSeqClock, MaxSeqClock + MaxSeqStep + 1, "above the highest by more than 2^20, beyond 2100"},
		{0, MaxSeqClock + 1, "beyond 2100, with nothing accepted there"},
		{1_700_000_000_123, 1_700_000_000_123, "accepted before"},
	}
	return v
}

// TestNegativeVectorsHold also runs each vector through the code: a file that says
// "refused" for an accepted input would mislead everybody else. The numbers are for the
// Base's memory of them, and TestEachNumberOfTheNegativeVectorsIsRefused runs them through it.
func TestNegativeVectorsHold(t *testing.T) {
	v := computeNegativeVectors(t)
	want, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	want = append(want, '\n')
	if *update {
		if err := os.WriteFile(negativeFile, want, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := os.ReadFile(negativeFile); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%s is old (%v); if the protocol has changed on purpose, write it with -update", negativeFile, err)
	}

	for _, n := range v.Names {
		if err := CheckName(string(n.Name)); (err == nil) != n.OK {
			t.Errorf("the name %q (%s): %v", n.Name, n.Why, err)
		}
	}
	for _, p := range v.P3Payloads {
		if _, err := ParseP3Payload(p.Bytes); err == nil {
			t.Errorf("a P3 was taken: %s", p.Why)
		}
	}
	for _, p := range v.P4 {
		if _, err := ParseP4(p.Bytes); err == nil {
			t.Errorf("a P4 was taken: %s", p.Why)
		}
	}
	for _, c := range v.Commitments {
		if got := Commit([32]byte(c.RB), ed25519.PublicKey(c.StateKey), c.Role); bytes.Equal(got[:], c.Commitment) {
			t.Errorf("C opens with %s", c.Why)
		}
	}
	if last := v.Codes[len(v.Codes)-1]; last.Code != "" || v.Codes[2].Code != "012 345" || v.Codes[3].Code != "000 007" {
		t.Errorf("the codes: %+v", v.Codes)
	}
	for _, k := range v.KEM {
		if bytes.Equal(k.Secret, k.Genuine) || len(k.Secret) != len(k.Genuine) {
			t.Error("a ciphertext that was changed gives the sender's secret")
		}
	}
	for _, k := range v.SigningKeys {
		if publickey.CheckSigning(k.Bytes) == nil {
			t.Errorf("a signing key was taken: %s", k.Why)
		}
	}
	own := must(GenerateStatic(nil)).parsed().key
	for _, k := range v.StaticKeys {
		if _, err := diffieHellman(own, k.Bytes); err == nil {
			t.Errorf("an X25519 key was taken: %s", k.Why)
		}
	}
	for _, k := range v.KEMKeys {
		if _, err := mlkem.NewEncapsulationKey768(k.Bytes); err == nil {
			t.Errorf("an encapsulation key was taken: %s", k.Why)
		}
	}
}
