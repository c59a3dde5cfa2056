package verify

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// keys are made once, by the real gpg: three builders and one more, one whose primary key has three
// subkeys that sign, one whose key has expired, one who has revoked theirs, and a stranger.
type keys struct {
	home         string
	fingerprints map[string]string
}

var theKeys = sync.OnceValues(func() (keys, error) {
	home, err := os.MkdirTemp("", "gpg-")
	k := keys{home: home, fingerprints: map[string]string{}}
	if err != nil {
		return k, err
	}
	for _, name := range []string{"ann", "bob", "cyd", "dan", "subkeys", "expired", "revoked", "stranger"} {
		arguments := []string{"--quick-gen-key", name, "ed25519", "sign", "never"}
		if name == "expired" {
			arguments = []string{"--faked-system-time", longAgo, "--quick-gen-key", name, "ed25519", "sign", "30d"}
		}
		if _, err := k.gpg(nil, arguments...); err != nil {
			return k, err
		}
		out, err := k.gpg(nil, "--with-colons", "--list-keys", name)
		if err != nil {
			return k, err
		}
		_, rest, _ := strings.Cut(out, "\nfpr:")
		k.fingerprints[name] = strings.Trim(strings.SplitN(rest, "\n", 2)[0], ":")
	}
	for range 3 {
		if _, err := k.gpg(nil, "--quick-add-key", k.fingerprints["subkeys"], "ed25519", "sign", "never"); err != nil {
			return k, err
		}
	}
	return k, nil
})

// longAgo is when the key was good that has expired.
const longAgo = "20240101T000000"

func (k keys) gpg(in []byte, arguments ...string) (string, error) {
	command := exec.Command("/usr/bin/gpg", append([]string{"--homedir", k.home, "--batch", "--quiet", "--passphrase", ""}, arguments...)...)
	command.Stdin = bytes.NewReader(in)
	out := &strings.Builder{}
	errs := &strings.Builder{}
	command.Stdout, command.Stderr = out, errs
	if err := command.Run(); err != nil {
		return "", fmt.Errorf("gpg %v: %w: %s", arguments, err, errs)
	}
	return out.String(), nil
}

// revoke publishes that a key was revoked, after it has signed.
func (k keys) revoke(name string) error {
	text, err := os.ReadFile(filepath.Join(k.home, "openpgp-revocs.d", k.fingerprints[name]+".rev"))
	if err != nil {
		return err
	}
	// A colon stands before the certificate, so that nobody takes it by accident.
	_, err = k.gpg(bytes.ReplaceAll(text, []byte("\n:---"), []byte("\n---")), "--import")
	return err
}

func TestMain(m *testing.M) {
	code := m.Run()
	if k, err := theKeys(); err == nil {
		_ = exec.Command("/usr/bin/gpgconf", "--homedir", k.home, "--kill", "all").Run()
		_ = os.RemoveAll(k.home)
	}
	os.Exit(code)
}

// builders makes the keys, and the list of a builder who trusts all but the stranger.
func builders(t *testing.T) (keys, Signers) {
	t.Helper()
	if _, err := os.Stat("/usr/bin/gpg"); err != nil {
		t.Skip("gpg is not installed (Debian's package gpg)")
	}
	k, err := theKeys()
	if err != nil {
		t.Fatal(err)
	}
	return k, k.trusting(t, "ann", "bob", "cyd", "dan", "subkeys", "expired", "revoked")
}

// trusting returns the list of a builder who trusts these.
func (k keys) trusting(t *testing.T, names ...string) Signers {
	t.Helper()
	folder, list := t.TempDir(), "# made by a test\n\n"
	for _, name := range names {
		list += k.fingerprints[name] + " " + name + "\n"
		armor, err := k.gpg(nil, "--armor", "--export", name)
		if err != nil {
			t.Fatal(err)
		}
		put(t, filepath.Join(folder, name+".asc"), []byte(armor))
	}
	put(t, filepath.Join(folder, listFile), []byte(list))
	signers, err := ReadSigners(folder)
	if err != nil {
		t.Fatal(err)
	}
	return signers
}

// signed returns the armored signatures of some, one after the other, as the project does it. A name
// may be followed by options.
func (k keys) signed(t *testing.T, sums []byte, names ...string) []byte {
	t.Helper()
	var all []byte
	for _, name := range names {
		arguments := []string{"--local-user", name, "--armor", "--detach-sign"}
		if name == "expired" {
			arguments = append([]string{"--faked-system-time", longAgo}, arguments...)
		}
		out, err := k.gpg(sums, arguments...)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, out...)
	}
	return all
}

func put(t *testing.T, path string, b []byte) {
	t.Helper()
	if err := os.WriteFile(path, b, 0o644); err != nil {
		t.Fatal(err)
	}
}
