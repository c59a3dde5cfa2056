// Package api serves the API (api/base/v1) to the sessions of a Registry. One table says
// which role may call which method.
//
// It has no privilege. What needs some, it asks others for: the ceremony authority about
// pairing, System and Helper about the machine.
package api

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"time"

	"connectrpc.com/connect"

	"github.com/BitBoxSwiss/bitbox-base/api/base/v1/basev1connect"
	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/helperclient"
	"github.com/BitBoxSwiss/bitbox-base/internal/middleware/admission"
	"github.com/BitBoxSwiss/bitbox-base/internal/middleware/events"
	"github.com/BitBoxSwiss/bitbox-base/internal/middleware/registry"
)

// Bounds of the API. Who reaches it is paired, but may be a stolen phone.
const (
	// maxMessage is the longest message of a request, in bytes.
	maxMessage = 1 << 20
	// maxHeader is the largest header of a request, in bytes.
	maxHeader = 16 << 10
	// maxStreams is how many calls one connection may have under way.
	maxStreams = 32
	// receivePerStream and receivePerConnection are how many bytes of requests are
	// buffered.
	receivePerStream     = 64 << 10
	receivePerConnection = 256 << 10
	// prefaceTime is how long HTTP/2 may take to begin.
	prefaceTime = 10 * time.Second
	// callTime is how long a request's body may take to arrive, and one message of
	// an answer to leave.
	callTime = 30 * time.Second
	// pingAfter is how long a silent connection is believed to be alive, and
	// pingTime how long the answer to a ping may take.
	pingAfter = 60 * time.Second
	pingTime  = 15 * time.Second
	// stopTime is how long calls may take to end when the Base stops.
	stopTime = 2 * time.Second
)

// Window is what the Server asks of the ceremony authority for an owner's App;
// pairing.Client is one.
type Window interface {
	OpenWindow(ctx context.Context) error
	CloseWindow(ctx context.Context) error
	Watch(ctx context.Context, seen uint64) (*systemv1.Snapshot, error)
}

// Config is what a Server is made of.
type Config struct {
	Registry *registry.Registry
	Events   *events.Hub
	Window   Window
	System   System
	// Helper is nil in a developer's Base.
	Helper Helper
	// StateDir names the file system whose space is reported.
	StateDir string
	Logger   *slog.Logger
}

// Server serves the API to the sessions of a Registry.
type Server struct {
	Config
	audit     *slog.Logger
	started   time.Time
	places    places
	stopping  chan struct{}
	measured  measurements
	lastName  lastName
	api       http.Handler
	refusal   *connect.ErrorWriter
	asking    map[string]bool // replaced in tests, as is streaming
	streaming map[string]bool
	http      http.Server
}

// New prepares a Server; Serve runs it.
func New(config Config) *Server {
	s := &Server{
		Config:    config,
		audit:     config.Logger.With(slog.Bool("audit", true)),
		started:   time.Now(),
		stopping:  make(chan struct{}),
		refusal:   connect.NewErrorWriter(),
		asking:    asking,
		streaming: streaming,
	}
	s.api = s.newMux()
	var protocols http.Protocols
	protocols.SetUnencryptedHTTP2(true) // the channel below is encrypted; nothing else is spoken, no HTTP/1
	s.http = http.Server{
		Handler:           s,
		Protocols:         &protocols,
		ConnContext:       withSession,
		ErrorLog:          slog.NewLogLogger(config.Logger.Handler(), slog.LevelWarn),
		ReadHeaderTimeout: prefaceTime,
		ReadTimeout:       callTime,
		IdleTimeout:       registry.SessionTime, // sessions are ended by the Registry, dead ones by pings
		MaxHeaderBytes:    maxHeader,
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams:          maxStreams,
			MaxReceiveBufferPerStream:     receivePerStream,
			MaxReceiveBufferPerConnection: receivePerConnection,
			SendPingTimeout:               pingAfter,
			PingTimeout:                   pingTime,
			WriteByteTimeout:              callTime,
		},
	}
	return s
}

func (s *Server) newMux() http.Handler {
	options := []connect.HandlerOption{
		connect.WithReadMaxBytes(maxMessage),
		// No compression: its ratio tells an observer of lengths about the content.
		connect.WithCompression("gzip", nil, nil),
		connect.WithInterceptors(answerDeadline{}),
	}
	mux := http.NewServeMux()
	mux.Handle(basev1connect.NewInfoServiceHandler(infoService{s}, options...))
	mux.Handle(basev1connect.NewAppsServiceHandler(appsService{s}, options...))
	mux.Handle(basev1connect.NewPairingServiceHandler(pairingService{s}, options...))
	mux.Handle(basev1connect.NewPrePairedServiceHandler(prePairedService{s}, options...))
	mux.Handle(basev1connect.NewEventsServiceHandler(eventsService{s}, options...))
	mux.Handle(basev1connect.NewPostureServiceHandler(postureService{s}, options...))
	mux.Handle(basev1connect.NewBansServiceHandler(bansService{s}, options...))
	mux.Handle(basev1connect.NewAuditServiceHandler(auditService{s}, options...))
	mux.Handle(basev1connect.NewUpdateServiceHandler(updateService{s}, options...))
	mux.Handle(basev1connect.NewMachineServiceHandler(machineService{Server: s}, options...))
	mux.Handle(basev1connect.NewServicesServiceHandler(servicesService{Server: s}, options...))
	mux.Handle(basev1connect.NewChangesServiceHandler(changesService{s}, options...))
	return mux
}

// Serve serves the connections of l, which must be *admission.Conn. It returns
// when Stop was called, or with l's error.
func (s *Server) Serve(l net.Listener) error {
	if err := s.http.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// Stop ends the streams, lets calls end for a moment, and closes what is left.
func (s *Server) Stop() {
	close(s.stopping)
	ctx, cancel := context.WithTimeout(context.Background(), stopTime)
	defer cancel()
	if err := s.http.Shutdown(ctx); err != nil {
		_ = s.http.Close()
	}
}

// ServeHTTP lets a call through that the roles table allows to the session.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	least, served := roles[r.URL.Path]
	if !served {
		http.NotFound(w, r)
		return
	}
	if !speaksProtobuf(r) {
		http.Error(w, "only the Connect protocol with protobuf messages is spoken here", http.StatusUnsupportedMediaType)
		return
	}
	if err := s.Registry.Authorise(sessionOf(r.Context()), least, r.URL.Path == basev1connect.PrePairedServiceFetchKeysProcedure); err != nil {
		_ = s.refusal.Write(w, r, apiError(err))
		return
	}
	if s.asking[r.URL.Path] {
		places := s.places.askingOf(sessionOf(r.Context()).ID())
		select {
		case places <- struct{}{}:
			defer func() { <-places }()
		case <-r.Context().Done():
			return
		}
	}
	if s.streaming[r.URL.Path] {
		end, err := s.places.beginStream(sessionOf(r.Context()).ID())
		if err != nil {
			_ = s.refusal.Write(w, r, apiError(err))
			return
		}
		defer end()
	}
	ctx := context.WithValue(r.Context(), deadlineKey{}, http.NewResponseController(w))
	// For the log of changes: whatever is asked of the helper for this call is for this App.
	s.api.ServeHTTP(w, r.WithContext(helperclient.ForApp(ctx, sessionOf(ctx).ID())))
}

// answerDeadline gives each answer callTime to leave, once it is there: a client
// that does not read does not hold it up for ever. How long the work takes is
// another matter.
type answerDeadline struct{}

func setAnswerDeadline(ctx context.Context) {
	_ = deadlineOf(ctx).SetWriteDeadline(time.Now().Add(callTime))
}

func (answerDeadline) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, request connect.AnyRequest) (connect.AnyResponse, error) {
		defer setAnswerDeadline(ctx)
		return next(ctx, request)
	}
}

func (answerDeadline) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return next
}

// WrapStreamingHandler is about the end of a stream; sendWithin is about each message.
func (answerDeadline) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return func(ctx context.Context, conn connect.StreamingHandlerConn) error {
		defer setAnswerDeadline(ctx)
		return next(ctx, conn)
	}
}

// speaksProtobuf leaves one encoding of the many that the library would take: JSON,
// gRPC and gRPC-Web are no use here, and are parsers within reach.
func speaksProtobuf(r *http.Request) bool {
	switch r.Header.Get("Content-Type") {
	case "application/proto", "application/connect+proto":
		return true
	}
	return false
}

type (
	sessionKey  struct{}
	deadlineKey struct{}
)

// withSession is the http.Server's ConnContext.
func withSession(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(ctx, sessionKey{}, c.(*admission.Conn).Session.(*registry.Session))
}

func sessionOf(ctx context.Context) *registry.Session {
	return ctx.Value(sessionKey{}).(*registry.Session)
}

// deadlineOf returns what sets the deadline of the call's answer.
func deadlineOf(ctx context.Context) *http.ResponseController {
	return ctx.Value(deadlineKey{}).(*http.ResponseController)
}
