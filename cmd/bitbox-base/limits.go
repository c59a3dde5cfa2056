package main

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/user"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/BitBoxSwiss/bitbox-base/internal/helper/quota"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/sshaccess"
)

// storage is how much a user may store on the data partition, the file system of /var/lib.
var storage = map[string]quota.Limits{
	// The Middleware's pairings and events take less than 20 MiB in three files.
	"bitbox-base": {Bytes: 128 << 20, Inodes: 1024},
	// A user who logs in has temporary files there; the home folder is elsewhere.
	sshaccess.User: {Bytes: 256 << 20, Inodes: 10_000},
}

func limitsCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "limits",
		Short: "Limit at boot how much the Middleware and SSH users may store",
		Long: `limits runs at boot. It limits how much the Middleware's user, and the one who logs in by
SSH, may store on the file system of /var/lib, in bytes and in files. A file system without
quotas of users has no such limits; the image's has them.`,
		Example: `  bitbox-base system limits`,
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			log := slog.New(slog.NewTextHandler(os.Stderr, nil))
			var errs []error
			for name, limits := range storage {
				found, err := user.Lookup(name)
				if err != nil {
					errs = append(errs, fmt.Errorf("limit what %s stores: %w", name, err))
					continue
				}
				uid, err := strconv.Atoi(found.Uid)
				if err == nil {
					err = quota.Set("/var/lib", uid, limits)
				}
				if errors.Is(err, quota.ErrNone) {
					log.Info("storage is not limited: the file system of /var/lib has no quotas, or a container prevents setting them")
					return nil
				}
				errs = append(errs, err)
			}
			return errors.Join(errs...)
		},
	}
}
