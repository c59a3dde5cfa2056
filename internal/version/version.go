// Package version says which version of the software this is.
package version

// Software is the version for people, such as "1.2.3". The Makefile sets it when
// it links; a plain `go build` leaves "devel".
var Software = "devel"
