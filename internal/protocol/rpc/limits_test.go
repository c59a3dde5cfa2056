package rpc

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

// attacked tries an attack on a Base as it is, and on one from which the limit was
// taken that stops it: there it has to succeed, or the test would show nothing.
func attacked(t *testing.T, broken func(*base), attack func(t *testing.T, b *base) error) {
	t.Helper()
	for _, name := range []string{"as it is", "broken"} {
		synctest.Test(t, func(t *testing.T) {
			b := newBase(t)
			if name == "broken" {
				broken(b)
			}
			switch err := attack(t, b); {
			case name == "as it is" && err != nil:
				t.Error(err)
			case name == "broken" && err == nil:
				t.Error("without its limit the Base withstands all the same: this test shows nothing")
			}
		})
	}
}

func noRate(b *base) { b.limits.frameStep = 0 }

// politely opens calls, no more at once than is allowed.
func politely(method string) func(p *rawPeer, n uint32) {
	return func(p *rawPeer, n uint32) {
		p.open(n, method, &data{})
		if n%MaxCalls == 0 {
			p.ends(MaxCalls)
		}
	}
}

// openOnce opens call 1 in place of the first frame, and waits for its end.
func openOnce(f frame) func(p *rawPeer, n uint32) {
	return func(p *rawPeer, n uint32) {
		if n > 1 {
			p.send(f)
			return
		}
		p.open(1, "Echo", &data{})
		p.ends(1)
	}
}

// The frames of all sessions of an App count, whatever they are.
func TestEachFrameCountsAgainstTheRateOfItsApp(t *testing.T) {
	const frames, sessions = 2000, 8
	for kind, send := range map[string]func(p *rawPeer, n uint32){
		"calls":                    politely("Echo"),
		"unknown methods":          politely("Nothing"),
		"cancels of an ended call": openOnce(frame{kind: kindCancel, call: 1}),
		"data for an ended call":   openOnce(frame{kind: kindData, call: 1, state: stateMore, piece: []byte{0}}),
		"credit for an ended call": openOnce(frame{kind: kindCredit, call: 1, credit: 1}),
		"pieces of a byte": func(p *rawPeer, n uint32) {
			f := frame{kind: kindData, call: 1, state: stateMore, piece: []byte{0}}
			if n == 1 {
				f = frame{kind: kindOpen, call: 1, state: stateNone, name: []byte("Sum")}
			}
			p.send(f)
		},
	} {
		t.Run(kind, func(t *testing.T) {
			attacked(t, noRate, func(t *testing.T, b *base) error {
				done := make(chan struct{}, sessions)
				began := time.Now()
				for range sessions {
					p := b.rawApp(t, &b.peer)
					go func() {
						for n := range uint32(frames / sessions) {
							send(p, n+1)
						}
						done <- struct{}{}
						_ = p.conn.Close()
					}()
				}
				for range sessions {
					<-done
				}
				least := (frames - FrameBurst - 2*sessions) * time.Second / FrameRate
				if after := time.Since(began); after < least {
					return fmt.Errorf("%d frames took %s, not %s", frames, after, least)
				}
				return nil
			})
		})
	}
}

func TestTheRateOfOneAppIsNotThatOfAnother(t *testing.T) {
	one := func(b *base) { b.other = &b.peer }
	attacked(t, one, func(t *testing.T, b *base) error {
		p := b.rawApp(t, &b.peer)
		go func() {
			for n := uint32(1); n < 5000; n++ {
				politely("Echo")(p, n)
			}
			_ = p.conn.Close()
		}()
		time.Sleep(time.Second)
		other := NewSession(b.serve(t.Context(), b.other))
		defer other.Close()
		after := took(func() {
			for range FrameBurst {
				_ = must(Call[data](t.Context(), other, "Echo", &data{}))
			}
		})
		if after > 0 {
			return fmt.Errorf("another App waited %s", after)
		}
		select {
		case <-p.closed:
			return errors.New("the flood was over before")
		default:
			return nil
		}
	})
}

func TestHalfRequestsHoldNoMoreThanTheBudget(t *testing.T) {
	// Each session sends MaxCalls requests but for their last byte.
	fill := func(t *testing.T, b *base, peer *Peer) {
		p := b.rawApp(t, peer)
		for call := range uint32(MaxCalls) {
			p.send(frame{kind: kindOpen, call: call + 1, state: stateMore, name: []byte("Echo"), piece: make([]byte, 16000)})
		}
		for range 40 {
			for call := range uint32(MaxCalls) {
				p.send(frame{kind: kindData, call: call + 1, state: stateMore, piece: make([]byte, 16000)})
			}
			time.Sleep(time.Second / 8) // for the credit
		}
	}
	for name, c := range map[string]struct {
		apps, sessions int
		limit          int64
		broken         func(*base)
	}{
		"of a session":   {1, 1, SessionBuffer, func(b *base) { b.limits.buffer = 1 << 40; b.limits.peerBuffer = 1 << 40 }},
		"of an App":      {1, 4, PeerBuffer, func(b *base) { b.limits.peerBuffer = 1 << 40 }},
		"of all of them": {10, 2, TotalBuffer, func(b *base) { b.budget.limit = 1 << 40 }},
	} {
		t.Run(name, func(t *testing.T) {
			broken := func(b *base) { noRate(b); c.broken(b) }
			attacked(t, broken, func(t *testing.T, b *base) error {
				noRate(b) // it takes a moment longer with
				ended := make(chan struct{}, 100)
				for range c.apps {
					peer := new(Peer)
					for range c.sessions {
						go func() { fill(t, b, peer); ended <- struct{}{} }()
					}
				}
				for range c.apps * c.sessions {
					<-ended
				}
				synctest.Wait()
				held := b.budget.used.Load()
				// Whatever is held, a call of one frame finds its place.
				other := NewSession(b.serve(t.Context(), new(Peer)))
				defer other.Close()
				if _, err := Call[data](t.Context(), other, "Echo", &data{Value: make([]byte, 10_000)}); err != nil {
					t.Errorf("another App: %v", err)
				}
				time.Sleep(ReceiveTime)
				if left := b.budget.used.Load(); left != 0 {
					t.Errorf("%d bytes are held of requests that never came", left)
				}
				if held > c.limit || held < c.limit/4 {
					return fmt.Errorf("%d bytes are held", held)
				}
				return nil
			})
		})
	}
}

func TestAnswersThatNobodyReadsHoldNoMoreThanTheBudget(t *testing.T) {
	unbounded := func(b *base) { b.limits.buffer, b.limits.peerBuffer = 1<<40, 1<<40 }
	attacked(t, unbounded, func(t *testing.T, b *base) error {
		p := b.rawApp(t, &b.peer)
		for call := range uint32(MaxCalls) {
			p.open(call+1, "Answer", &number{Value: 1 << 20})
		}
		synctest.Wait()
		held := b.budget.used.Load()
		time.Sleep(SendTime)
		synctest.Wait()
		if left := b.budget.used.Load(); left != 0 {
			t.Errorf("%d bytes are still held", left)
		}
		if held > SessionBuffer || held < 1<<20 {
			return fmt.Errorf("%d bytes are held", held)
		}
		return nil
	})
}

// A handler is counted until it returns, also when its session is gone: hanging up and
// coming again wins nothing.
func TestCallsThatGoOnAreCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBase(t)
		refused := 0
		for range 2*MaxAppCalls/MaxCalls + 2 {
			p := b.rawApp(t, &b.peer)
			for call := range uint32(MaxCalls) {
				p.open(call+1, "GoesOn", &empty{})
			}
			time.Sleep(100 * time.Millisecond) // for the rate
			_ = p.conn.Close()
			for f := range p.frames {
				if f.kind == kindEnd && f.code == Exhausted {
					refused++
				}
			}
		}
		if running := b.peer.running.Load(); running > MaxAppCalls || refused == 0 {
			t.Errorf("%d run, %d were refused", running, refused)
		}
		time.Sleep(time.Minute)
		if running := b.peer.running.Load(); running != 0 {
			t.Errorf("%d are counted that have ended", running)
		}
	})
}

func TestAClassBoundsTheCallsOfItsMethods(t *testing.T) {
	bubble(t, func(t *testing.T, b *base) {
		ctx, cancel := context.WithCancel(t.Context())
		s, other := b.connect(), NewSession(b.serve(t.Context(), new(Peer)))
		defer other.Close()
		failed := make(chan error, 20)
		begin := func(s *Session, method string, wait bool) {
			go func() { _, err := Call[empty](ctx, s, method, &empty{}); failed <- err }()
			synctest.Wait()
			select {
			case <-b.entered:
				if wait {
					t.Errorf("%s: it did not wait", method)
				}
			default:
				if !wait {
					t.Errorf("%s: it does not run", method)
				}
			}
		}
		refused := func(s *Session, method, want string) {
			t.Helper()
			if _, err := Call[empty](ctx, s, method, &empty{}); CodeOf(err) != Exhausted || err.Error() != want {
				t.Errorf("%s: %v", method, err)
			}
		}
		begin(s, "Two", false)
		begin(s, "Two", false)
		refused(s, "Two", "two are enough")
		begin(other, "Two", false)

		begin(s, "Turns", false)
		begin(s, "Turns", false)
		begin(s, "Turns", true)
		begin(other, "Turns", false)

		begin(s, "Three", false)
		begin(s, "Three", false)
		refused(s, "Three", "three are enough")
		begin(other, "Three", false)
		refused(other, "Three", "three are enough")

		cancel()
		synctest.Wait()
		if b.calls.Load() != 0 || s.Calls()+other.Calls() != 0 {
			t.Errorf("%d handlers run, %d places are taken", b.calls.Load(), s.Calls()+other.Calls())
		}
		ctx, cancel = context.WithCancel(t.Context())
		begin(s, "Turns", false) // its places are free again
		begin(s, "Three", false)
		cancel()
		synctest.Wait()
	})
}

func TestAStopEndsStreamsAndWaitsForCalls(t *testing.T) {
	bubble(t, func(t *testing.T, b *base) {
		s := b.connect()
		stream := must(Watch[number](t.Context(), s, "Events", &empty{}))
		must(stream.Receive())
		answered := make(chan error, 1)
		go func() { _, err := Call[empty](t.Context(), s, "GoesOn", &empty{}); answered <- err }()
		<-b.entered
		stopped := make(chan error, 1)
		go func() { stopped <- b.Shutdown(t.Context()) }()
		if _, err := stream.Receive(); CodeOf(err) != Unavailable {
			t.Errorf("a stream: %v", err)
		}
		synctest.Wait()
		if _, err := Call[data](t.Context(), s, "Echo", &data{}); CodeOf(err) != Unavailable {
			t.Errorf("a new call: %v", err)
		}
		if err := <-answered; err != nil {
			t.Errorf("the call under way: %v", err)
		}
		if err := <-stopped; err != nil {
			t.Error(err)
		}
		<-s.Done()
		late := NewSession(b.serve(t.Context(), &b.peer))
		<-late.Done()
	})
	bubble(t, func(t *testing.T, b *base) {
		s := b.connect()
		go func() { _, _ = Call[empty](t.Context(), s, "Wait", &empty{}) }()
		<-b.entered
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		if after := took(func() {
			if err := b.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
				t.Error(err)
			}
		}); after != 2*time.Second {
			t.Errorf("a stop waited %s", after)
		}
		synctest.Wait()
		if b.calls.Load() != 0 {
			t.Error("a handler runs on")
		}
	})
}

// A Base may do none of these to its App. Each ends the session, or the call.
func TestAHostileBaseIsEnded(t *testing.T) {
	end := func(call uint32, piece ...byte) frame { return frame{kind: kindEnd, call: call, piece: piece} }
	more := frame{kind: kindData, call: 1, state: stateMore, piece: []byte{0}}
	for name, c := range map[string]struct {
		frames []frame
		stream bool
	}{
		"an open":                          {frames: []frame{{kind: kindOpen, call: 1, name: []byte("x")}}},
		"a cancel":                         {frames: []frame{{kind: kindCancel, call: 1}}},
		"an end of no call":                {frames: []frame{end(9)}},
		"an end twice":                     {frames: []frame{end(1), end(1)}},
		"data of no call":                  {frames: []frame{{kind: kindData, call: 9}}},
		"data after the end":               {frames: []frame{end(1), {kind: kindData, call: 1}}},
		"credit for no call":               {frames: []frame{{kind: kindCredit, call: 9, credit: 1}}},
		"credit for call 0":                {frames: []frame{{kind: kindCredit, call: 0, credit: 1}}},
		"credit beyond the window":         {frames: []frame{{kind: kindCredit, call: 1, credit: 1}}},
		"an end within a message":          {frames: []frame{more, end(1)}},
		"two answers":                      {frames: []frame{{kind: kindData, call: 1}, {kind: kindData, call: 1}, end(1)}},
		"an answer beside the answer":      {frames: []frame{{kind: kindData, call: 1}, end(1, 0)}},
		"an answer at the end of a stream": {frames: []frame{end(1, 0)}, stream: true},
		"more than the window": {stream: true,
			frames: repeat(frame{kind: kindData, call: 1, piece: make([]byte, 8000)}, Window/8000+1)},
		"a pong that answers no ping":        {frames: []frame{{kind: kindPong, call: 1}}},
		"a second redial":                    {frames: repeat(frame{kind: kindRedial}, 2)},
		"a redial for a call":                {frames: []frame{{kind: kindRedial, call: 1}}},
		"pings without end":                  {frames: repeat(frame{kind: kindPing, call: 1}, 1000)},
		"credit without end for ended calls": {frames: append([]frame{end(1)}, repeat(frame{kind: kindCredit, call: 1, credit: 1}, 1000)...)},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p, s := rawBase(t)
				go func() {
					if c.stream {
						stream, err := Watch[number](t.Context(), s, "x", &empty{})
						if err == nil {
							<-t.Context().Done()
							stream.Close()
						}
					} else {
						_, _ = Call[empty](t.Context(), s, "x", &empty{})
					}
				}()
				<-p.frames
				if after := took(func() {
					go func() {
						for _, f := range c.frames {
							p.send(f)
						}
					}()
					<-s.Done()
				}); !errors.Is(s.Err(), ErrProtocol) || after > time.Second {
					t.Errorf("the session ended after %s with %v", after, s.Err())
				}
			})
		})
	}
}

func repeat(f frame, n int) (frames []frame) {
	for range n {
		frames = append(frames, f)
	}
	return frames
}

func TestAnAnswerThatIsTooLargeEndsItsCall(t *testing.T) {
	// A Base that reads credit as it pleases, and sends one message without an end.
	endless := func(call uint32, p *rawPeer, size int) {
		for sent := 0; sent < size; sent += 16000 {
			p.send(frame{kind: kindData, call: call, state: stateMore, piece: make([]byte, 16000)})
			time.Sleep(time.Millisecond)
		}
	}
	synctest.Test(t, func(t *testing.T) {
		p, s := rawBase(t)
		failed := make(chan error, MaxCalls)
		go func() { _, err := Call[data](t.Context(), s, "x", &empty{}); failed <- err }()
		<-p.frames
		go endless(1, p, MaxAnswer+Window)
		if err := <-failed; CodeOf(err) != Exhausted {
			t.Errorf("one: %v", err)
		}
		// Many that are each within the limit are more than the App buffers.
		for call := range uint32(10) {
			go func() { _, err := Call[data](t.Context(), s, "x", &empty{}); failed <- err }()
			synctest.Wait()
			go endless(call+2, p, MaxAnswer/2)
		}
		for range 10 {
			select {
			case err := <-failed:
				if CodeOf(err) != Exhausted {
					t.Errorf("many: %v", err)
				}
			case <-time.After(time.Minute):
			}
		}
		if used := s.budget.used.Load(); used > appBuffer {
			t.Errorf("the App holds %d bytes", used)
		}
		_ = s.Close()
	})
}

func TestTheTextsOfABaseAreCutAndPrintable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, s := rawBase(t)
		for _, c := range []struct{ text, want string }{
			{"\x1b]0;owned\a", "?]0;owned?"},
			{"\xff\xfe", "??"},
			{"a\u202eb", "a?b"},
			{string(make([]byte, 10_000)), string(bytesOf('?', MaxText))},
			{string(bytesOf('a', MaxText-1)) + "ö", string(bytesOf('a', MaxText-1))},
		} {
			failed := make(chan error, 1)
			go func() { _, err := Call[empty](t.Context(), s, "x", &empty{}); failed <- err }()
			f := <-p.frames
			p.send(frame{kind: kindEnd, call: f.call, code: Internal, piece: []byte(c.text)})
			if err := <-failed; err.Error() != c.want {
				t.Errorf("%q became %q", c.text, err)
			}
		}
		if s.Err() != nil {
			t.Error(s.Err())
		}
	})
}

func bytesOf(b byte, n int) []byte {
	s := make([]byte, n)
	for i := range s {
		s[i] = b
	}
	return s
}

func TestATableOfMethodsThatIsWrongIsRefused(t *testing.T) {
	right := Method{Name: "x", Allow: func(context.Context) error { return nil },
		Handler: Unary(func(context.Context, *empty) (*empty, error) { return nil, nil })}
	if _, err := NewServer(Config{Methods: []Method{right}}); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*Method){
		"no name":                   func(m *Method) { m.Name = "" },
		"a long name":               func(m *Method) { m.Name = string(bytesOf('x', MaxName+1)) },
		"no Allow":                  func(m *Method) { m.Allow = nil },
		"no handler":                func(m *Method) { m.Handler = Handler{} },
		"large requests":            func(m *Method) { m.MaxRequest = MaxRequest + 1 },
		"negative requests":         func(m *Method) { m.MaxRequest = -1 },
		"going on without an end":   func(m *Method) { m.GoesOn = true },
		"a class without any place": func(m *Method) { m.Class = &Class{} },
		"a class that keeps all its places": func(m *Method) {
			m.Class = &Class{PerPeer: 1, Total: 2, Kept: 2, First: func(context.Context) bool { return true }}
		},
		"a class that keeps places for nobody": func(m *Method) { m.Class = &Class{PerPeer: 1, Total: 2, Kept: 1} },
	} {
		wrong := right
		change(&wrong)
		if _, err := NewServer(Config{Methods: []Method{wrong}}); err == nil {
			t.Errorf("%s: it is taken", name)
		}
	}
	if _, err := NewServer(Config{Methods: []Method{right, right}}); err == nil {
		t.Error("two rows: they are taken")
	}
}

// Two peers who both write more than fits, and neither of whose readers may wait for that.
func TestBothEndsMayFillTheConnectionAtOnce(t *testing.T) {
	bubble(t, func(t *testing.T, b *base) {
		s := b.connect()
		done := make(chan error, 20)
		for range 10 {
			go func() {
				upload := must(Upload[number](t.Context(), s, "Sum"))
				var err error
				for i := 0; i < 20 && err == nil; i++ {
					err = upload.Send(&data{Value: make([]byte, 100<<10)})
				}
				_, err = upload.Finish()
				done <- err
			}()
			go func() {
				_, err := Call[data](t.Context(), s, "Answer", &number{Value: 100 << 10})
				done <- err
			}()
		}
		for range 20 {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
	})
}

func TestNoSessionHasMoreCallsThanItsPlaces(t *testing.T) {
	unbounded := func(b *base) { b.limits.calls = 1 << 30 }
	attacked(t, unbounded, func(t *testing.T, b *base) error {
		p := b.rawApp(t, &b.peer)
		for call := range uint32(2 * MaxCalls) {
			p.open(call+1, "Wait", &empty{})
		}
		time.Sleep(time.Second)
		if calls := b.calls.Load(); calls > MaxCalls {
			return fmt.Errorf("%d calls run", calls)
		}
		return nil
	})
}

func TestAPeerThatReadsNothingIsEndedEvenWhileItSends(t *testing.T) {
	patient := func(b *base) { b.limits.peerTime = time.Hour }
	attacked(t, patient, func(t *testing.T, b *base) error {
		app := b.serve(t.Context(), &b.peer)
		stop := make(chan struct{})
		defer close(stop)
		go func() {
			for n := uint32(1); ; n++ { // what it sends shows that it is there, and not that it reads
				f := frame{kind: kindOpen, call: n, state: stateLast, name: []byte("Echo")}
				if app.WriteRecord(f.append(nil)) != nil {
					return
				}
				select {
				case <-time.After(10 * time.Second):
				case <-stop:
					return
				}
			}
		}()
		select {
		case <-b.ended:
			return nil
		case <-time.After(75 * time.Second):
			return errors.New("it is there after 75 s")
		}
	})
}

func TestAnAppDoesNotWaitForABaseThatReadsNothing(t *testing.T) {
	for name, c := range map[string]struct {
		reads bool // frames, but gives no credit
		code  Code
		limit time.Duration
	}{
		"no bytes":  {false, Unavailable, PeerTime + time.Second},
		"no credit": {true, Exhausted, SendTime + time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				conn, s := rawBaseConn(t)
				if c.reads {
					newRawPeer(t, conn)
				} else {
					defer conn.Close()
				}
				send := func(ctx context.Context) error {
					upload, err := Upload[number](ctx, s, "x")
					for err == nil {
						err = upload.Send(&data{Value: make([]byte, 10_000)})
					}
					return err
				}
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				if c.reads {
					if after := took(func() {
						if err := send(ctx); CodeOf(err) != TimedOut {
							t.Errorf("with a deadline: %v", err)
						}
					}); after > time.Second {
						t.Errorf("with a deadline of a second it took %s", after)
					}
				}
				if after := took(func() {
					if err := send(t.Context()); CodeOf(err) != c.code {
						t.Error(err)
					}
				}); after > c.limit {
					t.Errorf("it took %s", after)
				}
			})
		})
	}
}
