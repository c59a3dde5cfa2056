package middleware

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/middleware/admission"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/noiseconn"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/pairing"
	"github.com/BitBoxSwiss/bitbox-base/internal/state"
)

// testTime bounds what a test waits for. Only one that fails reaches it.
const testTime = 30 * time.Second

func must[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}

func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(testTime); !condition(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never came true: %s", what)
		}
	}
}

// fakeAuthority knows the keys it is told of, and can fail.
type fakeAuthority struct {
	mu      sync.Mutex
	pending map[string]bool
	active  map[string]bool
	broken  error // of every verb
	window  systemv1.Snapshot
}

func newFakeAuthority() *fakeAuthority {
	return &fakeAuthority{pending: map[string]bool{}, active: map[string]bool{}}
}

func (a *fakeAuthority) Activate(_ context.Context, key ed25519.PublicKey) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.broken != nil {
		return a.broken
	}
	if !a.pending[string(key)] && !a.active[string(key)] {
		return pairing.ErrUnknownKey
	}
	a.active[string(key)] = true
	return nil
}

func (a *fakeAuthority) Retire(_ context.Context, key ed25519.PublicKey) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.active, string(key))
	return a.broken
}

func (a *fakeAuthority) Reconcile(_ context.Context, held []ed25519.PublicKey) (unknown, orphaned []ed25519.PublicKey, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	clear(a.pending)
	for _, key := range held {
		if !a.active[string(key)] {
			unknown = append(unknown, key)
		}
	}
	for key := range a.active {
		if !slices.ContainsFunc(held, func(h ed25519.PublicKey) bool { return string(h) == key }) {
			orphaned = append(orphaned, ed25519.PublicKey(key))
		}
	}
	return unknown, orphaned, a.broken
}

func (a *fakeAuthority) setWindow(open bool, remaining uint64) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.window.WindowOpen, a.window.WindowRemainingMs = open, remaining
	return a.broken
}

func (a *fakeAuthority) OpenWindow(context.Context) error  { return a.setWindow(true, 180_000) }
func (a *fakeAuthority) CloseWindow(context.Context) error { return a.setWindow(false, 0) }

func (a *fakeAuthority) Watch(context.Context, uint64) (*systemv1.Snapshot, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return &systemv1.Snapshot{WindowOpen: a.window.WindowOpen, WindowRemainingMs: a.window.WindowRemainingMs}, a.broken
}

// fakeSystem can fail.
type fakeSystem struct{ broken error }

func (s fakeSystem) Addresses(context.Context) ([]string, error) {
	return []string{"192.0.2.1"}, s.broken
}

func (s fakeSystem) Temperature(context.Context) (float64, bool, error) {
	return 41.5, s.broken == nil, s.broken
}

// house is a Registry on a state in a temporary directory, and what belongs to it.
type house struct {
	*Registry
	t         *testing.T
	path      string
	db        *state.DB
	history   *state.DB
	authority *fakeAuthority
	config    RegistryConfig
	logMu     sync.Mutex
	log       bytes.Buffer
}

func (h *house) Write(b []byte) (int, error) {
	h.logMu.Lock()
	defer h.logMu.Unlock()
	return h.log.Write(b)
}

func (h *house) logs(text string) bool {
	h.logMu.Lock()
	defer h.logMu.Unlock()
	return strings.Contains(h.log.String(), text)
}

func newHouse(t *testing.T, change func(*RegistryConfig)) *house {
	t.Helper()
	h := &house{t: t, path: filepath.Join(t.TempDir(), "middleware.db"), authority: newFakeAuthority()}
	h.config.Logger = slog.New(slog.NewTextHandler(h, nil))
	if change != nil {
		change(&h.config)
	}
	h.openDB()
	h.open()
	t.Cleanup(func() {
		h.Close()
		_ = h.db.Close()
		_ = h.history.Close()
	})
	return h
}

func (h *house) openDB() {
	h.t.Helper()
	h.db = must(state.Open(h.path, state.Options{Kind: StateKind, Schema: StateSchema, Create: true}))
	h.history = must(state.Open(h.path+".events", state.Options{Kind: HistoryKind, Schema: HistorySchema, Create: true}))
}

func (h *house) open() {
	h.t.Helper()
	h.config.DB, h.config.History = h.db, h.history
	var err error
	if h.Registry, err = OpenRegistry(h.config); err != nil {
		h.t.Fatal(err)
	}
	if err := h.Connect(h.t.Context(), h.authority); err != nil {
		h.t.Fatal(err)
	}
}

// restart closes the state and opens it anew.
func (h *house) restart() {
	h.t.Helper()
	h.Close()
	if err := errors.Join(h.db.Close(), h.history.Close()); err != nil {
		h.t.Fatal(err)
	}
	h.openDB()
	h.open()
}

// from is where Apps come from.
var from = netip.MustParseAddr("192.0.2.77")

// app is a paired App.
type app struct {
	house   *house
	static  noiseconn.StaticKey
	peer    noiseconn.PublicKey
	signing ed25519.PublicKey
	pair    noiseconn.PairKey
	seq     atomic.Uint64
}

func newApp(h *house) *app {
	a := &app{house: h, static: must(noiseconn.GenerateStatic(nil))}
	a.seq.Store(uint64(time.Now().UnixMilli()))
	a.peer = must(noiseconn.PublicOf(a.static))
	a.signing, _, _ = ed25519.GenerateKey(rand.Reader)
	return a
}

// id is what the API calls the App.
func (a *app) id() string { return (&record{peer: a.peer}).id() }

// pend confirms an App on both sides.
func (h *house) pend(name string, role basev1.Role) *app {
	h.t.Helper()
	a := newApp(h)
	h.authority.mu.Lock()
	h.authority.pending[string(a.signing)] = true
	h.authority.mu.Unlock()
	var err error
	a.pair, _, err = h.Pend(admission.Pairing{Peer: a.peer, SigningKey: a.signing, Name: name, Role: role})
	if err != nil {
		h.t.Fatal(err)
	}
	return a
}

// active confirms an App, and has it connect once.
func (h *house) active(name string, role basev1.Role) *app {
	h.t.Helper()
	a := h.pend(name, role)
	session, err := h.Begin(h.t.Context(), a.peer, from, func() {})
	if err != nil {
		h.t.Fatal(err)
	}
	session.End()
	return a
}

// handshake does what admission does up to R2, without a network.
func (a *app) handshake() (noiseconn.Status, *noiseconn.Transport, *noiseconn.Transport, error) {
	initiator := must(noiseconn.NewConnectInitiator(nil, a.static, a.house.PublicKey(), a.pair, a.seq.Add(1)))
	known, ok := a.house.Recognise(initiator.R1())
	if !ok {
		return 0, nil, nil, &admission.Refusal{Reason: admission.WrongMAC1}
	}
	if known.Lapsed {
		return 0, nil, nil, &admission.Refusal{Reason: admission.Lapsed}
	}
	responder := must(noiseconn.NewConnectResponder(nil, a.house.Static(), known.Pair, initiator.R1()))
	status, err := a.house.Arrive(known.Peer, responder.Seq())
	if err != nil {
		return 0, nil, nil, err
	}
	r2, atBase, err := responder.WriteR2(status)
	if err != nil {
		return 0, nil, nil, err
	}
	_, atApp, err := initiator.ReadR2(r2)
	return status, atBase, atApp, err
}

// hall is a Server, and the connections that come to it.
type hall struct {
	*Server
	house *house
	conns chan net.Conn
	done  chan struct{}
	// noCut breaks it: sessions are not cut.
	noCut bool
}

func (h *house) serve(system System) *hall {
	h.t.Helper()
	l := &hall{house: h, conns: make(chan net.Conn), done: make(chan struct{})}
	l.Server = NewServer(ServerConfig{Registry: h.Registry, Window: h.authority, System: system, StateDir: h.t.TempDir(), Logger: h.config.Logger})
	served := make(chan error, 1)
	go func() { served <- l.Serve(l) }()
	h.t.Cleanup(func() {
		l.Stop()
		if err := <-served; err != nil {
			h.t.Errorf("Serve: %v", err)
		}
	})
	return l
}

func (l *hall) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *hall) Close() error {
	close(l.done)
	return nil
}

func (l *hall) Addr() net.Addr { return &net.TCPAddr{} }

// dial makes a session of an App.
func (l *hall) dial(a *app) (net.Conn, error) {
	status, atBase, atApp, err := a.handshake()
	if err != nil {
		return nil, err
	}
	if status != noiseconn.StatusOK {
		return nil, errors.New("revoked")
	}
	near, far := net.Pipe()
	cut := func() { _ = far.Close() }
	if l.noCut {
		cut = func() {}
	}
	session, err := a.house.Begin(context.Background(), a.peer, from, cut)
	if err != nil {
		return nil, err
	}
	select {
	case l.conns <- &admission.Conn{Conn: noiseconn.NewConn(far, atBase), Session: session}:
	case <-l.done:
		return nil, net.ErrClosed
	}
	return noiseconn.NewConn(near, atApp), nil
}

// client returns an HTTP client whose connections are sessions of an App.
func (l *hall) client(a *app) *http.Client {
	var protocols http.Protocols
	protocols.SetUnencryptedHTTP2(true)
	transport := &http.Transport{
		Protocols:          &protocols,
		DisableCompression: true,
		DialContext:        func(context.Context, string, string) (net.Conn, error) { return l.dial(a) },
	}
	l.house.t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

const anyURL = "http://base"

func codeOf(err error) connect.Code {
	if err == nil {
		return 0
	}
	if refused := new(connect.Error); errors.As(err, &refused) {
		return refused.Code()
	}
	return connect.CodeUnknown
}

func reasonOf(err error) admission.Reason {
	if refusal := new(admission.Refusal); errors.As(err, &refusal) {
		return refusal.Reason
	}
	return ""
}
