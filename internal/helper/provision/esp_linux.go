package provision

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/BitBoxSwiss/bitbox-base/internal/bootdisk"
	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
)

// BootESP is the EFI partition of the boot disk, which the initrd has found and linked in
// bootdisk.Directory: a second disk that looks the same is another one. The unit that mounts it
// has a mount namespace of its own.
type BootESP struct{}

// FAT has no owners and no devices; whatever was put there is data and no program.
const espFlags = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC

// With implements ESP. Where the link leads to a directory, somebody has mounted the partition
// there already, as in the tests that boot a container.
func (BootESP) With(writable bool, do func(directory string) error) (err error) {
	device := filepath.Join(bootdisk.Directory, bootdisk.ESPLink)
	info, err := os.Stat(device)
	if err != nil {
		return reason.Errorf("find the EFI partition of the boot disk: %w", err)
	}
	if info.IsDir() {
		return do(device)
	}
	if info.Mode()&(fs.ModeDevice|fs.ModeCharDevice) != fs.ModeDevice {
		return reason.Errorf("find the EFI partition of the boot disk: %s is no block device", device)
	}
	directory, err := os.MkdirTemp("", "esp-") // in the unit's own /tmp
	if err != nil {
		return err
	}
	flags, options := uintptr(espFlags), "umask=0077,utf8=1"
	if writable {
		flags |= unix.MS_SYNCHRONOUS
	} else {
		flags |= unix.MS_RDONLY
	}
	if err := unix.Mount(device, directory, "vfat", flags, options); err != nil {
		return errors.Join(reason.Errorf("mount the EFI partition: %w", err), os.Remove(directory))
	}
	defer func() {
		unmounted := unix.Unmount(directory, 0)
		if unmounted != nil {
			unmounted = reason.Errorf("unmount the EFI partition: %w", unmounted)
		}
		err = errors.Join(err, unmounted, os.Remove(directory))
	}()
	return do(directory)
}
