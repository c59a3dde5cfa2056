package provision

import (
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"syscall"

	"github.com/BitBoxSwiss/bitbox-base/internal/atomicfile"
	"github.com/BitBoxSwiss/bitbox-base/internal/bootdisk"
	"github.com/BitBoxSwiss/bitbox-base/internal/failpoint"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/provisioning"
	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
)

// Files in the helper's directory. A factory reset removes them: the boot after it is a first
// boot again.
const (
	// givenFile is the provisioning file as it was taken; one without any line if there was
	// none. From its rename on the Base is provisioned.
	givenFile = "provision"
	// doneFile says that the file is gone from the EFI partition as well. From then on the
	// partition is only looked at.
	doneFile = "provision.done"

	givenMode = fs.FileMode(0o600)

	// maxErase is how many bytes of the file are overwritten at most. A file that is taken has
	// provisioning.MaxSize; somebody may have put a longer one in its place meanwhile.
	maxErase = 1 << 20
)

// LateFile is in the helper's directory while a provisioning file lies on the EFI partition that
// came too late, as of the last boot. The audit tells of it.
const LateFile = "provision.late"

// ESP is the EFI partition of the disk that the Base has started from.
type ESP interface {
	// With calls do with the partition as a directory; writable if it asks for that.
	With(writable bool, do func(directory string) error) error
}

// Config is what Install needs.
type Config struct {
	ESP ESP
	// State is the helper's directory. It is made if it is not there.
	State  string
	Logger *slog.Logger
}

// ErrRefused is what every refusal of the file wraps. The Base then stays closed, and nothing
// was changed: an owner who has asked for a Base without a display, or for one that is their
// App's, must not get one that takes the first App that comes.
var ErrRefused = reason.New("the provisioning file on the EFI partition is refused, and this Base stays closed: " +
	"put a good one in its place or remove it, then restart")

// Install takes the provisioning file, once. In this order, each step synced:
//
//  1. The file is read and checked. A bad one is refused.
//  2. It is written beside the helper's state under another name, and renamed: from here on the
//     Base is provisioned.
//  3. It is overwritten and removed from the EFI partition.
//  4. The marker of all that is made.
//
// After a power cut the next boot goes on. A file that comes after the marker changes nothing.
func Install(c Config) error {
	switch done, err := c.exists(doneFile); {
	case err != nil:
		return err
	case done:
		return c.lookForLate()
	}
	switch given, err := c.exists(givenFile); {
	case err != nil:
		return err
	case !given:
		if err := c.take(); err != nil {
			return err
		}
	}
	if err := c.ESP.With(true, c.erase); err != nil {
		return reason.Errorf("remove the provisioning file from the EFI partition: %w", err)
	}
	return c.write(doneFile, nil)
}

func (c Config) exists(name string) (bool, error) {
	_, err := os.Lstat(filepath.Join(c.State, name))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// take reads the file and keeps it.
func (c Config) take() error {
	var content []byte
	if err := c.ESP.With(false, func(directory string) (err error) {
		content, err = readFile(filepath.Join(directory, bootdisk.ProvisionFile))
		return err
	}); err != nil {
		return reason.Errorf("%w: %w", ErrRefused, err)
	}
	defer clear(content)
	var f provisioning.File
	if content == nil {
		c.Logger.Info("no provisioning file lies on the EFI partition: this Base is as it comes", "audit", true)
	} else {
		var err error
		if f, err = provisioning.Parse(content); err != nil {
			return reason.Errorf("%w: %w", ErrRefused, err)
		}
		c.Logger.Warn("this Base was provisioned", "audit", true, "name", f.Name, "ssh_keys", len(f.SSHKeys), "ssh_lease", f.SSHLease,
			"display", !f.NoDisplay, "claim", f.Claim != nil)
	}
	given, err := f.Marshal()
	if err != nil {
		return err
	}
	defer clear(given)
	return c.write(givenFile, given)
}

// readFile returns nil if there is no file.
func readFile(path string) ([]byte, error) {
	file, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer file.Close()
	if info, err := file.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, errors.Join(reason.New("it is no regular file"), err)
	}
	content, err := io.ReadAll(io.LimitReader(file, provisioning.MaxSize+1)) // Parse refuses the one byte more
	if err != nil {
		return nil, err
	}
	return append([]byte{}, content...), nil
}

// write writes a file into the helper's directory, atomically and synced.
func (c Config) write(name string, content []byte) error {
	if err := failpoint.Reach("write " + name); err != nil {
		return err
	}
	err := os.MkdirAll(c.State, 0o755)
	if err == nil {
		err = atomicfile.WriteFileAtomic(filepath.Join(c.State, name), content, givenMode)
	}
	if err != nil {
		return reason.Errorf("store what this Base was given: %w", err)
	}
	return failpoint.Reach("written " + name)
}

// erase overwrites the file, which helps on a disk that writes in place and hardly on flash
// memory, and removes it.
func (c Config) erase(directory string) error {
	path := filepath.Join(directory, bootdisk.ProvisionFile)
	file, err := os.OpenFile(path, os.O_WRONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = failpoint.Reach("overwrite")
	}
	if err != nil {
		return err
	}
	info, err := file.Stat()
	if err == nil {
		_, err = file.Write(make([]byte, min(info.Size(), maxErase)))
	}
	if err = errors.Join(err, file.Sync(), file.Close(), failpoint.Reach("remove")); err != nil {
		return err
	}
	if err := os.Remove(path); err != nil {
		return err
	}
	return errors.Join(atomicfile.SyncDir(directory), failpoint.Reach("removed"))
}

// lookForLate notes a file that came too late, for the audit.
func (c Config) lookForLate() error {
	late := false
	err := c.ESP.With(false, func(directory string) error {
		_, err := os.Lstat(filepath.Join(directory, bootdisk.ProvisionFile))
		late = err == nil
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	})
	if err != nil {
		// The Base works without knowing it.
		c.Logger.Error("cannot tell whether a provisioning file lies on the EFI partition", "error", err)
		return nil
	}
	if !late {
		return removeIfThere(filepath.Join(c.State, LateFile))
	}
	c.Logger.Warn("a provisioning file lies on the EFI partition, too late: this Base has had its first boot, and ignores it; "+
		"remove the file, or order a factory reset and then write it", "audit", true)
	return atomicfile.WriteFileAtomic(filepath.Join(c.State, LateFile), nil, givenMode)
}

func removeIfThere(path string) error {
	if err := os.Remove(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
