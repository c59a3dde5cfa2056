package update

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"time"

	"github.com/BitBoxSwiss/bitbox-base/internal/atomicfile"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/slot"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/release"
	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
)

const (
	// bootProveTime is how long a Base may take to be well after a start of the machine.
	bootProveTime = 5 * time.Minute
	// confirmTime is how long a new version waits, once it is well, for the App that has
	// brought it.
	confirmTime = 15 * time.Minute
)

// Slots says what is in the slots of an image. The unit that looks after them writes it, for the
// system helper, which sees no disk.
type Slots struct {
	Running string `json:"running"`
	// Other is the version in the other slot; empty: none that starts.
	Other string `json:"other,omitempty"`
}

// Slots returns what was last seen; the zero Slots if nobody has looked.
func (s Store) Slots() (Slots, error) {
	b, err := readAtMost(s.path(slotsFile), maxJournalSize)
	if errors.Is(err, fs.ErrNotExist) {
		return Slots{}, nil
	}
	var slots Slots
	if err == nil {
		err = json.Unmarshal(b, &slots)
	}
	if err != nil {
		return Slots{}, reason.Errorf("read what is in the slots: %w", err)
	}
	return slots, nil
}

// confirmed tells whether an App has confirmed an update.
func (s Store) confirmed(id string) bool {
	b, err := readAtMost(s.path(confirmedFile), 2*uploadIDSize)
	return err == nil && string(b) == id
}

// AwaitsApp tells whether a version is on trial that an owner's App has to confirm.
func (j Journal) AwaitsApp() bool { return j.Phase == Checking && j.OnTrial }

// ImageHost is what an ImageInstaller does to the machine.
type ImageHost interface {
	Machine
	// Look tells how the Base is.
	Look(ctx context.Context) (Condition, error)
	// BootID names this start of the machine.
	BootID() (string, error)
	// Oldest is the oldest version that is allowed; empty: any.
	Oldest(ctx context.Context) (string, error)
	// Reboot restarts the machine, and does not wait.
	Reboot(ctx context.Context) error
}

// ImageInstaller looks after the slots of an image. Whatever ends it, the next one goes on.
//
// An update passes through the phases like that of a package. Staged and Installing are those of
// the previous version, which writes the other slot and restarts the machine. Checking is that of the
// new version. It is over when the Base was well and an App has confirmed it; else the machine is
// restarted with the previous version, which then ends the update.
type ImageInstaller struct {
	Store  Store
	Host   ImageHost
	Slots  *slot.Slots
	Key    ed25519.PublicKey
	Logger *slog.Logger

	// Prove, Calm, Look and Confirm are replaced in tests; 0: bootProveTime and so on.
	Prove, Calm, Look, Confirm time.Duration
}

// ErrRestarting: the machine restarts, and the next start goes on.
var ErrRestarting = reason.New("the machine restarts")

// Run does what was staged: it writes a release into the other slot, or goes back to it. At its
// end the machine restarts.
func (i *ImageInstaller) Run(ctx context.Context) error {
	j, err := i.Store.Journal()
	if err != nil {
		return err
	}
	boot, err := i.Host.BootID()
	if err != nil {
		return err
	}
	switch {
	case j.Phase == "" || j.Phase.Ended():
		return i.keepOldest(ctx)
	case j.From != i.Slots.Running:
		return nil // it is on trial
	case j.Phase == Checking && j.Boot == boot, j.Phase == Undoing && j.Boot == boot:
		return i.restart(ctx)
	case j.Phase != Staged && j.Phase != Installing:
		return nil // Settle ends it
	case j.Back:
		return i.goBack(ctx, &j, boot)
	}
	return i.write(ctx, &j, boot)
}

// step writes down what is done next.
func (i *ImageInstaller) step(j *Journal, phase Phase, step string) error {
	j.Phase, j.Step = phase, step
	i.log("a step of an update", *j)
	return i.Store.write(*j)
}

func (i *ImageInstaller) log(message string, j Journal) {
	if i.Logger != nil {
		i.Logger.Info(message, "audit", true, "id", j.ID, "from", j.From, "to", j.To, "phase", j.Phase, "step", j.Step, "reason", j.Reason)
	}
}

// end is the last step of an update.
func (i *ImageInstaller) end(j *Journal, phase Phase, reason string) error {
	j.Phase, j.Reason, j.Ended = phase, reason, time.Now().UTC()
	i.log("an update has ended", *j)
	return errors.Join(i.Store.write(*j), i.Store.remove(imageFile, headerFile, confirmedFile), i.note())
}

// note writes down what is in the slots.
func (i *ImageInstaller) note() error {
	slots := Slots{Running: i.Slots.Running}
	other, err := i.Slots.Other()
	switch {
	case err == nil:
		slots.Other = other.Version
	case !errors.Is(err, slot.ErrNoOther):
		return err
	}
	b, err := json.Marshal(slots)
	if err == nil {
		err = atomicfile.WriteFileAtomic(i.Store.path(slotsFile), append(b, '\n'), 0o600)
	}
	if err != nil {
		return reason.Errorf("write down what is in the slots: %w", err)
	}
	return nil
}

// keepOldest removes the other version if it is no longer allowed: then neither an order nor a failure
// goes back to it. It also clears a slot whose UKI is missing.
func (i *ImageInstaller) keepOldest(ctx context.Context) error {
	oldest, err := i.Host.Oldest(ctx)
	if err != nil {
		return err
	}
	other, err := i.Slots.Other()
	if errors.Is(err, slot.ErrNoOther) || err == nil && release.Below(other.Version, oldest) {
		err = i.Slots.Clear()
	}
	if err != nil {
		return err
	}
	return i.note()
}

// write puts the release into the other slot.
func (i *ImageInstaller) write(ctx context.Context, j *Journal, boot string) error {
	err := i.fill(ctx, j)
	switch {
	case ctx.Err() != nil:
		return ctx.Err() // it is begun again
	case err != nil:
		// The slot may be half written: nothing may start from it.
		if err := i.Slots.RemoveOther(); err != nil {
			return err // it is begun again
		}
		return i.end(j, Undone, "nothing of the running version was changed: "+sentence(i.Logger, err))
	}
	return i.leave(ctx, j, boot, nil)
}

func (i *ImageInstaller) fill(ctx context.Context, j *Journal) error {
	if err := i.step(j, Staged, "verify"); err != nil {
		return err
	}
	b, err := i.Store.header()
	if err != nil {
		return reason.Errorf("read the release: %w", err)
	}
	h, err := release.Verify(b, i.Key)
	if err != nil {
		return err
	}
	if _, err := isForThis(ctx, i.Host, h); err != nil {
		return err
	}
	if h.Version != j.To {
		return release.ErrDamaged
	}
	before, err := i.Host.Look(ctx)
	if err != nil {
		return err
	}
	j.Before = before.Odd
	file, err := os.Open(i.Store.path(imageFile))
	if err != nil {
		return reason.Errorf("read the release: %w", err)
	}
	defer func() { _ = file.Close() }()
	if _, err := h.Image.Whole(file); err != nil {
		return err
	}
	if _, err := file.Seek(0, 0); err != nil {
		return reason.Errorf("read the release: %w", err)
	}
	if err := i.step(j, Installing, "write the other slot"); err != nil {
		return err
	}
	return i.Slots.Write(h, file)
}

// leave writes down that the other version is on trial, has it start, and restarts the machine.
func (i *ImageInstaller) leave(ctx context.Context, j *Journal, boot string, start func() error) error {
	j.Boot = boot
	if err := i.step(j, Checking, "restart the machine with version "+j.To); err != nil {
		return err
	}
	if start != nil {
		if err := start(); err != nil {
			return err
		}
	}
	return i.restart(ctx)
}

func (i *ImageInstaller) restart(ctx context.Context) error {
	return errors.Join(i.Host.Reboot(ctx), ErrRestarting)
}

func (i *ImageInstaller) goBack(ctx context.Context, j *Journal, boot string) error {
	oldest, err := i.Host.Oldest(ctx)
	if err != nil {
		return err
	}
	other, err := i.Slots.Other()
	switch {
	case err != nil:
		return i.end(j, Undone, "nothing was changed: "+sentence(i.Logger, err))
	case other.Version != j.To || release.Below(other.Version, oldest):
		return i.end(j, Undone, "nothing was changed: version "+other.Version+" in the other slot is another one, or too old")
	}
	return i.leave(ctx, j, boot, func() error { return i.Slots.Try(j.To) })
}

// Settle is called once at each start of the machine. It returns when the Base is well and the
// running version is kept. Its caller may then report that the start has succeeded.
func (i *ImageInstaller) Settle(ctx context.Context) error {
	j, err := i.Store.Journal()
	if err != nil {
		return err
	}
	boot, err := i.Host.BootID()
	if err != nil {
		return err
	}
	open := j.Phase != "" && !j.Phase.Ended()
	switch {
	case open && j.To == i.Slots.Running && j.Phase != Undoing:
		return i.trial(ctx, &j, boot)
	case open && j.From == i.Slots.Running && (j.Phase == Checking || j.Phase == Undoing) && j.Boot != boot:
		if err := i.returned(&j); err != nil {
			return err
		}
	case open && j.To == i.Slots.Running:
		// It was given up, and starts all the same. To restart again and again helps nobody.
		if err := i.end(&j, Failed, j.Reason+"; and version "+j.From+" did not start"); err != nil {
			return err
		}
	case open && j.From != i.Slots.Running:
		if err := i.end(&j, Undone, "version "+i.Slots.Running+" was started, which is neither of the two"); err != nil {
			return err
		}
	}
	if err := i.well(ctx, nil); err != nil {
		return err
	}
	if err := i.Slots.Bless(); err != nil {
		return err
	}
	return i.keepOldest(ctx)
}

// well waits until the Base is.
func (i *ImageInstaller) well(ctx context.Context, before []string) error {
	if err := (watch{i.Host.Look, orDefault(i.Prove, bootProveTime), i.Calm, i.Look}).well(ctx, before); err != nil {
		return reason.Errorf("the Base is not well: %w", err)
	}
	return nil
}

// trial lets the running version prove itself.
func (i *ImageInstaller) trial(ctx context.Context, j *Journal, boot string) error {
	j.OnTrial = true
	if err := i.step(j, Checking, "look whether the Base is well"); err != nil {
		return err
	}
	err := i.well(ctx, j.Before)
	if err == nil {
		if err := i.step(j, Checking, "wait for the owner's App"); err != nil {
			return err
		}
		err = i.confirmed(ctx, j.ID)
	}
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		return i.giveUp(ctx, j, boot, sentence(i.Logger, err))
	}
	if err := i.Slots.Bless(); err != nil {
		return err
	}
	return i.end(j, Done, "")
}

// confirmed waits for the App.
func (i *ImageInstaller) confirmed(ctx context.Context, id string) error {
	limit := orDefault(i.Confirm, confirmTime)
	for deadline := time.Now().Add(limit); !i.Store.confirmed(id); {
		if time.Now().After(deadline) {
			return reason.Errorf("no App has confirmed it within %s", limit)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(orDefault(i.Look, lookEvery)):
		}
	}
	return nil
}

// giveUp restarts the machine with the previous version.
func (i *ImageInstaller) giveUp(ctx context.Context, j *Journal, boot, reason string) error {
	j.Reason, j.Boot = reason, boot
	if err := i.step(j, Undoing, "restart the machine with version "+j.From); err != nil {
		return err
	}
	if j.Back {
		if err := i.Slots.Restore(j.From); err != nil {
			return err
		}
	}
	if err := i.Slots.Abandon(); err != nil {
		return err
	}
	return i.restart(ctx)
}

// returned ends an update whose version did not stay.
func (i *ImageInstaller) returned(j *Journal) error {
	if j.Reason == "" {
		j.Reason = "version " + j.To + " did not start"
	}
	if j.Back {
		// Both versions are as good as before.
		if err := errors.Join(i.Slots.Bless(), i.Slots.Restore(j.To)); err != nil {
			return err
		}
	} else if err := i.Slots.RemoveOther(); err != nil {
		return err
	}
	return i.end(j, Undone, j.Reason)
}
