//go:build linux && updates

package update_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/BitBoxSwiss/bitbox-base/client"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/update"
)

// More changes that a test makes to a version.
var (
	// failing: it does not install.
	failing = scripted("postinst", "[ \"$1\" != configure ] || exit 1")
	// helpless: its system helper does not start.
	helpless = wrapped("[ \"$1 $2\" != 'system ' ] || exit 1")
	// senseless: its program is none.
	senseless change = func(root string) { write(root, "usr/bin/bitbox-base", "\x7fELF", 0o755) }
	// needy: it needs a package that is not there.
	needy = edited("DEBIAN/control", "Depends: ", "Depends: another-app, ")
)

// More of the same, which takes minutes: `make test-update`.
func TestUpdatesThatFailInEveryOtherWay(t *testing.T) {
	t.Parallel()
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
		// The second cut comes as soon as the first is counted: in a few seconds the version has proved itself.
		b.StartAndCut(func() bool { return b.journal().Boots > 0 })
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

// wrapped puts a script in front of the program.
func wrapped(lines string) change {
	return func(root string) {
		program := filepath.Join(root, "usr/bin/bitbox-base")
		if err := os.Rename(program, filepath.Join(root, "usr/lib/bitbox-base/program")); err != nil {
			panic(err)
		}
		write(root, "usr/bin/bitbox-base", "#!/bin/sh\n"+lines+"\nexec /usr/lib/bitbox-base/program \"$@\"\n", 0o755)
	}
}

// updatesReadOnly makes the root read-only, as it is in the image.
func (b *base) updatesReadOnly() {
	b.t.Helper()
	// An overlay takes this by the older system call alone; not while something runs from a file
	// that was replaced.
	b.Until("the root is read-only", func() error {
		out, err := b.Exec("env", "LIBMOUNT_FORCE_MOUNT2=always", "mount", "-o", "remount,ro", "/")
		if err != nil {
			// What keeps it busy: programs and open files that were replaced.
			busy, _ := b.Exec("sh", "-c", "ls -l /proc/[0-9]*/exe /proc/[0-9]*/fd/* 2>/dev/null | grep -F '(deleted)'; ps -eo pid,args")
			return fmt.Errorf("%w: %s\n%s", err, out, busy)
		}
		return nil
	})
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

// ends waits until the update has.
func (b *base) ends() {
	b.t.Helper()
	b.reaches(update.Done, update.Undone, update.Failed)
}
