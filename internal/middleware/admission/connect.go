package admission

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/noiseconn"
	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
)

// connect answers an R1 and waits for the first record.
func (l *Listener) connect(v *visitor, r1 []byte) (*Conn, error) {
	known, ok := l.Registry.Recognise(r1)
	if !ok {
		return nil, &Refusal{Reason: WrongMAC1}
	}
	if !l.firstSeen(noiseconn.MAC1(r1)) {
		return nil, &Refusal{Reason: Replayed}
	}
	if known.Lapsed {
		return nil, &Refusal{Reason: Lapsed}
	}
	// Only a key of this Base can make this frame: no stranger displaces it.
	l.parking.unpark(v)
	l.sources.vouch(v)
	r2, transport, err := l.computeR2(v, known, r1)
	if err != nil {
		return nil, err
	}
	if err := noiseconn.WriteFrame(v.conn, noiseconn.TypeConnect, r2); err != nil {
		return nil, &Refusal{Reason: Closed}
	}
	if transport == nil {
		return nil, &Refusal{Reason: Revoked}
	}
	return l.begin(v, transport)
}

// computeR2 does the expensive part: it holds a place while it computes. The transport is nil if
// the App was revoked.
func (l *Listener) computeR2(v *visitor, known Recognised, r1 []byte) ([]byte, *noiseconn.Transport, error) {
	giveBack, err := l.takePlace(v)
	if err != nil {
		return nil, nil, err
	}
	defer giveBack()
	responder, err := noiseconn.NewConnectResponder(l.Random, l.Static, known.Pair, r1)
	if err != nil {
		return nil, nil, &Refusal{Reason: WrongKey, Err: err}
	}
	if responder.Peer() != known.Peer {
		return nil, nil, &Refusal{Reason: WrongKey}
	}
	status, err := l.Registry.Arrive(known.Peer, responder.Seq())
	if err != nil {
		return nil, nil, err
	}
	r2, transport, err := responder.WriteR2(status)
	if err != nil {
		return nil, nil, reason.Errorf("answer a connection: %w", err)
	}
	return r2, transport, nil
}

// begin waits for the App's first record and then begins the session. Until then it acts on
// nothing: R1 may be a recording.
func (l *Listener) begin(v *visitor, transport *noiseconn.Transport) (*Conn, error) {
	channel := noiseconn.NewConn(v.conn, transport)
	first, err := channel.ReadRecord()
	if err != nil {
		return nil, &Refusal{Reason: NoFirstRecord}
	}
	ctx, cancel := context.WithTimeout(l.ctx, l.Limits.Handshake)
	defer cancel()
	raw := v.conn
	session, err := l.Registry.Begin(ctx, transport.PeerStatic, v.addr, func() { _ = raw.Close() })
	if err != nil {
		return nil, err
	}
	conn := &Conn{Conn: channel, Session: session, Address: v.addr, first: first}
	if err := raw.SetDeadline(time.Time{}); err != nil {
		return nil, errors.Join(&Refusal{Reason: Closed}, conn.Close())
	}
	return conn, nil
}

// Conn is the connection of an authenticated App. It is a net.Conn for the bytes inside the
// channel, from the App's first record on.
type Conn struct {
	*noiseconn.Conn
	// Session is what Registry.Begin returned; Close ends it.
	Session Session
	// Address is the client's, from the PROXY header if there is one.
	Address netip.Addr

	reading sync.Mutex
	first   []byte // the rest of the first record
	end     sync.Once
}

// Read reads the App's bytes, including its first record.
func (c *Conn) Read(p []byte) (int, error) {
	c.reading.Lock()
	if len(c.first) > 0 {
		defer c.reading.Unlock()
		n := copy(p, c.first)
		c.first = c.first[n:]
		return n, nil
	}
	c.reading.Unlock()
	return c.Conn.Read(p)
}

// ReadRecord returns the App's next record, including the first one, or what Read has left of
// one. The channel's own method would skip the first.
func (c *Conn) ReadRecord() ([]byte, error) {
	c.reading.Lock()
	first := c.first
	c.first = nil
	c.reading.Unlock()
	if len(first) > 0 {
		return first, nil
	}
	return c.Conn.ReadRecord()
}

// RemoteAddr returns the client's address.
func (c *Conn) RemoteAddr() net.Addr {
	if c.Address.IsValid() {
		return net.TCPAddrFromAddrPort(netip.AddrPortFrom(c.Address, 0))
	}
	return c.Conn.RemoteAddr()
}

// Close closes the connection and ends the session.
func (c *Conn) Close() error {
	err := c.Conn.Close()
	c.end.Do(c.Session.End)
	return err
}
