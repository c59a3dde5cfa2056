package bans

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/BitBoxSwiss/bitbox-base/internal/helper/bruteforce"
)

func manyBans(n int) []bruteforce.Ban {
	var bans []bruteforce.Ban
	for i := range n {
		addr := [16]byte{0x20, 0x01, 0x0d, 0xb8, byte(i >> 16), byte(i >> 8), byte(i)}
		bans = append(bans, bruteforce.Ban{Jail: bruteforce.JailHandshake, Addr: netip.AddrFrom16(addr)})
	}
	return bans
}

// The attack: a stranger with many IPv6 networks gets all of them banned. The helper compares the
// bans with the previous ones every half minute, and an owner's lockdown waits meanwhile.
func TestThousandsOfBansAreComparedInNoTime(t *testing.T) {
	// fastest is the shortest time of each number: others take the processor on a busy machine.
	fastest := map[int]time.Duration{500: time.Hour, 15_000: time.Hour}
	compare := func(n int) {
		before := manyBans(n)
		now := slices.Clone(before)
		slices.Reverse(now)
		began := time.Now()
		if fresh := without(now, before); len(fresh) != 0 {
			t.Fatalf("%d are new", len(fresh))
		}
		fastest[n] = min(fastest[n], time.Since(began))
	}
	// Thirty times as many take thirty times as long, and not a thousand times.
	tooSlow := func() bool { return fastest[15_000] > 200*fastest[500] }
	for tries := 0; tries < 5 || tries < 100 && tooSlow(); tries++ {
		compare(500)
		compare(15_000)
	}
	if tooSlow() {
		t.Errorf("500 take %v, and 15000 %v", fastest[500], fastest[15_000])
	}
	a := manyBans(3)
	a[1].Jail = bruteforce.JailSSH
	if fresh := without(a, manyBans(2)); !slices.Equal(fresh, a[1:]) {
		t.Errorf("%v", fresh)
	}
}
