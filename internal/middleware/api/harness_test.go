package api

import (
	"context"
	"errors"
	"net"
	"sync"
	"testing"

	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/middleware/admission"
	"github.com/BitBoxSwiss/bitbox-base/internal/middleware/registry/registrytest"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/noiseconn"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/rpc"
	"google.golang.org/protobuf/proto"
)

// machine can fail.
type machine struct {
	told   *systemv1.MachineInfo // nil: something
	broken error
}

func (m machine) Machine(context.Context) (*systemv1.MachineInfo, error) {
	if m.broken != nil {
		return nil, m.broken
	}
	if m.told != nil {
		return m.told, nil
	}
	return &systemv1.MachineInfo{Addresses: []string{"192.0.2.1"}, TemperatureCelsius: proto.Float64(41.5)}, nil
}

// hall is a Server with the connections to it.
type hall struct {
	*Server
	house *registrytest.House
	t     *testing.T
	conns chan net.Conn
	done  chan struct{}
	// noCut is the broken variant: sessions are not cut.
	noCut bool
}

func serve(t *testing.T, h *registrytest.House, change func(*Config)) *hall {
	t.Helper()
	return serveTable(t, h, methods, newClasses(), change)
}

// serveTable serves another table of methods, or with other places.
func serveTable(t *testing.T, h *registrytest.House, table map[string]method, classes map[holds]*rpc.Class, change func(*Config)) *hall {
	t.Helper()
	l := &hall{house: h, t: t, conns: make(chan net.Conn), done: make(chan struct{})}
	config := Config{Registry: h.Registry, Events: h.Events, Window: h.Authority, Machine: machine{}, StateDir: t.TempDir(),
		Logger: h.Config.Logger}
	if change != nil {
		change(&config)
	}
	l.Server = registrytest.Must(newServer(config, table, classes))
	served := make(chan error, 1)
	go func() { served <- l.Serve(l) }()
	t.Cleanup(func() {
		l.Stop()
		close(l.done)
		if err := <-served; !errors.Is(err, net.ErrClosed) {
			t.Errorf("Serve: %v", err)
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

func (l *hall) Close() error { return nil }

func (l *hall) Addr() net.Addr { return &net.TCPAddr{} }

// dial makes a session of an App.
func (l *hall) dial(a *registrytest.App) (*noiseconn.Conn, error) {
	status, atBase, atApp, err := a.Handshake()
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
	session, err := l.house.Begin(context.Background(), a.Peer, registrytest.From, cut)
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

// client makes calls for an App, on one session as long as it lasts.
func (l *hall) client(a *registrytest.App) *caller {
	c := &caller{hall: l, app: a}
	l.t.Cleanup(c.close)
	return c
}

type caller struct {
	hall *hall
	app  *registrytest.App

	mu      sync.Mutex
	session *rpc.Session
}

func (c *caller) Session(context.Context) (*rpc.Session, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.session != nil && c.session.Err() == nil {
		return c.session, nil
	}
	conn, err := c.hall.dial(c.app)
	if err != nil {
		return nil, err
	}
	c.session = rpc.NewSession(conn)
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
