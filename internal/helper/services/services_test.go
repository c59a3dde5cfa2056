package services

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/generation"
)

func TestEssentialServicesCannotBeEnded(t *testing.T) {
	ends := []basev1.ServiceAction{stop, disable}
	mayEnd := []string{"mdns", "time-sync", "bitcoin", "wallet-server"}
	for _, s := range BuiltIn() {
		for _, action := range ends {
			if s.May(action) != slices.Contains(mayEnd, s.Name) {
				t.Errorf("%s may be ended: %v", s.Name, s.May(action))
			}
		}
	}
	for _, unit := range []string{generation.FirewallUnit, generation.SSHUnit, SystemUnit, ConsoleUnit} {
		if s, known := BuiltIn().OfUnit(unit); !known || len(s.Actions) != 0 {
			t.Errorf("%s has the actions %v", unit, s.Actions)
		}
	}
}

func TestNamesAndUnitsAreUnique(t *testing.T) {
	names, units := map[string]bool{}, map[string]bool{}
	for _, s := range BuiltIn() {
		if !namePattern.MatchString(s.Name) || names[s.Name] || units[s.Unit] || s.Description == "" {
			t.Errorf("%+v", s)
		}
		names[s.Name], units[s.Unit] = true, true
	}
}

// The unit of a service that can be switched off checks the marker.
func TestEachServiceThatCanBeSwitchedOffHasItsCondition(t *testing.T) {
	const packaging = "../../../packaging/root/usr/lib/"
	for _, s := range BuiltIn() {
		if !s.May(disable) {
			continue
		}
		text := ""
		for _, file := range []string{packaging + "systemd/system/" + s.Unit, packaging + "bitbox-base/setup/etc/systemd/system/" + s.Unit +
			".d/" + dropIn} {
			content, err := os.ReadFile(file)
			if err == nil {
				text += string(content)
			} else if !errors.Is(err, os.ErrNotExist) {
				t.Fatal(err)
			}
		}
		if !strings.Contains(text, "\n"+s.Condition()+"\n") {
			t.Errorf("the unit of %s lacks %s", s.Name, s.Condition())
		}
	}
}

const good = `# what this appliance runs
bitcoind  bitcoind.service  Bitcoin Core

electrs	electrs.service	Electrum server, for wallets
`

func TestTheBuildersServicesFollowTheBuiltInOnes(t *testing.T) {
	file := filepath.Join(t.TempDir(), "services")
	if err := os.WriteFile(file, []byte(good), 0o644); err != nil {
		t.Fatal(err)
	}
	table, err := Read(file)
	if err != nil || len(table) != len(builtIn)+2 {
		t.Fatalf("%d services, %v", len(table), err)
	}
	s, found := table.Find("electrs")
	if !found || s.Unit != "electrs.service" || s.Description != "Electrum server, for wallets" || !s.May(disable) ||
		s.Condition() != "ConditionPathExists=!/var/lib/bitbox-base/system/disabled/electrs" {
		t.Errorf("%+v", s)
	}
	if table, err := Read(filepath.Join(t.TempDir(), "none")); err != nil || len(table) != len(builtIn) {
		t.Errorf("without the file: %d, %v", len(table), err)
	}
}

// attacks are lines with which a builder would hand out services of the Base or of Debian.
var attacks = map[string]string{
	"the Base's own":         "x bitbox-base-firewall.service y",
	"another of the Base's":  "x bitbox-base-new.service y",
	"in capitals":            "x SSH.service y",
	"sshd":                   "x sshd.service y",
	"a session of ssh":       "x ssh-agent.service y",
	"systemd's":              "x systemd-journald.service y",
	"dbus":                   "x dbus.service y",
	"dbus in another way":    "x dbus-broker.service y",
	"a template":             "x getty@.service y",
	"an instance":            "x wg-quick@home.service y",
	"a timer":                "x apt-daily.timer y",
	"a target":               "x reboot.target y",
	"a socket":               "x docker.socket y",
	"a path":                 "x /etc/systemd/system/a.service y",
	"a way out":              "x ../../a.service y",
	"an option":              "x --now.service y",
	"an option with a value": "x -Hevil.service y",
	"a pattern":              "x *.service y",
	"only the end":           "x .service y",
	"a double unit":          "a a.service y\nb a.service z",
	"a double name":          "a a.service y\na b.service z",
	"a name of the Base's":   "firewall a.service y",
	"the time":               "x systemd-timesyncd.service y",
	"updates":                "x apt-daily-upgrade.service y",
	"the consoles":           "x getty.service y",
	"a dot":                  "x a.b.service y",
	"a NUL":                  "x a\x00.service y",
	"a name that climbs":     "../x a.service y",
	"a name in capitals":     "X a.service y",
	"a name with a hyphen":   "-x a.service y",
	"a name that is long":    strings.Repeat("x", 33) + " a.service y",
	"no description":         "x a.service",
	"a hidden description":   "x a.service y\u202ez",
	"a long unit":            "x " + strings.Repeat("a", 65) + ".service y",
	"no text":                "x a.service \xff",
	"too many":               many(33),
	"another file system":    "x nftables.service y",
}

func many(n int) string {
	var text strings.Builder
	for i := range n {
		fmt.Fprintf(&text, "own-%d own%d.service Number %d\n", i, i, i)
	}
	return text.String()
}

func TestAFileOfTheBuilderWithOneFaultIsRefusedAsAWhole(t *testing.T) {
	for name, text := range attacks {
		file := filepath.Join(t.TempDir(), "services")
		if err := os.WriteFile(file, []byte(good+text+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		table, err := Read(file)
		if !errors.Is(err, ErrOwn) || len(table) != len(builtIn) {
			t.Errorf("%s: %d services, %v", name, len(table), err)
		}
		directory := t.TempDir()
		if err := Generate("", file, directory); !errors.Is(err, ErrOwn) {
			t.Errorf("%s: the generator: %v", name, err)
		}
		if entries, _ := os.ReadDir(directory); len(entries) != 0 {
			t.Errorf("%s: the generator wrote %v", name, entries)
		}
	}
	if _, err := parseOwn([]byte(many(maxOwn))); err != nil {
		t.Errorf("as many as there may be: %v", err)
	}
	// The attack has a target: a check of the pattern alone accepts most of it.
	taken := 0
	for _, text := range attacks {
		if fields := strings.Fields(text); regexp.MustCompile(`\.service$`).MatchString(fields[1]) {
			taken++
		}
	}
	if taken < len(attacks)/2 {
		t.Errorf("a looser check takes %d of %d only; the attacks prove little", taken, len(attacks))
	}
}

func TestAFileThatOthersCanWriteIsRefused(t *testing.T) {
	directory := t.TempDir()
	file := filepath.Join(directory, "services")
	if err := errors.Join(os.WriteFile(file, []byte(good), 0o644), os.Chmod(file, 0o664)); err != nil {
		t.Fatal(err)
	}
	if _, err := Read(file); !errors.Is(err, ErrOwn) {
		t.Errorf("mode 0664: %v", err)
	}
	link := filepath.Join(directory, "link")
	if err := errors.Join(os.Chmod(file, 0o644), os.Symlink(file, link)); err != nil {
		t.Fatal(err)
	}
	if _, err := Read(link); !errors.Is(err, ErrOwn) {
		t.Errorf("a link: %v", err)
	}
	if os.Geteuid() == 0 {
		if err := os.Chown(file, 65534, 0); err != nil {
			t.Fatal(err)
		}
		if _, err := Read(file); !errors.Is(err, ErrOwn) {
			t.Errorf("somebody else's: %v", err)
		}
	}
	if err := os.WriteFile(file, []byte("#"+strings.Repeat("x", maxOwnSize)), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Read(file); !errors.Is(err, ErrOwn) {
		t.Errorf("a large one: %v", err)
	}
}

func TestTheGeneratorStartsAServiceAtBootUnlessItIsOff(t *testing.T) {
	root, directory := t.TempDir(), t.TempDir()
	units := filepath.Join(root, "etc/systemd/system")
	if err := errors.Join(
		os.MkdirAll(units, 0o755), os.MkdirAll(filepath.Join(root, filepath.Dir(OwnFile)), 0o755),
		os.WriteFile(filepath.Join(root, OwnFile), []byte(good+"alias alias.service Another's name\n"), 0o644),
		os.WriteFile(filepath.Join(units, "electrs.service"), []byte("[Service]\nExecStart=/bin/true\n"), 0o644),
		os.Symlink("/usr/lib/systemd/system/bitbox-base-ssh.service", filepath.Join(units, "alias.service")),
	); err != nil {
		t.Fatal(err)
	}
	err := Generate(root, OwnFile, directory)
	if err == nil || !strings.Contains(err.Error(), "alias.service is a link") ||
		!strings.Contains(err.Error(), "bitcoind.service is not installed") {
		t.Errorf("what it could not do: %v", err)
	}
	addition, err := os.ReadFile(filepath.Join(directory, "electrs.service.d", dropIn))
	if err != nil || !strings.Contains(string(addition), "\nConditionPathExists=!/var/lib/bitbox-base/system/disabled/electrs\n") {
		t.Errorf("%s, %v", addition, err)
	}
	if target, err := os.Readlink(filepath.Join(directory, "multi-user.target.wants/electrs.service")); err != nil ||
		target != "/etc/systemd/system/electrs.service" {
		t.Errorf("%q, %v", target, err)
	}
	entries, _ := os.ReadDir(filepath.Join(directory, "multi-user.target.wants"))
	if len(entries) != 1 {
		t.Errorf("started are %v", entries)
	}
	if err := Generate(root, OwnFile, directory); err == nil || strings.Contains(err.Error(), "electrs") {
		t.Errorf("a second time: %v", err)
	}
}

func FuzzTheBuildersFile(f *testing.F) {
	f.Add([]byte(good))
	for _, text := range attacks {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		own, err := parseOwn(text)
		if err != nil {
			return
		}
		for _, s := range own {
			if !unitPattern.MatchString(s.Unit) || strings.HasPrefix(strings.ToLower(s.Unit), "bitbox-base") ||
				strings.HasPrefix(strings.ToLower(s.Unit), "ssh") ||
				strings.HasPrefix(strings.ToLower(s.Unit), "systemd-") || filepath.Base(s.Marker()) != s.Name {
				t.Errorf("taken: %+v", s)
			}
		}
	})
}
