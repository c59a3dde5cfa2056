//go:build linux

package boot_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/client"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/firewall"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/generation"
	"github.com/BitBoxSwiss/bitbox-base/internal/node/clock"
	"github.com/BitBoxSwiss/bitbox-base/internal/node/settings"
	"github.com/BitBoxSwiss/bitbox-base/test/stage"
)

// The package as it is shipped, and a file of root's that names a node.
func TestAPackagedBaseHasTheNodeOfItsSettings(t *testing.T) {
	t.Parallel()
	stage.NeedRoot(t)
	s := stage.Boot(t, stage.Config{Package: deb(t, newVersion)})
	m := &manager{Stage: s, t: t, app: pair(t, s, s.Attacker(1))}
	var err error
	if m.session, err = m.app.Open(""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.session.Close)
	node := func() (n *basev1.Node) {
		t.Helper()
		if err := m.call(func(ctx context.Context, s *client.Session) error {
			answer, err := s.Node.GetNode(ctx, &basev1.GetNodeRequest{})
			n = answer.GetNode()
			return err
		}); err != nil {
			t.Fatal(client.Explain(err))
		}
		return n
	}
	until := func(what string, good func(*basev1.Node) bool) {
		t.Helper()
		s.Until(what, func() error {
			if n := node(); !good(n) {
				return fmt.Errorf("it is %v", n)
			}
			return nil
		})
	}
	configure := func(text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(s.Path("/"), settings.File), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		s.MustExec("systemctl", "restart", generation.ChainUnit, generation.WatcherUnit)
	}
	current := func(n *basev1.Node) bool {
		return n.GetState() == basev1.Node_STATE_CURRENT && n.GetHeight() >= 2 && n.GetNetwork() == basev1.Network_NETWORK_REGTEST
	}

	if n := node(); n.GetState() != basev1.Node_STATE_NONE {
		t.Errorf("without settings: %v", n)
	}
	for _, unit := range []string{generation.ChainUnit, generation.WatcherUnit} {
		if state := s.State(unit); state != "inactive" {
			t.Errorf("without settings %s is %s", unit, state)
		}
	}

	configure("program core\nnetwork mainnet\n")
	until("the Base says that Bitcoin Core is missing", func(n *basev1.Node) bool {
		return n.GetState() == basev1.Node_STATE_NOT_INSTALLED && strings.Contains(n.GetReason(), "no mainnet node")
	})
	configure("program btcd\nnetwork mainnet\n")
	until("the Base says what is wrong with its settings", func(n *basev1.Node) bool {
		return n.GetState() == basev1.Node_STATE_STOPPED && strings.Contains(n.GetReason(), settings.File)
	})

	configure("program btcd\nnetwork regtest\ncache 16\nblock-every 1s\n")
	until("two blocks come", current)
	if n := node(); n.GetDiskTotalBytes() == 0 {
		t.Errorf("its disk is unknown: %v", n)
	}
	// The audit knows its files, processes and sockets.
	if err := m.call(func(ctx context.Context, s *client.Session) error {
		found, err := s.Audit.RunAudit(ctx, &basev1.RunAuditRequest{})
		for _, f := range found.GetFindings() {
			for _, word := range []string{"bitcoin", "node", "8332"} {
				if strings.Contains(strings.ToLower(f.String()), word) {
					t.Errorf("the audit finds %v", f)
				}
			}
		}
		return err
	}); err != nil {
		t.Error(client.Explain(err))
	}
	// Its password is in files of its own, and nowhere else.
	login := strings.TrimSpace(s.MustExec("cat", settings.Runtime+"/btcd.credentials"))
	_, password, found := strings.Cut(login, ":")
	if !found || len(password) != 64 {
		t.Fatalf("the credentials have %d bytes", len(login))
	}
	if strings.Contains(s.Journal(), password) || strings.Contains(s.MustExec("ps", "-e", "-ww", "-o", "args="), password) {
		t.Error("the node's password is in the log, or among the arguments of a program")
	}
	for user, may := range map[string]bool{"bitbox-base": false, "www-data": false, "base": false, "bitbox-node": false, "bitcoin": true} {
		for _, path := range []string{settings.Runtime + "/btcd.conf", settings.Data + "/btcd"} {
			if _, err := s.Exec("setpriv", "--reuid="+user, "--regid="+user, "--init-groups", "ls", "-d", path+"/."); err == nil && !may {
				t.Errorf("%s reads %s", user, path)
			}
			if _, err := s.Exec("setpriv", "--reuid="+user, "--regid="+user, "--init-groups", "test", "-r", path); (err == nil) != may {
				t.Errorf("%s reads %s: %v", user, path, err)
			}
		}
	}

	// An owner's App changes the settings; root's lines stay. Orders that do not fit change nothing.
	settingsAre := func() string { return s.MustExec("cat", settings.SignedFile) }
	change := func(wanted *basev1.NodeSettings) error {
		return m.call(func(ctx context.Context, s *client.Session) error { return s.ChangeNodeSettings(ctx, wanted) })
	}
	const own = "[Application Options]\nmaxpeers=17\n"
	s.MustExec("install", "-D", "-m", "0644", "/dev/null", settings.OwnFile)
	if _, err := s.ExecInput(own, "tee", settings.OwnFile); err != nil {
		t.Fatal(err)
	}
	simnet := &basev1.NodeSettings{Program: basev1.NodeSettings_PROGRAM_BTCD, Network: basev1.Network_NETWORK_SIMNET, CacheMib: 16}
	if err := change(simnet); err != nil {
		t.Fatal(client.Explain(err))
	}
	until("the node is on the network that an owner has signed", func(n *basev1.Node) bool {
		return n.GetNetwork() == basev1.Network_NETWORK_SIMNET && n.GetState() == basev1.Node_STATE_CURRENT
	})
	if text := s.MustExec("cat", settings.Runtime+"/btcd.conf"); !strings.Contains(text, "simnet=1\n") || !strings.HasSuffix(text, own) {
		t.Errorf("the configuration is %q", text)
	}
	stored := settingsAre()
	signet := &basev1.NodeSettings{Program: basev1.NodeSettings_PROGRAM_BTCD, Network: basev1.Network_NETWORK_SIGNET, CacheMib: 16}
	for want, c := range map[string]struct {
		mark   string // a folder that is there meanwhile
		wanted *basev1.NodeSettings
	}{
		"this Base has no mainnet node": {"", &basev1.NodeSettings{Program: basev1.NodeSettings_PROGRAM_CORE,
			Network: basev1.Network_NETWORK_MAINNET, CacheMib: 16}},
		"btcd is another implementation": {"", &basev1.NodeSettings{Program: signet.Program, Network: basev1.Network_NETWORK_MAINNET,
			CacheMib: 16}},
		"has the data of Bitcoin Core":      {"/btcd/chainstate", signet},
		"are of an unknown network, not of": {"/btcd/data/signet/blocks_ffldb", signet},
	} {
		if c.mark != "" {
			s.MustExec("mkdir", "-p", settings.Data+c.mark)
			if _, err := s.ExecInput("something else", "tee", settings.Data+c.mark+"/000000000.fdb"); err != nil {
				t.Fatal(err)
			}
		}
		if err := change(c.wanted); err == nil || !strings.Contains(client.Explain(err), want) {
			t.Errorf("%q: %v", want, err)
		}
		if c.mark != "" {
			s.MustExec("rm", "-r", settings.Data+c.mark)
		}
		if now := settingsAre(); now != stored {
			t.Errorf("%q: the settings are %q", want, now)
		}
	}
	if n := node(); n.GetNetwork() != basev1.Network_NETWORK_SIMNET {
		t.Errorf("after orders that were refused: %v", n)
	}
	regtest := &basev1.NodeSettings{Program: signet.Program, Network: basev1.Network_NETWORK_REGTEST, CacheMib: 16, BlockEverySeconds: 1}
	if err := change(regtest); err != nil {
		t.Fatal(client.Explain(err))
	}
	until("the node is back on regtest", current)

	// The signature that lets it out is loaded as it is rendered, and is taken back.
	uid := strings.TrimSpace(s.MustExec("id", "-u", firewall.ChainUser))
	goesOut := func() bool { return strings.Contains(s.MustExec("iptables-save"), "--uid-owner "+uid+" -j INTERNET") }
	let := func(edit client.Edit) (out bool) {
		t.Helper()
		if err := m.call(func(ctx context.Context, s *client.Session) error {
			view, err := s.Apply(ctx, client.Change{Edit: edit, Approve: func([]client.PostureChange) (bool, error) { return true, nil }})
			out = err == nil && client.LetsOut(view, client.NodeInternet)
			return err
		}); err != nil {
			t.Fatal(client.Explain(err))
		}
		return out
	}
	for _, c := range []struct {
		edit client.Edit
		want bool
	}{{client.LetOut(client.NodeInternet), true}, {client.KeepIn(client.NodeInternet, client.NodeHome), false}} {
		if let(c.edit) != c.want {
			t.Errorf("the Base has signed that the node goes out: %t", !c.want)
		}
		if goesOut() != c.want {
			t.Errorf("the packet filter lets the node out: %t", !c.want)
		}
	}

	// The Base sets its clock by the network, and has not yet: a container's systemd does not. A node that
	// is let out waits for that; one that stays in, which gets no blocks, does not.
	s.MustExec("mkdir", "-p", clock.Folder)
	waits := func(n *basev1.Node) bool {
		return n.GetState() == basev1.Node_STATE_STARTING && n.GetReason() == clock.Reason
	}
	public := &basev1.NodeSettings{Program: signet.Program, Network: basev1.Network_NETWORK_TESTNET4, CacheMib: 16}
	if err := change(public); err != nil {
		t.Fatal(client.Explain(err))
	}
	runs := func(n *basev1.Node) bool {
		return n.GetNetwork() == basev1.Network_NETWORK_TESTNET4 && n.GetSoftware() != ""
	}
	until("a node that stays in starts", func(n *basev1.Node) bool {
		if waits(n) {
			t.Error("a node that stays in waits for the clock")
		}
		return runs(n) && n.GetState() != basev1.Node_STATE_STARTING
	})
	let(client.LetOut(client.NodeInternet))
	m.mustChange("bitcoin", toRestart)
	until("a node that is let out waits for the clock", waits)
	s.MustExec("touch", clock.Synchronised)
	until("it starts once the clock is set", func(n *basev1.Node) bool { return !waits(n) && runs(n) })
	let(client.KeepIn(client.NodeInternet, client.NodeHome))
	s.MustExec("rm", "-r", clock.Folder)
	if err := change(regtest); err != nil {
		t.Fatal(client.Explain(err))
	}
	until("the node is back on regtest once more", current)

	// systemd starts it again before it counts as stopped. Its chain begins at the first block
	// then, which does not stay hidden: blocks are lost, or replaced if new ones came at once.
	until("it has blocks to lose", func(n *basev1.Node) bool { return n.GetHeight() >= 30 })
	waitEvent(m, func() { s.MustExec("systemctl", "kill", "--signal=KILL", generation.ChainUnit) }, func(event *basev1.Event) bool {
		return event.GetNodeBehind().GetLostBlocks() > 0 || event.GetChainReorganised().GetDepth() > 0
	})
	until("the node is back after a kill", current)
	if now := strings.TrimSpace(s.MustExec("cat", settings.Runtime+"/btcd.credentials")); now == login {
		t.Error("the password stayed the same")
	}
	if service := m.mustChange("bitcoin", toRestart); service.GetName() != "bitcoin" {
		t.Errorf("restarted: %v", service)
	}
	until("the node is back after an App's restart", current)
	if lines, err := m.logs(&basev1.ReadLogsRequest{Services: []string{"bitcoin"}, Lines: 5}, nil); err != nil || len(lines) == 0 {
		t.Errorf("its log: %v, %v", lines, err)
	}
	m.mustChange("bitcoin", toDisable)
	until("a node that is switched off stays away", func(n *basev1.Node) bool { return n.GetState() == basev1.Node_STATE_STOPPED })
	m.mustChange("bitcoin", toEnable)
}
