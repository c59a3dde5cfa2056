//go:build linux

package slot_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/BitBoxSwiss/bitbox-base/internal/bootdisk"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/slot"
	"github.com/BitBoxSwiss/bitbox-base/internal/testbed/slottest"
)

// tool runs a program of Debian's, and skips the test where it is missing.
func tool(t *testing.T, input string, argv ...string) string {
	t.Helper()
	if _, err := exec.LookPath(argv[0]); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skipf("SKIPPED, not passed: this test needs %s", argv[0])
	}
	command := exec.Command(argv[0], argv[1:]...)
	command.Stdin = strings.NewReader(input)
	out, err := command.CombinedOutput()
	if err != nil {
		t.Fatalf("%q: %v: %s", argv, err, out)
	}
	return strings.TrimSpace(string(out))
}

// A block device and a mounted file system of the kernel's, as on a Base.
func TestAVersionIsWrittenToABlockDevice(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED, not passed: this test needs root")
	}
	folder := t.TempDir()
	disk, mountPoint := filepath.Join(folder, "disk"), filepath.Join(folder, "esp")
	if err := os.Mkdir(mountPoint, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(disk, make([]byte, 64<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	const firstESP, sizeESP = 1 << 20, 40 << 20
	root, verity := bootdisk.RootTypes["amd64"], bootdisk.VerityTypes["amd64"]
	table := fmt.Sprintf("label: gpt\nfirst-lba: 2048\nstart=2048, size=%d, type=%s\n", sizeESP/512, bootdisk.ESPType)
	for range 2 {
		table += fmt.Sprintf("size=4096, type=%s\nsize=128, type=%s\n", root, verity)
	}
	tool(t, table, "sfdisk", "--quiet", disk)
	loop := tool(t, "", "losetup", "--find", "--show", disk)
	t.Cleanup(func() { tool(t, "", "losetup", "--detach", loop) })
	part := tool(t, "", "losetup", "--find", "--show", "--offset", fmt.Sprint(firstESP), "--sizelimit", fmt.Sprint(sizeESP), disk)
	t.Cleanup(func() { tool(t, "", "losetup", "--detach", part) })
	// The EFI partition is FAT where the kernel has it; some test machines have ext4 alone.
	kind, options := "vfat", slot.MountOptions
	if known, err := os.ReadFile("/proc/filesystems"); err == nil && bytes.Contains(known, []byte("\tvfat\n")) {
		tool(t, "", "mformat", "-i", part, "-T", fmt.Sprint(sizeESP/512), "-h", "16", "-s", "32", "::")
	} else {
		kind, options = "ext4", ""
		tool(t, "", "mke2fs", "-q", "-F", "-t", kind, part)
	}
	mount := func() {
		t.Helper()
		if err := unix.Mount(part, mountPoint, kind, unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, options); err != nil {
			t.Fatal(err)
		}
	}
	mount()
	t.Cleanup(func() { _ = unix.Unmount(mountPoint, unix.MNT_DETACH) }) // it is unmounted already if all went well
	entries := filepath.Join(mountPoint, bootdisk.EntryDirectory)
	if err := errors.Join(os.MkdirAll(entries, 0o700), os.WriteFile(filepath.Join(entries, "bitbox-base_1.efi"), nil, 0o600)); err != nil {
		t.Fatal(err)
	}

	device, err := slot.OpenDisk(loop)
	if err != nil {
		t.Fatal(err)
	}
	s := &slot.Slots{Disk: device, ESP: slot.Folder(entries), Running: "1", Letter: "a"}
	r := slottest.NewRelease("2", "amd64", seed)
	if err := s.Write(r.Header, bytes.NewReader(r.Parts)); err != nil {
		t.Fatal(err)
	}
	if other, err := s.Other(); err != nil || other.Name() != "bitbox-base_2+3-0.efi" {
		t.Errorf("the other version is %+v, %v", other, err)
	}
	if err := s.Try("2"); err != nil {
		t.Error(err)
	}
	if err := unix.Unmount(mountPoint, 0); err != nil {
		t.Fatal(err)
	}
	mount()
	for _, name := range []string{"bitbox-base_1+0-0.efi", "bitbox-base_2+3-0.efi"} {
		if _, err := os.Stat(filepath.Join(entries, name)); err != nil {
			t.Errorf("%s is not on disk: %v", name, err)
		}
	}
	if err := unix.Unmount(mountPoint, 0); err != nil {
		t.Fatal(err)
	}
	if now := tool(t, "", "sfdisk", "--json", disk); strings.Count(now, bootdisk.RootName) != 1 {
		t.Errorf("the table is %s", now)
	}
}
