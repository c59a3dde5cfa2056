// Package timezone sets the time zone of a machine with a read-only root.
//
// The link /etc/localtime never changes; it leads to [Link], which is part of the system
// helper's state and leads to a file of the tz database. One rename replaces Link. New
// processes, such as journalctl, use the new zone at once; systemd's timers use it after a
// reload of systemd.
package timezone

import (
	"bufio"
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/BitBoxSwiss/bitbox-base/internal/atomicfile"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/generation"
	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
)

const (
	// Database is Debian's tz database (package tzdata).
	Database = "/usr/share/zoneinfo"
	// Localtime is read by the C library, and so by everybody (localtime(5)).
	Localtime = "/etc/localtime"
	// Link is the target of Localtime.
	Link = generation.StateDirectory + "/localtime"
	// UTC is the time zone without a Link, as on a new Base.
	UTC = "Etc/UTC"

	// index lists the content of the database: lines "Z NAME …" for zones, "L TARGET NAME" for
	// their other names (zic(8)).
	index = "tzdata.zi"
	// maxIndex is the largest accepted size in bytes; that of 2026 has 110 KiB and 600 names.
	maxIndex = 1 << 20
	maxNames = 2000
	// maxName is how much of an unknown name is repeated, in bytes.
	maxName = 64
)

// namePattern matches names of the tz database (its file theory.html). They contain no dot.
var namePattern = regexp.MustCompile(`^[A-Za-z0-9_+-]{1,32}(/[A-Za-z0-9_+-]{1,32}){0,2}$`)

var (
	// ErrUnknown: the database has no zone of that name.
	ErrUnknown = reason.New("no such time zone")
	// ErrNotOurs: something else manages the time zone.
	ErrNotOurs = reason.New("the Base does not manage the time zone")
)

// Place is where the time zone of a machine is set; At makes one for real use.
type Place struct{ Database, Localtime, Link string }

// At is the place below a root; "" or "/" is this machine's.
func At(root string) Place {
	return Place{filepath.Join("/", root, Database), filepath.Join("/", root, Localtime), filepath.Join("/", root, Link)}
}

// Names returns the names in the database, in order.
func (p Place) Names() ([]string, error) {
	path := filepath.Join(p.Database, index)
	info, err := os.Stat(path)
	if err == nil && info.Size() > maxIndex {
		err = reason.Errorf("it is larger than %d bytes", maxIndex)
	}
	var text []byte
	if err == nil {
		text, err = os.ReadFile(path)
	}
	if err != nil {
		return nil, reason.Errorf("list the time zones in %s: %w; install the package tzdata", path, err)
	}
	names := parseIndex(text)
	if len(names) == 0 {
		return nil, reason.Errorf("list the time zones in %s: there are none; install the package tzdata", path)
	}
	return names, nil
}

func parseIndex(text []byte) []string {
	var names []string
	lines := bufio.NewScanner(bytes.NewReader(text))
	for lines.Scan() && len(names) < maxNames {
		fields := strings.Fields(lines.Text())
		name := ""
		switch {
		case len(fields) > 1 && fields[0] == "Z":
			name = fields[1]
		case len(fields) == 3 && fields[0] == "L":
			name = fields[2]
		}
		if namePattern.MatchString(name) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// Current returns the name of the time zone in force; empty if it is not known.
func (p Place) Current() string {
	for _, link := range []string{p.Localtime, p.Link} {
		target, err := os.Readlink(link)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return UTC // the C library assumes it, too
		case err != nil:
			return ""
		}
		if name, ok := strings.CutPrefix(target, Database+"/"); ok && namePattern.MatchString(name) {
			return name
		}
		if link == p.Localtime && !p.leadsToLink(target) {
			return ""
		}
	}
	return ""
}

func (p Place) leadsToLink(target string) bool { return target == Link || target == p.Link }

// Set puts a time zone in force, only by a name of Names, in one rename.
func (p Place) Set(name string) error {
	names, err := p.Names()
	if err != nil {
		return err
	}
	if _, found := slices.BinarySearch(names, name); !found {
		return reason.Errorf("%w: %q; it is one of the %d names of the tz database, such as Europe/Zurich or %s", ErrUnknown,
			name[:min(len(name), maxName)], len(names), UTC)
	}
	if target, err := os.Readlink(p.Localtime); err != nil || !p.leadsToLink(target) {
		return reason.Errorf("%w: %s does not lead to %s, so root has set it by other means; 'bitbox-base setup' on the machine restores that link", ErrNotOurs, Localtime, Link)
	}
	return p.write(name)
}

func (p Place) write(name string) error {
	temporary := p.Link + ".new"
	err := os.Remove(temporary)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	if err == nil {
		err = os.Symlink(filepath.Join(Database, name), temporary)
	}
	if err == nil {
		err = os.Rename(temporary, p.Link)
	}
	if err == nil {
		err = atomicfile.SyncDir(filepath.Dir(p.Link))
	}
	if err != nil {
		return reason.Errorf("set the time zone: %w", err)
	}
	return nil
}

// Keep makes a machine that becomes a Base keep its time zone: was is the previous target of
// Localtime. A zone that a Base has already set stays.
func (p Place) Keep(was string) error {
	name, zone := strings.CutPrefix(filepath.Join("/etc", was), Database+"/")
	if strings.HasPrefix(was, "/") {
		name, zone = strings.CutPrefix(was, Database+"/")
	}
	if _, err := os.Lstat(p.Link); err == nil || !zone || !namePattern.MatchString(name) {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(p.Link), 0o755); err != nil {
		return reason.Errorf("keep the time zone: %w", err)
	}
	return p.write(name)
}
