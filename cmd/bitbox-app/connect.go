package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/BitBoxSwiss/bitbox-base/client"
	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/owner"
	"github.com/BitBoxSwiss/bitbox-base/internal/commandline"
)

// hostOf is where this App has last reached the Base; empty if it never has.
func (p *program) hostOf(session *client.Session) (string, error) {
	app, err := p.app(client.Options{})
	if err != nil {
		return "", err
	}
	known, err := app.Base(session.Base())
	return owner.HostOf(known), err
}

// sshAt is how to log in; nil if the Base has no host key yet.
func sshAt(host string, view *client.PostureView) *owner.Opened {
	return owner.OpenedSSH(host, view.Identities().SSHHostKey)
}

// sayOpened prints what to do next, how to check it, and further rows.
func (p *program) sayOpened(o owner.Opened, more ...[2]string) error {
	table := p.table()
	switch {
	case o.HostKey != "":
		table.row("Log in", o.Login())
		table.row("Host key", o.HostKeyChecked())
		table.row("Store it", "bitbox-app ssh keys known-hosts >> ~/.ssh/known_hosts")
	default:
		table.row("Server", o.Line+" (s: with TLS)")
		table.row("In Electrum", o.Electrum())
		if signed := o.CertificateChecked(); signed != "" {
			table.row("Certificate", signed)
			table.row("Check it", "openssl s_client -connect "+o.Address+" </dev/null | openssl x509 -noout -sha256 -fingerprint")
		}
	}
	for _, row := range more {
		table.sentence(row[0], row[1])
	}
	if err := table.print(); err != nil || o.Line == "" || !p.out.Moves {
		return err
	}
	return p.printCode(o.Line)
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
				return p.printf("%s\n", at.KnownHost())
			})
		},
	}
}
