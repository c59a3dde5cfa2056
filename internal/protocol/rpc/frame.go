package rpc

import (
	"encoding/binary"

	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
)

// One record is one frame:
//
//	offset  size
//	0       1     kind
//	1       4     call, big endian as all numbers; in a ping and a pong, the ping's number
//	5       …     body
//
//	kind      from   body
//	1 open    App    state (1) | deadline in ms, 0: none (4) | length of the name (1) | name | piece
//	2 data    both   state (1) | piece
//	3 end     Base   code (1) | answer (code 0), or text
//	4 cancel  App    nothing
//	5 credit  both   bytes (4)
//	6 ping    both   nothing
//	7 pong    both   nothing
//	8 redial  Base   nothing; the call is 0
type kind byte

const (
	kindOpen kind = 1 + iota
	kindData
	kindEnd
	kindCancel
	kindCredit
	kindPing
	kindPong
	kindRedial
)

// state says what a piece is.
type state byte

const (
	// stateLast: the message ends with this piece.
	stateLast state = iota
	// stateMore: a further piece follows in a data frame.
	stateMore
	// stateNone: no piece. In an open, messages may follow; in a data frame, no
	// further message does.
	stateNone
)

const (
	frameHeader = 1 + 4
	openHeader  = frameHeader + 1 + 4 + 1 // and the name
	dataHeader  = frameHeader + 1
	endHeader   = frameHeader + 1
)

// ErrProtocol says that the peer broke the rules of the protocol. It ends the session.
var ErrProtocol = reason.New("the peer broke the rules of the RPC")

func violation(format string, args ...any) error {
	return reason.Errorf("%w: "+format, append([]any{ErrProtocol}, args...)...)
}

// frame is one frame; its slices lie in the record that it was parsed from.
type frame struct {
	kind     kind
	call     uint32
	state    state  // open, data
	deadline uint32 // open
	name     []byte // open
	code     Code   // end
	credit   uint32 // credit
	piece    []byte // open, data; end: the answer or the text
}

// parse takes a record apart. It allocates nothing.
func parse(record []byte) (f frame, err error) {
	if len(record) < frameHeader || len(record) > MaxRecord {
		return f, violation("a frame of %d bytes", len(record))
	}
	f.kind, f.call = kind(record[0]), binary.BigEndian.Uint32(record[1:])
	body := record[frameHeader:]
	switch f.kind {
	case kindOpen:
		return f, f.parseOpen(body)
	case kindData:
		if len(body) < 1 {
			return f, violation("a data frame without a state")
		}
		f.state, f.piece = state(body[0]), body[1:]
		return f, f.checkState()
	case kindEnd:
		if len(body) < 1 {
			return f, violation("an end without a code")
		}
		f.code, f.piece = Code(body[0]), body[1:]
		if f.code >= codes {
			return f, violation("an end with the unknown code %d", f.code)
		}
		return f, nil
	case kindCredit:
		if len(body) != 4 {
			return f, violation("a credit of %d bytes", len(body))
		}
		f.credit = binary.BigEndian.Uint32(body)
		return f, nil
	case kindCancel, kindPing, kindPong, kindRedial:
		if len(body) != 0 {
			return f, violation("a frame of kind %d with a body", f.kind)
		}
		if f.kind == kindRedial && f.call != 0 {
			return f, violation("a redial for call %d", f.call)
		}
		return f, nil
	}
	return f, violation("a frame of the unknown kind %d", f.kind)
}

func (f *frame) parseOpen(body []byte) error {
	if len(body) < openHeader-frameHeader {
		return violation("an open of %d bytes", len(body))
	}
	f.state, f.deadline = state(body[0]), binary.BigEndian.Uint32(body[1:])
	length := int(body[5])
	body = body[6:]
	if length < 1 || length > MaxName || length > len(body) {
		return violation("an open with a name of %d bytes", length)
	}
	f.name, f.piece = body[:length], body[length:]
	return f.checkState()
}

// checkState refuses what an honest peer has no reason to send, above all pieces
// that carry nothing.
func (f *frame) checkState() error {
	switch {
	case f.state > stateNone:
		return violation("the unknown state %d", f.state)
	case f.state == stateNone && len(f.piece) > 0:
		return violation("a piece where there is none")
	case f.state == stateMore && len(f.piece) == 0:
		return violation("an empty piece of a message that goes on")
	}
	return nil
}

// append appends the frame, without a limit on its length.
func (f frame) append(b []byte) []byte {
	b = append(b, byte(f.kind))
	b = binary.BigEndian.AppendUint32(b, f.call)
	switch f.kind {
	case kindOpen:
		b = append(b, byte(f.state))
		b = binary.BigEndian.AppendUint32(b, f.deadline)
		b = append(b, byte(len(f.name)))
		b = append(b, f.name...)
	case kindData:
		b = append(b, byte(f.state))
	case kindEnd:
		b = append(b, byte(f.code))
	case kindCredit:
		b = binary.BigEndian.AppendUint32(b, f.credit)
	}
	return append(b, f.piece...)
}
