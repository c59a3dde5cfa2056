package sshkey

import (
	"cmp"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
	"unicode/utf16"
	"unicode/utf8"

	"golang.org/x/crypto/ssh"

	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
)

const (
	// maxFileSize is how much of a file is read, in bytes: more than the largest
	// private key takes, so that one is recognised.
	maxFileSize = 64 << 10
	// MaxKeys is how many keys one file may hold: as many as a posture may list.
	MaxKeys = 16
)

// ErrPrivate: the text holds a private key.
var ErrPrivate = reason.New("a private key")

// ReadFile reads the public keys in a file, see [Read]. Nothing of a private key is
// shown or kept.
func ReadFile(path, name string) ([]Key, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, reason.Errorf("read the SSH public key: %w", err)
	}
	defer file.Close()
	content, err := io.ReadAll(io.LimitReader(file, maxFileSize+1))
	if err != nil {
		return nil, reason.Errorf("read the SSH public key %s: %w", path, err)
	}
	defer clear(content)
	keys, err := Read(content, name)
	if errors.Is(err, ErrPrivate) {
		return nil, reason.Errorf("%s: %w, usually %s.pub", path, err, strings.TrimSuffix(path, ".pub"))
	}
	if err != nil {
		return nil, reason.Errorf("%s: %w", path, err)
	}
	return keys, nil
}

// Read reads public keys as people have them in files: one OpenSSH key a line (.pub,
// authorized_keys, or what a forge publishes), or one key in the format of RFC 4716.
// Blank lines, comment lines, extra spaces and UTF-16 are accepted, since they change
// nothing about a key; everything that could mean more than a key is refused, as
// [Parse] does. The keys are in the order of the text, each once.
//
// A name that is not empty takes the place of the comments. Several keys are then
// numbered: "Anna 1", "Anna 2".
//
// Errors wrap [ErrKey], or [ErrPrivate] if a private key is anywhere in the text.
func Read(content []byte, name string) ([]Key, error) {
	text := decodeUTF16(content)
	// Looked for in the bytes as well: what looks like UTF-16 may be none.
	if what := cmp.Or(privateFormat(text), privateFormat(string(content))); what != "" {
		return nil, reason.Errorf("this is %s (%w): it must not leave your computer, and nothing of it was used; give the public key", what,
			ErrPrivate)
	}
	if len(content) > maxFileSize {
		return nil, refuse("it is larger than %d bytes, too large for a file of public keys", maxFileSize)
	}
	if what := otherFormat(text); what != "" {
		return nil, refuse("%s", what)
	}
	lines, err := keyLines(text)
	if err != nil {
		return nil, err
	}
	var keys []Key
	seen := map[string]bool{}
	for _, l := range lines {
		key, err := Parse(l.withoutComment())
		if err == nil && name == "" {
			key, err = Parse(l.text)
		}
		switch {
		case err != nil && len(lines) > 1:
			return nil, reason.Errorf("line %d: %w", l.number, err)
		case err != nil:
			return nil, err
		case seen[key.Fingerprint]:
			continue
		}
		seen[key.Fingerprint] = true
		if keys = append(keys, key); len(keys) > MaxKeys {
			return nil, refuse("it has more than %d keys", MaxKeys)
		}
	}
	for n := range keys {
		if name == "" {
			break
		}
		numbered := name
		if len(keys) > 1 {
			numbered = fmt.Sprintf("%s %d", name, n+1)
		}
		if keys[n], err = Parse(keys[n].Line + " " + numbered); err != nil {
			return nil, err
		}
	}
	if len(keys) == 0 {
		return nil, refuse("it is empty or has only comment lines")
	}
	return keys, nil
}

// keyLine is one key in OpenSSH's format, as [Parse] takes it.
type keyLine struct {
	number int // in the file, from 1
	text   string
}

func (l keyLine) withoutComment() string {
	fields := strings.SplitN(l.text, " ", 3)
	return strings.Join(fields[:min(len(fields), 2)], " ")
}

// keyLines are the lines that are neither blank nor comments, with one space between
// their fields.
func keyLines(text string) ([]keyLine, error) {
	var lines []keyLine
	if strings.HasPrefix(strings.TrimSpace(text), rfc4716Begin) {
		line, err := readRFC4716(text)
		return []keyLine{{1, line}}, err
	}
	// A line break of old Macs could hide a second key from a reader; Parse refuses it.
	for n, line := range strings.Split(text, "\n") {
		line = strings.Trim(strings.TrimSuffix(line, "\r"), " \t")
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		kind, rest, _ := strings.Cut(strings.ReplaceAll(line, "\t", " "), " ")
		encoded, comment, _ := strings.Cut(strings.TrimLeft(rest, " "), " ")
		fields := []string{kind, encoded, strings.Trim(comment, " ")}
		for fields[len(fields)-1] == "" {
			fields = fields[:len(fields)-1]
		}
		lines = append(lines, keyLine{n + 1, strings.Join(fields, " ")})
	}
	return lines, nil
}

const (
	rfc4716Begin = "---- BEGIN SSH2 PUBLIC KEY ----"
	rfc4716End   = "---- END SSH2 PUBLIC KEY ----"
)

// readRFC4716 makes the line of a key in the format of RFC 4716: headers, of which a
// backslash continues the line, then base64.
func readRFC4716(text string) (string, error) {
	_, text, _ = strings.Cut(text, rfc4716Begin)
	body, rest, whole := strings.Cut(text, rfc4716End)
	if !whole || strings.TrimSpace(rest) != "" {
		return "", refuse("in the format of RFC 4716 it must end with %q and hold one key", rfc4716End)
	}
	body = strings.ReplaceAll(strings.ReplaceAll(body, "\r\n", "\n"), "\\\n", "")
	var encoded strings.Builder
	comment := ""
	for line := range strings.SplitSeq(body, "\n") {
		header, value, isHeader := strings.Cut(line, ":")
		switch {
		case !isHeader:
			encoded.WriteString(strings.TrimSpace(line))
		case strings.EqualFold(header, "Comment"):
			comment = strings.Trim(strings.TrimSpace(value), `"`)
		}
	}
	blob, err := base64.StdEncoding.DecodeString(encoded.String())
	if err != nil {
		return "", refuse("its lines in the format of RFC 4716 are not base64: %v", err)
	}
	public, err := ssh.ParsePublicKey(blob)
	if err != nil {
		return "", refuse("its lines in the format of RFC 4716 are not a public key: %v", err)
	}
	return strings.TrimSpace(strings.TrimSpace(string(ssh.MarshalAuthorizedKey(public))) + " " + comment), nil
}

// decodeUTF16 makes UTF-8 of what PowerShell and Notepad write: UTF-16 with or without
// a byte order mark. The mark of UTF-8 is removed too.
func decodeUTF16(content []byte) string {
	text := strings.TrimPrefix(string(content), "\ufeff")
	if len(content) < 2 {
		return text
	}
	low, high := 0, 1 // little endian
	switch {
	case content[0] == 0xff && content[1] == 0xfe, content[0] != 0 && content[1] == 0:
	case content[0] == 0xfe && content[1] == 0xff, content[0] == 0 && content[1] != 0:
		low, high = 1, 0
	default:
		return text
	}
	units := make([]uint16, len(content)/2)
	for n := range units {
		units[n] = uint16(content[2*n+low]) | uint16(content[2*n+high])<<8
	}
	return strings.TrimPrefix(string(utf16.Decode(units)), "\ufeff")
}

// privateMark is what only files of private keys contain, wherever it stands: PEM of
// OpenSSL and PGP, ssh.com's format, and the first bytes of OpenSSH's own in base64.
var privateMark = regexp.MustCompile(`BEGIN [A-Z0-9 ]*PRIVATE KEY|b3BlbnNzaC1rZXktdjE`)

// privateFormat names the format of a private key anywhere in a text; "" if there is
// none.
func privateFormat(text string) string {
	switch {
	case strings.Contains(text, "PuTTY-User-Key-File"), strings.Contains(text, "Private-Lines:"):
		return "a PRIVATE key of PuTTY (.ppk; PuTTYgen shows its public key in OpenSSH's format)"
	case privateMark.MatchString(text):
		return "a PRIVATE key"
	}
	return ""
}

// HoldsPrivate tells whether a private key stands anywhere in a text.
func HoldsPrivate(text string) bool { return privateFormat(text) != "" }

// otherFormat says what a text is that holds no key as it is read here; "" if that is
// not known.
func otherFormat(text string) string {
	switch {
	case strings.Contains(text, "-----BEGIN CERTIFICATE-----"):
		return "this is an X.509 certificate; give an SSH public key, such as the .pub file of ssh-keygen"
	case strings.Contains(text, "-----BEGIN PGP"):
		return "this is a PGP key; 'gpg --export-ssh-key' prints it in OpenSSH's format"
	case strings.Contains(text, "-----BEGIN RSA PUBLIC KEY-----"):
		return "this is a PEM public key; 'ssh-keygen -i -m PEM -f FILE' prints it in OpenSSH's format"
	case strings.Contains(text, "-----BEGIN PUBLIC KEY-----"):
		return "this is a PEM public key; 'ssh-keygen -i -m PKCS8 -f FILE' prints it in OpenSSH's format"
	case strings.Contains(text, "\x00") || !utf8.ValidString(text) && !strings.Contains(text, "ssh-") && !strings.Contains(text, "ecdsa-"):
		return "this is not a text file; give the .pub file of a key"
	}
	return ""
}
