//go:build linux

package main

import (
	"bytes"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/BitBoxSwiss/bitbox-base/client"
	"github.com/BitBoxSwiss/bitbox-base/internal/app/terminal"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/generation"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/wallets"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/posture"
	"github.com/BitBoxSwiss/bitbox-base/internal/testbed/machinetest"
)

// listenForWallets has a server listen behind the API for wallets, with some wallets connected.
func listenForWallets(m *machinetest.Machine, peers ...netip.AddrPort) {
	upstream, _ := generation.UpstreamOf(posture.KindElectrum, generation.ThisMachine())
	m.Listening(upstream)
	var all []wallets.Connection
	for n, peer := range peers {
		all = append(all, wallets.Connection{Cookie: uint64(n + 1), Peer: peer})
	}
	m.Connected(all...)
}

// A habitual yes opens nothing to strangers: a public network is a question of its own.
func TestAPublicNetworkNeedsASecondYes(t *testing.T) {
	later := time.Now().Add(time.Hour)
	for typed, want := range map[string]bool{"y y": true, "y n": false, "n y": false, "y": false} {
		var screen bytes.Buffer
		lines := make(chan line, 2)
		for _, text := range strings.Fields(typed) {
			lines <- line{text, later}
		}
		close(lines)
		p := &program{out: &terminal.Output{To: &screen}, terminal: true}
		asking := &consent{program: p, lines: lines, sent: "sent"}
		network := netip.MustParsePrefix("203.0.113.0/24")
		var err error
		if asking.again, err = (&openingFlags{}).publicQuestion(client.Opening{From: []netip.Prefix{network}}, asking); err != nil {
			t.Fatal(err)
		}
		yes, _ := asking.approve(t.Context())([]client.PostureChange{{Text: "It will be open.", Opens: true}})
		if yes != want || (p.left == asking.sent) != want {
			t.Errorf("%q: %v, %q is left", typed, yes, p.left)
		}
		if typed[0] == 'y' && !strings.Contains(screen.String(), "Computers of strangers will reach it: 203.0.113.0/24 is public.") {
			t.Errorf("%q: the second question is missing: %s", typed, &screen)
		}
	}
	// A private network is no second question, and neither is one that the user has named public.
	for name, flags := range map[string]*openingFlags{"10.0.0.0/8": {}, "203.0.113.0/24": {public: true}} {
		how := client.Opening{From: []netip.Prefix{netip.MustParsePrefix(name)}}
		if again, err := flags.publicQuestion(how, &consent{program: &program{}}); again != "" || err != nil {
			t.Errorf("%s: %q, %v", name, again, err)
		}
	}
}
