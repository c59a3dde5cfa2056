package provisioning

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/noiseconn"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/sshkey"
)

var update = flag.Bool("update", false, "rewrite the golden files")

const keyLine = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDvpxXGDAu0w+FUDIb/ygcy6q1chR7o1fzWvDDnfwJSA alice@laptop"

func must[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}

// fixed are 32 bytes that nobody mistakes for real ones.
func fixed(name string) []byte {
	digest := sha256.Sum256([]byte("bitbox-base test: " + name))
	return digest[:]
}

func testClaim() *Claim {
	signing := ed25519.NewKeyFromSeed(fixed("K_sign")).Public().(ed25519.PublicKey)
	return &Claim{
		App: must(noiseconn.PublicOf(must(noiseconn.ParseStatic(fixed("static"))))), SigningKey: [32]byte(signing),
		Secret: must(noiseconn.ParseClaimSecret(fixed("secret"))), Until: time.Unix(1_800_000_000, 0).UTC(),
	}
}

func files() map[string]File {
	key := must(sshkey.Parse(keyLine))
	return map[string]File{
		"empty": {},
		"name":  {Name: "Küche"},
		"ssh":   {SSHKeys: []sshkey.Key{key}, SSHLease: 90 * time.Minute},
		"claim": {Claim: testClaim()},
		"full":  {Name: "Cellar", SSHKeys: []sshkey.Key{key}, SSHLease: time.Hour, NoDisplay: true, Claim: testClaim()},
	}
}

// A file that some App has written must be read by every Base of this version.
func TestGoldenFilesAreWrittenAndReadBack(t *testing.T) {
	for name, f := range files() {
		path := filepath.Join("testdata", name+".provision")
		content := must(f.Marshal())
		if *update {
			if err := os.WriteFile(path, content, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if golden := must(os.ReadFile(path)); !bytes.Equal(golden, content) {
			t.Errorf("%s: written is\n%s\nnot\n%s", name, content, golden)
		}
		back, err := Parse(content)
		if err != nil || !bytes.Equal(must(back.Marshal()), content) {
			t.Errorf("%s: read back is %+v, %v", name, back, err)
		}
	}
}

// sealed is a file with these lines and a right end.
func sealed(lines ...string) []byte {
	body := version + comment
	for _, line := range lines {
		body += line + "\n"
	}
	digest := sha256.Sum256([]byte(body))
	return []byte(body + keyEnd + " " + hex.EncodeToString(digest[:]) + "\n")
}

func TestOnlyWhatThisVersionWritesIsTaken(t *testing.T) {
	full := must(files()["full"].Marshal())
	lines := strings.Split(strings.TrimPrefix(string(full), version+comment), "\n")
	lines = lines[:len(lines)-2] // without the end
	if !bytes.Equal(sealed(lines...), full) {
		t.Fatal("the lines are not those of the file")
	}
	without := func(prefix string) []string {
		return slices.DeleteFunc(slices.Clone(lines), func(l string) bool { return strings.HasPrefix(l, prefix) })
	}
	instead := func(prefix, line string) []string {
		changed := slices.Clone(lines)
		for n := range changed {
			if strings.HasPrefix(changed[n], prefix) {
				changed[n] = line
			}
		}
		return changed
	}
	for what, content := range map[string][]byte{
		"nothing":                     nil,
		"a byte more":                 append(bytes.Clone(full), '\n'),
		"a byte less":                 full[:len(full)-1],
		"lines of Windows":            bytes.ReplaceAll(full, []byte("\n"), []byte("\r\n")),
		"a mark of UTF-8":             append([]byte("\ufeff"), full...),
		"another version":             bytes.Replace(full, []byte("provisioning 1"), []byte("provisioning 10"), 1),
		"no end":                      []byte(version + comment + strings.Join(lines, "\n") + "\n"),
		"a key of a later version":    sealed("wifi-name home"),
		"an empty line":               sealed(""),
		"another comment":             sealed("# mine"),
		"a name that is empty":        sealed("name "),
		"a name that hides":           sealed("name a\u202eb"),
		"two names":                   sealed("name a", "name b"),
		"an order of its own":         sealed("display none", "name a"),
		"another display":             sealed("display hdmi"),
		"an SSH key with an option":   sealed(`ssh-key command="sh" ` + keyLine),
		"the same SSH key twice":      sealed("ssh-key "+keyLine, "ssh-key "+keyLine),
		"a lease without a key":       sealed("ssh-lease 1h0m0s"),
		"a lease in other words":      sealed("ssh-key "+keyLine, "ssh-lease 60m"),
		"a lease for years":           sealed("ssh-key "+keyLine, "ssh-lease 9999h0m0s"),
		"a negative lease":            sealed("ssh-key "+keyLine, "ssh-lease -1h0m0s"),
		"a claim without its secret":  sealed(without(keySecret)...),
		"a claim without its App":     sealed(without(keyApp)...),
		"a claim without its end":     sealed(without(keyUntil)...),
		"a claim without signing key": sealed(without(keySigning)...),
		"a secret in capitals":        sealed(instead(keySecret, keySecret+" "+strings.ToUpper(hex.EncodeToString(fixed("secret"))))...),
		"a secret that is short":      sealed(instead(keySecret, keySecret+" 00")...),
		"a signing key of nobody":     sealed(instead(keySigning, keySigning+" "+strings.Repeat("00", 32))...),
		"an App key that is large":    sealed(instead(keyApp, keyApp+" "+strings.Repeat("ff", 32))...),
		"an App key of zeros":         sealed(instead(keyApp, keyApp+" "+strings.Repeat("00", 32))...),
		"a time of another zone":      sealed(instead(keyUntil, keyUntil+" 2027-01-15T09:00:00+01:00")...),
	} {
		f, err := Parse(content)
		if !errors.Is(err, ErrFile) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %+v, %v", what, f, err)
		}
		if err != nil && strings.Contains(err.Error(), hex.EncodeToString(fixed("secret"))) {
			t.Errorf("%s: the secret is in %v", what, err)
		}
	}
}

// The attack: any one bit of the file is another one, as on a card that fails.
func TestEachBitOfTheFileCounts(t *testing.T) {
	full := must(files()["full"].Marshal())
	for bit := range 8 * len(full) {
		other := bytes.Clone(full)
		other[bit/8] ^= 1 << (bit % 8)
		if _, err := Parse(other); err == nil {
			t.Fatalf("bit %d does not count", bit)
		}
	}
}

func TestAPrivateSSHKeyIsNamedAndNotShown(t *testing.T) {
	const secret = "c2VjcmV0IG9mIHRoZSBrZXk"
	key := "-----BEGIN OPENSSH PRIVATE KEY-----\n" + secret + "\n-----END OPENSSH PRIVATE KEY-----"
	for what, content := range map[string][]byte{
		"alone":               []byte(key),
		"in a line":           sealed("ssh-key " + key),
		"behind the end":      append(must(files()["full"].Marshal()), key...),
		"in a file too large": append([]byte(key), make([]byte, MaxSize)...),
	} {
		if _, err := Parse(content); err == nil || !strings.Contains(err.Error(), "PRIVATE SSH key") || strings.Contains(err.Error(), secret) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestAFileThatABaseWouldRefuseIsNotWritten(t *testing.T) {
	key := must(sshkey.Parse(keyLine))
	for what, f := range map[string]File{
		"a lease without a key": {SSHLease: time.Hour},
		"a lease of a second":   {SSHKeys: []sshkey.Key{key}, SSHLease: time.Second},
		"a name with a line":    {Name: "a\nb"},
		"an empty claim":        {Claim: &Claim{}},
		"no secret":             {Claim: &Claim{App: testClaim().App, SigningKey: testClaim().SigningKey}},
	} {
		if content, err := f.Marshal(); err == nil {
			t.Errorf("%s: %q", what, content)
		}
	}
}

func TestTheSecretIsNotPrinted(t *testing.T) {
	f := files()["full"]
	for _, verb := range []string{"%v", "%+v", "%#v", "%x", "%s"} {
		if text := fmt.Sprintf(verb, f) + fmt.Sprintf(verb, *f.Claim); strings.Contains(text, hex.EncodeToString(fixed("secret"))) {
			t.Errorf("%s prints it", verb)
		}
	}
}

// Whatever stands in the file: it is refused, or it is the one way to write what is read.
func FuzzParse(f *testing.F) {
	for _, file := range files() {
		f.Add(must(file.Marshal()))
	}
	f.Add(sealed("name a", "wifi x"))
	f.Fuzz(func(t *testing.T, content []byte) {
		file, err := Parse(content)
		if err != nil {
			return
		}
		if again, err := file.Marshal(); err != nil || !bytes.Equal(again, content) {
			t.Errorf("%q is read as %q, %v", content, again, err)
		}
	})
}

// FuzzLines seals what the fuzzer makes, which it could not do by itself.
func FuzzLines(f *testing.F) {
	f.Add("name a\nssh-key " + keyLine + "\nssh-lease 1h0m0s\ndisplay none")
	f.Add("claim-app 00\nclaim-until x")
	f.Fuzz(func(t *testing.T, lines string) {
		content := sealed(lines)
		file, err := Parse(content)
		if err != nil {
			return
		}
		if again, err := file.Marshal(); err != nil || !bytes.Equal(again, content) {
			t.Errorf("%q is read as %q, %v", content, again, err)
		}
	})
}
