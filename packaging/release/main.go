// Command release makes the release files that carry new versions of the Base's package
// (docs/updates.md). It is for the makers of releases, on their own machines; no Base has it.
//
//	go run ./packaging/release key FILE
//	go run ./packaging/release sign KEY PACKAGE.deb FILE
//	go run ./packaging/release sign-image KEY DIRECTORY FILE
//	go run ./packaging/release feed KEY NOTES FILE RELEASE...
//	go run ./packaging/release show FILE
//
// key makes a new signing key: keep FILE secret, and a copy of it in another place. It prints the
// public half and writes it into FILE.pub; the public half is built into the Base. sign writes
// the release file of a package, and sign-image that of an image in the directory where it was built.
// feed writes the signed list of releases: NOTES says in a line for each version what it changes
// (VERSION TEXT, or VERSION ! TEXT if it closes a hole). show prints the contents of a release file; if the variable
// RELEASE_KEY is set to the public half, it also verifies the signature.
package main

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/BitBoxSwiss/bitbox-base/internal/atomicfile"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/release"
)

const usage = "usage: release key FILE | sign KEY PACKAGE.deb FILE | sign-image KEY DIRECTORY FILE | feed KEY NOTES FILE RELEASE... | show FILE"

// keyVariable holds the public half, as for the build.
const keyVariable = "RELEASE_KEY"

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "release:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	switch {
	case len(args) == 2 && args[0] == "key":
		return makeKey(args[1])
	case len(args) == 4 && args[0] == "sign":
		return sign(args[1], args[2], args[3])
	case len(args) == 4 && args[0] == "sign-image":
		return signImage(args[1], args[2], args[3])
	case len(args) >= 5 && args[0] == "feed":
		return signFeed(args[1], args[2], args[3], args[4:], time.Now())
	case len(args) == 2 && args[0] == "show":
		return show(args[1])
	}
	return errors.New(usage)
}

// makeKey never replaces a key: without the old one, no Base could be updated again.
func makeKey(path string) error {
	seed, err := readKey(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if seed, err = release.GenerateSigningSeed(); err != nil {
			return err
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return err
		}
		if err := atomicfile.WriteFileAtomic(path, []byte(hex.EncodeToString(seed.Expose())+"\n"), 0o600); err != nil {
			return err
		}
	case err != nil:
		return err
	default:
		fmt.Fprintf(os.Stderr, "release: %s is there already, and is kept\n", path)
	}
	public := hex.EncodeToString(release.PublicKey(seed))
	if err := atomicfile.WriteFileAtomic(path+".pub", []byte(public+"\n"), 0o644); err != nil {
		return err
	}
	fmt.Println(public)
	return nil
}

func readKey(path string) (release.SigningSeed, error) {
	info, err := os.Stat(path)
	if err != nil {
		return release.SigningSeed{}, fmt.Errorf("read the key that signs releases: %w", err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return release.SigningSeed{}, fmt.Errorf("the key %s is open to others (mode %04o); find out who could read it, then: chmod 600 %s", path,
			info.Mode().Perm(), path)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return release.SigningSeed{}, fmt.Errorf("read the key that signs releases: %w", err)
	}
	b, err := hex.DecodeString(strings.TrimSpace(string(text)))
	if err != nil || len(b) != ed25519.SeedSize {
		return release.SigningSeed{}, fmt.Errorf("%s is no key that 'release key' has made", path)
	}
	return release.ParseSigningSeed(b)
}

// sign takes version and architecture from the package itself.
func sign(keyFile, packageFile, to string) error {
	seed, err := readKey(keyFile)
	if err != nil {
		return err
	}
	deb, err := os.ReadFile(packageFile)
	if err != nil {
		return fmt.Errorf("read the package: %w", err)
	}
	out, err := exec.Command("dpkg-deb", "--show", "--showformat=${Package}\n${Version}\n${Architecture}", packageFile).Output()
	if err != nil {
		return fmt.Errorf("ask dpkg-deb what %s is: %w; is it a Debian package?", packageFile, err)
	}
	fields := strings.Split(string(out), "\n")
	if len(fields) != 3 || fields[0] != "bitbox-base" {
		return fmt.Errorf("%s holds the package %q; a Base takes bitbox-base alone", packageFile, fields[0])
	}
	header, err := release.Sign(release.Header{
		Version: fields[1], Architecture: fields[2], Size: uint64(len(deb)), Hash: sha256.Sum256(deb)}, seed)
	if err != nil {
		return err
	}
	return atomicfile.WriteFileAtomic(to, append(header, deb...), 0o644)
}

func show(path string) error {
	h, preamble, err := whole(path)
	if err != nil {
		return err
	}
	verdict := "not verified; set " + keyVariable + " to the public key"
	if text := os.Getenv(keyVariable); text != "" {
		key, err := release.ParsePublicKey(text)
		if err != nil {
			return err
		}
		if _, err := release.Verify(preamble, key); err != nil {
			return err
		}
		verdict = "good"
	}
	content := fmt.Sprintf("package       %d bytes, SHA-256 %x", h.Size, h.Hash)
	if h.Image != nil {
		content = fmt.Sprintf("root hash     %x\nroot          %d bytes\nhashes        %d bytes\nUKI           %d bytes", h.Image.RootHash,
			h.Image.RootSize, h.Image.VeritySize, h.Image.UKISize)
	}
	fmt.Printf("version       %s\narchitecture  %s\n%s\nsignature     %s\n", h.Version, h.Architecture, content, verdict)
	return nil
}

// whole reads a release file and compares what follows its preamble with it.
func whole(path string) (h release.Header, preamble []byte, err error) {
	file, err := os.Open(path)
	if err != nil {
		return h, nil, fmt.Errorf("read the release: %w", err)
	}
	defer func() { _ = file.Close() }()
	if preamble, err = release.ReadPreamble(file); err != nil {
		return h, nil, fmt.Errorf("read the release: %w", err)
	}
	if h, err = release.Parse(preamble); err != nil {
		return h, nil, err
	}
	return h, preamble, h.Whole(file)
}
