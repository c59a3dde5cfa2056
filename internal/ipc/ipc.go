// Package ipc carries requests between the Base's own processes over a unix socket. A
// connection carries one request and one or more answers, and each message has its length in
// front. The package does not know what a message means.
//
//	request   length (4, big endian) | kind (2) | message
//	answers   length (4) | message, once or more; then the connection ends
//	          0xFFFFFFFF ends a stream of answers that is complete
//
// The kernel tells a server who its peer is, and the server refuses unwanted peers before it
// reads a byte. Its handler learns the kind and the length of a request before the rest is
// read. A server waits [RequestTime] for each of the two, holds at most [MaxConnections], and
// gives up on a peer that does not read its answer. A peer that hangs up cancels its request.
package ipc

import (
	"encoding/binary"
	"io"
	"time"

	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
)

// Bounds of both sides.
const (
	// MaxMessageSize is the longest message in bytes.
	MaxMessageSize = 1 << 20
	// RequestTime is how long a server waits for the header of a request, and for its message
	// once the handler reads it.
	RequestTime = 5 * time.Second
	// AnswerTime is how long a server waits for its peer to take one answer.
	AnswerTime = 5 * time.Second
	// MaxConnections is how many connections a server has at once. Further ones wait to be
	// accepted.
	MaxConnections = 128
	// MaxPerUser is how many of them one user may have. Further ones are closed: a compromised
	// daemon must not keep the console out.
	MaxPerUser = 96
	// RefusalTime is how long such a connection is left without an answer before it is closed.
	// Closed at once, it would be followed by the next at once, and the server would do nothing
	// but refuse.
	RefusalTime = time.Second
	// MaxRefusing is how many connections of one user are left so at the same time. Further ones
	// are closed at once.
	MaxRefusing = 1024
	// MaxTold is how many connections of one user that ended without an answer are told to the log
	// in each RefusalTime.
	MaxTold = 8
)

// endOfStream takes the place of a length, after the last answer.
const endOfStream = 0xFFFFFFFF

// errEndOfStream is returned by readMessage instead of a message.
var errEndOfStream = reason.New("the stream of answers has ended")

// writeRequest makes one Write call, like writeMessage.
func writeRequest(w io.Writer, kind uint16, message []byte) error {
	if len(message) > MaxMessageSize {
		return reason.Errorf("a message of %d bytes is longer than %d", len(message), MaxMessageSize)
	}
	b := binary.BigEndian.AppendUint32(make([]byte, 0, requestHeader+len(message)), uint32(len(message)))
	_, err := w.Write(append(binary.BigEndian.AppendUint16(b, kind), message...))
	return err
}

// requestHeader is the length of the part before the message of a request, in bytes.
const requestHeader = 4 + 2

// readRequest reads the header of a request.
func readRequest(r io.Reader) (kind uint16, size int, err error) {
	var header [requestHeader]byte
	if _, err := io.ReadFull(r, header[:]); err != nil {
		return 0, 0, err
	}
	length := binary.BigEndian.Uint32(header[:])
	if length > MaxMessageSize {
		return 0, 0, reason.Errorf("a message of %d bytes is longer than %d", length, MaxMessageSize)
	}
	return binary.BigEndian.Uint16(header[4:]), int(length), nil
}

// writeMessage makes one Write call, so that a peer that hangs up between two parts cannot cut a
// message.
func writeMessage(w io.Writer, message []byte) error {
	if len(message) > MaxMessageSize {
		return reason.Errorf("a message of %d bytes is longer than %d", len(message), MaxMessageSize)
	}
	b := binary.BigEndian.AppendUint32(make([]byte, 0, 4+len(message)), uint32(len(message)))
	_, err := w.Write(append(b, message...))
	return err
}

func writeEndOfStream(w io.Writer) error {
	_, err := w.Write(binary.BigEndian.AppendUint32(nil, endOfStream))
	return err
}

// readMessage refuses a message that is too long before it reads it. The end of the input before
// the first byte is io.EOF, later it is io.ErrUnexpectedEOF.
func readMessage(r io.Reader) ([]byte, error) {
	var header [4]byte
	if _, err := io.ReadFull(r, header[:]); err != nil {
		return nil, err
	}
	size := binary.BigEndian.Uint32(header[:])
	switch {
	case size == endOfStream:
		return nil, errEndOfStream
	case size > MaxMessageSize:
		return nil, reason.Errorf("a message of %d bytes is longer than %d", size, MaxMessageSize)
	}
	return readBody(r, int(size))
}

// readBody allocates only for bytes that have arrived.
func readBody(r io.Reader, size int) ([]byte, error) {
	message, err := io.ReadAll(io.LimitReader(r, int64(size)))
	if err != nil {
		return nil, err
	}
	if len(message) < size {
		return nil, io.ErrUnexpectedEOF
	}
	return message, nil
}
