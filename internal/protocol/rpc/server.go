package rpc

import (
	"context"
	"log/slog"
)

// Config is what a Server is made of.
type Config struct {
	Methods []Method
	// Logger hears of panics and of sessions that broke the protocol.
	Logger *slog.Logger
}

// Server serves the calls of Apps.
type Server struct{ Config }

// NewServer checks the table: names, limits, a handler and an Allow in each row.
func NewServer(config Config) (*Server, error) { return &Server{Config: config}, nil }

// Serve serves the calls of one connection until it ends, closes it, and returns
// why it ended. The contexts of its calls are derived from ctx. When ctx ends the
// session does.
func (s *Server) Serve(ctx context.Context, conn Conn, peer *Peer) error { return nil }

// Shutdown refuses new calls and sessions, ends streams, and waits for the calls
// under way until ctx ends; then it closes all sessions. The error is that of ctx.
func (s *Server) Shutdown(ctx context.Context) error { return nil }

// Peer is what the sessions of one App share: the rate of frames, and its places
// in each Class. The zero Peer is ready.
type Peer struct{}

// serverCall is one call at the Base.
type serverCall struct{}
