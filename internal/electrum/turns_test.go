package electrum

import (
	"context"
	"net/netip"
	"testing"
)

// The attack: sessions of one address take all turns and keep them. Another address gets one.
func TestOneAddressDoesNotTakeAllTurns(t *testing.T) {
	wallet, hostile := netip.MustParsePrefix("192.0.2.7/32"), netip.MustParsePrefix("192.0.2.66/32")
	attack := func(turns *turns) (served bool) {
		ctx, cancel := context.WithCancel(t.Context())
		const attackers = 16
		left := make(chan struct{})
		got := make(chan func(), attackers)
		for range attackers {
			go func() {
				defer func() { left <- struct{}{} }()
				if done, ok := turns.take(ctx, hostile); ok {
					got <- done
				}
			}()
		}
		held := min(turns.each, cap(turns.all))
		for range held {
			<-left
		}
		if len(turns.all) < cap(turns.all) { // or it would wait for ever
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
		if len(turns.all) != 0 || len(turns.queues) != 0 {
			t.Errorf("%d turns and %d queues are left", len(turns.all), len(turns.queues))
		}
		return served
	}
	if !attack(newTurns(maxReads, maxReadsEach)) {
		t.Error("another address waits")
	}
	if attack(newTurns(maxReads, maxReads)) {
		t.Error("the broken variant withstands the attack, so this test shows nothing")
	}
}
