package registry

// sequenceWindow is how far below the highest a seq may come and still be new:
// connections of one App may overtake each other (docs/protocol.md, section 5).
const sequenceWindow = 64

// sequence remembers which seq of one pairing came.
type sequence struct {
	highest uint64
	// seen has bit i set if highest-i came.
	seen uint64
}

// restoredSequence is what is left of a sequence after a restart: only highest
// was stored, so all below it counts as seen.
func restoredSequence(highest uint64) sequence {
	return sequence{highest: highest, seen: ^uint64(0)}
}

// take notes seq, and tells whether it is new.
func (s *sequence) take(seq uint64) bool {
	if seq > s.highest {
		// A shift by 64 or more leaves 0, as it must.
		s.seen = s.seen<<(seq-s.highest) | 1
		s.highest = seq
		return true
	}
	below := s.highest - seq
	if below >= sequenceWindow || s.seen&(1<<below) != 0 {
		return false
	}
	s.seen |= 1 << below
	return true
}
