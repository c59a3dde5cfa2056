package client

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"io"
	"log/slog"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/api/base/v1/baserpc"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/noiseconn"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/rpc"
)

// patience is far more than anything here takes; the Base itself gives up an upload after 30 s.
const patience = 3 * time.Minute

// fakeBase plays a Base: an honest one, unless a test changes its behaviour.
type fakeBase struct {
	t         *testing.T
	listener  net.Listener
	calls     *rpc.Server
	sessions  sync.WaitGroup
	static    noiseconn.StaticKey
	public    noiseconn.PublicKey
	discovery noiseconn.DiscoveryKey

	// A test may replace these before the first connection.
	name    string
	modulus uint32
	accept  func(p1 []byte) bool                    // whether somebody accepts this request
	rb      func(p *revealed) (record []byte)       // the record P4, given what the App revealed
	confirm func(conn *noiseconn.Conn, p *revealed) // what comes after P4

	mu       sync.Mutex // guards everything below
	p1s      [][]byte
	reveals  int
	pairings map[noiseconn.PublicKey]noiseconn.PairKey
	revoked  map[noiseconn.PublicKey]bool
	deaf     bool // does not answer any R1
	ordered  bool // does not answer a number that is not above all earlier ones
	seqs     []uint64
	open     map[net.Conn]bool

	handshakes atomic.Int32
	reports    atomic.Int32  // the role that it reports for an App
	nextEvent  chan struct{} // a value makes one WatchEvents send a second event and end
}

// revealed is what a Base knows in the middle of a pairing.
type revealed struct {
	app        noiseconn.PublicKey
	payload    *noiseconn.P3Payload
	h          [32]byte
	rb         [32]byte
	stateKey   ed25519.PublicKey
	role       byte
	commitment [32]byte
}

func newFakeBase(t *testing.T) *fakeBase {
	t.Helper()
	static, err := noiseconn.GenerateStatic(nil)
	if err != nil {
		t.Fatal(err)
	}
	public, err := noiseconn.PublicOf(static)
	if err != nil {
		t.Fatal(err)
	}
	discovery, err := noiseconn.GenerateDiscoveryKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	b := &fakeBase{
		t: t, static: static, public: public, discovery: discovery,
		nextEvent: make(chan struct{}), name: "Fake Base", modulus: noiseconn.CodeModulus,
		accept:   func([]byte) bool { return true },
		pairings: map[noiseconn.PublicKey]noiseconn.PairKey{},
		revoked:  map[noiseconn.PublicKey]bool{},
		open:     map[net.Conn]bool{},
	}
	b.rb = b.honestP4
	b.confirm = b.honestConfirm
	var methods []rpc.Method
	for _, service := range []map[string]rpc.Handler{baserpc.InfoServiceHandlers(b), baserpc.EventsServiceHandlers(b)} {
		for name, handler := range service {
			methods = append(methods, rpc.Method{Name: name, Allow: func(context.Context) error { return nil }, Handler: handler})
		}
	}
	b.calls, err = rpc.NewServer(rpc.Config{Methods: methods, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	b.listen("127.0.0.1:0")
	t.Cleanup(func() { b.off(); b.sessions.Wait() })
	return b
}

func (b *fakeBase) listen(address string) {
	b.t.Helper()
	listener, err := net.Listen("tcp", address)
	if err != nil {
		b.t.Fatal(err)
	}
	b.listener = listener
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			b.mu.Lock()
			b.open[conn] = true
			b.mu.Unlock()
			go b.serve(conn)
		}
	}()
}

// counts returns the numbers of requests and reveals so far.
func (b *fakeBase) counts() (p1s, reveals int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.p1s), b.reveals
}

// connections returns the counters of all connections, in order.
func (b *fakeBase) connections() []uint64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.seqs)
}

func (b *fakeBase) address() string { return b.listener.Addr().String() }

// off plays a Base without power.
func (b *fakeBase) off() {
	b.listener.Close()
	b.cut()
}

// cut ends every connection without a message.
func (b *fakeBase) cut() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for conn := range b.open {
		conn.Close()
		delete(b.open, conn)
	}
}

func (b *fakeBase) serve(conn net.Conn) {
	typ, body, err := noiseconn.ReadFrame(conn)
	switch {
	case err != nil:
	case typ == noiseconn.TypePair && len(body) == noiseconn.P1Size:
		if b.pair(conn, body) {
			conn.Close()
			return
		}
	case typ == noiseconn.TypeClaim:
		if b.pair(conn, body[noiseconn.ClaimMarkSize:]) {
			conn.Close()
			return
		}
	case typ == noiseconn.TypeConnect && len(body) == noiseconn.R1Size:
		if b.connect(conn, body) {
			return
		}
	}
	// Refused: read and discarded.
	_, _ = io.Copy(io.Discard, conn)
	conn.Close()
}

func (b *fakeBase) pair(conn net.Conn, p1 []byte) (done bool) {
	b.mu.Lock()
	b.p1s = append(b.p1s, p1)
	b.mu.Unlock()
	if !b.accept(p1) {
		return false
	}
	responder, err := noiseconn.NewPairResponder(nil, b.static, p1)
	if err != nil {
		b.t.Error(err)
		return true
	}
	p := &revealed{}
	rand.Read(p.rb[:])
	p.stateKey, _, _ = ed25519.GenerateKey(nil)
	p.role = byte(basev1.Role_ROLE_OWNER)
	p.commitment = noiseconn.Commit(p.rb, p.stateKey, p.role)
	p2, err := responder.WriteP2(p.commitment)
	if err != nil {
		b.t.Error(err)
		return true
	}
	if noiseconn.WriteFrame(conn, noiseconn.TypePair, p2) != nil {
		return true
	}
	_, p3, err := noiseconn.ReadFrame(conn)
	if err != nil {
		return true
	}
	payload, transport, err := responder.ReadP3(p3)
	if err != nil {
		b.t.Error(err)
		return true
	}
	b.mu.Lock()
	b.reveals++
	b.mu.Unlock()
	p.app, p.h = transport.PeerStatic, transport.HandshakeHash
	if p.payload, err = noiseconn.ParseP3Payload(payload); err != nil {
		b.t.Error(err)
		return true
	}
	channel := noiseconn.NewConn(conn, transport)
	p4 := b.rb(p)
	if p4 == nil || channel.WriteRecord(p4) != nil {
		return true
	}
	b.confirm(channel, p)
	return true
}

func (b *fakeBase) honestP4(p *revealed) []byte {
	record, err := (&noiseconn.P4{RB: p.rb, StateKey: p.stateKey, Role: p.role, Name: b.name}).Marshal()
	if err != nil {
		b.t.Error(err)
	}
	return record
}

// code is the code that the Base's display would show.
func (b *fakeBase) code(p *revealed) string {
	number, err := noiseconn.CodeDigits(p.payload.RA, p.rb, p.h, p.payload.SigningKey, p.stateKey, p.role, b.modulus)
	if err != nil {
		b.t.Error(err)
	}
	return noiseconn.FormatNumber(number)
}

func (b *fakeBase) honestConfirm(conn *noiseconn.Conn, p *revealed) {
	record, err := conn.ReadRecord()
	if err != nil {
		return
	}
	signature, err := noiseconn.ParseAppConfirm(record)
	if errors.Is(err, noiseconn.ErrRejected) {
		return
	}
	if err != nil || !ed25519.Verify(p.payload.SigningKey, noiseconn.EnrolMessage(p.h, p.payload.SigningKey, p.payload.RA, p.rb), signature) {
		b.t.Errorf("the App's Confirm is not signed rightly: %v", err)
		return
	}
	if confirm := b.enrol(p); conn.WriteRecord(confirm) == nil {
		_ = conn.End()
	}
}

// enrol stores the pairing and returns the Base's Confirm.
func (b *fakeBase) enrol(p *revealed) []byte {
	key, err := noiseconn.GeneratePairKey(nil)
	if err != nil {
		b.t.Error(err)
	}
	b.mu.Lock()
	b.pairings[p.app] = key
	b.mu.Unlock()
	confirm, err := noiseconn.MarshalBaseConfirm(key, b.discovery)
	if err != nil {
		b.t.Error(err)
	}
	return confirm
}

func (b *fakeBase) connect(conn net.Conn, r1 []byte) (done bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.deaf {
		return false
	}
	for app, key := range b.pairings {
		mac, err := noiseconn.MAC1KeyOf(key)
		if err != nil || !noiseconn.CheckMAC1(mac, r1) {
			continue
		}
		responder, err := noiseconn.NewConnectResponder(nil, b.static, key, r1)
		if err != nil || responder.Peer() != app {
			b.t.Errorf("R1: %v", err)
			return true
		}
		if b.ordered && len(b.seqs) > 0 && responder.Seq() <= slices.Max(b.seqs) {
			return false
		}
		b.seqs = append(b.seqs, responder.Seq())
		status := noiseconn.StatusOK
		if b.revoked[app] {
			status = noiseconn.StatusRevoked
		}
		r2, transport, err := responder.WriteR2(status)
		if err != nil || noiseconn.WriteFrame(conn, noiseconn.TypeConnect, r2) != nil {
			return true
		}
		if status == noiseconn.StatusRevoked {
			conn.Close()
			return true
		}
		b.handshakes.Add(1)
		b.sessions.Go(func() { _ = b.calls.Serve(context.Background(), noiseconn.NewConn(conn, transport), &rpc.Peer{}) })
		return true
	}
	return false
}

// revokeAll revokes every App and cuts it off.
func (b *fakeBase) revokeAll() {
	b.mu.Lock()
	for app := range b.pairings {
		b.revoked[app] = true
	}
	b.mu.Unlock()
	b.cut()
}

func (b *fakeBase) GetInfo(context.Context, *basev1.GetInfoRequest) (*basev1.GetInfoResponse, error) {
	return &basev1.GetInfoResponse{Name: b.name, PublicKey: hex.EncodeToString(b.public[:]), Addresses: []string{"192.0.2.20", "fe80::1"},
		Caller: &basev1.App{Role: basev1.Role(b.reports.Load())}}, nil
}

// testApp is an App with its own directory. It is quicker than a real one, and does not listen to
// the network of the machine that runs the test.
func testApp(t *testing.T) *App {
	t.Helper()
	return appIn(t, t.TempDir())
}

func appIn(t *testing.T, dir string) *App {
	t.Helper()
	a, err := New(Options{Dir: dir, Name: "Test App", NoDiscovery: true})
	if err != nil {
		t.Fatal(err)
	}
	a.timing.requestEvery = 50 * time.Millisecond
	a.timing.stagger = 50 * time.Millisecond
	return a
}

// sayYes confirms every code, like a user who clicks blindly.
func sayYes(context.Context, Code) (bool, error) { return true, nil }

// mustPair pairs an App with an honest Base.
func mustPair(t *testing.T, a *App, b *fakeBase) Base {
	t.Helper()
	base, err := a.Pair(t.Context(), []string{b.address()}, PairOptions{Confirm: sayYes})
	if err != nil {
		t.Fatal(err)
	}
	if base.State != Active {
		t.Fatalf("the pairing is %s", base.State)
	}
	return base
}

// WatchEvents sends one event, and then nothing until the stream ends.
func (b *fakeBase) WatchEvents(ctx context.Context, _ *basev1.WatchEventsRequest, stream *rpc.Sender[basev1.Event]) error {
	if err := stream.Send(&basev1.Event{Event: &basev1.Event_Subscribed{Subscribed: &basev1.SubscribedEvent{}}}); err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		return nil
	case <-b.nextEvent:
		return stream.Send(&basev1.Event{Event: &basev1.Event_WindowChanged{WindowChanged: &basev1.WindowChangedEvent{}}})
	}
}
