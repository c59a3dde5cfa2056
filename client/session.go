package client

import (
	"context"
	"net"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/BitBoxSwiss/bitbox-base/api/base/v1/baserpc"
	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/changelog"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/posture"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/rpc"
)

// retiredTime is how long to keep a connection that has no calls and takes no new ones. By then a
// call that was about to use it has begun.
const retiredTime = 15 * time.Second

// Session gives access to the services of one Base. It connects with the first call, and again
// whenever that is needed: after the Base was restarted or has moved, and at least every hour.
// Then new calls use a fresh handshake, while old calls finish on their connection. When the Base
// asks for it, the session moves to a new connection, and events and logs continue there.
//
// Errors of a call are *Error: errors.Is finds their kind, and Explain turns them into a
// sentence.
type Session struct {
	Info    InfoClient
	Apps    baserpc.AppsServiceClient
	Pairing baserpc.PairingServiceClient
	Events  baserpc.EventsServiceClient
	Audit   baserpc.AuditServiceClient
	// Machine and Services are answered only by an appliance whose software knows them (otherwise
	// ErrUnknownToBase or ErrNotNow).
	Machine  baserpc.MachineServiceClient
	Services baserpc.ServicesServiceClient
	// Wallet tells who uses an extra API.
	Wallet baserpc.WalletServiceClient
	// Node tells about the Bitcoin node; a Base without one says so.
	Node baserpc.NodeServiceClient

	// Signed or verified requests are methods of Session (posture.go).
	posture baserpc.PostureServiceClient
	bans    baserpc.BansServiceClient
	update  baserpc.UpdateServiceClient
	changes baserpc.ChangesServiceClient
	disks   baserpc.DiskServiceClient
	verify  func(expect posture.Expectation, history, report []byte) (*PostureView, error) // replaced in tests
	// replaced in tests
	verifyChanges func(expect changelog.Expectation, first, last *systemv1.ChangesHead, entries [][]byte) (*ChangeLog, error)
	matched       func(view *PostureView, answer *systemv1.PairingAnswer, report []byte) (bool, error) // replaced in tests

	base      string
	transport *transport
}

// Open returns a Session with the Base of this name; an empty name means the only one. It does
// not connect yet. Addresses ("host:port" or "host") are for a Base that has moved out of the
// reach of mDNS. If any are given, only these are tried, and the one where the Base proves itself
// is stored.
func (a *App) Open(name string, addresses ...string) (*Session, error) {
	var targets []string
	for _, address := range addresses[:min(len(addresses), maxAddresses)] {
		target, err := withPort(address)
		if err != nil {
			return nil, err
		}
		targets = append(targets, target)
	}
	p, err := a.find(name)
	if err != nil {
		return nil, err
	}
	if !p.State.Usable() {
		return nil, failUnusable(p)
	}
	s := a.session(p.AppID)
	s.base, s.transport.given = p.Name, targets
	return s, nil
}

func (a *App) session(id string) *Session {
	t := &transport{app: a, id: id, roles: rate.NewLimiter(rate.Every(roleEvery), roleBurst)}
	return &Session{
		Info:     InfoClient{baserpc.NewInfoServiceClient(t), t},
		Apps:     baserpc.NewAppsServiceClient(t),
		Pairing:  baserpc.NewPairingServiceClient(t),
		Events:   baserpc.NewEventsServiceClient(t),
		Audit:    baserpc.NewAuditServiceClient(t),
		Machine:  baserpc.NewMachineServiceClient(t),
		Services: baserpc.NewServicesServiceClient(t),
		Node:     baserpc.NewNodeServiceClient(t),
		Wallet:   baserpc.NewWalletServiceClient(t),
		posture:  baserpc.NewPostureServiceClient(t),
		bans:     baserpc.NewBansServiceClient(t),
		update:   baserpc.NewUpdateServiceClient(t),
		changes:  baserpc.NewChangesServiceClient(t),
		disks:    baserpc.NewDiskServiceClient(t),
		verify:   posture.VerifyChain,

		matched:       matched,
		verifyChanges: changelog.Verify,

		transport: t,
	}
}

// Base returns the name of the Base.
func (s *Session) Base() string { return s.base }

// Close ends the connection and cuts calls that are under way. It waits until the results of the
// connection, such as the Base's address, are stored.
func (s *Session) Close() {
	s.transport.close()
	s.transport.app.saving.Wait()
}

// transport is a baserpc.Caller over handshakes that are not too old.
type transport struct {
	app   *App
	id    string
	given []string // addresses to try first
	roles *rate.Limiter

	activating sync.Mutex // guards activated; held while that is stored
	activated  bool

	dialing chan struct{} // holds a token while a connection is made; nil until the first

	mu      sync.Mutex // guards everything below
	current *rpc.Session
	bornAt  time.Time                 // of current, on the monotonic clock
	open    map[*rpc.Session]struct{} // current, and those that take no new calls
	closed  bool
	// redialAt is when a connection was, or is to be, made because the Base asked for it.
	redialAt time.Time

	redialling sync.WaitGroup
}

// Session returns the present connection, or makes a new one.
func (t *transport) Session(ctx context.Context) (*rpc.Session, error) {
	if s, err := t.present(); s != nil || err != nil {
		return s, err
	}
	if err := t.lockDialing(ctx); err != nil {
		return nil, callError(&rpc.Error{Code: rpc.CodeOf(err), Cause: err})
	}
	defer t.unlockDialing()
	if s, err := t.present(); s != nil || err != nil {
		return s, err
	}
	conn, err := t.app.dial(ctx, t.id, t.given)
	if err != nil {
		return nil, err
	}
	return t.take(rpc.NewSession(conn))
}

// lockDialing waits for the turn to make a connection: there is one for all who wait.
func (t *transport) lockDialing(ctx context.Context) error {
	t.mu.Lock()
	if t.dialing == nil {
		t.dialing = make(chan struct{}, 1)
	}
	t.mu.Unlock()
	select {
	case t.dialing <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (t *transport) unlockDialing() { <-t.dialing }

// present returns the connection that takes new calls, nil if there is none.
func (t *transport) present() (*rpc.Session, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return nil, errClosed()
	}
	if t.current == nil {
		return nil, nil
	}
	select {
	case <-t.current.Done():
		t.forgetLocked(t.current)
		return nil, nil
	default:
	}
	if time.Since(t.bornAt) >= t.app.timing.rehandshake {
		t.retireLocked()
		return nil, nil
	}
	return t.current, nil
}

func errClosed() error { return fail(ErrLost, net.ErrClosed, "the session was closed") }

func (t *transport) take(s *rpc.Session) (*rpc.Session, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		_ = s.Close()
		return nil, errClosed()
	}
	if t.open == nil {
		t.open = map[*rpc.Session]struct{}{}
	}
	t.current, t.bornAt = s, time.Now()
	t.open[s] = struct{}{}
	s.OnRedial(func() { t.asked(s) })
	return s, nil
}

// retireLocked makes the present connection take no new calls, and end after its old ones.
func (t *transport) retireLocked() {
	old := t.current
	t.current = nil
	if old == nil {
		return
	}
	var look func()
	look = func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		if old.Calls() == 0 {
			t.forgetLocked(old)
		} else if _, open := t.open[old]; open {
			time.AfterFunc(retiredTime, look)
		}
	}
	time.AfterFunc(retiredTime, look)
}

func (t *transport) forgetLocked(s *rpc.Session) {
	_ = s.Close()
	delete(t.open, s)
	if t.current == s {
		t.current = nil
	}
}

// reconnect makes the next call go over a new connection.
func (t *transport) reconnect() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.current != nil && t.current.Calls() == 0 {
		t.forgetLocked(t.current)
	}
	t.retireLocked()
}

func (t *transport) close() {
	t.mu.Lock()
	t.closed = true
	for s := range t.open {
		t.forgetLocked(s)
	}
	t.mu.Unlock()
	t.redialling.Wait()
}

// Outcome completes a pairing with the first answer of the Base, and explains failures.
func (t *transport) Outcome(err error) error {
	if err == nil || fromBase(err) {
		if err := t.activate(); err != nil {
			return err
		}
	}
	return callError(err)
}

func (t *transport) activate() error {
	t.activating.Lock()
	defer t.activating.Unlock()
	if t.activated {
		return nil
	}
	p, err := t.app.store.pairing(t.id)
	if err == nil && p.State == Pending {
		err = t.app.store.activate(t.id)
	}
	t.activated = err == nil
	return t.app.notes.kept(err)
}
