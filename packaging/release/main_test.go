package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/release"
)

// aPackage makes a small one.
func aPackage(t *testing.T, name string) string {
	t.Helper()
	if _, err := exec.LookPath("dpkg-deb"); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip("SKIPPED, not passed: this test needs dpkg-deb")
	}
	root, deb := t.TempDir(), filepath.Join(t.TempDir(), "package.deb")
	control := "Package: " + name + "\nVersion: 1.2-3\nArchitecture: arm64\nMaintainer: nobody <nobody@example.org>\nDescription: a test\n"
	if err := os.Mkdir(filepath.Join(root, "DEBIAN"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, "DEBIAN/control"), []byte(control), 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("dpkg-deb", "--root-owner-group", "--build", root, deb).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return deb
}

func TestAReleaseIsMadeOfAPackageAndAKey(t *testing.T) {
	deb := aPackage(t, "bitbox-base")
	key, out := filepath.Join(t.TempDir(), "keys", "release.key"), filepath.Join(t.TempDir(), "out.release")
	if err := run([]string{"key", key}); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(key); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the key: %v, %v", info.Mode(), err)
	}
	before, _ := os.ReadFile(key)
	if err := run([]string{"key", key}); err != nil {
		t.Fatal(err)
	}
	if after, _ := os.ReadFile(key); string(after) != string(before) {
		t.Error("a key was replaced")
	}
	if err := run([]string{"sign", key, deb, out}); err != nil {
		t.Fatal(err)
	}
	seed, err := readKey(key)
	if err != nil {
		t.Fatal(err)
	}
	file, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	h, err := release.Verify(file[:release.HeaderSize], release.PublicKey(seed))
	if err != nil || h.Version != "1.2-3" || h.Architecture != "arm64" || int(h.Size) != len(file)-release.HeaderSize {
		t.Errorf("%+v, %v", h, err)
	}
	if err := run([]string{"show", out}); err != nil {
		t.Error(err)
	}
	t.Setenv(keyVariable, strings.Repeat("11", 32))
	if err := run([]string{"show", out}); err == nil {
		t.Error("somebody else's key verifies it")
	}
}

func TestNoReleaseIsMadeOfSomethingElse(t *testing.T) {
	good, other := aPackage(t, "bitbox-base"), aPackage(t, "another-app")
	directory := t.TempDir()
	key, open, out := filepath.Join(directory, "key"), filepath.Join(directory, "open"), filepath.Join(directory, "out")
	if err := run([]string{"key", key}); err != nil {
		t.Fatal(err)
	}
	text, _ := os.ReadFile(key)
	if err := os.WriteFile(open, text, 0o644); err != nil {
		t.Fatal(err)
	}
	for name, args := range map[string][]string{
		"another package":       {"sign", key, other, out},
		"no package":            {"sign", key, key, out},
		"a key open to others":  {"sign", open, good, out},
		"no key":                {"sign", good, good, out},
		"a key that is missing": {"sign", out, good, out},
		"nothing":               {},
		"a package to show":     {"show", good},
	} {
		if err := run(args); err == nil {
			t.Errorf("%s: no error", name)
		}
		if _, err := os.Stat(out); err == nil {
			t.Fatalf("%s: a release was made", name)
		}
	}
}
