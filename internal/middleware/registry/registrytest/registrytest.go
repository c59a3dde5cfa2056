// Package registrytest makes a Registry with Apps for tests, with its state in a temporary
// directory.
package registrytest

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"log/slog"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/middleware/admission"
	"github.com/BitBoxSwiss/bitbox-base/internal/middleware/events"
	"github.com/BitBoxSwiss/bitbox-base/internal/middleware/registry"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/noiseconn"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/pairing"
	"github.com/BitBoxSwiss/bitbox-base/internal/state"
)

// TestTime bounds every wait of a test. Only a failing test reaches it.
const TestTime = 30 * time.Second

// Must is for calls that cannot fail in a test.
func Must[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}

// Eventually waits for a condition.
func Eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(TestTime); !condition(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never came true: %s", what)
		}
	}
}

// Authority knows the keys that it is told, and can be made to fail.
type Authority struct {
	Mu      sync.Mutex // guards what follows
	Pending map[string]bool
	Active  map[string]bool
	CutOff  []ed25519.PublicKey // owners whose windows were closed
	Broken  error               // of every verb
	window  systemv1.Snapshot
}

func newAuthority() *Authority {
	return &Authority{Pending: map[string]bool{}, Active: map[string]bool{}}
}

func (a *Authority) Activate(_ context.Context, key ed25519.PublicKey) error {
	a.Mu.Lock()
	defer a.Mu.Unlock()
	if a.Broken != nil {
		return a.Broken
	}
	if !a.Pending[string(key)] && !a.Active[string(key)] {
		return pairing.ErrUnknownKey
	}
	a.Active[string(key)] = true
	return nil
}

func (a *Authority) Retire(_ context.Context, key ed25519.PublicKey) error {
	a.Mu.Lock()
	defer a.Mu.Unlock()
	delete(a.Active, string(key))
	return a.Broken
}

func (a *Authority) Reconcile(_ context.Context, held []ed25519.PublicKey) (unknown, orphaned []ed25519.PublicKey, err error) {
	a.Mu.Lock()
	defer a.Mu.Unlock()
	clear(a.Pending)
	for _, key := range held {
		if !a.Active[string(key)] {
			unknown = append(unknown, key)
		}
	}
	for key := range a.Active {
		if !slices.ContainsFunc(held, func(h ed25519.PublicKey) bool { return string(h) == key }) {
			orphaned = append(orphaned, ed25519.PublicKey(key))
		}
	}
	return unknown, orphaned, a.Broken
}

func (a *Authority) setWindow(open bool, remaining uint64) error {
	a.Mu.Lock()
	defer a.Mu.Unlock()
	a.window.WindowOpen, a.window.WindowRemainingMs = open, remaining
	return a.Broken
}

func (a *Authority) OpenWindow(context.Context) error { return a.setWindow(true, 180_000) }

// CloseWindowOf notes the owner, and closes the window: here each was opened by an App.
func (a *Authority) CloseWindowOf(_ context.Context, owner ed25519.PublicKey) error {
	a.Mu.Lock()
	a.CutOff = append(a.CutOff, owner)
	a.Mu.Unlock()
	return a.setWindow(false, 0)
}

func (a *Authority) CloseWindow(context.Context) error { return a.setWindow(false, 0) }

func (a *Authority) Watch(context.Context, uint64) (*systemv1.Snapshot, error) {
	a.Mu.Lock()
	defer a.Mu.Unlock()
	return &systemv1.Snapshot{WindowOpen: a.window.WindowOpen, WindowRemainingMs: a.window.WindowRemainingMs}, a.Broken
}

// House is a Registry on a state in a temporary directory, with everything around it.
type House struct {
	*registry.Registry
	Events    *events.Hub
	DB        *state.DB
	Authority *Authority
	Config    registry.Config
	history   *state.DB
	t         *testing.T
	path      string
	logMu     sync.Mutex
	log       bytes.Buffer
}

func (h *House) Write(b []byte) (int, error) {
	h.logMu.Lock()
	defer h.logMu.Unlock()
	return h.log.Write(b)
}

// Logs tells whether the log has a text.
func (h *House) Logs(text string) bool {
	h.logMu.Lock()
	defer h.logMu.Unlock()
	return strings.Contains(h.log.String(), text)
}

// New makes a House, whose configuration may be changed.
func New(t *testing.T, change func(*registry.Config)) *House {
	t.Helper()
	h := &House{t: t, path: filepath.Join(t.TempDir(), "middleware.db"), Authority: newAuthority()}
	h.Config.Logger = slog.New(slog.NewTextHandler(h, nil))
	if change != nil {
		change(&h.Config)
	}
	h.openDB()
	h.open()
	t.Cleanup(func() {
		h.Close()
		h.Events.Close()
		_ = h.DB.Close()
		_ = h.history.Close()
	})
	return h
}

func (h *House) openDB() {
	h.t.Helper()
	h.DB = Must(state.Open(h.path, state.Options{Kind: registry.StateKind, Schema: registry.StateSchema, Create: true}))
	h.history = Must(state.Open(h.path+".events", state.Options{Kind: events.HistoryKind, Schema: events.HistorySchema, Create: true}))
}

func (h *House) open() {
	h.t.Helper()
	h.Events = events.Open(h.history, h.Config.Logger)
	h.Config.DB, h.Config.Events = h.DB, h.Events
	var err error
	if h.Registry, err = registry.Open(h.Config); err != nil {
		h.t.Fatal(err)
	}
	if err := h.Connect(h.t.Context(), h.Authority); err != nil {
		h.t.Fatal(err)
	}
}

// Restart closes the state and opens it again.
func (h *House) Restart() {
	h.t.Helper()
	h.Close()
	h.Events.Close()
	if err := errors.Join(h.DB.Close(), h.history.Close()); err != nil {
		h.t.Fatal(err)
	}
	h.openDB()
	h.open()
}

// From is where Apps come from.
var From = netip.MustParseAddr("192.0.2.77")

// App is a paired App.
type App struct {
	house   *House
	static  noiseconn.StaticKey
	Peer    noiseconn.PublicKey
	Signing ed25519.PublicKey
	pair    noiseconn.PairKey
	Seq     atomic.Uint64
}

// NewApp is an App that is not paired.
func NewApp(h *House) *App {
	a := &App{house: h, static: Must(noiseconn.GenerateStatic(nil))}
	a.Seq.Store(uint64(time.Now().UnixMilli()))
	a.Peer = Must(noiseconn.PublicOf(a.static))
	a.Signing, _, _ = ed25519.GenerateKey(rand.Reader)
	return a
}

// ID is what the API calls the App.
func (a *App) ID() string { return a.Peer.AppID() }

// Confirm confirms an App on both sides.
func (h *House) Confirm(name string, role basev1.Role) *App {
	h.t.Helper()
	a := NewApp(h)
	h.Authority.Mu.Lock()
	h.Authority.Pending[string(a.Signing)] = true
	h.Authority.Mu.Unlock()
	var err error
	a.pair, _, err = h.Pend(admission.Pairing{Peer: a.Peer, SigningKey: a.Signing, Name: name, Role: role})
	if err != nil {
		h.t.Fatal(err)
	}
	return a
}

// Active confirms an App, and has it connect once.
func (h *House) Active(name string, role basev1.Role) *App {
	h.t.Helper()
	a := h.Confirm(name, role)
	session, err := h.Begin(h.t.Context(), a.Peer, From, func() {})
	if err != nil {
		h.t.Fatal(err)
	}
	session.End()
	return a
}

// Handshake does what admission does up to R2, without a network.
func (a *App) Handshake() (noiseconn.Status, *noiseconn.Transport, *noiseconn.Transport, error) {
	initiator := Must(noiseconn.NewConnectInitiator(nil, a.static, a.house.PublicKey(), a.pair, a.Seq.Add(1)))
	known, ok := a.house.Recognise(initiator.R1())
	if !ok {
		return 0, nil, nil, &admission.Refusal{Reason: admission.WrongMAC1}
	}
	if known.Lapsed {
		return 0, nil, nil, &admission.Refusal{Reason: admission.Lapsed}
	}
	responder := Must(noiseconn.NewConnectResponder(nil, a.house.Static(), known.Pair, initiator.R1()))
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

// ReasonOf is the reason of admission's refusal.
func ReasonOf(err error) admission.Reason {
	if refusal := new(admission.Refusal); errors.As(err, &refusal) {
		return refusal.Reason
	}
	return ""
}

// ResetLog clears the log.
func (h *House) ResetLog() {
	h.logMu.Lock()
	defer h.logMu.Unlock()
	h.log.Reset()
}
