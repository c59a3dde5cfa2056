// Package version holds the version of this software.
package version

import "runtime/debug"

// Software is the version for people, such as "1.2.3". The Makefile sets it when
// it links; a plain `go build` leaves "devel".
var Software = "devel"

// Toolchain returns the Go release that built this program, such as "go1.27.3". The linked parts
// of the standard library are from that release.
func Toolchain() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	return info.GoVersion
}
