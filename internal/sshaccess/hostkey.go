package sshaccess

import (
	"crypto/ed25519"
	"encoding/pem"
	"fmt"
	"io"

	"golang.org/x/crypto/ssh"
)

// GenerateHostKey makes an Ed25519 host key, in OpenSSH's format as sshd reads
// it. The file must be readable by root only.
func GenerateHostKey(random io.Reader) ([]byte, error) {
	_, private, err := ed25519.GenerateKey(random)
	if err != nil {
		return nil, fmt.Errorf("make an SSH host key: %w", err)
	}
	defer clear(private)
	block, err := ssh.MarshalPrivateKey(private, "bitbox-base")
	if err != nil {
		return nil, fmt.Errorf("write an SSH host key: %w", err)
	}
	defer clear(block.Bytes)
	return pem.EncodeToMemory(block), nil
}
