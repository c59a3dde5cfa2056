package registry

import (
	"math"
	"testing"

	"pgregory.net/rapid"
)

func TestNoSequenceNumberIsTakenTwice(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := restoredSequence(0)
		taken := map[uint64]bool{}
		var highest uint64
		near := rapid.Uint64Range(1, 300)
		any := rapid.Uint64()
		for range rapid.IntRange(1, 200).Draw(t, "steps") {
			seq := near.Draw(t, "near")
			if rapid.IntRange(0, 50).Draw(t, "far") == 0 {
				seq = any.Draw(t, "any")
			}
			if rapid.IntRange(0, 30).Draw(t, "restart") == 0 {
				s = restoredSequence(s.highest)
			}
			got := s.take(seq)
			if got && taken[seq] {
				t.Fatalf("seq %d was taken twice", seq)
			}
			if seq > highest && !got {
				t.Fatalf("seq %d, above all before it (%d), was refused", seq, highest)
			}
			if got {
				taken[seq] = true
				highest = max(highest, seq)
			}
		}
	})
}

func TestConnectionsMayOvertakeEachOtherWithinTheWindow(t *testing.T) {
	s := restoredSequence(100)
	for _, step := range []struct {
		seq  uint64
		want bool
	}{
		{100, false}, {99, false}, {200, true}, {137, true}, {137, false}, {136, false},
		{199, true}, {100, false}, {math.MaxUint64, true}, {200, false},
		{math.MaxUint64 - 63, true}, {math.MaxUint64 - 64, false}, {0, false},
	} {
		if got := s.take(step.seq); got != step.want {
			t.Errorf("seq %d: taken %t, want %t", step.seq, got, step.want)
		}
	}
}
