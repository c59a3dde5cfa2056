package slot

import (
	"errors"
	"io/fs"
	"runtime"
	"strings"
	"testing"

	"github.com/BitBoxSwiss/bitbox-base/internal/bootdisk"
)

// reader reads from a table.
func reader(files map[string]string) func(string) ([]byte, error) {
	return func(path string) ([]byte, error) {
		content, found := files[path]
		if !found {
			return nil, fs.ErrNotExist
		}
		return []byte(content), nil
	}
}

func theFiles() map[string]string {
	return map[string]string{
		bootdisk.Directory + "/slot": "b\n",
		commandLine:                  "ro roothash=" + strings.Repeat("ab", 32) + " lockdown=integrity\n",
		osRelease:                    "ID=debian\nIMAGE_ID=bitbox-base\nIMAGE_VERSION=\"1.2+3.gabc\"\n",
		variables + "/SecureBoot" + globalVariable: "\x06\x00\x00\x00\x01",
		variables + "/SetupMode" + globalVariable:  "\x06\x00\x00\x00\x00",
	}
}

func TestAnImageSaysWhatItRuns(t *testing.T) {
	r, err := LookWith(reader(theFiles()))
	if err != nil || r.Slot != "b" || r.Version != "1.2+3.gabc" || r.RootHash[31] != 0xab ||
		r.SecureBoot != "on" || r.Architecture != runtime.GOARCH {
		t.Errorf("it is %+v, %v", r, err)
	}
	if _, err := LookWith(reader(nil)); !errors.Is(err, ErrNoImage) {
		t.Errorf("a Debian: %v", err)
	}
	for name, change := range map[string][2]string{
		"another slot":    {bootdisk.Directory + "/slot", "c\n"},
		"no root hash":    {commandLine, "ro"},
		"two root hashes": {commandLine, "roothash=" + strings.Repeat("ab", 32) + " roothash=" + strings.Repeat("cd", 32)},
		"no version":      {osRelease, "ID=debian\n"},
		"a path":          {osRelease, "IMAGE_VERSION=../1\n"},
	} {
		files := theFiles()
		files[change[0]] = change[1]
		if r, err := LookWith(reader(files)); err == nil || errors.Is(err, ErrNoImage) {
			t.Errorf("%s: %+v, %v", name, r, err)
		}
	}
}

// Only two variables that are whole and agree mean that it is on.
func TestSecureBootIsOnlyOnIfTheFirmwareSaysSo(t *testing.T) {
	for name, c := range map[string]struct{ secure, setup, want string }{
		"on": {"\x06\x00\x00\x00\x01", "\x06\x00\x00\x00\x00", "on"}, "off": {"\x06\x00\x00\x00\x00", "\x06\x00\x00\x00\x00", "off"},
		"setup": {"\x06\x00\x00\x00\x00", "\x06\x00\x00\x00\x01", "setup"}, "both": {"\x06\x00\x00\x00\x01", "\x06\x00\x00\x00\x01", "setup"},
		"short": {"\x06\x00\x00\x00", "\x06\x00\x00\x00\x00", "unknown"}, "long": {"\x06\x00\x00\x00\x01\x01", "\x06\x00\x00\x00\x00", "unknown"},
		"two": {"\x06\x00\x00\x00\x02", "\x06\x00\x00\x00\x00", "unknown"}, "empty": {"", "", "unknown"},
		"one alone": {"\x06\x00\x00\x00\x01", "", "unknown"},
	} {
		files := theFiles()
		files[variables+"/SecureBoot"+globalVariable], files[variables+"/SetupMode"+globalVariable] = c.secure, c.setup
		if r, err := LookWith(reader(files)); err != nil || r.SecureBoot != c.want {
			t.Errorf("%s: %q, %v", name, r.SecureBoot, err)
		}
	}
	files := theFiles()
	delete(files, variables+"/SecureBoot"+globalVariable)
	delete(files, variables+"/SetupMode"+globalVariable)
	if r, err := LookWith(reader(files)); err != nil || r.SecureBoot != "none" {
		t.Errorf("without UEFI: %q, %v", r.SecureBoot, err)
	}
}
