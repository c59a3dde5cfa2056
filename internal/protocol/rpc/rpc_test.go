package rpc

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/noiseconn"
)

// must returns a value that making cannot fail in a test.
func must[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}

type (
	number = wrapperspb.UInt64Value
	data   = wrapperspb.BytesValue
	empty  = emptypb.Empty
)

// channel makes the two ends of an encrypted channel on a connection.
func channel(app, base net.Conn) (*noiseconn.Conn, *noiseconn.Conn) {
	appKey, baseKey, pair := must(noiseconn.GenerateStatic(nil)), must(noiseconn.GenerateStatic(nil)), must(noiseconn.GeneratePairKey(nil))
	initiator := must(noiseconn.NewConnectInitiator(nil, appKey, must(noiseconn.PublicOf(baseKey)), pair, 1))
	responder := must(noiseconn.NewConnectResponder(nil, baseKey, pair, initiator.R1()))
	r2, atBase, err := responder.WriteR2(noiseconn.StatusOK)
	if err != nil {
		panic(err)
	}
	_, atApp, err := initiator.ReadR2(r2)
	if err != nil {
		panic(err)
	}
	return noiseconn.NewConn(app, atApp), noiseconn.NewConn(base, atBase)
}

// base is a server with methods for tests.
type base struct {
	*Server
	t     testing.TB
	log   bytes.Buffer
	peer  Peer
	other *Peer

	calls   atomic.Int64 // handlers that run
	left    atomic.Int64 // contexts of handlers that ended
	went    chan struct{}
	entered chan struct{}
	may     error
	ended   chan error
	serving sync.WaitGroup
}

func newBase(t testing.TB, change ...func(*Config)) *base {
	b := &base{t: t, other: new(Peer), went: make(chan struct{}, 10_000), entered: make(chan struct{}, 10_000), ended: make(chan error, 1000)}
	allow := func(context.Context) error { return b.may }
	wait := func(ctx context.Context, _ *empty) (*empty, error) {
		b.calls.Add(1)
		defer b.calls.Add(-1)
		b.entered <- struct{}{}
		<-ctx.Done()
		b.left.Add(1)
		return nil, ctx.Err()
	}
	config := Config{
		Logger: slog.New(slog.NewTextHandler(&b.log, nil)),
		Methods: []Method{
			{Name: "Echo", Allow: allow, MaxRequest: MaxRequest, Deadline: time.Minute,
				Handler: Unary(func(_ context.Context, m *data) (*data, error) { return m, nil })},
			{Name: "Small", Allow: allow, MaxRequest: 100,
				Handler: Unary(func(_ context.Context, m *data) (*data, error) { return m, nil })},
			{Name: "Answer", Allow: allow,
				Handler: Unary(func(_ context.Context, m *number) (*data, error) { return &data{Value: make([]byte, m.Value)}, nil })},
			{Name: "Wait", Allow: allow, Handler: Unary(wait)},
			{Name: "Limited", Allow: allow, Deadline: 2 * time.Second, Handler: Unary(wait)},
			{Name: "Until", Allow: allow, Deadline: time.Hour,
				Handler: Unary(func(ctx context.Context, _ *empty) (*number, error) {
					due, _ := ctx.Deadline()
					return &number{Value: uint64(time.Until(due))}, nil
				})},
			{Name: "GoesOn", Allow: allow, Deadline: time.Minute, GoesOn: true,
				Handler: Unary(func(ctx context.Context, _ *empty) (*empty, error) {
					b.entered <- struct{}{}
					time.Sleep(20 * time.Second)
					if ctx.Err() == nil {
						b.went <- struct{}{}
					}
					return &empty{}, nil
				})},
			{Name: "StreamGoesOn", Allow: allow, Deadline: time.Minute, GoesOn: true,
				Handler: ServerStream(func(ctx context.Context, _ *empty, s *Sender[number]) error {
					b.entered <- struct{}{}
					for i := range 20 {
						if err := s.Send(&number{Value: uint64(i)}); err != nil {
							return err
						}
						time.Sleep(time.Second)
					}
					if ctx.Err() == nil {
						b.went <- struct{}{}
					}
					return nil
				})},
			{Name: "PourGoesOn", Allow: allow, Deadline: time.Hour, GoesOn: true,
				Handler: ServerStream(func(ctx context.Context, _ *empty, s *Sender[data]) error {
					for range 2 * Window / 1000 {
						if err := s.Send(&data{Value: make([]byte, 1000)}); err != nil {
							return err
						}
					}
					b.went <- struct{}{}
					return nil
				})},
			{Name: "Count", Allow: allow,
				Handler: ServerStream(func(ctx context.Context, m *number, s *Sender[number]) error {
					for i := range m.Value {
						if err := s.Send(&number{Value: i}); err != nil {
							return err
						}
					}
					return nil
				})},
			{Name: "Pour", Allow: allow,
				Handler: ServerStream(func(ctx context.Context, m *number, s *Sender[data]) error {
					b.calls.Add(1)
					defer b.calls.Add(-1)
					for {
						if err := s.Send(&data{Value: make([]byte, m.Value)}); err != nil {
							return err
						}
					}
				})},
			{Name: "Events", Allow: allow,
				Handler: ServerStream(func(ctx context.Context, _ *empty, s *Sender[number]) error {
					b.calls.Add(1)
					defer b.calls.Add(-1)
					if err := s.Send(&number{Value: 1}); err != nil {
						return err
					}
					<-ctx.Done()
					b.left.Add(1)
					return ctx.Err()
				})},
			{Name: "Sum", Allow: allow, MaxRequest: 512 << 10,
				Handler: ClientStream(func(_ context.Context, r *Receiver[data]) (*number, error) {
					for sum := uint64(0); ; {
						m, err := r.Receive()
						if err == io.EOF {
							return &number{Value: sum}, nil
						}
						if err != nil {
							return nil, err
						}
						sum += uint64(len(m.Value))
					}
				})},
			{Name: "First", Allow: allow, MaxRequest: 512 << 10,
				Handler: ClientStream(func(_ context.Context, r *Receiver[data]) (*number, error) {
					_, err := r.Receive()
					return nil, Errorf(Precondition, "not this one (%v)", err)
				})},
			{Name: "Deaf", Allow: allow, MaxRequest: MaxRequest,
				Handler: ClientStream(func(ctx context.Context, _ *Receiver[data]) (*number, error) {
					<-ctx.Done()
					return nil, ctx.Err()
				})},
			{Name: "Panic", Allow: allow,
				Handler: Unary(func(context.Context, *empty) (*empty, error) { panic("a handler that fails") })},
			{Name: "Fail", Allow: allow,
				Handler: Unary(func(context.Context, *empty) (*empty, error) {
					return nil, Errorf(NotFound, "no\x1b[31m such %s", strings.Repeat("thing ö", 200))
				})},
			{Name: "Two", Allow: allow, Class: &Class{PerPeer: 2, Full: "two are enough"}, Handler: Unary(wait)},
			{Name: "Turns", Allow: allow, Class: &Class{PerPeer: 2, Wait: true}, Handler: Unary(wait)},
			{Name: "Three", Allow: allow, Class: &Class{PerPeer: 2, Total: 3, Full: "three are enough"}, Handler: Unary(wait)},
		},
	}
	for _, f := range change {
		f(&config)
	}
	b.Server = must(NewServer(config))
	t.Cleanup(func() {
		b.serving.Wait()
		_ = b.Shutdown(context.Background())
	})
	return b
}

// serve serves one end of a channel for a peer, and returns the App's end.
func (b *base) serve(ctx context.Context, peer *Peer) *noiseconn.Conn {
	app, raw := net.Pipe()
	return b.serveOn(ctx, peer, app, raw)
}

func (b *base) serveOn(ctx context.Context, peer *Peer, app, raw net.Conn) *noiseconn.Conn {
	appEnd, baseEnd := channel(app, raw)
	b.serving.Go(func() { b.ended <- b.Serve(ctx, baseEnd, peer) })
	b.t.Cleanup(func() { _ = app.Close() })
	return appEnd
}

// connect returns a session with a Base that ends with the test.
func (b *base) connect() *Session {
	s := NewSession(b.serve(b.t.Context(), &b.peer))
	b.t.Cleanup(func() { _ = s.Close() })
	return s
}

// bubble runs a test with a clock of its own, and checks that nothing is left.
func bubble(t *testing.T, test func(t *testing.T, b *base)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { test(t, newBase(t)) })
}

func TestACallOfEachKindIsAnswered(t *testing.T) {
	bubble(t, func(t *testing.T, b *base) {
		s, ctx := b.connect(), t.Context()
		sizes := []int{0, 1, 1000, MaxRecord - 30, MaxRecord - 10, MaxRecord, 3 * MaxRecord, Window, Window + 1, MaxRequest - 5}
		for _, size := range sizes {
			want := bytes.Repeat([]byte{7}, size)
			got, err := Call[data](ctx, s, "Echo", &data{Value: want})
			if err != nil || !bytes.Equal(got.Value, want) {
				t.Fatalf("%d bytes: %v, %d bytes", size, err, len(got.GetValue()))
			}
		}
		if got, err := Call[data](ctx, s, "Answer", &number{Value: MaxAnswer - 10}); err != nil || len(got.Value) != MaxAnswer-10 {
			t.Errorf("the largest answer: %v", err)
		}
		if _, err := Call[data](ctx, s, "Answer", &number{Value: MaxAnswer}); CodeOf(err) != Internal {
			t.Errorf("an answer too large: %v", err)
		}
		stream := must(Watch[number](ctx, s, "Count", &number{Value: 20_000}))
		for i := uint64(0); ; i++ {
			m, err := stream.Receive()
			if err == io.EOF && i == 20_000 {
				break
			}
			if err != nil || m.Value != i {
				t.Fatalf("message %d: %v, %v", i, m, err)
			}
		}
		upload := must(Upload[number](ctx, s, "Sum"))
		for range 10 {
			if err := upload.Send(&data{Value: make([]byte, 256<<10)}); err != nil {
				t.Fatal(err)
			}
		}
		if sum, err := upload.Finish(); err != nil || sum.Value != 10*256<<10 {
			t.Errorf("sum %v, %v", sum, err)
		}
		if s.Calls() != 0 {
			t.Errorf("%d calls are under way", s.Calls())
		}
		if used := b.budget.used.Load() + s.budget.used.Load(); used != 0 {
			t.Errorf("%d bytes are still charged", used)
		}
	})
}

func TestErrorsKeepTheirCodeAndAreMadePrintable(t *testing.T) {
	bubble(t, func(t *testing.T, b *base) {
		s, ctx := b.connect(), t.Context()
		_, err := Call[empty](ctx, s, "Fail", &empty{})
		var e *Error
		if !errors.As(err, &e) || e.Code != NotFound || !e.Remote || len(e.Text) > MaxText ||
			strings.Contains(e.Text, "\x1b") || !strings.HasPrefix(e.Text, "no?[31m such") {
			t.Errorf("%#v", err)
		}
		if _, err := Call[empty](ctx, s, "Nothing", &empty{}); CodeOf(err) != Unimplemented {
			t.Errorf("an unknown method: %v", err)
		}
		if _, err := Call[empty](ctx, s, "Sum", &empty{}); CodeOf(err) != Invalid {
			t.Errorf("a method of another kind: %v", err)
		}
		if _, err := Call[empty](ctx, s, "Panic", &empty{}); CodeOf(err) != Internal {
			t.Errorf("a panic: %v", err)
		}
		if !strings.Contains(b.log.String(), "a handler that fails") || !strings.Contains(b.log.String(), "method=Panic") {
			t.Errorf("the log: %s", b.log.String())
		}
		if _, err := Call[data](ctx, s, "Small", &data{Value: make([]byte, 100)}); CodeOf(err) != Exhausted {
			t.Errorf("a request too large: %v", err)
		}
		if _, err := Call[data](ctx, s, "Small", &data{Value: make([]byte, 100_000)}); CodeOf(err) != Exhausted {
			t.Errorf("a request much too large: %v", err)
		}
		if _, err := Call[data](ctx, s, "Small", &data{Value: make([]byte, MaxRequest)}); CodeOf(err) != Invalid {
			t.Errorf("a request larger than any: %v", err)
		}
		upload := must(Upload[number](ctx, s, "First"))
		err = nil
		for i := 0; err == nil && i < 100; i++ {
			err = upload.Send(&data{Value: make([]byte, 256<<10)})
		}
		if err != io.EOF {
			t.Errorf("an upload that nobody reads: %v", err)
		}
		if _, err := upload.Finish(); CodeOf(err) != Precondition {
			t.Errorf("an upload that is refused: %v", err)
		}
		// The session is none the worse.
		if _, err := Call[data](ctx, s, "Echo", &data{Value: []byte{1}}); err != nil {
			t.Error(err)
		}
	})
}
