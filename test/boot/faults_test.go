//go:build linux

package boot_test

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/bitcoincore"
	"github.com/BitBoxSwiss/bitbox-base/internal/bitcoincore/verify"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/generation"
	"github.com/BitBoxSwiss/bitbox-base/internal/node/settings"
	"github.com/BitBoxSwiss/bitbox-base/internal/testbed/coretest"
	"github.com/BitBoxSwiss/bitbox-base/test/stage"
)

// playedArchive makes archives of Bitcoin Core whose program is test/boot/played.
func playedArchive(t *testing.T) func(version string) []byte {
	t.Helper()
	file := filepath.Join(t.TempDir(), "played")
	goBuild(t, file, "./played")
	program, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return func(version string) []byte {
		entries := coretest.Programs(version)
		entries[len(entries)-1].Content = string(program)
		return coretest.Archive(t, entries...)
	}
}

// installPlayed has a root bring test/boot/played as its Bitcoin Core.
func installPlayed(t *testing.T, root string) {
	t.Helper()
	k := coretest.New(t)
	path := k.WriteArchive(coretest.Name("31.0"), playedArchive(t)("31.0"), "ann", "bob", "cyd")
	archive, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = archive.Close() }()
	r := verify.Release{Name: filepath.Base(path), Archive: archive}
	var errs [2]error
	r.Sums, errs[0] = os.ReadFile(filepath.Join(filepath.Dir(path), "SHA256SUMS"))
	r.Signatures, errs[1] = os.ReadFile(filepath.Join(filepath.Dir(path), "SHA256SUMS.asc"))
	signers, err := verify.ReadSigners(k.List(coretest.Builders...))
	if err := errors.Join(err, errs[0], errs[1]); err != nil {
		t.Fatal(err)
	}
	place := filepath.Join(root, bitcoincore.Built)
	if err := os.MkdirAll(place, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := signers.Install(t.Context(), r, runtime.GOARCH, place, time.Time{}); err != nil {
		t.Fatal(err)
	}
}

// Each fault of a node is played on a booted Base: with the real btcd, and with a bitcoind that was
// taken over where an honest program never does that. Other tests pull a disk out
// (TestAPackagedBaseKeepsTheChainOnTheChosenDisk) and have the clock jump (test/node).
func TestFaultsOfTheNodeTouchNothingElse(t *testing.T) {
	t.Parallel()
	stage.NeedRoot(t)
	if runtime.GOARCH != "amd64" {
		t.Skip("SKIPPED, not passed: the release is made for amd64")
	}
	s := stage.Boot(t, stage.Config{Package: deb(t, newVersion), Prepare: installPlayed})
	m := &manager{Stage: s, t: t}
	dir, program := t.TempDir(), appProgram(t)
	m.app, _ = s.PairIn(t, dir, s.Attacker(1).Way(t, entry(s)), "phone", "owner")
	var err error
	if m.session, err = m.app.Open(""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.session.Close() })
	write := func(path, text string) {
		t.Helper()
		if err := os.WriteFile(s.Path(path), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	// The disk of the node is a small one of its own, so that a test can fill it.
	s.MustExec("mkdir", "-p", settings.Data)
	s.MustExec("mount", "-t", "tmpfs", "-o", "size=160m,noexec,nosuid,nodev", "tmpfs", settings.Data)
	const regtest = "program btcd\nnetwork regtest\ncache 16\nblock-every 1s\n"
	write(settings.File, regtest)
	restart := func() { s.MustExec("systemctl", "restart", generation.ChainUnit, generation.WatcherUnit) }
	restart()
	current := func(n *basev1.Node) bool { return n.GetState() == basev1.Node_STATE_CURRENT && n.GetReason() == "" }
	stopped := func(says string) func(*basev1.Node) bool {
		return func(n *basev1.Node) bool { return n.GetState() == basev1.Node_STATE_STOPPED && n.GetReason() == says }
	}
	kill := func(signal string) { s.MustExec("systemctl", "kill", "--signal="+signal, generation.ChainUnit) }
	systemctl := func(verb string) { s.MustExec("systemctl", "--no-block", verb, generation.ChainUnit) }
	mustInput := func(input string, argv ...string) {
		t.Helper()
		if out, err := s.ExecInput(input, argv...); err != nil {
			t.Fatalf("%v: %v: %s", argv, err, out)
		}
	}
	ballast := settings.Data + "/ballast"
	answers := func(text string) func() {
		return func() { s.MustExec("sh", "-c", "echo "+text+" >"+settings.Data+"/core/answers") }
	}
	played := func(n *basev1.Node) bool { return current(n) && n.GetHeight() == 200 }

	type fault struct {
		play func()
		seen func(*basev1.Node) bool
		says []string // by which the owner learns of it
		end  func()
		back func(*basev1.Node) bool
	}
	run := func(faults map[string]fault) {
		t.Helper()
		for name, f := range faults {
			t.Run(name, func(t *testing.T) {
				m.t = t
				c := newCalm(m, program, dir)
				c.until("before", f.back)
				f.play()
				c.during(name, f.seen, f.says...)
				f.end()
				c.until(name+" is over", f.back)
				c.untouched(name + " is over")
			})
			m.t = t
		}
	}

	const (
		down = "btcd does not run"
		full = "its disk is full, so make room on it or give it a larger one"
	)
	run(map[string]fault{
		"the node is down": {func() { systemctl("stop") }, stopped(down), []string{down}, func() { systemctl("start") }, current},
		"the node is slow": {func() { kill("STOP") }, stopped("btcd does not answer in time"), []string{"btcd does not answer in time"},
			func() { kill("CONT") }, current},
		"other credentials": {func() { mustInput("bitbox:0000", "tee", settings.Runtime+"/btcd.credentials") },
			stopped("btcd does not accept the credentials that it has written itself; restart it"), []string{"restart it"},
			func() { m.mustChange("bitcoin", toRestart) }, current},
		"another network": {func() {
			write(settings.File, strings.Replace(regtest, "regtest\ncache 16\nblock-every 1s", "simnet", 1))
			s.MustExec("systemctl", "restart", generation.ChainUnit)
		}, stopped("btcd is on simnet, and the Base is set to regtest"), []string{"btcd is on simnet, and the Base is set to regtest"},
			func() { write(settings.File, regtest); restart() }, current},
		"a full disk": {func() { kill("KILL") }, func(n *basev1.Node) bool {
			_, _ = s.Exec("sh", "-c", "cat /dev/zero >>"+ballast) // until there is no room; at each start it makes some
			return n.GetState() == basev1.Node_STATE_STOPPED && strings.HasSuffix(n.GetReason(), "; "+full)
		}, []string{full}, func() { s.MustExec("rm", ballast) }, current},
	})
	t.Run("kill -9", func(t *testing.T) {
		m.t = t
		c := newCalm(m, program, dir)
		c.until("it has blocks to lose", func(n *basev1.Node) bool { return current(n) && n.GetHeight() >= 30 })
		waitEvent(m, func() { kill("KILL") }, func(event *basev1.Event) bool {
			return event.GetNodeBehind().GetLostBlocks() > 0 || event.GetChainReorganised().GetDepth() > 0
		})
		c.untouched("kill -9")
		c.during("kill -9", current)
	})
	m.t = t

	write(settings.File, "program core\nnetwork regtest\n")
	restart()
	s.Until("the played bitcoind has its folder", func() error {
		_, err := s.Exec("sh", "-c", "echo 200 >"+settings.Data+"/core/answers")
		return err
	})
	const garbage = "what Bitcoin Core answers cannot be read"
	run(map[string]fault{
		"garbage":       {answers("garbage"), stopped(garbage), []string{garbage}, answers("200"), played},
		"a huge answer": {answers("huge"), stopped(garbage), []string{garbage}, answers("200"), played},
		"too busy": {answers("nothing"), stopped("Bitcoin Core has too much to do to answer"), []string{"too much to do"}, answers("200"),
			played},
		// It may take ten minutes; the power goes in the middle of that.
		"a stop that is cut": {func() {
			answers("stubborn")()
			systemctl("stop")
			s.WaitState(generation.ChainUnit, "deactivating")
		}, stopped("Bitcoin Core does not run"), []string{"Bitcoin Core does not run"}, func() {
			kill("KILL")
			s.WaitState(generation.ChainUnit, "failed")
			answers("200")()
			systemctl("start")
		}, played},
	})
	t.Run("back 100 blocks", func(t *testing.T) {
		m.t = t
		c := newCalm(m, program, dir)
		c.until("before", played)
		waitEvent(m, answers("100"), func(event *basev1.Event) bool { return event.GetNodeBehind().GetLostBlocks() == 100 })
		c.during("back 100 blocks", func(n *basev1.Node) bool { return n.GetHeight() == 100 }, "Height     100")
		answers("200")()
		c.until("it has them again", played)
		c.untouched("it has them again")
	})
	m.t = t
}
