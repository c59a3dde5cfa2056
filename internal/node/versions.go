package node

import (
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/BitBoxSwiss/bitbox-base/internal/bitcoincore"
)

// programs tells for each program whether a major and minor version no longer gets fixes; the first
// row counts whose name the software begins with. Bitcoin Core has a table of its own. Programs that are
// made from it, such as Knots, have ends of their own. btcd maintains its latest version.
var programs = []struct {
	name  string
	ended func(major, minor int, now time.Time) bool
}{
	{"Bitcoin Core (", func(major, _ int, now time.Time) bool { return bitcoincore.TooOld(major, now) }},
	{"Bitcoin Core", func(major, _ int, now time.Time) bool { return bitcoincore.Unmaintained(major, now) }},
	{"btcd", func(major, minor int, _ time.Time) bool { return major == 0 && minor < 26 }},
}

var numbers = regexp.MustCompile(`^(\d{1,4})\.(\d{1,4})`)

// unmaintained tells whether a version no longer gets fixes. An unknown program or version
// counts as maintained: this is a hint, not a defence.
func unmaintained(software, version string, now time.Time) bool {
	for _, p := range programs {
		match := numbers.FindStringSubmatch(version)
		if !strings.HasPrefix(software, p.name) || match == nil {
			continue
		}
		major, _ := strconv.Atoi(match[1]) // at most 4 digits
		minor, _ := strconv.Atoi(match[2])
		return p.ended(major, minor, now)
	}
	return false
}
