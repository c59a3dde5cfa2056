package prepaired

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"fmt"
	"testing"
)

func mustNew(t testing.TB) (*Half, *Keys) {
	t.Helper()
	h, k, err := New(nil, "laptop", "Base in the cellar")
	if err != nil {
		t.Fatal(err)
	}
	return h, k
}

func TestTheFileIsReadAsItWasWritten(t *testing.T) {
	h, k := mustNew(t)
	file := h.Marshal()
	if len(file) != FileSize {
		t.Fatalf("it has %d bytes, not %d", len(file), FileSize)
	}
	read, err := Parse(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(read.Marshal(), file) || read.BaseName != h.BaseName || read.App != h.App {
		t.Error("another half came out of it")
	}
	for _, private := range [][]byte{k.Static.Expose(), k.ImageStatic.Expose(), k.Signing.Seed()} {
		if bytes.Contains(file, private) {
			t.Error("a private key of the App is in the image")
		}
	}
}

func TestAnythingButThatFileIsRefused(t *testing.T) {
	h, _ := mustNew(t)
	file := h.Marshal()
	for i := range file {
		damaged := bytes.Clone(file)
		damaged[i] ^= 1
		if _, err := Parse(damaged); !errors.Is(err, ErrFile) {
			t.Errorf("byte %d was changed: %v", i, err)
		}
	}
	for n := range file {
		if _, err := Parse(file[:n]); !errors.Is(err, ErrFile) {
			t.Errorf("cut off after %d bytes: %v", n, err)
		}
	}
	if _, err := Parse(append(bytes.Clone(file), 0)); !errors.Is(err, ErrFile) {
		t.Errorf("a byte more: %v", err)
	}
	// With a right digest, the content is still looked at.
	for what, change := range map[string]func(b []byte){
		"no static key":              func(b []byte) { clear(b[24:56]) },
		"no K_pair":                  func(b []byte) { clear(b[88:120]) },
		"no certifying key":          func(b []byte) { clear(b[120:152]) },
		"no App":                     func(b []byte) { clear(b[184:216]) },
		"one key for both":           func(b []byte) { copy(b[152:184], b[184:216]) },
		"a name that is too long":    func(b []byte) { b[248] = 64 },
		"a name that is not padded":  func(b []byte) { b[248+63] = 'x' },
		"a name with an escape code": func(b []byte) { b[313] = 27 },
	} {
		b := bytes.Clone(file[:FileSize-sha256.Size])
		change(b)
		digest := sha256.Sum256(b)
		if _, err := Parse(append(b, digest[:]...)); !errors.Is(err, ErrFile) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestAHalfPrintsNoSecret(t *testing.T) {
	h, k := mustNew(t)
	text := fmt.Sprintf("%v %+v %#v %x", h, h, *h, *h) + fmt.Sprintf("%v %+v", k.Static, k.Image)
	for _, private := range [][]byte{h.Static.Expose(), h.Image.Expose(), h.Certifying.Expose(), h.Discovery.Expose()} {
		if bytes.Contains([]byte(text), []byte(fmt.Sprintf("%x", private))) || bytes.Contains([]byte(text), private) {
			t.Errorf("a secret is printed: %s", text)
		}
	}
}

// Each part of what is signed counts: a certificate of one image says nothing of
// another one, nor of another key.
func TestACertificateIsForOneKeyOfOneImage(t *testing.T) {
	h, k := mustNew(t)
	other, otherKeys := mustNew(t)
	stateKey, _, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	signature, err := h.Certify(stateKey)
	if err != nil {
		t.Fatal(err)
	}
	if !Verify(k.Certifying, k.Base, h.App, stateKey, signature) {
		t.Fatal("the genuine one is refused")
	}
	drawn, _, _ := ed25519.GenerateKey(nil)
	for what, verified := range map[string]bool{
		"another K_state":        Verify(k.Certifying, k.Base, h.App, drawn, signature),
		"another Base":           Verify(k.Certifying, otherKeys.Base, h.App, stateKey, signature),
		"another App":            Verify(k.Certifying, k.Base, other.App, stateKey, signature),
		"another certifying key": Verify(otherKeys.Certifying, k.Base, h.App, stateKey, signature),
		"no certifying key":      Verify(nil, k.Base, h.App, stateKey, signature),
		"no K_state":             Verify(k.Certifying, k.Base, h.App, nil, signature),
		"no signature":           Verify(k.Certifying, k.Base, h.App, stateKey, nil),
	} {
		if verified {
			t.Errorf("%s: believed", what)
		}
	}
}

func FuzzParse(f *testing.F) {
	h, _, err := New(nil, "laptop", "Base")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(h.Marshal())
	f.Add([]byte(magic))
	f.Fuzz(func(t *testing.T, b []byte) {
		if h, err := Parse(b); err == nil && !bytes.Equal(h.Marshal(), b) {
			t.Error("accepted what Marshal does not write")
		}
	})
}
