package registry

import (
	"slices"

	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/noiseconn"
	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
)

// sequenceWindow is how many accepted numbers are remembered: connections of one App may
// overtake each other (docs/protocol.md, section 5).
const sequenceWindow = 64

// Why a seq is refused.
var (
	errSeqSeen = reason.New("this number came before")
	// A number far above all others would lock its App out for good.
	errSeqTooHigh = reason.New("this number is far above what an App's clock and counter give")
)

// sequence remembers which seq of one pairing were accepted. The zero sequence has
// accepted none.
type sequence struct {
	// floor: every number up to it counts as accepted.
	floor uint64
	// accepted are the numbers above floor, the lowest first, at most sequenceWindow.
	accepted []uint64
}

// restoredSequence is what is left of a sequence after a restart: only the highest
// number was stored, so all below it counts as accepted.
func restoredSequence(highest uint64) sequence { return sequence{floor: highest} }

// highest is the highest number that was accepted.
func (s *sequence) highest() uint64 {
	if len(s.accepted) == 0 {
		return s.floor
	}
	return s.accepted[len(s.accepted)-1]
}

// accept takes note of seq, or says why it is refused.
func (s *sequence) accept(seq uint64) error {
	at, seen := slices.BinarySearch(s.accepted, seq)
	switch highest := s.highest(); {
	case seen || seq <= s.floor:
		return errSeqSeen
	case seq > noiseconn.MaxSeqClock && seq > highest && seq-highest > noiseconn.MaxSeqStep:
		return errSeqTooHigh
	}
	s.accepted = slices.Insert(s.accepted, at, seq)
	if len(s.accepted) > sequenceWindow {
		s.floor = s.accepted[0]
		s.accepted = slices.Delete(s.accepted, 0, 1)
	}
	return nil
}
