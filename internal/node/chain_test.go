package node

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
)

// history is a best chain: its blocks by height.
type history []*basev1.Block

// grow adds blocks that only this branch has.
func (h history) grow(branch string, blocks int) history {
	grown := append(history(nil), h...)
	for range blocks {
		b := &basev1.Block{Height: uint64(len(grown)), Hash: fmt.Sprintf("%s-%d", branch, len(grown))}
		if n := len(grown); n > 0 {
			b.Previous = grown[n-1].GetHash()
		}
		grown = append(grown, b)
	}
	return grown
}

// follow has a chain follow a history, as a Watcher does.
func (c *chain) followHistory(t interface{ Fatal(...any) }, h history) change {
	tip := uint64(len(h) - 1)
	hashes := map[uint64]string{}
	for _, height := range c.wanted(tip) {
		hashes[height] = h[height].GetHash()
	}
	var blocks []*basev1.Block
	for _, height := range c.unknown(tip, hashes) {
		blocks = append(blocks, h[height])
	}
	changed, err := c.follow(tip, hashes, blocks)
	if err != nil {
		t.Fatal(err)
	}
	return changed
}

func names(blocks []*basev1.Block) string {
	var all []string
	for _, b := range blocks {
		all = append(all, b.GetHash())
	}
	return strings.Join(all, " ")
}

func TestTheChainTellsNewReplacedAndLostBlocksApart(t *testing.T) {
	var c chain
	base := history{}.grow("a", 50)
	for _, step := range []struct {
		what           string
		chain          history
		added          string
		replaced, lost uint64
	}{
		{"first", base, "a-46 a-47 a-48 a-49", 0, 0},
		{"one more", base.grow("a", 1), "a-50", 0, 0},
		{"nothing", base.grow("a", 1), "", 0, 0},
		{"one is replaced by two", base.grow("b", 2), "b-50 b-51", 1, 0},
		{"three are replaced by five", base[:49].grow("c", 4), "c-49 c-50 c-51 c-52", 3, 0},
		{"lost", base[:49].grow("c", 1), "", 0, 3},
		{"the same come again", base[:49].grow("c", 4), "c-50 c-51 c-52", 0, 0},
		{"all that is remembered is replaced", base[:20].grow("d", 33), "d-46 d-47 d-48 d-49 d-50 d-51 d-52", 7, 0},
		{"a shorter chain with more work", base[:20].grow("e", 31), "e-46 e-47 e-48 e-49 e-50", 7, 0},
		{"a great many", base[:20].grow("e", 500), "e-516 e-517 e-518 e-519", 0, 0},
		{"behind all that was remembered but one", base[:20].grow("e", 29), "", 0, 471},
		{"a network that was started over", history{}.grow("f", 1), "f-0", 0, 48},
	} {
		got := c.followHistory(t, step.chain)
		if names(got.added) != step.added || got.replaced != step.replaced || got.lost != step.lost {
			t.Errorf("%s: added %q, replaced %d, lost %d; want %q, %d, %d", step.what, names(got.added), got.replaced, got.lost, step.added,
				step.replaced, step.lost)
		}
	}
}

func TestAChainThatMovesWhileItIsAskedChangesNothing(t *testing.T) {
	var c chain
	base := history{}.grow("a", 10)
	c.followHistory(t, base)
	before := names(c.blocks)
	longer := base.grow("a", 2)
	hashes := map[uint64]string{}
	for _, height := range c.wanted(11) {
		hashes[height] = longer[height].GetHash()
	}
	other := base[:9].grow("b", 3)
	for what, blocks := range map[string][]*basev1.Block{
		"another block":            {longer[10], other[11]},
		"a block that hangs loose": {{Height: 10, Hash: longer[10].GetHash(), Previous: "elsewhere"}, longer[11]},
	} {
		if _, err := c.follow(11, hashes, blocks); !errors.Is(err, errMoved) || names(c.blocks) != before {
			t.Errorf("%s: %v, and %s is remembered", what, err, names(c.blocks))
		}
	}
}

// Over random chains what is remembered is always part of the best chain, in its order, and
// bounded; and so is what is asked for.
func TestTheRememberedBlocksAreTheBestChain(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var c chain
		h := history{}.grow("begin", 1)
		for n := range rapid.IntRange(1, 30).Draw(t, "steps") {
			back := rapid.IntRange(0, min(len(h)-1, 150)).Draw(t, "back")
			h = h[:len(h)-back].grow(fmt.Sprint("step ", n), rapid.IntRange(0, 300).Draw(t, "grow"))
			if wanted := c.wanted(uint64(len(h) - 1)); len(wanted) > MaxHashes {
				t.Fatalf("%d hashes are asked for", len(wanted))
			}
			changed := c.followHistory(t, h)
			if len(c.blocks) > maxRemembered || len(changed.added) > followerQueue {
				t.Fatalf("%d are remembered, %d are new", len(c.blocks), len(changed.added))
			}
			for i, b := range c.blocks {
				if h[b.GetHeight()] != b || i > 0 && b.GetHeight() <= c.blocks[i-1].GetHeight() {
					t.Fatalf("step %d: %s is remembered", n, names(c.blocks))
				}
			}
			if c.top() != h[len(h)-1] {
				t.Fatalf("step %d: the best block is not remembered", n)
			}
		}
	})
}
