//go:build linux && image

package image_test

import (
	"bytes"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/BitBoxSwiss/bitbox-base/image/build"
	"github.com/BitBoxSwiss/bitbox-base/image/secureboot"
	"github.com/BitBoxSwiss/bitbox-base/internal/bootdisk"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/posture"
	"github.com/BitBoxSwiss/bitbox-base/test/stage"
)

// closed fails the test if the entry takes connections: the machine must not have started.
func (m *machine) closed(a *stage.Attacker) {
	m.t.Helper()
	if conn, err := a.Dial("tcp", netip.AddrPortFrom(m.V4, posture.EntryPort)); err == nil {
		m.t.Errorf("the Base has started: %v", conn.Close())
	}
}

// change changes bytes of the disk.
func (m *machine) change(from, to int64, change func(b []byte) []byte) {
	m.t.Helper()
	f, err := os.OpenFile(m.disk, os.O_RDWR, 0)
	if err != nil {
		m.t.Fatal(err)
	}
	b := make([]byte, to-from)
	if _, err = f.ReadAt(b, from); err == nil {
		_, err = f.WriteAt(change(b), from)
	}
	if err = errors.Join(err, f.Close()); err != nil {
		m.t.Fatal(err)
	}
}

// changeEntry changes the version on the EFI partition.
func (m *machine) changeEntry(change func(b []byte) []byte) {
	m.t.Helper()
	path, name := filepath.Join(m.directory, "entry"), "::"+bootdisk.EntryDirectory+"/"+filepath.Base(m.entry())
	m.host("mcopy", "-n", "-i", m.esp(), name, path)
	content, err := os.ReadFile(path)
	if err != nil {
		m.t.Fatal(err)
	}
	changed := change(content)
	if bytes.Equal(changed, content) {
		m.t.Fatal("nothing was changed, so this attack shows nothing")
	}
	if err := os.WriteFile(path, changed, 0o600); err != nil {
		m.t.Fatal(err)
	}
	m.host("mcopy", "-o", "-i", m.esp(), path, name)
}

// A version that was changed, or that somebody else has signed, is not started where the firmware knows the builder's keys.
func TestTheFirmwareStartsOnlyWhatItsBuilderHasSigned(t *testing.T) {
	for name, change := range map[string]func(b []byte) []byte{
		"another command line": func(b []byte) []byte {
			return bytes.Replace(b, []byte("lockdown=integrity"), []byte("lockdown=none     "), 1)
		},
		"no signature": func([]byte) []byte {
			content, err := os.ReadFile(filepath.Join(made(t, "shipped", build.Options{}), build.UnsignedFile))
			if err != nil {
				t.Fatal(err)
			}
			return content
		},
		"another signature": func([]byte) []byte {
			return signedByAnother(t, filepath.Join(made(t, "shipped", build.Options{}), build.UnsignedFile))
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := shipped(t)
			m.changeEntry(change)
			m.switchOn()
			text := m.says("Access denied", "Security Violation", "Access Denied")
			t.Logf("the firmware says %q", text[max(0, len(text)-200):])
			m.closed(m.Attacker(1))
		})
	}
}

// Keys with Microsoft's CAs beside the builder's are enrolled as well, and the machine starts. It still starts no version that nobody
// has signed.
func TestAnImageThatAcceptsMicrosoftsSignaturesStarts(t *testing.T) {
	image := made(t, "microsoft", build.Options{Microsoft: true})
	m := newMachine(t, filepath.Join(image, build.DiskFile), amd64.variables)
	m.switchOn()
	m.ends("the boot loader enrols the keys, and restarts the machine")
	if text := m.says("Enrolling"); !strings.Contains(text, "successfully enrolled") {
		t.Fatalf("the boot loader has not enrolled the keys: %s", text)
	}
	variables, err := os.ReadFile(filepath.Join(m.directory, "firmware"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"Microsoft Corporation UEFI CA 2011", "Microsoft UEFI CA 2023"} {
		if !bytes.Contains(variables, []byte(name)) {
			t.Errorf("the firmware has no certificate of %s", name)
		}
	}
	a, begun := m.Attacker(1), time.Now()
	m.switchOn()
	m.answers(a)
	t.Logf("FIGURE from power on to the first connection with Microsoft's CAs, in software: %.0f s", time.Since(begun).Seconds())
	m.cutPower()

	m.changeEntry(func([]byte) []byte {
		content, err := os.ReadFile(filepath.Join(image, build.UnsignedFile))
		if err != nil {
			t.Fatal(err)
		}
		return content
	})
	m.switchOn()
	m.says("Access denied", "Security Violation", "Access Denied")
	m.closed(a)
}

// signedByAnother signs a file with keys of the same kind that the firmware does not know.
func signedByAnother(t *testing.T, file string) []byte {
	t.Helper()
	directory := t.TempDir()
	if err := secureboot.Make(filepath.Join(directory, "keys"), time.Now(), nil); err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(file)
	if err == nil {
		err = os.WriteFile(filepath.Join(directory, "unsigned"), content, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	if out, err := build.RunTool(t.Context(), build.Options{Cache: build.CacheDirectory(os.Getenv)}, directory, "sbsign",
		"--key=/mnt/keys/db.key",
		"--cert=/mnt/keys/db.crt", "--output=/mnt/signed", "/mnt/unsigned"); err != nil {
		t.Fatalf("sign with other keys: %v: %s", err, out)
	}
	if content, err = os.ReadFile(filepath.Join(directory, "signed")); err != nil {
		t.Fatal(err)
	}
	return content
}

// flipBit damages a root: the file system's own description, which is read first.
func (m *machine) flipBit(number int) {
	m.t.Helper()
	root := m.partitions()[number]
	m.change(int64(root.First)+1024, int64(root.First)+1024+128, func(b []byte) []byte {
		b[64] ^= 1
		return b
	})
}

// A root with one other bit is not started; nor does the machine go on with half of its files. There is no other version: after a
// few tries it stops, until somebody switches it off and on.
func TestARootWithAFlippedBitDoesNotStart(t *testing.T) {
	m := shipped(t)
	m.flipBit(bootdisk.RootA)
	for range 2 {
		for range bootdisk.Tries - 1 {
			m.switchOn()
			m.ends("the initrd finds the bit, and restarts the machine")
		}
		m.switchOn()
		m.says("no other version is on this disk. Nothing runs.")
		m.closed(m.Attacker(1))
		m.cutPower()
	}
}

// An attacker adds files to the EFI partition, tables to the firmware, or a second disk. The machine uses none of them.
func TestNothingThatIsAddedToTheSignedVersionIsTaken(t *testing.T) {
	m := probed(t)
	m.addAddon()
	second := filepath.Join(m.directory, "second")
	m.host("truncate", "--size=64M", second)
	table := "label: gpt\\n6 : size=65536, type=" + bootdisk.DataType + ", name=\"" + bootdisk.DataName + "\"\\n"
	m.host("sh", "-c", "printf '"+table+"' | sfdisk --quiet "+second)
	m.addDisk(second)
	m.extra = append(m.extra, "-smbios", "type=11,value=io.systemd.credential:tmpfiles.extra=f /run/evil 0644 root root - evil")
	m.switchOn()
	a := m.Attacker(1)
	m.answers(a)
	m.reach()
	if text := m.says("evil.addon.efi"); !strings.Contains(text, "Access denied") {
		t.Errorf("of the addon the machine says %s", text)
	}
	if out := m.inside("cat /proc/cmdline"); strings.Contains(out, "debug_shell") {
		t.Errorf("the command line is %s", out)
	}
	if out := m.inside("findmnt -no SOURCE /var; ls /dev/vdb6"); out != "/dev/vda6\n/dev/vdb6" {
		t.Errorf("the data are on %s", out)
	}
	if out := m.inside("ls /run/evil /run/credentials/@system 2>&1 || true"); strings.Contains(out, "evil\n") {
		t.Errorf("a credential was taken: %s", out)
	}
}

// systemd's stub adds to the command line what a virtual machine's tables say, and no signature covers that: with it nothing
// starts.
func TestACommandLineFromTheTablesOfAVirtualMachineIsRefused(t *testing.T) {
	m := shipped(t)
	m.extra = append(m.extra, "-smbios", "type=11,value=io.systemd.stub.kernel-cmdline-extra=systemd.debug_shell=1")
	m.switchOn()
	m.says("command line is not the one that the image was made with")
	m.closed(m.Attacker(1))
}

// Where there is too little room, one sentence says so, and the disk stays as it is.
func TestADiskThatIsTooSmallIsRefused(t *testing.T) {
	m := shipped(t)
	if err := os.Truncate(m.disk, 5<<30); err != nil {
		t.Fatal(err)
	}
	m.switchOn()
	m.says("The Base cannot use its data: make the data partition")
	m.closed(m.Attacker(1))
	if got := len(m.partitions()); got != bootdisk.VerityA {
		t.Errorf("the disk has %d partitions", got)
	}
}

// With two disks of one image nobody can say which of them holds the data.
func TestACopyOfTheBootDiskStopsTheMachine(t *testing.T) {
	m := shipped(t)
	m.addDisk(filepath.Join(made(t, "shipped", build.Options{}), build.DiskFile))
	m.switchOn()
	m.says("have the same image")
	m.closed(m.Attacker(1))
}

// Where the firmware has no keys and the image brings none, it starts as well. There an addon would be taken: the initrd refuses
// the command line that comes of it.
func TestWithoutSecureBootItStartsAndRefusesAnAddon(t *testing.T) {
	m := newMachine(t, filepath.Join(made(t, "shipped", build.Options{}), build.DiskFile), amd64.variables)
	m.host("mdeltree", "-i", m.esp(), "::loader/keys")
	m.switchOn()
	m.answers(m.Attacker(1))
	m.cutPower()
	m.addAddon()
	m.switchOn()
	m.says("command line is not the one that the image was made with")
	m.closed(m.Attacker(1))
}

// addAddon puts an addon without a signature beside the version on the EFI partition.
func (m *machine) addAddon() {
	m.t.Helper()
	if out, err := build.RunTool(m.t.Context(), build.Options{Cache: build.CacheDirectory(os.Getenv)}, m.directory, "ukify", "build",
		"--efi-arch=x64",
		"--stub=/usr/lib/systemd/boot/efi/addonx64.efi.stub", "--cmdline=systemd.debug_shell=1", "--output=/mnt/evil.addon.efi"); err != nil {
		m.t.Fatalf("make the addon: %v: %s", err, out)
	}
	folder := "::" + bootdisk.EntryDirectory + "/" + filepath.Base(m.entry()) + ".extra.d"
	m.host("mmd", "-i", m.esp(), folder)
	m.host("mcopy", "-i", m.esp(), filepath.Join(m.directory, "evil.addon.efi"), folder+"/evil.addon.efi")
}
