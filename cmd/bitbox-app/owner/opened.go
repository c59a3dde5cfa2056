package owner

import (
	"encoding/hex"
	"net"
	"strconv"
	"strings"

	"github.com/BitBoxSwiss/bitbox-base/client"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/posture"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/sshkey"
)

// SSHPort is where sshd listens. The account that keys log in to is sshUser.
const (
	SSHPort = 22
	sshUser = "base"
)

// Opened tells how to use what an owner has opened, and how to recognise the Base there. Commands, full
// screen and window show it. It is part of a change in JSON.
type Opened struct {
	// Address is host:port, as this App reaches the Base. An IPv6 address of the link has its zone, which
	// is an interface of this computer.
	Address string `json:"address"`
	// Line is what a wallet takes: host:port:s, where s stands for TLS.
	Line string `json:"line,omitempty"`
	// CertificateSHA256 is the certificate's fingerprint in hexadecimal, of an extra API.
	CertificateSHA256 string `json:"certificateSha256,omitempty"`
	// HostKey is a line such as "ssh-ed25519 AAAA...", of SSH.
	HostKey            string `json:"hostKey,omitempty"`
	HostKeyFingerprint string `json:"hostKeyFingerprint,omitempty"`
}

// OpenedAPI is how to use an extra API on a port of the Base. The certificate's fingerprint is empty if the
// Base has signed none. It is nil without a host.
func OpenedAPI(host string, port uint16, certificate string) *Opened {
	if host == "" {
		return nil
	}
	address := net.JoinHostPort(host, strconv.Itoa(int(port)))
	return &Opened{Address: address, Line: address + ":s", CertificateSHA256: certificate}
}

// OpenedSSH is how to log in. It is nil without a host, and for a host key that is none: nobody should log in
// without a way to recognise the Base.
func OpenedSSH(host string, hostKey []byte) *Opened {
	key, err := sshkey.Of(hostKey, "")
	if err != nil || host == "" {
		return nil
	}
	return &Opened{Address: net.JoinHostPort(host, strconv.Itoa(SSHPort)), HostKey: key.Line, HostKeyFingerprint: key.Fingerprint}
}

// Host is that of the address.
func (o Opened) Host() string {
	host, _, _ := net.SplitHostPort(o.Address) // it was joined above
	return host
}

// Login is the command that logs in.
func (o Opened) Login() string { return "ssh " + sshUser + "@" + o.Host() }

// HostKeyChecked is the host key's fingerprint, and what to do with it.
func (o Opened) HostKeyChecked() string {
	return o.HostKeyFingerprint + " (ED25519), signed by the Base; ssh must show the same"
}

// KnownHost is a line of ~/.ssh/known_hosts.
func (o Opened) KnownHost() string { return client.Printable(o.Host()) + " " + o.HostKey }

// ForgetHost is the command that removes what ssh remembers of the address.
func (o Opened) ForgetHost() string { return "ssh-keygen -R " + o.Host() }

// Electrum is the command that starts Electrum with this server alone.
func (o Opened) Electrum() string { return "electrum --oneserver --server " + o.Line }

// Certificate is its fingerprint as openssl and wallets write it; empty if the Base has signed none.
func (o Opened) Certificate() string {
	var parts []string
	for n := 0; n+1 < len(o.CertificateSHA256); n += 2 {
		parts = append(parts, strings.ToUpper(o.CertificateSHA256[n:n+2]))
	}
	return strings.Join(parts, ":")
}

// CertificateChecked is the fingerprint, and that it is signed; empty if the Base has signed none.
func (o Opened) CertificateChecked() string {
	if o.CertificateSHA256 == "" {
		return ""
	}
	return "SHA-256 " + o.Certificate() + ", signed by the Base"
}

// certificateOf is the fingerprint of an extra API's certificate; empty if the Base has signed none.
func certificateOf(view *client.PostureView, kind posture.Kind) string {
	digest, known := view.Identities().Certificates[kind]
	if !known {
		return ""
	}
	return hex.EncodeToString(digest[:])
}

// OpenedBy is how to use an extra API of a posture that was just applied; nil if it is closed, or without a host.
func OpenedBy(host, kind string, view *client.PostureView) *Opened {
	for _, end := range view.Effective().Endpoints {
		if string(end.Kind) == kind {
			return OpenedAPI(host, end.Port, certificateOf(view, end.Kind))
		}
	}
	return nil
}

// HostOf is where this App has last reached a Base; empty if it never has.
func HostOf(b client.Base) string {
	if len(b.Addresses) == 0 {
		return ""
	}
	host, _, err := net.SplitHostPort(b.Addresses[0])
	if err != nil {
		return ""
	}
	return host
}

// SSH is how to log in to the Base; nil if SSH is off, or what that takes is not known.
func (b Base) SSH() *Opened {
	if a := b.Look.Access; a != nil && a.SSH {
		return OpenedSSH(HostOf(b.Base), a.HostKey)
	}
	return nil
}

// API is how to use an open extra API; nil if this App knows no address of the Base.
func (b Base) API(d Door) *Opened { return OpenedAPI(HostOf(b.Base), d.Port, d.Certificate) }

// IsWallets tells whether wallets connect there.
func (d Door) IsWallets() bool { return d.Kind == WalletKind }
