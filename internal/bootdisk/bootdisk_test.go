package bootdisk

import (
	"strings"
	"testing"
)

const hash = "00112233445566778899aabbccddeeff0123456789abcdef0123456789abcdef"

func TestPartUUIDsAreTheTwoHalvesOfTheRootHash(t *testing.T) {
	root, verity, err := PartUUIDs(hash)
	if err != nil || root != "00112233-4455-6677-8899-aabbccddeeff" || verity != "01234567-89ab-cdef-0123-456789abcdef" {
		t.Errorf("they are %s and %s: %v", root, verity, err)
	}
	for _, bad := range []string{"", hash[:62], hash + "00", strings.ToUpper(hash), "x" + hash[1:]} {
		if _, _, err := PartUUIDs(bad); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}

func TestTheCommandLineNamesOneRootHash(t *testing.T) {
	if got, err := RootHash("ro quiet roothash=" + hash + " panic=10\n"); err != nil || got != hash {
		t.Errorf("it is %q: %v", got, err)
	}
	for _, bad := range []string{"", "ro", "roothash=", "roothash=" + hash + " roothash=" + hash, "xroothash=" + hash} {
		if got, err := RootHash(bad); err == nil {
			t.Errorf("%q names %q", bad, got)
		}
	}
}

func TestAVersionIsNoPathAndNoNumberOfTries(t *testing.T) {
	for _, c := range []struct {
		version string
		tries   int
		name    string
	}{
		{"1.2.3", 0, "bitbox-base_1.2.3.efi"},
		{"1.2.3", Tries, "bitbox-base_1.2.3+3-0.efi"},
		{"1.0+3", 0, "bitbox-base_1.0_3.efi"},
		{"1:0~20261128.abc+dirty", 1, "bitbox-base_1=0~20261128.abc_dirty+1-0.efi"},
	} {
		if name, err := EntryName(c.version, c.tries); err != nil || name != c.name {
			t.Errorf("%s: it is %q, %v", c.version, name, err)
		}
	}
	for _, bad := range []string{"", "../1", "1/2", "v1", "1 2", "1\n", strings.Repeat("1", 65)} {
		if name, err := EntryName(bad, 0); err == nil {
			t.Errorf("%q is %q", bad, name)
		}
	}
}
