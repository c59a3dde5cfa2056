// Package secureboot makes the keys with which a builder's own machines decide what they start (UEFI Secure Boot).
//
// There are three. PK belongs to the machine's owner and lets KEK be changed; KEK lets db be changed; what db's key has
// signed starts. An image is signed with db's. docs/image.md says what losing each of them means.
package secureboot

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"os"
	"path/filepath"
	"time"

	"github.com/BitBoxSwiss/bitbox-base/internal/atomicfile"
)

// Names of the keys, as UEFI calls the variables. A key has two files: its name and a suffix.
const (
	PK  = "PK"
	KEK = "KEK"
	DB  = "db"

	KeySuffix         = ".key" // the private key, PEM
	CertificateSuffix = ".crt" // the certificate, PEM
	// EnrolSuffix is that of the signed list that a firmware takes.
	EnrolSuffix = ".auth"
	// OwnerFile has the GUID that tells these keys apart from those of others.
	OwnerFile = "owner"
)

// Names are all keys, each signed by the one before.
var Names = []string{PK, KEK, DB}

const (
	// keyBits is what every firmware understands: UEFI Specification 2.10, section 32.4.1.
	keyBits = 2048
	// validity of the certificates. No firmware looks at it; other programs may.
	validity = 50 * 365 * 24 * time.Hour
)

// Make makes the keys in a directory, which must not have any: without the old ones, nothing could be signed for the
// machines that know them. random nil means the system's generator.
func Make(directory string, now time.Time, random io.Reader) error {
	if random == nil {
		random = rand.Reader
	}
	if err := os.MkdirAll(directory, 0o700); err != nil {
		return fmt.Errorf("make Secure Boot keys: %w", err)
	}
	for _, name := range Names {
		if _, err := os.Lstat(filepath.Join(directory, name+CertificateSuffix)); err == nil {
			return fmt.Errorf("make Secure Boot keys: %s has some; name another directory, or move them away if no machine knows them", directory)
		} else if !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("make Secure Boot keys: %w", err)
		}
	}
	var id [16]byte
	if _, err := io.ReadFull(random, id[:]); err != nil {
		return fmt.Errorf("make Secure Boot keys: %w", err)
	}
	// Version 4, variant 1: RFC 9562.
	id[6], id[8] = id[6]&0x0f|0x40, id[8]&0x3f|0x80
	owner := fmt.Sprintf("%x-%x-%x-%x-%x\n", id[:4], id[4:6], id[6:8], id[8:10], id[10:])
	if err := atomicfile.WriteFileAtomic(filepath.Join(directory, OwnerFile), []byte(owner), 0o644); err != nil {
		return err
	}
	for _, name := range Names {
		if err := makeKey(directory, name, now, random); err != nil {
			return fmt.Errorf("make the Secure Boot key %s: %w", name, err)
		}
	}
	return nil
}

// makeKey writes the private key before the certificate, which says that both are there.
func makeKey(directory, name string, now time.Time, random io.Reader) error {
	key, err := rsa.GenerateKey(random, keyBits)
	if err != nil {
		return err
	}
	serial, err := rand.Int(random, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return err
	}
	certificate := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: "bitbox-base " + name},
		NotBefore: now.UTC().Truncate(24 * time.Hour), NotAfter: now.UTC().Add(validity),
		KeyUsage: x509.KeyUsageDigitalSignature, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(random, certificate, certificate, key.Public(), key)
	if err != nil {
		return err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	if err := atomicfile.WriteFileAtomic(filepath.Join(directory, name+KeySuffix),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}), 0o600); err != nil {
		return err
	}
	return atomicfile.WriteFileAtomic(filepath.Join(directory, name+CertificateSuffix),
		pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o644)
}
