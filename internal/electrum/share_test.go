package electrum

import (
	"net/netip"
	"testing"

	"github.com/BitBoxSwiss/bitbox-base/internal/electrum/chain"
	"github.com/BitBoxSwiss/bitbox-base/internal/electrum/history"
	"github.com/BitBoxSwiss/bitbox-base/internal/electrum/session"
)

// The attack: one address follows scripts with long histories, by many sessions, and keeps them.
// Another address still follows the same script and one of its own.
func TestOneAddressDoesNotFollowAllThatMayBeFollowed(t *testing.T) {
	connect := func(from string) *session.Session {
		return &session.Session{From: netip.MustParseAddr(from), State: &wallet{scripts: map[chain.Hash]bool{}}}
	}
	long := func() *history.History {
		return &history.History{Entries: make([]history.Entry, MaxHistory), Coins: make([]history.Coin, MaxHistory)}
	}
	follow := func(s *Server, c *session.Session, n byte) bool {
		_, ok, err := s.enter(c, c.State.(*wallet), nil, chain.Hash{n}, long())
		return ok && err == nil
	}
	attack := func(s *Server) (served bool) {
		const each = 2*MaxHistory + 1
		var hostile []*session.Session
		taken := 0
		for n := range byte(2 * maxWeight / each) {
			c := connect("192.0.2.66")
			hostile = append(hostile, c)
			if follow(s, c, n) {
				taken++
			}
		}
		if taken != s.share/each {
			t.Errorf("%d scripts are followed", taken)
		}
		// A session that follows what another follows already counts as well.
		if again := connect("192.0.2.66"); follow(s, again, 0) {
			t.Error("a script is followed for nothing")
		}
		honest := connect("192.0.2.7")
		served = follow(s, honest, 255) && follow(s, honest, 0) && follow(s, honest, 0)
		for _, c := range hostile {
			s.Closed(c)
		}
		if back := connect("192.0.2.66"); !follow(s, back, 1) {
			t.Error("what the sessions followed is not given back")
		} else {
			s.Closed(back)
		}
		if s.Closed(honest); s.weight != 0 || len(s.shares) != 0 || len(s.scripts) != 0 {
			t.Errorf("left: %d, %v, %d scripts", s.weight, s.shares, len(s.scripts))
		}
		return served
	}
	if !attack(newServer(Config{})) {
		t.Error("another address is refused")
	}
	broken := newServer(Config{})
	broken.share = maxWeight
	if attack(broken) {
		t.Error("the broken variant withstands the attack, so this test shows nothing")
	}
}

// The attack: five addresses fill the server. Another address finds room once the one that follows most
// has lost its sessions; one that would follow more than that takes nothing from anybody.
func TestWhoeverFillsTheServerLosesItToTheNext(t *testing.T) {
	connect := func(host byte) *session.Session {
		return &session.Session{From: netip.AddrFrom4([4]byte{192, 0, 2, host}), State: &wallet{scripts: map[chain.Hash]bool{}}}
	}
	follow := func(s *Server, c *session.Session, n int, length int) bool {
		h := &history.History{Entries: make([]history.Entry, length)}
		_, ok, err := s.enter(c, c.State.(*wallet), nil, chain.Hash{byte(n), byte(n >> 8)}, h)
		return ok && err == nil
	}
	s := newServer(Config{})
	last := 0
	for host := range byte(5) {
		c := connect(host)
		for follow(s, c, last, MaxHistory-1) {
			last++
		}
	}
	if s.weight != maxWeight {
		t.Fatalf("they follow %d", s.weight)
	}
	honest := connect(99)
	if follow(s, honest, 9999, 100) {
		t.Fatal("there was room")
	}
	lose := s.greediest(101)
	if len(lose) != 1 || s.shares[lose[0].Subscriber()] != maxShare {
		t.Errorf("%d sessions end", len(lose))
	}
	if equal := s.greediest(maxShare); equal != nil {
		t.Errorf("%d sessions end for one that follows as much", len(equal))
	}
	for _, c := range lose {
		s.Closed(c)
	}
	if !follow(s, honest, 9999, 100) {
		t.Error("there is no room")
	}
}
