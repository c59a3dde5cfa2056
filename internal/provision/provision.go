// Package provision is what the builder of an image gives it to take along.
//
// A file of the image's read-only part holds what is no secret and stays: a name, and
// SSH public keys, which let nobody in until an owner switches SSH on. Revision 0 of
// the posture is made from it. Two files of the writable part are for the first boot
// and gone afterwards: the keys of a Base that is born paired (package adoption), and
// a lease of SSH, if the builder has asked for one in so many words.
package provision

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/BitBoxSwiss/bitbox-base/internal/adoption"
	"github.com/BitBoxSwiss/bitbox-base/internal/atomicfile"
	"github.com/BitBoxSwiss/bitbox-base/internal/born"
	"github.com/BitBoxSwiss/bitbox-base/internal/posture"
	"github.com/BitBoxSwiss/bitbox-base/internal/sshaccess"
	"github.com/BitBoxSwiss/bitbox-base/internal/system"
)

const (
	// Path is the file, on the appliance and below an image's root. It is root's.
	Path = "/etc/bitbox-base/provision"
	// StateRoot is the directory of all state.
	StateRoot = "/var/lib/bitbox-base"

	hostnameFile = "/etc/hostname"
	maxSize      = 256 << 10
	maxHostname  = 63 // RFC 1035, section 2.3.4: a label
)

// ErrFile is what every refusal of Parse wraps.
var ErrFile = errors.New("not a provisioning file")

// Provision is the content of the file.
type Provision struct {
	// Hostname names the Base; empty: as it comes.
	Hostname string
	SSHKeys  []sshaccess.Key
}

// Keywords of the file. Each line is one, a space, and its value.
const (
	wordHostname = "hostname"
	wordKey      = "ssh-key"
)

// Parse reads the file: lines "hostname NAME" and "ssh-key KEY", in that order, and
// nothing else but comments.
func Parse(text string) (Provision, error) {
	var p Provision
	if len(text) > maxSize {
		return p, fmt.Errorf("%w: it is larger than %d bytes", ErrFile, maxSize)
	}
	number := 0
	for line := range strings.Lines(text) {
		number++
		line = strings.TrimSuffix(line, "\n")
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		word, value, _ := strings.Cut(line, " ")
		var err error
		switch {
		case word == wordHostname && p.Hostname == "" && len(p.SSHKeys) == 0:
			p.Hostname, err = value, CheckHostname(value)
		case word == wordKey:
			var key sshaccess.Key
			key, err = sshaccess.ParseKey(value)
			p.SSHKeys = append(p.SSHKeys, key)
		default:
			err = errors.New("it is neither one hostname, first, nor an ssh-key")
		}
		if err != nil {
			return Provision{}, fmt.Errorf("%w: line %d: %w", ErrFile, number, err)
		}
	}
	if err := p.Factory().Validate(); err != nil {
		return Provision{}, fmt.Errorf("%w: %w", ErrFile, err)
	}
	return p, nil
}

// Marshal is the reverse of Parse.
func (p Provision) Marshal() string {
	b := &strings.Builder{}
	b.WriteString("# What the builder of this image gave it to take along. No secret is here.\n")
	if p.Hostname != "" {
		fmt.Fprintf(b, "%s %s\n", wordHostname, p.Hostname)
	}
	for _, key := range p.SSHKeys {
		fmt.Fprintf(b, "%s %s\n", wordKey, key.Line)
	}
	return b.String()
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

// Read reads the file at path; without one nothing was given along. A file that
// others than root can write is refused.
func Read(path string) (Provision, error) {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return Provision{}, nil
	}
	if err == nil && (!info.Mode().IsRegular() || info.Mode().Perm()&0o022 != 0) {
		err = fmt.Errorf("%w: it is no regular file, or others may write it (mode %04o)", ErrFile, info.Mode().Perm())
	}
	var content []byte
	if err == nil {
		content, err = os.ReadFile(path)
	}
	var p Provision
	if err == nil {
		p, err = Parse(string(content))
	}
	if err != nil {
		return Provision{}, fmt.Errorf("read what the image was given along from %s: %w", path, err)
	}
	return p, nil
}

// CheckHostname takes what every system takes for a host name: letters, digits and
// hyphens (RFC 1123, section 2.1).
func CheckHostname(name string) error {
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-"
	if name == "" || len(name) > maxHostname || strings.Trim(name, letters) != "" || strings.ContainsFunc(name, func(r rune) bool { return !strings.ContainsRune(letters, r) }) ||
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
	// Born is the path of a provisioning file of package born.
	Born string
}

// Place checks a request, and writes what comes of it below root, the root directory
// of an image. Nothing is written unless all of it can be used. It returns what a
// person should know.
func Place(root string, request Request) ([]string, error) {
	p := Provision{Hostname: request.Hostname}
	var notes []string
	if p.Hostname != "" {
		if err := CheckHostname(p.Hostname); err != nil {
			return nil, err
		}
		notes = append(notes, "its name is "+p.Hostname)
	}
	if request.SSHKey != "" {
		key, err := sshaccess.ReadKeyFile(request.SSHKey)
		if err != nil {
			return nil, err
		}
		p.SSHKeys = append(p.SSHKeys, key)
		notes = append(notes, "the SSH key "+key.Fingerprint+" is built in; it lets nobody in until an owner switches SSH on")
	}
	lease := request.SSHFromFirstBoot
	switch {
	case lease == 0:
	case request.SSHKey == "":
		return nil, errors.New("SSH from the first boot on needs a key that may log in; give a public key too")
	case lease < posture.MinLease || lease > posture.MaxLease || lease%time.Second != 0:
		return nil, fmt.Errorf("SSH from the first boot on can last %v to %v, in whole seconds, not %v", posture.MinLease, posture.MaxLease, lease)
	default:
		notes[len(notes)-1] += fmt.Sprintf(", and for %v from the first boot on, until a reboot at the latest", lease)
	}
	half, err := readHalf(request.Born)
	if err != nil {
		return nil, err
	}
	if half != nil {
		notes = append(notes, fmt.Sprintf("it is born paired with the App %q as %q: it holds private keys, and is for one board only", half.AppName, half.BaseName))
	}
	if err := p.Factory().Validate(); err != nil {
		return nil, err
	}
	return notes, write(root, p, lease, half)
}

func readHalf(path string) (*born.Half, error) {
	if path == "" {
		return nil, nil
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("read the keys of a born-paired Base: %w", err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("%s holds private keys, and others may read it (mode %04o); make new ones: bitbox-app born", path, info.Mode().Perm())
	}
	if info.Size() != int64(born.FileSize) {
		return nil, fmt.Errorf("%s: %w", path, born.ErrFile)
	}
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the keys of a born-paired Base: %w", err)
	}
	half, err := born.Parse(content)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return half, nil
}

func write(root string, p Provision, lease time.Duration, half *born.Half) error {
	at := func(path ...string) string { return filepath.Join(append([]string{root}, path...)...) }
	if info, err := os.Stat(root); err != nil || !info.IsDir() {
		return fmt.Errorf("write into the image: %s is no directory (%v)", root, err)
	}
	type file struct {
		path            string
		directory, mode fs.FileMode
		content         []byte
	}
	files := []file{{at(Path), 0o755, 0o644, []byte(p.Marshal())}}
	if p.Hostname != "" {
		files = append(files, file{at(hostnameFile), 0o755, 0o644, []byte(p.Hostname + "\n")})
	}
	if lease != 0 {
		files = append(files, file{at(StateRoot, "system", system.FirstBootFile), 0o755, 0o600, system.FirstBoot(lease)})
	}
	if half != nil {
		files = append(files, file{at(StateRoot, adoption.Directory, adoption.File), 0o700, 0o600, half.Marshal()})
	}
	for _, f := range files {
		if err := os.MkdirAll(filepath.Dir(f.path), f.directory); err != nil {
			return fmt.Errorf("write into the image: %w", err)
		}
		if err := atomicfile.WriteFileAtomic(f.path, f.content, f.mode); err != nil {
			return fmt.Errorf("write into the image: %w", err)
		}
	}
	return nil
}
