//go:build linux

package stage_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/BitBoxSwiss/bitbox-base/internal/bitcoincore"
	"github.com/BitBoxSwiss/bitbox-base/internal/bitcoincore/verify"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/generation"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/nodeorders"
	"github.com/BitBoxSwiss/bitbox-base/internal/node/rebuild"
	"github.com/BitBoxSwiss/bitbox-base/internal/node/settings"
	"github.com/BitBoxSwiss/bitbox-base/internal/testbed/coretest"
	"github.com/BitBoxSwiss/bitbox-base/test/stage"
)

// The units that install and start Bitcoin Core, with Debian's gpgv, in their real sandboxes. The
// release is made; its bitcoind is bitbox-node, which says that it does not know the arguments of
// Bitcoin Core, and so that it was started.
func TestBitcoinCoreIsInstalledAndStartedInItsSandboxes(t *testing.T) {
	t.Parallel()
	stage.NeedRoot(t)
	k := coretest.New(t)
	list := k.List(coretest.Builders...)
	const node = "usr/bin/bitbox-node"
	s := stage.Boot(t, stage.Config{Real: true, Prepare: func(t *testing.T, root string) {
		build := exec.Command("go", "build", "-o", filepath.Join(root, node), "../../cmd/bitbox-node")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		if err := os.CopyFS(filepath.Join(root, verify.Folder), os.DirFS(list)); err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(filepath.Dir(filepath.Join(root, settings.File)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root, settings.File), []byte("program core\nnetwork mainnet\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}})
	program, err := os.ReadFile(s.Path("/" + node))
	if err != nil {
		t.Fatal(err)
	}
	install := func(signers ...string) string {
		t.Helper()
		entries := coretest.Programs("31.0")
		entries[len(entries)-1].Content = string(program)
		path := k.WriteArchive(coretest.Name("31.0"), coretest.Archive(t, entries...), signers...)
		for from, to := range map[string]string{
			path: "archive", filepath.Dir(path) + "/SHA256SUMS": "SHA256SUMS", filepath.Dir(path) + "/SHA256SUMS.asc": "SHA256SUMS.asc",
		} {
			b, err := os.ReadFile(from)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(s.Path(nodeorders.Incoming+"/"+to), b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.WriteFile(s.Path(nodeorders.Incoming+"/job.json"), []byte(`{"name":"`+coretest.Name("31.0")+`"}`), 0o600); err != nil {
			t.Fatal(err)
		}
		s.MustExec("systemctl", "start", nodeorders.Unit)
		return s.MustExec("cat", nodeorders.Incoming+"/result.json")
	}
	if got := install("ann", "bob", "expired", "stranger"); !strings.Contains(got, "2 of the builder's signers") {
		t.Errorf("two signers: %s\n%s", got, s.Journal())
	}
	if got, err := s.Exec("ls", "-A", bitcoincore.Owned); err != nil || strings.TrimSpace(got) != "" {
		t.Errorf("a release that was refused has left %q, %v", got, err)
	}
	if got := install("ann", "bob", "cyd"); !strings.Contains(got, `"signers":["ann","bob","cyd"]`) {
		t.Fatalf("three signers: %s\n%s", got, s.Journal())
	}

	log := func() string { return s.Printed(generation.ChainUnit) }
	starts := func() int { return strings.Count(log(), "unknown shorthand flag") }
	started := func(what string) {
		t.Helper()
		before := starts()
		s.MustExec("systemctl", "restart", generation.ChainUnit)
		s.Until(what, func() error {
			if starts() <= before {
				return fmt.Errorf("the program was not started: %s", log())
			}
			return nil
		})
	}
	started("the node runs what was installed")
	// Its user may change nothing of that, and sees no upload.
	as := []string{"setpriv", "--reuid=bitcoin", "--regid=bitcoin", "--init-groups"}
	for _, path := range []string{bitcoincore.Owned, bitcoincore.RecordFile(bitcoincore.Owned), filepath.Dir(nodeorders.Incoming),
		nodeorders.Runtime} {
		if _, err := s.Exec(slices.Concat(as, []string{"test", "-w", path})...); err == nil {
			t.Errorf("the node's user may write to %s", path)
		}
	}
	if _, err := s.Exec(slices.Concat(as, []string{"ls", nodeorders.Incoming})...); err == nil {
		t.Error("the node's user sees an upload")
	}
	// A data partition on which nothing may be executed: the unit's folder is an exception of its own.
	data := filepath.Dir(bitcoincore.Owned)
	s.MustExec("mount", "--bind", data, data)
	s.MustExec("mount", "-o", "remount,bind,noexec", data)
	if out, err := s.Exec("sh", "-c", bitcoincore.Owned+"/31.0-*/bitcoind --help"); err == nil {
		t.Errorf("the folder is not noexec: %s", out)
	}
	started("the node runs from a partition that is noexec")

	// The node's user carries out an order to download the chain again.
	folder := settings.Data + "/core/"
	for _, file := range []string{"blocks/blk00000.dat", "chainstate/CURRENT", "peers.dat"} {
		s.MustExec(slices.Concat(as, []string{"install", "-D", "/dev/null", folder + file})...)
	}
	if _, err := s.ExecInput(`{"id":"1","resync":true}`, "tee", rebuild.Order); err != nil {
		t.Fatal(err)
	}
	started("the node starts with an order")
	s.Until("the blocks are gone", func() error {
		if left := strings.Fields(s.MustExec("ls", folder)); !slices.Equal(left, []string{"peers.dat"}) {
			return fmt.Errorf("%v are left", left)
		}
		return nil
	})

	// A program that others may write to is not started.
	s.MustExec("mount", "-o", "remount,bind,exec", data)
	s.MustExec("sh", "-c", "chmod 0757 "+bitcoincore.Owned+"/31.0-*/bitcoind")
	_, _ = s.Exec("systemctl", "restart", generation.ChainUnit)
	s.Until("a program that others may write to is refused", func() error {
		if text := log(); !strings.Contains(text, "can be written by users other than root") {
			return fmt.Errorf("the log says %s", text)
		}
		return nil
	})
}
