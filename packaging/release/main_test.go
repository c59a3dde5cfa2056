package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/BitBoxSwiss/bitbox-base/internal/helper/slot/verity"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/release"
	"github.com/BitBoxSwiss/bitbox-base/internal/version"
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

// anImage writes what the maker of images leaves in a directory.
func anImage(t *testing.T, version string) (directory string) {
	t.Helper()
	directory = t.TempDir()
	root := make([]byte, release.ChunkSize+verity.BlockSize)
	for i := range root {
		root[i] = byte(i % 253)
	}
	tree, hash, err := verity.Tree(bytes.NewReader(root), uint64(len(root)), []byte("salt"))
	if err != nil {
		t.Fatal(err)
	}
	info := fmt.Sprintf(`{"version": %q, "architecture": "amd64", "rootHash": "%x", "kernel": "6.12", "signed": true}`, version, hash)
	for name, content := range map[string][]byte{
		rootFile: root, verityFile: append(verity.Superblock(uint64(len(root)), []byte("salt"), [16]byte{}), tree...),
		ukiFile: fmt.Appendf(nil, "MZ roothash=%x ro", hash), infoFile: []byte(info),
	} {
		if err := os.WriteFile(filepath.Join(directory, name), content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return directory
}

func TestAReleaseIsMadeOfAnImageAndListedInAFeed(t *testing.T) {
	work := t.TempDir()
	key, out, feed, notes := filepath.Join(work, "key"), filepath.Join(work, "base_1.2_amd64.image.release"), filepath.Join(work, "feed"),
		filepath.Join(work, "notes")
	if err := errors.Join(run([]string{"key", key}), run([]string{"sign-image", key, anImage(t, "1.2"), out}), run([]string{"show", out}),
		os.WriteFile(notes, []byte("1.1 Nicer.\n\n1.2 ! Closes a hole in the parser.\n"), 0o644)); err != nil {
		t.Fatal(err)
	}
	if err := run([]string{"feed", key, notes, feed, out}); err == nil {
		t.Error("a hole is closed, and Bases go back to it")
	}
	oldestSafe = "1.2"
	defer func() { oldestSafe = version.OldestSafe }()
	if err := run([]string{"feed", key, notes, feed, out}); err != nil {
		t.Fatal(err)
	}
	seed, err := readKey(key)
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(feed)
	if err != nil {
		t.Fatal(err)
	}
	f, err := release.VerifyFeed(b, release.PublicKey(seed), time.Now())
	if err != nil || len(f.Releases) != 1 {
		t.Fatalf("%+v, %v", f, err)
	}
	if r := f.Releases[0]; !r.IsImage() || !r.ClosesHole || r.Changes != "Closes a hole in the parser." || r.File != filepath.Base(out) {
		t.Errorf("the feed says %+v", r)
	}
	if err := run([]string{"feed", key, notes, filepath.Join(work, "other"), notes}); err == nil {
		t.Error("a text is listed as a release")
	}
}

func TestNoReleaseIsMadeOfPartsThatDoNotBelongTogether(t *testing.T) {
	for name, change := range map[string]func(directory string) error{
		"a changed root": func(d string) error { return os.WriteFile(filepath.Join(d, rootFile), make([]byte, 2<<20), 0o644) },
		"another kernel": func(d string) error { return os.WriteFile(filepath.Join(d, ukiFile), []byte("MZ roothash=00"), 0o644) },
		"no hashes":      func(d string) error { return os.Remove(filepath.Join(d, verityFile)) },
		"no description": func(d string) error { return os.Remove(filepath.Join(d, infoFile)) },
		"no root hash": func(d string) error {
			return os.WriteFile(filepath.Join(d, infoFile), []byte(`{"version": "1"}`), 0o644)
		},
	} {
		work, directory := t.TempDir(), anImage(t, "1.2")
		key, out := filepath.Join(work, "key"), filepath.Join(work, "out")
		if err := errors.Join(run([]string{"key", key}), change(directory)); err != nil {
			t.Fatal(err)
		}
		if err := run([]string{"sign-image", key, directory, out}); err == nil {
			t.Errorf("%s: no error", name)
		}
		if _, err := os.Stat(out); err == nil {
			t.Errorf("%s: a release was made", name)
		}
	}
}
