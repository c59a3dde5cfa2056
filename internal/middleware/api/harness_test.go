package api

import (
	"context"
	"errors"
	"net"
	"net/http"
	"testing"

	"connectrpc.com/connect"
	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/middleware/admission"
	"github.com/BitBoxSwiss/bitbox-base/internal/middleware/registry/registrytest"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/noiseconn"
)

// fakeSystem can fail.
type fakeSystem struct{ broken error }

func (s fakeSystem) Addresses(context.Context) ([]string, error) {
	return []string{"192.0.2.1"}, s.broken
}

func (s fakeSystem) Temperature(context.Context) (float64, bool, error) {
	return 41.5, s.broken == nil, s.broken
}

// hall is a Server, and the connections that come to it.
type hall struct {
	*Server
	house *registrytest.House
	t     *testing.T
	conns chan net.Conn
	done  chan struct{}
	// noCut breaks it: sessions are not cut.
	noCut bool
}

func serve(h *registrytest.House, t *testing.T, system System) *hall {
	t.Helper()
	l := &hall{house: h, t: t, conns: make(chan net.Conn), done: make(chan struct{})}
	l.Server = New(Config{Registry: h.Registry, Events: h.Events, Window: h.Authority, System: system, StateDir: t.TempDir(), Logger: h.Config.Logger})
	served := make(chan error, 1)
	go func() { served <- l.Serve(l) }()
	t.Cleanup(func() {
		l.Stop()
		if err := <-served; err != nil {
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

func (l *hall) Close() error {
	close(l.done)
	return nil
}

func (l *hall) Addr() net.Addr { return &net.TCPAddr{} }

// dial makes a session of an App.
func (l *hall) dial(a *registrytest.App) (net.Conn, error) {
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

// client returns an HTTP client whose connections are sessions of an App.
func (l *hall) client(a *registrytest.App) *http.Client {
	var protocols http.Protocols
	protocols.SetUnencryptedHTTP2(true)
	transport := &http.Transport{
		Protocols:          &protocols,
		DisableCompression: true,
		DialContext:        func(context.Context, string, string) (net.Conn, error) { return l.dial(a) },
	}
	l.t.Cleanup(transport.CloseIdleConnections)
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

const (
	viewer   = basev1.Role_ROLE_VIEWER
	operator = basev1.Role_ROLE_OPERATOR
	owner    = basev1.Role_ROLE_OWNER
)
