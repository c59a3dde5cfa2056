package history_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/BitBoxSwiss/bitbox-base/internal/electrum/chain"
	"github.com/BitBoxSwiss/bitbox-base/internal/electrum/history"
	"github.com/BitBoxSwiss/bitbox-base/internal/electrum/index"
	"github.com/BitBoxSwiss/bitbox-base/internal/testbed/chaintest"
)

const most = 10_000

// walk finds out what has happened to a script by reading all blocks.
func walk(c *chaintest.Chain, script chain.Hash) (ids []string, coins []history.Coin) {
	own := map[chain.Outpoint]int{}
	for height, b := range c.Blocks {
		for _, tx := range b.Txs {
			touches := false
			for _, o := range tx.Spends {
				if at, is := own[o]; is {
					coins[at].SpentAt, touches = uint32(height), true
				}
			}
			for i, o := range tx.Outputs {
				if height > 0 && o.ScriptHash() == script {
					at := chain.Outpoint{ID: tx.ID, Index: uint32(i)}
					own[at] = len(coins)
					coins = append(coins, history.Coin{Outpoint: at, Value: o.Value, Height: uint32(height)})
					touches = true
				}
			}
			if touches {
				ids = append(ids, fmt.Sprint(tx.ID, height))
			}
		}
	}
	return ids, coins
}

// compare compares what the index leads to with a walk, for each script.
func compare(t interface{ Fatalf(string, ...any) }, i *index.Index, c *chaintest.Chain) {
	view := i.View()
	if view.Len() != uint32(len(c.Blocks)) {
		t.Fatalf("the index has %d blocks of %d", view.Len(), len(c.Blocks))
	}
	for _, script := range c.Scripts {
		hash := chain.Output{Script: script}.ScriptHash()
		h, err := history.Read(context.Background(), c, view, hash, most)
		if err != nil {
			t.Fatalf("%v", err)
		}
		var ids []string
		for _, e := range h.Entries {
			ids = append(ids, fmt.Sprint(e.ID, e.Height))
		}
		wantIDs, wantCoins := walk(c, hash)
		if !slices.Equal(ids, wantIDs) || !reflect.DeepEqual(h.Coins, wantCoins) {
			t.Fatalf("the script %x has the history\n%v\n%v\nand should have\n%v\n%v", script, ids, h.Coins, wantIDs, wantCoins)
		}
	}
	for height, b := range c.Blocks {
		if header, err := view.Header(uint32(height)); err != nil || header != b.Header {
			t.Fatalf("the header %d: %v", height, err)
		}
		for at, tx := range b.Txs {
			got, place, ok, err := history.Find(context.Background(), c, view, tx.ID)
			if err != nil || !ok || got.ID != tx.ID || place.Height != uint32(height) || place.Position != at {
				t.Fatalf("transaction %d of block %d: %+v, %v, %v", at, height, place, ok, err)
			}
		}
	}
}

// follow brings the index to the best chain, as the server does.
func follow(t interface{ Fatalf(string, ...any) }, i *index.Index, c *chaintest.Chain) {
	tip, _, some := i.Tip()
	for some && (int(tip) >= len(c.Blocks) || !i.Has(tip, c.Blocks[tip].Header.Hash())) {
		tip--
		i.Rewind(tip)
	}
	height, _, some := i.Tip()
	if some {
		height++
	}
	for ; int(height) < len(c.Blocks); height++ {
		if err := i.Add(c.Blocks[height]); err != nil {
			t.Fatalf("%v", err)
		}
	}
	if err := i.Publish(); err != nil {
		t.Fatalf("%v", err)
	}
}

func open(t interface{ Fatalf(string, ...any) }, fs vfs.FS, first chain.Hash) *index.Index {
	return openHeld(t, fs, first, 0)
}

// openHeld keeps so many hints back.
func openHeld(t interface{ Fatalf(string, ...any) }, fs vfs.FS, first chain.Hash, held int) *index.Index {
	i, err := index.Open(index.Config{Directory: "index", First: first, FS: fs, Logger: slog.New(slog.DiscardHandler), Held: held})
	if err != nil {
		t.Fatalf("%v", err)
	}
	return i
}

func TestTheIndexSaysWhatAWalkThroughAllBlocksSays(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		seed := rapid.Uint64().Draw(t, "seed")
		c := chaintest.New(rand.New(rand.NewPCG(seed, 0)), rapid.IntRange(1, 8).Draw(t, "scripts"))
		c.Parts = rapid.Bool().Draw(t, "parts")
		fs := vfs.NewMem()
		held := rapid.SampledFrom([]int{0, 16, 100}).Draw(t, "held")
		i := openHeld(t, fs, c.First(), held)
		defer func() { _ = i.Close() }()
		for range rapid.IntRange(1, 12).Draw(t, "steps") {
			switch rapid.IntRange(0, 5).Draw(t, "step") {
			case 0: // a reorganisation
				cut := rapid.IntRange(0, len(c.Blocks)-1).Draw(t, "cut")
				c.Cut(cut)
				for range cut + 1 {
					c.Grow(rapid.IntRange(0, 4).Draw(t, "transactions"))
				}
			case 1: // a restart
				if err := i.Close(); err != nil {
					t.Fatal(err)
				}
				i = openHeld(t, fs, c.First(), held)
			default:
				c.Grow(rapid.IntRange(0, 4).Draw(t, "transactions"))
			}
			follow(t, i, c)
			compare(t, i, c)
		}
	})
}

// A wallet server keeps the histories that wallets follow in memory, and brings them from block to
// block: they stay what the index would say.
func TestAHistoryThatIsFollowedStaysTheOneThatIsRead(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := chaintest.New(rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0)), 3)
		hash := chain.Output{Script: c.Scripts[0]}.ScriptHash()
		h := &history.History{}
		check := func() {
			ids, coins := walk(c, hash)
			var got []string
			for _, e := range h.Entries {
				got = append(got, fmt.Sprint(e.ID, e.Height))
			}
			if !slices.Equal(got, ids) || !slices.Equal(h.Coins, coins) {
				t.Fatalf("%v\n%v\nand should be\n%v\n%v", got, h.Coins, ids, coins)
			}
		}
		for range rapid.IntRange(1, 12).Draw(t, "steps") {
			if cut := rapid.IntRange(0, len(c.Blocks)-1).Draw(t, "cut"); rapid.Bool().Draw(t, "reorganise") {
				c.Cut(cut)
				h.Cut(uint32(len(c.Blocks) - 1))
				check()
			}
			height := uint32(len(c.Blocks))
			h.Extend(hash, history.Prepare(height, c.Grow(rapid.IntRange(0, 4).Draw(t, "transactions"))))
			check()
		}
	})
}

func TestAViewStaysWhatItIsWhileTheChainIsReorganised(t *testing.T) {
	c := chaintest.New(rand.New(rand.NewPCG(1, 2)), 3)
	i := open(t, vfs.NewMem(), c.First())
	defer func() { _ = i.Close() }()
	for range 20 {
		c.Grow(3)
	}
	follow(t, i, c)
	view, hash := i.View(), chain.Output{Script: c.Scripts[0]}.ScriptHash()
	before, err := history.Read(t.Context(), c, view, hash, most)
	if err != nil {
		t.Fatal(err)
	}
	c.Cut(15)
	for range 30 {
		c.Grow(3)
	}
	follow(t, i, c)
	after, err := history.Read(t.Context(), c, view, hash, most)
	if err != nil || !reflect.DeepEqual(before, after) {
		t.Errorf("%v, %v, %v", before, after, err)
	}
	compare(t, i, c)
}

// The attack: everybody pays one script, and a wallet asks for it again and again.
func TestAHistoryThatIsTooLargeIsRefusedBeforeItIsRead(t *testing.T) {
	c := chaintest.New(rand.New(rand.NewPCG(1, 2)), 1)
	i := open(t, vfs.NewMem(), c.First())
	defer func() { _ = i.Close() }()
	for range 30 {
		c.Grow(10)
	}
	follow(t, i, c)
	c.Reads = 0
	hash := chain.Output{Script: c.Scripts[0]}.ScriptHash()
	if _, err := history.Read(t.Context(), c, i.View(), hash, 100); !errors.Is(err, history.ErrTooLarge) || c.Reads != 0 {
		t.Errorf("%v after %d reads", err, c.Reads)
	}
	// With a higher limit it is read: the limit is what refuses it.
	if h, err := history.Read(t.Context(), c, i.View(), hash, most); err != nil || len(h.Entries) < 100 {
		t.Errorf("%v", err)
	}
}
