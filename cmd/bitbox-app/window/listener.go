package window

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/window/peer"
)

const (
	// loopback is the literal address: the name localhost may lead to another user's [::1].
	loopback = "127.0.0.1"
	// lowestPort and highestPort bound the port, which is drawn: another user cannot wait on it.
	lowestPort, highestPort = 16384, 65535
	// portTries is how often a port is drawn that is in use.
	portTries = 100
	// mostConnections bounds the connections of this user. A browser opens six to one host.
	mostConnections = 64
)

// listenOnLoopback listens on a port of 127.0.0.1 that nobody can guess.
func listenOnLoopback() (*net.TCPListener, error) {
	for range portTries {
		drawn, err := rand.Int(rand.Reader, big.NewInt(highestPort-lowestPort+1))
		if err != nil {
			return nil, fmt.Errorf("draw a port: %w", err)
		}
		at := netip.AddrPortFrom(netip.MustParseAddr(loopback), uint16(lowestPort+drawn.Int64()))
		if listener, err := net.ListenTCP("tcp4", net.TCPAddrFromAddrPort(at)); err == nil {
			return listener, nil
		}
	}
	return nil, errors.New("open a port on " + loopback + " for the window: none is free")
}

// gate accepts connections that the door lets in. Another user of this computer is hung up on before
// a byte is read.
type gate struct {
	*net.TCPListener
	admits func(peer.Whose) bool
	places chan struct{}
}

func newGate(listener *net.TCPListener, admits func(peer.Whose) bool) *gate {
	return &gate{listener, admits, make(chan struct{}, mostConnections)}
}

// Accept implements net.Listener.
func (g *gate) Accept() (net.Conn, error) {
	for {
		conn, err := g.AcceptTCP()
		switch {
		case errors.Is(err, net.ErrClosed):
			return nil, err
		case err != nil: // descriptors are short; others may give some back
			time.Sleep(50 * time.Millisecond)
			continue
		}
		whose := peer.OfConn(conn)
		if g.admits(whose) {
			select {
			case g.places <- struct{}{}:
				return &guest{Conn: conn, whose: whose, leave: sync.OnceFunc(func() { <-g.places })}, nil
			default:
			}
		}
		_ = conn.Close()
	}
}

// guest is a connection that has come in.
type guest struct {
	net.Conn
	whose peer.Whose
	leave func()
}

// Close implements net.Conn.
func (g *guest) Close() error {
	defer g.leave()
	return g.Conn.Close()
}

// whoseKey is the key of a connection's owner in the context of its requests.
type whoseKey struct{}

func withWhose(ctx context.Context, conn net.Conn) context.Context {
	whose := peer.Unknown
	if g, ok := conn.(*guest); ok {
		whose = g.whose
	}
	return context.WithValue(ctx, whoseKey{}, whose)
}
