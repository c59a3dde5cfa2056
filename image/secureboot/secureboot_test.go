package secureboot

import (
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestKeysAreMadeOnceAndTheirPrivateHalvesAreTheirOwnersOnly(t *testing.T) {
	directory := filepath.Join(t.TempDir(), "keys")
	if err := Make(directory, time.Unix(1795745432, 0), nil); err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, name := range Names {
		pair, err := tls.LoadX509KeyPair(filepath.Join(directory, name+CertificateSuffix), filepath.Join(directory, name+KeySuffix))
		if err != nil {
			t.Fatal(err)
		}
		key, ok := pair.PrivateKey.(*rsa.PrivateKey)
		if !ok || key.N.BitLen() != keyBits ||
			pair.Leaf.SignatureAlgorithm != x509.SHA256WithRSA || pair.Leaf.Subject.CommonName != "bitbox-base "+name {
			t.Errorf("%s is %v", name, pair.Leaf.Subject)
		}
		if seen[key.N.String()] {
			t.Errorf("%s is the key of another one", name)
		}
		seen[key.N.String()] = true
		if info, err := os.Stat(filepath.Join(directory, name+KeySuffix)); err != nil || info.Mode() != 0o600 {
			t.Errorf("%s: %v, %v", name, info.Mode(), err)
		}
	}
	before, err := os.ReadFile(filepath.Join(directory, DB+KeySuffix))
	if err != nil {
		t.Fatal(err)
	}
	if err := Make(directory, time.Now(), nil); err == nil {
		t.Error("keys were replaced")
	}
	if after, err := os.ReadFile(filepath.Join(directory, DB+KeySuffix)); err != nil || string(after) != string(before) {
		t.Errorf("a key has changed: %v", err)
	}
}
