package proxy_test

import (
	"bytes"
	"crypto/rand"
	"errors"
	"os"
	"testing"

	"github.com/BitBoxSwiss/bitbox-base/internal/helper/proxy"
)

func TestPinnedCertificateIsNeverReplaced(t *testing.T) {
	directory := t.TempDir()
	first, err := proxy.EnsureCertificate(rand.Reader, directory, "electrum")
	if err != nil {
		t.Fatal(err)
	}
	again, err := proxy.EnsureCertificate(rand.Reader, directory, "electrum")
	if err != nil || again != first {
		t.Fatalf("the second time: %x, %v; want %x", again, err, first)
	}
	path := proxy.CertificateFile(directory, "electrum")
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o640 {
		t.Fatalf("mode of %s: %v, %v; want 0640", path, info.Mode(), err)
	}
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	other, err := proxy.GenerateCertificate(rand.Reader, "electrum")
	if err != nil {
		t.Fatal(err)
	}
	key := bytes.Index(good, []byte("-----BEGIN PRIVATE KEY"))
	otherKey := bytes.Index(other, []byte("-----BEGIN PRIVATE KEY"))
	for name, damaged := range map[string][]byte{
		"empty":           {},
		"cut off":         good[:len(good)/2],
		"no key":          good[:key],
		"another's key":   append(bytes.Clone(good[:key]), other[otherKey:]...),
		"something after": append(bytes.Clone(good), "more"...),
		"huge":            bytes.Repeat(good, 100),
	} {
		if err := os.WriteFile(path, damaged, 0o640); err != nil {
			t.Fatal(err)
		}
		if _, err := proxy.EnsureCertificate(rand.Reader, directory, "electrum"); err == nil {
			t.Errorf("%s: no error", name)
		} else if name != "huge" && !errors.Is(err, proxy.ErrCertificate) {
			t.Errorf("%s: %v does not wrap ErrCertificate", name, err)
		}
		if now, err := os.ReadFile(path); err != nil || !bytes.Equal(now, damaged) {
			t.Errorf("%s: the file was replaced", name)
		}
	}
}
