package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/BitBoxSwiss/bitbox-base/internal/commandline"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/provision"
)

func (p *program) provisionCommand() *cobra.Command {
	var request provision.Request
	var display string
	command := &cobra.Command{
		Use:   "provision ROOT",
		Short: "Build a name, SSH keys or a paired App into an image",
		Long: `provision writes into the root directory of an image that is being built. It checks all
input first, and writes nothing unless all of it can be used.

SSH keys let nobody in until an owner switches SSH on; --ssh-from-first-boot leases SSH
once, from the first boot until a reboot at the latest. With --prepaired the image holds
private keys: keep it secret, and use it for one board only.`,
		Example: `  bitbox-base provision /mnt/root --hostname cellar --ssh-key ~/.ssh/id_ed25519.pub
  bitbox-base provision /mnt/root --prepaired cellar.keys`,
		Args: commandline.Args(1, 1),
		RunE: func(c *cobra.Command, args []string) error {
			if display != "" && display != provision.NoDisplay {
				return usageError{fmt.Errorf("--display %s is not understood; it can only be %q", display, provision.NoDisplay)}
			}
			request.NoDisplay = display != ""
			notes, err := provision.Place(args[0], request)
			for _, note := range notes {
				fmt.Fprintln(c.OutOrStdout(), "the image:", note)
			}
			return err
		},
	}
	command.Flags().StringVar(&request.Hostname, "hostname", "", "name of the Base")
	command.Flags().StringVar(&request.SSHKey, "ssh-key", "", "file of SSH public keys")
	commandline.DurationVar(command.Flags(), &request.SSHFromFirstBoot, "ssh-from-first-boot",
		"lease SSH from the first boot on, for this long")
	command.Flags().StringVar(&request.PrePaired, "prepaired", "", "file made by 'bitbox-app prepair'")
	command.Flags().StringVar(&display, "display", "", "none: the Base has no display, so an owner's App lets other Apps in")
	return command
}
