//go:build linux

package boot_test

import (
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/client"
	"github.com/BitBoxSwiss/bitbox-base/internal/bitcoincore"
	"github.com/BitBoxSwiss/bitbox-base/internal/bitcoincore/verify"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/generation"
	"github.com/BitBoxSwiss/bitbox-base/internal/node/settings"
	"github.com/BitBoxSwiss/bitbox-base/internal/testbed/coretest"
	"github.com/BitBoxSwiss/bitbox-base/internal/testbed/nodetest"
	"github.com/BitBoxSwiss/bitbox-base/test/stage"
)

// libraries is where the programs of a Debian look for libc.
const libraries = "/usr/lib/x86_64-linux-gnu"

// A builder brings a release of Bitcoin Core with the package, an owner a newer one with the App.
// The program in both is Debian's bitcoin-knots, which has Bitcoin Core's interface: it really runs,
// restarts, reads its blocks once more, and begins again.
func TestAnOwnerRunsUpdatesAndRebuildsBitcoinCore(t *testing.T) {
	t.Parallel()
	stage.NeedRoot(t, "dpkg-deb")
	if runtime.GOARCH != "amd64" {
		t.Skip("SKIPPED, not passed: the program is pinned for amd64")
	}
	knots := nodetest.KnotsRoot(t)
	k := coretest.New(t)
	program, err := os.ReadFile(filepath.Join(knots, "usr/bin/bitcoind"))
	if err != nil {
		t.Fatal(err)
	}
	cli, err := os.ReadFile(filepath.Join(knots, "usr/bin/bitcoin-cli"))
	if err != nil {
		t.Fatal(err)
	}
	release := func(version string, signers ...string) string {
		t.Helper()
		entries := coretest.Programs(version)
		entries[len(entries)-1].Content = string(program)
		for i := range entries {
			if strings.HasSuffix(entries[i].Name, "/bin/bitcoin-cli") {
				entries[i].Content = string(cli)
			}
		}
		return k.WriteArchive(coretest.Name(version), coretest.Archive(t, entries...), signers...)
	}
	three := []string{"ann", "bob", "cyd"}

	// What `make package BITCOIN_CORE=… BITCOIN_CORE_SIGNERS=…` calls.
	file := makePackage(t, "bitbox-base", "../..", newVersion, t.TempDir(), sourceDate, quickly, "BITCOIN_CORE="+release("29.3", three...),
		"BITCOIN_CORE_SIGNERS="+k.List(coretest.Builders...))
	inPackage := func(folder string) (names []string) {
		t.Helper()
		for line := range strings.Lines(host(t, "dpkg-deb", "--contents", file)) {
			fields := strings.Fields(line)
			if name, is := strings.CutPrefix(fields[5], "."+folder+"/"); is && name != "" {
				names = append(names, fields[0]+" "+fields[1]+" "+name)
			}
		}
		slices.Sort(names)
		return names
	}
	contents := inPackage(bitcoincore.Built)
	want := []string{"-rw-r--r-- root/root release.json", "-rwxr-xr-x root/root 29.3-X/bitcoin-cli", "-rwxr-xr-x root/root 29.3-X/bitcoind",
		"drwxr-xr-x root/root 29.3-X/"}
	for i := range contents {
		if before, after, found := strings.Cut(contents[i], "29.3-"); found && len(after) >= 8 {
			contents[i] = before + "29.3-X" + after[8:]
		}
	}
	if !slices.Equal(contents, want) {
		t.Errorf("of Bitcoin Core the package has %q", contents)
	}
	if list := inPackage(verify.Folder); len(list) != len(coretest.Builders)+1 {
		t.Errorf("the list of signers in the package is %q", list)
	}

	s := stage.Boot(t, stage.Config{Package: file, Prepare: func(t *testing.T, root string) {
		// The program is of another Debian, and gets the libraries of that.
		if err := os.CopyFS(filepath.Join(root, "opt/libraries"), os.DirFS(filepath.Join(knots, libraries))); err != nil {
			t.Fatal(err)
		}
		for path, text := range map[string]string{
			"etc/systemd/system/" + generation.ChainUnit + ".d/test.conf": "[Service]\nBindReadOnlyPaths=/opt/libraries:" + libraries + "\n",
			// An operator of the test's may make blocks.
			settings.OwnFile: "rpcauth=" + nodetest.RPCAuth("operator", "of the test") + "\nrpcwhitelist=operator:generatetoaddress,stop\n",
		} {
			path = filepath.Join(root, path)
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}})
	m := &manager{Stage: s, t: t, app: pair(t, s, s.Attacker(1))}
	if m.session, err = m.app.Open(""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.session.Close() })
	do := func(what string, use func(context.Context, *client.Session) error) {
		t.Helper()
		if err := m.call(use); err != nil {
			t.Fatalf("%s: %s", what, client.Explain(err))
		}
	}
	runs := func(what string, height uint64) {
		t.Helper()
		s.Until(what, func() error {
			var n *basev1.Node
			if err := m.call(func(ctx context.Context, s *client.Session) error {
				answer, err := s.Node.GetNode(ctx, &basev1.GetNodeRequest{})
				n = answer.GetNode()
				return err
			}); err != nil {
				return err
			}
			if n.GetState() != basev1.Node_STATE_CURRENT || n.GetHeight() != height || !strings.HasPrefix(n.GetSoftware(), "Bitcoin Core (Knots") {
				return fmt.Errorf("it is %v\n%s", n, s.Journal(generation.ChainUnit, generation.WatcherUnit))
			}
			return nil
		})
	}
	pid := func() string {
		return strings.TrimSpace(s.MustExec("systemctl", "show", "--property=MainPID", "--value", generation.ChainUnit))
	}
	// isOf waits until a program of a place runs, and compares it to the byte.
	isOf := func(place string) {
		t.Helper()
		s.Until("the node is one of "+place, func() error {
			path, err := s.Exec("readlink", "/proc/"+pid()+"/exe")
			path = strings.TrimSpace(path)
			if err != nil || filepath.Dir(filepath.Dir(path)) != place {
				return fmt.Errorf("it is %s, %w", path, err)
			}
			if sum, _, _ := strings.Cut(s.MustExec("sha256sum", path), " "); sum != fmt.Sprintf("%x", sha256.Sum256(program)) {
				t.Fatalf("%s has the hash %s", path, sum)
			}
			return nil
		})
	}
	// arguments are those of the process that runs now, which may end at any moment.
	arguments := func() string {
		text, _ := s.Exec("cat", "/proc/"+pid()+"/cmdline")
		return strings.ReplaceAll(text, "\x00", " ")
	}
	generate := func(blocks int) {
		t.Helper()
		path := strings.TrimSpace(s.MustExec("sh", "-c", "ls "+bitcoincore.Built+"/29.3-*/bitcoin-cli"))
		s.MustExec("setpriv", "--reuid=bitbox-node", "--regid=bitbox-node", "--clear-groups", "/opt/libraries/ld-linux-x86-64.so.2",
			"--library-path", "/opt/libraries", path, "-datadir=/tmp", "-regtest", "-rpcport=8332", "-rpcuser=operator", "-rpcpassword=of the test",
			"generatetoaddress", fmt.Sprint(blocks), settings.RewardAddress)
	}

	do("choose the node", func(ctx context.Context, s *client.Session) error {
		return s.ChangeNodeSettings(ctx, &basev1.NodeSettings{Program: basev1.NodeSettings_PROGRAM_CORE, Network: basev1.Network_NETWORK_REGTEST,
			CacheMib: 16})
	})
	runs("the release of the package runs", 0)
	isOf(bitcoincore.Built)
	generate(12)
	runs("it has blocks", 12)

	install := func(path string) (signers []string, err error) {
		t.Helper()
		opened, err := client.OpenBitcoinCore(path)
		if err != nil {
			t.Fatal(client.Explain(err))
		}
		defer func() { _ = opened.Close() }()
		err = m.call(func(ctx context.Context, s *client.Session) (err error) {
			signers, err = s.InstallBitcoinCore(ctx, opened, nil)
			return err
		})
		return signers, err
	}
	was := pid()
	if _, err := install(release("29.4", "ann", "bob", "stranger")); err == nil || !strings.Contains(client.Explain(err), "signers") {
		t.Errorf("a release with two signatures that count: %v", err)
	}
	if now := pid(); now != was {
		t.Errorf("a release that was refused has restarted the node: %s, before %s", now, was)
	}
	signers, err := install(release("29.4", three...))
	if err != nil || !slices.Equal(signers, three) {
		t.Fatalf("%v, %s", signers, client.Explain(err))
	}
	isOf(bitcoincore.Owned)
	runs("the owner's release has the blocks", 12)

	was = pid()
	m.mustChange("bitcoin", toRestart)
	another := func() {
		t.Helper()
		s.Until("another process runs", func() error {
			if now := pid(); now == was || now == "0" {
				return fmt.Errorf("process %s runs", now)
			}
			return nil
		})
	}
	another()
	runs("it was restarted", 12)

	was = pid()
	do("reindex", func(ctx context.Context, s *client.Session) error { return s.RebuildChain(ctx, false) })
	another()
	s.Until("it is told to reindex", func() error {
		if got := arguments(); !strings.Contains(got, " -reindex") {
			return fmt.Errorf("its arguments are %s", got)
		}
		return nil
	})
	s.Until("it has read its blocks once more", func() error {
		if log := s.Journal(generation.ChainUnit); !strings.Contains(log, "Reindexing finished") {
			return fmt.Errorf("its log says %s", log)
		}
		return nil
	})
	runs("it has its blocks after a reindex", 12)

	s.Reboot()
	m.session.Close()
	s.Until("the App reaches the Base again", func() (err error) {
		m.session, err = m.app.Open("")
		return err
	})
	runs("it has its blocks after a reboot", 12)
	isOf(bitcoincore.Owned)
	if got := arguments(); got == "" || strings.Contains(got, "-reindex") {
		t.Errorf("after a reboot it reindexes again: %s", got)
	}

	do("resync", func(ctx context.Context, s *client.Session) error { return s.RebuildChain(ctx, true) })
	runs("it begins again without blocks", 0)
	generate(3)
	runs("it has new blocks", 3)
	if got := strings.Fields(s.MustExec("ls", settings.Data+"/core/regtest")); !slices.Contains(got, "blocks") ||
		slices.ContainsFunc(got, func(name string) bool { return strings.HasSuffix(name, ".deleted") }) {
		t.Errorf("its folder has %q", got)
	}
}
