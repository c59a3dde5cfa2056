package release

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"flag"
	"os"
	"strings"
	"testing"
)

func seedOf(t testing.TB, b byte) SigningSeed {
	t.Helper()
	seed, err := ParseSigningSeed(bytes.Repeat([]byte{b}, ed25519.SeedSize))
	if err != nil {
		t.Fatal(err)
	}
	return seed
}

var payload = []byte("the package")

func example() Header {
	return Header{Version: "1.2.3~rc1-1", Architecture: "amd64", Size: uint64(len(payload)), Hash: sha256.Sum256(payload)}
}

func signed(t testing.TB) []byte {
	t.Helper()
	b, err := Sign(example(), seedOf(t, 1))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

var update = flag.Bool("update", false, "rewrite the test vector")

// vectorFile is also quoted in docs/updates.md.
const vectorFile = "testdata/vector.hex"

func TestTheVectorOfTheDocumentHolds(t *testing.T) {
	got := hex.EncodeToString(signed(t))
	if *update {
		if err := os.WriteFile(vectorFile, []byte(got+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(vectorFile)
	if err != nil {
		t.Fatal(err)
	}
	if got != strings.TrimSpace(string(want)) {
		t.Errorf("the header is\n%s, not\n%s", got, want)
	}
	document, err := os.ReadFile("../../../docs/updates.md")
	if err != nil {
		t.Fatal(err)
	}
	plain := strings.Join(strings.Fields(string(document)), "")
	for name, part := range map[string]string{
		"header": got, "public key": hex.EncodeToString(PublicKey(seedOf(t, 1))),
	} {
		if !strings.Contains(plain, part) {
			t.Errorf("docs/updates.md does not have the %s %s", name, part)
		}
	}
}

func TestASignedReleaseIsRead(t *testing.T) {
	h, err := Verify(signed(t), PublicKey(seedOf(t, 1)))
	if err != nil || h != example() {
		t.Errorf("read %+v, %v", h, err)
	}
	if h, err := Parse(signed(t)); err != nil || h != example() {
		t.Errorf("parsed %+v, %v", h, err)
	}
}

// attack returns how many changed headers a reader takes.
func attack(t *testing.T, read func([]byte) error) (taken int) {
	good := signed(t)
	if err := read(good); err != nil {
		t.Fatalf("the genuine header is refused: %v", err)
	}
	for bit := range 8 * len(good) {
		bad := bytes.Clone(good)
		bad[bit/8] ^= 1 << (bit % 8)
		if read(bad) == nil {
			taken++
		}
	}
	for n := range good {
		if read(good[:n]) == nil {
			taken++
		}
	}
	if read(append(bytes.Clone(good), 0)) == nil {
		taken++
	}
	return taken
}

func TestAFlippedBitAnywhereInAHeaderIsRefused(t *testing.T) {
	key := PublicKey(seedOf(t, 1))
	if taken := attack(t, func(b []byte) error { _, err := Verify(b, key); return err }); taken != 0 {
		t.Errorf("%d changed headers are taken", taken)
	}
	// A reader that does not look at the signature takes many.
	if taken := attack(t, func(b []byte) error { _, err := Parse(b); return err }); taken == 0 {
		t.Error("without the signature some should be taken; this attack proves nothing")
	}
}

func TestAHeaderThatSomebodyElseSignedIsRefused(t *testing.T) {
	for name, key := range map[string]ed25519.PublicKey{
		"another key": PublicKey(seedOf(t, 2)), "no key": nil, "half a key": PublicKey(seedOf(t, 1))[:16],
	} {
		if _, err := Verify(signed(t), key); !errors.Is(err, ErrSignature) {
			t.Errorf("with %s: %v", name, err)
		}
	}
	// The right key, for another purpose.
	good := signed(t)
	private := ed25519.NewKeyFromSeed(seedOf(t, 1).Expose())
	unlabelled := append(bytes.Clone(good[:signatureAt]), ed25519.Sign(private, good[:signatureAt])...)
	if _, err := Verify(unlabelled, PublicKey(seedOf(t, 1))); !errors.Is(err, ErrSignature) {
		t.Errorf("a signature without the label: %v", err)
	}
}

// Even the holder of the key cannot bring what is no version: a field becomes an
// argument of dpkg's.
func TestFieldsThatNoPackageHasAreRefusedThoughSigned(t *testing.T) {
	sign := func(h Header) []byte {
		b := h.marshal()
		return append(b, ed25519.Sign(ed25519.NewKeyFromSeed(seedOf(t, 1).Expose()), transcript(b))...)
	}
	for name, change := range map[string]func(*Header){
		"an option":               func(h *Header) { h.Version = "--root=/" },
		"a path":                  func(h *Header) { h.Version = "../../etc/passwd" },
		"a slash":                 func(h *Header) { h.Version = "1/2" },
		"a line break":            func(h *Header) { h.Version = "1\n2" },
		"a space":                 func(h *Header) { h.Version = "1 2" },
		"no version":              func(h *Header) { h.Version = "" },
		"no architecture":         func(h *Header) { h.Architecture = "" },
		"an architecture's path":  func(h *Header) { h.Architecture = "../amd64" },
		"no package":              func(h *Header) { h.Size = 0 },
		"a package too long":      func(h *Header) { h.Size = MaxPackageSize + 1 },
		"a package without bound": func(h *Header) { h.Size = 1<<64 - 1 },
	} {
		h := example()
		change(&h)
		if got, err := Verify(sign(h), PublicKey(seedOf(t, 1))); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: read %+v, %v", name, got, err)
		}
		if _, err := Sign(h, seedOf(t, 1)); err == nil {
			t.Errorf("%s can be signed", name)
		}
	}
	// Something after the end of a text.
	b := example().marshal()
	b[architectureAt-1] = 'x'
	b = append(b, ed25519.Sign(ed25519.NewKeyFromSeed(seedOf(t, 1).Expose()), transcript(b))...)
	if _, err := Verify(b, PublicKey(seedOf(t, 1))); !errors.Is(err, ErrDamaged) {
		t.Errorf("something behind the version: %v", err)
	}
}

func TestOtherFilesAreToldFromReleases(t *testing.T) {
	for text, want := range map[string]error{
		"": ErrNotARelease, "!<arch>\ndebian-binary   ": ErrNotARelease, "BITBOXU": ErrNotARelease, "BITBOXUP": ErrDamaged,
	} {
		if _, err := Parse([]byte(text)); !errors.Is(err, want) {
			t.Errorf("%q: %v, want %v", text, err, want)
		}
	}
	newer := signed(t)
	newer[formatAt+1] = 3
	if _, err := Parse(newer); !errors.Is(err, ErrFormat) {
		t.Errorf("another format: %v", err)
	}
}

func TestAPublicKeyIsReadWhole(t *testing.T) {
	good := hex.EncodeToString(PublicKey(seedOf(t, 1)))
	if _, err := ParsePublicKey(good); err != nil {
		t.Error(err)
	}
	for _, bad := range []string{"", good[:62], good + "00", strings.Repeat("00", 32), strings.Repeat("zz", 32)} {
		if _, err := ParsePublicKey(bad); err == nil {
			t.Errorf("%q is taken for a key", bad)
		}
	}
}

func FuzzVerify(f *testing.F) {
	key := PublicKey(seedOf(f, 1))
	good := signed(f)
	f.Add(good)
	f.Add(good[:10])
	f.Fuzz(func(t *testing.T, b []byte) {
		if h, err := Verify(b, key); err == nil && (!bytes.Equal(b, good) || h != example()) {
			t.Errorf("took %x", b)
		}
		if h, err := Parse(b); err == nil && !bytes.Equal(h.marshal(), b[:signatureAt]) {
			t.Errorf("a header is read that would be written in another way: %x", b)
		}
	})
}
