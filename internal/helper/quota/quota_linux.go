// Package quota limits how much a user may store on a file system: the Middleware, which an
// attacker may have taken over, and SSH users. Without limits one of them could fill the disk
// that the system helper needs to close the Base.
//
// The limits are per user (quotactl(2)), not per project: a user cannot give a file to another
// user, but the owner of a file may change its project. They apply where the file system has
// quotas, like the image's data partition; elsewhere [Set] returns [ErrNone].
package quota

import (
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
)

// ErrNone: the file system or the kernel has no user quotas, or a container prevents setting
// them.
var ErrNone = reason.New("the file system has no user quotas, or a container prevents setting them")

// Limits bound how much a user stores.
type Limits struct {
	// Bytes are rounded down to a KiB.
	Bytes uint64
	// Inodes are files, folders and links.
	Inodes uint64
}

// dqblk is struct if_dqblk of linux/quota.h.
type dqblk struct {
	blockHard, blockSoft uint64 // in KiB
	used                 uint64 // in bytes
	inodeHard, inodeSoft uint64
	inodes               uint64
	blockTime, inodeTime uint64
	valid                uint32
	_                    uint32
}

// Of linux/quota.h.
const (
	userQuota   = 0
	setQuota    = 0x800008
	validLimits = 1 | 4 // QIF_BLIMITS | QIF_ILIMITS
	kibibyte    = 1024
)

// Set limits a user on the file system that path lies on.
func Set(path string, uid int, l Limits) error {
	err := call(path, setQuota, uid, &dqblk{
		blockHard: l.Bytes / kibibyte, blockSoft: l.Bytes / kibibyte, inodeHard: l.Inodes, inodeSoft: l.Inodes, valid: validLimits,
	})
	if err != nil {
		return reason.Errorf("limit what user %d stores below %s: %w", uid, path, err)
	}
	return nil
}

func call(path string, command, uid int, d *dqblk) error {
	directory, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(directory)
	_, _, errno := unix.Syscall6(unix.SYS_QUOTACTL_FD, uintptr(directory), uintptr(command<<8|userQuota), uintptr(uid),
		uintptr(unsafe.Pointer(d)), 0, 0)
	switch errno {
	case 0:
		return nil
	case unix.ESRCH, unix.ENOSYS, unix.EOPNOTSUPP, unix.ENOTBLK, unix.ENODEV, unix.EPERM: // EPERM: in a container
		return ErrNone
	}
	return errno
}
