package noiseconn

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync"
	"time"

	"github.com/flynn/noise"
	"golang.org/x/crypto/chacha20poly1305"

	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
)

// Records follow a handshake, numbered from 0 in each direction:
//
//	offset  size
//	0       2     length of the ciphertext, big endian: 16 to 16,400
//	2       …     ciphertext: 1 to 16,384 bytes and the tag, or, to end the session,
//	              the tag alone
//
// The key of a direction changes after record 4095, 8191, … (Rekey of the Noise
// specification); the number is not reset.
const (
	// MaxPlaintext is the most that one record carries, in bytes.
	MaxPlaintext = 16384
	// MaxCiphertext is the length of a full record without its header, in bytes.
	MaxCiphertext = MaxPlaintext + chacha20poly1305.Overhead
	// RekeyInterval is the number of records encrypted with one key.
	RekeyInterval = 4096

	recordHeaderSize = 2
	minCiphertext    = chacha20poly1305.Overhead
)

const (
	// readAhead is what an idle connection holds to receive into. Most calls of
	// the API fit in.
	readAhead = 2048
	// bufferSize holds two full records: while a stream flows, one read of the
	// socket brings more than one.
	bufferSize = 2 * (recordHeaderSize + MaxCiphertext)
	// closeTimeout bounds the attempt to send the close record. A peer that
	// reads finds room for 18 bytes at once.
	closeTimeout = 250 * time.Millisecond
	// maxEmptyReads ends a connection whose Read returns neither bytes nor an
	// error, as package bufio does.
	maxEmptyReads = 100
)

var (
	// ErrRecordSize says that a record is shorter than a tag or longer than
	// MaxCiphertext.
	ErrRecordSize = reason.New("record of a forbidden size")
	// ErrAfterClose says that bytes came after the close record.
	ErrAfterClose = reason.New("data after the close record")
	// ErrRecord says that a record was forged, damaged, repeated or lost.
	ErrRecord = reason.New("record refused: it is damaged or out of order")
	// ErrWriteClosed is returned by a write after the session has ended: after End or Close, or after
	// a read that has found the other side's close record.
	ErrWriteClosed = reason.Errorf("this direction of the channel: %w", net.ErrClosed)
)

// buffers are shared by all connections, so that an idle one holds none.
var buffers = sync.Pool{New: func() any { return new([bufferSize]byte) }}

// Conn is a net.Conn over the Transport of a handshake. Its methods may be
// called by several goroutines; each direction has a lock of its own.
//
// The first error of a direction is final, but for a timeout while reading. A
// record that is refused ends the whole connection.
type Conn struct {
	raw  net.Conn
	hash [32]byte
	peer PublicKey
	in   hidden[*receiver]
	out  hidden[*sender]
}

var _ net.Conn = (*Conn)(nil)

// NewConn carries on after a handshake on c: the frames were read and written on
// it, and nothing else. It takes the cipher states out of t. To use them twice
// would encrypt two texts with one key and nonce, so a second call with the same
// t panics, as does one with nil.
func NewConn(c net.Conn, t *Transport) *Conn {
	if t == nil || t.send == nil {
		panic("noiseconn: NewConn without a fresh Transport")
	}
	conn := &Conn{
		raw:  c,
		hash: t.HandshakeHash,
		peer: t.PeerStatic,
		in:   hide(&receiver{raw: c, cipher: t.receive()}),
		out:  hide(&sender{raw: c, cipher: t.send()}),
	}
	t.send, t.receive = nil, nil
	return conn
}

// HandshakeHash returns h, the same on both sides and on no other connection.
func (c *Conn) HandshakeHash() [32]byte { return c.hash }

// PeerStatic returns the static key the other side has proved to hold.
func (c *Conn) PeerStatic() PublicKey { return c.peer }

// NetConn returns the connection below. To read or write on it breaks this one;
// to close it cuts this one without a close record.
func (c *Conn) NetConn() net.Conn { return c.raw }

// LocalAddr returns the address of the connection below.
func (c *Conn) LocalAddr() net.Addr { return c.raw.LocalAddr() }

// RemoteAddr returns the address of the connection below.
func (c *Conn) RemoteAddr() net.Addr { return c.raw.RemoteAddr() }

// SetDeadline sets the deadlines of both directions.
func (c *Conn) SetDeadline(t time.Time) error { return c.raw.SetDeadline(t) }

// SetReadDeadline sets the deadline of reads. One that passed is no harm: the
// next read goes on where it stopped.
func (c *Conn) SetReadDeadline(t time.Time) error { return c.raw.SetReadDeadline(t) }

// SetWriteDeadline sets the deadline of writes. One that passes during a write
// is final, because a part of a record may be gone.
func (c *Conn) SetWriteDeadline(t time.Time) error { return c.raw.SetWriteDeadline(t) }

// Read returns io.EOF after the other side's close record, and
// io.ErrUnexpectedEOF when the stream ends without one: somebody cut it. It
// does not read bytes that come later than a close record; bytes that came along
// with it are ErrAfterClose.
func (c *Conn) Read(p []byte) (int, error) {
	n, err := c.in().read(p)
	c.endedBy(err)
	return n, err
}

// ReadRecord returns the plaintext of the next record, or what Read has left of
// one. Its errors are those of Read.
func (c *Conn) ReadRecord() ([]byte, error) {
	record, err := c.in().readRecord()
	c.endedBy(err)
	return record, err
}

// endedBy has nothing more sent once the other side has ended the session: it has stopped reading.
func (c *Conn) endedBy(err error) {
	if err == io.EOF {
		c.out().over()
	}
}

// Write splits p into records of at most MaxPlaintext bytes; an empty p sends
// nothing. The count it returns with an error is that of the bytes known to be
// handed on.
func (c *Conn) Write(p []byte) (int, error) { return c.out().write(p) }

// WriteRecord sends p, 1 to MaxPlaintext bytes, as one record.
func (c *Conn) WriteRecord(p []byte) error {
	if len(p) == 0 || len(p) > MaxPlaintext {
		return reason.Errorf("write a record of %d bytes (1 to %d): %w", len(p), MaxPlaintext, ErrRecordSize)
	}
	_, err := c.out().write(p)
	return err
}

// End ends the session by a close record: the other side reads what was sent before, and
// neither sends anything more. The connection below stays open, so that nothing that is on its
// way is lost; the caller closes it when the other side has had time to read.
func (c *Conn) End() error { return c.out().close() }

// Close sends a close record, if that is possible at once, and closes the
// connection below. A write that is blocked is cut.
func (c *Conn) Close() error {
	c.out().closeIfIdle()
	return c.raw.Close()
}

// receiver is one direction of a Conn.
type receiver struct {
	mu     sync.Mutex // guards everything below
	raw    net.Conn
	cipher *noise.CipherState
	err    error // sticky; nil: open

	// received[start:end] is received and not yet decrypted. It lies in small,
	// or in big while more is under way.
	start, end int
	small      [readAhead]byte
	big        *[bufferSize]byte // nil: small is in use
	plain      []byte            // decrypted and not yet read, in the same array
}

func (r *receiver) read(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(p) == 0 {
		return 0, nil
	}
	if err := r.nextLocked(); err != nil {
		return 0, err
	}
	n := copy(p, r.plain)
	r.consumeLocked(n)
	return n, nil
}

func (r *receiver) readRecord() ([]byte, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.nextLocked(); err != nil {
		return nil, err
	}
	record := append([]byte(nil), r.plain...)
	r.consumeLocked(len(record))
	return record, nil
}

// consumeLocked drops n bytes of plain, and the big array as soon as nothing is
// in it, so that an idle connection holds none.
func (r *receiver) consumeLocked(n int) {
	r.plain = r.plain[n:]
	if len(r.plain) > 0 || r.start < r.end {
		return
	}
	r.plain, r.start, r.end = nil, 0, 0
	r.releaseLocked()
}

func (r *receiver) releaseLocked() {
	if r.big != nil {
		buffers.Put(r.big)
		r.big = nil
	}
}

func (r *receiver) arrayLocked() []byte {
	if r.big != nil {
		return r.big[:]
	}
	return r.small[:]
}

// nextLocked returns with plaintext to read, or an error.
func (r *receiver) nextLocked() error {
	for len(r.plain) == 0 {
		if r.err != nil {
			return r.err
		}
		size, err := r.sizeLocked()
		switch {
		case err != nil:
			err = r.refuseLocked(err)
		case size > 0 && r.end-r.start >= size:
			err = r.openLocked(size)
		default:
			err = r.receiveLocked(max(size, recordHeaderSize))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// sizeLocked returns the length of the next record with its header, or 0 as long
// as the header is not here.
func (r *receiver) sizeLocked() (int, error) {
	if r.end-r.start < recordHeaderSize {
		return 0, nil
	}
	length := int(binary.BigEndian.Uint16(r.arrayLocked()[r.start:]))
	if length < minCiphertext || length > MaxCiphertext {
		return 0, reason.Errorf("read a record of %d bytes: %w", length, ErrRecordSize)
	}
	return recordHeaderSize + length, nil
}

// openLocked decrypts the first size bytes of what was received, in place.
func (r *receiver) openLocked(size int) error {
	ciphertext := r.arrayLocked()[r.start+recordHeaderSize : r.start+size]
	r.start += size
	plain, err := r.cipher.Decrypt(ciphertext[:0], nil, ciphertext)
	if err != nil {
		return r.refuseLocked(reason.Errorf("%w (record %d)", ErrRecord, r.cipher.Nonce()))
	}
	rekeyIfDue(r.cipher)
	if len(plain) > 0 {
		r.plain = plain
		return nil
	}
	if r.start < r.end {
		return r.refuseLocked(ErrAfterClose)
	}
	return r.failLocked(io.EOF)
}

// receiveLocked reads at least a byte, with room for a record of need bytes.
func (r *receiver) receiveLocked(need int) error {
	if need > readAhead && r.big == nil {
		big := buffers.Get().(*[bufferSize]byte)
		r.end = copy(big[:], r.small[r.start:r.end])
		r.start, r.big = 0, big
	}
	array := r.arrayLocked()
	if r.start+need > len(array) {
		r.end = copy(array, array[r.start:r.end])
		r.start = 0
	}
	for range maxEmptyReads {
		n, err := r.raw.Read(array[r.end:])
		r.end += n
		if n > 0 {
			return nil // an error comes again with the next read
		}
		if err == nil {
			continue
		}
		if errors.Is(err, io.EOF) {
			return r.failLocked(io.ErrUnexpectedEOF)
		}
		var netErr net.Error
		if errors.As(err, &netErr) && netErr.Timeout() {
			return err
		}
		return r.failLocked(err)
	}
	return r.failLocked(io.ErrNoProgress)
}

// refuseLocked ends the whole connection: the other side does not
// have the key, or breaks the protocol.
func (r *receiver) refuseLocked(err error) error {
	_ = r.raw.Close()
	return r.failLocked(err)
}

func (r *receiver) failLocked(err error) error {
	r.err = err
	r.plain, r.start, r.end = nil, 0, 0
	r.releaseLocked()
	return err
}

// sender is the other direction of a Conn.
type sender struct {
	mu     sync.Mutex // guards everything below
	raw    net.Conn
	cipher *noise.CipherState
	err    error // sticky; nil: open
}

func (s *sender) write(p []byte) (written int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return 0, s.err
	}
	buffer := buffers.Get().(*[bufferSize]byte)
	defer buffers.Put(buffer)
	for len(p) > 0 {
		out, taken := buffer[:0], 0
		for len(p) > taken && cap(out)-len(out) >= recordHeaderSize+MaxCiphertext {
			n := min(len(p)-taken, MaxPlaintext)
			if out, err = s.sealLocked(out, p[taken:taken+n]); err != nil {
				return written, err
			}
			taken += n
		}
		if _, err := s.raw.Write(out); err != nil {
			s.err = err
			return written, err
		}
		written += taken
		p = p[taken:]
	}
	return written, nil
}

// sealLocked appends one record to out, which has room for it.
func (s *sender) sealLocked(out, plaintext []byte) ([]byte, error) {
	out = binary.BigEndian.AppendUint16(out, uint16(len(plaintext)+chacha20poly1305.Overhead))
	out, err := s.cipher.Encrypt(out, nil, plaintext)
	if err != nil {
		s.err = err
		return nil, err
	}
	rekeyIfDue(s.cipher)
	return out, nil
}

// over makes every later write fail. A write that is under way ends as it does.
func (s *sender) over() {
	if !s.mu.TryLock() {
		return // it ends by the connection below
	}
	defer s.mu.Unlock()
	if s.err == nil {
		s.err = ErrWriteClosed
	}
}

func (s *sender) close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closeLocked()
}

// closeIfIdle does not wait for a write that is under way.
func (s *sender) closeIfIdle() {
	if !s.mu.TryLock() {
		return
	}
	defer s.mu.Unlock()
	if s.err == nil && s.raw.SetWriteDeadline(time.Now().Add(closeTimeout)) == nil {
		_ = s.closeLocked() // the other side then sees a cut stream, which it is
	}
}

func (s *sender) closeLocked() error {
	if s.err != nil {
		return s.err
	}
	record, err := s.sealLocked(make([]byte, 0, recordHeaderSize+minCiphertext), nil)
	if err != nil {
		return err
	}
	s.err = ErrWriteClosed
	if _, err := s.raw.Write(record); err != nil {
		s.err = err
		return reason.Errorf("send the close record: %w", err)
	}
	return nil
}

// rekeyIfDue is called after each record.
func rekeyIfDue(cipher *noise.CipherState) {
	if cipher.Nonce()%RekeyInterval == 0 {
		cipher.Rekey()
	}
}
