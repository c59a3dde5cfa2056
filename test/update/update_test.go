//go:build linux

package update_test

import (
	"bytes"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/BitBoxSwiss/bitbox-base/client"
	"github.com/BitBoxSwiss/bitbox-base/internal/update"
	"github.com/BitBoxSwiss/bitbox-base/internal/update/release"
	"github.com/BitBoxSwiss/bitbox-base/test/stage"
)

// What is done to a version.
var (
	// slow: installing it lasts until somebody ends it.
	slow = scripted("postinst", "[ \"$1\" != configure ] || sleep 3600")
	// failing: it does not install.
	failing = scripted("postinst", "[ \"$1\" != configure ] || exit 1")
	// crashing: its Middleware starts and ends, again and again.
	crashing = edited("usr/lib/systemd/system/bitbox-base-middleware.service",
		"ExecStart=/usr/bin/bitbox-base middleware\n", "ExecStart=/usr/bin/bitbox-base middleware --no-such-flag\n")
	// helpless: its system helper does not start.
	helpless = wrapped("[ \"$1 $2\" != 'system ' ] || exit 1")
	// senseless: its program is none.
	senseless change = func(root string) { write(root, "usr/bin/bitbox-base", "\x7fELF", 0o755) }
	// needy: it needs a package that is not there.
	needy = edited("DEBIAN/control", "Depends: ", "Depends: another-app, ")
)

// edited replaces something in a file.
func edited(name, what, by string) change {
	return func(root string) {
		text, err := os.ReadFile(root + "/" + name)
		if err != nil || !bytes.Contains(text, []byte(what)) {
			panic(name + " has no " + what)
		}
		write(root, name, strings.Replace(string(text), what, by, 1), 0o644)
	}
}

func TestAnOwnersAppUpdatesABaseAndABadVersionGoesBack(t *testing.T) {
	b := boot(t)
	t.Run("what is not signed, or not newer, is refused", func(t *testing.T) {
		b.t = t
		b.refuses()
	})
	t.Run("a new version is installed", func(t *testing.T) {
		b.t = t
		b.updates()
	})
	t.Run("a version whose Middleware ends again and again goes back by itself", func(t *testing.T) {
		b.t = t
		b.goesBack(crashing)
	})
	t.Run("a power cut in the middle of the installation is undone at boot", func(t *testing.T) {
		b.t = t
		b.undoesAtBoot()
	})
	t.Run("afterwards the entry is still all that answers", func(t *testing.T) {
		b.t = t
		b.onlyTheEntry()
	})
}

// More of the same, which takes minutes: make test-update.
func TestUpdatesThatFailInEveryOtherWay(t *testing.T) {
	if os.Getenv("BITBOX_BASE_ALL_UPDATES") == "" {
		t.Skip("SKIPPED, not passed: this takes minutes; type make test-update")
	}
	b := boot(t)
	for name, bad := range map[string]change{
		"whose system helper does not start": helpless,
		"whose program is no program":        senseless,
		"that does not install":              failing,
		"that needs what is not there":       needy,
	} {
		t.Run("a version "+name+" goes back by itself", func(t *testing.T) {
			b.t = t
			b.goesBack(bad)
		})
	}
	t.Run("an installation that is killed is undone at once", func(t *testing.T) {
		b.t = t
		_, file := b.next(slow)
		b.begin(file)
		b.installs()
		b.MustExec("systemctl", "kill", "--signal=SIGKILL", update.Unit)
		b.ends()
		b.is(b.current)
	})
	t.Run("a power cut while the new version proves itself is no reason to go back", func(t *testing.T) {
		b.t = t
		version, file := b.next()
		b.begin(file)
		b.reaches(update.Checking)
		b.Kill()
		b.Start()
		b.ends()
		b.is(version)
	})
	t.Run("a power cut while a bad version proves itself ends with the one before", func(t *testing.T) {
		b.t = t
		_, file := b.next(crashing)
		b.begin(file)
		b.reaches(update.Checking)
		b.Kill()
		b.Start()
		b.ends()
		b.is(b.current)
	})
	t.Run("two power cuts while it proves itself are its fault", func(t *testing.T) {
		b.t = t
		_, file := b.next()
		b.begin(file)
		b.reaches(update.Checking)
		b.Kill()
		b.Start()
		b.Kill()
		b.Start()
		b.ends()
		b.is(b.current)
	})
	t.Run("a read-only root is writable for the update alone", func(t *testing.T) {
		b.t = t
		b.updatesReadOnly()
	})
	t.Run("afterwards the entry is still all that answers", func(t *testing.T) {
		b.t = t
		b.onlyTheEntry()
	})
}

// refuses brings what a Base must not take.
func (b *base) refuses() {
	b.t.Helper()
	other, err := release.GenerateSigningSeed()
	if err != nil {
		b.t.Fatal(err)
	}
	good := b.version(b.seed, "1.99.0")
	for name, file := range map[string][]byte{
		"signed by somebody else": b.version(other, "1.99.0"),
		"the same version":        b.version(b.seed, b.current),
		"an older version":        b.version(b.seed, "1.0.0~rc1"),
		"a flipped signature":     flipped(good, release.HeaderSize-4),
	} {
		if err := b.bring(file); !errors.Is(err, client.ErrRelease) {
			b.t.Errorf("%s: %v", name, err)
		}
	}
	b.is(b.current)
}

// updates brings a good version.
func (b *base) updates() {
	b.t.Helper()
	before := b.MustExec("iptables-save")
	version, file := b.next()
	if err := b.bring(file); err != nil {
		b.t.Fatalf("%v\n%s", client.Explain(err), b.Journal(update.Unit))
	}
	b.is(version)
	if after := b.MustExec("iptables-save"); rules(after) != rules(before) {
		b.t.Errorf("the packet filter was\n%s\nand is\n%s", before, after)
	}
	if err := b.bring(file); !errors.Is(err, client.ErrRelease) {
		b.t.Errorf("once more: %v", err)
	}
}

// goesBack brings a version that is bad.
func (b *base) goesBack(bad change) {
	b.t.Helper()
	_, file := b.next(bad)
	if err := b.bring(file); !errors.Is(err, client.ErrUpdateUndone) {
		b.t.Errorf("%v\n%s", client.Explain(err), b.Journal(update.Unit))
	}
	b.is(b.current)
	if _, phase, reason := b.status(); phase != "PHASE_UNDONE" || reason == "" {
		b.t.Errorf("the App is told %s, %q", phase, reason)
	}
}

// undoesAtBoot cuts the power while dpkg works.
func (b *base) undoesAtBoot() {
	b.t.Helper()
	version, file := b.next(slow)
	b.begin(file)
	b.installs()
	b.Kill()
	if file, _ := os.ReadFile(b.Path("/usr/lib/bitbox-base/version-of-the-test")); string(file) != version {
		b.t.Errorf("the files were those of %q when the power was cut; this attack proves nothing", file)
	}
	b.Start()
	b.is(b.current)
	if _, phase, _ := b.status(); phase != "PHASE_UNDONE" {
		b.t.Errorf("the App is told %s", phase)
	}
}

// updatesReadOnly makes the root read-only, as it is in the image.
func (b *base) updatesReadOnly() {
	b.t.Helper()
	b.MustExec("mount", "-o", "remount,ro", "/")
	written := false
	write := func(client.UpdateProgress) {
		if _, err := b.Exec("touch", "/usr/written"); err == nil {
			written = true
		}
	}
	if write(client.UpdateProgress{}); written {
		b.t.Fatal("the root is writable; this proves nothing")
	}
	version, file := b.next(scripted("postinst", "touch /usr/written-by-the-package && rm /usr/written-by-the-package || exit 1"))
	if err := b.bringUntil(b.t.Context(), file, write); err != nil || written {
		b.t.Errorf("%v; somebody else could write: %v\n%s", client.Explain(err), written, b.Journal(update.Unit))
	}
	if j := b.journal(); j.Writable {
		b.t.Errorf("it was not made read-only again: %+v", j)
	}
	// Not only for others: the file system itself.
	if out := b.MustExec("findmnt", "--noheadings", "--output=FS-OPTIONS", "/"); !strings.HasPrefix(strings.TrimSpace(out), "ro") {
		b.t.Errorf("the file system of the root is %s", out)
	}
	b.is(version)
}

func (b *base) onlyTheEntry() {
	b.t.Helper()
	stage.NeedRoot(b.t, "nmap")
	if found := b.Attacker(1).Scan(b.t, b.V4, "-sS", "-p", "22,80,443,8800-8900,50000-50010"); strings.Join(found, ",") != "tcp 8845 open" {
		b.t.Errorf("these ports answer: %q", found)
	}
	if state := b.State("bitbox-base-firewall.service"); state != "active" {
		b.t.Errorf("the packet filter is %s", state)
	}
}

// installs waits until a script of the new package runs.
func (b *base) installs() {
	b.t.Helper()
	b.reaches(update.Installing)
	b.Until("the package's script runs", func() error {
		_, err := b.Exec("pgrep", "-f", "^sleep 3600$")
		return err
	})
}

// ends waits until the update has.
func (b *base) ends() {
	b.t.Helper()
	b.reaches(update.Done, update.Undone, update.Failed)
}

// rules are those of a packet filter, without counters and comments.
func rules(save string) string {
	var lines []string
	for line := range strings.Lines(save) {
		if strings.HasPrefix(line, "-A") {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "")
}
