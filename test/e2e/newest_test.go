//go:build linux

package e2e_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/client"
	"github.com/BitBoxSwiss/bitbox-base/internal/app/walletcheck"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/generation"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/posture"
	"github.com/BitBoxSwiss/bitbox-base/internal/testbed/nodetest"
	"github.com/BitBoxSwiss/bitbox-base/test/stage"
)

// newestWallet is Electrum 4.8, driven by testdata/wallet48.py.
type newestWallet struct {
	write io.Writer
	read  *bufio.Reader
	end   func() // of its program
}

// newest starts it on an attacker's machine, with the key of the rewards on a network.
func (b *base) newest(desk *stage.Attacker, server netip.AddrPort, network, key string) *newestWallet {
	b.t.Helper()
	root, err := nodetest.ElectrumRoot()
	if err != nil {
		b.t.Fatal(err)
	}
	guest := b.GuestOf(desk, root)
	program, err := os.ReadFile("testdata/wallet48.py")
	b.must(err)
	in := func(name string) string { return filepath.Join(guest.Root(), name) }
	// The packages are only unpacked: folders, and the authorities that Electrum asks first, are missing.
	for _, folder := range []string{"proc", "tmp", "root", "etc/ssl/certs"} {
		b.must(os.MkdirAll(in(folder), 0o700))
	}
	authorities, err := filepath.Glob(in("usr/share/ca-certificates/mozilla/*.crt"))
	b.must(err)
	var bundle []byte
	for _, path := range authorities {
		one, err := os.ReadFile(path)
		b.must(err)
		bundle = append(bundle, one...)
	}
	b.must(os.WriteFile(in("etc/ssl/certs/ca-certificates.crt"), bundle, 0o644))
	b.must(os.WriteFile(in("root/wallet48.py"), program, 0o644))
	program48 := nodetest.ElectrumCommand("/root/wallet48.py", "/root/newest", server.String()+":s", network, key)
	command := guest.Command(context.Background(), program48...)
	command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	w := &newestWallet{}
	input, err := command.StdinPipe()
	b.must(err)
	output, err := command.StdoutPipe()
	b.must(err)
	b.must(command.Start())
	w.end = sync.OnceFunc(func() {
		_ = input.Close()
		_ = command.Process.Kill()
		_ = command.Wait()
	})
	b.t.Cleanup(w.end)
	w.write, w.read = input, bufio.NewReader(output)
	return w
}

func (b *base) must(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

// ask has it do something.
func (w *newestWallet) ask(into any, command ...string) error {
	text, err := json.Marshal(command)
	if err != nil {
		return err
	}
	// An Electrum that hangs is ended, and what reads its answer reads its end.
	defer time.AfterFunc(stage.Patience, w.end).Stop()
	if _, err := w.write.Write(append(text, '\n')); err != nil {
		return err
	}
	line, err := w.read.ReadBytes('\n')
	if err != nil {
		return err
	}
	answer := struct {
		Result json.RawMessage
		Error  string
	}{}
	if err := json.Unmarshal(line, &answer); err != nil {
		return err
	}
	if answer.Error != "" {
		return errors.New(answer.Error)
	}
	return json.Unmarshal(answer.Result, into)
}

func (w *newestWallet) connected() error {
	var info struct{ Connected bool }
	if err := w.ask(&info, "getinfo"); err != nil || !info.Connected {
		return fmt.Errorf("connected: %v; error: %v", info.Connected, err)
	}
	return nil
}

func (w *newestWallet) cut() error {
	if err := w.connected(); err == nil {
		return errors.New("it is connected")
	}
	return nil
}

// pays sends a coin, and returns how to ask whether a block has it.
func (b *base) pays(w *newestWallet) (confirmed func() error) {
	b.t.Helper()
	var raw, id string
	b.Until("Electrum 4.8 can pay", func() error {
		return w.ask(&raw, "pay", "bcrt1qrp33g0q5c5txsp9arysrx4k6zdkfs4nce4xj0gdcccefvpysxf3qzf4jry", "1")
	})
	b.must(w.ask(&id, "broadcast", raw))
	return func() error {
		var status struct{ Confirmations int }
		if err := w.ask(&status, "get_tx_status", id); err != nil || status.Confirmations < 1 {
			return fmt.Errorf("%s: %+v, %w", id, status, err)
		}
		return nil
	}
}

// The API is open for good. Debian's newest Electrum negotiates version 1.6, is paid and pays; the
// owner's App finds the connection in order, and sees who is connected. It is cut when the owner
// closes, is back when the owner opens, and is back after a reboot, without a new certificate. Its
// computer is never banned.
func TestTheNewestElectrumStaysConnectedForGood(t *testing.T) {
	t.Parallel()
	s := stage.Boot(t, stage.Config{Real: true, OwnElectrum: true, Prepare: installForWallets})
	b := withNode(t, s)
	desk := b.Attacker(2)
	owner := b.app(desk, "laptop", "owner")
	open := client.Expose(string(posture.KindElectrum), client.Opening{UntilClosed: true})
	b.apply(owner, "expose Electrum for good", open)
	check := func() (walletcheck.Server, error) { return b.checkWallet(owner, desk) }
	var first walletcheck.Server
	b.Until("a wallet could use it", func() (err error) {
		first, err = check()
		return err
	})
	if first.Network() != basev1.Network_NETWORK_REGTEST || !strings.HasPrefix(first.Software, "bitbox-node") || first.Protocol != "1.4" {
		t.Errorf("%+v", first)
	}
	w := b.newest(desk, b.electrumPort(), "regtest", rewardKey)
	b.Until("it is connected", w.connected)
	var protocol []int
	if err := w.ask(&protocol, "protocol"); err != nil || len(protocol) != 2 || protocol[0] != 1 || protocol[1] != 6 {
		t.Errorf("%v, %v", protocol, err)
	}
	b.Until("the owner sees it", func() error {
		told, err := b.open(owner.app).Wallet.GetWallets(t.Context(), &basev1.GetWalletsRequest{Kind: string(posture.KindElectrum)})
		if err == nil && (!told.GetAnswers() || len(told.GetWallets()) != 1 || told.GetWallets()[0].GetAddress() != desk.V4.String()) {
			err = fmt.Errorf("it says %v", told)
		}
		return err
	})
	b.Until("it sees what it was paid", func() error { return w.has("unmatured") })
	b.MustExec("/usr/bin/e2e-relay", "mine")
	b.Until("it has coins to spend", func() error { return w.has("confirmed") })
	b.Until("a block has its payment", b.pays(w))

	b.endLease(owner, posture.KindElectrum)
	b.Until("it is cut", w.cut)
	if _, err := check(); err == nil {
		t.Error("a closed API is in order")
	}
	b.apply(owner, "expose Electrum for good again", open)
	b.Until("it is back", w.connected)

	s.Reboot()
	b.Until("a wallet could use it after a reboot", func() error {
		again, err := check()
		if err == nil && again != first {
			err = fmt.Errorf("it says %+v", again)
		}
		return err
	})
	b.Until("it is back after a reboot", w.connected)
	if all, err := b.banned(owner); err != nil || len(all) > 0 {
		t.Errorf("banned: %q, %v", all, err)
	}
}

// checkWallet is what 'wallet check' does, from an attacker's machine.
func (b *base) checkWallet(owner *app, desk *stage.Attacker) (server walletcheck.Server, err error) {
	view, err := b.open(owner.app).Posture(b.t.Context())
	if err != nil {
		return server, err
	}
	digest, known := view.Identities().Certificates[posture.KindElectrum]
	if !known {
		return server, errors.New("the Base has signed no certificate")
	}
	dial := func(context.Context, string, string) (net.Conn, error) { return desk.Dial("tcp", b.electrumPort()) }
	return walletcheck.Check(b.t.Context(), dial, b.electrumPort().String(), digest)
}

// A builder has named a server at 127.0.0.1:50001; ours plays it, without PROXY lines. Wallets reach it,
// the Base's own does not run, and what only that tells is not offered.
func TestABuildersOwnServerTakesThePlaceOfTheBases(t *testing.T) {
	t.Parallel()
	b := bootAppliance(t)
	n := nodetest.StartBtcd(t, "regtest")
	n.Generate(3)
	n.ServeWalletsAt(func() (net.Listener, error) { return b.Listen("tcp", "127.0.0.1:50001") })
	desk := b.Attacker(2)
	owner := b.app(desk, "laptop", "owner")
	b.apply(owner, "expose Electrum", client.Expose(string(posture.KindElectrum), client.Opening{For: time.Hour}))
	b.Until("a wallet could use it", func() error {
		server, err := b.checkWallet(owner, desk)
		if err == nil && server.Network() != basev1.Network_NETWORK_REGTEST {
			err = fmt.Errorf("it says %+v", server)
		}
		return err
	})
	session := b.open(owner.app)
	found, err := session.Node.GetTransaction(t.Context(), &basev1.GetTransactionRequest{Id: make([]byte, 32)})
	if err != nil || found.GetState() != basev1.GetTransactionResponse_STATE_NOT_OFFERED || found.GetReason() == "" {
		t.Errorf("%v, %v", found, err)
	}
	if state := b.State(generation.WalletUnit); state == "active" {
		t.Error("the Base's own server runs beside it")
	}
	shown, err := session.Node.GetNode(t.Context(), &basev1.GetNodeRequest{})
	if err != nil || shown.GetNode().GetWalletServer() != nil {
		t.Errorf("%v, %v", shown, err)
	}
}

// has fails unless the wallet has coins of a kind.
func (w *newestWallet) has(kind string) error {
	var balance map[string]string
	if err := w.ask(&balance, "getbalance"); err != nil {
		return err
	}
	if balance[kind] == "0" || balance[kind] == "" {
		return fmt.Errorf("it has %v", balance)
	}
	return nil
}
