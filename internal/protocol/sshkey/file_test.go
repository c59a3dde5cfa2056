package sshkey_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/sshkey"
	"golang.org/x/crypto/ssh"
)

func TestAKeyFileIsOnePublicKey(t *testing.T) {
	path := filepath.Join(t.TempDir(), "id.pub")
	if err := os.WriteFile(path, []byte(ed25519Line+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	key, err := sshkey.ReadFile(path)
	if err != nil || key.Fingerprint != ed25519Fingerprint {
		t.Errorf("%+v, %v", key, err)
	}
}

func TestAPrivateKeyByMistakeIsRefusedLoudlyAndNothingElseIsAKey(t *testing.T) {
	_, secret, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(secret, "")
	if err != nil {
		t.Fatal(err)
	}
	private := pem.EncodeToMemory(block)
	for what, test := range map[string]struct {
		content string
		want    error
	}{
		"a private key":              {string(private), sshkey.ErrPrivate},
		"a private key after text":   {"my key\n\n" + string(private), sshkey.ErrPrivate},
		"a public and a private key": {ed25519Line + "\n" + string(private), sshkey.ErrPrivate},
		"one of OpenSSL":             {"-----BEGIN RSA PRIVATE KEY-----\n", sshkey.ErrPrivate},
		"one of PuTTY":               {"PuTTY-User-Key-File-3: ssh-ed25519\n", sshkey.ErrPrivate},
		"nothing":                    {"", sshkey.ErrKey},
		"two keys":                   {ed25519Line + "\n" + ed25519Line + "\n", sshkey.ErrKey},
		"an option":                  {`command="sh" ` + ed25519Line, sshkey.ErrKey},
		"a picture":                  {"\x89PNG\r\n\x1a\n", sshkey.ErrKey},
		"a large file":               {strings.Repeat("x", 1<<20), sshkey.ErrKey},
	} {
		path := filepath.Join(t.TempDir(), "id_ed25519")
		if err := os.WriteFile(path, []byte(test.content), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := sshkey.ReadFile(path)
		if !errors.Is(err, test.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", what, err)
		}
		if err != nil && strings.Contains(err.Error(), "b3BlbnNzaC1rZXk") {
			t.Errorf("%s: the key is in the message", what)
		}
	}
	if _, err := sshkey.ReadFile(filepath.Join(t.TempDir(), "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file that is not there: %v", err)
	}
}
