package provision

import (
	"crypto/rand"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/BitBoxSwiss/bitbox-base/internal/helper/sshaccess"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/prepaired"
)

const keyLine = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDvpxXGDAu0w+FUDIb/ygcy6q1chR7o1fzWvDDnfwJSA alice@laptop"

func write0600(t *testing.T, content []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func half(t *testing.T) []byte {
	t.Helper()
	h, _, err := prepaired.New(nil, "laptop", "cellar")
	if err != nil {
		t.Fatal(err)
	}
	return h.Marshal()
}

func TestWhatAnImageIsGivenAlongIsReadBack(t *testing.T) {
	root := t.TempDir()
	notes, err := Place(root, Request{Hostname: "cellar", SSHKey: write0600(t, []byte(keyLine)), SSHFromFirstBoot: 2 * time.Hour,
		PrePaired: write0600(t, half(t))})
	if err != nil || len(notes) != 5 {
		t.Fatalf("%v, %v", notes, err)
	}
	p, err := Read(filepath.Join(root, Directory))
	if err != nil {
		t.Fatal(err)
	}
	if !p.NoDisplay {
		t.Error("a board that is pre-paired has a display")
	}
	factory := p.Factory()
	if factory.NodeName != "cellar" || len(factory.SSHKeys) != 1 || factory.SSHKeys[0].Line != keyLine {
		t.Errorf("revision 0 is %+v", factory)
	}
	if factory.SSH != nil || p.SSHLease != 2*time.Hour {
		t.Errorf("SSH is %v in revision 0, and leased for %v", factory.SSH, p.SSHLease)
	}
	for path, mode := range map[string]fs.FileMode{
		Directory + "/hostname": 0o644, Directory + "/authorized_keys": 0o644, Directory + "/ssh-lease": 0o644, hostnameFile: 0o644,
		StateRoot + "/prepaired/half": 0o600, StateRoot + "/prepaired": 0o700 | fs.ModeDir,
	} {
		if info, err := os.Stat(filepath.Join(root, path)); err != nil || info.Mode() != mode {
			t.Errorf("%s: %v, %v", path, info, err)
		}
	}
}

// Nothing is written unless all of it can be used, and each refusal is one sentence.
func TestARequestThatCannotBeUsedWritesNothing(t *testing.T) {
	private, err := sshaccess.GenerateHostKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	key := write0600(t, []byte(keyLine))
	open := write0600(t, half(t))
	if err := os.Chmod(open, 0o644); err != nil {
		t.Fatal(err)
	}
	for what, request := range map[string]Request{
		"a private key":            {Hostname: "cellar", SSHKey: write0600(t, private)},
		"no key at all":            {SSHKey: filepath.Join(t.TempDir(), "none")},
		"a name with a line":       {Hostname: "a\nssh-key " + keyLine},
		"a name with a space":      {Hostname: "my base"},
		"a name with a slash":      {Hostname: "../../etc"},
		"a lease without a key":    {SSHFromFirstBoot: time.Hour},
		"a lease that is long":     {SSHKey: key, SSHFromFirstBoot: 30 * 24 * time.Hour},
		"a lease that is short":    {SSHKey: key, SSHFromFirstBoot: time.Second},
		"a lease that is negative": {SSHKey: key, SSHFromFirstBoot: -time.Hour},
		"keys others have read":    {Hostname: "cellar", PrePaired: open},
		"damaged keys":             {PrePaired: write0600(t, make([]byte, prepaired.FileSize))},
	} {
		root := t.TempDir()
		_, err := Place(root, request)
		if err == nil || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", what, err)
		}
		if entries, _ := os.ReadDir(root); len(entries) != 0 {
			t.Errorf("%s: something was written", what)
		}
	}
	if _, err := Place(filepath.Join(t.TempDir(), "none"), Request{}); err == nil {
		t.Error("a root that is not there is taken")
	}
}

func TestWhatABaseWasGivenIsReadStrictly(t *testing.T) {
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
	} {
		directory := t.TempDir()
		for name, content := range files {
			if err := os.WriteFile(filepath.Join(directory, name), []byte(content), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := Read(directory); !errors.Is(err, ErrFile) {
			t.Errorf("%s: %v", what, err)
		}
	}
	directory := t.TempDir()
	path := filepath.Join(directory, NameFile)
	if err := os.WriteFile(path, []byte("# the name\ncellar\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if p, err := Read(directory); err != nil || p.Hostname != "cellar" {
		t.Errorf("%+v, %v", p, err)
	}
	if err := os.Chmod(path, 0o666); err != nil {
		t.Fatal(err)
	}
	if _, err := Read(directory); !errors.Is(err, ErrFile) {
		t.Errorf("a file that anybody may write: %v", err)
	}
	root := t.TempDir()
	if _, err := Place(root, Request{NoDisplay: true}); err != nil {
		t.Fatal(err)
	}
	if p, err := Read(filepath.Join(root, Directory)); err != nil || !p.NoDisplay {
		t.Errorf("a Base without a display: %+v, %v", p, err)
	}
	if p, err := Read(t.TempDir()); err != nil || p.NoDisplay || p.Hostname != "" || len(p.SSHKeys) != 0 {
		t.Errorf("nothing: %+v, %v", p, err)
	}
}
