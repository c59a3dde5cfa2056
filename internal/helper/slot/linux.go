//go:build linux

package slot

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/BitBoxSwiss/bitbox-base/internal/bootdisk"
	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
)

const (
	// maxNames is far above what is on the EFI partition.
	maxNames = 64
	// MountOptions: nobody but root reads the EFI partition, and a damaged one is not written.
	MountOptions = "umask=0077,errors=remount-ro"
)

// Open returns the slots of this machine. mountPoint is an empty folder, where the EFI partition is
// mounted until close is called: the caller has a mount namespace of its own.
func Open(mountPoint string) (s *Slots, done func() error, err error) {
	running, err := Look()
	if err != nil {
		return nil, nil, err
	}
	disk, err := openDisk(filepath.Join(bootdisk.Directory, map[string]string{"a": bootdisk.RootALink, "b": bootdisk.RootBLink}[running.Slot]))
	if err != nil {
		return nil, nil, err
	}
	esp := filepath.Join(bootdisk.Directory, bootdisk.ESPLink)
	if err := unix.Mount(esp, mountPoint, "vfat", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, MountOptions); err != nil {
		return nil, nil, errors.Join(reason.Errorf("mount the EFI partition: %w", err), disk.file.Close())
	}
	done = func() error { return errors.Join(unix.Unmount(mountPoint, 0), disk.file.Close()) }
	return &Slots{Disk: disk, ESP: Folder(filepath.Join(mountPoint, bootdisk.EntryDirectory)), Running: running.Version, Letter: running.Slot},
		done, nil
}

// openDisk opens the disk that a partition is on: the one that the machine has started from, however
// other disks are labelled.
func openDisk(partition string) (*BlockDisk, error) {
	device, err := filepath.EvalSymlinks(partition)
	if err != nil {
		return nil, reason.Errorf("find the disk: %w", err)
	}
	// /sys/class/block/vda2 -> …/block/vda/vda2
	place, err := filepath.EvalSymlinks(filepath.Join("/sys/class/block", filepath.Base(device)))
	if err != nil {
		return nil, reason.Errorf("find the disk: %w", err)
	}
	if _, err := os.Stat(filepath.Join(place, "partition")); err != nil {
		return nil, reason.Errorf("find the disk: %s is no partition: %w", device, err)
	}
	return OpenDisk(filepath.Join("/dev", strings.ReplaceAll(filepath.Base(filepath.Dir(place)), "!", "/")))
}

// BlockDisk is a disk, or a file that holds one. It implements Disk.
type BlockDisk struct {
	file *os.File
	size uint64
}

// OpenDisk opens it for reading and writing.
func OpenDisk(path string) (*BlockDisk, error) {
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, reason.Errorf("open the disk: %w", err)
	}
	size, err := file.Seek(0, io.SeekEnd)
	if err != nil {
		return nil, errors.Join(reason.Errorf("ask for the size of the disk: %w", err), file.Close())
	}
	return &BlockDisk{file, uint64(size)}, nil
}

// ReadAt implements Disk, as do all that follow.
func (d *BlockDisk) ReadAt(b []byte, at int64) (int, error) { return d.file.ReadAt(b, at) }

// WriteAt writes.
func (d *BlockDisk) WriteAt(b []byte, at int64) (int, error) { return d.file.WriteAt(b, at) }

// Sync waits for the disk.
func (d *BlockDisk) Sync() error { return d.file.Sync() }

// Size is in bytes.
func (d *BlockDisk) Size() uint64 { return d.size }

// Forget drops what the kernel keeps of the disk in memory; what is not on disk yet stays.
func (d *BlockDisk) Forget() error {
	return unix.Fadvise(int(d.file.Fd()), 0, 0, unix.FADV_DONTNEED)
}

// Folder is the folder of UKIs of a mounted EFI partition.
type Folder string

func (f Folder) path(name string) string { return filepath.Join(string(f), filepath.Base(name)) }

// sync returns when all of the file system is on disk. A rename on FAT is in two places, which the
// folder alone does not cover.
func (f Folder) sync() error {
	folder, err := os.Open(string(f))
	if err != nil {
		return err
	}
	return errors.Join(unix.Syncfs(int(folder.Fd())), folder.Close())
}

// Names implements ESP, as do all that follow.
func (f Folder) Names() ([]string, error) {
	folder, err := os.Open(string(f))
	if err != nil {
		return nil, err
	}
	names, err := folder.Readdirnames(maxNames)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return names, errors.Join(err, folder.Close())
}

// Open reads from the disk.
func (f Folder) Open(name string) (io.ReadCloser, error) {
	file, err := os.Open(f.path(name))
	if err != nil {
		return nil, err
	}
	if err := unix.Fadvise(int(file.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return file, nil
}

// Write writes a file.
func (f Folder) Write(name string, content io.Reader) error {
	file, err := os.OpenFile(f.path(name), os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(file, content)
	return errors.Join(err, file.Sync(), file.Close(), f.sync())
}

// Rename renames a file.
func (f Folder) Rename(from, to string) error {
	return errors.Join(os.Rename(f.path(from), f.path(to)), f.sync())
}

// Remove removes a file.
func (f Folder) Remove(name string) error {
	if err := os.Remove(f.path(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return f.sync()
}
