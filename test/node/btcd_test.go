package node_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/node"
	"github.com/BitBoxSwiss/bitbox-base/internal/nodeclient"
	"github.com/BitBoxSwiss/bitbox-base/internal/testbed/nodetest"
)

// The disk is full while btcd runs: btcd ends, the Base says why, and both go on once there is room.
func TestABtcdWhoseDiskIsFullSaysSoAndGoesOnOnceThereIsRoom(t *testing.T) {
	if os.Geteuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("this test needs root")
		}
		t.Skip("SKIPPED, not passed: this test needs root")
	}
	disk := t.TempDir()
	if err := syscall.Mount("tmpfs", disk, "tmpfs", syscall.MS_NOEXEC|syscall.MS_NOSUID|syscall.MS_NODEV, "size=160m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(disk, 0); err != nil {
			t.Error(err)
		}
	})
	b := nodetest.StartBtcdIn(t, disk, "simnet")
	socket := filepath.Join(t.TempDir(), "socket")
	nodetest.Serve(t, socket, node.Config{Node: b.Node(), Interval: nodetest.Quick, Disk: func() (total, available uint64, err error) {
		var s syscall.Statfs_t
		err = syscall.Statfs(disk, &s)
		return s.Blocks * uint64(s.Bsize), s.Bavail * uint64(s.Bsize), err
	}})
	client := nodeclient.Dial(socket)
	until := func(what string, good func(*basev1.Node) bool) {
		t.Helper()
		nodetest.Eventually(t, what, func() bool {
			n, err := client.Node(t.Context())
			return err == nil && good(n)
		})
	}
	current := func(height uint64) {
		t.Helper()
		until(fmt.Sprintf("the node is up to date at %d", height), func(n *basev1.Node) bool {
			return n.GetState() == basev1.Node_STATE_CURRENT && n.GetHeight() == height && n.GetReason() == ""
		})
	}
	b.Generate(3)
	current(3)
	ballast := filepath.Join(disk, "ballast")
	fill(t, ballast)
	until("the Base says why it has ended", func(n *basev1.Node) bool {
		_ = b.Node().Generate(t.Context(), 20) // until one of these cannot be written
		return n.GetState() == basev1.Node_STATE_STOPPED &&
			strings.HasSuffix(n.GetReason(), "; its disk is full, so make room on it or give it a larger one")
	})
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	b.Kill() // what is left of it
	b.Start()
	b.Generate(2)
	current(b.Height())
}
