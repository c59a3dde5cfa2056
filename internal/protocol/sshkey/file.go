package sshkey

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
)

// maxKeyFile is how much of a file is looked at: more than the largest private key
// takes, so that one is told as such.
const maxKeyFile = 64 << 10

// ErrPrivate: the file holds a private key.
var ErrPrivate = errors.New("a private key")

// ReadFile reads the public key that an image gets built in, with one sentence for
// what cannot be one. A private key by mistake is named as that; nothing of it is
// shown or kept.
func ReadFile(path string) (Key, error) {
	file, err := os.Open(path)
	if err != nil {
		return Key{}, fmt.Errorf("read the SSH public key: %w", err)
	}
	defer file.Close()
	content, err := io.ReadAll(io.LimitReader(file, maxKeyFile+1))
	if err != nil {
		return Key{}, fmt.Errorf("read the SSH public key %s: %w", path, err)
	}
	defer clear(content)
	text := string(content)
	if isPrivate(text) {
		return Key{}, fmt.Errorf("%s is a PRIVATE key (%w): it must not leave your computer, and nothing of it was used; give the public one, usually %s.pub", path, ErrPrivate, strings.TrimSuffix(path, ".pub"))
	}
	if len(content) > maxKeyFile {
		return Key{}, fmt.Errorf("%s is too large for a public key: %w", path, ErrKey)
	}
	key, err := Parse(text)
	if err != nil {
		return Key{}, fmt.Errorf("%s: %w", path, err)
	}
	return key, nil
}

// isPrivate tells a private key of OpenSSH, OpenSSL or PuTTY, wherever in the file it
// stands.
func isPrivate(text string) bool {
	return strings.Contains(text, "PRIVATE KEY-----") || strings.Contains(text, "PRIVATE KEY BLOCK-----") ||
		strings.Contains(text, "PuTTY-User-Key-File") || strings.Contains(text, "Private-Lines:")
}
