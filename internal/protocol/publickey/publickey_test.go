package publickey

import (
	"bytes"
	"crypto/ecdh"
	"crypto/ed25519"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"filippo.io/edwards25519"
	"pgregory.net/rapid"
)

func unhex(t testing.TB, text string) []byte {
	t.Helper()
	b, err := hex.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// smallOrder are the encodings of the eight points whose order divides 8, first the canonical
// ones. The others are what crypto/ed25519 takes for one of them.
var smallOrder = []string{
	"0100000000000000000000000000000000000000000000000000000000000000",
	"ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
	"0000000000000000000000000000000000000000000000000000000000000000",
	"0000000000000000000000000000000000000000000000000000000000000080",
	"c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
	"c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
	"26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
	"26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
	"0100000000000000000000000000000000000000000000000000000000000080",
	"ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
	"eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
	"eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
	"edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
	"edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
}

// forge makes a signature for a key of small order without a private key: R is [S]B plus
// one of the eight points, until the hash of it picks a multiple of A that cancels out.
func forge(t testing.TB, key, message []byte) []byte {
	t.Helper()
	a, err := new(edwards25519.Point).SetBytes(key)
	if err != nil {
		t.Fatal(err)
	}
	for try := byte(1); try != 0; try++ {
		s, err := edwards25519.NewScalar().SetCanonicalBytes(append([]byte{try}, make([]byte, 31)...))
		if err != nil {
			t.Fatal(err)
		}
		point := new(edwards25519.Point).ScalarBaseMult(s)
		for range 8 {
			point = new(edwards25519.Point).Add(point, a)
			r := point.Bytes()
			digest := sha512.Sum512(bytes.Join([][]byte{r, key, message}, nil))
			k, err := edwards25519.NewScalar().SetUniformBytes(digest[:])
			if err != nil {
				t.Fatal(err)
			}
			minusA := new(edwards25519.Point).Negate(a)
			if bytes.Equal(new(edwards25519.Point).VarTimeDoubleScalarBaseMult(k, minusA, s).Bytes(), r) {
				return append(r, s.Bytes()...)
			}
		}
	}
	t.Fatal("no forgery was found in 255 tries")
	return nil
}

// The attack: a key of which nobody has the private half, and a signature that anybody can
// make. crypto/ed25519 alone is the broken variant: it takes every one.
func TestASignatureThatNeedsNoPrivateKeyIsRefused(t *testing.T) {
	message := []byte("bitbox-base enrol v1: let me in as owner")
	for _, text := range smallOrder {
		key := unhex(t, text)
		signature := forge(t, key, message)
		if !ed25519.Verify(key, message, signature) {
			t.Errorf("%s: crypto/ed25519 refuses the forgery, so this test shows nothing", text)
		}
		if Verify(key, message, signature) {
			t.Errorf("%s: a forged signature was taken", text)
		}
		if err := CheckSigning(key); !errors.Is(err, ErrOrder) && !errors.Is(err, ErrEncoding) {
			t.Errorf("%s: the key was taken: %v", text, err)
		}
	}
}

// A genuine key with a point of small order added: the signature of its holder then fits
// for one message in eight, and for all of them where somebody multiplies by the cofactor.
func TestAKeyOfMixedOrderIsRefused(t *testing.T) {
	public, _, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	genuine, err := new(edwards25519.Point).SetBytes(public)
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range smallOrder[1:8] {
		torsion, err := new(edwards25519.Point).SetBytes(unhex(t, text))
		if err != nil {
			t.Fatal(err)
		}
		mixed := new(edwards25519.Point).Add(genuine, torsion).Bytes()
		if err := CheckSigning(mixed); !errors.Is(err, ErrOrder) {
			t.Errorf("plus %s: %v", text, err)
		}
	}
}

// Points whose y has a second encoding below 2^255: y + p for y < 19.
func TestASecondEncodingOfASigningKeyIsRefused(t *testing.T) {
	p := new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), 255), big.NewInt(19))
	points := 0
	for y := range int64(19) {
		for _, sign := range []byte{0, 0x80} {
			encoded := make([]byte, Size)
			new(big.Int).Add(p, big.NewInt(y)).FillBytes(encoded)
			for i := range Size / 2 {
				encoded[i], encoded[Size-1-i] = encoded[Size-1-i], encoded[i]
			}
			encoded[Size-1] |= sign
			if _, err := new(edwards25519.Point).SetBytes(encoded); err == nil {
				points++
			}
			if err := CheckSigning(encoded); !errors.Is(err, ErrEncoding) {
				t.Errorf("%x: %v", encoded, err)
			}
		}
	}
	if points == 0 {
		t.Error("none of them is a point, so this test shows nothing")
	}
}

func TestGenuineKeysAndSignaturesAreTaken(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		seed := rapid.SliceOfN(rapid.Byte(), ed25519.SeedSize, ed25519.SeedSize).Draw(t, "seed")
		message := rapid.SliceOf(rapid.Byte()).Draw(t, "message")
		private := ed25519.NewKeyFromSeed(seed)
		public := private.Public().(ed25519.PublicKey)
		signature := ed25519.Sign(private, message)
		if err := CheckSigning(public); err != nil || !Verify(public, message, signature) {
			t.Fatalf("a genuine signature was refused (%v)", err)
		}
		bit := rapid.IntRange(0, 8*len(signature)-1).Draw(t, "bit")
		signature[bit/8] ^= 1 << (bit % 8)
		if Verify(public, message, signature) {
			t.Fatal("a damaged signature was taken")
		}
	})
}

func TestKeysOfAWrongLengthAreRefused(t *testing.T) {
	for n := range 2 * Size {
		if n != Size && (CheckSigning(make([]byte, n)) == nil || CheckAgreement(make([]byte, n)) == nil || Verify(make([]byte, n), nil, nil)) {
			t.Errorf("%d bytes were taken", n)
		}
	}
}

// The attack: a revoked App comes back with the other encoding of its static key.
// crypto/ecdh is the broken variant: both encodings agree on one secret.
func TestASecondEncodingOfAStaticKeyIsRefused(t *testing.T) {
	private, err := ecdh.X25519().GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	public := private.PublicKey().Bytes()
	second := bytes.Clone(public)
	second[Size-1] |= 0x80
	base, err := ecdh.X25519().GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	agree := func(peer []byte) []byte {
		key, err := ecdh.X25519().NewPublicKey(peer)
		if err != nil {
			t.Fatal(err)
		}
		secret, err := base.ECDH(key)
		if err != nil {
			t.Fatal(err)
		}
		return secret
	}
	if !bytes.Equal(agree(public), agree(second)) {
		t.Error("crypto/ecdh tells the two encodings apart, so this test shows nothing")
	}
	if err := CheckAgreement(public); err != nil {
		t.Error(err)
	}
	if err := CheckAgreement(second); !errors.Is(err, ErrEncoding) {
		t.Errorf("the second encoding was taken: %v", err)
	}
	for _, text := range []string{
		"edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f", // p, that is 0
		"eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f", // p + 1
		"ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f", // p + 18
	} {
		if err := CheckAgreement(unhex(t, text)); !errors.Is(err, ErrEncoding) {
			t.Errorf("%s: %v", text, err)
		}
	}
	if err := CheckAgreement(unhex(t, "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f")); err != nil {
		t.Errorf("p - 1 is canonical: %v", err)
	}
}

// A signature that is verified elsewhere would be verified by other rules.
func TestNothingElseVerifiesSignatures(t *testing.T) {
	root := filepath.Join("..", "..", "..")
	seen := 0
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() && strings.HasPrefix(entry.Name(), ".") && path != root {
			return filepath.SkipDir
		}
		if !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, name := range []string{"Verify", "VerifyWithOptions"} {
			if !bytes.Contains(content, []byte("ed25519."+name+"(")) {
				continue
			}
			if filepath.Base(filepath.Dir(path)) == "publickey" {
				seen++
				continue
			}
			t.Errorf("%s verifies a signature; use publickey.Verify", path)
		}
		return nil
	})
	if err != nil || seen == 0 {
		t.Errorf("%v, %d places were found", err, seen)
	}
}

func BenchmarkCheckSigning(b *testing.B) {
	public, _, err := ed25519.GenerateKey(nil)
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if err := CheckSigning(public); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkVerify(b *testing.B) {
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		b.Fatal(err)
	}
	message := []byte("message")
	signature := ed25519.Sign(private, message)
	for b.Loop() {
		if !Verify(public, message, signature) {
			b.Fatal("refused")
		}
	}
}
