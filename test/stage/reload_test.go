//go:build linux

package stage_test

import (
	"errors"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/BitBoxSwiss/bitbox-base/internal/helper/generation"
	"github.com/BitBoxSwiss/bitbox-base/test/stage"
)

// A stranger who sends without a pause gets nothing through while the rules are
// replaced, which happens with every change of the posture.
func TestReloadingThePacketFilterLetsNothingThrough(t *testing.T) {
	s := stage.Boot(t, stage.Config{})
	s.WaitActive(generation.FirewallUnit)
	for name, c := range map[string]struct {
		to      netip.Addr
		rules   string
		restore string
	}{
		"IPv4": {s.V4, generation.IPv4Rules, "iptables-restore"},
		"IPv6": {s.V6, generation.IPv6Rules, "ip6tables-restore"},
	} {
		t.Run(name, func(t *testing.T) {
			closed := s.MustExec("cat", generation.Current(c.rules))
			through := flood(t, s, netip.AddrPortFrom(c.to, 9999))
			reload := func(rules string) {
				t.Helper()
				if out, err := s.ExecInput(rules, c.restore, "-w", "5"); err != nil {
					t.Fatalf("%v\n%s", err, out)
				}
			}
			for range 100 {
				reload(closed)
			}
			if n := through.Load(); n != 0 {
				t.Errorf("%d packets got through to a closed port", n)
			}
			// The chain's policy alone is not enough.
			open := strings.ReplaceAll(closed, "-A INPUT -j DROP\n", "")
			reloads := 0
			stage.Until(t, "a packet got through rules without a last one, or the test shows nothing", func() error {
				for range 20 {
					reloads++
					if reload(open); through.Load() != 0 {
						return nil
					}
				}
				return errors.New("nothing did")
			})
			t.Logf("without a last rule something got through after %d reloads", reloads)
			reload(closed)
		})
	}
}

// flood has a stranger send to a port until the test ends, and counts what arrives.
func flood(t *testing.T, s *stage.Stage, to netip.AddrPort) *atomic.Int64 {
	t.Helper()
	socket, err := s.ListenPacket("udp", to.String())
	if err != nil {
		t.Fatal(err)
	}
	arrived, over := &atomic.Int64{}, make(chan struct{})
	var all sync.WaitGroup
	all.Go(func() {
		for packet := make([]byte, 16); ; arrived.Add(1) {
			if _, _, err := socket.ReadFrom(packet); err != nil {
				return
			}
		}
	})
	conn, err := s.Attacker(1).Dial("udp", to)
	if err != nil {
		t.Fatal(err)
	}
	all.Go(func() {
		for {
			select {
			case <-over:
				return
			default:
				_, _ = conn.Write([]byte("knock")) // refused or not, it goes on
			}
		}
	})
	t.Cleanup(func() {
		close(over)
		_ = conn.Close()
		_ = socket.Close()
		all.Wait()
	})
	return arrived
}
