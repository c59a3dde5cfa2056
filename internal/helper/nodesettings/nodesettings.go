// Package nodesettings tells which Bitcoin node the Base runs, and has it run another one by an
// owner's order.
//
// An owner signs values, not lines. They are checked against their table, and written as one file
// (internal/node/settings). The units of the node read it when they start.
package nodesettings

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/atomicfile"
	"github.com/BitBoxSwiss/bitbox-base/internal/failpoint"
	"github.com/BitBoxSwiss/bitbox-base/internal/harmless"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/caller"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/generation"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/turns"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/units"
	"github.com/BitBoxSwiss/bitbox-base/internal/helperclient"
	"github.com/BitBoxSwiss/bitbox-base/internal/node/settings"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/posture"
	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
)

// restartTime is how long systemd may take to note that the node is to restart. The restart itself
// may take longer, and nobody waits for it.
const restartTime = 30 * time.Second

// Ledger takes what owners have signed.
type Ledger interface {
	Update(call func(l *posture.Ledger, now time.Duration) (posture.Output, error)) error
}

// Config is what a Settings is made of.
type Config struct {
	Place   settings.Place
	Ledger  Ledger
	Systemd units.Manager
	// Installed finds the program of some settings; nil: on this machine.
	Installed func(settings.Settings) error
	// Space is how large the disk of the chain is, in bytes; nil: the disk of Place.
	Space func() (uint64, error)
	// Turn is held while a service is changed.
	Turn turns.Turn
	Log  *slog.Logger
}

// Settings are those of the node of this Base.
type Settings struct{ config Config }

// New returns the Settings.
func New(c Config) *Settings {
	if c.Installed == nil {
		c.Installed = func(s settings.Settings) error {
			_, err := s.Find()
			return err
		}
	}
	if c.Space == nil {
		c.Space = func() (uint64, error) { return space(c.Place.Data) }
	}
	return &Settings{c}
}

// space is how large the disk of a directory is. systemd makes that of the node when the node starts
// for the first time: until then it is the disk that it will be on.
func space(directory string) (uint64, error) {
	var s syscall.Statfs_t
	err := syscall.Statfs(directory, &s)
	if errors.Is(err, fs.ErrNotExist) {
		err = syscall.Statfs(filepath.Dir(directory), &s)
	}
	if err != nil {
		return 0, reason.Errorf("ask how large the disk of %s is: %w", directory, err)
	}
	return s.Blocks * uint64(s.Bsize), nil
}

// Chosen is the node that was chosen for a Base, for the helper's signed report. The error is why its
// settings cannot be read, with the texts of libraries.
func Chosen(place settings.Place) (*basev1.ChosenNode, error) {
	chosen := &basev1.ChosenNode{}
	now, signed, err := place.Read()
	switch {
	case err == nil:
		chosen.Settings, chosen.Signed = now.Message(), signed
	case errors.Is(err, settings.ErrNone):
		err = nil
	}
	own, ownErr := place.ReadOwn()
	chosen.HasOwnLines = strings.TrimSpace(own) != ""
	err = cmp.Or(err, ownErr)
	if err != nil {
		const longest = 400 // bytes
		chosen.Fault = harmless.Cut(reason.Of(err), longest)
	}
	return chosen, err
}

// Change takes an owner's signed order. Either all of it is good, and is on the disk when it
// answers, or nothing has changed.
func (s *Settings) Change(ctx context.Context, _ *caller.Call, request *systemv1.ChangeNodeSettings) (*systemv1.SystemReply, error) {
	if err := s.config.Turn.Take(ctx); err != nil {
		return nil, err
	}
	defer s.config.Turn.End()
	var message *basev1.NodeSettings
	err := s.config.Ledger.Update(func(l *posture.Ledger, now time.Duration) (out posture.Output, err error) {
		message, out, err = l.ChangeNode(request.GetOrder(), now)
		return out, err
	})
	if err != nil {
		return nil, err
	}
	wanted, err := settings.FromMessage(message)
	if err == nil {
		err = s.check(wanted)
	}
	if err != nil {
		return nil, helperclient.Errorf(helperclient.CodeRefused, "%w; nothing was changed", err)
	}
	if err := s.store(wanted); err != nil {
		return nil, err
	}
	s.config.Log.Info("the settings of the node were changed", "audit", true, "settings", strings.Join(strings.Fields(wanted.Text()), " "))
	if err := failpoint.Reach("restart the node"); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), restartTime)
	defer cancel()
	// The watcher must not compare the old node with the new settings.
	if _, err := s.config.Systemd.Systemctl(ctx, "--no-block", "restart", generation.ChainUnit, generation.WatcherUnit); err != nil {
		return nil, helperclient.Errorf(helperclient.CodeInternal,
			"the settings are stored, but systemd does not restart the node: %w; restart the Base", err)
	}
	return &systemv1.SystemReply{}, nil
}

// Fit has the node prune, if its chain does not fit on a disk of a size in bytes. An owner has signed
// that the disk is too small for the whole chain. The settings count from the next start of the node,
// which the caller brings about.
func (s *Settings) Fit(ctx context.Context, size uint64) error {
	if err := s.config.Turn.Take(ctx); err != nil {
		return err
	}
	defer s.config.Turn.End()
	now, _, err := s.config.Place.Read()
	if errors.Is(err, settings.ErrNone) {
		return nil // each later order is compared with the disk
	}
	own, ownErr := s.config.Place.ReadOwn()
	if err := errors.Join(err, ownErr); err != nil {
		return helperclient.Errorf(helperclient.CodeRefused, "%w; nothing was changed", err)
	}
	if strings.Contains(own, "prune=") { // root decides about pruning there
		return nil
	}
	fitting, err := now.Fit(size)
	if err != nil {
		return helperclient.Errorf(helperclient.CodeRefused, "%w; nothing was changed", err)
	}
	if fitting == now {
		return nil
	}
	if err := s.store(fitting); err != nil {
		return err
	}
	s.config.Log.Warn("the node prunes, because its disk is small", "audit", true, "prune_gb", fitting.Prune)
	return nil
}

// store writes the settings that count from the next start of the node.
func (s *Settings) store(wanted settings.Settings) error {
	if err := failpoint.Reach("store the settings of the node"); err != nil {
		return err
	}
	const mode = 0o644 // the node's user reads it
	if err := atomicfile.WriteFileAtomic(s.config.Place.Signed, []byte(wanted.Text()), mode); err != nil {
		return helperclient.Errorf(helperclient.CodeStorage, "store the settings of the node: %w; nothing was changed", err)
	}
	return nil
}

// check compares settings with the machine.
func (s *Settings) check(wanted settings.Settings) error {
	if err := s.config.Installed(wanted); err != nil {
		if wanted.Program == settings.Core && wanted.Network == basev1.Network_NETWORK_MAINNET {
			return reason.Errorf("this Base has no mainnet node: %w", err)
		}
		return err
	}
	if err := wanted.CheckData(s.config.Place.Data); err != nil {
		return err
	}
	own, err := s.config.Place.ReadOwn()
	if err != nil {
		return err
	}
	if !strings.Contains(own, "prune=") { // root decides about pruning there
		if err := wanted.CheckPruned(s.config.Place.Data); err != nil {
			return err
		}
		total, err := s.config.Space()
		if err != nil {
			return err
		}
		return wanted.CheckSpace(total)
	}
	return nil
}
