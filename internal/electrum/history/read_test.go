package history_test

import (
	"context"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/BitBoxSwiss/bitbox-base/internal/electrum/chain"
	"github.com/BitBoxSwiss/bitbox-base/internal/electrum/history"
	"github.com/BitBoxSwiss/bitbox-base/internal/electrum/index"
	"github.com/BitBoxSwiss/bitbox-base/internal/electrum/source"
	"github.com/BitBoxSwiss/bitbox-base/internal/testbed/chaintest"
)

// askedOf counts what is asked of a block.
type askedOf struct {
	raw   []byte
	asked []uint32 // sizes
}

func (a *askedOf) Block(context.Context, chain.Hash) ([]byte, error) { return a.raw, nil }

func (a *askedOf) Part(_ context.Context, _ chain.Hash, offset, size uint32) ([]byte, error) {
	a.asked = append(a.asked, size)
	return a.raw[offset:][:size], nil
}

// Each question to the node takes time, so transactions that lie near each other are read by one.
// What lies between them is not read if it is long.
func TestTransactionsThatLieTogetherAreReadAtOnce(t *testing.T) {
	c := chaintest.New(rand.New(rand.NewPCG(1, 2)), 4)
	for range 3 {
		c.Grow(4)
	}
	const gap, far = 10_000, 100_000
	a := &askedOf{}
	var places []index.Place
	var ids []chain.Hash
	for at, tx := range c.Blocks[3].Txs {
		a.raw = append(a.raw, make([]byte, []int{gap, far}[at%2])...)
		places = append(places, index.Place{Position: at, Offset: uint32(len(a.raw)), Size: uint32(len(tx.Raw))})
		ids = append(ids, tx.ID)
		a.raw = append(a.raw, tx.Raw...)
	}
	other := index.Place{Block: chain.Hash{1}, Offset: places[0].Offset, Size: places[0].Size}
	places, ids = append(places, other), append(ids, ids[0])
	var got []chain.Hash
	read := func(_ index.Place, tx chain.Tx) error {
		got = append(got, tx.ID)
		return nil
	}
	if err := history.Transactions(t.Context(), a, places, read); err != nil || !slices.Equal(got, ids) {
		t.Fatalf("%v, %v instead of %v", err, got, ids)
	}
	// The first one is alone before a long gap; then two and two; another block is another question.
	if want := len(c.Blocks[3].Txs)/2 + 2; len(a.asked) != want {
		t.Errorf("the node was asked for %d bytes, %d times and not %d", a.asked, len(a.asked), want)
	}
	for _, size := range a.asked {
		if size > 64<<10 {
			t.Errorf("%d bytes were read at once", size)
		}
	}
	a.raw = a.raw[:len(a.raw)-1]
	short := &askedOf{raw: a.raw}
	if err := history.Transactions(t.Context(), whole{short}, places[:len(places)-1], read); err == nil {
		t.Error("a transaction was read beyond the end of its block")
	}
}

// whole gives whole blocks alone.
type whole struct{ *askedOf }

func (whole) Part(context.Context, chain.Hash, uint32, uint32) ([]byte, error) {
	return nil, source.ErrNotOffered
}
