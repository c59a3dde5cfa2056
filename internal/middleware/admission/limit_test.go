package admission

import (
	"bytes"
	"encoding/binary"
	"errors"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

var (
	someAddr  = netip.MustParseAddr("192.0.2.1")
	otherAddr = netip.MustParseAddr("192.0.2.2")
)

func TestAnAddressMayConnectFiveTimesAtOnceAndThenTwentyTimesASecond(t *testing.T) {
	s := newSources(DefaultLimits())
	now := time.Now()
	enter := func(want Reason) {
		t.Helper()
		v := &visitor{addr: someAddr}
		if _, got := s.enter(v, now); got != want {
			t.Fatalf("enter: %q, want %q", got, want)
		}
		s.leave(v)
	}
	for range 5 {
		enter("")
	}
	enter(TooFast)
	now = now.Add(50 * time.Millisecond)
	enter("")
	enter(TooFast)
	now = now.Add(time.Second)
	for range 5 { // not twenty: the burst is the limit
		enter("")
	}
	enter(TooFast)
	if _, got := s.enter(&visitor{addr: otherAddr}, now); got != "" {
		t.Errorf("another address is refused as well: %s", got)
	}
}

func TestAWholeIPv6NetworkCountsAsOneAddress(t *testing.T) {
	limits := DefaultLimits()
	limits.ParkedPerAddress = 1
	s := newSources(limits)
	now := time.Now()
	var first *visitor
	for _, step := range []struct {
		addr string
		want Reason
	}{
		{"2001:db8:1:1::1", ""},
		{"2001:db8:1:1:ffff::2", TooMany},
		{"2001:db8:1:2::1", ""},
		{"192.0.2.1", ""},
		{"::ffff:192.0.2.1", TooMany},
		{"192.0.2.2", ""},
		{"fe80::1%eth0", ""},
		{"fe80::1%eth1", TooMany},
	} {
		v := &visitor{addr: netip.MustParseAddr(step.addr)}
		if _, got := s.enter(v, now); got != step.want {
			t.Errorf("%s: %q, want %q", step.addr, got, step.want)
		}
		if first == nil {
			first = v
		}
	}
	s.leave(first)
	if _, got := s.enter(&visitor{addr: netip.MustParseAddr("2001:db8:1:1::9")}, now); got != "" {
		t.Errorf("after one has left: %q", got)
	}
}

func TestTheMemoryOfAddressesIsBounded(t *testing.T) {
	s := newSources(DefaultLimits())
	now := time.Now()
	if _, got := s.enter(&visitor{addr: someAddr}, now); got != "" { // stays
		t.Fatal(got)
	}
	for i := range uint32(3 * maxSources) {
		var b [4]byte
		binary.BigEndian.PutUint32(b[:], 10<<24|i)
		v := &visitor{addr: netip.AddrFrom4(b)}
		if _, got := s.enter(v, now); got != "" {
			t.Fatal(got)
		}
		s.leave(v)
	}
	if len(s.known) > maxSources || s.recent.Len() != len(s.known) {
		t.Errorf("%d addresses are remembered, in a list of %d", len(s.known), s.recent.Len())
	}
	for range 4 {
		s.enter(&visitor{addr: someAddr}, now)
	}
	if _, got := s.enter(&visitor{addr: someAddr}, now); got != TooFast {
		t.Errorf("an address with a waiting connection was forgotten: %q", got)
	}
}

func TestTheLastThousandFramesAreRemembered(t *testing.T) {
	var m frameMemory
	mac1 := func(i int) (mac [16]byte) {
		binary.BigEndian.PutUint64(mac[:], uint64(i))
		return mac
	}
	for i := range frameMemorySize {
		if !m.first(mac1(i)) {
			t.Fatalf("frame %d is new", i)
		}
	}
	for i := range frameMemorySize {
		if m.first(mac1(i)) {
			t.Fatalf("frame %d came before", i)
		}
	}
	if !m.first(mac1(frameMemorySize)) || !m.first(mac1(0)) {
		t.Error("the oldest frame was to make room for a new one")
	}
	if len(m.seen) != frameMemorySize {
		t.Errorf("%d frames are remembered", len(m.seen))
	}
}

func TestASlowedAddressHasTwoPlacesForItsNewestConnections(t *testing.T) {
	limits := DefaultLimits()
	s := newSources(limits)
	now := time.Now()
	enter := func(want ...*visitor) *visitor {
		t.Helper()
		now = now.Add(time.Second)
		v := &visitor{addr: someAddr}
		displaced, reason := s.enter(v, now)
		if reason != "" || !slices.Equal(displaced, want) {
			t.Fatalf("displaced %d for reason %q, want %d", len(displaced), reason, len(want))
		}
		return v
	}
	for range limits.SlowAfter - 1 {
		s.failed(someAddr, now)
	}
	app, a, b, c := enter(), enter(), enter(), enter()
	s.vouch(app)
	s.failed(someAddr, now)
	d := enter(a, b) // the newest has a place, and one other
	e := enter(c)
	if _, reason := s.enter(&visitor{addr: otherAddr}, now); reason != "" {
		t.Errorf("another address: %s", reason)
	}
	f := enter(d)
	// With a right mac1 it is served as usual, up to the limit of all addresses.
	vouched := []*visitor{app, e, f}
	s.vouch(e)
	s.vouch(f)
	for len(vouched) < limits.ParkedPerAddress {
		v := enter()
		s.vouch(v)
		vouched = append(vouched, v)
	}
	if _, reason := s.enter(&visitor{addr: someAddr}, now); reason != TooMany {
		t.Errorf("one more: %q", reason)
	}
	// Ten minutes after the first of the five the address is like any other.
	now = now.Add(limits.SlowWindow)
	for _, v := range vouched[:limits.SlowedPlaces+1] {
		s.leave(v)
	}
	for range limits.SlowedPlaces + 1 {
		enter()
	}
}

func TestAFailureCountsAgainstTheRightAddress(t *testing.T) {
	for _, c := range []struct{ source, local, want string }{
		{"192.0.2.1", "192.0.2.9", "192.0.2.1"},
		{"::ffff:192.0.2.1", "2001:db8::9", "192.0.2.1"},
		// From beyond the link: the whole /64.
		{"2001:db8:1:1:5::7", "2001:db8:2:2::9", "2001:db8:1:1::"},
		{"2001:db8:1:1::", "2001:db8:2:2::9", "2001:db8:1:1::"},
		// Of the link, or of the site: the address alone.
		{"2001:db8:2:2::7", "2001:db8:2:2::9", "2001:db8:2:2::7"},
		{"fe80::7%eth0", "fe80::9", "fe80::7"},
		{"fd00:1:1:1::7", "fd00:1:1:1::9", "fd00:1:1:1::7"},
		{"fd00:1:1:2::7", "fd00:1:1:1::9", "fd00:1:1:2::7"},
		{"fd00:1:1:1::7", "2001:db8:2:2::9", "fd00:1:1:1::7"},
		// The attack: a neighbour sends from its global address to a local one of the Base, so
		// that the two share no prefix.
		{"2001:db8:2:2::7", "fd00:1:1:1::9", "2001:db8:2:2::7"},
		{"2001:db8:2:2::7", "fe80::9", "2001:db8:2:2::7"},
		{"2001:db8:2:2::7", "", "2001:db8:2:2::7"},
		// The attack: a neighbour takes the address that stands for the whole /64.
		{"2001:db8:2:2::", "2001:db8:2:2::9", ""},
		{"fe80::", "fe80::9", ""},
	} {
		var local, want netip.Addr
		if c.local != "" {
			local = netip.MustParseAddr(c.local)
		}
		if c.want != "" {
			want = netip.MustParseAddr(c.want)
		}
		if got := against(netip.MustParseAddr(c.source), local); got != want {
			t.Errorf("from %s to %s: against %s, want %s", c.source, c.local, got, c.want)
		}
	}
}

func TestNothingThatAPairedAppDoesCountsForABan(t *testing.T) {
	for _, reason := range Reasons() {
		if want := reason == MalformedFrame || reason == WrongMAC1; reason.CountsForBan() != want {
			t.Errorf("%s counts: %t", reason, !want)
		}
	}
}

func TestAFloodOfHarmlessRefusalsDoesNotHideOneThatCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		l := newRefusalLog(slog.New(slog.NewTextHandler(&log, nil)))
		for range 10 * refusalLinesBurst {
			l.refused(someAddr, netip.Addr{}, TooFast, nil)
		}
		l.refused(otherAddr, otherAddr, WrongMAC1, errors.New("an error\nwith a line of its own"))
		if lines := strings.Count(log.String(), "\n"); lines != refusalLinesBurst+1 {
			t.Errorf("%d lines were written", lines)
		}
		if !strings.Contains(log.String(), "addr=192.0.2.2 reason=wrong_mac1") {
			t.Error("the refusal that counts is not in the log")
		}
		time.Sleep(time.Second)
		l.refused(someAddr, netip.Addr{}, TooFast, nil)
		if !strings.Contains(log.String(), "suppressed=4500") {
			t.Error("the log does not say how many lines were left out")
		}
	})
}
