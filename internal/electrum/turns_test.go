package electrum

import (
	"context"
	"net/netip"
	"testing"
)

// The attack: sessions of three addresses take all turns that they get, and keep them. Another address
// gets one.
func TestThreeAddressesDoNotTakeAllTurns(t *testing.T) {
	wallet := netip.MustParsePrefix("192.0.2.7/32")
	attack := func(turns *turns, of func(session int) netip.Prefix) (served bool) {
		ctx, cancel := context.WithCancel(t.Context())
		const attackers = 48
		left := make(chan struct{})
		got := make(chan func(), attackers)
		for n := range attackers {
			go func() {
				defer func() { left <- struct{}{} }()
				if done, ok := turns.take(ctx, of(n)); ok {
					got <- done
				}
			}()
		}
		held := min(cap(turns.firsts), 3) + cap(turns.seconds)
		for range held {
			<-left
		}
		if len(turns.firsts) < cap(turns.firsts) { // or it would wait for ever
			done, ok := turns.take(t.Context(), wallet)
			served = ok
			done()
		}
		cancel()
		for range attackers - held {
			<-left
		}
		close(got)
		for done := range got {
			done()
		}
		if len(turns.firsts)+len(turns.seconds) != 0 || len(turns.queues) != 0 {
			t.Errorf("%d, %d turns and %d queues are left", len(turns.firsts), len(turns.seconds), len(turns.queues))
		}
		return served
	}
	three := func(n int) netip.Prefix {
		return netip.PrefixFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(60 + n%3)}), 32)
	}
	if !attack(newTurns(maxFirstReads, maxSecondReads), three) {
		t.Error("another address waits")
	}
	each := func(n int) netip.Prefix {
		return netip.PrefixFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(60 + n)}), 32)
	}
	if attack(newTurns(3, 0), each) {
		t.Error("the broken variant withstands the attack, so this test shows nothing")
	}
}
