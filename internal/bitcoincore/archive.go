package bitcoincore

import (
	"bytes"
	"encoding/hex"
	"regexp"
	"strings"

	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
)

// Sizes of the files of a release, in bytes.
const (
	// MaxArchive is far above the 50 MB of a release.
	MaxArchive = 256 << 20
	// MaxSums bounds SHA256SUMS, which has 3 KB, and MaxSignatures SHA256SUMS.asc, which has 1 KB
	// for each of some 20 builders.
	MaxSums       = 32 << 10
	MaxSignatures = 128 << 10
)

// Names of the other two files of a release. They lie beside the archive.
const (
	SumsFile       = "SHA256SUMS"
	SignaturesFile = "SHA256SUMS.asc"
)

// targets are the names that the project gives to Debian's architectures.
var targets = map[string]string{"amd64": "x86_64-linux-gnu", "arm64": "aarch64-linux-gnu"}

var archiveName = regexp.MustCompile(`^bitcoin-([0-9.]{3,7})-([a-z0-9_]{3,10}-linux-gnu)\.tar\.gz$`)

// Archive is what the name of a release's archive says.
type Archive struct {
	Name         string
	Version      Version
	Architecture string
}

// ParseArchive reads the name of an archive. It refuses one for another kind of machine than
// those that a Base is, and a version that a Base does not take.
func ParseArchive(name string) (Archive, error) {
	match := archiveName.FindStringSubmatch(name)
	if match == nil {
		return Archive{}, reason.Errorf("%.80q is not the name of a release of Bitcoin Core for Linux, such as bitcoin-%d.0-%s.tar.gz; leave the file its name",
			name, newest, targets["amd64"])
	}
	version, err := ParseVersion(match[1])
	if err == nil {
		err = version.Check()
	}
	if err != nil {
		return Archive{}, err
	}
	for architecture, target := range targets {
		if target == match[2] {
			return Archive{name, version, architecture}, nil
		}
	}
	return Archive{}, reason.Errorf("the release is for %s, and a Base is %s or %s", match[2], targets["amd64"], targets["arm64"])
}

// For refuses an archive for another kind of machine, given as Debian names it.
func (a Archive) For(architecture string) error {
	if a.Architecture != architecture {
		return reason.Errorf("the release is for %s, and this Base needs the one for %s", targets[a.Architecture], targets[architecture])
	}
	return nil
}

// ErrSums: SHA256SUMS is not as the project writes it.
var ErrSums = reason.New("SHA256SUMS is damaged; fetch it again")

var sumLine = regexp.MustCompile(`^([0-9a-f]{64})  ([A-Za-z0-9._-]{1,100})$`)

// Sum returns the SHA-256 that a file SHA256SUMS has for a name, in hexadecimal.
func Sum(sums []byte, name string) (string, error) {
	if len(sums) > MaxSums || len(sums) == 0 || !bytes.HasSuffix(sums, []byte("\n")) {
		return "", ErrSums
	}
	found := ""
	for line := range strings.Lines(string(sums)) {
		match := sumLine.FindStringSubmatch(strings.TrimSuffix(line, "\n"))
		if match == nil {
			return "", ErrSums
		}
		if match[2] != name {
			continue
		}
		if found != "" {
			return "", ErrSums
		}
		found = match[1]
	}
	if found == "" {
		return "", reason.Errorf("SHA256SUMS does not list %s; take the file of the same release", name)
	}
	return found, nil
}

// Compare refuses an archive whose SHA-256 is not the one that SHA256SUMS has for its name.
func Compare(sums []byte, name string, hash [32]byte) error {
	want, err := Sum(sums, name)
	if err == nil && want != hex.EncodeToString(hash[:]) {
		err = reason.Errorf("%s is damaged or not genuine: its hash is not the one in SHA256SUMS; fetch it again", name)
	}
	return err
}
