// Package version holds the version of this software.
package version

import "runtime/debug"

// Software is the version for people, such as "1.2.3". The Makefile sets it when
// it links; a plain `go build` leaves "devel".
var Software = "devel"

// OldestSafe is the oldest version without a hole that is known; empty: none is known. The commit
// that closes a hole sets it to the version that it goes into. A Base that runs the image goes back
// to no older version, no matter who asks for it.
const OldestSafe = ""

// Toolchain returns the Go release that built this program, such as "go1.27.3". The linked parts
// of the standard library are from that release.
func Toolchain() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	return info.GoVersion
}
