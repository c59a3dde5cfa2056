// Package api serves the API (api/base/v1) to the sessions of a Registry. One table
// (methods.go) says which role may call which method, and how much a call may cost.
//
// The package has no privilege. Privileged work is done by others: the ceremony authority
// decides about pairing, and [Machine] and [Helper] give access to the machine.
package api

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"sync"
	"time"

	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/helperclient"
	"github.com/BitBoxSwiss/bitbox-base/internal/middleware/admission"
	"github.com/BitBoxSwiss/bitbox-base/internal/middleware/events"
	"github.com/BitBoxSwiss/bitbox-base/internal/middleware/registry"
	"github.com/BitBoxSwiss/bitbox-base/internal/nodeclient"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/rpc"
)

// stopTime is how long calls may take to end when the Base stops.
const stopTime = 2 * time.Second

// Window is the part of the ceremony authority that the Server needs for an owner's App;
// pairing.Client is one.
type Window interface {
	OpenWindow(ctx context.Context) error
	CloseWindow(ctx context.Context) error
	Watch(ctx context.Context, seen uint64) (*systemv1.Snapshot, error)
}

// Config is the configuration of a Server.
type Config struct {
	Registry *registry.Registry
	Events   *events.Hub
	Window   Window
	Machine  Machine
	// Helper is nil in a developer's Base.
	Helper Helper
	// Node is asked about the Bitcoin node; nil: there is none.
	Node Node
	// StateDir names the file system whose free space is reported.
	StateDir string
	Logger   *slog.Logger
}

// Server serves the API to the sessions of a Registry.
type Server struct {
	Config
	audit    *slog.Logger
	started  time.Time
	measured measurements
	lastName lastName
	calls    *rpc.Server
	sessions sync.WaitGroup
	redials  redials
}

// New prepares a Server; Serve runs it.
func New(config Config) (*Server, error) { return newServer(config, methods, newClasses()) }

func newServer(config Config, table map[string]method, classes map[holds]*rpc.Class) (*Server, error) {
	s := &Server{
		Config:  config,
		audit:   config.Logger.With(slog.Bool("audit", true)),
		started: time.Now(),
		redials: newRedials(),
	}
	if s.Node == nil {
		s.Node = (*nodeclient.Client)(nil)
	}
	rows, err := s.rows(table, classes)
	if err != nil {
		return nil, err
	}
	s.calls, err = rpc.NewServer(rpc.Config{Methods: rows, Logger: config.Logger})
	return s, err
}

// Serve serves the connections of l, which must be *admission.Conn, until l is closed. It returns
// l's error when all sessions have ended.
func (s *Server) Serve(l net.Listener) error {
	defer s.sessions.Wait()
	for {
		conn, err := l.Accept()
		if err != nil {
			return err
		}
		admitted := conn.(*admission.Conn)
		s.sessions.Go(func() { s.serve(admitted) })
	}
}

// serve serves one session until it ends.
func (s *Server) serve(conn *admission.Conn) {
	session := conn.Session.(*registry.Session)
	// For the log of changes: requests to the helper during a call are for this App.
	ctx := helperclient.ForApp(context.WithValue(context.Background(), sessionKey{}, session), session.ID())
	err := s.calls.Serve(ctx, conn, session.Calls())
	s.Logger.Debug("a session has ended", "app", session.ID(), "why", err)
}

// Stop ends the streams, gives calls a moment to end, and closes the rest. The caller must close
// the listener of Serve as well.
func (s *Server) Stop() {
	ctx, cancel := context.WithTimeout(context.Background(), stopTime)
	defer cancel()
	if err := s.calls.Shutdown(ctx); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		s.Logger.Warn("end the sessions", "error", err)
	}
}

type sessionKey struct{}

func sessionOf(ctx context.Context) *registry.Session {
	return ctx.Value(sessionKey{}).(*registry.Session)
}
