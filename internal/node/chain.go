package node

import (
	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"

	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
)

const (
	// maxRemembered is how many blocks are remembered.
	maxRemembered = 100
	// mostNew is how many blocks are asked for when the chain has grown. If it has grown by
	// more, the node catches up, and only the newest latestNew are asked for.
	mostNew   = 144
	latestNew = 4
)

// chain is the newest blocks of the best chain that are known, in their order. There are gaps
// where the node was faster than the watcher.
type chain struct{ blocks []*basev1.Block }

// change is how the best chain is different.
type change struct {
	// added are the new blocks that are known, in their order.
	added []*basev1.Block
	// replaced is how many blocks, at least, others have taken the place of.
	replaced uint64
	// lost is how many blocks are gone without others: the node is behind where it was.
	lost uint64
	// before is the best block before, nil if none was known.
	before *basev1.Block
}

func (c *chain) top() *basev1.Block {
	if len(c.blocks) == 0 {
		return nil
	}
	return c.blocks[len(c.blocks)-1]
}

// wanted returns the heights whose hashes tell how the chain has changed, if the best block is
// at the height tip: the heights that are remembered, and the new ones.
func (c *chain) wanted(tip uint64) (heights []uint64) {
	from := uint64(0)
	for _, b := range c.blocks {
		if b.GetHeight() <= tip {
			heights = append(heights, b.GetHeight())
			from = b.GetHeight() + 1
		}
	}
	if most := uint64(mostNew); len(c.blocks) == 0 || tip >= from+most {
		from = max(from, tip-min(tip, latestNew-1))
	}
	for height := from; height <= tip; height++ {
		heights = append(heights, height)
	}
	return heights
}

// unknown returns the heights of the blocks that are to be asked for, when these are the hashes
// of the best chain.
func (c *chain) unknown(tip uint64, hashes map[uint64]string) (heights []uint64) {
	kept := c.kept(hashes)
	known := map[uint64]bool{}
	for _, b := range c.blocks[:kept] {
		known[b.GetHeight()] = true
	}
	for _, height := range c.wanted(tip) {
		if !known[height] {
			heights = append(heights, height)
		}
	}
	return heights
}

// kept is how many of the remembered blocks are still in the best chain.
func (c *chain) kept(hashes map[uint64]string) int {
	for i, b := range c.blocks {
		if hashes[b.GetHeight()] != b.GetHash() {
			return i
		}
	}
	return len(c.blocks)
}

// errMoved: the chain has changed while it was asked for.
var errMoved = reason.New("the best chain has changed in between")

// follow takes the new blocks: those of unknown, in their order.
func (c *chain) follow(tip uint64, hashes map[uint64]string, blocks []*basev1.Block) (change, error) {
	kept := c.kept(hashes)
	last := (*basev1.Block)(nil)
	if kept > 0 {
		last = c.blocks[kept-1]
	}
	for _, b := range blocks {
		if b.GetHash() != hashes[b.GetHeight()] || last != nil && b.GetHeight() == last.GetHeight()+1 && b.GetPrevious() != last.GetHash() {
			return change{}, errMoved
		}
		last = b
	}
	changed := change{added: blocks, before: c.top()}
	if gone := c.blocks[kept:]; len(gone) > 0 {
		top := c.top().GetHeight()
		if gone[0].GetHeight() > tip { // all that is left is still the best chain
			changed.lost = top - tip
		} else {
			fork := gone[0].GetHeight() - 1
			changed.replaced = top - fork
		}
	}
	c.blocks = append(c.blocks[:kept:kept], blocks...)
	if extra := len(c.blocks) - maxRemembered; extra > 0 {
		c.blocks = append([]*basev1.Block(nil), c.blocks[extra:]...)
	}
	return changed, nil
}
