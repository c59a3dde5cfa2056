package registry

import (
	"encoding/json"
	"errors"
	"math"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/noiseconn"
)

// A recorder has every R1 of an App and sends them again, whenever he likes; the Base is
// saved, stopped and killed at any time. An R1 is answered once, and once more for each
// loss of memory that forgot it, and for nothing else.
func TestARecorderGainsOneAnswerPerLossAndNothingElse(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s, disk := restoredSequence(0), uint64(0)
		answers, allowed := map[uint64]int{}, map[uint64]int{}
		var sent []uint64
		next := uint64(1)
		arrive := func(seq uint64) {
			err := s.accept(seq)
			if err != nil {
				return
			}
			if answers[seq]++; answers[seq] > 1+allowed[seq] {
				t.Fatalf("seq %d was answered %d times; %d losses have forgotten it", seq, answers[seq], allowed[seq])
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"connect": func(t *rapid.T) {
				next += rapid.Uint64Range(1, 200).Draw(t, "ms")
				sent = append(sent, next)
				before := s.highest()
				if arrive(next); s.highest() != next || next <= before {
					t.Fatalf("seq %d, above all before it, was refused", next)
				}
			},
			"overtaken": func(t *rapid.T) {
				// An R1 that is on its way, and that others overtake.
				next++
				late := next
				sent = append(sent, late)
				for range rapid.IntRange(0, sequenceWindow-1).Draw(t, "others") {
					next += rapid.Uint64Range(1, 1000).Draw(t, "ms")
					sent = append(sent, next)
					arrive(next)
				}
				before := answers[late]
				if arrive(late); answers[late] != before+1 {
					t.Fatalf("seq %d was overtaken by fewer than %d, and refused", late, sequenceWindow)
				}
			},
			"replay": func(t *rapid.T) {
				if len(sent) > 0 {
					arrive(sent[rapid.IntRange(0, len(sent)-1).Draw(t, "which")])
				}
			},
			"replay all": func(*rapid.T) {
				for _, seq := range slices.Sorted(slices.Values(sent)) {
					arrive(seq)
				}
			},
			"save": func(*rapid.T) { disk = max(disk, s.highest()) },
			"kill": func(*rapid.T) {
				for seq, n := range answers {
					if n > 0 && seq > disk {
						allowed[seq]++
					}
				}
				s = restoredSequence(disk)
			},
			"stop": func(*rapid.T) {
				disk = max(disk, s.highest())
				s = restoredSequence(disk)
			},
			"": func(t *rapid.T) {
				if len(s.accepted) > sequenceWindow || !slices.IsSorted(s.accepted) || len(s.accepted) > 0 && s.accepted[0] <= s.floor {
					t.Fatalf("%+v", s)
				}
			},
		})
	})
}

// The number that was accepted longest ago makes room, and must not be accepted again. The broken
// variant forgets it.
func TestANumberThatLeavesTheWindowStaysRefused(t *testing.T) {
	attack := func(forgets bool) (again int) {
		s := restoredSequence(0)
		for seq := uint64(1); seq <= 2*sequenceWindow; seq++ {
			if err := s.accept(seq); err != nil {
				t.Fatal(err)
			}
			if forgets {
				s.floor = 0
			}
		}
		for seq := uint64(1); seq <= 2*sequenceWindow; seq++ {
			if s.accept(seq) == nil {
				again++
			}
		}
		return again
	}
	if n := attack(false); n != 0 {
		t.Errorf("%d numbers were accepted twice", n)
	}
	if attack(true) == 0 {
		t.Error("the broken variant withstands, so this test shows nothing")
	}
}

func TestANumberThatWouldLockItsAppOutIsRefused(t *testing.T) {
	const top = noiseconn.MaxSeqClock
	for _, c := range []struct {
		highest, seq uint64
		want         error
	}{
		{0, 1, nil},
		{0, top, nil},
		{0, top + noiseconn.MaxSeqStep, errSeqTooHigh},
		{0, 1 << 63, errSeqTooHigh},
		{0, math.MaxUint64, errSeqTooHigh},
		{top, top + 1, nil},
		{top, top + noiseconn.MaxSeqStep, nil},
		{top, top + noiseconn.MaxSeqStep + 1, errSeqTooHigh},
		{math.MaxUint64 - 1, math.MaxUint64, nil}, // no overflow
		{top, top, errSeqSeen},
		{math.MaxUint64, 0, errSeqSeen},
	} {
		s := restoredSequence(c.highest)
		if err := s.accept(c.seq); !errors.Is(err, c.want) {
			t.Errorf("seq %d after %d: %v, want %v", c.seq, c.highest, err, c.want)
		}
		if c.want != nil && s.highest() != c.highest {
			t.Errorf("seq %d after %d was refused, and noted", c.seq, c.highest)
		}
	}
	// An App whose clock is beyond 2100, or jumps, gets on: it counts from there.
	s, last := restoredSequence(top-1), uint64(top-1)
	for range 1000 {
		last = noiseconn.NextSeq(last, math.MaxInt64)
		if err := s.accept(last); err != nil {
			t.Fatal(err)
		}
	}
}

// The file that tells other authors what a Base refuses is right about numbers.
func TestEachNumberOfTheNegativeVectorsIsRefused(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "..", "..", "docs", "protocol.negative.json"))
	if err != nil {
		t.Fatal(err)
	}
	var vectors struct {
		Refused []struct {
			Highest uint64 `json:"highest_accepted"`
			Seq     uint64 `json:"seq"`
			Why     string `json:"why"`
		} `json:"seq_refused"`
	}
	if err := json.Unmarshal(text, &vectors); err != nil || len(vectors.Refused) == 0 {
		t.Fatalf("no numbers: %v", err)
	}
	for _, v := range vectors.Refused {
		s := sequence{}
		if v.Highest > 0 {
			s = restoredSequence(v.Highest - 1)
			if err := s.accept(v.Highest); err != nil {
				t.Errorf("%s: the highest, %d, is refused itself: %v", v.Why, v.Highest, err)
			}
		}
		if s.accept(v.Seq) == nil {
			t.Errorf("%s: %d was accepted after %d", v.Why, v.Seq, v.Highest)
		}
	}
}
