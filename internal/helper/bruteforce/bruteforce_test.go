package bruteforce_test

import (
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/BitBoxSwiss/bitbox-base/internal/helper/bruteforce"
	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func config() bruteforce.Config {
	return bruteforce.Config{
		Entry: []uint16{8845, 50002}, SSH: 22, MaxTries: 5, Window: 10 * time.Minute, BanTime: time.Hour,
		SSHUnit: "bitbox-base-ssh.service", MiddlewareUnit: "bitbox-base-middleware.service",
	}
}

func TestConfigurationIsAsReviewed(t *testing.T) {
	files, err := bruteforce.Render(config())
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for name, got := range files {
		names = append(names, name)
		file := filepath.Join("testdata", filepath.FromSlash(name))
		if *update {
			if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(string(want), got); d != "" {
			t.Errorf("%s differs; if that is meant, run go test -update and review it:\n%s", file, d)
		}
	}
	slices.Sort(names)
	want := []string{"action.d/bitbox-base-entry.conf", "action.d/bitbox-base.conf", "fail2ban.conf", "filter.d/bitbox-base-handshake.conf",
		"filter.d/bitbox-base-sshd.conf", "jail.conf"}
	if d := cmp.Diff(want, names); d != "" {
		t.Errorf("files: %s", d)
	}
}

func TestImpossibleConfigurationsAreRefused(t *testing.T) {
	for name, change := range map[string]func(*bruteforce.Config){
		"no port":           func(c *bruteforce.Config) { c.Entry = nil },
		"port 0":            func(c *bruteforce.Config) { c.Entry = []uint16{8845, 0} },
		"no SSH port":       func(c *bruteforce.Config) { c.SSH = 0 },
		"no try":            func(c *bruteforce.Config) { c.MaxTries = 0 },
		"no window":         func(c *bruteforce.Config) { c.Window = 0 },
		"part of a second":  func(c *bruteforce.Config) { c.BanTime = 1500 * time.Millisecond },
		"for ever":          func(c *bruteforce.Config) { c.BanTime = 9 * 24 * time.Hour },
		"a match as a unit": func(c *bruteforce.Config) { c.SSHUnit = "x.service + _UID=1000 y.service" },
		"no unit":           func(c *bruteforce.Config) { c.MiddlewareUnit = "" },
	} {
		c := config()
		change(&c)
		if _, err := bruteforce.Render(c); err == nil {
			t.Errorf("%s: rendered", name)
		}
	}
}

func TestBansAreRead(t *testing.T) {
	// Recorded with fail2ban 1.0.2.
	output := "10.0.0.9 \t2026-11-22 20:39:34 + 3600 = 2026-11-22 21:39:34\nfd00::9 \t2026-11-22 20:40:00 + 60 = 2026-11-22 20:41:00\n"
	bans, err := bruteforce.ParseBans(bruteforce.JailSSH, strings.Lines(output))
	if err != nil {
		t.Fatal(err)
	}
	at := func(hour, minute, second int) time.Time {
		return time.Date(2026, 11, 22, hour, minute, second, 0, time.UTC)
	}
	want := []bruteforce.Ban{
		{Jail: "sshd", Addr: netip.MustParseAddr("10.0.0.9"), Since: at(20, 39, 34), Until: at(21, 39, 34)},
		{Jail: "sshd", Addr: netip.MustParseAddr("fd00::9"), Since: at(20, 40, 0), Until: at(20, 41, 0)},
	}
	same := cmp.Options{cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
		cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })}
	if d := cmp.Diff(want, bans, same); d != "" {
		t.Error(d)
	}
	// Bans that root made by hand hide nothing else: a network, for ever, by name. The first
	// address of a /64 stands for all of it.
	output = "10.0.0.0/24 \t2026-11-22 20:39:34 + 3600 = 2026-11-22 21:39:34\nhost.example \t2026-11-22 20:39:34 + 60 = 2026-11-22 20:40:34\n" +
		"10.0.1.9 \t2026-11-22 20:39:34 + -1 = 9999-12-31 23:59:59\n2001:db8:1:2:: \t2026-11-22 20:39:34 + 60 = 2026-11-22 20:40:34\n"
	bans, err = bruteforce.ParseBans(bruteforce.JailHandshake, strings.Lines(output))
	if err != nil {
		t.Fatal(err)
	}
	var shown []string
	for _, ban := range bans {
		shown = append(shown, fmt.Sprint(ban.Subject(), " ends ", !ban.Until.IsZero()))
	}
	if d := cmp.Diff([]string{"10.0.0.0/24 ends true", "10.0.1.9 ends false", "2001:db8:1:2::/64 ends true"}, shown); d != "" {
		t.Error(d)
	}
	// After an owner has shortened the ban time, fail2ban prints the newest bans first: they end
	// first. What root has banned for ever comes last.
	output = "10.0.0.3 \t2026-11-22 20:39:36 + 60 = 2026-11-22 20:40:36\n10.0.0.4 \t2026-11-22 20:39:36 + 60 = 2026-11-22 20:40:36\n" +
		"10.0.0.2 \t2026-11-22 20:39:35 + 3600 = 2026-11-22 21:39:35\n10.0.0.1 \t2026-11-22 20:39:34 + -1 = 9999-12-31 23:59:59\n"
	bans, err = bruteforce.ParseBans(bruteforce.JailSSH, strings.Lines(output))
	shown = nil
	for _, ban := range bans {
		shown = append(shown, ban.Subject())
	}
	if d := cmp.Diff([]string{"10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"}, shown); d != "" || err != nil {
		t.Error("the newest are not the last ", d, err)
	}
	// A stranger with many networks cannot make the list longer than this; the newest bans are
	// shown.
	var many strings.Builder
	for n := range 3 * bruteforce.MaxBans {
		fmt.Fprintf(&many, "2001:db8:%x:%x:: \t2026-11-22 20:39:34 + 60 = 2026-11-22 20:40:34\n", n>>8, n&0xff)
	}
	bans, err = bruteforce.ParseBans(bruteforce.JailHandshake, strings.Lines(many.String()))
	if last := netip.MustParseAddr("2001:db8:b:b7::"); err != nil || len(bans) != bruteforce.MaxBans || bans[len(bans)-1].Addr != last {
		t.Errorf("of many bans %d are listed, the last %v; %v", len(bans), bans[len(bans)-1], err)
	}
	if bans, err := bruteforce.ParseBans("sshd", strings.Lines("")); err != nil || bans != nil {
		t.Errorf("no bans: %v, %v", bans, err)
	}
	for _, broken := range []string{"x", "10.0.0.9", "10.0.0.9 \tyesterday + 3600 = x", "10.0.0.9 \t2026-11-22 20:39:34 + ever",
		"ERROR NOK: ('sshd',)"} {
		if bans, err := bruteforce.ParseBans("sshd", strings.Lines(broken)); err == nil {
			t.Errorf("%q was read as %v", broken, bans)
		}
	}
}

func TestCountsAreRead(t *testing.T) {
	output := "Status for the jail: sshd\n|- Filter\n|  |- Currently failed:\t1\n|  |- Total failed:\t7\n|  `- Journal matches:\t_SYSTEMD_UNIT=bitbox-base-ssh.service\n`- Actions\n   |- Currently banned:\t2\n   |- Total banned:\t3\n   `- Banned IP list:\t10.0.0.9 fd00::9\n"
	counts, err := bruteforce.ParseCounts(output)
	if want := (bruteforce.Counts{CurrentlyFailed: 1, TotalFailed: 7, CurrentlyBanned: 2, TotalBanned: 3}); err != nil || counts != want {
		t.Errorf("ParseCounts = %+v, %v; want %+v", counts, err, want)
	}
	for _, broken := range []string{"", "Sorry but the jail 'x' does not exist", strings.Replace(output, "Total banned:\t3", "Total banned:\tmany", 1)} {
		if counts, err := bruteforce.ParseCounts(broken); err == nil {
			t.Errorf("%q was read as %+v", broken, counts)
		}
	}
}
