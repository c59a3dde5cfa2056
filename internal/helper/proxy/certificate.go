package proxy

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"math/big"
	"time"

	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
)

// A certificate is valid between fixed dates: a Base without a battery does not know the date
// when it makes one, and an expired one would break the pins of wallets. UTCTime, which old
// parsers know, ends with 2049.
var (
	validFrom = time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)
	validTo   = time.Date(2049, 12, 31, 23, 59, 59, 0, time.UTC)
)

// ErrCertificate says that a certificate exists and cannot be used.
var ErrCertificate = reason.New("the certificate of an extra API is damaged")

// GenerateCertificate makes a self-signed certificate and its key, as one PEM file. The key is on
// P-256, which every wallet's TLS library knows; it may sign only for itself. name appears in the
// certificate for people to read.
func GenerateCertificate(random io.Reader, name string) ([]byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), random)
	if err != nil {
		return nil, reason.Errorf("make the key of the certificate of %s: %w", name, err)
	}
	serial := make([]byte, 16)
	if _, err := io.ReadFull(random, serial); err != nil {
		return nil, reason.Errorf("make the serial number of the certificate of %s: %w", name, err)
	}
	public, err := key.PublicKey.Bytes()
	if err != nil {
		return nil, reason.Errorf("write the public key of the certificate of %s: %w", name, err)
	}
	id := sha256.Sum256(public)
	template := &x509.Certificate{
		SerialNumber:          new(big.Int).SetBytes(serial),
		Subject:               pkix.Name{CommonName: "BitBox Base " + name},
		DNSNames:              []string{"bitbox-base.local"},
		NotBefore:             validFrom,
		NotAfter:              validTo,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
		SubjectKeyId:          id[:20],
		AuthorityKeyId:        id[:20],
	}
	certificate, err := x509.CreateCertificate(random, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, reason.Errorf("sign the certificate of %s: %w", name, err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, reason.Errorf("write the key of the certificate of %s: %w", name, err)
	}
	defer clear(private)
	return append(
		pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})...,
	), nil
}

// parseCertificate returns the fingerprint of a certificate with a matching key.
func parseCertificate(path string, content []byte) (fingerprint [sha256.Size]byte, err error) {
	damaged := func(what error) ([sha256.Size]byte, error) {
		return fingerprint, reason.Errorf("%w: %s: %w; restore the file, or delete it and let wallets accept a new one",
			ErrCertificate, path, what)
	}
	block, rest := pem.Decode(content)
	if block == nil || block.Type != "CERTIFICATE" {
		return damaged(reason.New("no certificate in it"))
	}
	certificate, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return damaged(err)
	}
	keyBlock, rest := pem.Decode(rest)
	if keyBlock == nil || keyBlock.Type != "PRIVATE KEY" || len(rest) != 0 {
		return damaged(reason.New("no key after the certificate, or something after it"))
	}
	parsed, err := x509.ParsePKCS8PrivateKey(keyBlock.Bytes)
	if err != nil {
		return damaged(err)
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok || !key.PublicKey.Equal(certificate.PublicKey) {
		return damaged(reason.New("the key does not match the certificate"))
	}
	return sha256.Sum256(certificate.Raw), nil
}
