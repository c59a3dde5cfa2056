//go:build linux && image

package image_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/BitBoxSwiss/bitbox-base/image/build"
	"github.com/BitBoxSwiss/bitbox-base/internal/bitcoincore"
	"github.com/BitBoxSwiss/bitbox-base/internal/bitcoincore/verify"
	"github.com/BitBoxSwiss/bitbox-base/internal/node/settings"
	"github.com/BitBoxSwiss/bitbox-base/internal/testbed/coretest"
	"github.com/BitBoxSwiss/bitbox-base/test/stage"
)

// A builder types the command of docs/node.md, with a release that the test's own builders have signed.
// The image is not started: what is in its root is looked at.
func TestAnImageBringsTheBitcoinCoreOfItsBuilder(t *testing.T) {
	stage.NeedRoot(t, "make", "mount")
	k := coretest.New(t)
	list := k.List(coretest.Builders...)
	top, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	// Relative to the top, since the Makefile calls ./$(BUILD)/…
	folder, err := filepath.Rel(top, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	makes := func(signers ...string) (string, error) {
		command := exec.Command("make", "image", "ARCH=amd64", "VERSION=1.0.0", "BUILD="+folder, "BITCOIN_CORE="+k.Write("31.0", signers...),
			"BITCOIN_CORE_SIGNERS="+list)
		command.Dir = top
		out, err := command.CombinedOutput()
		return string(out), err
	}
	image := filepath.Join(top, folder, "image-amd64")
	if out, err := makes("ann", "bob", "stranger"); err == nil || !strings.Contains(out, "2 of the builder's signers") {
		t.Errorf("two signatures that count: %v\n%s", err, out)
	}
	if _, err := os.Stat(image); err == nil {
		t.Fatal("there is an image all the same")
	}
	if out, err := makes("ann", "bob", "cyd"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}

	root := mountRoot(t, image)
	place := filepath.Join(root, bitcoincore.Built)
	program, record, err := bitcoincore.Find(place)
	if err != nil || record.Version != "31.0" || !slices.Equal(record.Signers, []string{"ann", "bob", "cyd"}) || !record.Installed.IsZero() {
		t.Fatalf("%s, %+v, %v", program, record, err)
	}
	// These files, and no other program of the archive.
	var found []string
	err = filepath.Walk(place, func(path string, info os.FileInfo, err error) error {
		if err != nil {
			return err
		}
		owner := info.Sys().(*syscall.Stat_t)
		name, err := filepath.Rel(place, path)
		found = append(found, fmt.Sprintf("%v %d:%d %s", info.Mode(), owner.Uid, owner.Gid, name))
		return err
	})
	want := []string{"drwxr-xr-x 0:0 .", "drwxr-xr-x 0:0 " + record.Folder, "-rwxr-xr-x 0:0 " + record.Folder + "/bitcoin-cli",
		"-rwxr-xr-x 0:0 " + record.Folder + "/bitcoind", "-rw-r--r-- 0:0 release.json"}
	if err != nil || !slices.Equal(found, want) {
		t.Errorf("of Bitcoin Core the image has %q, not %q, %v", found, want, err)
	}
	for name, content := range map[string]string{"bitcoind": "node 31.0", "bitcoin-cli": "cli 31.0"} {
		if b, err := os.ReadFile(filepath.Join(place, record.Folder, name)); err != nil || string(b) != content {
			t.Errorf("%s is %q, %v", name, b, err)
		}
	}
	// A release that an owner brings later needs signatures of the same people.
	entries, err := os.ReadDir(filepath.Join(root, verify.Folder))
	if err != nil || len(entries) != len(coretest.Builders)+1 {
		t.Errorf("the list of signers is %v, %v", entries, err)
	}
	for _, entry := range entries {
		is, err := os.ReadFile(filepath.Join(root, verify.Folder, entry.Name()))
		must, _ := os.ReadFile(filepath.Join(list, entry.Name()))
		if err != nil || string(is) != string(must) {
			t.Errorf("%s is not the builder's, %v", entry.Name(), err)
		}
	}
	t.Run("udev reads no disk", func(t *testing.T) { udevReadsNoDisk(t, root) })
	// The units that install and run it, Debian's gpgv, and no settings: an owner chooses the node.
	for _, path := range []string{"usr/bin/gpgv", "usr/bin/bitbox-node", "usr/lib/bitbox-base/btcd",
		"usr/lib/systemd/system/bitbox-base-bitcoin.service", "usr/lib/systemd/system/bitbox-base-bitcoin-core.service"} {
		if _, err := os.Stat(filepath.Join(root, path)); err != nil {
			t.Error(err)
		}
	}
	if _, err := os.Lstat(filepath.Join(root, settings.File)); err == nil {
		t.Error("the image has settings of a node, which no owner has chosen")
	}
}

// mountRoot mounts the root of an image for as long as the test runs.
func mountRoot(t *testing.T, image string) string {
	t.Helper()
	root := filepath.Join(t.TempDir(), "root")
	if err := os.Mkdir(root, 0o755); err != nil {
		t.Fatal(err)
	}
	host(t, "mount", "-t", "erofs", "-o", "loop,ro", filepath.Join(image, build.RootFile), root)
	t.Cleanup(func() { host(t, "umount", root) })
	return root
}

func host(t *testing.T, argv ...string) string {
	t.Helper()
	out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%q: %v: %s", argv, err, out)
	}
	return strings.TrimSpace(string(out))
}

// udevReadsNoDisk has the udev of an image say what it would do with a disk that was plugged in. Without
// the rule of the image it reads what is on it.
func udevReadsNoDisk(t *testing.T, root string) {
	t.Helper()
	disk := filepath.Join(t.TempDir(), "disk")
	host(t, "truncate", "--size=64M", disk)
	host(t, "mkfs.ext4", "-q", disk)
	device := host(t, "losetup", "--find", "--show", disk)
	t.Cleanup(func() { host(t, "losetup", "--detach", device) })
	const rule = "/usr/lib/udev/rules.d/59-bitbox-base.rules"
	for without, reads := range map[string]bool{"": false, "mount --bind /dev/null $1" + rule + "\n": true} {
		script := "mount --rbind /sys $1/sys\nmount --rbind /dev $1/dev\nmount -t tmpfs none $1/run\nmount -t proc proc $1/proc\n" + without +
			"chroot $1 udevadm test --action=add $2"
		out := host(t, "unshare", "--mount", "--fork", "sh", "-euc", script, "sh", root, "/sys/class/block/"+filepath.Base(device))
		if strings.Contains(out, "ID_FS_TYPE=ext4") != reads || !strings.Contains(out, filepath.Base(device)) {
			t.Errorf("udev reads what is on a disk: %t\n%s", !reads, out)
		}
	}
}
