package bitcoincore

import (
	"cmp"
	"fmt"
	"regexp"
	"strconv"
	"time"

	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
)

// majors is the one table of the major versions that a Base takes, with the day of each first
// release. The day of 31.0 is that of the first builders' signatures.
//
// The project maintains its last three major versions, and aims at a new one each six months
// (https://bitcoincore.org/en/lifecycle). So the end of a version is the release of the third one
// after it, whose day is not known here for all.
var majors = map[int]time.Time{
	29: time.Date(2025, time.April, 14, 0, 0, 0, 0, time.UTC),
	30: time.Date(2025, time.October, 10, 0, 0, 0, 0, time.UTC),
	31: time.Date(2026, time.April, 17, 0, 0, 0, 0, time.UTC),
}

// oldest and newest are the bounds of majors.
const oldest, newest = 29, 31

// lastEnded is the newest major version that the project has ended: 32.1 has ended 29
// (https://bitcoincore.org/en/releases/32.1).
const lastEnded = 29

// longest is how long after its first release a major version surely has no more fixes. 26, 27
// and 28 were maintained for 16 to 19 months. So a Base that nobody updates learns it too.
const longest = 24 * 30 * 24 * time.Hour

// Version is the version of a release.
type Version struct{ Major, Minor int }

// number is a version, such as 31.0. Release candidates are not taken.
var number = regexp.MustCompile(`^(\d{1,3})\.(\d{1,3})$`)

// ParseVersion parses a version, also one that is not taken.
func ParseVersion(text string) (Version, error) {
	match := number.FindStringSubmatch(text)
	if match == nil {
		return Version{}, reason.Errorf("%.40q is no version of a release of Bitcoin Core, such as %d.0", text, newest)
	}
	major, _ := strconv.Atoi(match[1]) // at most 3 digits
	minor, _ := strconv.Atoi(match[2])
	return Version{major, minor}, nil
}

// String is the version as in the name of a file.
func (v Version) String() string { return fmt.Sprintf("%d.%d", v.Major, v.Minor) }

// Newer tells whether a version is newer than another one.
func (v Version) Newer(than Version) bool {
	return cmp.Or(cmp.Compare(v.Major, than.Major), cmp.Compare(v.Minor, than.Minor)) > 0
}

// Check refuses a version that a Base does not take.
func (v Version) Check() error {
	if _, known := majors[v.Major]; !known {
		return reason.Errorf("this Base takes Bitcoin Core %d to %d, and this is %v", oldest, newest, v)
	}
	return nil
}

// Unmaintained tells whether a major version of the project no longer gets fixes. A version that is
// newer than the table counts as maintained.
func Unmaintained(major int, now time.Time) bool { return major <= lastEnded || TooOld(major, now) }

// TooOld tells whether a program that goes by versions of Bitcoin Core surely gets no more fixes.
func TooOld(major int, now time.Time) bool {
	released, known := majors[major]
	return major < oldest || known && now.Sub(released) > longest
}
