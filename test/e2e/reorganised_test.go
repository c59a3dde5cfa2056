//go:build linux

package e2e_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"slices"
	"testing"

	"github.com/BitBoxSwiss/bitbox-base/client"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/posture"
	"github.com/BitBoxSwiss/bitbox-base/internal/testbed/nodetest"
)

// simnetRewardKey is the private key 1 on simnet, whose address gets the rewards of the nodes in tests.
const simnetRewardKey = "p2wpkh:Fnz4B92xWNckSkKpJaUJcQThtT6EUr7hHBJ2xReU6rNBAbvAt4zY"

// paid is the history of an address that gets each block's reward, and nothing else: the transaction of each block.
func paid(n *nodetest.Btcd) (history []string) {
	for height := range n.Height() {
		var hash string
		n.Call(&hash, "getblockhash", height+1)
		var block struct{ Tx []string }
		n.Call(&block, "getblock", hash)
		history = append(history, fmt.Sprint(height+1, block.Tx))
	}
	return history
}

// listed is one entry of a wallet's history.
type listed struct {
	ID            string `json:"txid"`
	Height        int    `json:"height"`
	Confirmations int    `json:"confirmations"`
}

// differs compares what a wallet lists as confirmed with what the chain paid. The balance would not do: Electrum
// keeps the reward of a block that left the chain as a transaction without a block, and counts it as unmatured.
func differs(list []listed, want []string) error {
	var have []string
	for _, entry := range list {
		if entry.Height > 0 && entry.Confirmations > 0 {
			have = append(have, fmt.Sprint(entry.Height, []string{entry.ID}))
		}
	}
	if !slices.Equal(have, want) {
		return fmt.Errorf("it has %d entries, not %d; the last are %q, not %q", len(have), len(want), last(have), last(want))
	}
	return nil
}

func last(all []string) []string { return all[max(0, len(all)-2):] }

// Both of Debian's Electrums follow a simnet node through the Base: first by the API's own port, then by the
// port that it shares. The chain grows, is reorganised by one block and by a hundred, and the node restarts.
// Each time the wallets list as confirmed what the chain pays them, and nothing else.
func TestRealWalletsFollowReorganisations(t *testing.T) {
	t.Parallel()
	b := bootAppliance(t)
	n, other := nodetest.StartBtcd(t, "simnet"), nodetest.StartBtcd(t, "simnet")
	n.Generate(5)
	n.ServeWalletsAt(func() (net.Listener, error) { return b.Listen("tcp", "127.0.0.1:50001") })
	desk := b.Attacker(2)
	owner := b.app(desk, "laptop", "owner")
	for _, way := range []string{"its own port", "the shared port"} {
		t.Run(way, func(t *testing.T) {
			server, shared := b.electrumPort(), way == "the shared port"
			if shared {
				server = b.entry()
			}
			b.apply(owner, "expose Electrum on "+way,
				client.Expose(string(posture.KindElectrum), client.Opening{UntilClosed: true, ShareEntry: shared}))
			old := &electrumWallet{guest: b.Guest(desk, "electrum"), network: "simnet"}
			if out, err := old.run("--offline", "restore", simnetRewardKey); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			old.start(t, server)
			b.Until("Debian 13's Electrum is connected by "+way, old.connected)
			if out, err := old.run("load_wallet"); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			newest := b.newest(desk, server, "simnet", simnetRewardKey)
			b.Until("Electrum 4.8 is connected by "+way, newest.connected)
			follow := func(what string) {
				t.Helper()
				want := paid(n)
				b.Until("Debian 13's Electrum follows: "+what, func() error {
					out, err := old.run("onchain_history")
					var told struct{ Transactions []listed }
					if err := errors.Join(err, json.Unmarshal([]byte(out), &told)); err != nil {
						return fmt.Errorf("%w: %.200s", err, out)
					}
					return differs(told.Transactions, want)
				})
				b.Until("Electrum 4.8 follows: "+what, func() error {
					var list []listed
					if err := newest.ask(&list, "onchain_history"); err != nil {
						return err
					}
					return differs(list, want)
				})
			}
			follow("what is there")
			for _, depth := range []uint32{1, 100} {
				n.Connect(other)
				nodetest.Eventually(t, "the other node has the chain", func() bool { return other.Height() == n.Height() })
				n.Disconnect(other)
				n.Generate(depth)
				follow(fmt.Sprintf("%d blocks", depth))
				other.Generate(depth + 1)
				want := other.Height()
				n.Connect(other)
				nodetest.Eventually(t, "the chain is reorganised", func() bool { return n.Height() == want })
				follow(fmt.Sprintf("a reorganisation of %d", depth))
				n.Disconnect(other)
			}
			n.Stop()
			n.Start()
			n.Generate(1)
			follow("a restart of the node")
			old.stop()
		})
	}
	if all, err := b.banned(owner); err != nil || len(all) > 0 {
		t.Errorf("banned: %q, %v", all, err)
	}
}
