// Package coretest makes releases of Bitcoin Core for tests: archives with made programs, and
// signatures by keys that the real gpg has made.
package coretest

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Keys are those of made people: four builders, one whose primary key has three subkeys that sign,
// one whose key has expired, one who may revoke theirs, and a stranger.
type Keys struct {
	t            testing.TB
	home         string
	Fingerprints map[string]string
}

// Builders are all but the stranger.
var Builders = []string{"ann", "bob", "cyd", "dan", "subkeys", "expired", "revoked"}

// longAgo is when the key was good that has expired.
const longAgo = "20240101T000000"

// New makes keys. It skips the test where gpg is not installed.
func New(t testing.TB) *Keys {
	t.Helper()
	if _, err := os.Stat("/usr/bin/gpg"); err != nil {
		t.Skip("gpg is not installed (Debian's package gpg)")
	}
	home, err := os.MkdirTemp("", "gpg-") // not t.TempDir: the path of its socket must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = exec.Command("/usr/bin/gpgconf", "--homedir", home, "--kill", "all").Run()
		_ = os.RemoveAll(home)
	})
	k := &Keys{t: t, home: home, Fingerprints: map[string]string{}}
	for _, name := range append([]string{"stranger"}, Builders...) {
		if name == "expired" {
			k.GPG(nil, "--faked-system-time", longAgo, "--quick-gen-key", name, "ed25519", "sign", "30d")
		} else {
			k.GPG(nil, "--quick-gen-key", name, "ed25519", "sign", "never")
		}
		k.Fingerprints[name] = k.all(name)[0]
	}
	for range 3 {
		k.GPG(nil, "--quick-add-key", k.Fingerprints["subkeys"], "ed25519", "sign", "never")
	}
	return k
}

// all are the fingerprints of a person's keys, the primary key first.
func (k *Keys) all(name string) (fingerprints []string) {
	for line := range strings.Lines(k.GPG(nil, "--with-colons", "--list-keys", name)) {
		if f, is := strings.CutPrefix(strings.TrimSpace(line), "fpr:"); is {
			fingerprints = append(fingerprints, strings.Trim(f, ":"))
		}
	}
	return fingerprints
}

// Subkeys are the fingerprints of the subkeys of a person.
func (k *Keys) Subkeys(name string) []string { return k.all(name)[1:] }

// GPG runs gpg, and returns its output.
func (k *Keys) GPG(in []byte, arguments ...string) string {
	k.t.Helper()
	command := exec.Command("/usr/bin/gpg", append([]string{"--homedir", k.home, "--batch", "--quiet", "--passphrase", ""}, arguments...)...)
	out, errs := &strings.Builder{}, &strings.Builder{}
	command.Stdin, command.Stdout, command.Stderr = bytes.NewReader(in), out, errs
	if err := command.Run(); err != nil {
		k.t.Fatalf("gpg %v: %v: %s", arguments, err, errs)
	}
	return out.String()
}

// Revoke publishes that a key was revoked.
func (k *Keys) Revoke(name string) {
	k.t.Helper()
	text, err := os.ReadFile(filepath.Join(k.home, "openpgp-revocs.d", k.Fingerprints[name]+".rev"))
	if err != nil {
		k.t.Fatal(err)
	}
	// A colon stands before the certificate, so that nobody takes it by accident.
	k.GPG(bytes.ReplaceAll(text, []byte("\n:---"), []byte("\n---")), "--import")
}

// List makes the list of a builder who trusts these, and returns its folder.
func (k *Keys) List(names ...string) string {
	k.t.Helper()
	folder, list := k.t.TempDir(), "# made by a test\n\n"
	for _, name := range names {
		list += k.Fingerprints[name] + " " + name + "\n"
		k.put(filepath.Join(folder, name+".asc"), []byte(k.GPG(nil, "--armor", "--export", name)))
	}
	k.put(filepath.Join(folder, "signers"), []byte(list))
	return folder
}

func (k *Keys) put(path string, b []byte) {
	k.t.Helper()
	if err := os.WriteFile(path, b, 0o644); err != nil {
		k.t.Fatal(err)
	}
}

// Sign returns the armored signatures of some, one after the other, as the project does it. A key
// may also be named by its fingerprint and "!".
func (k *Keys) Sign(sums []byte, names ...string) (all []byte) {
	k.t.Helper()
	for _, name := range names {
		arguments := []string{"--local-user", name, "--armor", "--detach-sign"}
		if name == "expired" {
			arguments = append([]string{"--faked-system-time", longAgo}, arguments...)
		}
		all = append(all, k.GPG(sums, arguments...)...)
	}
	return all
}

// Name is that of the archive of a version for amd64.
func Name(version string) string { return "bitcoin-" + version + "-x86_64-linux-gnu.tar.gz" }

// Write writes a release of a version as the project publishes it, and returns the path of the
// archive.
func (k *Keys) Write(version string, signers ...string) string {
	k.t.Helper()
	return k.WriteArchive(Name(version), Archive(k.t, Programs(version)...), signers...)
}

// WriteArchive writes a release with an archive.
func (k *Keys) WriteArchive(name string, archive []byte, signers ...string) string {
	k.t.Helper()
	folder := k.t.TempDir()
	sums := Sums(name, archive)
	k.put(filepath.Join(folder, "SHA256SUMS"), sums)
	k.put(filepath.Join(folder, "SHA256SUMS.asc"), k.Sign(sums, signers...))
	path := filepath.Join(folder, name)
	k.put(path, archive)
	return path
}

// Sums is the file SHA256SUMS for an archive, and another one.
func Sums(name string, archive []byte) []byte {
	return fmt.Appendf(nil, "%s  bitcoin-31.0.tar.gz\n%x  %s\n", strings.Repeat("ab", 32), sha256.Sum256(archive), name)
}

// Entry is one of an archive.
type Entry struct {
	Name, Content string // of a link, Content is where it leads
	Kind          byte
	Size          int64 // of a file of zeros; 0: the length of Content
}

// Regular is a file.
func Regular(name, content string) Entry {
	return Entry{Name: name, Content: content, Kind: tar.TypeReg}
}

// Zeros is a file of zeros.
func Zeros(name string, size int64) Entry { return Entry{Name: name, Kind: tar.TypeReg, Size: size} }

// Programs are what a release has, and what else is in one. The last is bitcoind, whose content is
// "node " and its version.
func Programs(version string) []Entry {
	top := "bitcoin-" + version + "/"
	return []Entry{
		{Name: top, Kind: tar.TypeDir}, Regular(top+"README.md", "read me"), {Name: top + "bin/", Kind: tar.TypeDir},
		Regular(top+"bin/bitcoin-cli", "cli "+version), Regular(top+"bin/bitcoin-qt", "window"), Regular(top+"bin/bitcoind", "node "+version),
	}
}

// Archive makes one. Its files have modes and owners that nobody must take over.
func Archive(t testing.TB, entries ...Entry) []byte {
	t.Helper()
	out := &bytes.Buffer{}
	zipped := gzip.NewWriter(out)
	archive := tar.NewWriter(zipped)
	for _, e := range entries {
		header := &tar.Header{Name: e.Name, Typeflag: e.Kind, Mode: 0o4777, Uid: 1000, Format: tar.FormatPAX}
		if e.Kind == tar.TypeSymlink || e.Kind == tar.TypeLink {
			header.Linkname, e.Content = e.Content, ""
		}
		header.Size = max(e.Size, int64(len(e.Content)))
		err := archive.WriteHeader(header)
		if err == nil {
			_, err = archive.Write([]byte(e.Content))
		}
		for left := header.Size - int64(len(e.Content)); left > 0 && err == nil; left -= 1 << 20 {
			_, err = archive.Write(make([]byte, min(left, 1<<20)))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(archive.Close(), zipped.Close()); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}
