package main

import (
	"context"
	"errors"
	"log/slog"
	"os"

	"github.com/spf13/cobra"

	"github.com/BitBoxSwiss/bitbox-base/internal/commandline"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/slot"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/update"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/update/image"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/release"
)

// mountPointVariable names the folder that systemd makes for a unit (RuntimeDirectory=).
const mountPointVariable = "RUNTIME_DIRECTORY"

func (p *program) slotsCommand() *cobra.Command {
	command := &cobra.Command{
		Use:   "slots",
		Short: "Write the release that the system helper has verified into the other slot, and restart with it",
		Long: `slots is what the unit bitbox-base-slots.service runs on the image. It writes a release into the
slot that the machine does not run from, or goes back to the version there, and restarts the
machine. What a power cut has interrupted, it begins again.`,
		Example: `  systemctl start bitbox-base-slots    # runs: bitbox-base slots`,
		Args:    commandline.Args(0, 0),
		RunE: func(c *cobra.Command, _ []string) error {
			err := withSlots(func(installer *update.ImageInstaller) error { return installer.Run(c.Context()) })
			if errors.Is(err, update.ErrRestarting) {
				return nil
			}
			return err
		},
	}
	command.AddCommand(&cobra.Command{
		Use:   "healthy",
		Short: "Wait until the Base is healthy, and keep the version that runs",
		Long: `healthy is what the unit bitbox-base-healthy.service runs at each start of the image. A new version
is kept once the Base is healthy and an owner's App has confirmed it. Otherwise the machine
restarts with the previous version.`,
		Example: `  systemctl start bitbox-base-healthy    # runs: bitbox-base slots healthy`,
		Args:    commandline.Args(0, 0),
		RunE: func(c *cobra.Command, _ []string) error {
			if err := withSlots(func(installer *update.ImageInstaller) error { return installer.Settle(c.Context()) }); err != nil {
				return err
			}
			return resumeWriting(c.Context())
		},
	})
	return command
}

// withSlots opens the slots for as long as do runs.
func withSlots(do func(*update.ImageInstaller) error) (err error) {
	key, err := release.BuiltInKey()
	if err != nil {
		return err
	}
	mountPoint := os.Getenv(mountPointVariable)
	if mountPoint == "" {
		return errors.New("this command is started by its unit, which gives it a folder of its own")
	}
	slots, done, err := slot.Open(mountPoint)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, done()) }()
	return do(&update.ImageInstaller{
		Store: update.NewStore(update.Directory), Host: image.Machine{}, Slots: slots, Key: key,
		Logger: slog.New(slog.NewTextHandler(os.Stderr, nil)),
	})
}

// resumeWriting goes on with an update that a power cut has interrupted while it was written.
func resumeWriting(ctx context.Context) error {
	j, err := update.NewStore(update.Directory).Journal()
	if err != nil || j.Phase == "" || j.Phase.Ended() {
		return err
	}
	return image.Machine{}.Start(ctx)
}
