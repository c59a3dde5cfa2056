package client

import (
	"context"
	"net"
	"net/http"
	"sync"
	"time"

	"connectrpc.com/connect"

	"github.com/BitBoxSwiss/bitbox-base/api/base/v1/basev1connect"
	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/changelog"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/posture"
)

const (
	// maxMessage is the largest message of a Base that is read, in bytes.
	maxMessage = 4 << 20
	// pingAfter and pingTimeout find out that a Base has vanished while a call
	// waits for it.
	pingAfter   = 15 * time.Second
	pingTimeout = 10 * time.Second
	// idleTimeout ends a connection without calls, in place of one that has
	// reached its age too.
	idleTimeout = 90 * time.Second
)

// Session is the services of one Base. It connects with the first call, and
// again whenever that is needed: after the Base was restarted or has moved, and
// in any case after an hour, when new calls go over a fresh handshake while old
// ones end where they are.
//
// Errors of a call are those of package connect; errors.Is finds the kinds of
// this package in them, and Explain makes a sentence of them.
type Session struct {
	Info    basev1connect.InfoServiceClient
	Apps    basev1connect.AppsServiceClient
	Pairing basev1connect.PairingServiceClient
	Events  basev1connect.EventsServiceClient
	Audit   basev1connect.AuditServiceClient
	// Machine and Services are answered by an appliance whose software knows them, and
	// nowhere else (connect.CodeUnimplemented).
	Machine  basev1connect.MachineServiceClient
	Services basev1connect.ServicesServiceClient

	// What is signed, or verified, goes through the methods of Session (posture.go).
	posture basev1connect.PostureServiceClient
	bans    basev1connect.BansServiceClient
	update  basev1connect.UpdateServiceClient
	changes basev1connect.ChangesServiceClient
	verify  func(expect posture.Expectation, history, report []byte) (*PostureView, error) // replaced in tests
	// replaced in tests
	verifyChanges func(expect changelog.Expectation, first, last *systemv1.ChangesHead, entries [][]byte) (*ChangeLog, error)
	matched       func(view *PostureView, answer *systemv1.PairingAnswer, report []byte) (bool, error) // replaced in tests

	base      string
	transport *transport
}

// Open returns a Session with the Base of this name; an empty name means the
// only one. It does not connect yet. Addresses ("host:port" or "host") are for a
// Base that has moved to where mDNS does not reach; then only they are tried, and one
// where the Base proves itself is kept.
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
	t := &transport{app: a, id: id}
	httpClient := &http.Client{
		Transport: t,
		// The API has no redirects; one would lead out of it.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	options := connect.WithClientOptions(
		connect.WithReadMaxBytes(maxMessage),
		// No compression: it would tell an eavesdropper about contents by sizes.
		connect.WithAcceptCompression("gzip", nil, nil),
	)
	const url = "http://base" // the connection leads to one Base, whatever the name
	return &Session{
		Info:     basev1connect.NewInfoServiceClient(httpClient, url, options),
		Apps:     basev1connect.NewAppsServiceClient(httpClient, url, options),
		Pairing:  basev1connect.NewPairingServiceClient(httpClient, url, options),
		Events:   basev1connect.NewEventsServiceClient(httpClient, url, options),
		Audit:    basev1connect.NewAuditServiceClient(httpClient, url, options),
		Machine:  basev1connect.NewMachineServiceClient(httpClient, url, options),
		Services: basev1connect.NewServicesServiceClient(httpClient, url, options),
		posture:  basev1connect.NewPostureServiceClient(httpClient, url, options),
		bans:     basev1connect.NewBansServiceClient(httpClient, url, options),
		update:   basev1connect.NewUpdateServiceClient(httpClient, url, options),
		changes:  basev1connect.NewChangesServiceClient(httpClient, url, options),
		verify:   posture.VerifyChain,

		matched:       matched,
		verifyChanges: changelog.Verify,

		transport: t,
	}
}

// Base returns the name of the Base.
func (s *Session) Base() string { return s.base }

// Close ends the connection; calls that are under way are cut.
func (s *Session) Close() { s.transport.close() }

// transport is an http.RoundTripper over handshakes that are young enough.
type transport struct {
	app   *App
	id    string
	given []string // addresses to try first

	activating sync.Mutex // guards activated; held while that is stored
	activated  bool

	mu      sync.Mutex // guards everything below
	current *http.Transport
	bornAt  time.Time // of current, on the monotonic clock; zero: not connected yet
	conns   map[net.Conn]struct{}
	closed  bool
}

// RoundTrip sends one request. The first answer of a Base completes a pairing.
func (t *transport) RoundTrip(request *http.Request) (*http.Response, error) {
	response, err := t.get().RoundTrip(request)
	if err != nil {
		return nil, err
	}
	if err := t.activate(); err != nil {
		response.Body.Close()
		return nil, err
	}
	return response, nil
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
	return err
}

// get returns the present transport, or a new one when that is too old for new
// calls.
func (t *transport) get() *http.Transport {
	current, old := t.renew()
	if old != nil {
		// Ends what is idle; a connection with calls on it ends by idleTimeout
		// after the last of them. The lock is not held: connections take it when
		// they are closed.
		old.CloseIdleConnections()
	}
	return current
}

func (t *transport) renew() (current, old *http.Transport) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.current != nil && (t.bornAt.IsZero() || time.Since(t.bornAt) < t.app.timing.rehandshake) {
		return t.current, nil
	}
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true) // encrypted below, by the channel
	fresh := &http.Transport{
		Protocols:       protocols,
		IdleConnTimeout: idleTimeout,
		HTTP2:           &http.HTTP2Config{SendPingTimeout: pingAfter, PingTimeout: pingTimeout},
	}
	fresh.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) { return t.dial(ctx, fresh) }
	old, t.current, t.bornAt = t.current, fresh, time.Time{}
	return fresh, old
}

func (t *transport) dial(ctx context.Context, of *http.Transport) (net.Conn, error) {
	conn, err := t.app.dial(ctx, t.id, t.given)
	if err != nil {
		return nil, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		conn.Close()
		return nil, net.ErrClosed
	}
	if t.current == of && t.bornAt.IsZero() {
		t.bornAt = time.Now()
	}
	tracked := &trackedConn{Conn: conn, transport: t}
	if t.conns == nil {
		t.conns = map[net.Conn]struct{}{}
	}
	t.conns[tracked] = struct{}{}
	return tracked, nil
}

// reconnect makes the next call go over a new connection.
func (t *transport) reconnect() {
	t.mu.Lock()
	old := t.current
	t.current = nil
	t.mu.Unlock()
	if old != nil {
		old.CloseIdleConnections()
	}
}

func (t *transport) close() {
	t.mu.Lock()
	t.closed = true
	current := t.current
	var open []net.Conn
	for conn := range t.conns {
		open = append(open, conn)
	}
	t.mu.Unlock()
	for _, conn := range open {
		conn.Close()
	}
	if current != nil {
		current.CloseIdleConnections()
	}
}

// trackedConn is known to its transport until it is closed.
type trackedConn struct {
	net.Conn
	transport *transport
}

func (c *trackedConn) Close() error {
	c.transport.mu.Lock()
	delete(c.transport.conns, c)
	c.transport.mu.Unlock()
	return c.Conn.Close()
}
