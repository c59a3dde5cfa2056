package proof

import (
	"math/big"
	"time"
)

// OfRules is a chain of a test: the easiest target is as easy as bits.
func OfRules(bits uint32, checkpoints ...Checkpoint) Chain {
	return Chain{Checkpoints: checkpoints, limit: fromBits(bits)}
}

// Next, FromBits and ToBits are what the package computes with.
func (c Chain) Next(bits uint32, took int64) uint32 {
	return c.next(bits, time.Duration(took)*time.Second)
}
func FromBits(bits uint32) *big.Int { return fromBits(bits) }
func ToBits(target *big.Int) uint32 { return toBits(target) }
