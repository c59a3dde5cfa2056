// Package build makes images of the appliance: a root file system from Debian's
// packages and ours, and a disk with it.
package build

import (
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
	"time"

	"github.com/BitBoxSwiss/bitbox-base/internal/posture"
	"github.com/BitBoxSwiss/bitbox-base/internal/sshaccess"
)

// Options are what whoever builds an image may choose.
type Options struct {
	// Architecture is amd64 or arm64.
	Architecture string
	// Package is the path of our Debian package, of that architecture.
	Package string
	// Out is the file to make. It is there whole or not at all.
	Out string
	// Cache is the directory of Debian's part, which is the same for many images.
	Cache string
	// Hostname is the machine's name; "" is DefaultHostname.
	Hostname string
	// SSHKey is the path of a public key to build in; "" is none.
	SSHKey string
	// SSHLease opens SSH for that long from the first boot; 0 leaves it off until an
	// owner switches it on.
	SSHLease time.Duration
	// Provision is a directory whose files are laid over the root, for what makes
	// one image differ from another; "" is none. They may be secret, so the image is
	// its owner's alone to read then.
	Provision string
	// Progress is told what begins; it may be nil.
	Progress func(what string)
}

// DefaultHostname is the name of a machine that was given none.
const DefaultHostname = "bitbox-base"

// hostname is a label of RFC 1123, section 2.1, in small letters.
var hostname = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

// Check refuses what cannot be built, before anything begins.
func (o Options) Check() error {
	if o.Architecture != "amd64" && o.Architecture != "arm64" {
		return fmt.Errorf("there is no image for %q; amd64 and arm64 can be had", o.Architecture)
	}
	if o.Hostname != "" && !hostname.MatchString(o.Hostname) {
		return fmt.Errorf("HOSTNAME=%q is no name for a machine: at most 63 small letters, digits and hyphens, with no hyphen at either end", o.Hostname)
	}
	if o.SSHLease != 0 {
		if o.SSHKey == "" {
			return errors.New("SSH_LEASE_FROM_FIRST_BOOT without SSH_KEY would open a port that lets nobody in; name a public key too")
		}
		if o.SSHLease < posture.MinLease || o.SSHLease > posture.MaxLease {
			return fmt.Errorf("SSH_LEASE_FROM_FIRST_BOOT=%v is no lease; one lasts %v to %v", o.SSHLease, posture.MinLease, posture.MaxLease)
		}
	}
	if o.SSHKey != "" {
		if _, err := readSSHKey(o.SSHKey); err != nil {
			return err
		}
	}
	if o.Provision != "" {
		if err := checkProvision(o.Provision); err != nil {
			return err
		}
	}
	info, err := os.Stat(o.Package)
	if err != nil || !info.Mode().IsRegular() {
		return fmt.Errorf("the package %s is not there; `make package` makes it", o.Package)
	}
	return nil
}

// maxKeyFile is far more than a public key takes.
const maxKeyFile = 64 << 10

// readSSHKey reads the one public key that is to be built in, and writes it anew.
func readSSHKey(path string) (line string, err error) {
	file, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("read the SSH key: %w; SSH_KEY names the file of a public key, such as ~/.ssh/id_ed25519.pub", err)
	}
	defer file.Close()
	content, err := io.ReadAll(io.LimitReader(file, maxKeyFile))
	if err != nil {
		return "", fmt.Errorf("read the SSH key %s: %w; SSH_KEY names the file of a public key", path, err)
	}
	text := string(content)
	// OpenSSH's and PEM's private keys, and PuTTY's.
	if strings.Contains(text, "PRIVATE KEY") || strings.HasPrefix(text, "PuTTY-User-Key-File") {
		return "", fmt.Errorf("SSH_KEY=%s IS A PRIVATE KEY: it must never leave your computer, and nothing was built; give the public one, %s.pub", path, path)
	}
	key, err := sshaccess.ParseKey(text)
	if err != nil {
		return "", fmt.Errorf("SSH_KEY=%s: %w; give the file of a public key, such as ~/.ssh/id_ed25519.pub", path, err)
	}
	return key.Line, nil
}
