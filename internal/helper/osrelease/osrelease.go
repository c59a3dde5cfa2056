// Package osrelease says which Debian a Base is made of, and until when Debian supports it.
//
// This is the one place for that: the tests' roots, the image, `bitbox-base setup`, the
// package and the audit follow it (docs/decisions/0009-debian.md).
package osrelease

import (
	"strconv"
	"strings"
	"time"

	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
)

// Release and Suite are the Debian that a Base is made of.
const (
	Release = "13"
	Suite   = "trixie"
)

// Until when Debian fixes flaws of Release (https://www.debian.org/releases/, of
// https://wiki.debian.org/LTS).
var (
	// SecurityEnds is the end of support by Debian's security team, three years after
	// the release.
	SecurityEnds = time.Date(2028, time.August, 9, 0, 0, 0, 0, time.UTC)
	// LongTermEnds is the end of long-term support (LTS): a smaller team fixes most packages.
	LongTermEnds = time.Date(2030, time.June, 30, 0, 0, 0, 0, time.UTC)
)

// System is what a machine is, as os-release(5) says it.
type System struct {
	// ID is "debian", Version "13". Version is empty for a Debian that has not been released.
	ID, Version string
	// Name is for people.
	Name string
}

// Parse reads os-release(5).
func Parse(osRelease string) System {
	s := System{ID: Value(osRelease, "ID"), Version: Value(osRelease, "VERSION_ID"), Name: Value(osRelease, "PRETTY_NAME")}
	if s.Name == "" {
		s.Name = strings.TrimSpace(s.ID + " " + s.Version)
	}
	return s
}

// Value reads a value of os-release(5), or of another file of NAME=value. It is empty if the
// name is not there.
func Value(text, name string) string {
	for line := range strings.Lines(text) {
		if key, value, found := strings.Cut(strings.TrimSpace(line), "="); found && key == name {
			return strings.Trim(value, `"'`)
		}
	}
	return ""
}

// Suits returns nil for the Debian that a Base is made of, else one sentence with the way.
func (s System) Suits() error {
	if s.ID == "debian" && s.Version == Release {
		return nil
	}
	way := "install Debian " + Release
	if s.older() {
		way = "upgrade Debian first, as its release notes say"
	}
	return reason.Errorf("a Base is made of Debian %s, and this is %q; %s", Release, s.Name, way)
}

func (s System) older() bool {
	version, err := strconv.Atoi(s.Version)
	release, _ := strconv.Atoi(Release) // a constant
	return s.ID == "debian" && err == nil && version < release
}
