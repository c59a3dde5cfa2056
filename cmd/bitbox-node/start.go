package main

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/BitBoxSwiss/bitbox-base/internal/commandline"
	"github.com/BitBoxSwiss/bitbox-base/internal/node/clock"
	"github.com/BitBoxSwiss/bitbox-base/internal/node/core"
	"github.com/BitBoxSwiss/bitbox-base/internal/node/rebuild"
	"github.com/BitBoxSwiss/bitbox-base/internal/node/settings"
)

// errSettings is wrapped by the errors that another start would meet as well: systemd does not
// start the unit again then (RestartPreventExitStatus).
var errSettings = errors.New("the node is not started")

const startName = "start"

func startCommand() *cobra.Command {
	return &cobra.Command{
		Use:   startName,
		Short: "Start the node that the settings of this Base name",
		Long: `start reads ` + settings.SignedFile + `, which an owner has signed, or else
` + settings.File + `. It writes the configuration of the program that this names,
with a password that is new each time, and becomes that program. systemd starts it on the
appliance, as the user of the node. On a public network a node that may reach it waits first until
systemd-timesyncd has set the clock, for two minutes at most.

The settings are lines of a name and a value: program (core or btcd), network (mainnet, testnet4,
signet, regtest, simnet), prune (in GB), cache (in MiB), and block-every for btcd on regtest. Lines for the
configuration of the program itself are in ` + settings.OwnFile + `.`,
		Example: `  bitbox-node start`,
		Args:    commandline.Args(0, 0),
		RunE: func(*cobra.Command, []string) error {
			s, err := settings.Read()
			if err != nil {
				return fmt.Errorf("%w: %w", errSettings, err)
			}
			own, err := settings.At("/").ReadOwn()
			if err != nil {
				return fmt.Errorf("%w: %w", errSettings, err)
			}
			if err := s.CheckData(settings.Data); err != nil {
				return fmt.Errorf("%w: %w", errSettings, err)
			}
			file, err := s.Find()
			if err != nil {
				return fmt.Errorf("%w: %w", errSettings, err)
			}
			if err := awaitClock(s); err != nil {
				return err
			}
			if err := prepare(s, own); err != nil {
				return err
			}
			once, err := rebuild.Take(s)
			if err != nil {
				return err
			}
			// btcd makes a folder of its own in the home, whatever its configuration says.
			err = syscall.Exec(file, append(s.Arguments(file), once...), []string{"HOME=" + settings.Data, "PATH=/usr/bin"})
			return fmt.Errorf("start %s: %w", file, err)
		},
	}
}

// awaitClock waits for the time of the network, within a bound.
func awaitClock(s settings.Settings) error {
	gate := clock.Gate{Folder: clock.Folder, Synchronised: clock.Synchronised, LetOut: settings.LetOut, User: settings.SystemUser,
		Lock: settings.ClockLock, After: time.After}
	result, err := gate.Wait(s.Network)
	if result == clock.Late {
		newLogger().Warn("the clock was not set by the network; the node starts with the time of this machine", "waited", clock.Most)
	}
	return err
}

// prepare writes what the program reads. The unit's UMask lets the group read the credentials.
func prepare(s settings.Settings, own string) error {
	password, err := newPassword()
	if err != nil {
		return err
	}
	for _, folder := range s.Folders() {
		if err := os.MkdirAll(folder, 0o700); err != nil {
			return fmt.Errorf("make the folder of the node: %w", err)
		}
	}
	if login := s.LoginText(password); login != "" {
		if err := replace(s.Credentials(), login, 0o640); err != nil {
			return err
		}
	}
	return replace(s.Config(), s.Render(password, slices.Concat(core.Methods, core.WalletMethods), own), 0o600)
}

// replace puts a new file in the place of an old one, whose mode and readers it does not keep.
func replace(path, text string, mode fs.FileMode) error {
	fresh := path + ".new"
	err := errors.Join(removeIfThere(fresh), os.WriteFile(fresh, []byte(text), mode))
	if err == nil {
		err = os.Rename(fresh, path)
	}
	if err != nil {
		return fmt.Errorf("write what the node reads: %w", err)
	}
	return nil
}

func removeIfThere(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// newPassword makes a password for the node's RPC. It is in a file, since everybody can read the
// arguments of a program.
func newPassword() (string, error) {
	const size = 32
	random := make([]byte, size)
	if _, err := rand.Read(random); err != nil {
		return "", fmt.Errorf("make a password for the node: %w", err)
	}
	return hex.EncodeToString(random), nil
}
