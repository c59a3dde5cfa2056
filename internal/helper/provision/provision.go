// Package provision reads the settings that the builder of an image has put into it.
//
// The files in [Directory], in the read-only part of the image, hold only public settings: a
// name; whether the Base has a display; SSH public keys, which let nobody in until an owner
// switches SSH on; and a lease of SSH from the first boot on, if the builder has asked for one
// explicitly. They make revision 0 of the posture, and the lease that follows it.
//
// The keys of a pre-paired Base (package prepaired) are in the writable part of the image, and
// are erased at the first boot.
package provision

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/BitBoxSwiss/bitbox-base/internal/atomicfile"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/prepaired"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/posture"
	keys "github.com/BitBoxSwiss/bitbox-base/internal/protocol/prepaired"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/sshkey"
)

const (
	// Directory is where a Base finds what it was given. It is root's.
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
	NoDisplay   = "none"

	hostnameFile = "/etc/hostname"
	maxSize      = 256 << 10
	maxHostname  = 63 // RFC 1035, section 2.3.4: a label
	maxOthers    = fs.FileMode(0o022)
)

// ErrFile is what every refusal of Read wraps.
var ErrFile = errors.New("it cannot be used")

// Provision is what a Base was given.
type Provision struct {
	// Hostname names the Base; empty: as it comes.
	Hostname string
	SSHKeys  []sshkey.Key
	// SSHLease is how long SSH is on from the first boot on; 0: it is off.
	SSHLease time.Duration
	// NoDisplay: an owner's App accepts and answers pairings in the place of somebody
	// at the Base. It is a fact of how the Base was made: nothing from the network
	// changes it.
	NoDisplay bool
}

// Factory is the posture of a new Base: revision 0.
func (p Provision) Factory() posture.Posture {
	factory := posture.Factory()
	if p.Hostname != "" {
		factory.NodeName = p.Hostname
	}
	factory.SSHKeys = p.SSHKeys
	return factory
}

// files are the content of Directory, by name.
func (p Provision) files() map[string]string {
	files := map[string]string{}
	if p.Hostname != "" {
		files[NameFile] = p.Hostname + "\n"
	}
	var keys strings.Builder
	for _, key := range p.SSHKeys {
		fmt.Fprintln(&keys, key.Line)
	}
	if keys.Len() > 0 {
		files[KeysFile] = keys.String()
	}
	if p.SSHLease != 0 {
		files[LeaseFile] = p.SSHLease.String() + "\n"
	}
	if p.NoDisplay {
		files[DisplayFile] = NoDisplay + "\n"
	}
	return files
}

// check looks at the whole.
func (p Provision) check() error {
	switch {
	case p.SSHLease == 0:
	case len(p.SSHKeys) == 0:
		return errors.New("SSH from the first boot on needs a key that may log in; give a public key too")
	case p.SSHLease < posture.MinLease || p.SSHLease > posture.MaxLease || p.SSHLease%time.Second != 0:
		return fmt.Errorf("SSH from the first boot on can last %v to %v, in whole seconds, not %v", posture.MinLease, posture.MaxLease,
			p.SSHLease)
	}
	return p.Factory().Validate()
}

// Read reads what a Base was given, strictly: files that others than root can write,
// and anything that is not understood, are refused. What is not there was not given.
func Read(directory string) (Provision, error) {
	var p Provision
	for name, parse := range map[string]func(line string) error{
		NameFile: func(line string) error {
			if p.Hostname != "" {
				return errors.New("it has more than one line")
			}
			p.Hostname = line
			return CheckHostname(line)
		},
		KeysFile: func(line string) error {
			key, err := sshkey.Parse(line)
			p.SSHKeys = append(p.SSHKeys, key)
			return err
		},
		LeaseFile: func(line string) (err error) {
			if p.SSHLease != 0 {
				return errors.New("it has more than one line")
			}
			p.SSHLease, err = time.ParseDuration(line)
			return err
		},
		DisplayFile: func(line string) error {
			if p.NoDisplay || line != NoDisplay {
				return fmt.Errorf("it has another line than one %q", NoDisplay)
			}
			p.NoDisplay = true
			return nil
		},
	} {
		if err := eachLine(filepath.Join(directory, name), parse); err != nil {
			return Provision{}, fmt.Errorf("read what this Base was given along: %s: %w: %w", filepath.Join(directory, name), ErrFile, err)
		}
	}
	if err := p.check(); err != nil {
		return Provision{}, fmt.Errorf("read what this Base was given along in %s: %w: %w", directory, ErrFile, err)
	}
	return p, nil
}

// eachLine calls parse for each line that is neither empty nor a comment.
func eachLine(path string, parse func(line string) error) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case !info.Mode().IsRegular() || info.Mode().Perm()&maxOthers != 0:
		return fmt.Errorf("it is no regular file, or others may write it (mode %04o)", info.Mode().Perm())
	case info.Size() > maxSize:
		return fmt.Errorf("it is larger than %d bytes", maxSize)
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
	if name == "" || len(name) > maxHostname || strings.Trim(name, letters) != "" ||
		strings.ContainsFunc(name, func(r rune) bool { return !strings.ContainsRune(letters, r) }) ||
		name[0] == '-' || name[len(name)-1] == '-' {
		return fmt.Errorf("%q is no host name; use 1 to %d letters, digits and hyphens, no hyphen at either end", name, maxHostname)
	}
	return nil
}

// Request is what a builder wants.
type Request struct {
	Hostname string
	// SSHKey is the path of a public key's file.
	SSHKey string
	// SSHFromFirstBoot leases SSH from the first boot on, once; 0: SSH stays off
	// until an owner switches it on.
	SSHFromFirstBoot time.Duration
	// PrePaired is the path of a provisioning file of package prepaired.
	PrePaired string
	// NoDisplay: the Base has no display. One that is pre-paired has none anyway.
	NoDisplay bool
}

// Place checks a request, and writes what comes of it below root, the root directory
// of an image. Nothing is written unless all of it can be used. It returns what a
// person should know.
func Place(root string, request Request) ([]string, error) {
	p := Provision{Hostname: request.Hostname, NoDisplay: request.NoDisplay || request.PrePaired != ""}
	var notes []string
	if p.Hostname != "" {
		if err := CheckHostname(p.Hostname); err != nil {
			return nil, err
		}
		notes = append(notes, "its name is "+p.Hostname)
	}
	if request.SSHKey != "" {
		keys, err := sshkey.ReadFile(request.SSHKey, "")
		if err != nil {
			return nil, err
		}
		p.SSHKeys = keys
		for _, key := range keys {
			notes = append(notes, "the SSH key "+key.Fingerprint+" is built in; it lets nobody in until an owner switches SSH on")
		}
	}
	if p.SSHLease = request.SSHFromFirstBoot; p.SSHLease != 0 {
		notes = append(notes, fmt.Sprintf("SSH is OPEN to these keys for %v from the first boot on, until a reboot at the latest", p.SSHLease))
	}
	if err := p.check(); err != nil {
		return nil, err
	}
	half, err := readHalf(request.PrePaired)
	if err != nil {
		return nil, err
	}
	if half != nil {
		notes = append(notes, fmt.Sprintf("it is pre-paired with the App %q as %q: it holds private keys, and is for one board only",
			half.AppName, half.BaseName))
	}
	if p.NoDisplay {
		notes = append(notes, "it has no display: an owner's App lets further Apps in, by words that the new App shows")
	}
	return notes, write(root, p, half)
}

func readHalf(path string) (*keys.Half, error) {
	if path == "" {
		return nil, nil
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("read the keys of a pre-paired Base: %w", err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("%s holds private keys, and others may read it (mode %04o); make new ones: bitbox-app prepair", path,
			info.Mode().Perm())
	}
	if info.Size() != int64(keys.FileSize) {
		return nil, fmt.Errorf("%s: %w", path, keys.ErrFile)
	}
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the keys of a pre-paired Base: %w", err)
	}
	half, err := keys.Parse(content)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return half, nil
}

func write(root string, p Provision, half *keys.Half) error {
	if info, err := os.Stat(root); err != nil || !info.IsDir() {
		return fmt.Errorf("write into the image: %s is no directory (%v)", root, err)
	}
	put := func(path string, directory, mode fs.FileMode, content []byte) error {
		path = filepath.Join(root, path)
		err := os.MkdirAll(filepath.Dir(path), directory)
		if err == nil {
			err = atomicfile.WriteFileAtomic(path, content, mode)
		}
		if err != nil {
			err = fmt.Errorf("write into the image: %w", err)
		}
		return err
	}
	for name, content := range p.files() {
		if err := put(filepath.Join(Directory, name), 0o755, 0o644, []byte(content)); err != nil {
			return err
		}
	}
	if p.Hostname != "" {
		if err := put(hostnameFile, 0o755, 0o644, []byte(p.Hostname+"\n")); err != nil {
			return err
		}
	}
	if half == nil {
		return nil
	}
	if err := os.MkdirAll(filepath.Join(root, StateRoot), 0o755); err != nil {
		return fmt.Errorf("write into the image: %w", err)
	}
	return put(filepath.Join(StateRoot, prepaired.Directory, prepaired.File), 0o700, 0o600, half.Marshal())
}
