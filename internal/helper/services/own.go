package services

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
	"unicode/utf8"

	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/noiseconn"
	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
	"github.com/BitBoxSwiss/bitbox-base/internal/rootfile"
)

const (
	// OwnFile is where the builder of an appliance names additional services, one per line: name,
	// unit, description, separated by spaces. Empty lines and those that begin with # are
	// ignored.
	OwnFile = "/etc/bitbox-base/services"
	// maxOwn is how many such services there may be.
	maxOwn = 32
	// maxOwnSize is far more than the file has, in bytes.
	maxOwnSize = 16 << 10
)

var (
	namePattern = regexp.MustCompile(`^[a-z][a-z0-9]*(-[a-z0-9]+)*$`)
	unitPattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_-]*\.service$`)
)

const (
	// maxName and maxUnit are the longest names in bytes.
	maxName = 32
	maxUnit = 64
)

// reserved are the prefixes of units that the builder's file may not name: ours, and essential
// parts of Debian.
var reserved = []string{
	"bitbox-base", "systemd-", "dbus", "ssh", "nginx", "fail2ban", "avahi", "nftables", "iptables", "ip6tables", "netfilter", "ifup",
	"networking",
	"getty", "serial-getty", "console-getty", "container-getty", "autovt", "rescue", "emergency", "debug-shell", "user-runtime-dir", "user",
	"apt-", "unattended-upgrades", "dpkg-", "initrd-", "kmod", "udev", "plymouth", "polkit", "quotaon", "modprobe", "ldconfig",
}

// ErrOwn is wrapped by every refusal of the builder's file.
var ErrOwn = reason.New("the file with the services of this appliance cannot be used")

// Read returns the built-in table followed by the services of the builder's file. A file with a
// single fault is refused as a whole; then the table is the built-in one.
func Read(file string) (Table, error) {
	table := BuiltIn()
	own, err := readOwn(file)
	if err != nil {
		return table, reason.Errorf("%w: %s: %w", ErrOwn, file, err)
	}
	return append(table, own...), nil
}

func readOwn(file string) ([]Service, error) {
	text, err := rootfile.Read(file, maxOwnSize)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return parseOwn(text)
}

// Parse parses the text of the builder's file, for a caller who has read it.
func Parse(text []byte) (Table, error) { return parseOwn(text) }

// parseOwn parses the builder's file.
func parseOwn(text []byte) ([]Service, error) {
	if !utf8.Valid(text) {
		return nil, reason.New("it is not UTF-8")
	}
	var own []Service
	lines := bufio.NewScanner(bytes.NewReader(text))
	for number := 1; lines.Scan(); number++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		s, err := parseLine(line)
		if err == nil {
			err = clash(append(BuiltIn(), own...), s)
		}
		if err == nil && len(own) == maxOwn {
			err = reason.Errorf("it names more than %d services", maxOwn)
		}
		if err != nil {
			return nil, reason.Errorf("line %d: %w", number, err)
		}
		own = append(own, s)
	}
	return own, lines.Err()
}

func parseLine(line string) (Service, error) {
	fields := strings.Fields(line)
	if len(fields) < 3 {
		return Service{}, reason.New("a line needs a name, a unit and a description, such as: electrs electrs.service Electrum server")
	}
	s := Service{Name: fields[0], Unit: fields[1], Description: strings.Join(fields[2:], " "), Actions: all}
	switch {
	case !namePattern.MatchString(s.Name) || len(s.Name) > maxName:
		return Service{}, reason.Errorf("%q is not the name of a service; use 1 to %d lower case letters, digits and hyphens between them", s.Name,
			maxName)
	case !unitPattern.MatchString(s.Unit) || len(s.Unit) > maxUnit:
		return Service{}, reason.Errorf("%q is not a unit that can be managed; use letters, digits, - and _, at most %d with .service at the end, and no template", s.Unit, maxUnit)
	case slices.ContainsFunc(reserved, func(prefix string) bool { return isReserved(s.Unit, prefix) }):
		return Service{}, reason.Errorf("%q is a unit of Debian or of the Base, which this file may not name", s.Unit)
	}
	if err := noiseconn.CheckName(s.Description); err != nil {
		return Service{}, reason.Errorf("the description: %w", err)
	}
	return s, nil
}

// isReserved tells whether a unit begins with this word or prefix, in upper or lower case.
func isReserved(unit, prefix string) bool {
	unit = strings.ToLower(unit)
	if strings.HasSuffix(prefix, "-") {
		return strings.HasPrefix(unit, prefix)
	}
	rest, begins := strings.CutPrefix(unit, prefix)
	// "ssh" also reserves sshd; "user" does not reserve usermetrics.
	return begins && (rest[0] == '.' || rest[0] == '-' || rest[0] == '_' || rest == "d.service" || prefix == "ssh")
}

func clash(table Table, s Service) error {
	if _, taken := table.Find(s.Name); taken {
		return reason.Errorf("the name %q is taken", s.Name)
	}
	if _, taken := table.OfUnit(s.Unit); taken {
		return reason.Errorf("the unit %q is named twice, or belongs to the Base", s.Unit)
	}
	return nil
}

// wantedBy is the target that starts services at boot.
const wantedBy = "multi-user.target"

// unitDirectories are where systemd finds units installed by packages and the builder, in its
// order (systemd.unit(5)).
var unitDirectories = []string{"/etc/systemd/system", "/usr/local/lib/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"}

// dropIn is the file name of the addition to a unit.
const dropIn = "60-bitbox-base.conf"

// Generate tells systemd about the builder's services in addition to their units, as a generator
// (systemd.generator(7)): each starts at boot, unless it is switched off. directory is the
// generator's first argument. root is "" except in tests.
//
// A unit that is a link is another unit's name, or a file outside systemd's directories. It gets
// no addition, and so is not started.
func Generate(root, file, directory string) error {
	own, err := readOwn(filepath.Join(root, file))
	if err != nil {
		return reason.Errorf("%w: %s: %w", ErrOwn, file, err)
	}
	var errs []error
	for _, s := range own {
		unit, err := findUnit(root, s.Unit)
		if err == nil {
			err = generate(directory, s, unit)
		}
		if err != nil {
			errs = append(errs, reason.Errorf("the service %s: %w", s.Name, err))
		}
	}
	return errors.Join(errs...)
}

// findUnit returns the path of a unit's file, which is not a link.
func findUnit(root, unit string) (string, error) {
	for _, directory := range unitDirectories {
		path := filepath.Join(directory, unit)
		info, err := os.Lstat(filepath.Join(root, path))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return "", err
		}
		if !info.Mode().IsRegular() {
			return "", reason.Errorf("%s is a link, and only a unit's own file is managed", path)
		}
		return path, nil
	}
	return "", reason.Errorf("the unit %s is not installed", unit)
}

func generate(directory string, s Service, unit string) error {
	addition := filepath.Join(directory, s.Unit+".d", dropIn)
	wants := filepath.Join(directory, wantedBy+".wants", s.Unit)
	if err := errors.Join(os.MkdirAll(filepath.Dir(addition), 0o755), os.MkdirAll(filepath.Dir(wants), 0o755)); err != nil {
		return err
	}
	if err := os.WriteFile(addition, []byte(Addition(s)), 0o644); err != nil {
		return err
	}
	if err := os.Symlink(unit, wants); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

// Addition is the drop-in that makes it possible to switch off a service whose unit is not ours.
func Addition(s Service) string {
	return "# The service " + s.Name + " of the Base. An App can switch it off: then this file exists.\n" +
		"[Unit]\nRequiresMountsFor=" + DisabledDirectory + "\n" + s.Condition() + "\n"
}
