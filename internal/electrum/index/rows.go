package index

import (
	"encoding/binary"
	"errors"
	"slices"

	"github.com/cockroachdb/pebble/v2"

	"github.com/BitBoxSwiss/bitbox-base/internal/electrum/chain"
)

// rows are those of blocks that are kept back.
type rows struct {
	blocks, sizes     []row
	pays, spends, ids hints
}

// row is that of a block: the number of its first transaction, and the value.
type row struct {
	first uint32
	value []byte
}

// hint is one: the 8 bytes as a number, and the number of the transaction.
type hint struct {
	prefix uint64
	number uint32
}

// hints are those of a kind.
type hints []hint

func (h *hints) add(p prefix, number uint32) {
	*h = append(*h, hint{binary.BigEndian.Uint64(p[:]), number})
}

// perBlock is how many hints take as much memory as the two rows of a block: 256 bytes. A chain whose blocks
// have one transaction each would otherwise fill the memory with them.
const perBlock = 16

// hints is how many there are. A block counts as perBlock.
func (r *rows) hints() int { return len(r.pays) + len(r.spends) + len(r.ids) + perBlock*len(r.blocks) }

// add adds those of a block.
func (r *rows) add(height, first uint32, b *chain.Block) {
	r.blocks = append(r.blocks, row{first, binary.BigEndian.AppendUint32(slices.Clone(b.Header[:]), height)})
	sizes := binary.AppendUvarint(make([]byte, 0, 2*len(b.Txs)+binary.MaxVarintLen32), uint64(b.First))
	for at := range b.Txs {
		tx, number := &b.Txs[at], first+uint32(at)
		sizes = binary.AppendUvarint(sizes, uint64(len(tx.Raw)))
		r.ids.add(of(tx.ID), number)
		for _, o := range tx.Spends {
			r.spends.add(ofOutput(o), number)
		}
		// Nobody can spend what the first block of a network pays.
		for _, o := range tx.Outputs {
			if height > 0 && !o.Unspendable() {
				r.pays.add(of(o.ScriptHash()), number)
			}
		}
	}
	r.sizes = append(r.sizes, row{first, sizes})
}

// sort puts them in the order of their keys.
func (r *rows) sort() {
	spare := make(hints, max(len(r.pays), len(r.spends), len(r.ids)))
	for _, all := range []*hints{&r.pays, &r.spends, &r.ids} {
		*all = slices.Compact(all.sorted(spare))
	}
}

// sorted sorts hints whose numbers are in order already, digit by digit from the lowest. Its time does
// not depend on what strangers have put into the blocks.
func (h hints) sorted(spare hints) hints {
	const bits = 16 // of a digit
	from, to := h, spare[:len(h)]
	for shift := 0; shift < 64; shift += bits {
		var begins [1 << bits]int32
		for _, one := range from {
			begins[uint16(one.prefix>>shift)]++
		}
		next := int32(0)
		for digit, count := range begins {
			begins[digit] = next
			next += count
		}
		for _, one := range from {
			digit := uint16(one.prefix >> shift)
			to[begins[digit]] = one
			begins[digit]++
		}
		from, to = to, from
	}
	return from // the digits are even in number: it is h again
}

const hintSize = 1 + 8 + 4 // bytes of a key

// each hands on all rows, in the order of their keys: that of the kinds. The key is only lent.
func (r *rows) each(set func(key, value []byte) error) error {
	var key [hintSize]byte
	ofBlocks := func(kind byte, all []row) error {
		for _, one := range all {
			key[0] = kind
			binary.BigEndian.PutUint32(key[1:], one.first)
			if err := set(key[:1+4], one.value); err != nil {
				return err
			}
		}
		return nil
	}
	ofHints := func(kind byte, all hints) error {
		key[0] = kind
		for _, one := range all {
			binary.BigEndian.PutUint64(key[1:], one.prefix)
			binary.BigEndian.PutUint32(key[9:], one.number)
			if err := set(key[:], nil); err != nil {
				return err
			}
		}
		return nil
	}
	for _, part := range []func() error{
		func() error { return ofBlocks(blockRow, r.blocks) },
		func() error { return ofHints(paysRow, r.pays) },
		func() error { return ofBlocks(sizesRow, r.sizes) },
		func() error { return ofHints(spendsRow, r.spends) },
		func() error { return ofHints(idRow, r.ids) },
	} {
		if err := part(); err != nil {
			return err
		}
	}
	return nil
}

// batch puts them into the store's memory, all at once.
func (r *rows) batch(db *pebble.DB) error {
	batch := db.NewBatch()
	err := r.each(func(key, value []byte) error { return batch.Set(key, value, nil) })
	if err != nil {
		return errors.Join(err, batch.Close())
	}
	return batch.Commit(pebble.NoSync)
}
