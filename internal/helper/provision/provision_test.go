package provision

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/provisioning"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/sshkey"
)

const keyLine = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDvpxXGDAu0w+FUDIb/ygcy6q1chR7o1fzWvDDnfwJSA alice@laptop"

func TestFilesOfADebianAreReadStrictly(t *testing.T) {
	for what, files := range map[string]map[string]string{
		"two names":           {NameFile: "a\nb\n"},
		"a line of Windows":   {NameFile: "a\r\n"},
		"a name with a space": {NameFile: "my base\n"},
		"an option":           {KeysFile: "command=\"sh\" " + keyLine + "\n"},
		"the same key twice":  {KeysFile: keyLine + "\n" + keyLine + "\n"},
		"a lease without key": {LeaseFile: "2h\n"},
		"two leases":          {KeysFile: keyLine, LeaseFile: "2h\n2h\n"},
		"no time":             {KeysFile: keyLine, LeaseFile: "on\n"},
		"a time that is long": {KeysFile: keyLine, LeaseFile: "9999h\n"},
		"another display":     {DisplayFile: "hdmi\n"},
		"two displays":        {DisplayFile: "none\nnone\n"},
		"a negative time":     {KeysFile: keyLine, LeaseFile: "-2h\n"},
		"part of a second":    {KeysFile: keyLine, LeaseFile: "1h0.5s\n"},
	} {
		directory := t.TempDir()
		for name, content := range files {
			if err := os.WriteFile(filepath.Join(directory, name), []byte(content), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := Read(t.TempDir(), directory); !errors.Is(err, ErrFile) {
			t.Errorf("%s: %v", what, err)
		}
	}
	directory := t.TempDir()
	for name, content := range map[string]string{
		NameFile: "# the name\ncellar\n", KeysFile: keyLine + "\n", LeaseFile: "1d\n", DisplayFile: "none\n",
	} {
		if err := os.WriteFile(filepath.Join(directory, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if f, err := Read(t.TempDir(), directory); err != nil || f.Name != "cellar" || !f.NoDisplay || f.SSHLease != 24*time.Hour ||
		len(f.SSHKeys) != 1 || f.Claim != nil {
		t.Errorf("%+v, %v", f, err)
	}
	if err := os.Chmod(filepath.Join(directory, NameFile), 0o666); err != nil {
		t.Fatal(err)
	}
	if _, err := Read(t.TempDir(), directory); !errors.Is(err, ErrFile) {
		t.Errorf("a file that anybody may write: %v", err)
	}
	if f, err := Read(t.TempDir(), t.TempDir()); err != nil || f.NoDisplay || f.Name != "" || len(f.SSHKeys) != 0 {
		t.Errorf("nothing: %+v, %v", f, err)
	}
}

// full is a file with everything in it.
func full(t *testing.T) provisioning.File {
	t.Helper()
	key, err := sshkey.Parse(keyLine)
	if err != nil {
		t.Fatal(err)
	}
	return provisioning.File{Name: "Cellar", SSHKeys: []sshkey.Key{key}, SSHLease: time.Hour, NoDisplay: true, Claim: claim(t)}
}
