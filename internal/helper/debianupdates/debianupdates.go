// Package debianupdates installs Debian's updates when an owner asks for it, by the unit that does
// so each night.
package debianupdates

import (
	"cmp"
	"context"
	"log/slog"
	"os"
	"strings"
	"time"

	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/caller"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/journal"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/refusal"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/services"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/units"
	"github.com/BitBoxSwiss/bitbox-base/internal/helperclient"
)

const (
	// lookEvery is how often it is looked whether the installation has ended.
	lookEvery = time.Second
	// lastWordsTime is how long its last lines are waited for then.
	lastWordsTime = 2 * time.Second
	// updateStamp is touched by Debian's apt.systemd.daily when all went well; its unit
	// ends well in any case.
	updateStamp = "/var/lib/apt/periodic/upgrade-stamp"
)

// Systemd is systemd and its journal.
type Systemd interface {
	units.Manager
	journal.Source
	units.Conditions
}

// Debian installs Debian's updates.
type Debian struct {
	config Config
}

// Config is what a Debian is made of.
type Config struct {
	Systemd Systemd
	Readers *journal.Readers
	// Stamp is the file that Debian touches when its updates were installed well; empty:
	// Debian's own.
	Stamp string
	// IsImage tells whether the machine runs the image, whose root file system nothing writes.
	IsImage func() bool
	// Stopping tells whether the machine is being stopped.
	Stopping func() bool
	// Renew looks again which updates wait.
	Renew func(ctx context.Context) error
	Log   *slog.Logger
}

// New returns a Debian.
func New(c Config) *Debian {
	c.Stamp = cmp.Or(c.Stamp, updateStamp)
	return &Debian{c}
}

// RefuseWhileInstalling refuses to stop the machine in the middle of an installation: it may not
// come back.
func (d *Debian) RefuseWhileInstalling(ctx context.Context) error {
	state, err := units.Show(ctx, d.config.Systemd, services.DebianUpdatesUnit)
	if err == nil && state[0].Busy() {
		err = helperclient.Errorf(helperclient.CodeBusy, "Debian's updates are being installed; wait until that has ended")
	}
	return err
}

// Install starts what installs Debian's updates each night, unless it runs
// already, and tells what it says until it has ended. It goes on if nobody listens:
// systemd runs it.
func (d *Debian) Install(ctx context.Context, c *caller.Call, _ *systemv1.InstallDebianUpdates) (*systemv1.SystemReply, error) {
	return &systemv1.SystemReply{}, d.install(ctx, c)
}

func (d *Debian) install(ctx context.Context, c *caller.Call) error {
	if d.config.IsImage() {
		return helperclient.Errorf(helperclient.CodeRefused,
			"this Base runs the image, so Debian's fixes come with its releases: look for one with bitbox-app update --check")
	}
	give, err := d.config.Readers.Take(c.Who == caller.Middleware)
	if err != nil {
		return err
	}
	defer give()
	state, err := units.Show(ctx, d.config.Systemd, services.DebianUpdatesUnit)
	if err != nil {
		return err
	}
	switch state[0]["LoadState"] {
	case "loaded":
	case "not-found":
		return helperclient.Errorf(helperclient.CodeRefused,
			"this machine has nothing that installs Debian's updates; install the package unattended-upgrades")
	default:
		return helperclient.Errorf(helperclient.CodeRefused, "Debian's updates were not installed: %s", state[0].Reason())
	}
	if d.config.Stopping() {
		return helperclient.Errorf(helperclient.CodeBusy, "the machine is stopping")
	}
	since := time.Now()
	joined := state[0].Busy()
	if joined {
		if at := state[0].Time("StateChangeTimestamp"); at != nil {
			since = at.AsTime()
		}
	} else {
		d.config.Log.Info("Debian's updates are being installed", "audit", true)
		if _, err := d.config.Systemd.Systemctl(ctx, "--no-block", "start", services.DebianUpdatesUnit); err != nil {
			return helperclient.Errorf(helperclient.CodeInternal, "start the installation of Debian's updates: %w", err)
		}
	}
	tell := func(text string) error {
		return c.Send(&systemv1.SystemReply{Result: &systemv1.SystemReply_Progress{Progress: &systemv1.Progress{Step: text}}})
	}
	first := "it is running already"
	if !joined {
		first = "started"
		err = d.awaitStart(ctx)
	}
	if err == nil {
		err = tell(first)
	}
	if err == nil {
		err = d.followInstallation(ctx, since, tell)
	}
	if err != nil && ctx.Err() != nil {
		return refusal.ErrNotAwaited // systemd goes on
	}
	if err != nil {
		return err
	}
	stamp, err := os.Stat(d.config.Stamp)
	if err != nil || stamp.ModTime().Before(since.Truncate(time.Second)) {
		return helperclient.Errorf(helperclient.CodeInternal,
			"Debian's updates were not installed, or not all: what installs them did not end well; its log (debian-updates) says why")
	}
	// The list of the updates that wait has changed.
	_ = tell("looking what still waits")
	if err := d.config.Renew(ctx); err != nil && ctx.Err() == nil {
		return err
	}
	return nil
}

// followInstallation returns when the installation has ended, with an error unless
// that was well.
func (d *Debian) followInstallation(ctx context.Context, since time.Time, tell func(string) error) error {
	reading, stop := context.WithCancel(ctx)
	defer stop()
	lines := make(chan string)
	read := make(chan error, 1)
	go func() {
		read <- journal.Follow(reading, d.config.Systemd, services.DebianUpdatesUnit, since, func(text string) error {
			select {
			case lines <- text:
				return nil
			case <-reading.Done():
				return reading.Err()
			}
		})
	}()
	defer func() {
		stop()
		<-read
	}()
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	var ended units.State
	var last <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case line := <-lines:
			if strings.TrimSpace(line) == "" {
				continue
			}
			if err := tell(line); err != nil {
				return err
			}
		case <-look.C:
			if ended != nil {
				continue
			}
			state, err := units.Show(ctx, d.config.Systemd, services.DebianUpdatesUnit)
			if err != nil {
				return err
			}
			if !state[0].Busy() {
				ended, last = state[0], time.After(lastWordsTime)
			}
		case err := <-read:
			read <- nil // for the end
			return err
		case <-last:
			switch {
			case ended["ActiveState"] == "failed":
				return helperclient.Errorf(helperclient.CodeInternal, "Debian's updates could not be installed: %s", ended.Reason())
			case ended.Refused(): // by an ExecCondition=, which runs after the start
				return d.refused(ctx)
			}
			return nil
		}
	}
}

// awaitStart returns when systemd has started the installation, which may have to wait for its turn.
// The error says why systemd does not start it.
func (d *Debian) awaitStart(ctx context.Context) error {
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	for {
		state, err := units.Show(ctx, d.config.Systemd, services.DebianUpdatesUnit)
		switch {
		case err != nil:
			return err
		case state[0].Busy():
			return nil
		case !state[0].Queued() && state[0].Refused():
			return d.refused(ctx)
		case !state[0].Queued():
			return nil // it has ended already
		}
		select {
		case <-look.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// refused is the error that says why systemd refused to start the installation.
func (d *Debian) refused(ctx context.Context) error {
	service, found := services.BuiltIn().OfUnit(services.DebianUpdatesUnit)
	if !found {
		return helperclient.Errorf(helperclient.CodeInternal, "there is no service of Debian's updates")
	}
	reasons, err := units.Unmet(ctx, d.config.Systemd, service)
	if err != nil {
		return helperclient.Errorf(helperclient.CodeInternal, "%w", err)
	}
	return helperclient.Errorf(helperclient.CodeRefused, "Debian's updates were not installed: %s", reasons)
}
