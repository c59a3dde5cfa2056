package rpc

import (
	"cmp"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
)

const (
	// PingAfter is how long after its last pong a peer is asked again by the Base
	// whether it is there, and appPingAfter by the App.
	PingAfter    = 60 * time.Second
	appPingAfter = 15 * time.Second
	// PeerTime is how long a pong may take, and a record to leave. A peer that is
	// gone, or does not read, is ended within PingAfter and PeerTime.
	PeerTime = 15 * time.Second
	// armedFor is how long one write deadline serves further records: setting it is a part
	// of what a call costs. A record then has up to so much less than PeerTime.
	armedFor = time.Second
	// FirstPing is when a session of the App sends a ping at the latest: the Base
	// begins a session with the first record, and waits 5 s for it.
	FirstPing = 500 * time.Millisecond
	// SendTime is how long a message may wait for the credit of its receiver.
	SendTime = 30 * time.Second
	// ReceiveTime is how long the Base waits for the next message of a request.
	ReceiveTime = 30 * time.Second
)

// limits are what bounds a peer at one end. Tests take single ones away, to show what
// an attack gains without.
type limits struct {
	calls                 int
	appCalls              int64         // of all sessions of an App
	frameStep             time.Duration // 0: any rate
	buffer, peerBuffer    int64
	pingAfter, peerTime   time.Duration
	sendTime, receiveTime time.Duration
}

var (
	baseLimits = limits{
		calls: MaxCalls, appCalls: MaxAppCalls, frameStep: time.Second / FrameRate, buffer: SessionBuffer, peerBuffer: PeerBuffer,
		pingAfter: PingAfter, peerTime: PeerTime, sendTime: SendTime, receiveTime: ReceiveTime,
	}
	appLimits = limits{calls: MaxCalls, buffer: appBuffer, pingAfter: appPingAfter, peerTime: PeerTime, sendTime: SendTime}
)

// ErrGone says that the peer has vanished or does not read.
var ErrGone = reason.New("the peer does not answer")

// errClosed is why a session ended that this side closed.
var errClosed = reason.New("the session was closed")

// records is where frames are put together.
var records = sync.Pool{New: func() any { return new([MaxRecord]byte) }}

// link is what both ends of a session have in common: the writing of frames, the
// keep-alive, and the windows of calls.
type link struct {
	conn   Conn
	limits *limits
	budget budget
	// writing holds a token while somebody writes a record: a mutex whose waiters
	// give up when the session ends.
	writing chan struct{}
	armed   time.Time     // when the write deadline was set; guarded by writing
	done    chan struct{} // closed when the session ends

	// For the one goroutine that reads.
	pinged uint32 // the number of the ping under way; 0: none

	mu   sync.Mutex
	err  error  // why the session ended
	last uint32 // number of the last call that was opened
	// control are the frames that the reading has caused and that have not left. It
	// never writes itself: two peers who both wait for the other to read would wait for
	// ever. At most: a ping, a pong, a redial, and of each call a cancel and two credits.
	control  []frame
	flushing bool // a goroutine writes them
}

// call is one call, at either end. All but its constants is guarded by link.mu.
type call struct {
	id   uint32
	wake chan struct{} // has a token when something of the below has changed
	in   inbox
	// window is how many bytes of data frames may still be sent.
	window int
	// failed is why this side ends the call.
	failed *Error
	// ended: at the App, the end is here; at the Base, it is sent.
	ended bool
}

func (l *link) start(conn Conn, limits *limits, parent *budget) {
	l.conn, l.limits = conn, limits
	l.budget = budget{parent: parent, limit: limits.buffer}
	l.writing, l.done = make(chan struct{}, 1), make(chan struct{})
}

// newCall prepares a call; limit is the largest message that it receives.
func newCall(id uint32, limit int) call {
	return call{id: id, wake: make(chan struct{}, 1), window: Window, in: inbox{limit: limit}}
}

func (c *call) signal() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// fail ends the session; the first reason counts.
func (l *link) fail(err error) {
	l.mu.Lock()
	first := l.err == nil
	if first {
		l.err = err
		close(l.done)
	}
	l.mu.Unlock()
	if !first {
		return
	}
	// Nobody writes from here on, so that the channel can say goodbye if nobody does now.
	select {
	case l.writing <- struct{}{}:
	default:
	}
	_ = l.conn.Close()
}

// lockWriting takes the token of writing, which ends with the session.
func (l *link) lockWriting(ctx context.Context) error {
	select {
	case l.writing <- struct{}{}:
		return nil
	default:
	}
	select {
	case l.writing <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-l.done:
		return l.lost()
	}
}

func (l *link) unlockWriting() { <-l.writing }

// lost is what calls end with when their session has ended.
func (l *link) lost() *Error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return &Error{Code: Unavailable, Text: "the connection was lost: " + l.err.Error(), Cause: l.err}
}

// writeLocked writes a record, with the token of writing. A record that does not
// leave in time ends the session.
func (l *link) writeLocked(record []byte) error {
	var err error
	if now := time.Now(); now.Sub(l.armed) >= armedFor {
		l.armed, err = now, l.conn.SetWriteDeadline(now.Add(l.limits.peerTime))
	}
	if err == nil {
		err = l.conn.WriteRecord(record)
	}
	if err == nil {
		return nil
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = ErrGone
	}
	l.fail(err)
	return l.lost()
}

// write writes a frame, and behind it a message that fits; nil: none.
func (l *link) write(f frame, m proto.Message) error { return l.writeAfter(nil, f, m) }

// writeAfter calls before, unless that is nil, when it is this frame's turn: as long as
// others wait for a slow peer their calls keep their places.
func (l *link) writeAfter(before func(), f frame, m proto.Message) error {
	if err := l.lockWriting(context.Background()); err != nil {
		return err
	}
	defer l.unlockWriting()
	// Not before: what waits for its turn holds no record.
	buffer := records.Get().(*[MaxRecord]byte)
	defer records.Put(buffer)
	record := f.append(buffer[:0])
	if m != nil {
		var err error
		if record, err = (proto.MarshalOptions{UseCachedSize: true}).MarshalAppend(record, m); err != nil {
			return NewError(Internal, err)
		}
		if len(record) > MaxRecord {
			return Errorf(Internal, "a message has changed while it was sent")
		}
	}
	if before != nil {
		before()
	}
	return l.writeLocked(record)
}

// enqueue has a frame written that brings about no other one.
func (l *link) enqueue(f frame) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.enqueueLocked(f)
}

func (l *link) enqueueLocked(f frame) {
	l.control = append(l.control, f)
	if !l.flushing {
		l.flushing = true
		go l.flush()
	}
}

func (l *link) flush() {
	for {
		l.mu.Lock()
		if len(l.control) == 0 {
			l.control, l.flushing = nil, false
			l.mu.Unlock()
			return
		}
		f := l.control[0]
		l.control = l.control[1:]
		l.mu.Unlock()
		if l.write(f, nil) != nil {
			return // the session has ended
		}
	}
}

// read reads frames until the session ends, and hands all that is about calls to
// handle. admit sees each frame before; both end the session by an error.
func (l *link) read(first time.Duration, admit func(frame) error, handle func(frame, int) error) error {
	if err := l.conn.SetReadDeadline(time.Now().Add(first)); err != nil {
		return err
	}
	for {
		record, err := l.conn.ReadRecord()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			err = l.ping()
			if err == nil {
				continue
			}
		}
		if err != nil {
			return err
		}
		f, err := parse(record)
		if err != nil {
			return err
		}
		if err := admit(f); err != nil {
			return err
		}
		switch f.kind {
		case kindPing:
			err = l.gotPing(f.call)
		case kindPong:
			err = l.gotPong(f.call)
		default:
			err = handle(f, len(record))
		}
		if err != nil {
			return err
		}
	}
}

// ping asks whether the peer is there; if that was asked before, it is not.
func (l *link) ping() error {
	if l.pinged != 0 {
		return ErrGone
	}
	// Its number shows that the peer reads: it cannot be answered unread.
	for l.pinged == 0 {
		l.pinged = rand.Uint32()
	}
	if err := l.conn.SetReadDeadline(time.Now().Add(l.limits.peerTime)); err != nil {
		return err
	}
	l.enqueue(frame{kind: kindPing, call: l.pinged})
	return nil
}

func (l *link) gotPing(number uint32) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, f := range l.control {
		if f.kind == kindPong {
			return violation("a ping before the one before was answered")
		}
	}
	l.enqueueLocked(frame{kind: kindPong, call: number})
	return nil
}

func (l *link) gotPong(number uint32) error {
	if l.pinged == 0 || number != l.pinged {
		return violation("a pong that answers no ping")
	}
	l.pinged = 0
	return l.conn.SetReadDeadline(time.Now().Add(l.limits.pingAfter))
}

// await waits until ready, which is called with the lock, or the time is over, the
// context or the session ended. A nil error means ready.
func (l *link) await(ctx context.Context, c *call, limit time.Duration, ready func() bool) error {
	var timer *time.Timer
	var late <-chan time.Time
	for {
		l.mu.Lock()
		ok, failed := ready(), c.failed
		l.mu.Unlock()
		if failed != nil {
			return failed
		}
		if ok {
			return nil
		}
		if timer == nil && limit > 0 {
			timer = time.NewTimer(limit)
			defer timer.Stop()
			late = timer.C
		}
		select {
		case <-c.wake:
		case <-ctx.Done():
			return ctx.Err()
		case <-l.done:
			return l.lost()
		case <-late:
			return errLate
		}
	}
}

// errLate is what await returns when its limit has passed.
var errLate = reason.New("it took too long")

// reserve waits until a data frame of n bytes may be sent, and not beyond due. A
// zero due is set first.
func (l *link) reserve(ctx context.Context, c *call, n int, due *time.Time) error {
	l.mu.Lock()
	at := !c.ended && c.failed == nil && c.window >= n
	if at {
		c.window -= n
	}
	l.mu.Unlock()
	if at {
		return nil
	}
	if due.IsZero() {
		*due = time.Now().Add(l.limits.sendTime)
	}
	ended := false
	err := l.await(ctx, c, max(time.Until(*due), 1), func() bool {
		ended = c.ended
		if ended || c.window < n {
			return ended
		}
		c.window -= n
		return true
	})
	switch {
	case ended:
		return io.EOF
	case errors.Is(err, errLate):
		return Errorf(Exhausted, "a message was not read within %s", l.limits.sendTime)
	}
	return err
}

// sendMessage sends a message of a stream: one data frame, or several. io.EOF: the
// other side has ended the call.
func (l *link) sendMessage(ctx context.Context, c *call, m proto.Message) error {
	var due time.Time
	size := proto.Size(m)
	if dataHeader+size <= MaxRecord {
		if err := l.reserve(ctx, c, dataHeader+size, &due); err != nil {
			return err
		}
		return l.write(frame{kind: kindData, call: c.id, state: stateLast}, m)
	}
	message, err := l.marshal(m, size)
	if err != nil {
		return err
	}
	defer l.budget.give(int64(size))
	return l.sendPieces(ctx, c, message, &due)
}

// sendPieces sends a message, or what is left of it, as data frames.
func (l *link) sendPieces(ctx context.Context, c *call, message []byte, due *time.Time) error {
	for s := stateMore; s == stateMore; {
		n := min(len(message), MaxRecord-dataHeader)
		if n == len(message) {
			s = stateLast
		}
		if err := l.reserve(ctx, c, dataHeader+n, due); err != nil {
			return err
		}
		if err := l.write(frame{kind: kindData, call: c.id, state: s, piece: message[:n]}, nil); err != nil {
			return err
		}
		message = message[n:]
	}
	return nil
}

// marshal takes size bytes of the budget, which its caller gives back unless it fails.
func (l *link) marshal(m proto.Message, size int) ([]byte, error) {
	if !l.budget.take(int64(size)) {
		return nil, errNoMemory
	}
	b, err := proto.MarshalOptions{UseCachedSize: true}.MarshalAppend(make([]byte, 0, size), m)
	if err != nil {
		l.budget.give(int64(size))
		return nil, NewError(Internal, err)
	}
	return b, nil
}

var errNoMemory = &Error{Code: Exhausted, Text: "too much is under way already; try again"}

// takeMessage removes the next message of a call, and gives credit. It was there a moment
// ago; if the call was given up since, it is not.
func (l *link) takeMessage(c *call) ([]byte, error) {
	l.mu.Lock()
	if len(c.in.queue) == 0 {
		failed := c.failed
		l.mu.Unlock()
		return nil, cmp.Or(failed, errLeft)
	}
	m := c.in.take(&l.budget)
	credit := c.in.credit()
	if c.ended {
		credit = 0
	}
	l.mu.Unlock()
	if credit == 0 {
		return m, nil
	}
	return m, l.write(frame{kind: kindCredit, call: c.id, credit: credit}, nil)
}

// gotData puts a data frame where it belongs. A message that is too large, or for
// which there is no memory, ends its call only.
func (l *link) gotData(c *call, f frame, size int) error {
	l.mu.Lock()
	if c.failed != nil || c.ended {
		l.mu.Unlock()
		return nil // nobody waits for it
	}
	err := c.in.add(f.state, f.piece, size, &l.budget)
	var failure *Error
	if errors.As(err, &failure) {
		c.failed = failure
		err = nil
	}
	if c.failed == nil {
		if credit := c.in.credit(); credit > 0 {
			l.enqueueLocked(frame{kind: kindCredit, call: c.id, credit: credit})
		}
	}
	l.mu.Unlock()
	c.signal()
	return err
}

// gotCredit widens a call's window.
func (l *link) gotCredit(c *call, credit uint32) error {
	l.mu.Lock()
	if credit == 0 || int64(credit) > int64(Window-c.window) {
		l.mu.Unlock()
		return violation("a credit of %d bytes beyond the window", credit)
	}
	c.window += int(credit)
	l.mu.Unlock()
	c.signal()
	return nil
}
