// Package admission handles connections until they are authenticated. It takes accepted
// sockets and returns authenticated connections. It ends all others without having sent a
// byte.
//
// # The steps of a connection
//
//  1. Accepted. The connection is parked: it counts against the limits of its address, and
//     may be closed to make room if it is the oldest.
//  2. One frame is read, within an absolute deadline.
//  3. A connect frame (R1) goes on if its mac1 was made with one of the Base's keys, and if it
//     has never come before. From here on no stranger can displace the connection. It takes a
//     place for public-key operations, is answered (R2), and waits for the App's first record.
//     Then the pairing is looked up again, and a session begins: Accept returns it.
//  4. A pairing request (P1) goes to the ceremony authority. It goes on if a person at the
//     Base has accepted this very request, through P2, P3 and P4 to the two answers. Then the
//     connection ends, and the App connects again.
//  5. Every other connection is refused: it gets one line in the log, and all further bytes
//     of the peer are discarded until the deadline. A silent peer, a refused one and one that
//     was nearly right all see the same: no byte, and an end after five seconds.
//
// [Limits] has the numbers and [Reason] the reasons, both from docs/protocol.md.
package admission

import (
	"bytes"
	"container/list"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/noiseconn"
	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
)

// Registry knows the pairings of a Base. internal/middleware implements it. Its methods return a
// *Refusal if the peer is to blame; any other error is the Base's own.
type Registry interface {
	// Recognise finds the pairing whose key made the mac1 of an R1. It does
	// nothing more expensive than an HMAC for each pairing.
	Recognise(r1 []byte) (Recognised, bool)
	// Arrive records an R1 from peer before it is answered, and returns what to answer. It
	// refuses a seq that came before.
	Arrive(peer noiseconn.PublicKey, seq uint64) (noiseconn.Status, error)
	// Begin looks up the pairing again, now that the App's first record has arrived, makes a
	// pending one active, on disk, and begins a session from an address. cut ends the connection
	// at once; it never blocks.
	Begin(ctx context.Context, peer noiseconn.PublicKey, address netip.Addr, cut func()) (Session, error)
	// MayPair tells, before a code is shown, whether peer could be stored.
	MayPair(peer noiseconn.PublicKey) error
	// Acquainted tells whether an active App has recently come from this address (IPv6: from its
	// /64). Then it is never banned, whatever else comes from there.
	Acquainted(address netip.Addr) bool
	// Pend stores a pairing that both people have confirmed, as pending and on disk, and returns
	// the keys for the App.
	Pend(p Pairing) (noiseconn.PairKey, noiseconn.DiscoveryKey, error)
}

// Recognised is a pairing that an R1 claims to come from.
type Recognised struct {
	Peer noiseconn.PublicKey
	Pair noiseconn.PairKey
	// Lapsed: it was never completed and no longer has any rights, but its App may not know that
	// yet.
	Lapsed bool
}

// Session is an authenticated App's session. End is called once, when its connection has ended.
type Session interface{ End() }

// Refusal is an error with the Reason for the log.
type Refusal struct {
	Reason Reason
	Err    error // nil: the reason is enough
}

func (r *Refusal) Error() string {
	if r.Err == nil {
		return string(r.Reason)
	}
	return string(r.Reason) + ": " + r.Err.Error()
}

func (r *Refusal) Unwrap() error { return r.Err }

// Config is what a Listener needs. Every field without a stated default must be set.
type Config struct {
	Limits    Limits
	Static    noiseconn.StaticKey
	Registry  Registry
	Authority Authority
	Logger    *slog.Logger
	// Random nil means the system's generator.
	Random io.Reader
	// Proxied: each connection starts with a PROXY header, which has the client's address. It is
	// allowed only on a unix socket, behind NGINX: elsewhere anybody could claim any address.
	Proxied bool
}

// Listener is a net.Listener of authenticated connections; each is a *Conn.
type Listener struct {
	Config
	inner     net.Listener
	sources   *sources
	parking   parking
	frames    frameMemory
	refusals  *refusalLog
	computing chan struct{}
	hearing   chan struct{}
	ready     chan *Conn
	// Seams: the tests' attacks replace these to show that they can succeed.
	firstSeen func(mac1 [16]byte) bool
	foreign   func(first byte) bool
	drain     func(v *visitor)

	ctx     context.Context // ends at Close
	close   context.CancelFunc
	serving sync.WaitGroup

	mu       sync.Mutex
	visitors map[*visitor]struct{} // nil: closed
}

// visitor is a connection that has not authenticated.
type visitor struct {
	conn     net.Conn
	deadline time.Time
	addr     netip.Addr    // invalid until known
	local    netip.Addr    // the Base's own; invalid until known
	place    *list.Element // of parking, guarded by its lock; nil: not parked
	source   *source       // guarded by the lock of sources; nil: not counted there
	turn     *list.Element // of source.waiting, guarded by the lock of sources; nil: vouched for
	gone     chan struct{} // closed when it was displaced
	displace func()        // ends it to make room; calling it again does nothing
}

func newVisitor(conn net.Conn, deadline time.Time) *visitor {
	v := &visitor{conn: conn, deadline: deadline, gone: make(chan struct{})}
	v.displace = sync.OnceFunc(func() {
		close(v.gone)
		_ = conn.Close()
	})
	return v
}

// Listen admits connections that inner accepts, until Close.
func Listen(inner net.Listener, config Config) (*Listener, error) {
	if config.Proxied && inner.Addr().Network() != "unix" {
		return nil, reason.New("a PROXY header is trusted only on a unix socket, and this listener is not one")
	}
	l := &Listener{
		Config:    config,
		inner:     inner,
		sources:   newSources(config.Limits),
		parking:   parking{places: config.Limits.Parked},
		refusals:  newRefusalLog(config.Logger),
		computing: make(chan struct{}, config.Limits.Computing),
		hearing:   make(chan struct{}, maxHearing),
		ready:     make(chan *Conn),
		visitors:  map[*visitor]struct{}{},
	}
	l.firstSeen = l.frames.first
	l.foreign = otherProtocol
	l.drain = l.drainUntilDeadline
	l.ctx, l.close = context.WithCancel(context.Background())
	l.serving.Go(l.acceptAll)
	return l, nil
}

// Accept returns the next authenticated connection, a *Conn.
func (l *Listener) Accept() (net.Conn, error) {
	select {
	case conn := <-l.ready:
		return conn, nil
	case <-l.ctx.Done():
		return nil, net.ErrClosed
	}
}

// Addr returns the address that is listened on.
func (l *Listener) Addr() net.Addr { return l.inner.Addr() }

// Waiting returns how many connections are parked.
func (l *Listener) Waiting() int { return l.parking.len() }

// Close stops listening and ends every connection that Accept has not returned. It returns when
// all have ended.
func (l *Listener) Close() error {
	l.close()
	err := l.inner.Close()
	l.mu.Lock()
	for v := range l.visitors {
		_ = v.conn.Close()
	}
	l.visitors = nil
	l.mu.Unlock()
	l.serving.Wait()
	return err
}

// maxAcceptDelay bounds the pause after a failed accept.
const maxAcceptDelay = time.Second

func (l *Listener) acceptAll() {
	delay := time.Millisecond
	for {
		conn, err := l.inner.Accept()
		if err == nil {
			delay = time.Millisecond
			l.arrive(conn)
			continue
		}
		if l.ctx.Err() != nil {
			return
		}
		if errors.Is(err, net.ErrClosed) {
			l.Logger.Error("the listener was closed from outside; no more connections are accepted", "error", err)
			l.close()
			return
		}
		// The usual reason is a lack of file descriptors. The connection that has waited longest
		// without authenticating makes room.
		l.Logger.Warn("accept a connection", "error", err)
		if v := l.parking.displaceOldest(); v != nil {
			v.displace()
		}
		select {
		case <-time.After(delay):
		case <-l.ctx.Done():
			return
		}
		delay = min(2*delay, maxAcceptDelay)
	}
}

// arrive parks a new connection and serves it in its own goroutine. A connection above the limits
// of its address costs no goroutine.
func (l *Listener) arrive(conn net.Conn) {
	now := time.Now()
	v := newVisitor(conn, now.Add(l.Limits.Handshake))
	if !l.Proxied {
		if err := l.enter(v, addressOf(conn.RemoteAddr()), addressOf(conn.LocalAddr())); err != nil {
			l.logRefusal(v, err)
			_ = conn.Close()
			return
		}
	}
	l.mu.Lock()
	if l.visitors == nil {
		l.mu.Unlock()
		_ = conn.Close()
		return
	}
	l.visitors[v] = struct{}{}
	l.mu.Unlock()
	if oldest := l.parking.park(v); oldest != nil {
		oldest.displace()
	}
	l.serving.Go(func() { l.serve(v) })
}

// enter counts v, from addr to an address of the Base, against the limits of its address.
func (l *Listener) enter(v *visitor, addr, local netip.Addr) error {
	v.addr, v.local = addr, local
	displaced, reason := l.sources.enter(v, time.Now())
	for _, other := range displaced {
		other.displace()
	}
	if reason != "" {
		return &Refusal{Reason: reason}
	}
	return nil
}

// serve handles one connection to its end.
func (l *Listener) serve(v *visitor) {
	conn, err := l.admit(v)
	if err != nil {
		l.end(v, err)
		l.forget(v)
		_ = v.conn.Close()
		return
	}
	// the listener no longer owns it: it has authenticated
	l.forget(v)
	select {
	case l.ready <- conn:
	case <-l.ctx.Done():
		_ = conn.Close()
	}
}

func (l *Listener) forget(v *visitor) {
	l.parking.unpark(v)
	l.sources.leave(v)
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.visitors, v)
}

func (v *visitor) displaced() bool {
	select {
	case <-v.gone:
		return true
	default:
		return false
	}
}

// admit authenticates v and returns its Conn, or says why not.
func (l *Listener) admit(v *visitor) (*Conn, error) {
	if err := v.conn.SetDeadline(v.deadline); err != nil {
		return nil, l.readFailure(v, MalformedFrame, err) // it was closed
	}
	if l.Proxied {
		addr, local, err := readProxy(v.conn)
		if err != nil {
			return nil, l.readFailure(v, NoAddress, err)
		}
		if err := l.enter(v, addr, local); err != nil {
			return nil, err
		}
	}
	var first [1]byte
	if _, err := io.ReadFull(v.conn, first[:]); err != nil {
		return nil, l.readFailure(v, MalformedFrame, err)
	}
	if l.foreign(first[0]) {
		return nil, &Refusal{Reason: OtherProtocol}
	}
	typ, body, err := noiseconn.ReadFrame(io.MultiReader(bytes.NewReader(first[:]), v.conn))
	if err != nil {
		return nil, l.readFailure(v, MalformedFrame, err)
	}
	switch {
	case typ == noiseconn.TypeConnect && len(body) == noiseconn.R1Size:
		return l.connect(v, body)
	case typ == noiseconn.TypePair && len(body) == noiseconn.P1Size:
		return nil, l.pair(v, nil, body)
	case typ == noiseconn.TypeClaim && len(body) == noiseconn.ClaimSize:
		return nil, l.pair(v, body[:noiseconn.ClaimMarkSize], body[noiseconn.ClaimMarkSize:])
	default:
		return nil, &Refusal{Reason: MalformedFrame}
	}
}

// otherProtocol tells whether a connection that begins with this byte uses
// another protocol: TLS (22 is its handshake record) or a text, such as HTTP, SSH or
// the JSON of an Electrum wallet. A frame begins with 1, 2 or 3.
func otherProtocol(first byte) bool { return first == 0x16 || first >= ' ' && first <= '~' }

// readFailure says why reading ended: the connection ended, or the bytes are wrong.
func (l *Listener) readFailure(v *visitor, wrong Reason, err error) error {
	switch {
	case v.displaced():
		return &Refusal{Reason: Displaced}
	case errors.Is(err, noiseconn.ErrFrame), errors.Is(err, errProxy):
		return &Refusal{Reason: wrong, Err: err}
	case errors.Is(err, os.ErrDeadlineExceeded):
		return &Refusal{Reason: Silent}
	default:
		return &Refusal{Reason: Closed}
	}
}

// end logs why v ends, and makes its end look like any other.
func (l *Listener) end(v *visitor, err error) {
	if !errors.Is(err, errPaired) {
		reason := l.logRefusal(v, err)
		if reason == NoAddress || reason == TooFast || reason == TooMany {
			return // closed at once, with or without NGINX
		}
	}
	if v.conn.SetDeadline(v.deadline) == nil {
		l.drain(v)
	}
}

func (l *Listener) logRefusal(v *visitor, err error) Reason {
	if l.ctx.Err() != nil {
		return Closed // the Base stops; nobody was refused
	}
	var refusal *Refusal
	if !errors.As(err, &refusal) {
		refusal = &Refusal{Reason: Internal, Err: err}
	}
	l.refusals.refused(v.addr, l.counts(v, refusal.Reason), refusal.Reason, refusal.Err)
	return refusal.Reason
}

// counts decides how a refusal counts: it slows the address down, and it counts against the
// returned address, unless that is invalid. This is the only place that decides who may be banned
// at the entry.
func (l *Listener) counts(v *visitor, reason Reason) netip.Addr {
	if !reason.CountsForBan() || !v.addr.IsValid() {
		return netip.Addr{}
	}
	l.sources.failed(v.addr, time.Now())
	if l.Registry.Acquainted(v.addr) {
		return netip.Addr{}
	}
	return against(v.addr, v.local)
}

// maxDrain is how many bytes of a refused peer are read and discarded. Further bytes stay in the
// kernel's buffer, so nobody can keep the Base busy with reading.
const maxDrain = 64 << 10

// drainUntilDeadline discards input until the deadline, an end of file, or displacement. Closing
// with unread bytes would cause a reset, and closing at once would show how long the refusal
// took; both tell a stranger how far he got.
func (l *Listener) drainUntilDeadline(v *visitor) {
	var waste [512]byte
	for drained := 0; drained < maxDrain; {
		n, err := v.conn.Read(waste[:])
		if err != nil {
			return
		}
		drained += n
	}
	select {
	case <-time.After(time.Until(v.deadline)):
	case <-v.gone:
	case <-l.ctx.Done():
	}
}

// takePlace waits for a place to compute in. The caller must call the returned function.
func (l *Listener) takePlace(v *visitor) (giveBack func(), err error) {
	giveBack = func() { <-l.computing }
	select {
	case l.computing <- struct{}{}:
		return giveBack, nil
	default:
	}
	select {
	case l.computing <- struct{}{}:
		return giveBack, nil
	case <-time.After(time.Until(v.deadline)):
		return nil, &Refusal{Reason: Busy}
	case <-l.ctx.Done():
		return nil, l.ctx.Err()
	}
}

// addressOf returns the IP address of a socket's peer; invalid if it has none.
func addressOf(addr net.Addr) netip.Addr {
	if tcp, ok := addr.(*net.TCPAddr); ok {
		return tcp.AddrPort().Addr().Unmap()
	}
	return netip.Addr{}
}
