// Package version holds the version of this software.
package version

import "runtime/debug"

// Software is the version for people, such as "1.2.3". The Makefile sets it when
// it links; a plain `go build` leaves "devel".
var Software = "devel"

// Toolchain returns the Go release that built the program which runs, such as "go1.27.3".
// What it links of the standard library is of that release.
func Toolchain() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	return info.GoVersion
}
