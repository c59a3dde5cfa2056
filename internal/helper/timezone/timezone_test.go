package timezone

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// machine has a small tz database, and links as on a Base.
func machine(t *testing.T) Place {
	t.Helper()
	root := t.TempDir()
	p := At(root)
	for _, directory := range []string{p.Database, filepath.Dir(p.Localtime), filepath.Dir(p.Link)} {
		if err := os.MkdirAll(directory, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	const text = "# version 2026f\nR d 1916 o - Jun 14 23s 1 S\nZ Etc/UTC 0 - UTC\nZ Europe/Zurich 0:34:8 - LMT 1853 Jul 16\n0:29:45.5 - BMT 1894 Jun\n" +
		"Z Africa/Abidjan -0:16:8 - LMT 1912\nL Europe/Zurich Europe/Vaduz\nL Etc/UTC ../../../etc/shadow\nZ America/Argentina/Buenos_Aires -3:53:48 - LMT\nL Etc/UTC Etc/GMT+5\n"
	if err := errors.Join(os.WriteFile(filepath.Join(p.Database, index), []byte(text), 0o644), os.Symlink(Link, p.Localtime)); err != nil {
		t.Fatal(err)
	}
	return p
}

func TestTheNamesAreThoseOfTheDatabase(t *testing.T) {
	names, err := machine(t).Names()
	want := []string{"Africa/Abidjan", "America/Argentina/Buenos_Aires", "Etc/GMT+5", "Etc/UTC", "Europe/Vaduz", "Europe/Zurich"}
	if err != nil || !slices.Equal(names, want) {
		t.Errorf("%q, %v", names, err)
	}
	if _, err := At(t.TempDir()).Names(); err == nil || !strings.Contains(err.Error(), "tzdata") {
		t.Errorf("without a database: %v", err)
	}
}

func TestATimeZoneIsSetByOneRenameAndOnlyByAKnownName(t *testing.T) {
	p := machine(t)
	if zone := p.Current(); zone != UTC {
		t.Errorf("a new Base is in %q", zone)
	}
	for range 2 {
		if err := p.Set("Europe/Zurich"); err != nil {
			t.Fatal(err)
		}
	}
	if zone := p.Current(); zone != "Europe/Zurich" {
		t.Errorf("in force is %q", zone)
	}
	for _, name := range []string{"", "europe/zurich", "Europe/Zurich\n", "Europe/Zurich\x00", "../../../etc/shadow", "/etc/shadow", "Europe",
		"Mars/Olympus", "--help", "Europe/Zurich/..", strings.Repeat("a", 1<<16)} {
		if err := p.Set(name); !errors.Is(err, ErrUnknown) || !strings.Contains(err.Error(), "Europe/Zurich") {
			t.Errorf("%.20q: %v", name, err)
		}
	}
	if target, err := os.Readlink(p.Link); err != nil || target != Database+"/Europe/Zurich" {
		t.Errorf("the link leads to %q, %v", target, err)
	}
	if entries, err := os.ReadDir(filepath.Dir(p.Link)); err != nil || len(entries) != 1 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
}

// A leftover of an interruption beside the link is harmless.
func TestALeftoverOfAPowerCutIsReplaced(t *testing.T) {
	p := machine(t)
	if err := os.Symlink("nowhere", p.Link+".new"); err != nil {
		t.Fatal(err)
	}
	if zone := p.Current(); zone != UTC {
		t.Errorf("after the cut: %q", zone)
	}
	if err := p.Set("Etc/GMT+5"); err != nil || p.Current() != "Etc/GMT+5" {
		t.Errorf("%q, %v", p.Current(), err)
	}
}

func TestATimeZoneSetByRootIsShownAndNotReplaced(t *testing.T) {
	p := machine(t)
	if err := errors.Join(os.Remove(p.Localtime), os.Symlink(Database+"/Africa/Abidjan", p.Localtime)); err != nil {
		t.Fatal(err)
	}
	if zone := p.Current(); zone != "Africa/Abidjan" {
		t.Errorf("it is %q", zone)
	}
	if err := p.Set("Etc/UTC"); !errors.Is(err, ErrNotOurs) {
		t.Errorf("it was set: %v", err)
	}
}

func TestAMachineKeepsItsTimeZoneWhenItBecomesABase(t *testing.T) {
	for was, want := range map[string]string{
		Database + "/Europe/Zurich":             "Europe/Zurich",
		"../usr/share/zoneinfo/Europe/Zurich":   "Europe/Zurich",
		Database + "/../../../etc/shadow":       UTC,
		"/home/somebody/clock":                  UTC,
		"":                                      UTC,
		"../usr/share/zoneinfo/../../etc/hosts": UTC,
	} {
		p := machine(t)
		if err := p.Keep(was); err != nil || p.Current() != want {
			t.Errorf("from %q: %q, %v", was, p.Current(), err)
		}
	}
	p := machine(t)
	if err := errors.Join(p.Set("Etc/GMT+5"), p.Keep(Database+"/Europe/Zurich")); err != nil || p.Current() != "Etc/GMT+5" {
		t.Errorf("what a Base had set was replaced: %q, %v", p.Current(), err)
	}
}
