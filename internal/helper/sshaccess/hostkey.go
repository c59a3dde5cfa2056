package sshaccess

import (
	"crypto/ed25519"
	"encoding/pem"
	"errors"
	"io"
	"io/fs"
	"os"

	"github.com/BitBoxSwiss/bitbox-base/internal/atomicfile"
	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
	"golang.org/x/crypto/ssh"
)

// GenerateHostKey makes an Ed25519 host key in OpenSSH's format. The file must be readable only
// by root.
func GenerateHostKey(random io.Reader) ([]byte, error) {
	_, private, err := ed25519.GenerateKey(random)
	if err != nil {
		return nil, reason.Errorf("make an SSH host key: %w", err)
	}
	defer clear(private)
	block, err := ssh.MarshalPrivateKey(private, "bitbox-base")
	if err != nil {
		return nil, reason.Errorf("write an SSH host key: %w", err)
	}
	defer clear(block.Bytes)
	return pem.EncodeToMemory(block), nil
}

// maxHostKeySize bounds how much of the host key's file is read, in bytes; a file has 400.
const maxHostKeySize = 16 << 10

// PublicHostKey returns the public half of the host key at path, in the wire format of
// SSH (RFC 4253, section 6.6).
func PublicHostKey(path string) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, reason.Errorf("read the SSH host key: %w", err)
	}
	defer file.Close()
	content, err := io.ReadAll(io.LimitReader(file, maxHostKeySize))
	if err != nil {
		return nil, reason.Errorf("read the SSH host key: %w", err)
	}
	defer clear(content)
	signer, err := ssh.ParsePrivateKey(content)
	if err != nil {
		return nil, reason.Errorf("read the SSH host key %s: %w", path, err)
	}
	return signer.PublicKey().Marshal(), nil
}

// hostKeyMode is the mode that sshd requires of a private key.
const hostKeyMode fs.FileMode = 0o600

// EnsureHostKey makes the host key at path if there is none. Clients remember it, so an existing
// one is never replaced; `sshd -t` checks it before sshd is started.
func EnsureHostKey(random io.Reader, path string) error {
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	key, err := GenerateHostKey(random)
	if err != nil {
		return err
	}
	defer clear(key)
	return atomicfile.WriteFileAtomic(path, key, hostKeyMode)
}
