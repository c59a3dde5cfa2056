package electrum

import (
	"context"
	"errors"
	"net/netip"
	"testing"
	"time"
)

// clock goes on when somebody has read a block. One that stands still makes all equal: nobody is seen to
// have used more than another.
type clock struct {
	time  time.Time
	still bool
}

func (c *clock) now() time.Time { return c.time }

// read has the turn with the place read a block of 10 ms.
func (c *clock) read(t *testing.T, turns *turns) *turn {
	t.Helper()
	for _, o := range turns.all {
		if o.has {
			if !c.still {
				c.time = c.time.Add(10 * time.Millisecond)
			}
			o.own = 0 // without end, as one read after the other would be
			<-o.place
			if err := o.pass(); err != nil {
				t.Fatal(err)
			}
			return o
		}
	}
	t.Fatal("nobody has a place")
	return nil
}

func address(n int) netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(n)}), 32)
}

func ignore(error) {}

// The attack: strangers of many addresses read without end. Another address reads ten blocks, and waits
// for the one that somebody reads just then.
func TestManyStrangersDoNotKeepAnAddressFromReading(t *testing.T) {
	const strangers, blocks = 48, 10
	attack := func(c *clock) (others int) {
		turns := newTurns(1, strangers+1, c.now)
		for n := range strangers {
			turns.enter(address(n), nil, ignore)
		}
		for range 2 * strangers * blocks {
			c.read(t, turns)
		}
		wallet := turns.enter(address(200), nil, ignore)
		for read := 0; read < blocks; {
			if c.read(t, turns) == wallet {
				read++
			} else {
				others++
			}
		}
		return others
	}
	if others := attack(&clock{}); others > 1 {
		t.Errorf("it has waited for %d blocks of others", others)
	}
	if others := attack(&clock{still: true}); others < strangers*blocks/2 {
		t.Errorf("the broken variant, which counts nothing, withstands the attack: %d blocks of others", others)
	}
}

// All of them get the same share in the end.
func TestAddressesThatReadWithoutEndShareAlike(t *testing.T) {
	c := &clock{}
	turns := newTurns(1, 8, c.now)
	read := map[netip.Prefix]int{}
	for n := range 3 {
		turns.enter(address(n), nil, ignore)
	}
	turns.enter(address(0), nil, ignore) // a second read of the first address gets it no more
	for range 300 {
		read[c.read(t, turns).of]++
	}
	for n := range 3 {
		if got := read[address(n)]; got < 95 || got > 105 {
			t.Errorf("address %d has read %d of 300 blocks", n, got)
		}
	}
}

// The attack: strangers have begun all reads that may be under way, and end none. A read of the one that
// has used most is cut for an address that has used less.
func TestStrangersDoNotHoldAllReadsThatMayBegin(t *testing.T) {
	const strangers = 6
	attack := func(c *clock) (served bool, cut int) {
		turns := newTurns(1, strangers, c.now)
		for n := range strangers {
			turns.enter(address(n), nil, func(err error) {
				if errors.Is(err, errBusy) {
					cut++
				}
			})
		}
		for range 2 * strangers {
			c.read(t, turns)
		}
		wallet := turns.enter(address(200), nil, ignore)
		for range 2 * strangers {
			if c.read(t, turns) == wallet {
				return true, cut
			}
		}
		return false, cut
	}
	if served, cut := attack(&clock{}); !served || cut != 1 {
		t.Errorf("served %v, %d cut", served, cut)
	}
	if served, _ := attack(&clock{still: true}); served {
		t.Error("the broken variant, which counts nothing, withstands the attack")
	}
}

// One address has no more than its reads under way; what it wants beside waits.
func TestOneAddressBeginsFewReads(t *testing.T) {
	c := &clock{}
	turns := newTurns(4, 8, c.now)
	var all []*turn
	for range 6 {
		all = append(all, turns.enter(address(1), nil, ignore))
	}
	began := func() (n int) {
		for _, o := range all {
			if o.begun {
				n++
			}
		}
		return n
	}
	if began() != maxOfOne {
		t.Errorf("%d have begun", began())
	}
	for _, o := range all {
		o.done()
	}
	if began() != len(all) || len(turns.all) != 0 {
		t.Errorf("%d have begun, %d are left", began(), len(turns.all))
	}
}

// A read that has had its time ends, and one whose wallet has gone leaves nothing behind.
func TestAReadEndsWithItsTimeOrItsWallet(t *testing.T) {
	c := &clock{}
	turns := newTurns(1, 8, c.now)
	first, ctx, err := turns.take(t.Context(), address(1), nil)
	if err != nil {
		t.Fatal(err)
	}
	gone, leave := context.WithCancel(t.Context())
	leave()
	if _, _, err := turns.take(gone, address(2), nil); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	c.time = c.time.Add(readTime + time.Second)
	if err := first.next(ctx); !errors.Is(err, errTooLong) {
		t.Errorf("%v", err)
	}
	first.done()
	if len(turns.all) != 0 {
		t.Errorf("%d are left", len(turns.all))
	}
}

// What addresses have used is remembered for a bounded number of them, those who used most first.
func TestNotEveryAddressIsRemembered(t *testing.T) {
	c := &clock{}
	turns := newTurns(1, 8, c.now)
	for n := range 3 * maxKnown {
		a := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(n >> 16), byte(n >> 8), byte(n)}), 32)
		o := turns.enter(a, nil, ignore)
		took := time.Millisecond
		if n == 7 {
			took = time.Second
		}
		c.time = c.time.Add(took)
		o.done()
	}
	if len(turns.used) > maxKnown {
		t.Errorf("%d are remembered", len(turns.used))
	}
	if _, known := turns.used[netip.MustParsePrefix("10.0.0.7/32")]; !known {
		t.Error("the one that used most is forgotten")
	}
}
