package slot

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strconv"

	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/release"
)

// Attempts is how often systemd-boot starts a new version that nobody has blessed.
const Attempts = 3

// unfinished ends the name of a UKI that is being written. systemd-boot looks at *.efi only.
const unfinished = ".new"

// Entry is a UKI on the EFI partition, by its name: bitbox-base_VERSION.efi, or
// bitbox-base_VERSION+LEFT-DONE.efi while systemd-boot counts its attempts.
type Entry struct {
	Version string
	// Counted: it was not blessed. Left is how many attempts it has, Done how many it had.
	Counted    bool
	Left, Done int
}

// entryPattern allows what release.IsVersion does; a name with a slash is none.
var entryPattern = regexp.MustCompile(`^bitbox-base_([0-9A-Za-z.+~-]+?)(?:\+([0-9]{1,2})(?:-([0-9]{1,2}))?)?\.efi$`)

// ParseEntry reads a name. ok is false for all other files.
func ParseEntry(name string) (e Entry, ok bool) {
	m := entryPattern.FindStringSubmatch(name)
	if m == nil || !release.IsVersion(m[1]) {
		return Entry{}, false
	}
	e = Entry{Version: m[1], Counted: m[2] != ""}
	e.Left, _ = strconv.Atoi(m[2]) // the pattern has checked them
	e.Done, _ = strconv.Atoi(m[3])
	return e, true
}

// Name is the name of its file.
func (e Entry) Name() string {
	if !e.Counted {
		return "bitbox-base_" + e.Version + ".efi"
	}
	return fmt.Sprintf("bitbox-base_%s+%d-%d.efi", e.Version, e.Left, e.Done)
}

// bad: systemd-boot starts it only if there is nothing else.
func (e Entry) bad() bool { return e.Counted && e.Left == 0 }

// Order sorts entries as systemd-boot does: what has no attempts left comes last, then by version,
// the newest first. The first one is started.
func Order(entries []Entry) {
	slices.SortStableFunc(entries, func(a, b Entry) int {
		if a.bad() != b.bad() {
			return map[bool]int{true: 1, false: -1}[a.bad()]
		}
		return cmp.Or(-release.Compare(a.Version, b.Version), cmp.Compare(a.Name(), b.Name()))
	})
}
