package verify

import (
	"bytes"
	"encoding/base64"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
	"github.com/BitBoxSwiss/bitbox-base/internal/rootfile"
)

// Folder has the list of a Base: the file signers, and a file NAME.asc with the public key of each.
const Folder = "/usr/lib/bitbox-base/bitcoin-core-signers"

const (
	listFile = "signers"
	// maxList and maxKey bound the files, in bytes; a key with many signatures of others has some
	// 100 KB. maxSigners is how many there are at most.
	maxList    = 64 << 10
	maxKey     = 512 << 10
	maxSigners = 64
)

// Signer is one whom the builder trusts to have built what they sign.
type Signer struct {
	// Fingerprint is that of the primary key, in 40 capital hexadecimal digits.
	Fingerprint string
	Name        string
}

// Signers are those of a builder, with their keys.
type Signers struct {
	list    []Signer
	keyring []byte // their public keys, as gpgv reads them
}

var signerLine = regexp.MustCompile(`^([0-9A-F]{40}) ([A-Za-z0-9][A-Za-z0-9_-]{0,30})$`)

// ReadSigners reads a list. A line has the fingerprint of a primary key and a name; empty lines and
// those that begin with # are ignored. A list with a single fault is refused as a whole.
func ReadSigners(folder string) (Signers, error) {
	s, err := readSigners(folder)
	if err != nil {
		return Signers{}, reason.Errorf("read the builder's list of signers of Bitcoin Core in %s: %w", folder, err)
	}
	return s, nil
}

func readSigners(folder string) (s Signers, err error) {
	text, err := rootfile.Read(filepath.Join(folder, listFile), maxList)
	if err != nil {
		return Signers{}, err
	}
	number := 0
	for line := range strings.Lines(string(text)) {
		number++
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		match := signerLine.FindStringSubmatch(line)
		if match == nil {
			return Signers{}, reason.Errorf("line %d: it needs the 40 capital digits of a fingerprint and one name", number)
		}
		signer := Signer{match[1], match[2]}
		if slices.ContainsFunc(s.list, func(other Signer) bool { return other.Fingerprint == signer.Fingerprint || other.Name == signer.Name }) {
			return Signers{}, reason.Errorf("line %d: this fingerprint or name is listed twice", number)
		}
		key, err := rootfile.Read(filepath.Join(folder, signer.Name+".asc"), maxKey)
		if errors.Is(err, os.ErrNotExist) {
			return Signers{}, reason.Errorf("line %d: the file %s.asc with the key is missing", number, signer.Name)
		}
		if err == nil {
			key, err = dearmor(key)
		}
		if err != nil {
			return Signers{}, reason.Errorf("%s.asc: %w", signer.Name, err)
		}
		s.list, s.keyring = append(s.list, signer), append(s.keyring, key...)
		if len(s.list) > maxSigners {
			return Signers{}, reason.Errorf("it has more than %d lines", maxSigners)
		}
	}
	return s, nil
}

// The first and last line of a public key (RFC 9580, section 6.2).
const (
	armorBegin = "-----BEGIN PGP PUBLIC KEY BLOCK-----\n"
	armorEnd   = "-----END PGP PUBLIC KEY BLOCK-----"
)

// dearmor returns the bytes of one public key: gpgv reads no armor in its keyring. It looks at no
// checksum; the fingerprint is one.
func dearmor(text []byte) ([]byte, error) {
	text = bytes.ReplaceAll(text, []byte("\r\n"), []byte("\n"))
	_, body, begins := bytes.Cut(text, []byte(armorBegin))
	body, rest, ends := bytes.Cut(body, []byte(armorEnd))
	// Headers end with an empty line.
	_, body, headed := bytes.Cut(append([]byte("\n"), body...), []byte("\n\n"))
	if !begins || !ends || !headed || len(bytes.TrimSpace(rest)) > 0 {
		return nil, reason.New("it is not one public key in the form that gpg --armor --export writes")
	}
	if i := bytes.LastIndex(body, []byte("\n=")); i >= 0 {
		body = body[:i]
	}
	return base64.StdEncoding.DecodeString(string(bytes.ReplaceAll(body, []byte("\n"), nil)))
}
