package node

import (
	"regexp"
	"strconv"
	"strings"
)

// oldest is the oldest version of each program that still gets fixes, as major and minor number.
// Bitcoin Core maintains its last three major versions (https://bitcoincore.org/en/lifecycle):
// 29, 30 and 31. btcd maintains its latest.
var oldest = map[string][2]int{
	"Bitcoin Core": {29, 0},
	"btcd":         {0, 26},
}

var numbers = regexp.MustCompile(`^(\d{1,4})\.(\d{1,4})`)

// unmaintained tells whether a version no longer gets fixes. An unknown program or version
// counts as maintained: this is a hint, not a defence.
func unmaintained(software, version string) bool {
	for name, least := range oldest {
		match := numbers.FindStringSubmatch(version)
		if !strings.HasPrefix(software, name) || match == nil {
			continue
		}
		major, _ := strconv.Atoi(match[1]) // at most 4 digits
		minor, _ := strconv.Atoi(match[2])
		return major < least[0] || major == least[0] && minor < least[1]
	}
	return false
}
