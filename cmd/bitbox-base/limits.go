package main

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"os/user"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/BitBoxSwiss/bitbox-base/internal/helper/chaindisk"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/firewall"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/machine"
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

// The node and the server for wallets may fill the file system together but for a part that the Base
// needs. A chain on a disk of its own is not on this file system, and does not count.
const (
	leastKept   = 4 << 30 // bytes
	keptPart    = 10      // or a tenth, whichever is more
	lesserPart  = 8       // an eighth of the rest is for the guest that needs less
	mostWallets = 256_000_000_000
	guestInodes = 1 << 20
)

// guestLimits are those of the node and of the server for wallets, on a file system of this size in
// bytes. elsewhere: the chain has a disk of its own. The index of mainnet takes an eighth of what its
// chain takes (docs/wallet.md).
func guestLimits(total uint64, elsewhere bool) (node, wallets quota.Limits) {
	room := total - min(max(total/keptPart, leastKept), total/2)
	lesser := room / lesserPart
	node.Inodes, wallets.Inodes = guestInodes, guestInodes
	if elsewhere {
		node.Bytes, wallets.Bytes = lesser, room-lesser
	} else {
		lesser = min(lesser, mostWallets)
		node.Bytes, wallets.Bytes = room-lesser, lesser
	}
	return node, wallets
}

func limitsCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "limits",
		Short: "Limit at boot how much the Middleware, the node, the server for wallets and SSH users may store",
		Long: `limits runs at boot. It limits how much the users of the Middleware, of the Bitcoin node and of
the server for wallets, and the one who logs in by SSH, may store on the file system of /var/lib,
in bytes and in files. Node and server for wallets may fill nine tenths of it together, unless that
leaves less than 4 GiB: the server gets an eighth of that, or seven eighths once the chain has a
disk of its own. A file system without quotas of users has no such limits; the image's has them.`,
		Example: `  bitbox-base system limits`,
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			log := slog.New(slog.NewTextHandler(os.Stderr, nil))
			var errs []error
			all := maps.Clone(storage)
			if total, _, err := machine.DiskSpace("/var/lib"); err != nil {
				errs = append(errs, err)
			} else {
				chosen, err := chaindisk.TheStore.Chosen()
				errs = append(errs, err)
				all[chaindisk.Owner], all[firewall.WalletUser] = guestLimits(total, chosen != nil)
			}
			for name, limits := range all {
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
