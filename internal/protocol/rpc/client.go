package rpc

import (
	"context"
	"errors"
	"io"
	"math"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
)

const (
	// appBuffer is how many bytes of messages under way a session of the App holds.
	appBuffer = 16 << 20
	// placeTime is how long a call waits for one of the MaxCalls places.
	placeTime = 15 * time.Second
	// A Base has no reason to send more pings, and more credit for calls that have
	// ended, than idleBurst at once and one each idleStep.
	idleStep  = time.Second
	idleBurst = 2 * MaxCalls
)

// Session is the App's end of one connection.
type Session struct {
	link
	places chan struct{}          // has a token for each call under way
	calls  map[uint32]*clientCall // guarded by link.mu
	idle   pace
	// Guarded by link.mu.
	asked    bool   // by the Base, to dial again
	onRedial func() // nil: nobody wants to know
	retired  chan struct{}
}

// clientCall is one call at the App.
type clientCall struct {
	call
	single bool // one answer, not a stream

	// The result that the end carried, guarded by link.mu.
	err  *Error
	left bool // nobody waits for the end, which is still to come
}

// NewSession starts a session on a connection that nothing was written to, and
// owns the connection from then on. Close must follow.
func NewSession(conn Conn) *Session {
	s := &Session{places: make(chan struct{}, MaxCalls), retired: make(chan struct{})}
	s.start(conn, &appLimits, nil)
	go func() { s.fail(s.read(FirstPing, s.admit, s.handle)) }()
	return s
}

// Close ends the connection. Calls that are under way fail with Unavailable.
func (s *Session) Close() error {
	s.fail(errClosed)
	return nil
}

// Done is closed when the session has ended, for whatever reason.
func (s *Session) Done() <-chan struct{} { return s.done }

// Err returns why the session ended; nil while it has not.
func (s *Session) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// OnRedial has do called, in a goroutine of its own, once the Base asks the App to open a
// new connection in the place of this one. That happens at most once.
func (s *Session) OnRedial(do func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.onRedial = do
	if s.asked {
		go do()
	}
}

// Retire tells the streams of the session that another session has taken its place
// (Stream.Retired). Calls go on. More than once is no harm.
func (s *Session) Retire() {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-s.retired:
	default:
		close(s.retired)
	}
}

// Calls returns how many calls are under way.
func (s *Session) Calls() int { return len(s.places) }

// Call makes a call with one request and one answer. Errors are *Error. When ctx
// ends the Base is told, and errors.Is finds the error of ctx.
func Call[Resp any, PResp message[Resp]](ctx context.Context, s *Session, method string, request proto.Message) (*Resp, error) {
	c, err := s.open(ctx, method, request, true)
	if err != nil {
		return nil, err
	}
	defer s.leave(c)
	return answer[Resp, PResp](ctx, s, c)
}

// Watch makes a call with one request and a stream of answers. It does not wait
// for the Base. Close must follow, or ctx must end.
func Watch[Resp any, PResp message[Resp]](ctx context.Context, s *Session, method string, request proto.Message) (*Stream[Resp], error) {
	c, err := s.open(ctx, method, request, false)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { s.leave(c) })
	return &Stream[Resp]{
		retired: s.retired,
		receive: func() (*Resp, error) {
			data, err := s.next(ctx, c)
			if err != nil {
				return nil, err
			}
			m := new(Resp)
			return m, parseAnswer(data, PResp(m))
		},
		close: func() {
			stop()
			s.leave(c)
		},
	}, nil
}

// Stream is the answers of Watch. One goroutine at a time may use it.
type Stream[Resp any] struct {
	retired <-chan struct{}
	receive func() (*Resp, error)
	close   func()
}

// Retired is closed when another session has taken the place of the stream's: one that can
// be resumed is then better asked for there.
func (s *Stream[Resp]) Retired() <-chan struct{} { return s.retired }

// Receive waits for the next message. It returns io.EOF at the orderly end.
func (s *Stream[Resp]) Receive() (*Resp, error) { return s.receive() }

// Close cancels the call unless it has ended.
func (s *Stream[Resp]) Close() { s.close() }

// Upload makes a call with a stream of requests and one answer. Close must follow,
// or ctx must end.
func Upload[Resp any, PResp message[Resp]](ctx context.Context, s *Session, method string) (*Sending[Resp], error) {
	c, err := s.open(ctx, method, nil, true)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { s.leave(c) })
	return &Sending[Resp]{
		send: func(m proto.Message) error { return asError(ctx, s.sendMessage(ctx, &c.call, m)) },
		finish: func() (*Resp, error) {
			if err := s.write(frame{kind: kindData, call: c.id, state: stateNone}, nil); err != nil {
				return nil, asError(ctx, err)
			}
			return answer[Resp, PResp](ctx, s, c)
		},
		close: func() {
			stop()
			s.leave(c)
		},
	}, nil
}

// Sending is the requests of Upload. One goroutine at a time may use it.
type Sending[Resp any] struct {
	send   func(proto.Message) error
	finish func() (*Resp, error)
	close  func()
}

// Send sends one message. io.EOF means that the Base has answered before it had
// all: Finish says what.
func (s *Sending[Resp]) Send(m proto.Message) error { return s.send(m) }

// Finish tells the Base that no more comes, and waits for its answer.
func (s *Sending[Resp]) Finish() (*Resp, error) { return s.finish() }

// Close cancels the call unless it has ended.
func (s *Sending[Resp]) Close() { s.close() }

// answer waits for the one answer of a call.
func answer[Resp any, PResp message[Resp]](ctx context.Context, s *Session, c *clientCall) (*Resp, error) {
	data, err := s.next(ctx, c)
	if err != nil {
		return nil, err
	}
	m := new(Resp)
	return m, parseAnswer(data, PResp(m))
}

func parseAnswer(data []byte, m proto.Message) error {
	if err := unmarshal(data, m); err != nil {
		return &Error{Code: Internal, Text: "the answer of the Base cannot be parsed", Cause: err}
	}
	return nil
}

// open takes a place and opens a call. A request that is larger than a frame is
// sent here, too.
func (s *Session) open(ctx context.Context, method string, request proto.Message, single bool) (*clientCall, error) {
	if err := s.takePlace(ctx); err != nil {
		return nil, asError(ctx, err)
	}
	c := &clientCall{call: newCall(0, MaxAnswer), single: single}
	if err := s.sendOpen(ctx, c, method, request); err != nil {
		s.mu.Lock()
		opened := c.id != 0
		s.mu.Unlock()
		if opened {
			s.leave(c)
		} else {
			<-s.places
		}
		return nil, asError(ctx, err)
	}
	return c, nil
}

func (s *Session) takePlace(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	select {
	case s.places <- struct{}{}:
		return nil
	default:
	}
	timer := time.NewTimer(placeTime)
	defer timer.Stop()
	select {
	case s.places <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-s.done:
		return s.lost()
	case <-timer.C:
		return Errorf(Exhausted, "%d calls are under way, and none has ended for %s", MaxCalls, placeTime)
	}
}

// sendOpen sends the open, and the rest of a request that does not fit.
func (s *Session) sendOpen(ctx context.Context, c *clientCall, method string, request proto.Message) error {
	if len(method) == 0 || len(method) > MaxName {
		return Errorf(Invalid, "a method's name has 1 to %d bytes, not %d", MaxName, len(method))
	}
	f := frame{kind: kindOpen, state: stateNone, deadline: millisecondsUntil(ctx), name: []byte(method)}
	size, room := 0, MaxRecord-openHeader-len(method)
	if request != nil {
		f.state, size = stateLast, proto.Size(request)
	}
	if size <= room {
		return s.writeOpen(ctx, c, f, request)
	}
	if size > MaxRequest {
		return Errorf(Invalid, "the request is larger than %d bytes", MaxRequest)
	}
	message, err := s.marshal(request, size)
	if err != nil {
		return err
	}
	defer s.budget.give(int64(size))
	f.state, f.piece = stateMore, message[:room]
	if err := s.writeOpen(ctx, c, f, nil); err != nil {
		return err
	}
	var due time.Time
	if err := s.sendPieces(ctx, &c.call, message[room:], &due); !errors.Is(err, io.EOF) {
		return err
	}
	return nil // the Base has answered without the rest
}

// writeOpen writes an open. Its number is given with the token of writing: numbers go
// out in their order.
func (s *Session) writeOpen(ctx context.Context, c *clientCall, f frame, request proto.Message) error {
	if err := s.lockWriting(ctx); err != nil {
		return err
	}
	defer s.unlockWriting()
	buffer := records.Get().(*[MaxRecord]byte)
	defer records.Put(buffer)
	s.mu.Lock()
	if s.last == math.MaxUint32 {
		s.mu.Unlock()
		return Errorf(Unavailable, "this session has no numbers left")
	}
	s.last++
	c.id = s.last
	if s.calls == nil {
		s.calls = map[uint32]*clientCall{}
	}
	s.calls[c.id] = c
	s.mu.Unlock()
	f.call = c.id
	record := f.append(buffer[:0])
	if request != nil {
		var err error
		if record, err = (proto.MarshalOptions{UseCachedSize: true}).MarshalAppend(record, request); err != nil || len(record) > MaxRecord {
			err = errors.Join(reason.New("the request cannot be sent"), err)
			s.fail(err) // its number is taken
			return NewError(Invalid, err)
		}
	}
	return s.writeLocked(record)
}

// millisecondsUntil returns how long a context has; 0: for ever.
func millisecondsUntil(ctx context.Context) uint32 {
	due, ok := ctx.Deadline()
	if !ok {
		return 0
	}
	return uint32(min(max(time.Until(due).Milliseconds(), 1), math.MaxUint32))
}

// next waits for the next answer of a call. io.EOF: there is none, and all is well.
func (s *Session) next(ctx context.Context, c *clientCall) ([]byte, error) {
	there := false
	err := s.await(ctx, &c.call, 0, func() bool {
		there = len(c.in.queue) > 0 && !c.single || c.ended && c.err == nil && len(c.in.queue) > 0
		return there || c.ended
	})
	switch {
	case err != nil:
		return nil, asError(ctx, err)
	case there:
		data, err := s.takeMessage(&c.call)
		return data, asError(ctx, err)
	case c.err != nil: // set once, before ended was
		return nil, c.err
	}
	return nil, io.EOF
}

// leave gives a call up, and tells the Base unless it has ended.
func (s *Session) leave(c *clientCall) {
	s.mu.Lock()
	tell := !c.ended && !c.left && s.err == nil
	c.left = true
	if c.failed == nil {
		c.failed = errLeft
	}
	c.in.drop(&s.budget)
	if tell {
		s.enqueueLocked(frame{kind: kindCancel, call: c.id})
	}
	s.mu.Unlock()
	c.signal()
}

// admit bounds the frames that a Base may send for nothing: pings, and credit for calls
// that have ended.
func (s *Session) admit(f frame) error {
	switch f.kind {
	case kindPing:
	case kindCredit:
		s.mu.Lock()
		ended := s.calls[f.call] == nil
		s.mu.Unlock()
		if !ended {
			return nil
		}
	default:
		return nil
	}
	if s.idle.take(time.Now(), idleStep, idleBurst) > 0 {
		return violation("too many empty frames")
	}
	return nil
}

// handle takes a frame that is about a call.
func (s *Session) handle(f frame, size int) error {
	if f.kind == kindOpen || f.kind == kindCancel {
		return violation("a frame of kind %d from the Base", f.kind)
	}
	if f.kind == kindRedial {
		return s.gotRedial()
	}
	s.mu.Lock()
	c, last := s.calls[f.call], s.last
	s.mu.Unlock()
	switch {
	case c == nil && f.kind == kindCredit && f.call > 0 && f.call <= last:
		return nil // the call has ended while it was on its way
	case c == nil:
		return violation("a frame for call %d, which is not under way", f.call)
	case f.kind == kindData:
		return s.gotData(&c.call, f, size)
	case f.kind == kindCredit:
		return s.gotCredit(&c.call, f.credit)
	default:
		return s.gotEnd(c, f)
	}
}

// gotRedial passes on that the Base wants a new connection. One that asks twice on the same
// one would have an App do nothing else.
func (s *Session) gotRedial() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.asked {
		return violation("a second redial")
	}
	s.asked = true
	if s.onRedial != nil {
		go s.onRedial()
	}
	return nil
}

// gotEnd ends a call, and frees its place.
func (s *Session) gotEnd(c *clientCall, f frame) error {
	s.mu.Lock()
	delete(s.calls, f.call)
	c.ended = true
	var err error
	switch {
	case f.code != OK:
		c.err = &Error{Code: f.code, Text: printable(string(f.piece)), Remote: true}
	case c.failed != nil:
	case c.in.going:
		err = violation("an end within a message")
	case c.single && len(c.in.queue) > 1:
		err = violation("more than one answer")
	case c.single && len(c.in.queue) == 0:
		c.in.queue = []parcel{{data: f.piece}}
	case len(f.piece) > 0:
		err = violation("an end with an extra answer")
	}
	s.mu.Unlock()
	c.signal()
	<-s.places
	return err
}

// asError makes an *Error of whatever a call ended with; io.EOF stays.
func asError(ctx context.Context, err error) error {
	var known *Error
	switch {
	case err == nil, err == io.EOF:
		return err
	case ctx.Err() != nil && !errors.As(err, &known) || errors.Is(err, errLeft):
		cause := ctx.Err()
		if cause == nil {
			return err
		}
		return &Error{Code: CodeOf(cause), Text: cause.Error(), Cause: cause}
	case known != nil || errors.As(err, &known):
		return err
	}
	return NewError(Internal, err)
}
