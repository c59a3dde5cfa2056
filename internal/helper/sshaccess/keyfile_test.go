package sshaccess_test

import (
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/BitBoxSwiss/bitbox-base/internal/helper/sshaccess"
)

func TestAKeyFileIsOnePublicKey(t *testing.T) {
	path := filepath.Join(t.TempDir(), "id.pub")
	if err := os.WriteFile(path, []byte(ed25519Line+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	key, err := sshaccess.ReadKeyFile(path)
	if err != nil || key.Fingerprint != ed25519Fingerprint {
		t.Errorf("%+v, %v", key, err)
	}
}

func TestAPrivateKeyByMistakeIsRefusedLoudlyAndNothingElseIsAKey(t *testing.T) {
	private, err := sshaccess.GenerateHostKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for what, test := range map[string]struct {
		content string
		want    error
	}{
		"a private key":              {string(private), sshaccess.ErrPrivateKey},
		"a private key after text":   {"my key\n\n" + string(private), sshaccess.ErrPrivateKey},
		"a public and a private key": {ed25519Line + "\n" + string(private), sshaccess.ErrPrivateKey},
		"one of OpenSSL":             {"-----BEGIN RSA PRIVATE KEY-----\n", sshaccess.ErrPrivateKey},
		"one of PuTTY":               {"PuTTY-User-Key-File-3: ssh-ed25519\n", sshaccess.ErrPrivateKey},
		"nothing":                    {"", sshaccess.ErrKey},
		"two keys":                   {ed25519Line + "\n" + ed25519Line + "\n", sshaccess.ErrKey},
		"an option":                  {`command="sh" ` + ed25519Line, sshaccess.ErrKey},
		"a picture":                  {"\x89PNG\r\n\x1a\n", sshaccess.ErrKey},
		"a large file":               {strings.Repeat("x", 1<<20), sshaccess.ErrKey},
	} {
		path := filepath.Join(t.TempDir(), "id_ed25519")
		if err := os.WriteFile(path, []byte(test.content), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := sshaccess.ReadKeyFile(path)
		if !errors.Is(err, test.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", what, err)
		}
		if err != nil && strings.Contains(err.Error(), "b3BlbnNzaC1rZXk") {
			t.Errorf("%s: the key is in the message", what)
		}
	}
	if _, err := sshaccess.ReadKeyFile(filepath.Join(t.TempDir(), "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file that is not there: %v", err)
	}
}
