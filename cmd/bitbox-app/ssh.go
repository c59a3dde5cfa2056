package main

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/spf13/cobra"

	"github.com/BitBoxSwiss/bitbox-base/client"
	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/owner"
	"github.com/BitBoxSwiss/bitbox-base/internal/commandline"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/sshkey"
)

func (p *program) sshCommand() *cobra.Command {
	command := &cobra.Command{
		Use:   "ssh",
		Short: "Switch SSH on for a limited time, and manage the keys that may log in",
		Long: `SSH is off until an owner switches it on for a limited time. It ends by itself, at the latest
when the Base restarts. Only keys can log in, as the user "base".`,
		Example: `  bitbox-app ssh keys add ~/.ssh/id_ed25519.pub
  bitbox-app ssh enable --for 2h`,
		Args: commandline.Args(0, 0),
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	command.AddCommand(p.sshEnableCommand(), p.sshDisableCommand(), p.sshKeysCommand())
	return command
}

func (p *program) sshEnableCommand() *cobra.Command {
	command := &cobra.Command{
		Use:     "enable --for TIME",
		Short:   "Switch SSH on for a limited time",
		Example: `  bitbox-app ssh enable --for 2h`,
		Args:    commandline.Args(0, 0),
	}
	length := forFlag(command)
	asking := p.consent(command)
	command.RunE = func(c *cobra.Command, _ []string) error {
		if err := chosen(*length); err != nil {
			return err
		}
		return p.applyAndSay(c, asking, client.Change{Edit: client.EnableSSH(*length)}, opened{at: sshAt})
	}
	return command
}

func (p *program) sshDisableCommand() *cobra.Command {
	command := &cobra.Command{
		Use:     "disable",
		Short:   "Switch SSH off and end its sessions",
		Example: `  bitbox-app ssh disable`,
		Args:    commandline.Args(0, 0),
	}
	asking := p.consent(command)
	command.RunE = func(c *cobra.Command, _ []string) error { return p.endLease(c, asking, "ssh") }
	return command
}

func (p *program) sshKeysCommand() *cobra.Command {
	command := &cobra.Command{
		Use:   "keys",
		Short: "Manage the keys that may log in while SSH is on, and show the Base's own",
		Example: `  bitbox-app ssh keys list
  bitbox-app ssh keys add ~/.ssh/id_ed25519.pub`,
		Args: commandline.Args(0, 0),
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	command.AddCommand(p.sshKeysListCommand(), p.sshKeysAddCommand(), p.sshKeysRemoveCommand(), p.knownHostsCommand())
	return command
}

// shownKeys lists the stored keys.
func shownKeys(view *client.PostureView) []shownKey {
	list := []shownKey{}
	for _, key := range view.Effective().KnownSSHKeys {
		list = append(list, shownKey{key.Type, key.Fingerprint, key.Comment})
	}
	return list
}

func (p *program) sshKeysListCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the keys that may log in while SSH is on",
		Example: `  bitbox-app ssh keys list
  bitbox-app ssh keys list --json`,
		Args:        commandline.Args(0, 0),
		Annotations: onSeveral,
		RunE: func(c *cobra.Command, _ []string) error {
			return ask(p, c, callTime, tableOf(p, query[*client.PostureView]{
				ask:     look,
				json:    func(view *client.PostureView) any { return shownKeys(view) },
				columns: []string{"FINGERPRINT", "TYPE", "NAME"},
				rows: func(view *client.PostureView) [][]string {
					var rows [][]string
					for _, key := range shownKeys(view) {
						rows = append(rows, []string{key.Fingerprint, key.Type, key.Comment})
					}
					return rows
				},
				empty: "no keys",
				table: func(t *table) { t.whole("FINGERPRINT") },
			}))
		},
	}
}

func (p *program) sshKeysAddCommand() *cobra.Command {
	var name string
	command := &cobra.Command{
		Use:   "add FILE | KEY",
		Short: "Add public keys",
		Long: `add takes a file of public keys, or one key as it stands in such a file. A .pub file of
ssh-keygen has one key, a list from a forge may have several; PuTTY's export (RFC 4716) is
accepted as well. All keys of a file are added in one change.

Never give a private key away; add refuses one.`,
		Example: `  bitbox-app ssh keys add ~/.ssh/id_ed25519.pub
  bitbox-app ssh keys add "ssh-ed25519 AAAA... anna" --name "Anna's laptop"`,
		Args: commandline.Any(1), // an unquoted line is several arguments
	}
	command.Flags().StringVar(&name, "name", "", "what to call the key, instead of the comment in the file")
	_ = command.RegisterFlagCompletionFunc("name", cobra.NoFileCompletions)
	asking := p.consent(command)
	command.RunE = func(c *cobra.Command, args []string) error {
		lines, err := publicKeys(strings.Join(args, " "), name)
		if err != nil {
			return err
		}
		return p.apply(c, asking, client.Change{Edit: client.AddSSHKeys(lines, "")})
	}
	return command
}

// publicKeys returns one line for each key in a file, unless the argument is the key itself. They
// are checked here first, so that a private key never leaves this machine.
func publicKeys(typed, name string) (string, error) {
	keys, err := sshkey.ReadFile(typed, name)
	if err != nil && !errors.Is(err, sshkey.ErrKey) && !errors.Is(err, sshkey.ErrPrivate) {
		if !strings.Contains(typed, " ") {
			if errors.Is(err, fs.ErrNotExist) {
				err = fmt.Errorf("%q is neither a file nor a public key", client.Printable(typed))
			}
			return "", usageError{err}
		}
		keys, err = sshkey.Read([]byte(typed), name)
	}
	if err != nil {
		return "", usageError{err}
	}
	return owner.KeyLines(keys), nil
}

func (p *program) sshKeysRemoveCommand() *cobra.Command {
	command := &cobra.Command{
		Use:   "remove FINGERPRINT | NAME",
		Short: "Remove a key and end all SSH sessions",
		Long: `remove removes a key. The Base cannot tell which session used it, so all SSH sessions end.
When no key is left, SSH is off.`,
		Example: `  bitbox-app ssh keys remove "Anna's laptop"`,
		Args:    commandline.Args(1, 1),
		ValidArgsFunction: p.complete(func(view *client.PostureView) []string {
			var list []string
			for _, key := range shownKeys(view) {
				list = append(list, cobra.CompletionWithDesc(key.Fingerprint, client.Printable(key.Comment)))
			}
			return list
		}),
	}
	asking := p.consent(command)
	command.RunE = func(c *cobra.Command, args []string) error {
		return p.apply(c, asking, client.Change{Edit: client.RemoveSSHKey(args[0])})
	}
	return command
}
