package sshaccess_test

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/BitBoxSwiss/bitbox-base/internal/helper/sshaccess"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/sshkey"
	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "rewrite the golden files")

var config = sshaccess.Config{
	HostKey:        "/var/lib/bitbox-base/ssh/host_ed25519",
	AuthorizedKeys: "/var/lib/bitbox-base/system/current/authorized_keys",
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), got); d != "" {
		t.Errorf("%s differs; if that is meant, run go test -update and review it:\n%s", file, d)
	}
}

// ed25519Line is a public key file of ssh-keygen.
const ed25519Line = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDvpxXGDAu0w+FUDIb/ygcy6q1chR7o1fzWvDDnfwJSA alice@laptop"

func TestConfigurationIsAsReviewed(t *testing.T) {
	text, err := sshaccess.RenderConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "sshd_config", text)
	key, err := sshkey.Parse(ed25519Line)
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "authorized_keys", sshaccess.RenderAuthorizedKeys([]sshkey.Key{key}))
}

func TestPathsCannotCarrySettings(t *testing.T) {
	for _, path := range []string{"", "relative", "/x\nPermitRootLogin yes", "/x /y", "/home/%u/keys"} {
		if text, err := sshaccess.RenderConfig(sshaccess.Config{HostKey: "/h", AuthorizedKeys: path}); err == nil {
			t.Errorf("%q: rendered\n%s", path, text)
		}
	}
}

// asPrinted is the output of `sshd -T` for the table; test/stage asks the real one.
func asPrinted() string {
	b := &strings.Builder{}
	for _, s := range sshaccess.Settings(config) {
		b.WriteString(strings.ToLower(s.Keyword) + " " + s.Value + "\n")
	}
	return b.String() + "permittty yes\naddressfamily any\n"
}

func TestALoosenedSettingIsFound(t *testing.T) {
	good := asPrinted()
	if m, err := sshaccess.Verify(good, config); err != nil || m != nil {
		t.Fatalf("good settings differ: %v, %v", m, err)
	}
	for name, loosened := range map[string]string{
		"passwords":         strings.Replace(good, "passwordauthentication no", "passwordauthentication yes", 1),
		"root":              strings.Replace(good, "permitrootlogin no", "permitrootlogin prohibit-password", 1),
		"a user added":      strings.Replace(good, "allowusers base", "allowusers base\nallowusers root", 1),
		"a second port":     good + "port 2222\n",
		"another key file":  strings.Replace(good, "current/authorized_keys", "current/authorized_keys .ssh/authorized_keys", 1),
		"a weak cipher":     strings.Replace(good, "ciphers ", "ciphers aes128-cbc,", 1),
		"any method":        strings.Replace(good, "authenticationmethods publickey", "authenticationmethods any", 1),
		"a setting missing": strings.Replace(good, "disableforwarding yes\n", "", 1),
		"file transfer":     good + "subsystem sftp /usr/lib/openssh/sftp-server\n",
		"variables":         good + "acceptenv LD_*\n",
		"another host key":  good + "hostkey /etc/ssh/ssh_host_rsa_key\n",
		"an authority":      strings.Replace(good, "trustedusercakeys none", "trustedusercakeys /tmp/ca.pub", 1),
		"a key command":     strings.Replace(good, "authorizedkeyscommand none", "authorizedkeyscommand /tmp/x", 1),
	} {
		if loosened == good {
			t.Fatalf("%s: nothing was loosened", name)
		}
		if m, err := sshaccess.Verify(loosened, config); err != nil || len(m) == 0 {
			t.Errorf("%s: not found (%v)", name, err)
		}
	}
	if _, err := sshaccess.Verify("", config); err == nil {
		t.Error("no output at all was accepted as good settings")
	}
}
