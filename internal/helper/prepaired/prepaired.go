// Package prepaired turns a board at its first boot into the Base of its image (see package
// protocol/prepaired). It makes the states of the Middleware and of the system helper from the
// image's provisioning file, and then erases the file.
//
// Nothing else runs meanwhile: every service with a state starts afterwards.
//
//	prepaired/half   the file, as the image has it
//	prepaired/made/  both states while they are made; without any effect
//	prepaired/ready/ both complete states: from this rename on the Base is pre-paired
//
// After an interruption at any point, the next boot goes on: incomplete states are made again,
// and complete ones are moved into place.
package prepaired

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/BitBoxSwiss/bitbox-base/internal/atomicfile"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/ledger"
	"github.com/BitBoxSwiss/bitbox-base/internal/middleware/registry"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/posture"
	keys "github.com/BitBoxSwiss/bitbox-base/internal/protocol/prepaired"
	"github.com/BitBoxSwiss/bitbox-base/internal/state"
)

// Names below the directory of all state.
const (
	// Directory is where the image has what is for the first boot only.
	Directory = "prepaired"
	// File is the provisioning file, in Directory.
	File = "half"

	made, ready    = "made", "ready"
	systemPart     = "system"
	middlewarePart = "middleware"
	middlewareFile = "middleware.db"
	lockSuffix     = ".lock"
	fileMode       = fs.FileMode(0o600)
	private        = fs.FileMode(0o700)
	systemMode     = fs.FileMode(0o755)
	maxOthers      = 0o077 // bits of a mode that let others in
)

// ErrRefused is what every refusal wraps.
var ErrRefused = errors.New("this Base cannot be pre-paired from its image")

// Config is what Install needs.
type Config struct {
	// Root is the directory of all state, /var/lib/bitbox-base.
	Root string
	// Factory is the posture of a new Base.
	Factory posture.Posture
	// FirstLease is ledger.Config.FirstLease.
	FirstLease time.Duration
	Clock      func() time.Duration
	BootID     string
	Logger     *slog.Logger

	// skipIdentity, in tests, is a Base that takes another image's keys.
	skipIdentity bool
	// inPlace, in tests, makes the states where they belong, not aside.
	inPlace bool
	// between, in tests, is called when one of the states is made and the other is not.
	between func() error
}

func (c Config) path(elements ...string) string {
	return filepath.Join(append([]string{c.Root}, elements...)...)
}

// Install makes the Base what its image says, once. Without a provisioning file it does
// nothing. A Base that has an identity is left as it is, and the file is erased.
func Install(c Config) error {
	if _, err := os.Lstat(c.path(Directory)); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err := c.install(); err != nil {
		return fmt.Errorf("%w: %w", ErrRefused, err)
	}
	return nil
}

func (c Config) install() error {
	switch _, err := os.Lstat(c.path(Directory, ready)); {
	case err == nil:
		return c.finish()
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	if err := os.RemoveAll(c.path(Directory, made)); err != nil {
		return err
	}
	// Before anything is read: the file may be one that was being erased.
	switch has, err := c.hasIdentity(); {
	case err != nil:
		return err
	case has && !c.skipIdentity:
		c.Logger.Warn("an image's keys lay here, but this Base has an identity already; they are erased", "audit", true)
		return c.erase()
	}
	half, err := c.read()
	if err != nil {
		return err
	}
	if half == nil {
		return os.RemoveAll(c.path(Directory))
	}
	if err := c.make(half); err != nil {
		return err
	}
	if err := os.Rename(c.path(Directory, made), c.path(Directory, ready)); err != nil {
		return err
	}
	if err := atomicfile.SyncDir(c.path(Directory)); err != nil {
		return err
	}
	c.Logger.Info("this Base was pre-paired with an App", "audit", true, "name", half.BaseName, "app", half.AppName)
	return c.finish()
}

// read returns nil if there is no file.
func (c Config) read() (*keys.Half, error) {
	path := c.path(Directory, File)
	file, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Mode().Perm()&maxOthers != 0 {
		return nil, fmt.Errorf("%s has the mode %04o, so others may have read its keys; build the image anew", path, info.Mode().Perm())
	}
	if info.Size() != int64(keys.FileSize) {
		return nil, fmt.Errorf("%s has %d bytes, not %d: %w; build the image anew", path, info.Size(), keys.FileSize, keys.ErrFile)
	}
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	defer clear(content)
	half, err := keys.Parse(content)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w; build the image anew", path, err)
	}
	return half, nil
}

// hasIdentity tells whether anything that would be made is there.
func (c Config) hasIdentity() (bool, error) {
	for _, path := range []string{
		c.path(systemPart, ledger.StateFile), c.path(systemPart, ledger.StateFile+lockSuffix),
	} {
		if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
			return err == nil, err
		}
	}
	entries, err := os.ReadDir(c.path(middlewarePart))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return len(entries) > 0, err
}

// make makes both states aside. Each syncs its own file.
func (c Config) make(half *keys.Half) error {
	at := c.path(Directory, made)
	if c.inPlace {
		at = c.Root
	}
	for _, directory := range []string{c.path(Directory, made), filepath.Join(at, systemPart), filepath.Join(at, middlewarePart)} {
		if err := os.MkdirAll(directory, private); err != nil {
			return err
		}
	}
	stateKey, err := ledger.MakePrePaired(ledger.Config{
		Directory: filepath.Join(at, systemPart), Factory: c.Factory, FirstLease: c.FirstLease, Clock: c.Clock, BootID: c.BootID,
		Logger: c.Logger,
	}, half)
	if err != nil {
		return err
	}
	if c.between != nil {
		if err := c.between(); err != nil {
			return err
		}
	}
	db, err := state.Open(filepath.Join(at, middlewarePart, middlewareFile),
		state.Options{Kind: registry.StateKind, Schema: registry.StateSchema, Create: true})
	if err != nil {
		return err
	}
	if err := errors.Join(registry.MakePrePaired(db, half, stateKey), db.Close()); err != nil {
		return err
	}
	return atomicfile.SyncDir(at)
}

// finish puts what is ready in its place, as often as it is called.
func (c Config) finish() error {
	if err := os.MkdirAll(c.path(systemPart), systemMode); err != nil {
		return err
	}
	if c.skipIdentity {
		if err := os.RemoveAll(c.path(middlewarePart)); err != nil {
			return err
		}
	}
	// The Middleware's directory goes as a whole: it replaces an empty one. systemd
	// gives it to the Middleware's user (StateDirectory= in its unit).
	if err := move(c.path(Directory, ready, middlewarePart), c.path(middlewarePart)); err != nil {
		return err
	}
	for _, name := range []string{ledger.StateFile + lockSuffix, ledger.StateFile} {
		if err := move(c.path(Directory, ready, systemPart, name), c.path(systemPart, name)); err != nil {
			return err
		}
	}
	for _, directory := range []string{c.path(systemPart), c.Root} {
		if err := atomicfile.SyncDir(directory); err != nil {
			return err
		}
	}
	return c.erase()
}

// move renames. A file that is missing was moved before.
func move(from, to string) error {
	if err := os.Rename(from, to); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// erase overwrites the file, which helps on disks but hardly on flash memory, and
// removes all that was for the first boot. The file goes first: while it is
// there, so is the proof that it was installed.
func (c Config) erase() error {
	path := c.path(Directory, File)
	file, err := os.OpenFile(path, os.O_WRONLY|syscall.O_NOFOLLOW, fileMode)
	if err == nil {
		_, err = file.Write(make([]byte, keys.FileSize))
		err = errors.Join(err, file.Sync(), file.Close(), os.Remove(path), atomicfile.SyncDir(c.path(Directory)))
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("erase %s: %w", path, err)
	}
	if err := os.RemoveAll(c.path(Directory)); err != nil {
		return err
	}
	return atomicfile.SyncDir(c.Root)
}
