package slot

import (
	"cmp"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/BitBoxSwiss/bitbox-base/internal/bootdisk"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/release"
)

// unfinished ends the name of a UKI that is being written. systemd-boot looks at *.efi only.
const unfinished = ".new"

// Entry is a UKI on the EFI partition, by its name (bootdisk.EntryName). While systemd-boot counts
// its attempts, the name ends in +LEFT-DONE.efi.
type Entry struct {
	Version string
	// Counted: it was not blessed. Left is how many attempts it has, Done how many it had.
	Counted    bool
	Left, Done int
}

var entryPattern = regexp.MustCompile(`^` + bootdisk.ImageID + `_([0-9A-Za-z._=~-]+)(?:\+([0-9]{1,2})(?:-([0-9]{1,2}))?)?\.efi$`)

// ParseEntry reads a name. ok is false for all other files.
func ParseEntry(name string) (e Entry, ok bool) {
	m := entryPattern.FindStringSubmatch(name)
	if m == nil {
		return Entry{}, false
	}
	e = Entry{Version: strings.NewReplacer("_", "+", "=", ":").Replace(m[1]), Counted: m[2] != ""}
	e.Left, _ = strconv.Atoi(m[2]) // the pattern has checked them
	e.Done, _ = strconv.Atoi(m[3])
	return e, release.IsVersion(e.Version)
}

// Name is the name of its file.
func (e Entry) Name() string {
	name, err := bootdisk.EntryName(e.Version, 0)
	if err != nil {
		panic("slot: an entry without a version: " + err.Error()) // ParseEntry and release.Verify have checked it
	}
	if !e.Counted {
		return name
	}
	return strings.TrimSuffix(name, ".efi") + "+" + strconv.Itoa(e.Left) + "-" + strconv.Itoa(e.Done) + ".efi"
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
