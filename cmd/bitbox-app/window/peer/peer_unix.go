//go:build linux || darwin

package peer

import "os"

// ofUser compares a user with the one of this process.
func ofUser(uid uint32) Whose {
	if uid == uint32(os.Geteuid()) {
		return Own
	}
	return Other
}
