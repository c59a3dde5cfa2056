//go:build linux

package stage_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/BitBoxSwiss/bitbox-base/internal/helper/firewall"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/generation"
	"github.com/BitBoxSwiss/bitbox-base/test/stage"
)

// Of the machine the watcher reaches the node's port, and the node reaches nothing. What either
// could write to, and which sockets take it, testdata/reach.txt has.
func TestATakenOverNodeReachesNothingOnTheMachine(t *testing.T) {
	t.Parallel()
	s := bootToReach(t)
	for _, address := range []string{"127.0.0.1:8332", "127.0.0.1:8333", "127.0.0.1:50001", "127.0.0.2:8332", "[::1]:8332"} {
		listener, err := s.Listen("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		serve(t, listener, "hello\n")
	}
	reached := func(name, unit string) (lines []string) {
		for _, line := range runProbe(t, s, name, probe(services(t)[unit], unchanged)) {
			if strings.HasPrefix(line, "tcp ") || strings.HasPrefix(line, "names ") {
				lines = append(lines, line)
			}
		}
		return lines
	}
	for unit, want := range map[string][]string{generation.ChainUnit: nil, generation.WatcherUnit: {"tcp 127.0.0.1 8332"},
		generation.WalletUnit: {"tcp 127.0.0.1 8332", "tcp 127.0.0.1 8333"}} {
		if got := reached("probe-guest-"+unit, unit); !slices.Equal(got, want) {
			t.Errorf("%s reaches %q, and not %q", unit, got, want)
		}
	}
	// Without what keeps them from there, they reach the rest. The watcher's unit allows the one
	// address as well, where the kernel can filter by control group.
	withoutNodesRules(t, s)
	for unit, want := range map[string]string{generation.ChainUnit: "tcp ::1 8332", generation.WatcherUnit: "tcp 127.0.0.1 50001",
		generation.WalletUnit: "tcp 127.0.0.1 50001"} {
		if got := reached("probe-bare-"+unit, unit); !slices.Contains(got, want) {
			t.Errorf("without rules of its own %s reaches %q, and not %q: this test shows nothing", unit, got, want)
		}
	}
}

// withoutNodesRules removes what the packet filter has for the node's users.
func withoutNodesRules(t *testing.T, s *stage.Stage) {
	t.Helper()
	for _, program := range []string{"iptables", "ip6tables"} {
		for _, user := range []string{firewall.ChainUser, firewall.WatcherUser, firewall.WalletUser} {
			uid := strings.TrimSpace(s.MustExec("id", "-u", user))
			for line := range strings.Lines(s.MustExec(program, "-S", "OUTPUT")) {
				if strings.Contains(line, "-o lo ") && strings.Contains(line, "--uid-owner "+uid+" ") && strings.Contains(line, "-j REJECT") {
					s.MustExec(append([]string{program, "-D"}, strings.Fields(strings.TrimPrefix(strings.TrimSpace(line), "-A "))...)...)
				}
			}
		}
	}
}
