//go:build linux

package boot_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/client"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/chaindisk"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/generation"
	"github.com/BitBoxSwiss/bitbox-base/internal/node/settings"
	"github.com/BitBoxSwiss/bitbox-base/test/stage"
)

// asDisk is lsblk on a machine that has the loop device as its disk: a container sees the disks of
// its host, and lsblk calls a loop device one. All else is done by Debian's programs and the kernel.
const asDisk = `#!/usr/bin/python3
import json, os, subprocess, sys
out = json.loads(subprocess.run(["/usr/bin/lsblk.real"] + sys.argv[1:], capture_output=True, check=True).stdout)
name = %q
disks = [d for d in out["blockdevices"] if d["name"] == name and not os.path.exists("/var/lib/pulled-out")]
for d in disks:
    d.update(type="disk", rota=False, tran="sata", model="Test SSD", serial="SERIAL1")
print(json.dumps({"blockdevices": disks}))
`

// loopDevice makes a disk of 1.1 TB, nearly all of it a hole, and returns its name.
func loopDevice(t *testing.T) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "disk")
	const size = 1_100_000_000_000
	if err := errors.Join(os.WriteFile(file, nil, 0o600), os.Truncate(file, size)); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("losetup", "--find", "--show", file).Output()
	if err != nil {
		t.Fatal(err)
	}
	device := strings.TrimSpace(string(out))
	t.Cleanup(func() { _ = exec.Command("losetup", "--detach", device).Run() })
	return filepath.Base(device)
}

// The package as it is shipped, and a real block device.
func TestAPackagedBaseKeepsTheChainOnTheChosenDisk(t *testing.T) {
	t.Parallel()
	stage.NeedRoot(t, "losetup")
	disk := loopDevice(t)
	s := stage.Boot(t, stage.Config{Package: deb(t, newVersion), Prepare: func(t *testing.T, root string) {
		err := os.Rename(filepath.Join(root, "usr/bin/lsblk"), filepath.Join(root, "usr/bin/lsblk.real"))
		err = errors.Join(err, os.WriteFile(filepath.Join(root, "usr/bin/lsblk"), fmt.Appendf(nil, asDisk, disk), 0o755))
		for _, unit := range []string{chaindisk.LookUnit, chaindisk.ReadyUnit} { // Python, and the real lsblk
			folder := filepath.Join(root, "etc/systemd/system", unit+".d")
			err = errors.Join(err, os.MkdirAll(folder, 0o755), os.WriteFile(filepath.Join(folder, "test.conf"),
				[]byte("[Service]\nExecPaths=/usr/bin/lsblk.real /usr/bin/python3 -/usr/bin/python3.13 -/usr/lib/python3.13\n"), 0o644))
		}
		if err != nil {
			t.Fatal(err)
		}
	}})
	// The container has no udev: the disk appears when the test says so.
	appear := func() {
		t.Helper()
		s.MustExec("mknod", "-m", "0600", "/dev/"+disk, "b", "7", strings.TrimPrefix(disk, "loop"))
	}
	appear()
	m, dir := &manager{Stage: s, t: t}, t.TempDir()
	m.app, _ = s.PairIn(t, dir, s.Attacker(1).Way(t, entry(s)), "phone", "owner")
	var err error
	if m.session, err = m.app.Open(""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.session.Close() })
	list := func() (l *basev1.ListDisksResponse) {
		t.Helper()
		if err := m.call(func(ctx context.Context, s *client.Session) error {
			var err error
			l, err = s.Disks(ctx)
			return err
		}); err != nil {
			t.Fatal(client.Explain(err))
		}
		return l
	}
	until := func(what string, good func(*basev1.ListDisksResponse, *basev1.Node) bool) {
		t.Helper()
		s.Until(what, func() error {
			var n *basev1.GetNodeResponse
			if err := m.call(func(ctx context.Context, s *client.Session) error {
				var err error
				n, err = s.Node.GetNode(ctx, &basev1.GetNodeRequest{})
				return err
			}); err != nil {
				return err
			}
			if l := list(); !good(l, n.GetNode()) {
				return fmt.Errorf("the disks are %v, the node is %v", l, n)
			}
			return nil
		})
	}
	runs := func(_ *basev1.ListDisksResponse, n *basev1.Node) bool {
		return n.GetState() == basev1.Node_STATE_CURRENT && n.GetHeight() >= 2
	}

	if err := os.WriteFile(filepath.Join(s.Path("/"), settings.File), []byte("program btcd\nnetwork regtest\ncache 16\nblock-every 1s\n"),
		0o644); err != nil {
		t.Fatal(err)
	}
	s.MustExec("systemctl", "restart", generation.ChainUnit, generation.WatcherUnit)
	until("the node runs on the disk of the system", runs)
	until("the disk is seen", func(l *basev1.ListDisksResponse, _ *basev1.Node) bool { return len(l.GetDisks()) == 1 })
	found := list().GetDisks()[0]
	if found.GetRefused() != "" || found.GetContent() != "" || found.GetSerialEnd() != "IAL1" {
		t.Fatalf("the disk is %v", found)
	}
	if err := m.call(func(ctx context.Context, s *client.Session) error { return s.UseDisk(ctx, found, false, false) }); err != nil {
		t.Fatal(client.Explain(err))
	}
	until("the node runs on its disk", func(l *basev1.ListDisksResponse, n *basev1.Node) bool {
		return l.GetChain().GetState() == basev1.ChainDisk_STATE_READY && len(l.GetDisks()) == 1 && l.GetDisks()[0].GetChosen() && runs(l, n) &&
			n.GetDiskTotalBytes() > 1e12
	})
	mounted := strings.TrimSpace(s.MustExec("findmnt", "--noheadings", "--output", "SOURCE,FSTYPE,OPTIONS", chaindisk.MountPoint))
	for _, want := range []string{"/dev/" + disk, "ext4", "noexec", "nosuid", "nodev"} {
		if !strings.Contains(mounted, want) {
			t.Errorf("it is mounted as %q, without %s", mounted, want)
		}
	}

	// Pulled out: systemd stops the mount, and the node with it.
	calm := newCalm(m, appProgram(t), dir)
	s.MustExec("touch", "/var/lib/pulled-out")
	s.MustExec("systemctl", "stop", chaindisk.MountUnit)
	if state := s.State(generation.ChainUnit); state != "inactive" {
		t.Errorf("without its disk the node is %s", state)
	}
	if _, err := s.Exec("systemctl", "start", generation.ChainUnit); err == nil {
		t.Error("the node has started without its disk")
	}
	until("the Base says what is missing", func(l *basev1.ListDisksResponse, n *basev1.Node) bool {
		return l.GetChain().GetState() == basev1.ChainDisk_STATE_TROUBLE && n.GetState() == basev1.Node_STATE_STOPPED &&
			strings.Contains(n.GetReason(), "is not there")
	})
	calm.during("the disk is pulled out", func(n *basev1.Node) bool {
		return n.GetState() == basev1.Node_STATE_STOPPED && strings.Contains(n.GetReason(), "is not there")
	}, "the disk of the chain is not there; connect it, then: bitbox-app services restart bitcoin")
	s.MustExec("rm", "/var/lib/pulled-out")
	m.mustChange("bitcoin", toRestart)
	onDisk := func(l *basev1.ListDisksResponse, n *basev1.Node) bool {
		return l.GetChain().GetState() == basev1.ChainDisk_STATE_READY && runs(l, n) && n.GetDiskTotalBytes() > 1e12
	}
	until("the node is back with its disk", onDisk)

	// The machine restarts, and the disk appears late.
	s.Reboot()
	m.session.Close()
	s.Until("the App reaches the Base again", func() (err error) {
		m.session, err = m.app.Open("")
		return err
	})
	if state := s.State(generation.ChainUnit); state == "active" {
		t.Error("the node has started before its disk is there")
	}
	appear()
	until("after a restart of the machine the node is back with its disk", func(l *basev1.ListDisksResponse, n *basev1.Node) bool {
		if s.State(chaindisk.ReadyUnit) == "failed" { // it was too late for that, and the owner does what the App says
			m.mustChange("bitcoin", toRestart)
		}
		return onDisk(l, n)
	})
}
