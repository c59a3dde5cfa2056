package devbase_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/noiseconn"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/rpc"
)

// testApp is an App that follows the protocol, but a test can do each step wrong, leave it out or
// repeat it. Package client does not allow that.
type testApp struct {
	address string // of the Base
	source  string // of the App; empty: the system's choice
	name    string

	static  noiseconn.StaticKey
	signing ed25519.PrivateKey
	pairing *noiseconn.PairInitiator

	// Known once it is paired.
	base      noiseconn.PublicKey
	pair      noiseconn.PairKey
	discovery noiseconn.DiscoveryKey
	seq       atomic.Uint64
}

// testTime bounds every wait of an App in a test. Only a failing test reaches it.
const testTime = 30 * time.Second

func newTestApp(address, name string) (*testApp, error) {
	a := &testApp{address: address, name: name}
	a.seq.Store(uint64(time.Now().UnixMilli()))
	var err error
	if a.static, err = noiseconn.GenerateStatic(nil); err != nil {
		return nil, err
	}
	if _, a.signing, err = ed25519.GenerateKey(nil); err != nil {
		return nil, err
	}
	a.pairing, err = noiseconn.NewPairInitiator(nil, a.static)
	return a, err
}

func (a *testApp) dial() (net.Conn, error) {
	dialer := net.Dialer{Timeout: testTime}
	if a.source != "" {
		dialer.LocalAddr = &net.TCPAddr{IP: net.ParseIP(a.source)}
	}
	c, err := dialer.Dial("tcp", a.address)
	if err != nil {
		return nil, err
	}
	return c, c.SetDeadline(time.Now().Add(testTime))
}

func (a *testApp) number() uint32 { return noiseconn.RequestNumber(a.pairing.P1()) }

// request sends P1 and waits for P2 on one connection.
func (a *testApp) request() (net.Conn, [32]byte, error) {
	c, err := a.dial()
	if err != nil {
		return nil, [32]byte{}, err
	}
	commitment, err := a.requestOn(c)
	return c, commitment, err
}

func (a *testApp) requestOn(c net.Conn) ([32]byte, error) {
	if err := noiseconn.WriteFrame(c, noiseconn.TypePair, a.pairing.P1()); err != nil {
		return [32]byte{}, err
	}
	_, p2, err := noiseconn.ReadFrame(c)
	if err != nil {
		return [32]byte{}, err
	}
	return a.pairing.ReadP2(p2)
}

// shown is a ceremony in which both sides show a code.
type shown struct {
	app     *testApp
	channel *noiseconn.Conn
	hash    [32]byte
	ra      [32]byte
	p4      *noiseconn.P4
	code    string
}

// reveal sends P3 and reads P4.
func (a *testApp) reveal(c net.Conn, commitment [32]byte) (*shown, error) {
	s := &shown{app: a}
	if _, err := rand.Read(s.ra[:]); err != nil {
		return nil, err
	}
	public := a.signing.Public().(ed25519.PublicKey)
	p3, transport, err := a.pairing.WriteP3(&noiseconn.P3Payload{RA: s.ra, SigningKey: public, Name: a.name})
	if err != nil {
		return nil, err
	}
	if err := noiseconn.WriteFrame(c, noiseconn.TypePair, p3); err != nil {
		return nil, err
	}
	a.base, s.hash = transport.PeerStatic, transport.HandshakeHash
	s.channel = noiseconn.NewConn(c, transport)
	record, err := s.channel.ReadRecord()
	if err != nil {
		return nil, err
	}
	if s.p4, err = noiseconn.ParseP4(record); err != nil {
		return nil, err
	}
	code, err := noiseconn.Code(s.ra, s.p4.RB, s.hash, public, s.p4.StateKey, s.p4.Role)
	s.code = noiseconn.FormatNumber(code)
	return s, err
}

// confirm sends the App's yes.
func (s *shown) confirm() error {
	a := s.app
	public := a.signing.Public().(ed25519.PublicKey)
	record, err := noiseconn.MarshalAppConfirm(ed25519.Sign(a.signing, noiseconn.EnrolMessage(s.hash, public, s.ra, s.p4.RB)))
	if err != nil {
		return err
	}
	return s.channel.WriteRecord(record)
}

// confirmed waits for the Base's yes.
func (s *shown) confirmed() error {
	record, err := s.channel.ReadRecord()
	if err != nil {
		return err
	}
	s.app.pair, s.app.discovery, err = noiseconn.ParseBaseConfirm(record)
	return err
}

// r1 makes a new connect frame.
func (a *testApp) r1() (*noiseconn.ConnectInitiator, error) {
	return noiseconn.NewConnectInitiator(nil, a.static, a.base, a.pair, a.seq.Add(1))
}

// errRevoked is what a revoked App gets.
var errRevoked = fmt.Errorf("revoked")

// connect makes a session. The Base begins it with the first record.
func (a *testApp) connect() (*noiseconn.Conn, error) {
	c, err := a.dial()
	if err != nil {
		return nil, err
	}
	channel, err := a.connectOn(c)
	if err != nil {
		_ = c.Close()
		return nil, err
	}
	return channel, c.SetDeadline(time.Time{})
}

func (a *testApp) connectOn(c net.Conn) (*noiseconn.Conn, error) {
	initiator, err := a.r1()
	if err != nil {
		return nil, err
	}
	if err := noiseconn.WriteFrame(c, noiseconn.TypeConnect, initiator.R1()); err != nil {
		return nil, err
	}
	_, r2, err := noiseconn.ReadFrame(c)
	if err != nil {
		return nil, err
	}
	status, transport, err := initiator.ReadR2(r2)
	if err != nil {
		return nil, err
	}
	if status == noiseconn.StatusRevoked {
		return nil, errRevoked
	}
	return noiseconn.NewConn(c, transport), nil
}

// client makes calls for the App, all on one session.
func (a *testApp) client() *caller { return &caller{app: a} }

// caller is a baserpc.Caller.
type caller struct {
	app     *testApp
	mu      sync.Mutex
	session *rpc.Session // nil: not yet
}

func (c *caller) Session(context.Context) (*rpc.Session, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.session == nil {
		channel, err := c.app.connect()
		if err != nil {
			return nil, err
		}
		c.session = rpc.NewSession(channel)
	}
	return c.session, nil
}

func (c *caller) Outcome(err error) error { return err }

func (c *caller) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.session != nil {
		_ = c.session.Close()
	}
}
