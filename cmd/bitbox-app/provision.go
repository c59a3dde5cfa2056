package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/BitBoxSwiss/bitbox-base/client"
	"github.com/BitBoxSwiss/bitbox-base/internal/commandline"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/provisioning"
)

// provisionedJSON is what `provision --json` prints.
type provisionedJSON struct {
	File    string   `json:"file"`
	SSHKeys []string `json:"sshKeys,omitempty"` // fingerprints
	// Base and ClaimUntil are there with --pair.
	Base       *basis    `json:"base,omitempty"`
	ClaimUntil time.Time `json:"claimUntil,omitzero"`
}

func (p *program) provisionCommand() *cobra.Command {
	var o client.ProvisionOptions
	var to, display, appName string
	command := &cobra.Command{
		Use:   "provision --to DIR",
		Short: "Tell a new Base its name, SSH keys and owner before its first start",
		Long: `provision writes the file bitbox-base.provision into DIR. DIR is the root of the EFI
partition of the Base's disk, which every computer can open once the image is written to the
disk. The Base reads the file at its first start, once, and removes it. A file that comes
later changes nothing.

With --pair this App becomes the owner: the Base draws its own keys and waits for this App,
which claims it with its next command. Nobody has to compare a code. The file holds no private
key. Until the App has claimed the Base, anybody with a copy of the file can pose as the Base
to this App, so do not send the file around; afterwards a copy is worth nothing. A file with
--pair is for one Base, and can be used for 90 days.

SSH keys let nobody in until an owner switches SSH on. --ssh-lease switches SSH on once, from
the first start until a restart at the latest.

Without a display at the Base, use --display none: an owner's App then lets further Apps in.`,
		Example: `  bitbox-app provision --to /media/me/ESP --name Cellar --pair --display none
  bitbox-app provision --to /media/me/ESP --ssh-key ~/.ssh/id_ed25519.pub --ssh-lease 1h`,
		Args: commandline.Args(0, 0),
	}
	flags := command.Flags()
	flags.StringVar(&to, "to", "", "the `DIRECTORY` to write to: the root of the EFI partition")
	flags.StringVar(&o.Name, "name", "", "name of the Base")
	flags.StringVar(&o.SSHKey, "ssh-key", "", "`FILE` of SSH public keys")
	commandline.DurationVar(flags, &o.SSHLease, "ssh-lease", "switch SSH on from the first start on, for this long")
	flags.StringVar(&display, "display", "", "none: the Base has no display, so an owner's App lets other Apps in")
	flags.BoolVar(&o.Pair, "pair", false, "make this App the Base's owner")
	flags.StringVar(&appName, "app-name", "", "what to call this App at the Base (default: the name of this machine)")
	_ = command.MarkFlagDirname("to")
	_ = command.MarkFlagFilename("ssh-key")
	_ = command.RegisterFlagCompletionFunc("display",
		cobra.FixedCompletions([]string{provisioning.NoDisplay}, cobra.ShellCompDirectiveNoFileComp))
	for _, flag := range []string{"name", "ssh-lease", "app-name"} {
		_ = command.RegisterFlagCompletionFunc(flag, cobra.NoFileCompletions)
	}
	asking := p.consent(command)
	command.RunE = func(c *cobra.Command, _ []string) error {
		if to == "" {
			return usageError{errors.New("name the directory with --to: the root of the EFI partition of the Base's disk")}
		}
		if display != "" && display != provisioning.NoDisplay {
			return usageError{fmt.Errorf("--display %s is not understood; it can only be %q", client.Printable(display), provisioning.NoDisplay)}
		}
		o.NoDisplay = display != ""
		app, err := p.app(client.Options{Name: appName})
		if err != nil {
			return err
		}
		made, err := app.Provision(to, o)
		if errors.Is(err, client.ErrFileExists) {
			text := fmt.Sprintf("In %s a provisioning file will be replaced. A Base that was to read it will not get it.\n", client.Printable(to))
			if err := asking.confirm(c.Context(), p.out.Fold("", text)); err != nil {
				return err
			}
			o.Replace = true
			made, err = app.Provision(to, o)
		}
		if err != nil {
			return err
		}
		return p.printProvisioned(made, o)
	}
	return command
}

func (p *program) printProvisioned(made client.Provisioned, o client.ProvisionOptions) error {
	if p.json {
		out := provisionedJSON{File: made.File, SSHKeys: made.SSHKeys, ClaimUntil: made.Until}
		if made.Base != nil {
			out.Base = basisOf(*made.Base)
		}
		return p.printJSON(out)
	}
	text := fmt.Sprintf("Wrote %s.\n", client.Printable(made.File))
	for _, key := range made.SSHKeys {
		text += fmt.Sprintf("  SSH key %s\n", key)
	}
	if o.SSHLease > 0 {
		text += fmt.Sprintf("  SSH is OPEN to them for %v from the first start on, until a restart at the latest.\n", o.SSHLease)
	}
	text += "Unmount the partition, put the disk into the Base, and start it.\n"
	if made.Base != nil {
		text += fmt.Sprintf("Then, on the same network, until %s: bitbox-app --base %q status\n", made.Until.Format(time.DateOnly),
			client.Printable(made.Base.Name))
	} else {
		text += "Then: bitbox-app pair\n"
	}
	return p.printf("%s", text)
}
