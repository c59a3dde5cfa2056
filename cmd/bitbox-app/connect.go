package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/BitBoxSwiss/bitbox-base/client"
	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/owner"
	"github.com/BitBoxSwiss/bitbox-base/internal/commandline"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/sshkey"
)

// sshUser is the account that SSH keys log in to; sshPort is its port.
const (
	sshUser = "base"
	sshPort = 22
)

// connection tells how to use an opened service, and how to recognise the Base there. It is part
// of a change in JSON.
type connection struct {
	// Address is host:port, as this App reaches the Base.
	Address string `json:"address"`
	// Line is what a wallet takes: host:port:s, where s stands for TLS.
	Line string `json:"line,omitempty"`
	// CertificateSHA256 is the certificate's fingerprint in hexadecimal, of an extra API.
	CertificateSHA256 string `json:"certificateSha256,omitempty"`
	// HostKey is a line such as "ssh-ed25519 AAAA...", of SSH.
	HostKey            string `json:"hostKey,omitempty"`
	HostKeyFingerprint string `json:"hostKeyFingerprint,omitempty"`

	// digest is CertificateSHA256; nil if it is not known.
	digest *[sha256.Size]byte
}

// hostOf is where this App has last reached the Base; empty if it never has.
func (p *program) hostOf(session *client.Session) (string, error) {
	app, err := p.app(client.Options{})
	if err != nil {
		return "", err
	}
	return owner.HostOf(app, session.Base())
}

// exposedAt is how to use an open extra API; nil if that is not known.
func exposedAt(host, kind string, view *client.PostureView) *connection {
	for _, end := range view.Effective().Endpoints {
		if string(end.Kind) != kind {
			continue
		}
		address := net.JoinHostPort(host, strconv.Itoa(int(end.Port)))
		c := &connection{Address: address, Line: address + ":s"}
		if digest, known := view.Identities().Certificates[end.Kind]; known {
			c.CertificateSHA256, c.digest = hex.EncodeToString(digest[:]), &digest
		}
		return c
	}
	return nil
}

// sshAt is how to log in; nil if the Base has no host key yet.
func sshAt(host string, view *client.PostureView) *connection {
	key, err := sshkey.Of(view.Identities().SSHHostKey, "")
	if err != nil {
		return nil
	}
	return &connection{Address: net.JoinHostPort(host, strconv.Itoa(sshPort)), HostKey: key.Line, HostKeyFingerprint: key.Fingerprint}
}

// colons formats a hexadecimal fingerprint as openssl and wallets do.
func colons(digits string) string {
	var parts []string
	for n := 0; n+1 < len(digits); n += 2 {
		parts = append(parts, strings.ToUpper(digits[n:n+2]))
	}
	return strings.Join(parts, ":")
}

// say prints what to do next, how to check it, and further rows.
func (c *connection) say(p *program, more ...[2]string) error {
	table := p.table()
	switch {
	case c.HostKey != "":
		host, _, _ := net.SplitHostPort(c.Address)
		table.row("Log in", fmt.Sprintf("ssh %s@%s", sshUser, host))
		table.row("Host key", c.HostKeyFingerprint+" (ED25519), signed by the Base; ssh must show the same")
		table.row("Store it", "bitbox-app ssh keys known-hosts >> ~/.ssh/known_hosts")
	default:
		table.row("Server", c.Line+" (s: with TLS)")
		table.row("In Electrum", "electrum --oneserver --server "+c.Line)
		if c.CertificateSHA256 != "" {
			table.row("Certificate", "SHA-256 "+colons(c.CertificateSHA256)+", signed by the Base")
			table.row("Check it", "openssl s_client -connect "+c.Address+" </dev/null | openssl x509 -noout -sha256 -fingerprint")
		}
	}
	for _, row := range more {
		table.sentence(row[0], row[1])
	}
	if err := table.print(); err != nil || c.Line == "" || !p.out.Moves {
		return err
	}
	return p.printCode(c.Line)
}

func (p *program) knownHostsCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "known-hosts",
		Short: "Print the Base's SSH host key as a line for known_hosts",
		Long: `known-hosts prints the line that ssh keeps of a host in ~/.ssh/known_hosts. The Base has
signed the key, and this App has verified it: with the line in place, ssh does not have to
trust the key at first sight.`,
		Example: `  bitbox-app ssh keys known-hosts >> ~/.ssh/known_hosts`,
		Args:    commandline.Args(0, 0),
		RunE: func(c *cobra.Command, _ []string) error {
			return p.call(c.Context(), callTime, func(ctx context.Context, session *client.Session) error {
				view, err := session.Posture(ctx)
				if err != nil {
					return err
				}
				host, err := p.hostOf(session)
				if err != nil {
					return err
				}
				at := sshAt(host, view)
				if at == nil {
					return fmt.Errorf("%w: the Base has no SSH host key yet; it makes one when it applies its posture", client.ErrNoSuchKey)
				}
				if p.json {
					return p.printJSON(at)
				}
				return p.printf("%s %s\n", client.Printable(host), at.HostKey)
			})
		},
	}
}
