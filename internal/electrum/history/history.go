// Package history reads what has happened to a script, and to its coins. The index says where
// to look (package index); what counts is what the transactions say that are read there.
package history

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/BitBoxSwiss/bitbox-base/internal/electrum/chain"
	"github.com/BitBoxSwiss/bitbox-base/internal/electrum/index"
	"github.com/BitBoxSwiss/bitbox-base/internal/electrum/source"
)

// Blocks is where transactions are read.
type Blocks interface {
	Block(ctx context.Context, hash chain.Hash) ([]byte, error)
	// Part returns source.ErrNotOffered if only whole blocks can be had.
	Part(ctx context.Context, hash chain.Hash, offset, size uint32) ([]byte, error)
}

// Entry is a transaction of a history.
type Entry struct {
	ID       chain.Hash
	Height   uint32
	position int // in the block
}

// Coin is an output that pays the script.
type Coin struct {
	Outpoint chain.Outpoint
	Value    uint64 // satoshis
	Height   uint32
	// SpentAt is the height of the block that spends it; 0: none.
	SpentAt uint32
}

// History is what has happened to a script in the chain.
type History struct {
	Entries []Entry // in the order of the chain
	Coins   []Coin
}

// Digest is a block, prepared for many scripts.
type Digest struct {
	block  *chain.Block
	height uint32
	pays   map[chain.Hash][]int   // by script, positions
	spends map[chain.Outpoint]int // position
}

// Prepare prepares the block of a height.
func Prepare(height uint32, b *chain.Block) *Digest {
	d := &Digest{b, height, map[chain.Hash][]int{}, map[chain.Outpoint]int{}}
	for at := range b.Txs {
		for _, o := range b.Txs[at].Spends {
			d.spends[o] = at
		}
		for _, o := range b.Txs[at].Outputs {
			script := o.ScriptHash()
			d.pays[script] = append(d.pays[script], at)
		}
	}
	return d
}

// IDs are those of the block's transactions.
func (d *Digest) IDs() []chain.Hash { return d.block.IDs() }

// Touches tells whether the block pays a script, or spends a coin of its history.
func (d *Digest) Touches(script chain.Hash, h *History) bool {
	return len(d.pays[script]) > 0 || slices.ContainsFunc(h.Coins, func(c Coin) bool {
		_, spent := d.spends[c.Outpoint]
		return spent
	})
}

// Extend adds what the next block does to the script.
func (h *History) Extend(script chain.Hash, d *Digest) {
	positions := slices.Clone(d.pays[script])
	spent := func(o chain.Outpoint) {
		if at, is := d.spends[o]; is {
			positions = append(positions, at)
		}
	}
	for _, c := range h.Coins {
		if c.SpentAt == 0 {
			spent(c.Outpoint)
		}
	}
	for _, at := range d.pays[script] {
		for i := range d.block.Txs[at].Outputs {
			spent(chain.Outpoint{ID: d.block.Txs[at].ID, Index: uint32(i)})
		}
	}
	slices.Sort(positions)
	for _, at := range slices.Compact(positions) {
		h.extend(script, Entry{d.block.Txs[at].ID, d.height, at}, &d.block.Txs[at])
	}
}

func (h *History) extend(script chain.Hash, entry Entry, tx *chain.Tx) {
	touches := false
	for _, o := range tx.Spends {
		if at := slices.IndexFunc(h.Coins, func(c Coin) bool { return c.Outpoint == o }); at >= 0 {
			h.Coins[at].SpentAt, touches = entry.Height, true
		}
	}
	for i, o := range tx.Outputs {
		if o.ScriptHash() == script {
			h.Coins = append(h.Coins, Coin{Outpoint: chain.Outpoint{ID: tx.ID, Index: uint32(i)}, Value: o.Value, Height: entry.Height})
			touches = true
		}
	}
	if touches {
		h.Entries = append(h.Entries, entry)
	}
}

// Cut takes away what blocks above a height have done.
func (h *History) Cut(height uint32) {
	h.Entries = slices.DeleteFunc(h.Entries, func(e Entry) bool { return e.Height > height })
	h.Coins = slices.DeleteFunc(h.Coins, func(c Coin) bool { return c.Height > height })
	for i := range h.Coins {
		if h.Coins[i].SpentAt > height {
			h.Coins[i].SpentAt = 0
		}
	}
}

// Clone copies it.
func (h *History) Clone() *History {
	return &History{slices.Clone(h.Entries), slices.Clone(h.Coins)}
}

// ErrTooLarge: the script has more transactions than are read.
var ErrTooLarge = errors.New("history too large")

// Read reads a history of at most most transactions.
func Read(ctx context.Context, blocks Blocks, view *index.View, script chain.Hash, most int) (*History, error) {
	places, more, err := view.Pays(script, most)
	if err != nil {
		return nil, err
	}
	if more {
		return nil, ErrTooLarge
	}
	h := &History{}
	err = Transactions(ctx, blocks, places, func(at index.Place, tx chain.Tx) error {
		pays := false
		for i, o := range tx.Outputs {
			if o.ScriptHash() == script {
				pays = true
				h.Coins = append(h.Coins, Coin{Outpoint: chain.Outpoint{ID: tx.ID, Index: uint32(i)}, Value: o.Value, Height: at.Height})
			}
		}
		if pays {
			h.Entries = append(h.Entries, Entry{tx.ID, at.Height, at.Position})
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if len(h.Coins) > most {
		return nil, ErrTooLarge
	}
	return h, h.readSpenders(ctx, blocks, view, most)
}

// readSpenders finds what has spent the coins.
func (h *History) readSpenders(ctx context.Context, blocks Blocks, view *index.View, most int) error {
	coins := map[chain.Outpoint]*Coin{}
	var places []index.Place
	for i := range h.Coins {
		coins[h.Coins[i].Outpoint] = &h.Coins[i]
		found, err := view.Spends(h.Coins[i].Outpoint)
		if err != nil {
			return err
		}
		places = append(places, found...)
	}
	slices.SortFunc(places, func(a, b index.Place) int { return inChain(a.Height, b.Height, a.Position, b.Position) })
	places = slices.Compact(places)
	if len(places)+len(h.Entries) > most {
		return ErrTooLarge
	}
	err := Transactions(ctx, blocks, places, func(at index.Place, tx chain.Tx) error {
		spends := false
		for _, o := range tx.Spends {
			if coin := coins[o]; coin != nil {
				coin.SpentAt, spends = at.Height, true
			}
		}
		if spends {
			h.Entries = append(h.Entries, Entry{tx.ID, at.Height, at.Position})
		}
		return nil
	})
	slices.SortFunc(h.Entries, func(a, b Entry) int { return inChain(a.Height, b.Height, a.position, b.position) })
	h.Entries = slices.Compact(h.Entries)
	return err
}

func inChain(heightA, heightB uint32, positionA, positionB int) int {
	if heightA != heightB {
		return int(int64(heightA) - int64(heightB))
	}
	return positionA - positionB
}

// maxSpan is how many bytes are read at once for the sake of several transactions of a block. A question to
// the node takes about as long as this many bytes.
const maxSpan = 64 << 10

// span is how many of the places, from the first on, are read at once.
func span(places []index.Place) int {
	n := 1
	for n < len(places) && places[n].Block == places[0].Block && end(places[n])-uint64(places[0].Offset) <= maxSpan {
		n++
	}
	return n
}

func end(p index.Place) uint64 { return uint64(p.Offset) + uint64(p.Size) }

// Transactions reads the transactions at these places, which are in the order of the chain.
func Transactions(ctx context.Context, blocks Blocks, places []index.Place, each func(index.Place, chain.Tx) error) error {
	var whole []byte // the block that was read last
	var of chain.Hash
	parts := true
	for n := 0; len(places) > 0; places = places[n:] {
		n = span(places)
		first, last := places[0], places[n-1]
		size := end(last) - uint64(first.Offset)
		var raw []byte
		err := source.ErrNotOffered
		if parts {
			raw, err = blocks.Part(ctx, first.Block, first.Offset, uint32(size))
		}
		if errors.Is(err, source.ErrNotOffered) {
			parts, err = false, nil
			if of != first.Block || whole == nil {
				whole = nil // a block takes 4 MB, and the next one may be waited for
				whole, err = blocks.Block(ctx, first.Block)
				of = first.Block
			}
			if err == nil && end(last) <= uint64(len(whole)) {
				raw = whole[first.Offset:end(last)]
			}
		}
		if err != nil {
			return err
		}
		if uint64(len(raw)) != size {
			return errors.New("the block of the node ends before a transaction that should be in it")
		}
		for _, place := range places[:n] {
			tx, err := chain.ParseTx(raw[place.Offset-first.Offset:][:place.Size])
			if err != nil {
				return fmt.Errorf("the block of the node has no transaction where it should be: %w", err)
			}
			if err := each(place, tx); err != nil {
				return err
			}
		}
	}
	return nil
}

// Find finds the transaction with an ID; false: the chain has none.
func Find(ctx context.Context, blocks Blocks, view *index.View, id chain.Hash) (tx chain.Tx, place index.Place, ok bool, err error) {
	places, err := view.Find(id)
	if err != nil {
		return tx, place, false, err
	}
	err = Transactions(ctx, blocks, places, func(at index.Place, t chain.Tx) error {
		if t.ID == id {
			tx, place, ok = t, at, true
		}
		return nil
	})
	return tx, place, ok, err
}
