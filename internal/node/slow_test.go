package node

import (
	"testing"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
)

// A follower misses nothing, or its stream ends: there are no gaps. The others go on.
func TestAFollowerThatIsTooSlowIsEnded(t *testing.T) {
	w := NewWatcher(Config{Without: &basev1.Node{}})
	slow, _, err := w.Follow()
	if err != nil {
		t.Fatal(err)
	}
	quick, _, err := w.Follow()
	if err != nil {
		t.Fatal(err)
	}
	const rounds = 2 * followerQueue
	for n := range rounds {
		w.mu.Lock()
		w.tellLocked([]*basev1.Block{{Height: uint64(n)}}, nil)
		w.mu.Unlock()
		if news := <-quick.News; news.Block.GetHeight() != uint64(n) {
			t.Fatalf("%v came after block %d", news, n-1)
		}
	}
	got := 0
	for news := range slow.News { // it ends
		if news.Block.GetHeight() != uint64(got) {
			t.Fatalf("%v came after %d blocks", news, got)
		}
		got++
	}
	if got != followerQueue {
		t.Errorf("%d blocks came", got)
	}
	slow.Close()
	quick.Close()
}
