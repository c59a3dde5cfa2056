package system

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/harmless"
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

// installDebianUpdates starts what installs Debian's updates each night, unless it runs
// already, and tells what it says until it has ended. It goes on if nobody listens:
// systemd runs it.
func (h *Helper) installDebianUpdates(ctx context.Context, who caller.Who, send func(*systemv1.SystemReply) error) error {
	give, err := h.readers.Take(who == caller.Middleware)
	if err != nil {
		return err
	}
	defer give()
	state, err := units.Show(ctx, h.config.Manager, services.DebianUpdatesUnit)
	if err != nil {
		return err
	}
	if state[0]["LoadState"] != "loaded" {
		return helperclient.Errorf(helperclient.CodeRefused,
			"this machine has nothing that installs Debian's updates; install the package unattended-upgrades")
	}
	h.mu.Lock()
	stopping := h.stopping
	h.mu.Unlock()
	if stopping {
		return helperclient.Errorf(helperclient.CodeBusy, "the machine is stopping")
	}
	since := time.Now()
	joined := state[0].Busy()
	if joined {
		if at := state[0].Time("StateChangeTimestamp"); at != nil {
			since = at.AsTime()
		}
	} else {
		h.log.Info("Debian's updates are being installed", "audit", true)
		if _, err := h.config.Manager.Systemctl(ctx, "--no-block", "start", services.DebianUpdatesUnit); err != nil {
			return helperclient.Errorf(helperclient.CodeInternal, "start the installation of Debian's updates: %w", err)
		}
	}
	tell := func(text string) error {
		return send(&systemv1.SystemReply{Result: &systemv1.SystemReply_Progress{Progress: &systemv1.Progress{Step: text}}})
	}
	first := "started"
	if joined {
		first = "it is running already"
	} else if err := h.refusedByCondition(ctx); err != nil {
		return err
	}
	err = tell(first)
	if err == nil {
		err = h.followInstallation(ctx, since, tell)
	}
	if err != nil && ctx.Err() != nil {
		return refusal.ErrNotAwaited // systemd goes on
	}
	if err != nil {
		return err
	}
	stamp, err := os.Stat(h.config.UpdateStamp)
	if err != nil || stamp.ModTime().Before(since.Truncate(time.Second)) {
		return helperclient.Errorf(helperclient.CodeInternal,
			"Debian's updates were not installed, or not all: what installs them did not end well; its log (debian-updates) says why")
	}
	// What waits now is not what waited before.
	h.mu.Lock()
	h.auditedVersion = 0
	h.mu.Unlock()
	if h.config.Auditor != nil {
		_ = tell("looking what still waits")
		if _, err := h.audit(ctx); err != nil && ctx.Err() == nil {
			return err
		}
	}
	return nil
}

// followInstallation returns when the installation has ended, with an error unless
// that was well.
func (h *Helper) followInstallation(ctx context.Context, since time.Time, tell func(string) error) error {
	reading, stop := context.WithCancel(ctx)
	defer stop()
	lines := make(chan string)
	read := make(chan error, 1)
	go func() {
		read <- journal.Follow(reading, h.config.Manager, services.DebianUpdatesUnit, since, func(text string) error {
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
			state, err := units.Show(ctx, h.config.Manager, services.DebianUpdatesUnit)
			if err != nil {
				return err
			}
			// It may have to wait for its turn first, as a job.
			if !state[0].Busy() && state[0].Number("Job") == 0 {
				ended, last = state[0], time.After(lastWordsTime)
			}
		case err := <-read:
			read <- nil // for the end
			return err
		case <-last:
			switch {
			case ended["ActiveState"] == "failed":
				return helperclient.Errorf(helperclient.CodeInternal, "Debian's updates could not be installed: %s", ended.Reason())
			case ended["ConditionResult"] == "no":
				return h.refusedByCondition(ctx)
			}
			return nil
		}
	}
}

// refusedByCondition says why systemd does not start the installation; nil: it does.
func (h *Helper) refusedByCondition(ctx context.Context) error {
	state, err := units.Show(ctx, h.config.Manager, services.DebianUpdatesUnit)
	if err != nil || state[0].Busy() || state[0].Number("Job") != 0 || state[0]["ConditionResult"] != "no" {
		return err
	}
	unmet, err := h.config.Manager.Unmet(ctx, services.DebianUpdatesUnit)
	if err != nil {
		return helperclient.Errorf(helperclient.CodeInternal, "ask systemd why Debian's updates are not installed: %w", err)
	}
	var reasons []string
	for _, condition := range unmet {
		reasons = append(reasons, conditionWords(condition))
	}
	if len(reasons) == 0 {
		reasons = []string{"a condition of its unit was not met, and is now; try again"}
	}
	return helperclient.Errorf(helperclient.CodeRefused, "Debian's updates were not installed: %s", strings.Join(reasons, "; "))
}

// conditionWords says what a condition of the unit wants, such as "ConditionACPower=true".
func conditionWords(condition string) string {
	s, found := services.BuiltIn().OfUnit(services.DebianUpdatesUnit)
	switch {
	case found && condition == s.Condition():
		return fmt.Sprintf("%s is switched off; enable it first", s.Name)
	case condition == "ConditionACPower=true":
		return "the machine is not on mains power"
	}
	return "a condition of its unit is not met: " + harmless.Line(harmless.Word(condition))
}
