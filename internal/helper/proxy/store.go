package proxy

import (
	"crypto/sha256"
	"errors"
	"io"
	"io/fs"
	"os"

	"github.com/BitBoxSwiss/bitbox-base/internal/atomicfile"
	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
)

const (
	// maxCertificateFileSize bounds how much is read, in bytes; a file has 800.
	maxCertificateFileSize = 16 << 10
	// certificateMode lets NGINX read it through the group of the directory.
	certificateMode fs.FileMode = 0o640
)

// EnsureCertificate makes the certificate of the API called name if there is none, and returns
// its SHA-256 fingerprint. Wallets pin a certificate, so an existing one is never replaced: a
// damaged one is an error (ErrCertificate), and the owner decides.
//
// The file gets the directory's group if the directory's set-group-ID bit is set; this is how
// NGINX, which is not root, can read it.
func EnsureCertificate(random io.Reader, directory, name string) (fingerprint [sha256.Size]byte, err error) {
	path := CertificateFile(directory, name)
	content, err := readLimited(path, maxCertificateFileSize)
	if errors.Is(err, fs.ErrNotExist) {
		if content, err = GenerateCertificate(random, name); err != nil {
			return fingerprint, err
		}
		err = atomicfile.WriteFileAtomic(path, content, certificateMode)
	}
	if err != nil {
		return fingerprint, reason.Errorf("keep the certificate of %s: %w", name, err)
	}
	return parseCertificate(path, content)
}

// CertificateDigest returns the SHA-256 fingerprint of the certificate of the API called name,
// which must exist.
func CertificateDigest(directory, name string) (fingerprint [sha256.Size]byte, err error) {
	path := CertificateFile(directory, name)
	content, err := readLimited(path, maxCertificateFileSize)
	if err != nil {
		return fingerprint, reason.Errorf("read the certificate of %s: %w", name, err)
	}
	return parseCertificate(path, content)
}

func readLimited(path string, limit int64) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	content, err := io.ReadAll(io.LimitReader(file, limit+1))
	if err == nil && int64(len(content)) > limit {
		return nil, reason.Errorf("%s is longer than %d bytes", path, limit)
	}
	return content, err
}
