package build

import (
	"crypto/rand"
	"fmt"
	"io"
	"strings"

	"github.com/BitBoxSwiss/bitbox-base/internal/testbed/debianroot"
)

// disk is the layout of an image: what its partitions are called, and where they
// lie. Each image has its own names, so that a board with two disks is never in
// doubt which is meant.
type disk struct {
	id                     string
	efi, root, data        partition
	rootSystem, dataSystem string // UUIDs of the file systems
}

type partition struct {
	id          string
	start, size int64 // bytes
}

const (
	mebibyte   = 1 << 20
	sectorSize = 512
	// efiSize holds the boot loader, and is the least that FAT32 fits in well.
	efiSize = 64 * mebibyte
	// rootSize holds two kernels and their successor while it is being installed, with as
	// much to spare.
	rootSize = 2560 * mebibyte
	// dataSize is what the data partition has until it grows to the disk at boot.
	dataSize = 1024 * mebibyte
)

// newDisk draws names for an image. random nil means the system's generator.
func newDisk(random io.Reader) (disk, error) {
	if random == nil {
		random = rand.Reader
	}
	d := disk{
		efi:  partition{start: mebibyte, size: efiSize},
		root: partition{start: mebibyte + efiSize, size: rootSize},
		data: partition{start: mebibyte + efiSize + rootSize, size: dataSize},
	}
	for _, id := range []*string{&d.id, &d.efi.id, &d.root.id, &d.data.id, &d.rootSystem, &d.dataSystem} {
		var b [16]byte
		if _, err := io.ReadFull(random, b[:]); err != nil {
			return disk{}, fmt.Errorf("draw names for the image: %w", err)
		}
		// Version 4, variant 1: RFC 9562.
		b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
		*id = fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
	}
	return d, nil
}

// size is that of the whole image. The second copy of the partition table lies
// behind the last partition.
func (d disk) size() int64 { return d.data.start + d.data.size + mebibyte }

// Kinds of partitions, from the Discoverable Partitions Specification. The data
// partition's is by which systemd-repart finds it (usr/lib/repart.d).
const (
	kindEFI  = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b"
	kindRoot = "4f68bce3-e8cd-4db1-96e7-fbcaf984b709" // of x86-64
	kindData = "4d21b016-b534-45c2-a9fb-5c16e091fd2d" // /var
)

// table is the partition table for sfdisk.
func (d disk) table() string {
	text := fmt.Sprintf("label: gpt\nlabel-id: %s\nunit: sectors\n", d.id)
	for _, p := range []struct {
		partition
		kind, name string
	}{{d.efi, kindEFI, "bitbox-base-efi"}, {d.root, kindRoot, "bitbox-base-root"}, {d.data, kindData, "bitbox-base-data"}} {
		text += fmt.Sprintf("start=%d, size=%d, type=%s, uuid=%s, name=%q\n", p.start/sectorSize, p.size/sectorSize, p.kind, p.id, p.name)
	}
	return text
}

// fstab says what is mounted where.
func (d disk) fstab() string {
	return fmt.Sprintf(`# The root is read-only; state is on the data partition, which grows to the disk.
PARTUUID=%s / ext4 ro,noatime 0 1
PARTUUID=%s /var ext4 noatime,nodev,nosuid,usrquota,x-systemd.growfs 0 2
tmpfs /tmp tmpfs nodev,nosuid,size=25%%,mode=1777 0 0
# Memory that programs share holds no programs.
tmpfs /dev/shm tmpfs nodev,nosuid,noexec 0 0
`, d.root.id, d.data.id)
}

// kernelArguments are those beside the root's.
//
// A panic ends in a new start after ten seconds. No login prompt anywhere, and no
// partition mounted that fstab does not name. The rest makes faults of the kernel
// harder to use: memory is wiped when it is given out, caches of different kinds are
// kept apart, stacks move about, and an old way into the kernel at a fixed address is closed.
const kernelArguments = "ro quiet loglevel=3 panic=10 systemd.getty_auto=no systemd.gpt_auto=no " +
	"init_on_alloc=1 slab_nomerge page_alloc.shuffle=1 randomize_kstack_offset=on vsyscall=none debugfs=off"

// grub is the boot loader's configuration. It has no menu, and its own
// command line wants a password that nobody has. Debian's packages keep the links
// /vmlinuz and /initrd.img, so that it never changes; an update of the kernel that
// was cut leaves the one before.
func (d disk) grub() string {
	return fmt.Sprintf(`set superusers="nobody"
export superusers
search --no-floppy --fs-uuid --set=root %[1]s
if linux /vmlinuz root=PARTUUID=%[2]s %[3]s; then
  if initrd /initrd.img; then boot; fi
fi
if linux /vmlinuz.old root=PARTUUID=%[2]s %[3]s; then
  if initrd /initrd.img.old; then boot; fi
fi
`, d.rootSystem, d.root.id, kernelArguments)
}

// archiveList is where Debian's apt says where Debian's archives are.
const archiveList = "usr/share/doc/apt/examples/sources.list"

// sources are Debian's own archives, whatever the building machine has: those that a
// list names, less what is not free. It is an error if security updates are not among
// them.
func sources(list string) (string, error) {
	var b strings.Builder
	security := false
	for line := range strings.Lines(list) {
		fields := strings.Fields(line)
		if len(fields) < 4 || fields[0] != "deb" {
			continue // a comment, an archive of sources
		}
		fmt.Fprintf(&b, "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] %s %s main\n", fields[1], fields[2])
		security = security || fields[2] == debianroot.Suite+"-security"
	}
	if !security {
		return "", fmt.Errorf("find Debian's archives: /%s of the root names none for security updates of %s", archiveList, debianroot.Suite)
	}
	return b.String(), nil
}

func hosts(name string) string {
	return fmt.Sprintf("127.0.0.1 localhost\n127.0.1.1 %s\n::1 localhost ip6-localhost ip6-loopback\n", name)
}
