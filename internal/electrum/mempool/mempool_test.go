package mempool_test

import (
	"reflect"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/BitBoxSwiss/bitbox-base/internal/electrum/chain"
	"github.com/BitBoxSwiss/bitbox-base/internal/electrum/history"
	"github.com/BitBoxSwiss/bitbox-base/internal/electrum/mempool"
	"github.com/BitBoxSwiss/bitbox-base/internal/electrum/source"
)

func script(n byte) ([]byte, chain.Hash) {
	s := []byte{0x51, n}
	return s, chain.Output{Script: s}.ScriptHash()
}

// entry is a transaction of the mempool with a number.
func entry(n byte, pays byte, spends ...chain.Outpoint) source.Entry {
	s, _ := script(pays)
	tx := chain.Tx{ID: chain.Hash{31: n}, Spends: spends, Outputs: []chain.Output{{Value: 100, Script: s}}}
	return source.Entry{Tx: tx, Fee: uint64(n), VSize: 100}
}

func TestTheHeightOfATransactionChangesWithItsParents(t *testing.T) {
	m := mempool.New()
	_, own := script(1)
	parent := entry(2, 9)
	child := entry(1, 1, chain.Outpoint{ID: parent.Tx.ID})
	m.Update(nil, []source.Entry{parent, child})
	none := &history.History{}
	if got := m.Of(own, none); len(got) != 1 || got[0].Height != -1 || got[0].Fee != 1 {
		t.Errorf("%v", got)
	}
	m.Update([]chain.Hash{parent.Tx.ID}, nil) // a block has it
	if got := m.Of(own, none); len(got) != 1 || got[0].Height != 0 {
		t.Errorf("%v", got)
	}
	m.Update(nil, []source.Entry{parent}) // and no longer
	if got := m.Of(own, none); len(got) != 1 || got[0].Height != -1 {
		t.Errorf("%v", got)
	}
}

func TestTheOrderOfTheMempoolIsThatOfTheProtocol(t *testing.T) {
	m := mempool.New()
	_, own := script(1)
	a, b, c := entry(7, 1), entry(3, 1), entry(1, 1, chain.Outpoint{ID: chain.Hash{31: 7}})
	m.Update(nil, []source.Entry{c, a, b})
	var got []byte
	for _, e := range m.Of(own, &history.History{}) {
		got = append(got, e.ID[31])
	}
	if !slices.Equal(got, []byte{3, 7, 1}) {
		t.Errorf("%v", got)
	}
}

// Whatever came and went, the mempool is what it would be if only the rest had come.
func TestTransactionsThatLeaveLeaveNothingBehind(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := mempool.New()
		var there []source.Entry
		for range rapid.IntRange(1, 30).Draw(t, "steps") {
			if len(there) > 0 && rapid.Bool().Draw(t, "leaves") {
				at := rapid.IntRange(0, len(there)-1).Draw(t, "which")
				m.Update([]chain.Hash{there[at].Tx.ID}, nil)
				there = slices.Delete(there, at, at+1)
				continue
			}
			e := entry(rapid.Byte().Draw(t, "number"), rapid.ByteRange(0, 2).Draw(t, "script"),
				chain.Outpoint{ID: chain.Hash{31: rapid.Byte().Draw(t, "spent")}})
			// A node has no two that spend the same.
			if slices.ContainsFunc(there, func(o source.Entry) bool { return o.Tx.ID == e.Tx.ID || o.Tx.Spends[0] == e.Tx.Spends[0] }) {
				continue
			}
			m.Update(nil, []source.Entry{e})
			there = append(there, e)
		}
		fresh := mempool.New()
		fresh.Update(nil, there)
		for n := range byte(3) {
			_, own := script(n)
			confirmed := &history.History{Coins: []history.Coin{{Outpoint: chain.Outpoint{ID: chain.Hash{31: n}}}}}
			if got, want := m.Of(own, confirmed), fresh.Of(own, confirmed); !reflect.DeepEqual(got, want) {
				t.Errorf("%v and not %v", got, want)
			}
		}
		if !reflect.DeepEqual(m.Histogram(), fresh.Histogram()) {
			t.Errorf("%v and not %v", m.Histogram(), fresh.Histogram())
		}
	})
}
