package sshkey_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf16"

	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/sshkey"
	"golang.org/x/crypto/ssh"
)

// secondLine is another key, and rfc4716 the first one as `ssh-keygen -e` writes it.
const (
	secondLine = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl anna@desk"
	rfc4716    = `---- BEGIN SSH2 PUBLIC KEY ----
Comment: "256-bit ED25519, converted by alice@laptop from Ope\
nSSH"
AAAAC3NzaC1lZDI1NTE5AAAAIDvpxXGDAu0w+FUDIb/ygcy6q1chR7o1fzWvDDn
fwJSA
---- END SSH2 PUBLIC KEY ----
`
)

var (
	alice = comments("alice@laptop")
	both  = comments("alice@laptop", "anna@desk")
)

func comments(all ...string) []string { return all }

func inUTF16(text string, order binary.ByteOrder) string {
	var b bytes.Buffer
	_ = binary.Write(&b, order, utf16.Encode([]rune(text)))
	return b.String()
}

func TestFilesOfPublicKeysAreReadAsPeopleHaveThem(t *testing.T) {
	blob := strings.Fields(ed25519Line)[1]
	for what, test := range map[string]struct {
		content, name string
		want          []string // comments
	}{
		"one line":              {ed25519Line + "\n", "", alice},
		"lines of Windows":      {ed25519Line + "\r\n\r\n", "", alice},
		"a blank last line":     {ed25519Line + "\n\n", "", alice},
		"a comment line":        {"# of Alice\n" + ed25519Line, "", alice},
		"two spaces":            {"ssh-ed25519  " + blob + "  alice@laptop ", "", alice},
		"tabs":                  {"\tssh-ed25519\t" + blob + "\talice@laptop", "", alice},
		"a byte order mark":     {"\ufeff" + ed25519Line, "", alice},
		"UTF-16":                {inUTF16("\ufeff"+ed25519Line+"\r\n", binary.LittleEndian), "", alice},
		"UTF-16, big endian":    {inUTF16("\ufeff"+ed25519Line, binary.BigEndian), "", alice},
		"UTF-16 without a mark": {inUTF16(ed25519Line, binary.LittleEndian), "", alice},
		"RFC 4716":              {rfc4716, "", comments("256-bit ED25519, converted by alice@laptop from OpenSSH")},
		"RFC 4716 of Windows": {strings.ReplaceAll(rfc4716, "\n", "\r\n"), "",
			comments("256-bit ED25519, converted by alice@laptop from OpenSSH")},
		"several keys":                   {ed25519Line + "\n" + secondLine + "\n", "", both},
		"the same key twice":             {ed25519Line + "\n" + ed25519Line + "\n", "", alice},
		"several keys without a comment": {"ssh-ed25519 " + blob + "\n" + secondLine, "", comments("", "anna@desk")},
		"several keys and a name":        {ed25519Line + "\n" + secondLine, "Anna", comments("Anna 1", "Anna 2")},
		"a name":                         {ed25519Line, "Anna's laptop", comments("Anna's laptop")},
		"a joiner in the comment":        {ed25519Line + "\u200d", "Alice", comments("Alice")},
		"Latin-1 in the comment":         {ed25519Line + " Zo\xeb", "Alice", comments("Alice")},
		"a no-break space in it":         {ed25519Line + "\u00a0mine", "Alice", comments("Alice")},
		"a long comment":                 {ed25519Line + strings.Repeat("x", sshkey.MaxCommentSize), "Alice", comments("Alice")},
	} {
		path := filepath.Join(t.TempDir(), "id.pub")
		if err := os.WriteFile(path, []byte(test.content), 0o600); err != nil {
			t.Fatal(err)
		}
		keys, err := sshkey.ReadFile(path, test.name)
		var got []string
		for _, key := range keys {
			got = append(got, key.Comment)
		}
		if err != nil || !slices.Equal(got, test.want) || keys[0].Fingerprint != ed25519Fingerprint {
			t.Errorf("%s: %q, %v; want %q", what, got, err, test.want)
		}
	}
}

func TestAPrivateKeyByMistakeIsRefusedLoudlyAndNothingElseIsAKey(t *testing.T) {
	_, secret, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(secret, "")
	if err != nil {
		t.Fatal(err)
	}
	private := string(pem.EncodeToMemory(block))
	ppk := "PuTTY-User-Key-File-3: ssh-ed25519\nPublic-Lines: 2\n" + strings.Fields(ed25519Line)[1] + "\nPrivate-Lines: 1\nAAAA\n"
	var many strings.Builder
	for range sshkey.MaxKeys + 1 {
		public, _, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		many.WriteString(line(t, public) + "\n")
	}
	for what, test := range map[string]struct {
		content string
		want    error
		says    string
	}{
		"a private key":              {private, sshkey.ErrPrivate, "PRIVATE key"},
		"a private key after text":   {"my key\n\n" + private, sshkey.ErrPrivate, "PRIVATE key"},
		"a public and a private key": {ed25519Line + "\n" + private, sshkey.ErrPrivate, "PRIVATE key"},
		"below Bag Attributes": {"Bag Attributes\n    friendlyName: alice\nKey Attributes: <No Attributes>\n-----BEGIN PRIVATE KEY-----\n",
			sshkey.ErrPrivate, "PRIVATE key"},
		"a private key in UTF-16":     {inUTF16("\ufeff"+private, binary.LittleEndian), sshkey.ErrPrivate, "PRIVATE key"},
		"a private key without a PEM": {"ssh-ed25519 " + strings.Split(private, "\n")[1], sshkey.ErrPrivate, "PRIVATE key"},
		"behind what looks UTF-16":    {"x\x00" + private, sshkey.ErrPrivate, "PRIVATE key"},
		"one of OpenSSL":              {"-----BEGIN RSA PRIVATE KEY-----\n", sshkey.ErrPrivate, "PRIVATE key"},
		"an encrypted one":            {"-----BEGIN ENCRYPTED PRIVATE KEY-----\n", sshkey.ErrPrivate, "PRIVATE key"},
		"one of ssh.com":              {"---- BEGIN SSH2 ENCRYPTED PRIVATE KEY ----\n", sshkey.ErrPrivate, "PRIVATE key"},
		"one of PuTTY":                {ppk, sshkey.ErrPrivate, "PuTTY"},
		"one of PGP":                  {"-----BEGIN PGP PRIVATE KEY BLOCK-----\n", sshkey.ErrPrivate, "PRIVATE key"},
		"nothing":                     {"", sshkey.ErrKey, "empty"},
		"only comments":               {"# nothing\n\n", sshkey.ErrKey, "comment lines"},
		"an option":                   {`command="sh" ` + ed25519Line, sshkey.ErrKey, "options"},
		"an option in the second":     {ed25519Line + "\nno-pty " + secondLine, sshkey.ErrKey, "line 2: "},
		"a break of old Macs":         {ed25519Line + "\r" + secondLine, sshkey.ErrKey, "more than one line"},
		"a hidden character":          {ed25519Line + "\u202e", sshkey.ErrKey, "invisible"},
		"a certificate":               {"Bag Attributes\n-----BEGIN CERTIFICATE-----\n", sshkey.ErrKey, "X.509"},
		"a PEM public key":            {"-----BEGIN PUBLIC KEY-----\n", sshkey.ErrKey, "ssh-keygen -i"},
		"a PGP public key":            {"-----BEGIN PGP PUBLIC KEY BLOCK-----\n", sshkey.ErrKey, "gpg --export-ssh-key"},
		"half of an RFC 4716 key":     {strings.Split(rfc4716, "---- END")[0], sshkey.ErrKey, "RFC 4716"},
		"two RFC 4716 keys":           {rfc4716 + rfc4716, sshkey.ErrKey, "one key"},
		"too many keys":               {many.String(), sshkey.ErrKey, "more than 16"},
		"a picture":                   {"\x89PNG\r\n\x1a\n", sshkey.ErrKey, "not a text file"},
		"a large file":                {strings.Repeat("x", 1<<20), sshkey.ErrKey, "larger"},
	} {
		for _, name := range []string{"", "Anna"} {
			if what == "a hidden character" && name != "" {
				continue // the comment does not matter then
			}
			path := filepath.Join(t.TempDir(), "id_ed25519")
			if err := os.WriteFile(path, []byte(test.content), 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := sshkey.ReadFile(path, name)
			if name != "" && what == "a break of old Macs" {
				continue // it is in the comment: no second key comes of it (see FuzzRead)
			}
			if !errors.Is(err, test.want) || !strings.Contains(fmt.Sprint(err), test.says) || strings.Contains(fmt.Sprint(err), "\n") {
				t.Errorf("%s: %v", what, err)
			}
			if err != nil && strings.Contains(err.Error(), "b3BlbnNzaC1rZXk") {
				t.Errorf("%s: the key is in the message", what)
			}
		}
	}
	if _, err := sshkey.ReadFile(filepath.Join(t.TempDir(), "none"), ""); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file that is not there: %v", err)
	}
}

// Whatever a file holds, what is read of it are canonical lines.
func FuzzRead(f *testing.F) {
	f.Add([]byte(ed25519Line+"\n"+secondLine), "")
	f.Add([]byte(rfc4716), "Anna")
	f.Add([]byte(inUTF16(ed25519Line, binary.BigEndian)), "Anna")
	f.Fuzz(func(t *testing.T, content []byte, name string) {
		keys, err := sshkey.Read(content, name)
		if err != nil {
			return
		}
		for _, key := range keys {
			if again, err := sshkey.Parse(key.Line); err != nil || again != key || strings.ContainsAny(key.Line, "\n\r") {
				t.Fatalf("Read(%q, %q) has %+v, which parses to %+v, %v", content, name, key, again, err)
			}
		}
	})
}
