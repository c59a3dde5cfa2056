package admission

import (
	"bytes"
	"encoding/binary"
	"errors"
	"log/slog"
	"net/netip"
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
		got := s.enter(someAddr, now)
		if got != want {
			t.Fatalf("enter: %q, want %q", got, want)
		}
		if got == "" {
			s.leave(someAddr)
		}
	}
	for range 5 {
		enter("")
	}
	enter(TooFast)
	now = now.Add(50 * time.Millisecond)
	enter("")
	enter(TooFast)
	now = now.Add(time.Second)
	for range 5 { // not twenty: the burst is the bound
		enter("")
	}
	enter(TooFast)
	if got := s.enter(otherAddr, now); got != "" {
		t.Errorf("another address is refused as well: %s", got)
	}
}

func TestAWholeIPv6NetworkCountsAsOneAddress(t *testing.T) {
	limits := DefaultLimits()
	limits.ParkedPerAddress = 1
	s := newSources(limits)
	now := time.Now()
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
		if got := s.enter(netip.MustParseAddr(step.addr), now); got != step.want {
			t.Errorf("%s: %q, want %q", step.addr, got, step.want)
		}
	}
	s.leave(netip.MustParseAddr("2001:db8:1:1::1"))
	if got := s.enter(netip.MustParseAddr("2001:db8:1:1::9"), now); got != "" {
		t.Errorf("after one has left: %q", got)
	}
}

func TestWhatIsRememberedOfAddressesIsBounded(t *testing.T) {
	s := newSources(DefaultLimits())
	now := time.Now()
	if got := s.enter(someAddr, now); got != "" { // stays
		t.Fatal(got)
	}
	for i := range uint32(3 * maxSources) {
		var b [4]byte
		binary.BigEndian.PutUint32(b[:], 10<<24|i)
		addr := netip.AddrFrom4(b)
		if got := s.enter(addr, now); got != "" {
			t.Fatal(got)
		}
		s.leave(addr)
	}
	if len(s.known) > maxSources || s.recent.Len() != len(s.known) {
		t.Errorf("%d addresses are remembered, in a list of %d", len(s.known), s.recent.Len())
	}
	for range 4 {
		s.enter(someAddr, now)
	}
	if got := s.enter(someAddr, now); got != TooFast {
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

func TestOnlyWhatNoPairedAppDoesCountsForABan(t *testing.T) {
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
			l.refused(someAddr, TooFast, nil)
		}
		l.refused(otherAddr, WrongMAC1, errors.New("an error\nwith a line of its own"))
		if lines := strings.Count(log.String(), "\n"); lines != refusalLinesBurst+1 {
			t.Errorf("%d lines were written", lines)
		}
		if !strings.Contains(log.String(), "addr=192.0.2.2 reason=wrong_mac1") {
			t.Error("the refusal that counts is not in the log")
		}
		time.Sleep(time.Second)
		l.refused(someAddr, TooFast, nil)
		if !strings.Contains(log.String(), "suppressed=4500") {
			t.Error("the log does not say how many lines were left out")
		}
	})
}
