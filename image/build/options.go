// Package build builds images of the appliance: a root file system from Debian's packages and
// ours, and a disk that contains it.
package build

import (
	"fmt"
	"os"
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
	// Provision is a provisioning file that the first boot takes; "" is none.
	Provision string
	// Progress is told what begins; it may be nil.
	Progress func(what string)
}

// DefaultHostname is the name of a machine that was given none.
const DefaultHostname = "bitbox-base"

// Check refuses what cannot be built, before anything begins.
func (o Options) Check() error {
	if o.Architecture != "amd64" && o.Architecture != "arm64" {
		return fmt.Errorf("there is no image for %q; amd64 and arm64 can be had", o.Architecture)
	}
	if o.Provision != "" {
		if info, err := os.Stat(o.Provision); err != nil || !info.Mode().IsRegular() {
			return fmt.Errorf("the provisioning file %s is not there; `bitbox-app provision --to DIR` makes one", o.Provision)
		}
	}
	info, err := os.Stat(o.Package)
	if err != nil || !info.Mode().IsRegular() {
		return fmt.Errorf("the package %s is not there; `make package` makes it", o.Package)
	}
	return nil
}
