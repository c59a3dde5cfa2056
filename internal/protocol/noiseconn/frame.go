package noiseconn

import (
	"encoding/binary"
	"errors"
	"io"

	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
)

// A handshake message travels in a frame. Integers are big endian.
//
//	offset  size
//	0       1     type: TypePair, TypeConnect or TypeClaim
//	1       2     length of the body
//	3       …     body
const (
	// TypePair is the type of a frame with P1, P2 or P3.
	TypePair byte = 0x01
	// TypeConnect is the type of a frame with R1 or R2.
	TypeConnect byte = 0x02
	// TypeClaim is the type of a frame with a claim: P1, with a mark before it. P2 and P3
	// follow in frames of TypePair.
	TypeClaim byte = 0x03
	// FrameHeaderSize is the length of a frame without its body, in bytes.
	FrameHeaderSize = 3
)

// ErrFrame says that no message of this protocol has such a type and length.
var ErrFrame = reason.New("malformed handshake frame")

// FrameSizeAllowed tells whether a frame of this type may have a body of this
// length. The sizes are exact.
func FrameSizeAllowed(typ byte, length int) bool {
	switch typ {
	case TypePair:
		return length == P1Size || length == P2Size || length == P3Size
	case TypeConnect:
		return length == R1Size || length == R2Size
	case TypeClaim:
		return length == ClaimSize
	}
	return false
}

// WriteFrame writes a frame with one call of Write. It refuses what the other
// side's ReadFrame would refuse.
func WriteFrame(w io.Writer, typ byte, body []byte) error {
	if !FrameSizeAllowed(typ, len(body)) {
		return reason.Errorf("write a frame of type %#02x with %d bytes: %w", typ, len(body), ErrFrame)
	}
	frame := make([]byte, 0, FrameHeaderSize+len(body))
	frame = append(frame, typ)
	frame = binary.BigEndian.AppendUint16(frame, uint16(len(body)))
	frame = append(frame, body...)
	if _, err := w.Write(frame); err != nil {
		return reason.Errorf("write a frame of type %#02x: %w", typ, err)
	}
	return nil
}

// ReadFrame reads a frame. A type or length that is not allowed is refused with
// ErrFrame after the three bytes of the header; nothing after the frame is
// read. Which message is due, by its length, is for the caller to check; the
// handshakes check it again.
//
// It returns io.EOF when the stream ends before the frame begins, and
// io.ErrUnexpectedEOF when it ends inside. The caller sets the deadline.
func ReadFrame(r io.Reader) (typ byte, body []byte, err error) {
	var header [FrameHeaderSize]byte
	if _, err := io.ReadFull(r, header[:]); err != nil {
		return 0, nil, reason.Errorf("read the header of a frame: %w", err)
	}
	typ = header[0]
	length := int(binary.BigEndian.Uint16(header[1:]))
	if !FrameSizeAllowed(typ, length) {
		return 0, nil, reason.Errorf("read a frame of type %#02x with %d bytes: %w", typ, length, ErrFrame)
	}
	body = make([]byte, length)
	if _, err := io.ReadFull(r, body); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return 0, nil, reason.Errorf("read the %d bytes of a frame of type %#02x: %w", length, typ, err)
	}
	return typ, body, nil
}
