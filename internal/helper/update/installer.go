package update

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"io"
	"log/slog"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/BitBoxSwiss/bitbox-base/internal/failpoint"
	"github.com/BitBoxSwiss/bitbox-base/internal/harmless"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/release"
	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
)

const (
	// proveTime is how long the Base may take to be well after an update, and calmTime how long
	// it has to stay so, several times what a process takes to fail and start again.
	proveTime = 2 * time.Minute
	calmTime  = 8 * time.Second
	// lookEvery is the pause between two looks at it.
	lookEvery = time.Second
	// maxBoots is how often a machine may be started in the middle of an update: once
	// may be a power cut, twice is the update's fault.
	maxBoots = 1
)

// Host is what an Installer does to the machine.
type Host interface {
	Machine
	// Occupy waits until no other program installs packages, and keeps them out until
	// free is called.
	Occupy(ctx context.Context) (free func(), err error)
	// ReadOnly tells whether the root file system is read-only.
	ReadOnly() (bool, error)
	// Remount makes it writable for this process and those that it starts, or read-only
	// again. Either may be asked for when it is so already.
	Remount(ctx context.Context, writable bool) error
	// Pack makes a package of what is installed.
	Pack(ctx context.Context, path string) error
	// Install installs a package, with whatever version.
	Install(ctx context.Context, path string) error
	// Restart makes systemd reload its units, and restarts the Base's.
	Restart(ctx context.Context) error
	// Reread makes systemd reload its units.
	Reread(ctx context.Context) error
	// Look tells how the Base is.
	Look(ctx context.Context) (Condition, error)
}

// Condition is how a Base is.
type Condition struct {
	// Down is what does not run that has to.
	Down []string
	// Odd lists faults of the Base. A fault from before the update is tolerated.
	Odd []string
	// Processes changes when a service restarts.
	Processes string
	// Hopeless: a service has failed so often that waiting any longer is of no use.
	Hopeless bool
}

// Installer installs what was staged. Whatever ends it, the next one goes on.
type Installer struct {
	Store Store
	Host  Host
	// Key is the release key.
	Key    ed25519.PublicKey
	Logger *slog.Logger

	// Prove, Calm and Look are replaced in tests; 0: proveTime and so on.
	Prove, Calm, Look time.Duration
}

// ErrRunning: another process installs.
var ErrRunning = reason.New("another update is under way already; wait until it has ended")

// Run takes an update to its end. An error means that it has not ended: the process was
// told to stop, or could not write its journal. An update that did not hold is no error.
func (i *Installer) Run(ctx context.Context) error {
	return i.locked(func() error {
		j, err := i.Store.Journal()
		if err != nil {
			return err
		}
		switch j.Phase {
		case Staged:
			err = i.install(ctx, &j)
		case Installing:
			err = i.back(ctx, &j, "it was cut off while it was being installed", true)
		case Checking:
			err = i.judge(ctx, &j)
		case Undoing:
			err = i.back(ctx, &j, j.Reason, true)
		}
		if err != nil {
			return err
		}
		return i.tidy()
	})
}

// Boot does what cannot wait until the Base runs, after a power cut: before
// anything of the package is started it has to be whole. Run does the rest.
func (i *Installer) Boot(ctx context.Context) error {
	return i.locked(func() error {
		j, err := i.Store.Journal()
		if err != nil || j.Phase == "" || j.Phase.Ended() {
			return err
		}
		j.Boots++
		if err := i.Store.write(j); err != nil {
			return err
		}
		switch {
		case j.Phase == Installing:
			return i.back(ctx, &j, "the machine was restarted while it was being installed", false)
		case j.Phase == Undoing:
			return i.back(ctx, &j, j.Reason, false)
		case j.Boots <= maxBoots:
			return nil // Run goes on
		case j.Phase == Checking:
			return i.back(ctx, &j, "the machine was restarted again and again with it", false)
		default:
			return i.end(&j, Undone, "the machine was restarted again and again before anything was changed")
		}
	})
}

// locked keeps a second Installer out.
func (i *Installer) locked(do func() error) error {
	file, err := os.OpenFile(i.Store.path(lockFile), os.O_CREATE|os.O_RDWR|syscall.O_CLOEXEC, 0o600)
	if err != nil {
		return reason.Errorf("begin with an update: %w", err)
	}
	defer func() { _ = file.Close() }()
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return ErrRunning
	}
	// Not by closing the file alone: a process that was just started may have it still.
	defer func() { _ = syscall.Flock(int(file.Fd()), syscall.LOCK_UN) }()
	return do()
}

// lockRoot makes the root file system read-only again if it was so before. That is
// impossible while a process runs whose file was replaced, so it comes after the restart.
func (i *Installer) lockRoot(ctx context.Context, j *Journal) {
	if !j.Writable {
		return
	}
	if err := i.Host.Remount(context.WithoutCancel(ctx), false); err != nil {
		// At the end it is tried again; the next start of the machine ends it in any case.
		if i.Logger != nil {
			i.Logger.Error("the root file system could not be made read-only again", "audit", true, "error", err)
		}
		return
	}
	j.Writable = false
}

// step writes down what is done next; then it may be done.
func (i *Installer) step(j *Journal, phase Phase, step string) error {
	j.Phase, j.Step = phase, step
	i.log("a step of an update", *j)
	if err := i.Store.write(*j); err != nil {
		return err
	}
	return failpoint.Reach(step)
}

func (i *Installer) log(message string, j Journal) {
	if i.Logger != nil {
		i.Logger.Info(message, "audit", true, "id", j.ID, "from", j.From, "to", j.To, "phase", j.Phase, "step", j.Step, "reason", j.Reason)
	}
}

// end is the last step.
func (i *Installer) end(j *Journal, phase Phase, reason string) error {
	i.lockRoot(context.Background(), j)
	j.Phase, j.Reason, j.Ended = phase, reason, time.Now().UTC()
	i.log("an update has ended", *j)
	return i.Store.write(*j)
}

// tidy removes the files that no update needs. previous.deb stays, for people.
func (i *Installer) tidy() error {
	j, err := i.Store.Journal()
	if err != nil || !j.Phase.Ended() {
		return err
	}
	return i.Store.remove(packageFile, headerFile, upgraderFile)
}

// install begins a staged update. Up to dpkg's first step nothing has changed, and
// whatever is wrong ends it.
func (i *Installer) install(ctx context.Context, j *Journal) error {
	err := i.prepare(ctx, j)
	switch {
	case ctx.Err() != nil:
		return ctx.Err() // staged it stays
	case err != nil:
		return i.end(j, Undone, "nothing was changed: "+sentence(i.Logger, err))
	}
	err = i.change(ctx, j, func(ctx context.Context) error {
		if err := i.step(j, Staged, "keep the previous version"); err != nil {
			return err
		}
		if err := i.Host.Pack(ctx, i.Store.path(previousFile)); err != nil {
			return err
		}
		if err := i.step(j, Installing, "install"); err != nil {
			return err
		}
		if err := i.Host.Install(ctx, i.Store.path(packageFile)); err != nil {
			return err
		}
		return i.step(j, Checking, "restart")
	})
	switch {
	case err != nil && j.Phase == Staged:
		return i.end(j, Undone, "nothing was changed: "+sentence(i.Logger, err))
	case err != nil:
		return i.back(ctx, j, "it could not be installed: "+sentence(i.Logger, err), true)
	}
	return i.judge(ctx, j)
}

// prepare verifies what was staged once more, for time has passed.
func (i *Installer) prepare(ctx context.Context, j *Journal) error {
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
	if err := i.isWhole(h); err != nil {
		return err
	}
	if _, err := isForThis(ctx, i.Host, h); err != nil {
		return err
	}
	if err := describes(ctx, i.Host, i.Store.path(packageFile), h); err != nil {
		return err
	}
	before, err := i.Host.Look(ctx)
	if err != nil {
		return err
	}
	j.Before = before.Odd
	return nil
}

func (i *Installer) isWhole(h release.Header) error {
	file, err := os.Open(i.Store.path(packageFile))
	if err != nil {
		return reason.Errorf("read the release: %w", err)
	}
	defer func() { _ = file.Close() }()
	hash := sha256.New()
	n, err := io.Copy(hash, io.LimitReader(file, int64(h.Size)+1))
	if err != nil {
		return reason.Errorf("read the release: %w", err)
	}
	if uint64(n) != h.Size || [sha256.Size]byte(hash.Sum(nil)) != h.Hash {
		return release.ErrDamaged
	}
	return nil
}

// change does something to the installed system. Once begun it is not interrupted by a
// request to stop: dpkg cut off is worse than waiting for it.
func (i *Installer) change(ctx context.Context, j *Journal, do func(context.Context) error) (err error) {
	ctx = context.WithoutCancel(ctx)
	free, err := i.Host.Occupy(ctx)
	if err != nil {
		return err
	}
	defer free()
	readOnly, err := i.Host.ReadOnly()
	if err != nil {
		return err
	}
	if readOnly {
		// Written down first: the process that goes on after a kill has to know.
		j.Writable = true
		if err := i.Store.write(*j); err != nil {
			return err
		}
		if err := i.Host.Remount(ctx, true); err != nil {
			return err
		}
	}
	return do(ctx)
}

// judge lets the new version prove itself.
func (i *Installer) judge(ctx context.Context, j *Journal) error {
	problem := i.proves(ctx, j)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case problem != nil:
		return i.back(ctx, j, "the Base was not well with it: "+sentence(i.Logger, problem), true)
	}
	return i.end(j, Done, "")
}

// proves restarts the Base, and returns what is not well with it after its time is up.
func (i *Installer) proves(ctx context.Context, j *Journal) error {
	if err := i.step(j, j.Phase, "restart"); err != nil {
		return err
	}
	if err := i.Host.Restart(ctx); err != nil {
		return err
	}
	i.lockRoot(ctx, j)
	if err := i.step(j, j.Phase, "look whether the Base is well"); err != nil {
		return err
	}
	return watch{i.Host.Look, i.Prove, i.Calm, i.Look}.well(ctx, j.Before)
}

// watch checks whether a Base is healthy.
type watch struct {
	at func(context.Context) (Condition, error)
	// prove, calm and look are 0 but in tests: proveTime and so on.
	prove, calm, look time.Duration
}

// well returns what is not well when the time is up; before is what was not so before.
func (w watch) well(ctx context.Context, before []string) error {
	prove, calm, look := orDefault(w.prove, proveTime), orDefault(w.calm, calmTime), orDefault(w.look, lookEvery)
	var wellSince time.Time
	processes := ""
	for deadline := time.Now().Add(prove); ; {
		condition, err := w.at(ctx)
		if err == nil {
			err = condition.problem(before)
		}
		if err == nil && condition.Processes != processes {
			processes, wellSince = condition.Processes, time.Time{}
			err = reason.New("its services are started again and again")
		} else if err == nil && wellSince.IsZero() {
			wellSince = time.Now()
		}
		switch now := time.Now(); {
		case err != nil && (now.After(deadline) || condition.Hopeless):
			return err
		case err != nil:
			wellSince = time.Time{}
		case now.Sub(wellSince) >= calm:
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(look):
		}
	}
}

// problem is what is not well and was not so before.
func (c Condition) problem(before []string) error {
	problems := slices.Clone(c.Down)
	for _, odd := range c.Odd {
		if !slices.Contains(before, odd) {
			problems = append(problems, odd)
		}
	}
	if len(problems) == 0 {
		return nil
	}
	return reason.New(strings.Join(problems, "; "))
}

func orDefault(value, usual time.Duration) time.Duration {
	if value == 0 {
		return usual
	}
	return value
}

// back installs the previous version. running tells whether the Base runs, and is to be
// restarted.
func (i *Installer) back(ctx context.Context, j *Journal, reason string, running bool) error {
	j.Reason = reason
	// The package is useless now, and the disk may be full.
	_ = i.Store.remove(packageFile)
	if err := i.step(j, Undoing, "go back to the previous version"); err != nil {
		return err
	}
	if err := i.change(ctx, j, func(ctx context.Context) error { return i.Host.Install(ctx, i.Store.path(previousFile)) }); err != nil {
		return i.end(j, Failed, reason+"; and the previous version could not be installed: "+sentence(i.Logger, err))
	}
	if err := failpoint.Reach("gone back"); err != nil {
		return err
	}
	if !running {
		if err := i.Host.Reread(ctx); err != nil && i.Logger != nil {
			i.Logger.Error("systemd did not reload its units", "error", err)
		}
		return i.end(j, Undone, reason)
	}
	problem := i.proves(ctx, j)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case problem != nil:
		reason += "; with the previous version the Base is not well either: " + sentence(i.Logger, problem)
	}
	return i.end(j, Undone, reason)
}

// maxSentence bounds a reason, in bytes.
const maxSentence = 600

// sentence is an error as a part of a reason, which the owner reads (package reason). The journal has
// the whole error.
func sentence(log *slog.Logger, err error) string {
	if log != nil {
		log.Error("an update failed", "audit", true, "error", err)
	}
	return harmless.Cut(reason.Of(err), maxSentence)
}
