package main

import (
	"errors"
	"log/slog"
	"os"

	"github.com/spf13/cobra"

	"github.com/BitBoxSwiss/bitbox-base/internal/commandline"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/slot"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/update"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/update/debian"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/update/image"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/release"
)

func (p *program) upgradeCommand() *cobra.Command {
	command := &cobra.Command{
		Use:   "upgrade",
		Short: "Install the release that the system helper has verified",
		Long: `upgrade is what the unit bitbox-base-upgrade.service runs: it installs a release that an
owner's App has brought, looks whether the Base is well with it, and goes back to the version
before if not. What a kill or a power cut has interrupted it takes to an end.`,
		Example: `  systemctl start bitbox-base-upgrade`,
		Args:    commandline.Args(0, 0),
		RunE: func(c *cobra.Command, _ []string) error {
			installer, err := newInstaller()
			if err != nil {
				return err
			}
			return installer.Run(c.Context())
		},
	}
	command.AddCommand(&cobra.Command{
		Use:     "boot",
		Short:   "Repair the package after a power cut, before any of its services starts",
		Example: `  systemctl start bitbox-base-upgrade-boot`,
		Args:    commandline.Args(0, 0),
		RunE: func(c *cobra.Command, _ []string) error {
			installer, err := newInstaller()
			if err != nil {
				return err
			}
			return installer.Boot(c.Context())
		},
	})
	return command
}

func newInstaller() (*update.Installer, error) {
	key, err := release.BuiltInKey()
	if err != nil {
		return nil, err
	}
	return &update.Installer{
		Store: update.NewStore(update.Directory), Host: debian.Machine{}, Key: key,
		Logger: slog.New(slog.NewTextHandler(os.Stderr, nil)),
	}, nil
}

// newReceiver is the system helper's side.
func newReceiver() (*update.Receiver, error) {
	key, keyErr := release.BuiltInKey()
	var machine update.Machine = debian.Machine{}
	if _, err := slot.Look(); !errors.Is(err, slot.ErrNoImage) {
		machine = image.Machine{}
	}
	receiver, err := update.NewReceiver(update.NewStore(update.Directory), machine, key)
	return receiver, errors.Join(keyErr, err)
}
