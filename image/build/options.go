// Package build builds the image of the appliance: a root file system from Debian's packages and ours, which is verified
// block by block, a kernel that starts it, and a disk with both. docs/image.md describes the result.
package build

import (
	"cmp"
	"fmt"
	"os"
)

// Options are the choices of a person who builds an image.
type Options struct {
	// Architecture is amd64 or arm64.
	Architecture string
	// Package is the path of our Debian package, of that architecture. The image has its version.
	Package string
	// Init is the path of the program of the initrd, which MakeInit makes for that architecture.
	Init string
	// Out is the directory to make, with the files named below. It is there whole or not at all.
	Out string
	// Cache is the directory of Debian's parts, which are the same for many images.
	Cache string
	// Keys is the directory of the builder's Secure Boot keys (package secureboot). Without it nothing is signed.
	Keys string
	// Microsoft has machines accept what Microsoft has signed as well, such as the firmware of cards.
	Microsoft bool
	// Provision is a file for the EFI partition, which the first boot reads; "" is none.
	Provision string
	// Change, if it is not nil, changes the root before it is sealed. Tests have a way in by it, which no image has.
	Change func(root string) error
	// KernelArguments are added to the command line of the kernel. Tests have other kernels by it; an image has none.
	KernelArguments []string
	// Progress is told what begins; it may be nil.
	Progress func(what string)
}

// CacheDirectory is where builders of this machine keep Debian's parts: BITBOX_BASE_IMAGE_CACHE, or a directory that is
// in nobody's home, since root builds and a user calls it.
func CacheDirectory(getenv func(string) string) string {
	return cmp.Or(getenv("BITBOX_BASE_IMAGE_CACHE"), "/var/cache/bitbox-base-image")
}

// Files in the directory that Build makes.
const (
	// RootFile and VerityFile are the root file system and its hash tree: the bytes of a slot.
	RootFile   = "root.erofs"
	VerityFile = "root.verity"
	// UnsignedFile is what the firmware starts, the same bytes for everybody; EntryFile is the same, signed with the builder's
	// key. Without a key both are the same.
	UnsignedFile = "bitbox-base.unsigned.efi"
	EntryFile    = "bitbox-base.efi"
	// DiskFile is for a disk.
	DiskFile = "bitbox-base.img"
	// InfoFile is an Info as JSON.
	InfoFile = "image.json"
)

// Info says what an image is.
type Info struct {
	Version      string `json:"version"`
	Architecture string `json:"architecture"`
	Kernel       string `json:"kernel"`
	// RootHash is that of dm-verity, in hexadecimal digits.
	RootHash string `json:"rootHash"`
	// Archive is when Debian's archive was last changed that the image was made from, RFC 3339.
	Archive string `json:"archive"`
	Signed  bool   `json:"signed"`
	// Sizes of the files, in bytes.
	RootSize   int64 `json:"rootSize"`
	VeritySize int64 `json:"veritySize"`
	EntrySize  int64 `json:"entrySize"`
}

// Check refuses what cannot be built, before anything begins.
func (o Options) Check() error {
	if _, ok := architectures[o.Architecture]; !ok {
		return fmt.Errorf("there is no image for %q; amd64 and arm64 can be had", o.Architecture)
	}
	info, err := os.Stat(o.Package)
	if err != nil || !info.Mode().IsRegular() {
		return fmt.Errorf("the package %s is not there; `make package` makes it", o.Package)
	}
	if o.Provision != "" {
		if info, err := os.Stat(o.Provision); err != nil || !info.Mode().IsRegular() {
			return fmt.Errorf("the provisioning file %s is not there; `bitbox-app provision --to DIR` makes one", o.Provision)
		}
	}
	if o.Microsoft && o.Keys == "" {
		return fmt.Errorf("MICROSOFT=1 adds to the builder's Secure Boot keys, and there are none; `make secure-boot-keys` makes them")
	}
	return nil
}

// architecture is what differs between them.
type architecture struct {
	kernel   string // Debian's package
	machine  string // what the kernel calls it
	efi      string // what UEFI calls it
	fallback string // what a firmware starts that knows nothing of this disk
}

var architectures = map[string]architecture{
	"amd64": {"linux-image-amd64", "x86_64", "x64", "BOOTX64.EFI"},
	"arm64": {"linux-image-arm64", "aarch64", "aa64", "BOOTAA64.EFI"},
}
