// Package proof checks that a transaction is in the chain, from what a Base says: a branch of the
// merkle tree leads to the header of a block, and headers lead from there to a block that is built
// in. Headers after the last such block must have the work that Bitcoin asks for.
//
// A Base that was taken over can hold transactions back. It cannot make one up without mining
// blocks.
package proof

import (
	"context"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"time"

	"github.com/BitBoxSwiss/bitbox-base/internal/electrum/chain"
)

// Hash is the ID of a transaction or of a block, and Header a block's.
type (
	Hash   = chain.Hash
	Header = chain.Header
)

// HeaderSize is the length of a header in bytes.
const HeaderSize = chain.HeaderSize

// ParseID reads an ID as people write it.
func ParseID(text string) (Hash, error) { return chain.ParseHash(text) }

// Place is where a Base says that a transaction is.
type Place struct {
	Height, Position uint32
	Branch           []Hash
	// Tip is the height of the newest block.
	Tip uint32
}

// Headers returns headers of the Base's chain from a height on, at least one and at most count.
type Headers func(ctx context.Context, first, count uint32) ([]Header, error)

// Proven is what was checked.
type Proven struct {
	// Time is what the block says of itself.
	Time time.Time
	// Checkpoint is the height of the built-in block that the headers lead to.
	Checkpoint uint32
	// Work is how many headers after the checkpoint were checked; 0: the transaction is older.
	Work uint32
	// TipTime is the time of the newest of them.
	TipTime time.Time
}

// ErrBehind: the node lacks the built-in block, so that nothing can be checked yet.
var ErrBehind = errors.New("the node has too few blocks")

// ErrWrong is wrapped by what is found to be wrong in a proof.
var ErrWrong = errors.New("the proof is wrong")

// Bitcoin's rules (chainparams.cpp and pow.cpp of Bitcoin Core).
const (
	period   = 2016                // blocks with one target
	timespan = 14 * 24 * time.Hour // what they should take
	median   = 11                  // a block is newer than the median of so many before it
	ahead    = 2 * time.Hour       // how far a block may be in the future
)

// Checkpoint is a block that is built in.
type Checkpoint struct {
	Height uint32
	Hash   Hash
}

// Chain has the rules of a network.
type Chain struct {
	// Checkpoints are in order.
	Checkpoints []Checkpoint
	// limit is the easiest target.
	limit *big.Int
}

// Mainnet is Bitcoin's chain.
func Mainnet() (Chain, error) {
	c := Chain{limit: fromBits(0x1d00ffff)}
	for _, known := range checkpoints {
		hash, err := chain.ParseHash(known.hash)
		if err != nil {
			return c, err
		}
		c.Checkpoints = append(c.Checkpoints, Checkpoint{known.height, hash})
	}
	return c, nil
}

// maxHeaders bounds what a Base can have an App fetch: some twenty years of blocks.
const maxHeaders = 1_000_000

// MaxTransaction is the longest transaction that a block can have, in bytes and without its witnesses:
// each of them weighs 4 units, and a block at most 4,000,000 (consensus.h of Bitcoin Core).
const MaxTransaction = 1_000_000

// Transaction checks that these bytes are the transaction with an ID. They have no witnesses. 64
// bytes are refused: they could be two hashes of a merkle tree (CVE-2017-12842).
func Transaction(id Hash, stripped []byte) (chain.Tx, error) {
	const ambiguous = 64
	tx, err := chain.ParseTx(stripped)
	switch {
	case err != nil:
		return tx, fmt.Errorf("%w: the transaction is none", ErrWrong)
	case tx.ID != id || len(stripped) == ambiguous:
		return tx, fmt.Errorf("%w: it is about another transaction", ErrWrong)
	}
	return tx, nil
}

// Check checks the place of a transaction. now is the time of this computer.
func (c Chain) Check(ctx context.Context, headers Headers, id Hash, at Place, now time.Time) (Proven, error) {
	if at.Height > at.Tip || len(at.Branch) > chain.MaxBranch || uint64(at.Position)>>len(at.Branch) != 0 {
		return Proven{}, fmt.Errorf("%w: no block has such a place", ErrWrong)
	}
	last := c.Checkpoints[len(c.Checkpoints)-1]
	older := at.Height <= last.Height
	if older {
		i := slices.IndexFunc(c.Checkpoints, func(p Checkpoint) bool { return p.Height >= at.Height })
		if last = c.Checkpoints[i]; last.Height > at.Tip {
			return Proven{}, fmt.Errorf("%w: it has not reached block %d yet", ErrBehind, last.Height)
		}
	}
	w := walk{chain: c, checkpoint: last, at: at, root: chain.Follow(id, at.Position, at.Branch), now: now}
	first, end := at.Height, last.Height
	if !older {
		// From the first block of the checkpoint's period: its time decides the next target.
		first, end = last.Height-last.Height%period, at.Tip
	}
	if end-first >= maxHeaders {
		return Proven{}, fmt.Errorf("%w: no chain is so long", ErrWrong)
	}
	for next := first; next <= end; {
		some, err := headers(ctx, next, end-next+1)
		if err != nil {
			return Proven{}, err
		}
		if len(some) == 0 || uint64(len(some)) > uint64(end-next+1) {
			return Proven{}, fmt.Errorf("%w: headers are missing from block %d on", ErrWrong, next)
		}
		for i := range some {
			if err := w.step(next, &some[i]); err != nil {
				return Proven{}, err
			}
			next++
		}
	}
	w.proven.Checkpoint = last.Height
	if !older {
		w.proven.Work = end - last.Height
	}
	return w.proven, nil
}

// walk follows headers one by one.
type walk struct {
	chain      Chain
	checkpoint Checkpoint
	at         Place
	root       Hash
	now        time.Time
	proven     Proven

	some     bool
	previous Hash
	bits     uint32      // of the header before
	begun    time.Time   // of the first block of the period
	times    []time.Time // of the last blocks, up to median
}

// step takes the header of the next height.
func (w *walk) step(height uint32, h *Header) error {
	hash, at := h.Hash(), time.Unix(int64(h.Time()), 0)
	if w.some && h.Previous() != w.previous {
		return fmt.Errorf("%w: block %d does not follow the one before", ErrWrong, height)
	}
	if height == w.checkpoint.Height && hash != w.checkpoint.Hash {
		return fmt.Errorf("%w: block %d is another one than Bitcoin has", ErrWrong, height)
	}
	if height > w.checkpoint.Height {
		if err := w.work(height, h, hash, at); err != nil {
			return err
		}
	}
	if height == w.at.Height {
		if h.Root() != w.root {
			return fmt.Errorf("%w: block %d does not have the transaction", ErrWrong, height)
		}
		w.proven.Time = at
	}
	if height%period == 0 {
		w.begun = at
	}
	w.some, w.previous, w.bits, w.proven.TipTime = true, hash, h.Bits(), at
	if w.times = append(w.times, at); len(w.times) > median {
		w.times = w.times[1:]
	}
	return nil
}

// work checks the target of a header, its hash, and its time, without which targets could be
// lowered.
func (w *walk) work(height uint32, h *Header, hash Hash, at time.Time) error {
	want := w.bits
	if height%period == 0 {
		want = w.chain.next(w.bits, w.times[len(w.times)-1].Sub(w.begun))
	}
	if h.Bits() != want {
		return fmt.Errorf("%w: block %d has another target than Bitcoin asks for", ErrWrong, height)
	}
	slices.Reverse(hash[:])
	if target := fromBits(want); target.Sign() <= 0 || new(big.Int).SetBytes(hash[:]).Cmp(target) > 0 {
		return fmt.Errorf("%w: block %d has too little work", ErrWrong, height)
	}
	sorted := slices.SortedFunc(slices.Values(w.times), time.Time.Compare)
	if (len(sorted) == median && !at.After(sorted[median/2])) || at.After(w.now.Add(ahead)) {
		return fmt.Errorf("%w: the time of block %d cannot be; is the clock of this computer right?", ErrWrong, height)
	}
	return nil
}

// next is the target of a period, from that of the one before and how long that took.
func (c Chain) next(bits uint32, took time.Duration) uint32 {
	const most = 4 // times that it may change
	took = min(max(took, timespan/most), timespan*most)
	target := fromBits(bits)
	target.Mul(target, big.NewInt(int64(took/time.Second)))
	target.Div(target, big.NewInt(int64(timespan/time.Second)))
	if target.Cmp(c.limit) > 0 {
		target = c.limit
	}
	return toBits(target)
}

// fromBits reads a target as headers have it: an exponent of 256, and 3 bytes with a sign.
func fromBits(bits uint32) *big.Int {
	target := big.NewInt(int64(bits & 0x007fffff))
	if bits&0x00800000 != 0 {
		return new(big.Int) // negative
	}
	if exponent := uint(bits >> 24); exponent <= 3 {
		target.Rsh(target, 8*(3-exponent))
	} else {
		target.Lsh(target, 8*(exponent-3))
	}
	return target
}

// toBits writes it.
func toBits(target *big.Int) uint32 {
	size := uint((target.BitLen() + 7) / 8)
	var mantissa uint64
	if size <= 3 {
		mantissa = target.Uint64() << (8 * (3 - size))
	} else {
		mantissa = new(big.Int).Rsh(target, 8*(size-3)).Uint64()
	}
	if mantissa&0x00800000 != 0 { // it would be the sign
		mantissa >>= 8
		size++
	}
	return uint32(size)<<24 | uint32(mantissa)
}
