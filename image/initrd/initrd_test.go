//go:build linux

package main

import (
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf16"

	"golang.org/x/sys/unix"

	"github.com/BitBoxSwiss/bitbox-base/internal/bootdisk"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/slot/gpt"
)

const hash = "00112233445566778899aabbccddeeff0123456789abcdef0123456789abcdef"

func write(t *testing.T, name string, content []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestOnlyTheCommandLineOfTheImageStarts(t *testing.T) {
	own := write(t, "own", []byte("ro lockdown=integrity roothash="+hash+"\n"))
	if got, err := rootHash(write(t, "given", []byte("ro  lockdown=integrity roothash="+hash+" \n")), own); err != nil || got != hash {
		t.Errorf("its own is refused: %q, %v", got, err)
	}
	for name, given := range map[string]string{
		"one more":     "ro lockdown=integrity roothash=" + hash + " systemd.debug_shell",
		"one before":   "init=/bin/sh ro lockdown=integrity roothash=" + hash,
		"one less":     "ro roothash=" + hash,
		"another hash": "ro lockdown=integrity roothash=" + strings.Repeat("0", 64),
		"none":         "",
	} {
		if got, err := rootHash(write(t, "given", []byte(given+"\n")), own); err == nil {
			t.Errorf("%s: %q starts %s", name, given, got)
		}
	}
}

func TestTheFirmwareSaysWhichDiskItHasStartedFrom(t *testing.T) {
	directory := t.TempDir()
	set := func(text string, cut int) {
		content := []byte{6, 0, 0, 0}
		for _, unit := range utf16.Encode([]rune(text)) {
			content = binary.LittleEndian.AppendUint16(content, unit)
		}
		if err := os.WriteFile(filepath.Join(directory, startedFromVariable), content[:len(content)-cut], 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := startedFrom(firmware(directory)); err == nil {
		t.Error("a firmware that says nothing was understood")
	}
	set("00112233-4455-4677-8899-AABBCCDDEEFF\x00", 0)
	if got, err := startedFrom(firmware(directory)); err != nil || got != "00112233-4455-4677-8899-aabbccddeeff" {
		t.Errorf("it is %q: %v", got, err)
	}
	set("00112233\x00", 1)
	if got, err := startedFrom(firmware(directory)); err == nil {
		t.Errorf("an answer that was cut is %q", got)
	}
}

// superblock is that of veritysetup for 3 blocks with the salt abcd.
func superblock() []byte {
	b := make([]byte, 512)
	copy(b, "verity\x00\x00")
	le := binary.LittleEndian
	le.PutUint32(b[8:], 1)
	le.PutUint32(b[12:], 1)
	copy(b[32:], "sha256")
	le.PutUint32(b[64:], 4096)
	le.PutUint32(b[68:], 4096)
	le.PutUint64(b[72:], 3)
	le.PutUint16(b[80:], 2)
	copy(b[88:], "\xab\xcd")
	return b
}

func TestTheHashTreeIsOpenedWithTheRootHashOfTheCommandLine(t *testing.T) {
	v, err := parseVerity(superblock())
	if err != nil {
		t.Fatal(err)
	}
	const want = "1 254:2 254:3 4096 4096 3 1 sha256 " + hash + " abcd"
	if got := v.table(unix.Mkdev(254, 2), unix.Mkdev(254, 3), hash); got != want {
		t.Errorf("the kernel is told %q", got)
	}
	for name, spoil := range map[string]func(b []byte){
		"no tree":           func(b []byte) { b[0] = 0 },
		"another version":   func(b []byte) { b[8] = 2 },
		"another type":      func(b []byte) { b[12] = 0 },
		"another algorithm": func(b []byte) { b[35] = '5' },
		"another block":     func(b []byte) { b[65] = 2 },
		"no blocks":         func(b []byte) { b[72] = 0 },
		"too many blocks":   func(b []byte) { b[76] = 1 },
		"a long salt":       func(b []byte) { b[81] = 2 },
	} {
		b := superblock()
		spoil(b)
		if v, err := parseVerity(b); err == nil {
			t.Errorf("%s: it is %+v", name, v)
		}
	}
}

func id(t *testing.T, text string) (id gpt.ID) {
	t.Helper()
	raw := strings.ReplaceAll(text, "-", "")
	for i := range id {
		for _, digit := range raw[2*i : 2*i+2] {
			id[i] = id[i]<<4 | byte(strings.IndexRune("0123456789abcdef", digit))
		}
	}
	if id.String() != text {
		t.Fatalf("%s is %s", text, id)
	}
	return id
}

func TestTheDataPartitionIsTheOneThatTheImageHasMade(t *testing.T) {
	data := gpt.Partition{Number: bootdisk.Data, Type: id(t, bootdisk.DataType), Name: bootdisk.DataName}
	esp := gpt.Partition{Number: bootdisk.ESP, Type: id(t, bootdisk.ESPType), Name: bootdisk.ESPName}
	if found, err := (disk{"sda", []gpt.Partition{esp}}).data(); found || err != nil {
		t.Errorf("on a new disk there is one: %v, %v", found, err)
	}
	if found, err := (disk{"sda", []gpt.Partition{esp, data}}).data(); !found || err != nil {
		t.Errorf("it is not found: %v, %v", found, err)
	}
	elsewhere, another, strange := data, data, data
	elsewhere.Number, another.Number, strange.Name = 4, 7, "home"
	for name, partitions := range map[string][]gpt.Partition{
		"in another place": {esp, elsewhere}, "two of them": {esp, data, another}, "somebody's": {esp, strange},
	} {
		if found, err := (disk{"sda", partitions}).data(); err == nil {
			t.Errorf("%s: %v", name, found)
		}
	}
}

func TestModulesAreFoundByWhatTheKernelSaysOfADevice(t *testing.T) {
	directory := t.TempDir()
	for name, content := range map[string]string{
		"modules.dep":   "virtio_blk.ko: virtio.ko\nvirtio.ko:\ncrc32c-intel.ko:\n",
		"modules.alias": "alias virtio:d00000002v* virtio_blk\nalias crypto-crc32c crc32c_intel\nalias pci:v00001AF4d*sv*sd*bc*sc*i* virtio_pci\n",
	} {
		if err := os.WriteFile(filepath.Join(directory, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	m, err := readModules(directory)
	if err != nil {
		t.Fatal(err)
	}
	for device, want := range map[string][]string{
		"virtio:d00000002v00001AF4": {"virtio_blk"}, "crypto-crc32c": {"crc32c_intel"}, "crc32c-intel": {"crc32c_intel"}, "usb:v1": nil,
	} {
		if got := m.matching(device); !slices.Equal(got, want) {
			t.Errorf("for %s it loads %q", device, got)
		}
	}
	if !slices.Equal(m.needs["virtio_blk"], []string{"virtio"}) {
		t.Errorf("virtio_blk needs %q", m.needs["virtio_blk"])
	}
}

func TestMissingFoldersAreMadeAndOthersStay(t *testing.T) {
	from, to := t.TempDir(), t.TempDir()
	for _, folder := range []string{filepath.Join(from, "lib/nginx"), filepath.Join(from, "log"), filepath.Join(to, "log")} {
		if err := os.MkdirAll(folder, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(filepath.Join(from, "lib/nginx"), 0o2750); err != nil {
		t.Fatal(err)
	}
	if err := unix.Chmod(filepath.Join(from, "lib/nginx"), 0o2750); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/run/lock", filepath.Join(from, "lock")); err != nil {
		t.Fatal(err)
	}
	kept := filepath.Join(to, "log/kept")
	if err := os.WriteFile(kept, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := fill(from, to); err != nil {
			t.Fatal(err)
		}
		var stat unix.Stat_t
		if err := unix.Stat(filepath.Join(to, "lib/nginx"), &stat); err != nil || stat.Mode&0o7777 != 0o2750 {
			t.Errorf("the folder has mode %o: %v", stat.Mode&0o7777, err)
		}
		if leads, err := os.Readlink(filepath.Join(to, "lock")); err != nil || leads != "/run/lock" {
			t.Errorf("the link leads to %q: %v", leads, err)
		}
		if _, err := os.Stat(kept); err != nil {
			t.Error(err)
		}
	}
}

func TestTheMachineIDIsDrawnOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "machine-id")
	first, err := keepMachineID(path)
	if err != nil || !machineIDs.MatchString(first+"\n") {
		t.Fatalf("it is %q: %v", first, err)
	}
	if again, err := keepMachineID(path); err != nil || again != first {
		t.Errorf("it is %q, then %q: %v", first, again, err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	if drawn, err := keepMachineID(path); err != nil || drawn == first || !machineIDs.MatchString(drawn+"\n") {
		t.Errorf("of half an id it makes %q: %v", drawn, err)
	}
}

func TestAProgramThatFailsIsNamedWithItsCodeOrItsError(t *testing.T) {
	if got := failed("e2fsck", 8, "it is damaged", nil).Error(); got != "e2fsck ended with 8: it is damaged" {
		t.Error(got)
	}
	if err := failed("e2fsck", -1, "so far", os.ErrNotExist); !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "so far") {
		t.Error(err)
	}
}
