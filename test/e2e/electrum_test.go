//go:build linux

package e2e_test

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/BitBoxSwiss/bitbox-base/client"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/bruteforce"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/generation"
	"github.com/BitBoxSwiss/bitbox-base/internal/middleware/admission"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/posture"
	"github.com/BitBoxSwiss/bitbox-base/test/stage"
)

// genesis is the header of the first block of Bitcoin's regtest chain (chainparams.cpp
// of Bitcoin Core), with which an Electrum server has something to tell.
const genesis = "0100000000000000000000000000000000000000000000000000000000000000000000003ba3edfd7a7b12b27ac72c3e67768f617fc81bc3888a51323a9fb8aa4b1e5e4adae5494dffff7f2002000000"

// electrumServer is where electrs would be: the Electrum protocol with a chain of one
// block. It answers all other requests with an error.
func (b *base) electrumServer() {
	b.t.Helper()
	answers := map[string]any{
		"server.version":          []string{"stage", "1.4"},
		"server.ping":             nil,
		"server.banner":           "",
		"server.donation_address": "",
		"server.peers.subscribe":  []any{},
		"server.features": map[string]any{"hosts": map[string]any{}, "protocol_min": "1.4", "protocol_max": "1.4",
			"hash_function": "sha256", "server_version": "stage"},
		"blockchain.headers.subscribe":    map[string]any{"hex": genesis, "height": 0},
		"blockchain.block.header":         genesis,
		"blockchain.block.headers":        map[string]any{"count": 1, "hex": genesis, "max": 2016},
		"blockchain.estimatefee":          0.0001,
		"blockchain.relayfee":             0.00001,
		"mempool.get_fee_histogram":       []any{},
		"blockchain.scripthash.subscribe": nil,
	}
	listener, err := b.Listen("tcp", "127.0.0.1:50001")
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { _ = listener.Close() })
	serve := func(conn net.Conn) {
		defer conn.Close()
		for lines := bufio.NewScanner(conn); lines.Scan(); {
			var request struct {
				ID     json.RawMessage `json:"id"`
				Method string          `json:"method"`
			}
			if json.Unmarshal(lines.Bytes(), &request) != nil {
				return
			}
			reply := map[string]any{"jsonrpc": "2.0", "id": request.ID}
			if result, known := answers[request.Method]; known {
				reply["result"] = result
			} else {
				reply["error"] = map[string]any{"code": -32601, "message": "unknown method " + request.Method}
			}
			text, err := json.Marshal(reply)
			if err == nil {
				_, err = conn.Write(append(text, '\n'))
			}
			if err != nil {
				return
			}
		}
	}
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go serve(conn)
		}
	}()
}

// electrumWallet is Debian's Electrum without a screen.
type electrumWallet struct {
	guest   *stage.Guest
	network string // "": regtest
	daemon  *exec.Cmd
}

// command is Electrum with these arguments. Its commands and its daemon know a password for each other:
// without one, each of both makes one when it begins, and only that of the later counts.
func (w *electrumWallet) command(argv ...string) []string {
	return append([]string{"electrum", "--" + cmp.Or(w.network, "regtest"), "--dir=/root/wallet",
		"--rpcuser=user", "--rpcpassword=of the test"}, argv...)
}

func (w *electrumWallet) run(argv ...string) (string, error) {
	return w.guest.Exec(w.command(argv...)...)
}

// start has it connect to one server, by TLS, and to no other.
func (w *electrumWallet) start(t *testing.T, server netip.AddrPort) {
	t.Helper()
	for _, setting := range [][]string{{"server", server.String() + ":s"}, {"oneserver", "true"}, {"auto_connect", "false"}} {
		if out, err := w.run(append([]string{"--offline", "setconfig"}, setting...)...); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	w.daemon = w.guest.Command(context.Background(), w.command("daemon")...)
	w.daemon.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := w.daemon.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.stop)
}

func (w *electrumWallet) stop() {
	if w.daemon == nil {
		return
	}
	// A killed one leaves a lock behind, which the next would respect.
	_, _ = w.run("stop")
	_ = w.daemon.Process.Kill()
	_ = w.daemon.Wait()
	w.daemon = nil
}

// connected asks it. The commands speak to the daemon by its file, which is in the guest,
// and by loopback, which is the attacker's.
func (w *electrumWallet) connected() error {
	out, err := w.run("getinfo")
	if err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	var info struct {
		Connected bool `json:"connected"`
	}
	if err := json.Unmarshal([]byte(out), &info); err != nil || !info.Connected {
		return fmt.Errorf("it says %s", out)
	}
	return nil
}

// refusals counts the refusals of an address for a reason.
func (b *base) refusals(from netip.Addr, reason admission.Reason) int {
	return strings.Count(b.Journal(generation.MiddlewareUnit), fmt.Sprintf("addr=%s reason=%s", from, reason))
}

// The owner closes Electrum's endpoint and leaves the wallet running. It goes on trying by
// TLS, for days, from the computer that the owner's App runs on.
func TestTheOwnersWalletDoesNotShutTheOwnerOut(t *testing.T) {
	t.Parallel()
	b := bootAppliance(t)
	b.electrumServer()
	desk := b.Attacker(2) // the owner's computer
	owner := b.app(desk, "laptop", "owner")
	wallet := &electrumWallet{guest: b.Guest(desk, "electrum")}

	own := b.electrumPort()
	tries := int(posture.Factory().Bans.MaxTries) + 1
	for _, way := range []struct {
		name   string
		port   netip.AddrPort
		shared bool
	}{{"its own port", own, false}, {"the shared port", b.entry(), true}} {
		b.apply(owner, "expose Electrum on "+way.name,
			client.Expose(string(posture.KindElectrum), client.Opening{For: time.Hour, ShareEntry: way.shared}))
		wallet.start(t, way.port)
		b.Until("the wallet is connected by "+way.name, wallet.connected)
		b.endLease(owner, posture.KindElectrum)
		b.Until("the wallet has lost "+way.name, func() error {
			if err := wallet.connected(); err == nil {
				return fmt.Errorf("it is connected")
			}
			return nil
		})
		if !way.shared {
			// The wallet tries at its closed port too, as often as it would take for a ban.
			for range tries {
				if err := reaches(desk, own); err == nil {
					t.Error("the closed port of the API answers")
				}
			}
			if all, err := b.banned(owner); err != nil || len(all) > 0 {
				t.Errorf("after tries at the closed port banned are %q, %v", all, err)
			}
			b.works(b.open(owner.app), "a new connection after tries at the closed port")
			wallet.stop()
		}
	}
	// The wallet tries at the entry, more often than it would take for a ban.
	for try := 1; try <= tries; try++ { // one every ten seconds
		b.Until(fmt.Sprintf("the wallet has tried %d times", try), func() error {
			if n := b.refusals(desk.V4, admission.OtherProtocol); n < try {
				return fmt.Errorf("%d times", n)
			}
			return nil
		})
	}
	// An old App of the same owner, from before a factory reset, is there too.
	b.Until(fmt.Sprintf("the Base has heard the old App %d times", tries), func() error {
		if err := b.garbage(desk); err != nil {
			return fmt.Errorf("the owner's computer does not reach the Base: %w", err)
		}
		if n := b.refusals(desk.V4, admission.MalformedFrame); n < tries {
			return fmt.Errorf("%d times", n)
		}
		return nil
	})
	// A stranger who does the same is banned: fail2ban is awake.
	stranger := b.Attacker(3)
	b.Until("a stranger is banned for it", func() error {
		for range tries {
			_ = b.garbage(stranger)
		}
		if all, err := b.banned(owner); err != nil || !slices.Contains(all, bruteforce.JailHandshake+" "+stranger.V4.String()) {
			return fmt.Errorf("banned: %q, %v", all, err)
		}
		return nil
	})
	if all, err := b.banned(owner); err != nil || len(all) != 1 {
		t.Errorf("banned: %q, %v; want the stranger alone", all, err)
	}
	b.mustReach("the owner's computer", desk, b.entry())
	b.works(b.open(owner.app), "a new connection")
}
