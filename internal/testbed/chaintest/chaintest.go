// Package chaintest makes chains of blocks for tests of the wallet server: with the form of real
// ones, and without work or signatures.
package chaintest

import (
	"context"
	"encoding/binary"
	"errors"
	"math/rand/v2"

	"github.com/BitBoxSwiss/bitbox-base/internal/electrum/chain"
	"github.com/BitBoxSwiss/bitbox-base/internal/electrum/source"
)

// Chain is a chain that grows and is reorganised. All blocks that it ever had can be read.
type Chain struct {
	// Parts: parts of blocks can be read as well.
	Parts bool
	// Scripts are those that its transactions pay, beside rewards that nobody else gets.
	Scripts [][]byte
	// Blocks are those of the best chain.
	Blocks []*chain.Block

	random *rand.Rand
	raws   map[chain.Hash][]byte
	nonce  uint32
	// Reads counts what was read: blocks and parts.
	Reads int
}

// New returns a chain with its first block.
func New(random *rand.Rand, scripts int) *Chain {
	c := &Chain{random: random, raws: map[chain.Hash][]byte{}}
	for i := range scripts {
		c.Scripts = append(c.Scripts, []byte{0x51, byte(i >> 8), byte(i)})
	}
	c.Grow(0)
	return c
}

// First is the hash of the first block.
func (c *Chain) First() chain.Hash { return c.Blocks[0].Header.Hash() }

// Grow adds a block with this many transactions beside the first. Each spends outputs of the
// chain that are not spent yet, some of the same block, and pays some of the scripts.
func (c *Chain) Grow(transactions int) *chain.Block {
	coins := c.coins()
	c.nonce++
	txs := [][]byte{c.tx(nil)}
	for range transactions {
		var spends []chain.Outpoint
		for range 1 + c.random.IntN(2) {
			if len(coins) == 0 {
				break
			}
			at := c.random.IntN(len(coins))
			spends = append(spends, coins[at])
			coins[at] = coins[len(coins)-1]
			coins = coins[:len(coins)-1]
		}
		if len(spends) == 0 {
			break
		}
		raw := c.tx(spends)
		txs = append(txs, raw)
		tx, err := chain.ParseTx(raw)
		if err != nil {
			panic(err)
		}
		for i, o := range tx.Outputs {
			if !o.Unspendable() {
				coins = append(coins, chain.Outpoint{ID: tx.ID, Index: uint32(i)})
			}
		}
	}
	return c.add(txs)
}

// coins are the outputs that the best chain has not spent, in an order that the seed decides.
func (c *Chain) coins() (coins []chain.Outpoint) {
	spent := map[chain.Outpoint]bool{}
	for _, b := range c.Blocks {
		for _, tx := range b.Txs {
			for _, o := range tx.Spends {
				spent[o] = true
			}
		}
	}
	for height, b := range c.Blocks {
		for _, tx := range b.Txs {
			for i, o := range tx.Outputs {
				if at := (chain.Outpoint{ID: tx.ID, Index: uint32(i)}); height > 0 && !spent[at] && !o.Unspendable() {
					coins = append(coins, at)
				}
			}
		}
	}
	return coins
}

// tx makes a transaction; without coins it is the first of a block.
func (c *Chain) tx(spends []chain.Outpoint) []byte {
	b := []byte{2, 0, 0, 0}
	witness := len(spends) > 0 && c.random.IntN(2) == 0
	if witness {
		b = append(b, 0, 1)
	}
	if len(spends) == 0 {
		spends = []chain.Outpoint{{Index: 0xffffffff}}
	}
	b = append(b, byte(len(spends)))
	for _, o := range spends {
		b = append(b, o.ID[:]...)
		b = binary.LittleEndian.AppendUint32(b, o.Index)
		// The number makes each first transaction another one.
		b = append(binary.LittleEndian.AppendUint32(append(b, 4), c.nonce), 0xff, 0xff, 0xff, 0xff)
	}
	outputs := 1 + c.random.IntN(3)
	b = append(b, byte(outputs+1))
	for range outputs {
		b = binary.LittleEndian.AppendUint64(b, 1+uint64(c.random.IntN(1e6)))
		script := c.Scripts[c.random.IntN(len(c.Scripts))]
		b = append(append(b, byte(len(script))), script...)
	}
	b = append(b, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0x6a, 0) // an output for nobody
	if witness {
		for range spends {
			b = append(b, 1, 3, 7, 7, 7)
		}
	}
	return append(b, 0, 0, 0, 0)
}

func (c *Chain) add(txs [][]byte) *chain.Block {
	var ids []chain.Hash
	for _, raw := range txs {
		tx, err := chain.ParseTx(raw)
		if err != nil {
			panic(err)
		}
		ids = append(ids, tx.ID)
	}
	raw := make([]byte, chain.HeaderSize)
	if len(c.Blocks) > 0 {
		previous := c.Blocks[len(c.Blocks)-1].Header.Hash()
		copy(raw[4:], previous[:])
	}
	root := chain.Root(ids)
	copy(raw[36:], root[:])
	raw = append(raw, 0xfd, byte(len(txs)), byte(len(txs)>>8))
	for _, tx := range txs {
		raw = append(raw, tx...)
	}
	b, err := chain.ParseBlock(raw)
	if err != nil {
		panic(err)
	}
	c.raws[b.Header.Hash()] = raw
	c.Blocks = append(c.Blocks, b)
	return b
}

// Cut takes the last blocks away: what follows is a reorganisation.
func (c *Chain) Cut(blocks int) { c.Blocks = c.Blocks[:len(c.Blocks)-blocks] }

// Block returns any block that there ever was.
func (c *Chain) Block(_ context.Context, hash chain.Hash) ([]byte, error) {
	c.Reads++
	raw, ok := c.raws[hash]
	if !ok {
		return nil, errors.New("there is no such block")
	}
	return raw, nil
}

// Part returns a part of one.
func (c *Chain) Part(ctx context.Context, hash chain.Hash, offset, size uint32) ([]byte, error) {
	if !c.Parts {
		return nil, source.ErrNotOffered
	}
	raw, err := c.Block(ctx, hash)
	if err != nil || uint64(offset)+uint64(size) > uint64(len(raw)) {
		return nil, errors.Join(err, errors.New("there is no such part"))
	}
	return raw[offset : offset+size], nil
}
