// Package packaging_test checks what the package installs.
package packaging_test

import (
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/BitBoxSwiss/bitbox-base/internal/bitcoincore"
	"github.com/BitBoxSwiss/bitbox-base/internal/bootdisk"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/apply"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/bruteforce"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/chaindisk"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/factoryreset"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/firewall"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/generation"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/nodeorders"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/setup"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/timezone"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/update"
	"github.com/BitBoxSwiss/bitbox-base/internal/node/clock"
	"github.com/BitBoxSwiss/bitbox-base/internal/node/rebuild"
	"github.com/BitBoxSwiss/bitbox-base/internal/node/settings"
	"github.com/BitBoxSwiss/bitbox-base/internal/nodeclient"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/posture"
)

const (
	units = "root/usr/lib/systemd/system"
	// activation is what `bitbox-base setup` links into the machine.
	activation      = "root" + setup.Tree
	activationUnits = activation + "/etc/systemd/system"
)

func read(t *testing.T, name string) string {
	t.Helper()
	content, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

func unitFiles(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(units, "*.s*"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no units: %v", err)
	}
	return files
}

// A server that could run without the packet filter would be an open one.
func TestServersThatListenRequireThePacketFilter(t *testing.T) {
	for _, unit := range []string{generation.ProxyUnit, generation.BansUnit, generation.MDNSUnit, generation.SSHUnit,
		generation.ChainUnit, generation.WatcherUnit, generation.WalletUnit} {
		text := read(t, filepath.Join(units, unit))
		for _, line := range []string{"Requires=" + generation.FirewallUnit, "After=" + generation.FirewallUnit} {
			if !strings.Contains(text, "\n"+line) {
				t.Errorf("%s lacks %s", unit, line)
			}
		}
	}
}

func TestDebiansOwnUnitsAreMasked(t *testing.T) {
	for _, unit := range []string{"nginx.service", "ssh.service", "ssh.socket", "sshd.service", "sshd-unix-local.socket", "sshd-vsock.socket",
		"fail2ban.service", "avahi-daemon.service", "avahi-daemon.socket", "nftables.service", "getty@tty1.service", "smartd.service",
		"smartmontools.service", "systemd-creds.socket",
		"systemd-hostnamed.socket", "systemd-sysext.socket"} {
		link := filepath.Join(activationUnits, unit)
		if target, err := os.Readlink(link); err != nil || target != "/dev/null" {
			t.Errorf("%s leads to %q, %v; want /dev/null", link, target, err)
		}
	}
}

// Nothing may be switched on or off at run time: what starts is what setup links,
// and SSH is not among it.
func TestOnlySetupDecidesWhichUnitsStart(t *testing.T) {
	var started []string
	for _, target := range []string{"multi-user.target.wants", "sockets.target.wants", "sysinit.target.wants"} {
		entries, err := os.ReadDir(filepath.Join(activationUnits, target))
		if err != nil {
			t.Fatal(err)
		}
		for _, entry := range entries {
			link, err := os.Readlink(filepath.Join(activationUnits, target, entry.Name()))
			if err != nil || link != "/usr/lib/systemd/system/"+entry.Name() {
				t.Errorf("%s leads to %q, %v", entry.Name(), link, err)
			}
			started = append(started, entry.Name())
		}
	}
	for _, file := range unitFiles(t) {
		name := filepath.Base(file)
		template := strings.Contains(name, "@.") // somebody has to say of what
		onDemand := template || name == generation.SSHUnit || name == "bitbox-base-reset.service" || name == "bitbox-base-provision.service" ||
			name == update.SlotsUnit || name == chaindisk.LookUnit || name == chaindisk.ReadyUnit || name == nodeorders.Unit ||
			slices.Contains(generation.PreflightUnits, name)
		if slices.Contains(started, name) == onDemand {
			t.Errorf("%s: started at boot is %v", name, !onDemand)
		}
		if strings.Contains(read(t, file), "[Install]") {
			t.Errorf("%s can be enabled and disabled", name)
		}
	}
}

// systemd's limit of five starts in ten seconds is one for machines with an administrator.
// Here it would leave the entry down for good, or refuse an owner's sixth change.
func TestNoServiceIsGivenUpForItsManyStarts(t *testing.T) {
	for _, file := range unitFiles(t) {
		name := filepath.Base(file)
		switch name {
		case "bitbox-base-provision.service", "bitbox-base-prepare.service", "bitbox-base-reset.service", "bitbox-base-upgrade-boot.service",
			"bitbox-base-limits.service":
			continue // once a boot
		case update.Unit, update.SlotsUnit, "bitbox-base-healthy.service":
			continue // one that fails again and again is to end; it says how often
		}
		if filepath.Ext(name) == ".service" && !strings.Contains(read(t, file), "\nStartLimitIntervalSec=0\n") {
			t.Errorf("%s is given up after five starts in ten seconds", name)
		}
	}
}

// A change that fails for its time says what took so long: systemd ends a unit before the
// helper ends the step that waits for it, and that before all of the change is undone.
func TestTimesOfAChangeAreEachWithinTheNext(t *testing.T) {
	if apply.StepTime >= posture.ApplyTime {
		t.Errorf("a step may take %v, and all of them %v", apply.StepTime, posture.ApplyTime)
	}
	for _, unit := range append([]string{generation.FirewallUnit}, generation.PreflightUnits...) {
		seconds := regexp.MustCompile(`(?m)^TimeoutStartSec=(\d+)$`).FindStringSubmatch(read(t, filepath.Join(units, unit)))
		if seconds == nil {
			t.Errorf("%s may take as long as it likes", unit)
			continue
		}
		if limit, err := strconv.Atoi(seconds[1]); err != nil || time.Duration(limit)*time.Second >= apply.StepTime {
			t.Errorf("%s may take %s s, and the step that waits for it %v", unit, seconds[1], apply.StepTime)
		}
	}
}

// Units and code name the same places.
func TestPathsAreThoseOfTheCode(t *testing.T) {
	upgrader := update.NewStore(update.Directory).Upgrader()
	for unit, paths := range map[string][]string{
		generation.FirewallUnit: {generation.Current(generation.IPv4Rules), generation.Current(generation.IPv6Rules)},
		generation.ProxyUnit:    {generation.Current(generation.ProxyConfig), filepath.Dir(generation.ProxyPIDFile)},
		generation.BansUnit:     {generation.Current(generation.BansDirectory)},
		generation.SSHUnit: {generation.Current(generation.SSHConfig), generation.Current(generation.AuthorizedKeys),
			"ConditionPathExists=" + generation.SSHLease + "\n"},
		generation.ChainUnit: {"ConditionPathExists=|" + settings.SignedFile + "\n", "ConditionPathExists=|" + settings.File + "\n",
			"BindReadOnlyPaths=-" + settings.SignedFile + " -" + generation.Current(generation.LetOut) + "\n",
			"StateDirectory=" + filepath.Base(settings.Data) + "\n",
			"BindPaths=" + settings.Runtime + "\n", "User=" + firewall.ChainUser + "\n", " " + nodeorders.Runtime + " -" + clock.Folder + "\n",
			"/usr/bin/bitbox-node /usr/lib/bitbox-base -" + bitcoincore.Owned + " "},
		generation.WatcherUnit: {"ConditionPathExists=|" + settings.SignedFile + "\n", "ConditionPathExists=|" + settings.File + "\n",
			"BindReadOnlyPaths=-" + settings.SignedFile + "\n", "BindReadOnlyPaths=" + settings.Runtime + " ",
			"BindPaths=" + filepath.Dir(nodeclient.DefaultSocket) + "\n", "User=" + firewall.WatcherUser + "\n",
			"SupplementaryGroups=" + firewall.ChainUser + "\n", "\nIPAddressDeny=any\nIPAddressAllow=127.0.0.1\n"},
		generation.WalletUnit: {"ConditionPathExists=|" + settings.SignedFile + "\n", "ConditionPathExists=|" + settings.File + "\n",
			"BindReadOnlyPaths=-" + settings.SignedFile + "\n", "ConditionPathExists=!" + generation.ElectrumFile + "\n",
			"BindReadOnlyPaths=" + settings.Runtime + "\n", "BindPaths=" + filepath.Dir(generation.WalletSocket) + "\n",
			"--socket " + generation.WalletSocket + " --finder ", "User=" + firewall.WalletUser + "\n",
			"SupplementaryGroups=" + firewall.ChainUser + "\n", "\nIPAddressDeny=any\nIPAddressAllow=127.0.0.1\n"},
		generation.MiddlewareUnit:          {filepath.Dir(nodeclient.DefaultSocket) + "\n"},
		generation.MDNSUnit:                {"/usr/lib/bitbox-base/avahi-daemon.conf"},
		"bitbox-base-middleware.socket":    {"ListenStream=" + generation.MiddlewareSocket + "\n"},
		"bitbox-base-system.socket":        {"ListenStream=" + generation.SystemSocket + "\n"},
		update.Unit:                        {"ConditionPathExists=" + upgrader + "\n", "ExecStart=" + upgrader + " upgrade\n"},
		"bitbox-base-upgrade-boot.service": {"ConditionPathExists=" + upgrader + "\n", "ExecStart=" + upgrader + " upgrade boot\n"},
		nodeorders.Unit: {"\nReadWritePaths=" + filepath.Dir(bitcoincore.Owned) + "\n", "/usr/bin/bitbox-base system install-bitcoin-core\n",
			"RequiresMountsFor=" + filepath.Dir(nodeorders.Incoming) + "\n"},
		update.SlotsUnit:              {"ConditionPathExists=" + bootdisk.Directory + "/" + bootdisk.SlotFile + "\n"},
		"bitbox-base-healthy.service": {"ConditionPathExists=" + bootdisk.Directory + "/" + bootdisk.SlotFile + "\n"},
		"bitbox-base-system.service": {update.Directory, bootdisk.Directory, generation.StateDirectory, generation.CertificateDirectory,
			filepath.Dir(generation.HostKey), generation.RuntimeDirectory, nodeorders.Incoming + " " + nodeorders.Runtime + "\n"},
	} {
		text := read(t, filepath.Join(units, unit))
		for _, path := range paths {
			if !strings.Contains(text, path) {
				t.Errorf("%s does not mention %q", unit, path)
			}
		}
	}
	if settings.Port != firewall.NodePort ||
		settings.Address != netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), settings.Port).String() {
		t.Errorf("the node answers at %s, port %d, and the packet filter knows %d", settings.Address, settings.Port, firewall.NodePort)
	}
	if settings.LetOut != generation.Current(generation.LetOut) || settings.SystemUser != firewall.ChainUser {
		t.Errorf("the node looks for %q in %s, to know whether it is let out", settings.SystemUser, settings.LetOut)
	}
	if rebuild.Order != filepath.Join(nodeorders.Runtime, nodeorders.RebuildFile) {
		t.Errorf("the node looks for orders in %s, and the helper writes them into %s", rebuild.Order, nodeorders.Runtime)
	}
	if settings.PeerAddress != netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), firewall.PeerPort).String() {
		t.Errorf("btcd listens at %s, and the packet filter knows port %d", settings.PeerAddress, firewall.PeerPort)
	}
	if target, err := os.Readlink(activation + "/etc/avahi/services/bitbox-base.service"); err != nil ||
		target != generation.AnnouncementFile {
		t.Errorf("Avahi's link leads to %q, %v; want %s", target, err, generation.AnnouncementFile)
	}
	if target, err := os.Readlink(activation + timezone.Localtime); err != nil || target != timezone.Link {
		t.Errorf("the link of the time zone leads to %q, %v; want %s", target, err, timezone.Link)
	}
	if target, err := os.Readlink(activation + "/etc/systemd/system-generators/bitbox-base-services"); err != nil ||
		target != "/usr/bin/bitbox-base" {
		t.Errorf("systemd's generator leads to %q, %v", target, err)
	}
	if !strings.HasPrefix(bruteforce.Socket, "/run/fail2ban/") ||
		!strings.Contains(read(t, filepath.Join(units, generation.BansUnit)), "RuntimeDirectory=fail2ban\n") {
		t.Errorf("fail2ban's socket %s is not in its runtime directory", bruteforce.Socket)
	}
}

// Installing the package changes nothing: what it puts outside of its own folders
// are units that nothing starts, and its users and directories.
func TestThePackageAloneActivatesNothing(t *testing.T) {
	allowed := []string{"root/usr/lib/bitbox-base/", units + "/bitbox-base-", "root/usr/lib/sysusers.d/bitbox-base.conf",
		"root/usr/lib/tmpfiles.d/bitbox-base.conf"}
	err := filepath.WalkDir("root", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		within := slices.ContainsFunc(allowed, func(prefix string) bool { return strings.HasPrefix(path, prefix) })
		if !within || strings.Contains(path, ".wants/") && !strings.HasPrefix(path, activation) {
			t.Errorf("%s takes effect with the installation; what setup is to do belongs into %s", path, activation)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// While a factory reset is not finished, nothing starts that would read or serve
// what is left.
func TestNothingStartsFromAHalfResetBase(t *testing.T) {
	marker := generation.StateDirectory + "/" + factoryreset.Marker
	if !strings.Contains(read(t, filepath.Join(units, "bitbox-base-reset.service")), "\nConditionPathExists="+marker+"\n") {
		t.Errorf("the reset does not wait for %s", marker)
	}
	for unit, needs := range map[string]string{
		"bitbox-base-prepare.service": "bitbox-base-reset.service", generation.FirewallUnit: "bitbox-base-prepare.service",
		generation.MiddlewareUnit: "bitbox-base-prepare.service",
	} {
		text := read(t, filepath.Join(units, unit))
		for _, line := range []string{"\nRequires=" + needs + "\n", "\nAfter=" + needs + "\n"} {
			if !strings.Contains(text, line) {
				t.Errorf("%s lacks %s", unit, strings.TrimSpace(line))
			}
		}
	}
}

// What starts before an interrupted installation is undone runs half a version, and from a file
// that is replaced then. An ordinary service waits for sysinit.target.
func TestNothingStartsBeforeAnInterruptedInstallationIsUndone(t *testing.T) {
	first := "bitbox-base-upgrade-boot.service"
	var before []string
	for line := range strings.Lines(read(t, filepath.Join(units, first))) {
		if names, ok := strings.CutPrefix(line, "Before="); ok {
			before = append(before, strings.Fields(names)...)
		}
	}
	if !slices.Contains(before, "sysinit.target") {
		t.Errorf("%s is not before sysinit.target", first)
	}
	for _, file := range unitFiles(t) {
		name, text := filepath.Base(file), read(t, file)
		early := strings.Contains(text, "\nDefaultDependencies=no\n") && !strings.Contains(text, "\nAfter=sysinit.target")
		if early && name != first && !slices.Contains(before, name) {
			t.Errorf("%s may start before %s", name, first)
		}
	}
}

// After an update nothing goes on with a program of the previous version.
func TestEachServiceThatStaysIsRestartedAfterAnUpdate(t *testing.T) {
	for _, file := range unitFiles(t) {
		name, text := filepath.Base(file), read(t, file)
		switch name {
		case update.Unit: // the installer itself, from a copy
			continue
		case update.SlotsUnit: // an image has no such updates
			continue
		case generation.SSHUnit: // an upgrade over SSH would end with it
			continue
		case generation.BansUnit: // always: its program is Python, which hides that it is old
			continue
		}
		if filepath.Ext(name) == ".service" && !strings.Contains(text, "\nType=oneshot\n") && !slices.Contains(setup.ProgramUnits, name) {
			t.Errorf("%s runs on with the program of the previous version", name)
		}
	}
}

// A directive that nobody explained is one that the next person removes.
func TestEachUnitSaysWhy(t *testing.T) {
	for _, file := range unitFiles(t) {
		text := read(t, file)
		if !strings.HasPrefix(text, "# ") {
			t.Errorf("%s does not begin by saying what it is for", file)
		}
		comments, directives := 0, 0 // several related directives share a comment
		for line := range strings.Lines(text) {
			switch {
			case strings.HasPrefix(line, "#"):
				comments++
			case strings.Contains(line, "="):
				directives++
			}
		}
		if comments*3 < directives {
			t.Errorf("%s has %d lines of comment for %d directives", file, comments, directives)
		}
	}
}

// The files of the package are readable, and none is executable by accident.
func TestInstalledFilesAreOrdinary(t *testing.T) {
	err := filepath.WalkDir("root", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || entry.Type()&fs.ModeSymlink != 0 {
			return err
		}
		info, err := entry.Info()
		if err == nil && info.Mode().Perm()&0o111 != 0 {
			t.Errorf("%s is executable", path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}
