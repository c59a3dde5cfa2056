package noiseconn

import (
	"bytes"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode"

	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/publickey"
)

func testP4() *P4 {
	return &P4{
		RB:       [32]byte(fixed("r_B", 32)),
		StateKey: ed25519.NewKeyFromSeed(fixed("K_state seed", 32)).Public().(ed25519.PublicKey),
		Role:     1,
		Name:     "BitBox Base in the hall",
	}
}

func TestP3AndP4AreLaidOutAsDocumented(t *testing.T) {
	p3 := testPayload()
	b := must(p3.Marshal())
	equal(t, "the payload of P3", b, slices.Concat(p3.RA[:], p3.SigningKey, []byte{11}, []byte("Ada's phone"), make([]byte, 52)))
	if len(b) != P3PayloadSize {
		t.Errorf("it has %d bytes", len(b))
	}
	read := must(ParseP3Payload(b))
	if read.RA != p3.RA || !read.SigningKey.Equal(p3.SigningKey) || read.Name != p3.Name {
		t.Errorf("read back: %+v", read)
	}

	p4 := testP4()
	b = must(p4.Marshal())
	equal(t, "P4", b, slices.Concat(p4.RB[:], p4.StateKey, []byte{1, 23}, []byte("BitBox Base in the hall"), make([]byte, 40)))
	if len(b) != P4Size {
		t.Errorf("it has %d bytes", len(b))
	}
	readP4 := must(ParseP4(b))
	if readP4.RB != p4.RB || !readP4.StateKey.Equal(p4.StateKey) || readP4.Role != p4.Role || readP4.Name != p4.Name {
		t.Errorf("read back: %+v", readP4)
	}
}

// wrongNameFields are what stands in the last 64 bytes of a hostile payload.
func wrongNameFields() map[string][]byte {
	field := func(length byte, text string) []byte {
		b := make([]byte, nameFieldSize)
		b[0] = length
		copy(b[1:], text)
		return b
	}
	return map[string][]byte{
		"no name":                   field(0, ""),
		"a length beyond the field": field(64, "x"),
		"the greatest length":       field(255, "x"),
		"a length below the text":   field(3, "Base"),
		"a length above the text":   field(5, "Base"), // a name with a NUL
		"half a character":          field(1, "é"),
		"a line feed":               field(2, "a\nb"),
		"an override":               field(7, "a\u202egnp"),
		"bytes at the very end":     append(field(4, "Base")[:63], 1),
	}
}

func TestHostilePayloadsAreRefused(t *testing.T) {
	p3, p4 := must(testPayload().Marshal()), must(testP4().Marshal())
	for name, field := range wrongNameFields() {
		if read, err := ParseP3Payload(slices.Concat(p3[:64], field)); err == nil {
			t.Errorf("P3 with %s was read as %q", name, read.Name)
		}
		if read, err := ParseP4(slices.Concat(p4[:65], field)); err == nil {
			t.Errorf("P4 with %s was read as %q", name, read.Name)
		}
	}
	for _, b := range [][]byte{nil, p3[:127], append(slices.Clone(p3), 0)} {
		if _, err := ParseP3Payload(b); err == nil {
			t.Errorf("P3 of %d bytes was read", len(b))
		}
	}
	for _, b := range [][]byte{nil, p4[:128], append(slices.Clone(p4), 0)} {
		if _, err := ParseP4(b); err == nil {
			t.Errorf("P4 of %d bytes was read", len(b))
		}
	}
}

func TestUnreadablePayloadsAreNotWritten(t *testing.T) {
	for _, key := range []ed25519.PublicKey{nil, make([]byte, 31), make([]byte, 33)} {
		p3, p4 := testPayload(), testP4()
		p3.SigningKey, p4.StateKey = key, key
		if _, err := p3.Marshal(); err == nil {
			t.Errorf("P3 with a key of %d bytes was written", len(key))
		}
		if _, err := p4.Marshal(); err == nil {
			t.Errorf("P4 with a key of %d bytes was written", len(key))
		}
	}
	p3, p4 := testPayload(), testP4()
	p3.Name, p4.Name = "a\tb", ""
	if _, err := p3.Marshal(); err == nil {
		t.Error("P3 with a forbidden name was written")
	}
	if _, err := p4.Marshal(); err == nil {
		t.Error("P4 with a forbidden name was written")
	}
}

// A parsed payload must not change with the buffer it came from.
func TestParsedPayloadsAreCopies(t *testing.T) {
	b := must(testPayload().Marshal())
	p3 := must(ParseP3Payload(b))
	clear(b)
	if !p3.SigningKey.Equal(testPayload().SigningKey) {
		t.Error("the signing key changed")
	}
	record := must(MarshalAppConfirm(fixed("signature", 64)))
	signature := must(ParseAppConfirm(record))
	clear(record)
	if !bytes.Equal(signature, fixed("signature", 64)) {
		t.Error("the signature changed")
	}
}

func TestNames(t *testing.T) {
	for _, good := range []string{
		"a", "Base", "Ada's phone", "Küche", "書斎", "مكتب", "משרד", "🏠 home", "❤️", "☎\uFE0E", "1\uFE0F\u20E3", "a\u2800b", "1", "a b", "naïve",
		"ﬁ",
		strings.Repeat("x", 63), strings.Repeat("é", 31),
	} {
		if err := CheckName(good); err != nil {
			t.Errorf("%q: %v", good, err)
		}
	}
	for what, bad := range map[string]string{
		"empty":                         "",
		"64 bytes":                      strings.Repeat("x", 64),
		"64 bytes of 32 characters":     strings.Repeat("é", 32),
		"a space before":                " a",
		"a space behind":                "a ",
		"only a space":                  " ",
		"a wide space behind":           "a\u3000",
		"NUL":                           "a\x00b",
		"line feed":                     "a\nb",
		"carriage return":               "a\rb",
		"tab":                           "a\tb",
		"escape (colours a terminal)":   "a\x1b[31mb",
		"delete":                        "a\x7fb",
		"C1 control":                    "a\u009bb",
		"next line":                     "a\u0085b",
		"line separator":                "a\u2028b",
		"paragraph separator":           "a\u2029b",
		"left-to-right mark":            "a\u200eb",
		"right-to-left mark":            "a\u200fb",
		"Arabic letter mark":            "a\u061cb",
		"right-to-left override":        "a\u202eb",
		"embedding":                     "a\u202ab",
		"pop":                           "a\u202cb",
		"isolate":                       "a\u2066b",
		"pop isolate":                   "a\u2069b",
		"zero width space":              "a\u200bb",
		"zero width joiner":             "a\u200db",
		"byte order mark":               "\ufeffa",
		"soft hyphen":                   "a\u00adb",
		"word joiner":                   "a\u2060b",
		"tag character":                 "a\U000e0041b",
		"combining grapheme joiner":     "a\u034fb",
		"a blank of Braille":            "\u2800",
		"a lone variation selector":     "\ufe0f",
		"two variation selectors":       "a\ufe0f\ufe0f",
		"one after a space":             "a \ufe0fb",
		"another variation selector":    "a\ufe00",
		"one of plane 14":               "a\U000e0100",
		"a Mongolian one":               "a\u180b",
		"Hangul filler (looks empty)":   "\u3164",
		"private use":                   "a\ue000b",
		"noncharacter":                  "a\ufffeb",
		"surrogate, encoded":            "a\xed\xa0\x80b",
		"overlong encoding":             "a\xc0\xafb",
		"half a character":              "a\xc3",
		"a lone continuation":           "\x80",
		"a mark without a letter":       "\u0301",
		"a variation selector alone":    "\ufe0f",
		"interlinear annotation anchor": "a\ufff9b",
	} {
		err := CheckName(bad)
		if err == nil {
			t.Errorf("%s: %q was taken", what, bad)
		} else if strings.ContainsFunc(err.Error(), func(r rune) bool { return r < ' ' || r > '~' }) {
			t.Errorf("%s: the error repeats it: %q", what, err)
		}
	}
}

func TestConfirmAndReject(t *testing.T) {
	signature := fixed("signature", 64)
	record := must(MarshalAppConfirm(signature))
	equal(t, "the App's Confirm", record, append([]byte{1}, signature...))
	equal(t, "the signature", must(ParseAppConfirm(record)), signature)
	for _, size := range []int{0, 63, 65} {
		if _, err := MarshalAppConfirm(make([]byte, size)); err == nil {
			t.Errorf("a signature of %d bytes was written", size)
		}
	}

	pair, discovery := must(ParsePairKey(fixed("K_pair", 32))), must(ParseDiscoveryKey(fixed("K_disc", 32)))
	record = must(MarshalBaseConfirm(pair, discovery))
	equal(t, "the Base's Confirm", record, slices.Concat([]byte{1}, fixed("K_pair", 32), fixed("K_disc", 32)))
	readPair, readDiscovery, err := ParseBaseConfirm(record)
	if err != nil || !readPair.Equal(pair) || !readDiscovery.Equal(discovery) {
		t.Errorf("the Base's Confirm read back: %v", err)
	}

	reject := MarshalReject()
	equal(t, "Reject", reject, []byte{2})
	if _, err := ParseAppConfirm(reject); !errors.Is(err, ErrRejected) {
		t.Errorf("Reject read as the App's answer: %v", err)
	}
	if _, _, err := ParseBaseConfirm(reject); !errors.Is(err, ErrRejected) {
		t.Errorf("Reject read as the Base's answer: %v", err)
	}
}

func TestHostileAnswersAreNeitherConfirmNorReject(t *testing.T) {
	confirm := must(MarshalAppConfirm(fixed("signature", 64)))
	for name, record := range map[string][]byte{
		"nothing":               nil,
		"an unknown type":       {3},
		"Confirm without body":  {1},
		"Confirm, short":        confirm[:64],
		"Confirm, long":         append(slices.Clone(confirm), 0),
		"Reject with a body":    {2, 0},
		"Reject like a Confirm": append([]byte{2}, confirm[1:]...),
	} {
		_, appErr := ParseAppConfirm(record)
		_, _, baseErr := ParseBaseConfirm(record)
		for _, err := range []error{appErr, baseErr} {
			if err == nil || errors.Is(err, ErrRejected) {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	for at := range 2 {
		zeros := must(MarshalBaseConfirm(must(GeneratePairKey(nil)), must(GenerateDiscoveryKey(nil))))
		clear(zeros[1+32*at : 33+32*at])
		if _, _, err := ParseBaseConfirm(zeros); err == nil {
			t.Errorf("the key %d of zeros was taken", at)
		}
	}
}

func TestTheDiscoveryIDIsAMACOfTheNonce(t *testing.T) {
	key, nonce := must(ParseDiscoveryKey(fixed("K_disc", 32))), fixed("nonce", 16)
	mac := hmac.New(sha256.New, fixed("K_disc", 32))
	mac.Write(nonce)
	id := DiscoveryID(key, nonce)
	equal(t, "id", id[:], mac.Sum(nil)[:8])
	if DiscoveryID(must(GenerateDiscoveryKey(nil)), nonce) == id || DiscoveryID(key, fixed("another nonce", 16)) == id {
		t.Error("another key or nonce gives the same id")
	}
}

// smallOrder are signing keys for which anybody can sign: see package publickey.
var smallOrder = []ed25519.PublicKey{make([]byte, 32), append([]byte{1}, make([]byte, 31)...)}

func TestAKeyThatAnybodyCanSignForIsRefusedInEveryMessage(t *testing.T) {
	for _, key := range smallOrder {
		if _, err := (&P3Payload{SigningKey: key, Name: "x"}).Marshal(); !errors.Is(err, publickey.ErrOrder) {
			t.Errorf("P3 was made with %x: %v", key, err)
		}
		if _, err := (&P4{StateKey: key, Role: 1, Name: "x"}).Marshal(); !errors.Is(err, publickey.ErrOrder) {
			t.Errorf("P4 was made with %x: %v", key, err)
		}
		p3 := make([]byte, P3PayloadSize)
		copy(p3[32:], key)
		p3[64], p3[65] = 1, 'x'
		if _, err := ParseP3Payload(p3); !errors.Is(err, publickey.ErrOrder) {
			t.Errorf("P3 was read with %x: %v", key, err)
		}
		p4 := make([]byte, P4Size)
		copy(p4[32:], key)
		p4[64], p4[65], p4[66] = 1, 1, 'x'
		if _, err := ParseP4(p4); !errors.Is(err, publickey.ErrOrder) {
			t.Errorf("P4 was read with %x: %v", key, err)
		}
	}
}

// The text names the version of Unicode that decides about names. A Go with another one would
// take names that other clients refuse.
func TestTheVersionOfUnicodeIsTheOneOfTheText(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "..", "..", "docs", "protocol.md"))
	if err != nil {
		t.Fatal(err)
	}
	major, _, _ := strings.Cut(unicode.Version, ".")
	if !strings.Contains(string(text), "Categories and properties are those of Unicode "+major+".") {
		t.Errorf("Go has Unicode %s, docs/protocol.md names another version", unicode.Version)
	}
}
