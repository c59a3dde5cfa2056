//go:build linux || darwin

package peer

import (
	"os"

	"golang.org/x/sys/unix"
)

// ofUser compares a user with the one of this process.
func ofUser(uid uint32) Whose {
	if uid == uint32(os.Geteuid()) {
		return Own
	}
	return Other
}

// connected tells whether a socket still has another end (getpeername(2): ENOTCONN).
func connected(fd uintptr) bool {
	_, err := unix.Getpeername(int(fd))
	return err == nil
}
