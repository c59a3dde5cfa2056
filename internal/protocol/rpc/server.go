package rpc

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
)

const (
	// SessionBuffer is how many bytes of messages under way a session of the Base holds,
	// PeerBuffer those of one App, and TotalBuffer all of them.
	SessionBuffer = 4 << 20
	PeerBuffer    = 8 << 20
	TotalBuffer   = 64 << 20
)

// Config is what a Server is made of.
type Config struct {
	Methods []Method
	// Logger hears of handlers that panic.
	Logger *slog.Logger
}

// Server serves the calls of Apps.
type Server struct {
	logger  *slog.Logger
	methods map[string]*Method
	limits  limits
	budget  budget

	mu       sync.Mutex
	sessions map[*serverSession]struct{}
	stopping bool
	running  sync.WaitGroup // calls
}

// NewServer checks the table of methods.
func NewServer(config Config) (*Server, error) {
	s := &Server{
		logger:   config.Logger,
		methods:  map[string]*Method{},
		limits:   baseLimits,
		budget:   budget{limit: TotalBuffer},
		sessions: map[*serverSession]struct{}{},
	}
	for _, m := range config.Methods {
		if m.MaxRequest == 0 {
			m.MaxRequest = DefaultRequest
		}
		var wrong string
		switch {
		case m.Name == "" || len(m.Name) > MaxName:
			wrong = fmt.Sprintf("a name of %d bytes", len(m.Name))
		case s.methods[m.Name] != nil:
			wrong = "two rows"
		case m.Allow == nil || m.Handler.serve == nil:
			wrong = "no Allow or no Handler"
		case m.MaxRequest < 0 || m.MaxRequest > MaxRequest:
			wrong = fmt.Sprintf("requests of %d bytes", m.MaxRequest)
		case m.GoesOn && m.Deadline <= 0:
			wrong = "it goes on without a deadline"
		case m.Class != nil && (m.Class.PerPeer < 1 || m.Class.Kept < 0 || m.Class.Kept > 0 && m.Class.Kept >= m.Class.Total):
			wrong = "a class without places"
		case m.Class != nil && m.Class.Kept > 0 && m.Class.First == nil:
			wrong = "places for nobody"
		default:
			s.methods[m.Name] = &m
			continue
		}
		return nil, reason.Errorf("table of methods: %q has %s", m.Name, wrong)
	}
	return s, nil
}

// Serve serves the calls of one connection until it ends, closes it, and returns
// why it ended: ErrProtocol, ErrGone, io.EOF, or an error of the connection. The
// contexts of its calls are derived from ctx, and end with the session.
func (s *Server) Serve(ctx context.Context, conn Conn, peer *Peer) error {
	session := &serverSession{server: s, peer: peer}
	session.start(conn, &s.limits, peer.budgetOf(s))
	session.ctx = ctx
	if !s.begin(session) {
		session.fail(errStopping)
	}
	defer s.forget(session)
	session.fail(session.read(s.limits.pingAfter, session.admit, session.handle))
	session.leaveAll()
	session.mu.Lock()
	defer session.mu.Unlock()
	return session.err
}

// errStopping is what calls end with that a stop ends.
var errStopping = &Error{Code: Unavailable, Text: "the Base is stopping"}

func (s *Server) begin(session *serverSession) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.stopping {
		s.sessions[session] = struct{}{}
	}
	return !s.stopping
}

func (s *Server) forget(session *serverSession) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.sessions, session)
}

// Shutdown refuses new calls and sessions, ends streams, and waits for the calls
// under way until ctx ends; then it closes all sessions. The error is that of ctx.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	s.stopping = true
	sessions := make([]*serverSession, 0, len(s.sessions))
	for session := range s.sessions {
		sessions = append(sessions, session)
	}
	s.mu.Unlock()
	for _, session := range sessions {
		session.stopStreams()
	}
	ended := make(chan struct{})
	go func() {
		s.running.Wait()
		close(ended)
	}()
	var err error
	select {
	case <-ended:
	case <-ctx.Done():
		err = ctx.Err()
	}
	for _, session := range sessions {
		session.fail(errStopping)
	}
	return err
}

// Redial asks the App of each session that match chooses, by the context that was given to
// Serve, to open a new connection in the place of that session. Each is asked once, however
// often Redial is called. There is a pause before each, so that not all Apps come at once. It
// returns when all were asked, or ctx has ended.
func (s *Server) Redial(ctx context.Context, match func(context.Context) bool, pause func() time.Duration) {
	s.mu.Lock()
	sessions := slices.Collect(maps.Keys(s.sessions))
	s.mu.Unlock()
	for _, session := range sessions {
		if !match(session.ctx) || !session.mayRedial() {
			continue
		}
		select {
		case <-time.After(pause()):
			session.redial()
		case <-session.done:
		case <-ctx.Done():
			return
		}
	}
}

// serverSession is the Base's end of a session.
type serverSession struct {
	link
	server *Server
	peer   *Peer
	ctx    context.Context
	calls  map[uint32]*serverCall // under way; guarded by link.mu
	asked  bool                   // to dial again; guarded by link.mu
}

func (s *serverSession) mayRedial() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.asked
}

// redial asks the App to dial again, once.
func (s *serverSession) redial() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.asked || s.err != nil {
		return
	}
	s.asked = true
	s.enqueueLocked(frame{kind: kindRedial})
}

// serverCall is one call at the Base.
type serverCall struct {
	call
	session *serverSession
	method  *Method
	ctx     context.Context
	cancel  context.CancelFunc
	counted bool // as running
	// unsent is why a stream that goes on sends no more; nil: it does. For the goroutine of
	// the call.
	unsent  error
	stopped bool // by Shutdown; guarded by link.mu
}

// errLeft is what a call fails with whose caller has cancelled it.
var errLeft = &Error{Code: Cancelled, Text: "the caller has left"}

// admit holds the reading up while the frames of the peer are more than its rate.
func (s *serverSession) admit(frame) error {
	early := s.peer.rate.take(time.Now(), s.limits.frameStep, FrameBurst)
	if early <= 0 {
		return nil
	}
	select {
	case <-time.After(early):
		return nil
	case <-s.done:
		return s.lost()
	}
}

// handle takes a frame that is about a call.
func (s *serverSession) handle(f frame, size int) error {
	switch f.kind {
	case kindOpen:
		return s.open(f)
	case kindEnd, kindRedial:
		return violation("a frame of kind %d from the App", f.kind)
	}
	s.mu.Lock()
	c, last := s.calls[f.call], s.last
	s.mu.Unlock()
	switch {
	case f.call > last || f.call == 0:
		return violation("a frame for call %d, which was never opened", f.call)
	case c == nil:
		return nil // it has ended while the frame was on its way
	case f.kind == kindData:
		return s.gotData(&c.call, f, size)
	case f.kind == kindCredit:
		return s.gotCredit(&c.call, f.credit)
	default:
		c.leave()
		return nil
	}
}

// open begins a call, be it to refuse it: whatever waits to be written holds a place.
func (s *serverSession) open(f frame) error {
	method := s.server.methods[string(f.name)]
	s.mu.Lock()
	if f.call != s.last+1 {
		s.mu.Unlock()
		return violation("call %d was opened after call %d", f.call, s.last)
	}
	s.last = f.call
	if len(s.calls) >= s.limits.calls {
		s.mu.Unlock()
		return violation("more than %d calls", s.limits.calls)
	}
	c := s.newCall(f, method)
	if s.calls == nil {
		s.calls = map[uint32]*serverCall{}
	}
	s.calls[f.call] = c
	s.mu.Unlock()
	go c.run()
	return nil
}

var (
	errUnknownMethod = &Error{Code: Unimplemented, Text: "the Base does not know this method"}
	errTooManyCalls  = &Error{Code: Exhausted, Text: "this App has too many calls under way"}
	errWrongKind     = &Error{Code: Invalid, Text: "the method is of another kind"}
)

// newCall makes the call that f opens, with the lock of the session. It has failed
// already if it is refused.
func (s *serverSession) newCall(f frame, method *Method) *serverCall {
	c := &serverCall{call: newCall(f.call, 0), session: s, method: method, ctx: s.ctx}
	switch {
	case method == nil:
		c.failed = errUnknownMethod
		return c
	case method.Handler.upload != (f.state == stateNone):
		c.failed = errWrongKind
		return c
	}
	if c.failed = s.count(); c.failed != nil {
		return c
	}
	c.in.limit = method.MaxRequest
	if c.failed = c.in.open(f.state, f.piece, &s.budget); c.failed != nil {
		s.uncount()
		return c
	}
	c.counted = true
	parent, limit := s.ctx, method.Deadline
	if asked := time.Duration(f.deadline) * time.Millisecond; method.GoesOn {
		parent = context.WithoutCancel(parent)
	} else if asked > 0 && (limit == 0 || asked < limit) {
		limit = asked
	}
	if limit > 0 {
		c.ctx, c.cancel = context.WithTimeout(parent, limit)
	} else {
		c.ctx, c.cancel = context.WithCancel(parent)
	}
	return c
}

// count counts a call that begins, or says why it may not.
func (s *serverSession) count() *Error {
	s.server.mu.Lock()
	defer s.server.mu.Unlock()
	switch {
	case s.server.stopping:
		return errStopping
	case s.peer.running.Load() >= s.limits.appCalls:
		return errTooManyCalls
	}
	s.peer.running.Add(1)
	s.server.running.Add(1)
	return nil
}

// uncount takes a call off the counts.
func (s *serverSession) uncount() {
	s.peer.running.Add(-1)
	s.server.running.Done()
}

// stopStreams ends the streams for a stop of the server.
func (s *serverSession) stopStreams() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.calls {
		if c.counted && c.method.Handler.stream && !c.method.GoesOn {
			c.stopped = true
			c.cancel()
		}
	}
}

// leave is told that nobody waits for the call.
func (c *serverCall) leave() {
	c.session.mu.Lock()
	if c.failed == nil {
		c.failed = errLeft
	}
	c.session.mu.Unlock()
	c.signal()
	if c.counted && !c.method.GoesOn {
		c.cancel()
	}
}

// leaveAll is called when the session has ended.
func (s *serverSession) leaveAll() {
	s.mu.Lock()
	calls := slices.Collect(maps.Values(s.calls))
	s.mu.Unlock()
	for _, c := range calls {
		c.leave()
	}
}

// run serves a call from its open to its end.
func (c *serverCall) run() {
	if !c.counted {
		_ = c.end(endFrame(c.id, c.failed), nil)
		c.forget()
		return
	}
	defer c.session.uncount()
	defer c.cancel()
	defer c.forget() // also when the session is over
	answer, err := c.answer()
	if err == nil {
		err = c.unsent
	}
	if err == nil {
		err = c.sendAnswer(answer)
	}
	if err != nil {
		// The session may be over; then nobody is to be told.
		_ = c.end(endFrame(c.id, c.errorOf(err)), nil)
	}
}

// answer asks whether the caller may, takes a place, and calls the handler.
func (c *serverCall) answer() (answer proto.Message, err error) {
	defer func() {
		if cause := recover(); cause != nil {
			c.session.server.logger.Error("a call panicked", "method", c.method.Name, "panic", cause, "stack", string(debug.Stack()))
			answer, err = nil, errPanic
		}
	}()
	if err := c.method.Allow(c.ctx); err != nil {
		return nil, err
	}
	if class := c.method.Class; class != nil {
		giveBack, err := c.takePlace(class)
		if err != nil {
			return nil, err
		}
		defer giveBack()
	}
	return c.method.Handler.serve(c)
}

var errPanic = &Error{Code: Internal, Text: "the Base failed; its log has the details"}

// takePlace takes one of the places of a class.
func (c *serverCall) takePlace(class *Class) (giveBack func(), err error) {
	places := c.session.peer.placesOf(class)
	full := &Error{Code: Exhausted, Text: class.Full}
	select {
	case places <- struct{}{}:
	default:
		if !class.Wait {
			return nil, full
		}
		if err := c.waitFor(places); err != nil {
			return nil, err
		}
	}
	total := class.Total
	if class.Kept > 0 && !class.First(c.ctx) {
		total -= class.Kept
	}
	if n := class.total.Add(1); class.Total > 0 && n > int64(total) {
		class.total.Add(-1)
		<-places
		return nil, full
	}
	return func() {
		class.total.Add(-1)
		<-places
	}, nil
}

func (c *serverCall) waitFor(places chan struct{}) error {
	for {
		select {
		case places <- struct{}{}:
			return nil
		case <-c.ctx.Done():
			return c.ctx.Err()
		case <-c.session.done:
			return c.session.lost()
		case <-c.wake:
		}
		c.session.mu.Lock()
		failed := c.failed
		c.session.mu.Unlock()
		if failed != nil {
			return failed
		}
	}
}

// send sends one message of a stream. When that fails, a call that goes on sends no more,
// and does not hear of it; how it ends tells the App, if that is still there.
func (c *serverCall) send(m proto.Message) error {
	if c.unsent != nil {
		return nil
	}
	err := c.ctx.Err()
	if err == nil {
		err = c.session.sendMessage(c.ctx, &c.call, m)
	}
	if err != nil && c.method.GoesOn && c.ctx.Err() == nil {
		c.unsent = err
		return nil
	}
	return err
}

// sendAnswer ends a call well, with an answer or, after a stream, without.
func (c *serverCall) sendAnswer(answer proto.Message) error {
	ok := frame{kind: kindEnd, call: c.id, code: OK}
	if answer == nil {
		return c.end(ok, nil)
	}
	size := proto.Size(answer)
	if endHeader+size <= MaxRecord {
		return c.end(ok, answer)
	}
	if size > MaxAnswer {
		return Errorf(Internal, "the answer is larger than %d bytes", MaxAnswer)
	}
	// A deadline bounds the work. How long the answer may take is bounded by SendTime.
	if err := c.session.sendMessage(context.WithoutCancel(c.ctx), &c.call, answer); err != nil {
		return err
	}
	return c.end(ok, nil)
}

// end frees the call's place, and then tells the App so: it may use the place at once.
func (c *serverCall) end(f frame, answer proto.Message) error {
	return c.session.writeAfter(c.forget, f, answer)
}

// forget frees the call's place and memory. More than once is no harm.
func (c *serverCall) forget() {
	s := c.session
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.calls, c.id)
	c.ended = true
	c.in.drop(&s.budget)
}

// errorOf makes what the App is told of an error.
func (c *serverCall) errorOf(err error) *Error {
	code := CodeOf(err)
	c.session.mu.Lock()
	stopped := c.stopped
	c.session.mu.Unlock()
	switch {
	case stopped && code == Cancelled:
		return errStopping
	case code == OK || code >= codes:
		code = Internal
	}
	return &Error{Code: code, Text: reason.Of(err)}
}

func endFrame(call uint32, err *Error) frame {
	return frame{kind: kindEnd, call: call, code: err.Code, piece: []byte(printable(err.Text))}
}
