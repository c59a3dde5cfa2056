// Package provision tells a Base what its owner has chosen for it.
//
// On the image, the owner's choices are in a file on the EFI partition (package
// protocol/provisioning). [Install] takes it at the first boot, once. On a Debian that was made a
// Base there is no such file; the same choices, without a claim, are small files of root's in
// [Directory]. [Read] returns what counts.
//
// The choices make revision 0 of the posture and the lease that follows it, and say which App may
// claim the Base.
package provision

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/BitBoxSwiss/bitbox-base/internal/atomicfile"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/provisioning"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/sshkey"
	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
	"github.com/BitBoxSwiss/bitbox-base/internal/timespan"
)

const (
	// Directory is where a Debian that was made a Base has its choices. It is root's.
	Directory = "/etc/bitbox-base"
	// StateRoot is the directory of all state.
	StateRoot = "/var/lib/bitbox-base"

	// Files in Directory. KeysFile has an SSH public key a line.
	NameFile  = "hostname"
	KeysFile  = "authorized_keys"
	LeaseFile = "ssh-lease"
	// DisplayFile has NoDisplay in it where nobody can stand before the Base and compare a
	// code. Without the file there is a display.
	DisplayFile = "display"
	NoDisplay   = provisioning.NoDisplay

	maxSize     = 256 << 10
	maxHostname = 63 // RFC 1035, section 2.3.4: a label
	maxOthers   = fs.FileMode(0o022)
)

// ErrFile is what every refusal of Read wraps.
var ErrFile = reason.New("it cannot be used")

// Read returns the provisioning file of a Base: the one that Install has taken into the helper's
// directory state, else the one in directory. Without either it is empty.
func Read(state, directory string) (provisioning.File, error) {
	content, err := os.ReadFile(filepath.Join(state, givenFile))
	if errors.Is(err, fs.ErrNotExist) {
		return readDirectory(directory)
	}
	defer clear(content)
	var f provisioning.File
	if err == nil {
		f, err = provisioning.Parse(content)
	}
	if err != nil {
		return provisioning.File{}, reason.Errorf("read what this Base was given: %s: %w: %w", filepath.Join(state, givenFile), ErrFile, err)
	}
	return f, nil
}

// ForgetClaim removes a claim that is over from what Install has taken. Repeating it is harmless.
func ForgetClaim(state string) error {
	f, err := Read(state, os.DevNull)
	if err != nil || f.Claim == nil {
		return err
	}
	f.Claim = nil
	content, err := f.Marshal()
	if err == nil {
		err = atomicfile.WriteFileAtomic(filepath.Join(state, givenFile), content, givenMode)
	}
	if err != nil {
		return reason.Errorf("forget the claim of this Base: %w", err)
	}
	return nil
}

// readDirectory is strict: files that others than root can write, and anything that is not
// understood, are refused.
func readDirectory(directory string) (provisioning.File, error) {
	var f provisioning.File
	for name, parse := range map[string]func(line string) error{
		NameFile: func(line string) error {
			if f.Name != "" {
				return reason.New("it has more than one line")
			}
			f.Name = line
			return CheckHostname(line)
		},
		KeysFile: func(line string) error {
			key, err := sshkey.Parse(line)
			f.SSHKeys = append(f.SSHKeys, key)
			return err
		},
		LeaseFile: func(line string) (err error) {
			if f.SSHLease != 0 {
				return reason.New("it has more than one line")
			}
			f.SSHLease, err = timespan.Parse(line)
			return err
		},
		DisplayFile: func(line string) error {
			if f.NoDisplay || line != NoDisplay {
				return reason.Errorf("it has another line than one %q", NoDisplay)
			}
			f.NoDisplay = true
			return nil
		},
	} {
		if err := eachLine(filepath.Join(directory, name), parse); err != nil {
			return provisioning.File{}, reason.Errorf("read what this Base was given: %s: %w: %w", filepath.Join(directory, name), ErrFile, err)
		}
	}
	if err := f.Check(); err != nil {
		return provisioning.File{}, reason.Errorf("read what this Base was given in %s: %w: %w", directory, ErrFile, err)
	}
	return f, nil
}

// eachLine calls parse for each line that is neither empty nor a comment.
func eachLine(path string, parse func(line string) error) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR):
		return nil
	case err != nil:
		return err
	case !info.Mode().IsRegular() || info.Mode().Perm()&maxOthers != 0:
		return reason.Errorf("it is no regular file, or others may write it (mode %04o)", info.Mode().Perm())
	case info.Size() > maxSize:
		return reason.Errorf("it is larger than %d bytes", maxSize)
	}
	content, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(content)) {
		line = strings.TrimSuffix(line, "\n")
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		if err := parse(line); err != nil {
			return err
		}
	}
	return nil
}

// CheckHostname takes what every system takes for a host name: letters, digits and
// hyphens (RFC 1123, section 2.1).
func CheckHostname(name string) error {
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-"
	if name == "" || len(name) > maxHostname ||
		strings.ContainsFunc(name, func(r rune) bool { return !strings.ContainsRune(letters, r) }) ||
		name[0] == '-' || name[len(name)-1] == '-' {
		return reason.Errorf("%q is no host name; use 1 to %d letters, digits and hyphens, no hyphen at either end", name, maxHostname)
	}
	return nil
}
