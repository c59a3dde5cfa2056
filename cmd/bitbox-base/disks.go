package main

import (
	"fmt"
	"log/slog"
	"os"
	"os/user"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/BitBoxSwiss/bitbox-base/internal/commandline"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/chaindisk"
)

func disksCommand() *cobra.Command {
	command := &cobra.Command{
		Use:   "disks",
		Short: "Look at the disks, and make the one with the chain ready",
		Long: `disks has what units of the Base run about its disks. An owner sees them, and chooses one for
the chain, with 'bitbox-app disk'.`,
		Example: `  systemctl start bitbox-base-disks    # runs: bitbox-base disks look`,
		Args:    commandline.Args(0, 0),
		RunE:    func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	command.AddCommand(&cobra.Command{
		Use:   "look",
		Short: "List the disks, and what they say of their health",
		Long: `look is what the unit bitbox-base-disks.service runs. It reads what each disk says of itself,
what is on it, and its health, and leaves that for the system helper.`,
		Example: `  systemctl start bitbox-base-disks    # runs: bitbox-base disks look`,
		Args:    commandline.Args(0, 0),
		RunE: func(c *cobra.Command, _ []string) error {
			disks, err := chaindisk.Look(c.Context(), chaindisk.Exec, slog.New(slog.NewTextHandler(os.Stderr, nil)))
			if err != nil {
				return err
			}
			return chaindisk.TheStore.WriteList(disks)
		},
	}, &cobra.Command{
		Use:   "ready",
		Short: "Make the disk of the chain ready, before the node starts",
		Long: `ready is what the unit bitbox-base-chain-disk.service runs before each start of the node. It
prepares the disk that an owner has ordered, if one has, and mounts the disk of the chain. If it
fails, the node does not start.`,
		Example: `  systemctl start bitbox-base-chain-disk    # runs: bitbox-base disks ready`,
		Args:    commandline.Args(0, 0),
		RunE: func(c *cobra.Command, _ []string) error {
			uid, gid, err := numbersOf(chaindisk.Owner)
			if err != nil {
				return err
			}
			keeper := chaindisk.Keeper{Store: chaindisk.TheStore, Run: chaindisk.Exec, Mount: chaindisk.MountBySystemd,
				Unmount: chaindisk.UnmountBySystemd, Look: chaindisk.LookBySystemd,
				MountPoint: chaindisk.MountPoint, UID: uid, GID: gid, Patience: chaindisk.Patience}
			return keeper.Ready(c.Context())
		},
	})
	return command
}

// numbersOf looks up the numbers of a user and of its group.
func numbersOf(name string) (uid, gid int, err error) {
	found, err := user.Lookup(name)
	if err == nil {
		uid, err = strconv.Atoi(found.Uid)
	}
	if err == nil {
		gid, err = strconv.Atoi(found.Gid)
	}
	if err != nil {
		return 0, 0, fmt.Errorf("look up the user of the node: %w", err)
	}
	return uid, gid, nil
}
