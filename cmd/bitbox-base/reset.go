package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/commandline"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/chaindisk"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/factoryreset"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/generation"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/proxy"
	"github.com/BitBoxSwiss/bitbox-base/internal/helperclient"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/posture"
)

// walletIndex is the folder of the server for wallets, which builds its index again.
const walletIndex = "/var/lib/bitbox-electrum"

// resetPlan is what a factory reset of the appliance removes. Releases that the Base was updated
// to stay (/var/lib/bitbox-base/updates): the Base must not fall back to an older one, and they
// tell nothing about its owner.
var resetPlan = factoryreset.Plan{
	Directory: generation.StateDirectory,
	Keys: []string{
		middlewareState + "/middleware.db",       // the Base's static key, and one for each pairing
		generation.StateDirectory + "/system.db", // the key that the helper signs with
		generation.HostKey,
		proxy.CertificateFile(generation.CertificateDirectory, string(posture.KindElectrum)),
	},
	Folders: []string{
		middlewareState,                  // identity and pairings
		filepath.Dir(generation.HostKey), // SSH's host key
		generation.CertificateDirectory,  // keys of extra APIs
		"/var/lib/fail2ban",              // the list of bans
		walletIndex,                      // a server that was taken over may have noted addresses
		"/var/log/journal",               // visitors and their addresses
	},
	Homes: []string{"/home/base"},
	// Nobody's secret, and weeks of work: it stays unless the order says otherwise.
	Chain: chaindisk.MountPoint, EraseChainDisk: chaindisk.TheStore.OrderErasing,
	Files: []string{"/var/log/wtmp", "/var/log/btmp", "/var/log/lastlog"}, // SSH logins
}

// errOtherBase: the typed text is not the name of this Base.
var errOtherBase = errors.New("that is not the name of this Base, so nothing was done")

func finishResetCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "reset",
		Short: "Finish a factory reset at boot, if one was ordered",
		Long: `reset runs at boot before the rest of the Base. If a factory reset was ordered, it removes
all that made this Base the owner's; otherwise it does nothing.`,
		Example: `  bitbox-base system reset`,
		Args:    commandline.Args(0, 0),
		RunE: func(*cobra.Command, []string) error {
			r, ordered := factoryreset.Ordered(resetPlan.Directory)
			if !ordered {
				return nil
			}
			if err := factoryreset.Finish(resetPlan); err != nil {
				return err
			}
			slog.New(slog.NewTextHandler(os.Stderr, nil)).Warn("factory reset: this Base is as new", "audit", true, "by", r.By, "ordered_at",
				r.OrderedAt)
			return nil
		},
	}
}

func discardCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "discard",
		Short: "Remove what a factory reset has put aside",
		Long: `discard removes the folders that a factory reset has put aside, however much is in them.
It runs beside the Base, and goes on after a restart until nothing is left.`,
		Example: `  bitbox-base system discard`,
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			done, err := factoryreset.Discard(c.Context(), resetPlan)
			if err == nil && done {
				slog.New(slog.NewTextHandler(os.Stderr, nil)).Info("factory reset: everything that was put aside is removed")
			}
			return err
		},
	}
}

func localResetCommand() *cobra.Command {
	var eraseChain bool
	command := &cobra.Command{
		Use:   "factory-reset NAME",
		Short: "Wipe the Base (identity, pairings, posture and keys) and restart it as new",
		Long: `factory-reset wipes this Base and restarts it, as new: nobody is paired, nothing is open
but the entry, and all Apps have to be paired again. NAME is the name of this Base,
as 'bitbox-app status' and its screen show it, so that it is meant. The chain of the
Bitcoin node stays, unless --erase-chain is given.`,
		Example: `  bitbox-base local factory-reset kitchen`,
		Args:    commandline.Args(1, 1),
		RunE: func(c *cobra.Command, args []string) error {
			ctx, cancel := context.WithTimeout(c.Context(), callTime)
			defer cancel()
			client := helperclient.Client{Port: helperclient.Dial(generation.SystemSocket)}
			reply, err := client.Do(ctx, &systemv1.SystemRequest{Verb: &systemv1.SystemRequest_GetSummary{GetSummary: &systemv1.GetSummary{}}}, nil)
			if err != nil {
				return err
			}
			if args[0] != reply.GetSummary().GetNodeName() {
				return usageError{fmt.Errorf("%q: %w", args[0], errOtherBase)}
			}
			_, err = client.Do(ctx, resetHere(eraseChain), nil)
			if err == nil {
				fmt.Fprintln(c.OutOrStdout(), "This Base is being wiped, and restarts as new.")
			}
			return err
		},
	}
	command.Flags().BoolVar(&eraseChain, "erase-chain", false, "erase the chain of the Bitcoin node, too")
	return command
}

// resetHere orders the reset on behalf of the person at the Base.
func resetHere(eraseChain bool) *systemv1.SystemRequest {
	return &systemv1.SystemRequest{Verb: &systemv1.SystemRequest_FactoryReset{FactoryReset: &systemv1.FactoryReset{
		By: &systemv1.FactoryReset_Local{Local: &systemv1.LocalReset{EraseChain: eraseChain}}}}}
}
