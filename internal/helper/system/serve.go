package system

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/caller"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/refusal"
	"github.com/BitBoxSwiss/bitbox-base/internal/helperclient"
	"github.com/BitBoxSwiss/bitbox-base/internal/ipc"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/changelog"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/posture"
)

// Serve takes requests on every listener until ctx ends. Each listener has its own
// bound on connections.
func (h *Helper) Serve(ctx context.Context, users caller.Users, listeners ...*net.UnixListener) error {
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
			return h.handle(ctx, who, incoming{kind: request.Kind, size: request.Size, life: life, read: func() (*systemv1.SystemRequest, error) {
				b, err := request.Read()
				if err != nil {
					return nil, err
				}
				return parseRequest(request.Kind, b)
			}}, func(reply *systemv1.SystemReply) error { return sendReply(reply, send) })
		},
		Refused: func(peer ipc.Peer, err error) {
			if errors.Is(err, context.Canceled) {
				return
			}
			h.log.Info("a local request ended without an answer", "user", peer.UID, "pid", peer.PID, "error", err)
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

// parseRequest reads a request of a kind. What it does not know might be what matters, so
// it refuses unknown fields; but for what is signed, which the ledger looks at.
func parseRequest(kind uint16, b []byte) (*systemv1.SystemRequest, error) {
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
		err = fmt.Errorf("a reply of %d bytes is longer than %d", len(b), ipc.MaxMessageSize)
	}
	if err != nil {
		return err
	}
	return send(b)
}

// incoming is a request of which only the kind and the size are known.
type incoming struct {
	kind uint16
	size int // of the message, in bytes
	// life ends with the helper.
	life context.Context
	read func() (*systemv1.SystemRequest, error)
}

// handle answers one request by one reply or several. An error means that no (last)
// reply could be sent; a refusal is a reply.
func (h *Helper) handle(ctx context.Context, who caller.Who, in incoming, send func(*systemv1.SystemReply) error) error {
	reply, err := h.answer(ctx, who, in, send)
	if ctx.Err() != nil {
		return ctx.Err() // whoever asked has gone
	}
	if err != nil {
		refused := refusal.Of(err)
		h.log.Info("a request was refused", "by", who, "code", refused.Code, "reason", refused.Message)
		reply = &systemv1.SystemReply{ErrorCode: string(refused.Code), ErrorMessage: refused.Message}
	}
	return send(reply)
}

// answer asks in this order: is there such a verb, may this one ask for it, is the request
// short enough, has this caller a budget left. Only then the request is read and parsed.
func (h *Helper) answer(ctx context.Context, who caller.Who, in incoming,
	send func(*systemv1.SystemReply) error) (*systemv1.SystemReply, error) {
	v, known := verbs[in.kind]
	switch {
	case !known:
		return nil, helperclient.Errorf(helperclient.CodeMalformed, "the request has no verb that is known here")
	case !v.may.has(who):
		return nil, helperclient.Errorf(helperclient.CodePermission, "%s may not ask for this (%s)", who, v.name)
	case in.size > v.limit:
		return nil, helperclient.Errorf(helperclient.CodeMalformed, "the request (%s) has %d bytes; at most %d fit", v.name, in.size, v.limit)
	}
	leave, err := h.budgets[who].enter(ctx, v)
	if err != nil {
		return nil, err
	}
	defer leave()
	request, err := in.read()
	if err != nil {
		return nil, err
	}
	if helperclient.Kind(request) != in.kind {
		return nil, helperclient.Errorf(helperclient.CodeMalformed, "the request is another one than it was announced as (%s)", v.name)
	}
	recording := h.recording(v, who, request)
	if recording != nil && !v.follows {
		// What changes something goes on when its caller leaves: the log says how it ended.
		ctx = in.life
	}
	var reply *systemv1.SystemReply
	if err = h.refuseInReset(); err == nil {
		reply, err = v.do(ctx, h, &call{who, request, send})
	}
	recording.end(reply, err)
	return reply, err
}
