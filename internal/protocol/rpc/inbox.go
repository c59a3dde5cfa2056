package rpc

import "sync/atomic"

// inbox is what one direction of a call has received and nobody has taken. It
// never holds more than a window and one message.
type inbox struct {
	limit int // of one message, in bytes

	queue []parcel // complete messages
	part  parcel   // the message whose pieces arrive
	going bool     // part has begun

	single bool // there is one message only
	over   bool // no further message comes

	used int // bytes that the sender has used of the window
	owed int // bytes of used that credit is due for
}

// parcel is one message.
type parcel struct {
	data    []byte
	held    int   // bytes of frames that credit is not yet due for
	charged int64 // to the budget
}

// parcelCost is what a queued message costs beside its bytes, in bytes.
const parcelCost = 64

// creditStep is the least credit that is worth a frame. It leaves the sender the
// room for a full frame.
const creditStep = Window / 2

// add takes a data frame of size bytes. An *Error ends the call, any other error the
// session.
func (in *inbox) add(s state, piece []byte, size int, b *budget) error {
	if in.over {
		return violation("data after the last message")
	}
	if in.used += size; in.used > Window {
		return violation("data beyond the window")
	}
	if s == stateNone {
		if in.going {
			return violation("a message without an end")
		}
		in.over = true
		return nil
	}
	if len(in.part.data)+len(piece) > in.limit {
		in.drop(b)
		return in.tooLarge()
	}
	if !in.append(piece, b) {
		in.drop(b)
		return errNoMemory
	}
	in.part.held += size
	if in.going = s == stateMore; !in.going {
		in.queue = append(in.queue, in.part)
		in.part = parcel{}
		in.over = in.single
		return nil
	}
	in.release()
	return nil
}

// open takes the piece of an open. A whole message is not charged, so that a call of one
// frame finds its place however much others hold: MaxAppCalls bounds them.
func (in *inbox) open(s state, piece []byte, b *budget) *Error {
	switch {
	case s == stateNone:
		return nil
	case len(piece) > in.limit:
		return in.tooLarge()
	case s == stateLast:
		in.queue, in.over = []parcel{{data: piece}}, true
	case !in.append(piece, b):
		return errNoMemory
	default:
		in.going, in.single = true, true
	}
	return nil
}

func (in *inbox) tooLarge() *Error {
	return Errorf(Exhausted, "a message is larger than %d bytes", in.limit)
}

// append adds a piece to the message that arrives, and charges the budget.
func (in *inbox) append(piece []byte, b *budget) bool {
	p := &in.part
	if !in.going { // the record is this call's own: no copy
		charge := int64(len(piece) + parcelCost)
		if !b.take(charge) {
			return false
		}
		*p = parcel{data: piece[:len(piece):len(piece)], charged: charge}
		return true
	}
	if need := len(p.data) + len(piece); need > cap(p.data) {
		room := min(max(need, 2*cap(p.data), MaxRecord), in.limit)
		growth := int64(room - cap(p.data))
		if !b.take(growth) {
			return false
		}
		p.charged += growth
		p.data = append(make([]byte, 0, room), p.data...)
	}
	p.data = append(p.data, piece...)
	return true
}

// release makes credit due for the message that arrives while nobody has a message to
// take before it: otherwise one larger than the window would never be complete.
func (in *inbox) release() {
	if len(in.queue) == 0 {
		in.owed += in.part.held
		in.part.held = 0
	}
}

// take removes the first message.
func (in *inbox) take(b *budget) []byte {
	first := in.queue[0]
	in.queue[0] = parcel{}
	if in.queue = in.queue[1:]; len(in.queue) == 0 {
		in.queue = nil
	}
	b.give(first.charged)
	in.owed += first.held
	in.release()
	return first.data
}

// credit returns what to give now; 0: nothing.
func (in *inbox) credit() uint32 {
	if in.owed < creditStep || in.over {
		return 0
	}
	credit := in.owed
	in.used -= credit
	in.owed = 0
	return uint32(credit)
}

// drop forgets all messages, and gives their memory back.
func (in *inbox) drop(b *budget) {
	for _, p := range in.queue {
		b.give(p.charged)
	}
	b.give(in.part.charged)
	in.queue, in.part, in.going = nil, parcel{}, false
}

// budget bounds the bytes that are buffered by a session, and by its parent: all of
// them.
type budget struct {
	parent *budget // nil: none
	limit  int64
	used   atomic.Int64
}

// take reserves n bytes, or none.
func (b *budget) take(n int64) bool {
	if b.used.Add(n) > b.limit {
		b.used.Add(-n)
		return false
	}
	if b.parent != nil && !b.parent.take(n) {
		b.used.Add(-n)
		return false
	}
	return true
}

func (b *budget) give(n int64) {
	b.used.Add(-n)
	if b.parent != nil {
		b.parent.give(n)
	}
}
