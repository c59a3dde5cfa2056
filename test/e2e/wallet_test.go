//go:build linux

package e2e_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/client"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/firewall"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/generation"
	"github.com/BitBoxSwiss/bitbox-base/internal/helperclient"
	"github.com/BitBoxSwiss/bitbox-base/internal/node/btcd"
	"github.com/BitBoxSwiss/bitbox-base/internal/node/settings"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/posture"
	"github.com/BitBoxSwiss/bitbox-base/internal/testbed/nodetest"
	"github.com/BitBoxSwiss/bitbox-base/test/stage"
)

// rewardKey is the private key 1, whose address gets the rewards of a Base that makes blocks.
const rewardKey = "p2wpkh:cMahea7zqjxrtgAbB7LSGbcQUr1uX1ojuat9jZodMN87JcbXMTcA"

// nodeProgram builds bitbox-node, once, and returns what is in it.
var nodeProgram = sync.OnceValues(func() ([]byte, error) {
	folder, err := os.MkdirTemp("", "bitbox-node")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(folder) }()
	path := filepath.Join(folder, "bitbox-node")
	build := exec.Command("go", "build", "-o", path, "../../cmd/bitbox-node")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build bitbox-node: %w\n%s", err, out)
	}
	return os.ReadFile(path)
})

// installNode puts bitbox-node and btcd in, and a file of root's that names a regtest node. Each block
// pays a wallet that holds the key of the rewards, and that wallet asks for all its payments again: one
// block a second was more than Electrum follows on a slow machine.
func installNode(t *testing.T, root string) {
	t.Helper()
	btcd, err := nodetest.Program()
	if err != nil {
		t.Fatal(err)
	}
	node, err := nodeProgram()
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile(btcd)
	err = errors.Join(err,
		os.WriteFile(filepath.Join(root, "usr/bin/bitbox-node"), node, 0o755),
		os.MkdirAll(filepath.Join(root, "usr/lib/bitbox-base"), 0o755),
		os.WriteFile(filepath.Join(root, "usr/lib/bitbox-base/btcd"), program, 0o755),
		os.MkdirAll(filepath.Join(root, filepath.Dir(settings.File)), 0o755),
		os.WriteFile(filepath.Join(root, settings.File), []byte("program btcd\nnetwork regtest\ncache 16\nblock-every 5s\n"), 0o644))
	if err != nil {
		t.Fatal(err)
	}
}

// installForWallets is for a stage whose node makes blocks, and which serves wallets.
func installForWallets(t *testing.T, root string) {
	installNode(t, root)
	relay, err := os.ReadFile("/proc/self/exe")
	if err == nil {
		err = os.WriteFile(filepath.Join(root, "usr/bin/e2e-relay"), relay, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// maturity is how many blocks must follow on a reward until it can be spent.
const maturity = 100

// mine has the Base's node make as many blocks at once, in the Base.
func mine() error {
	node, err := btcd.New(btcd.Config{
		Address: settings.Address, Credentials: filepath.Join(settings.Runtime, "btcd.credentials"),
		Certificate: settings.Settings{Program: settings.Btcd}.Certificate(), Network: basev1.Network_NETWORK_REGTEST})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), stage.Patience)
	defer cancel()
	return node.Generate(ctx, maturity)
}

// withNode waits until a stage serves wallets.
func withNode(t *testing.T, s *stage.Stage) *base {
	t.Helper()
	b := &base{Stage: s, t: t, middleware: helperclient.Client{Port: userPort{s, firewall.MiddlewareUser}}}
	b.ready()
	s.WaitActive(generation.WalletUnit)
	return b
}

// Debian's Electrum holds the key of the node's rewards: it is paid, sees it, spends, and stays
// connected through a restart of the server, by both kinds of port.
func TestAWalletUsesTheBasesOwnNode(t *testing.T) {
	t.Parallel()
	s := stage.Boot(t, stage.Config{Real: true, OwnElectrum: true, Prepare: installForWallets})
	b := withNode(t, s)
	desk := b.Attacker(2)
	owner := b.app(desk, "laptop", "owner")
	b.apply(owner, "expose Electrum on its own port", client.Expose(string(posture.KindElectrum), client.Opening{For: time.Hour}))
	// The server itself tells that it is ready; another user reads that, and the owner's App shows it.
	session := b.open(owner.app)
	b.Until("the owner sees that the server is ready", func() error {
		ctx, cancel := context.WithTimeout(context.Background(), callTime)
		defer cancel()
		told, err := session.Node.GetNode(ctx, &basev1.GetNodeRequest{})
		if err == nil && !told.GetNode().GetWalletServer().GetReady() {
			err = fmt.Errorf("it says %v", told.GetNode())
		}
		return err
	})
	w := &electrumWallet{guest: b.Guest(desk, "electrum")}
	if out, err := w.run("--offline", "restore", rewardKey); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	w.start(t, b.electrumPort())
	b.Until("the wallet is connected", w.connected)
	if out, err := w.run("load_wallet"); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	amount := func(field string) float64 {
		out, err := w.run("getbalance")
		var balance map[string]string
		if err != nil || json.Unmarshal([]byte(out), &balance) != nil {
			return 0
		}
		n, err := strconv.ParseFloat(balance[field], 64)
		if err != nil {
			return 0
		}
		return n
	}
	until := func(what string, so func() bool) {
		t.Helper()
		b.Until(what, func() error {
			if out, err := w.run("getbalance"); !so() {
				return fmt.Errorf("it says %s, %v", out, err)
			}
			return nil
		})
	}
	until("the wallet sees what it was paid", func() bool { return amount("unmatured") > 0 })
	b.MustExec("/usr/bin/e2e-relay", "mine")
	until("the wallet has coins to spend", func() bool { return amount("confirmed") > 0 })
	out, err := w.run("payto", "--fee", "0.0001", "bcrt1qrp33g0q5c5txsp9arysrx4k6zdkfs4nce4xj0gdcccefvpysxf3qzf4jry", "1")
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	id, err := w.run("broadcast", strings.TrimSpace(out))
	id = strings.TrimSpace(id)
	if err != nil || len(id) != 64 {
		t.Fatalf("%v: %s", err, id)
	}
	confirmed := func() error {
		out, err := w.run("get_tx_status", id)
		var status struct{ Confirmations int }
		if err != nil || json.Unmarshal([]byte(out), &status) != nil || status.Confirmations < 1 {
			return fmt.Errorf("%s, %v", out, err)
		}
		return nil
	}
	b.Until("the payment is in a block", confirmed)

	s.MustExec("systemctl", "kill", "--signal=KILL", generation.WalletUnit)
	b.Until("the server is back", func() error {
		_, err := s.Exec("test", "-S", generation.WalletSocket)
		return err
	})
	b.Until("the wallet is connected again", w.connected)
	w.stop()
	b.apply(owner, "expose Electrum on the shared port",
		client.Expose(string(posture.KindElectrum), client.Opening{For: time.Hour, ShareEntry: true}))
	w.start(t, b.entry())
	b.Until("the wallet is connected by the shared port", w.connected)
	if out, err := w.run("load_wallet"); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	b.Until("it still sees its payment", confirmed)
}
