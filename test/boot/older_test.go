//go:build linux

package boot_test

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/BitBoxSwiss/bitbox-base/internal/helper/osrelease"
	"github.com/BitBoxSwiss/bitbox-base/test/stage"
)

// The package on the Debian before the one that a Base is made of: one sentence says the way,
// and nothing has changed.
func TestAnOlderDebianIsToldToUpgradeFirstAndStaysAsItIs(t *testing.T) {
	t.Parallel()
	stage.NeedRoot(t, "dpkg-deb")
	older, err := stage.OlderDebian("bookworm")
	if err != nil {
		t.Fatal(err)
	}
	osRelease, err := os.ReadFile(filepath.Join(older, "usr/lib/os-release"))
	if err != nil {
		t.Fatal(err)
	}
	want := osrelease.Parse(string(osRelease)).Suits()
	if want == nil {
		t.Fatalf("a Base is made of it: %s", osRelease)
	}
	ours := deb(t, newVersion)
	permissive := rebuilt(t, ours, func(root string) {
		if err := os.Remove(filepath.Join(root, "DEBIAN/preinst")); err != nil {
			t.Fatal(err)
		}
	})
	// install tries to install a package in a copy of it, and returns what was said and what
	// is different afterwards.
	install := func(file string) (said string, changed []string) {
		root := filepath.Join(t.TempDir(), "root")
		host(t, "cp", "--archive", older, root)
		host(t, "cp", file, filepath.Join(root, "bitbox-base.deb"))
		before := tree(t, root)
		out, err := exec.Command("unshare", "--mount", "--pid", "--net", "--fork", "--kill-child", "--root="+root, "--mount-proc", "--",
			"dpkg", "--install", "/bitbox-base.deb").CombinedOutput()
		if err == nil {
			t.Errorf("it could be installed:\n%s", out)
		}
		after := tree(t, root)
		for _, path := range slices.Concat(before, after) {
			if slices.Contains(before, path) != slices.Contains(after, path) {
				changed = append(changed, path)
			}
		}
		return string(out), changed
	}

	said, changed := install(ours)
	if !strings.Contains(said, "\nbitbox-base: "+want.Error()+"\n") {
		t.Errorf("it does not say %q:\n%s", want, said)
	}
	if changed != nil {
		t.Errorf("there is another %q", changed)
	}
	if _, changed := install(permissive); changed == nil {
		t.Error("without its first script it changes nothing either, so this test shows nothing")
	}

	// The setup says the same.
	files := t.TempDir()
	host(t, "dpkg-deb", "--extract", ours, files)
	out, err := exec.Command(filepath.Join(files, "usr/bin/bitbox-base"), "setup", "--yes", "--root", older).CombinedOutput()
	if err == nil || !strings.Contains(string(out), want.Error()) {
		t.Errorf("the setup says %q, %v", out, err)
	}
}

// tree lists the files of a root, but those in which dpkg notes what it has tried.
func tree(t *testing.T, root string) []string {
	t.Helper()
	var paths []string
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		path = strings.TrimPrefix(path, root)
		switch {
		case errors.Is(err, fs.ErrNotExist), strings.HasPrefix(path, "/var/lib/dpkg/"), path == "/var/log/dpkg.log":
			return nil
		case err != nil:
			return err
		}
		paths = append(paths, path)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return paths
}
