package rpc

import (
	"context"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/noiseconn"
)

// rawPeer speaks frames by hand, at either end.
type rawPeer struct {
	conn   *noiseconn.Conn
	frames chan frame // what came, the pings of the other side apart
	closed chan error
}

func newRawPeer(t *testing.T, conn *noiseconn.Conn) *rawPeer {
	p := &rawPeer{conn: conn, frames: make(chan frame, 100_000), closed: make(chan error, 1)}
	t.Cleanup(func() { _ = conn.Close() })
	go func() {
		for {
			record, err := conn.ReadRecord()
			if err != nil {
				p.closed <- err
				close(p.frames)
				return
			}
			f := must(parse(record))
			if f.kind == kindPing {
				go p.send(frame{kind: kindPong, call: f.call})
				continue
			}
			p.frames <- f
		}
	}()
	return p
}

func (p *rawPeer) send(f frame) { _ = p.conn.WriteRecord(f.append(nil)) }

func (p *rawPeer) open(call uint32, method string, m proto.Message) {
	f := frame{kind: kindOpen, call: call, state: stateNone, name: []byte(method)}
	if m != nil {
		f.state, f.piece = stateLast, must(proto.Marshal(m))
	}
	p.send(f)
}

// ends waits for n ends and returns their codes by call.
func (p *rawPeer) ends(n int) map[uint32]Code {
	codes := map[uint32]Code{}
	for f := range p.frames {
		if f.kind == kindEnd {
			codes[f.call] = f.code
		}
		if len(codes) == n {
			break
		}
	}
	return codes
}

// rawApp is an App that speaks frames by hand with a base.
func (b *base) rawApp(t *testing.T, peer *Peer) *rawPeer {
	return newRawPeer(t, b.serve(t.Context(), peer))
}

// rawBase returns a session of an App with a Base that speaks frames by hand.
func rawBase(t *testing.T) (*rawPeer, *Session) {
	conn, s := rawBaseConn(t)
	return newRawPeer(t, conn), s
}

func rawBaseConn(t *testing.T) (*noiseconn.Conn, *Session) {
	a, b := net.Pipe()
	appEnd, baseEnd := channel(a, b)
	s := NewSession(appEnd)
	t.Cleanup(func() { _ = s.Close() })
	return baseEnd, s
}

// took returns how long f takes on the clock of the bubble.
func took(f func()) time.Duration {
	began := time.Now()
	f()
	return time.Since(began)
}

func TestCancellingReachesTheBaseAtOnce(t *testing.T) {
	bubble(t, func(t *testing.T, b *base) {
		s := b.connect()
		ctx, cancel := context.WithCancel(t.Context())
		failed := make(chan error, 1)
		go func() {
			_, err := Call[empty](ctx, s, "Wait", &empty{})
			failed <- err
		}()
		stream := must(Watch[number](t.Context(), s, "Events", &empty{}))
		must(stream.Receive())
		<-b.entered
		after := took(func() {
			cancel()
			stream.Close()
			if err := <-failed; !errors.Is(err, context.Canceled) || CodeOf(err) != Cancelled {
				t.Errorf("a cancelled call: %v", err)
			}
			synctest.Wait()
		})
		if b.left.Load() != 2 || b.calls.Load() != 0 || s.Calls() != 0 || after >= time.Second {
			t.Errorf("%s after the cancelling %d of 2 handlers know, %d run, %d places are taken", after, b.left.Load(), b.calls.Load(), s.Calls())
		}
		if _, err := stream.Receive(); CodeOf(err) != Cancelled {
			t.Errorf("a closed stream: %v", err)
		}
	})
}

func TestDeadlinesTravel(t *testing.T) {
	bubble(t, func(t *testing.T, b *base) {
		s := b.connect()
		for asked, want := range map[time.Duration]time.Duration{5 * time.Second: 5 * time.Second, 2 * time.Hour: time.Hour, 0: time.Hour} {
			ctx, cancel := t.Context(), context.CancelFunc(func() {})
			if asked > 0 {
				ctx, cancel = context.WithTimeout(ctx, asked)
			}
			if got, err := Call[number](ctx, s, "Until", &empty{}); err != nil || time.Duration(got.Value) != want {
				t.Errorf("asked for %s: %v, %v", asked, time.Duration(got.GetValue()), err)
			}
			cancel()
		}
		after := took(func() {
			if _, err := Call[empty](t.Context(), s, "Limited", &empty{}); !errors.Is(err, context.DeadlineExceeded) || CodeOf(err) != TimedOut {
				t.Errorf("the deadline of the table: %v", err)
			}
		})
		if after != 2*time.Second {
			t.Errorf("the deadline of the table took %s", after)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := Call[empty](ctx, s, "Wait", &empty{}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("the caller's deadline: %v", err)
		}
		synctest.Wait()
		if b.calls.Load() != 0 {
			t.Error("a handler runs on after the caller's deadline")
		}
	})
}

func TestACallThatGoesOnDoesNotNeedItsCaller(t *testing.T) {
	for _, method := range []string{"GoesOn", "StreamGoesOn"} {
		for name, leave := range map[string]func(s *Session, cancel context.CancelFunc){
			"cancels":     func(_ *Session, cancel context.CancelFunc) { cancel() },
			"hangs up":    func(s *Session, _ context.CancelFunc) { _ = s.Close() },
			"times out":   func(*Session, context.CancelFunc) { time.Sleep(time.Second) },
			"stays":       nil,
			"never reads": func(*Session, context.CancelFunc) {},
		} {
			t.Run(method+"/"+name, func(t *testing.T) {
				bubble(t, func(t *testing.T, b *base) {
					s := b.connect()
					ctx, cancel := context.WithTimeout(t.Context(), time.Second)
					if leave == nil {
						ctx, cancel = context.WithCancel(t.Context())
					}
					defer cancel()
					if method == "GoesOn" {
						go func() { _, _ = Call[empty](ctx, s, method, &empty{}) }()
					} else {
						_ = must(Watch[number](ctx, s, method, &empty{}))
					}
					<-b.entered
					if leave != nil {
						leave(s, cancel)
					}
					select {
					case <-b.went:
					case <-time.After(30 * time.Second):
						t.Error("it was not carried through")
					}
				})
			})
		}
	}
}

// An App that is there but does not read is not told that all is well.
func TestACallThatGoesOnTellsThatItCouldNotTell(t *testing.T) {
	bubble(t, func(t *testing.T, b *base) {
		p := b.rawApp(t, &b.peer)
		p.open(1, "PourGoesOn", &empty{})
		if after := took(func() { <-b.went }); after != SendTime {
			t.Errorf("it went on after %s", after)
		}
		if got := p.ends(1)[1]; got != Exhausted {
			t.Errorf("it ended with %v", got)
		}
	})
}

func TestAHalfRequestOfACallThatGoesOnIsNotCarriedThrough(t *testing.T) {
	bubble(t, func(t *testing.T, b *base) {
		p := b.rawApp(t, &b.peer)
		p.send(frame{kind: kindOpen, call: 1, state: stateMore, name: []byte("GoesOn"), piece: []byte{0}})
		p.send(frame{kind: kindCancel, call: 1})
		if got := p.ends(1)[1]; got != Cancelled {
			t.Errorf("it ended with %v", got)
		}
		p.send(frame{kind: kindOpen, call: 2, state: stateMore, name: []byte("GoesOn"), piece: []byte{0}})
		if after := took(func() {
			if got := p.ends(1)[2]; got != TimedOut {
				t.Errorf("it ended with %v", got)
			}
		}); after != ReceiveTime {
			t.Errorf("it ended after %s", after)
		}
	})
}

// unparsable is no message.
var unparsable = []byte{0xff, 0xff, 0xff}

func TestTheRoleIsCheckedBeforeTheRequestIsParsed(t *testing.T) {
	bubble(t, func(t *testing.T, b *base) {
		p := b.rawApp(t, &b.peer)
		p.send(frame{kind: kindOpen, call: 1, state: stateLast, name: []byte("Echo"), piece: unparsable})
		if got := p.ends(1)[1]; got != Invalid {
			t.Errorf("with the role: %v", got)
		}
		b.may = Errorf(Denied, "not you")
		p.send(frame{kind: kindOpen, call: 2, state: stateLast, name: []byte("Echo"), piece: unparsable})
		// Of a request that never comes, too.
		p.send(frame{kind: kindOpen, call: 3, state: stateMore, name: []byte("Echo"), piece: unparsable})
		p.send(frame{kind: kindOpen, call: 4, state: stateNone, name: []byte("Sum")})
		var codes map[uint32]Code
		after := took(func() { codes = p.ends(3) })
		if codes[2] != Denied || codes[3] != Denied || codes[4] != Denied || after > 0 {
			t.Errorf("without it: %v after %s", codes, after)
		}
	})
}

// A call that is given up between the moment when its message is seen and the one when it is
// taken: by its user, or by the reading, for which a hostile Base fills the memory.
func TestAMessageOfACallThatIsGivenUpIsNotTaken(t *testing.T) {
	for name, giveUp := range map[string]func(s *Session, c *clientCall){
		"by its user": func(s *Session, c *clientCall) { s.leave(c) },
		"for want of memory": func(s *Session, c *clientCall) {
			s.budget.take(appBuffer - s.budget.used.Load())
			_ = s.gotData(&c.call, frame{kind: kindData, call: c.id, state: stateLast, piece: []byte{1}}, dataHeader+1)
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, b *base) {
				s := b.connect()
				c := must(s.open(t.Context(), "Events", &empty{}, false))
				if err := s.await(t.Context(), &c.call, 0, func() bool { return len(c.in.queue) > 0 }); err != nil {
					t.Fatal(err)
				}
				giveUp(s, c)
				if _, err := s.takeMessage(&c.call); err == nil {
					t.Error("a message was taken that is gone")
				}
				s.leave(c)
			})
		})
	}
}

// The attack: an App that is to lose its rights has calls ready, which wait for a place, for
// the rest of their request, or for its next message.
func TestAnAppThatLosesItsRightsWhileACallWaitsIsRefused(t *testing.T) {
	for name, begin := range map[string]func(b *base, p *rawPeer) (last func()){
		"for a place": func(b *base, p *rawPeer) func() {
			p.open(1, "Turns", &empty{})
			p.open(2, "Turns", &empty{})
			p.open(3, "Turns", &empty{})
			<-b.entered
			<-b.entered
			return func() { p.send(frame{kind: kindCancel, call: 1}) }
		},
		"for the rest": func(_ *base, p *rawPeer) func() {
			whole := must(proto.Marshal(&data{Value: []byte("something")}))
			p.send(frame{kind: kindOpen, call: 1, state: stateMore, name: []byte("Echo"), piece: whole[:1]})
			return func() { p.send(frame{kind: kindData, call: 1, state: stateLast, piece: whole[1:]}) }
		},
		"for a message": func(_ *base, p *rawPeer) func() {
			p.open(1, "Sum", nil)
			whole := must(proto.Marshal(&data{Value: []byte("something")}))
			p.send(frame{kind: kindData, call: 1, state: stateLast, piece: whole})
			return func() { p.send(frame{kind: kindData, call: 1, state: stateLast, piece: whole}) }
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, b *base) {
				p := b.rawApp(t, &b.peer)
				last := begin(b, p)
				synctest.Wait()
				b.may = Errorf(Denied, "no longer")
				last()
				synctest.Wait()
				denied := false
				for len(p.frames) > 0 {
					f := <-p.frames
					denied = denied || f.kind == kindEnd && f.code == Denied
				}
				if !denied || len(b.entered) > 0 {
					t.Errorf("it was denied: %v; its handler has run: %v", denied, len(b.entered) > 0)
				}
			})
		})
	}
}

func TestTheAppCountsItsCallsAndAOneTooManyEndsTheSession(t *testing.T) {
	bubble(t, func(t *testing.T, b *base) {
		s := b.connect()
		ctx, cancel := context.WithCancel(t.Context())
		for range MaxCalls {
			go func() { _, _ = Call[empty](ctx, s, "Wait", &empty{}) }()
			<-b.entered
		}
		after := took(func() {
			if _, err := Call[empty](ctx, s, "Wait", &empty{}); CodeOf(err) != Exhausted {
				t.Errorf("call %d: %v", MaxCalls+1, err)
			}
		})
		if after != placeTime || s.Err() != nil {
			t.Errorf("the App waited %s for a place; the session: %v", after, s.Err())
		}
		cancel()
		if _, err := Call[data](t.Context(), s, "Echo", &data{}); err != nil {
			t.Errorf("when there are places again: %v", err)
		}
		// An App that does not count.
		p := b.rawApp(t, &b.peer)
		for call := range uint32(MaxCalls + 1) {
			p.open(call+1, "Wait", &empty{})
		}
		<-p.closed
		if err := <-b.ended; !errors.Is(err, ErrProtocol) {
			t.Errorf("the session ended with %v", err)
		}
		time.Sleep(time.Second) // the cancels of the first session count against the rate
		if b.calls.Load() != 0 {
			t.Errorf("%d handlers still run", b.calls.Load())
		}
	})
}

func TestAPlaceIsFreeWhenTheEndIsThere(t *testing.T) {
	bubble(t, func(t *testing.T, b *base) {
		p := b.rawApp(t, &b.peer)
		for call := range uint32(MaxCalls) {
			p.open(call+1, "Echo", &data{})
		}
		for call := uint32(MaxCalls + 1); call < 2000; call++ {
			f, ok := <-p.frames
			if !ok || f.kind != kindEnd {
				t.Fatalf("%v; %v", f, <-b.ended)
			}
			p.open(call, "Echo", &data{}) // in place of the one that has ended
		}
	})
}

func TestAPeerThatVanishesIsEndedIn75Seconds(t *testing.T) {
	for name, conn := range map[string]func(net.Conn) net.Conn{
		"never reads":           func(c net.Conn) net.Conn { return c },
		"reads a byte a second": func(c net.Conn) net.Conn { go drip(c); return c },
	} {
		for _, method := range []string{"", "Pour", "Answer"} {
			t.Run(name+"/"+method, func(t *testing.T) {
				bubble(t, func(t *testing.T, b *base) {
					a, raw := net.Pipe()
					app := b.serveOn(t.Context(), &b.peer, a, raw)
					defer a.Close()
					if method != "" {
						f := frame{kind: kindOpen, call: 1, state: stateLast, name: []byte(method), piece: must(proto.Marshal(&number{Value: 100_000}))}
						if err := app.WriteRecord(f.append(nil)); err != nil {
							t.Fatal(err)
						}
					}
					conn(a)
					var err error
					after := took(func() { err = <-b.ended })
					if after > 75*time.Second || !errors.Is(err, ErrGone) {
						t.Errorf("ended after %s with %v", after, err)
					}
					time.Sleep(2 * time.Second)
					if b.calls.Load() != 0 || b.budget.used.Load() != 0 {
						t.Errorf("%d handlers run, %d bytes are held", b.calls.Load(), b.budget.used.Load())
					}
				})
			})
		}
	}
}

func drip(c net.Conn) {
	var b [1]byte
	for {
		if _, err := c.Read(b[:]); err != nil {
			return
		}
		time.Sleep(time.Second)
	}
}

func TestAPeerThatAnswersPingsStays(t *testing.T) {
	bubble(t, func(t *testing.T, b *base) {
		s := b.connect()
		time.Sleep(time.Hour)
		if _, err := Call[data](t.Context(), s, "Echo", &data{}); err != nil {
			t.Errorf("after an hour without a call: %v", err)
		}
	})
}

func TestASessionWithoutACallSendsItsFirstRecordSoon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := net.Pipe()
		appEnd, baseEnd := channel(a, b)
		s := NewSession(appEnd)
		defer s.Close()
		after := took(func() {
			if f, err := parse(must(baseEnd.ReadRecord())); err != nil || f.kind != kindPing {
				t.Errorf("%v, %v", f, err)
			}
		})
		if after >= 5*time.Second {
			t.Errorf("after %s", after)
		}
		go func() { _, _ = io.Copy(io.Discard, b) }()
		if took(func() { <-s.Done() }) > 30*time.Second || !errors.Is(s.Err(), ErrGone) {
			t.Errorf("the App waits for a Base that does not answer: %v", s.Err())
		}
		if _, err := Call[data](t.Context(), s, "Echo", &data{}); CodeOf(err) != Unavailable {
			t.Errorf("a call on it: %v", err)
		}
	})
}

func TestAStreamThatNobodyReadsHoldsUpNoOtherCall(t *testing.T) {
	bubble(t, func(t *testing.T, b *base) {
		s := b.connect()
		unread := must(Watch[data](t.Context(), s, "Pour", &number{Value: 1000}))
		synctest.Wait()
		if after := took(func() {
			if _, err := Call[data](t.Context(), s, "Echo", &data{Value: make([]byte, MaxRequest/2)}); err != nil {
				t.Error(err)
			}
		}); after != 0 {
			t.Errorf("another call took %s", after)
		}
		// It is ended at the Base after a while; the App gets what has come, and why.
		time.Sleep(SendTime + time.Second)
		if b.calls.Load() != 0 || s.Err() != nil {
			t.Errorf("%d handlers still run; the session: %v", b.calls.Load(), s.Err())
		}
		n := 0
		for {
			_, err := unread.Receive()
			if err != nil {
				if CodeOf(err) != Exhausted {
					t.Errorf("the stream ended with %v", err)
				}
				break
			}
			n++
		}
		if n == 0 || n*1000 > Window {
			t.Errorf("%d messages of 1000 bytes were under way", n)
		}
	})
}

var echo = frame{kind: kindOpen, call: 1, state: stateLast, name: []byte("Echo")}.append(nil)

// oddFrames are records of an App that end the session.
var oddFrames = []struct {
	name    string
	records [][]byte
}{
	{"short", [][]byte{{1, 0, 0, 0}}},
	{"of kind 0", [][]byte{{0, 0, 0, 0, 0}}},
	{"of kind 9", [][]byte{{9, 0, 0, 0, 0}}},
	{"a redial from the App", [][]byte{{8, 0, 0, 0, 0}}},
	{"a redial with a body", [][]byte{{8, 0, 0, 0, 0, 1}}},
	{"a redial for a call", [][]byte{{8, 0, 0, 0, 1}}},
	{"an open without a body", [][]byte{{1, 0, 0, 0, 1}}},
	{"an open without a name", [][]byte{{1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0}}},
	{"an open with half a name", [][]byte{{1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 5, 'E'}}},
	{"an open with a long name", [][]byte{append([]byte{1, 0, 0, 0, 1, 0, 0, 0, 0, 0, MaxName + 1}, make([]byte, 200)...)}},
	{"an open of state 3", [][]byte{{1, 0, 0, 0, 1, 3, 0, 0, 0, 0, 1, 'E'}}},
	{"a piece where there is none", [][]byte{{1, 0, 0, 0, 1, 2, 0, 0, 0, 0, 1, 'E', 9}}},
	{"an open of call 0", [][]byte{{1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 'E'}}},
	{"an open of call 2 first", [][]byte{{1, 0, 0, 0, 2, 0, 0, 0, 0, 0, 1, 'E'}}},
	{"an open twice", [][]byte{echo, echo}},
	{"data without a state", [][]byte{echo, {2, 0, 0, 0, 1}}},
	{"data for no call", [][]byte{{2, 0, 0, 0, 1, 0}}},
	{"data for call 0", [][]byte{echo, {2, 0, 0, 0, 0, 0}}},
	{"data that carries nothing", [][]byte{{1, 0, 0, 0, 1, 2, 0, 0, 0, 0, 3, 'S', 'u', 'm'}, {2, 0, 0, 0, 1, 1}}},
	{"data after the last", [][]byte{{1, 0, 0, 0, 1, 2, 0, 0, 0, 0, 3, 'S', 'u', 'm'}, {2, 0, 0, 0, 1, 1, 9}, {2, 0, 0, 0, 1, 2}}},
	{"an end from the App", [][]byte{echo, {3, 0, 0, 0, 1, 0}}},
	{"an end without a code", [][]byte{{3, 0, 0, 0, 1}}},
	{"an end with a strange code", [][]byte{{3, 0, 0, 0, 1, byte(codes)}}},
	{"a cancel with a body", [][]byte{echo, {4, 0, 0, 0, 1, 0}}},
	{"a cancel for no call", [][]byte{{4, 0, 0, 0, 7}}},
	{"a credit of 3 bytes", [][]byte{echo, {5, 0, 0, 0, 1, 0, 0, 1}}},
	{"a credit of nothing", [][]byte{{1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 4, 'W', 'a', 'i', 't'}, {5, 0, 0, 0, 1, 0, 0, 0, 0}}},
	{"a credit beyond the window", [][]byte{{1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 4, 'W', 'a', 'i', 't'}, {5, 0, 0, 0, 1, 0, 0, 0, 1}}},
	{"a huge credit", [][]byte{{1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 4, 'W', 'a', 'i', 't'}, {5, 0, 0, 0, 1, 255, 255, 255, 255}}},
	{"a pong that answers no ping", [][]byte{{7, 0, 0, 0, 1}}},
	{"a ping with a body", [][]byte{{6, 0, 0, 0, 1, 1}}},
	{"pings that await no answer", slices.Repeat([][]byte{{6, 0, 0, 0, 1}}, 3)},
	{"data after the request", [][]byte{{1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 4, 'W', 'a', 'i', 't'}, {2, 0, 0, 0, 1, 0}}},
	{"data beyond the window", beyondTheWindow()},
}

// Each of these ends the session, and nothing else does an odd frame do.
func TestOddFramesEndTheSession(t *testing.T) {
	for _, c := range oddFrames {
		name, records := c.name, c.records
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, b *base) {
				a, raw := net.Pipe()
				app := b.serveOn(t.Context(), &b.peer, a, raw)
				go func() { // the frames of the answer stay in the pipe until all is sent
					for _, record := range records {
						_ = app.WriteRecord(record)
					}
					if !strings.HasPrefix(name, "pings") {
						_, _ = io.Copy(io.Discard, a)
					}
				}()
				after := took(func() {
					if err := <-b.ended; !errors.Is(err, ErrProtocol) {
						t.Errorf("the session ended with %v", err)
					}
				})
				if after > time.Second {
					t.Errorf("the session ended after %s", after)
				}
				_ = a.Close()
				synctest.Wait()
				if b.calls.Load() != 0 || b.budget.used.Load() != 0 {
					t.Errorf("%d handlers run, %d bytes are held", b.calls.Load(), b.budget.used.Load())
				}
			})
		})
	}
}

// beyondTheWindow sends more than a handler that reads nothing gives credit for.
func beyondTheWindow() [][]byte {
	records := [][]byte{frame{kind: kindOpen, call: 1, state: stateNone, name: []byte("Deaf")}.append(nil)}
	for range Window/8000 + 1 {
		records = append(records, frame{kind: kindData, call: 1, state: stateLast, piece: make([]byte, 8000)}.append(nil))
	}
	return records
}
