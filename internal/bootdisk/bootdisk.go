// Package bootdisk says how the disk of the image is laid out: its partitions, the files on the EFI
// partition, and where a running Base finds all of them (docs/image.md). The maker of the image,
// its initrd, the writer of updates and the reader of the provisioning file share it.
package bootdisk

import (
	"encoding/hex"
	"fmt"
	"regexp"
	"strings"

	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
)

// Numbers of the partitions. The image holds the first three; the first boot makes the others.
const (
	ESP     = 1
	RootA   = 2
	VerityA = 3
	RootB   = 4
	VerityB = 5
	Data    = 6
)

// Sizes of the partitions, in bytes. They can never change on a disk that is in use: a release must
// fit in them for as long as there are Bases. A root takes about 350 MiB today.
const (
	ESPSize    = 1 << 30
	RootSize   = 2 << 30
	VeritySize = 32 << 20 // a hash tree of RootSize takes 16.2 MiB
	// MinDataSize is the least that the data partition needs; the first boot refuses a smaller disk.
	MinDataSize = 1 << 30
)

// Names of the partitions in the partition table. EmptyName is that of a root or hash tree that
// holds nothing: the B partitions until an update is written, and a slot while it is written.
const (
	ESPName    = "bitbox-base-esp"
	RootName   = "bitbox-base-root"
	VerityName = "bitbox-base-verity"
	EmptyName  = "_empty"
	DataName   = "bitbox-base-data"
)

// Types of the partitions, from the Discoverable Partitions Specification
// (https://uapi-group.org/specifications/specs/discoverable_partitions_specification).
const (
	ESPType  = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b"
	DataType = "4d21b016-b534-45c2-a9fb-5c16e091fd2d" // /var
)

// RootTypes and VerityTypes are the types of a root and its hash tree, for each architecture as Debian
// names it.
var (
	RootTypes   = map[string]string{"amd64": "4f68bce3-e8cd-4db1-96e7-fbcaf984b709", "arm64": "b921b045-1df0-41c3-af44-4c6f280d3fae"}
	VerityTypes = map[string]string{"amd64": "2c7357ed-ebd2-46d9-aec1-23d437ec2bf5", "arm64": "df3300ce-d69f-4c92-978c-9bfb0f38d820"}
)

// BlockSize is that of the root's data and of its hash tree, in bytes.
const BlockSize = 4096

// PartUUIDs returns the PARTUUIDs of a root and of its hash tree: the first and the last 128 bits of the root
// hash, as the Discoverable Partitions Specification says. The hash is SHA-256 in 64 hexadecimal digits.
func PartUUIDs(rootHash string) (root, verity string, err error) {
	b, err := hex.DecodeString(rootHash)
	if err != nil || len(b) != 32 || strings.ToLower(rootHash) != rootHash {
		return "", "", reason.Errorf("read the root hash %q: it is not 64 hexadecimal digits in lower case", rootHash)
	}
	uuid := func(b []byte) string { return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:]) }
	return uuid(b[:16]), uuid(b[16:]), nil
}

// ImageID is IMAGE_ID in os-release. The boot loader starts the newest IMAGE_VERSION of it.
const ImageID = "bitbox-base"

const (
	// EntryDirectory is where the boot loader looks for versions, on the ESP.
	EntryDirectory = "EFI/Linux"
	// Tries is how often the boot loader starts a new version that does not say that it is well.
	Tries = 3
	// ProvisionFile is what an owner's App may have left on the ESP, at its root.
	ProvisionFile = "bitbox-base.provision"
)

// A Base finds its boot disk here. The initrd makes links with the names below to the devices of the
// partitions, and the file Slot.
const (
	Directory = "/run/bitbox-base-disk"

	ESPLink     = "esp"
	RootALink   = "root-a"
	VerityALink = "verity-a"
	RootBLink   = "root-b"
	VerityBLink = "verity-b"
	DataLink    = "data"
	// SlotFile holds "a" or "b", and a line feed: the slot that runs.
	SlotFile = "slot"
)

// RootHashArgument names the root hash on the kernel's command line.
const RootHashArgument = "roothash="

// RootHash returns the root hash that a kernel's command line names. There must be exactly one.
func RootHash(commandLine string) (string, error) {
	var found []string
	for _, argument := range strings.Fields(commandLine) {
		if hash, ok := strings.CutPrefix(argument, RootHashArgument); ok {
			found = append(found, hash)
		}
	}
	if len(found) != 1 {
		return "", reason.Errorf("read the kernel's command line: it names %d root hashes, not one", len(found))
	}
	if _, _, err := PartUUIDs(found[0]); err != nil {
		return "", reason.Errorf("read the kernel's command line: %w", err)
	}
	return found[0], nil
}

var versions = regexp.MustCompile(`^[0-9][0-9A-Za-z.+~:-]{0,63}$`)

// EntryName returns the name of a version's file in EntryDirectory. tries is how often the boot loader may start it
// until it says that it is well; 0 is for a version that need not. A plus sign and a colon of the version are replaced:
// the boot loader would read "+3" as a number of tries, and FAT has no colon in names.
func EntryName(version string, tries int) (string, error) {
	if !versions.MatchString(version) {
		return "", reason.New("name a file on the ESP: that is no version of this software")
	}
	name := ImageID + "_" + strings.NewReplacer("+", "_", ":", "=").Replace(version)
	if tries > 0 {
		name += fmt.Sprintf("+%d-0", tries)
	}
	return name + ".efi", nil
}
