package owner

import (
	"encoding/base64"
	"strings"
	"testing"

	"github.com/BitBoxSwiss/bitbox-base/client"
)

// hostKey is an SSH host key on the wire.
const hostKey = "AAAAC3NzaC1lZDI1NTE5AAAAIDvpxXGDAu0w+FUDIb/ygcy6q1chR7o1fzWvDDnfwJSA"

// Each address that an App can reach a Base at makes a command that reaches the same one.
func TestWhatIsOpenIsUsedWhereTheBaseWasReached(t *testing.T) {
	key, err := base64.StdEncoding.DecodeString(hostKey)
	if err != nil {
		t.Fatal(err)
	}
	for reached, want := range map[string][3]string{
		"192.168.1.20:8845":    {"ssh base@192.168.1.20", "192.168.1.20 ssh-ed25519 " + hostKey, "192.168.1.20:50002:s"},
		"[fd00::20]:8845":      {"ssh base@fd00::20", "fd00::20 ssh-ed25519 " + hostKey, "[fd00::20]:50002:s"},
		"[fe80::1%eth0]:18845": {"ssh base@fe80::1%eth0", "fe80::1%eth0 ssh-ed25519 " + hostKey, "[fe80::1%eth0]:50002:s"},
	} {
		host := HostOf(client.Base{Addresses: []string{reached, "192.0.2.1:8845"}})
		ssh, wallet := OpenedSSH(host, key), OpenedAPI(host, 50002, strings.Repeat("a1b2", 16))
		if ssh == nil || wallet == nil {
			t.Fatalf("%s: it cannot be used", reached)
		}
		if got := [3]string{ssh.Login(), ssh.KnownHost(), wallet.Line}; got != want {
			t.Errorf("%s: %q, not %q", reached, got, want)
		}
		if got := wallet.Certificate(); got != strings.TrimSuffix(strings.Repeat("A1:B2:", 16), ":") {
			t.Errorf("the certificate is %q", got)
		}
	}
}

// Nobody is told to log in to a machine that they could not recognise.
func TestThereIsNoLoginWithoutAKeyAndAHost(t *testing.T) {
	key, _ := base64.StdEncoding.DecodeString(hostKey)
	for name, ssh := range map[string]*Opened{
		"no host": OpenedSSH(HostOf(client.Base{}), key), "no key": OpenedSSH("192.0.2.1", nil), "half a key": OpenedSSH("192.0.2.1", key[:20]),
	} {
		if ssh != nil {
			t.Errorf("%s: %q", name, ssh.Login())
		}
	}
	if OpenedAPI("", 50002, "") != nil {
		t.Error("a wallet is told to connect to no host")
	}
	if c := OpenedAPI("192.0.2.1", 50002, ""); c.Certificate() != "" || c.CertificateChecked() != "" {
		t.Errorf("a certificate that is not signed is shown: %q", c.CertificateChecked())
	}
}
