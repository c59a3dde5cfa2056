package proxy_test

import (
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"testing"
	"time"

	"github.com/BitBoxSwiss/bitbox-base/internal/helper/proxy"
)

func TestCertificateServesAndSignsNothingElse(t *testing.T) {
	file, err := proxy.GenerateCertificate(rand.Reader, "electrum")
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(file, file)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(pair.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	pinned := x509.NewCertPool()
	pinned.AddCert(leaf)
	// A Base without a battery may start with an old date; a wallet keeps its pin for years.
	for _, year := range []int{2020, 2049} {
		now := time.Date(year, 6, 1, 0, 0, 0, 0, time.UTC)
		if _, err := leaf.Verify(x509.VerifyOptions{Roots: pinned, CurrentTime: now}); err != nil {
			t.Errorf("in %d: %v", year, err)
		}
	}
	if leaf.IsCA || leaf.KeyUsage&x509.KeyUsageCertSign != 0 {
		t.Error("who imports this certificate lets the Base vouch for other sites")
	}
	other, err := proxy.GenerateCertificate(rand.Reader, "electrum")
	if err != nil {
		t.Fatal(err)
	}
	if string(other) == string(file) {
		t.Error("two Bases would have the same key")
	}
}
