// Package server answers the requests of local processes, on unix sockets and within the
// process. It asks in this order: is there such a verb, may this caller ask for it, is the
// request short enough, has the caller a budget left. Only then it reads and parses the request.
// It knows the verbs as rows of a table (internal/helper/system), and nothing of what they do.
package server

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"sync"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/caller"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/changerecorder"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/refusal"
	"github.com/BitBoxSwiss/bitbox-base/internal/helperclient"
	"github.com/BitBoxSwiss/bitbox-base/internal/ipc"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/changelog"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/posture"
	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
)

// Server answers requests by a table of verbs.
type Server struct {
	verbs   Table
	budgets map[caller.Who]Budgets
	changes *changerecorder.Log
	// refuse is asked before a verb is done.
	refuse func() error
	log    *slog.Logger
}

// New returns a Server. bounds are the budgets of the callers; nil: CallerBounds. refuse returns
// what everybody is told in place of an answer, nil for nothing.
func New(verbs Table, bounds map[caller.Who]Bounds, changes *changerecorder.Log, refuse func() error, log *slog.Logger) *Server {
	return &Server{verbs: verbs, budgets: NewBudgets(bounds), changes: changes, refuse: refuse, log: log}
}

// Serve takes requests on every listener until ctx ends. Each listener has its own
// bound on connections.
func (s *Server) Serve(ctx context.Context, users caller.Users, listeners ...*net.UnixListener) error {
	life := ctx
	server := &ipc.Server{
		Authorize: func(peer ipc.Peer) error {
			_, err := users.Who(peer)
			return err
		},
		Handler: func(ctx context.Context, peer ipc.Peer, request *ipc.Request, send func([]byte) error) error {
			who, err := users.Who(peer)
			if err != nil {
				return err
			}
			return s.Handle(ctx, who, Incoming{Kind: request.Kind, Size: request.Size, Life: life, Read: func() (*systemv1.SystemRequest, error) {
				b, err := request.Read()
				if err != nil {
					return nil, err
				}
				return Parse(request.Kind, b)
			}}, func(reply *systemv1.SystemReply) error { return sendReply(reply, send) })
		},
		Refused: func(peer ipc.Peer, err error) {
			if errors.Is(err, context.Canceled) {
				return
			}
			s.log.Info("a local request ended without an answer", "user", peer.UID, "pid", peer.PID, "error", err)
		},
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	errs := make([]error, len(listeners))
	var serving sync.WaitGroup
	for i, listener := range listeners {
		serving.Go(func() {
			defer cancel() // one without the other is half a helper
			errs[i] = server.Serve(ctx, listener)
		})
	}
	serving.Wait()
	return errors.Join(errs...)
}

// Parse reads a request of a kind. It refuses unknown fields, since an unknown field may be
// the one that matters. It does not look into signed parts; the ledger does that.
func Parse(kind uint16, b []byte) (*systemv1.SystemRequest, error) {
	if !announces(kind, b) {
		return nil, helperclient.Errorf(helperclient.CodeMalformed, "the request of %d bytes is another one than it was announced as", len(b))
	}
	request := &systemv1.SystemRequest{}
	if err := proto.Unmarshal(b, request); err != nil {
		return nil, helperclient.Errorf(helperclient.CodeMalformed, "the request of %d bytes cannot be read: %w", len(b), err)
	}
	return request, checkRequest(request)
}

// announces tells whether a request has nothing in it but the verb of its kind and an App.
// It is asked before anything is parsed: the budget was taken for that verb, and another one
// may take sixty times its size once it is parsed.
func announces(kind uint16, b []byte) bool {
	for len(b) > 0 {
		number, of, n := protowire.ConsumeTag(b)
		if n < 0 || number != protowire.Number(kind) && number != appIDNumber {
			return false
		}
		size := protowire.ConsumeFieldValue(number, of, b[n:])
		if size < 0 {
			return false
		}
		b = b[n+size:]
	}
	return true
}

var appIDNumber = (&systemv1.SystemRequest{}).ProtoReflect().Descriptor().Fields().ByName("app_id").Number()

func checkRequest(request *systemv1.SystemRequest) error {
	if err := posture.RefuseUnknown(request); err != nil {
		return helperclient.Errorf(helperclient.CodeMalformed, "the request cannot be read: %w", err)
	}
	if id := request.GetAppId(); id != "" && !changelog.IsAppID(id) {
		return helperclient.Errorf(helperclient.CodeMalformed, "the id of the App is not 16 hexadecimal digits")
	}
	return nil
}

func sendReply(reply *systemv1.SystemReply, send func([]byte) error) error {
	b, err := proto.Marshal(reply)
	if err == nil && len(b) > ipc.MaxMessageSize {
		err = reason.Errorf("a reply of %d bytes is longer than %d", len(b), ipc.MaxMessageSize)
	}
	if err != nil {
		return err
	}
	return send(b)
}

// Incoming is a request of which only the kind and the size are known.
type Incoming struct {
	Kind uint16
	Size int // of the message, in bytes
	// Life ends with the helper.
	Life context.Context
	Read func() (*systemv1.SystemRequest, error)
}

// Handle answers one request by one reply or several. An error means that no (last)
// reply could be sent; a refusal is a reply.
func (s *Server) Handle(ctx context.Context, who caller.Who, in Incoming, send func(*systemv1.SystemReply) error) error {
	reply, err := s.answer(ctx, who, in, send)
	if ctx.Err() != nil {
		return ctx.Err() // the caller has gone
	}
	if err != nil {
		refused := refusal.Of(err)
		s.log.Info("a request was refused", "by", who, "verb", s.verbs[in.Kind].Name, "code", refused.Code, "reason", helperclient.Full(err))
		reply = &systemv1.SystemReply{ErrorCode: string(refused.Code), ErrorMessage: refused.Message}
	}
	return send(reply)
}

// allowed returns the verb of a request, unless it is refused as it stands.
func (s *Server) allowed(who caller.Who, in Incoming) (Verb, error) {
	v, known := s.verbs[in.Kind]
	switch {
	case !known:
		return v, helperclient.Errorf(helperclient.CodeMalformed, "the request has no verb that is known here")
	case !v.May.Has(who):
		return v, helperclient.Errorf(helperclient.CodePermission, "%s may not ask for this (%s)", who, v.Name)
	case in.Size > v.Limit:
		return v, helperclient.Errorf(helperclient.CodeMalformed, "the request (%s) has %d bytes; at most %d fit", v.Name, in.Size, v.Limit)
	}
	return v, nil
}

// answer does what the package comment says, in its order.
func (s *Server) answer(ctx context.Context, who caller.Who, in Incoming,
	send func(*systemv1.SystemReply) error) (*systemv1.SystemReply, error) {
	v, err := s.allowed(who, in)
	if err != nil {
		s.budgets[who].Refuse(ctx)
		return nil, err
	}
	leave, err := s.budgets[who].Enter(ctx, v)
	if err != nil {
		return nil, err
	}
	defer leave()
	request, err := in.Read()
	if err != nil {
		return nil, err
	}
	if helperclient.Kind(request) != in.Kind {
		return nil, helperclient.Errorf(helperclient.CodeMalformed, "the request is another one than it was announced as (%s)", v.Name)
	}
	recording := s.changes.Begin(v.Record, who, request)
	if recording != nil && !v.Follows {
		// A change goes on when its caller leaves: the log says how it ended.
		ctx = in.Life
	}
	var reply *systemv1.SystemReply
	if err = s.refuse(); err == nil {
		reply, err = v.do(ctx, &caller.Call{Who: who, App: request.GetAppId(), Send: send}, request)
	}
	recording.End(reply, err)
	return reply, err
}
