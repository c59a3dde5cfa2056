package system

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os/user"
	"strconv"
	"sync"

	"google.golang.org/protobuf/proto"

	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/firewall"
	"github.com/BitBoxSwiss/bitbox-base/internal/helperclient"
	"github.com/BitBoxSwiss/bitbox-base/internal/ipc"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/changelog"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/posture"
)

// ConsoleUser is the user of what stands at the Base.
const ConsoleUser = "bitbox-base-console"

// Users says which user is who.
type Users struct{ Middleware, Console uint32 }

// LookUpUsers asks the system for the numbers of the users.
func LookUpUsers() (Users, error) {
	var users Users
	for name, uid := range map[string]*uint32{firewall.MiddlewareUser: &users.Middleware, ConsoleUser: &users.Console} {
		found, err := user.Lookup(name)
		if err != nil {
			return Users{}, fmt.Errorf("look up the user %s, who may speak to the system helper: %w; install the package's users (systemd-sysusers)", name, err)
		}
		number, err := strconv.ParseUint(found.Uid, 10, 32)
		if err != nil || number == 0 {
			return Users{}, fmt.Errorf("look up the user %s: its number %q cannot be", name, found.Uid)
		}
		*uid = uint32(number)
	}
	return users, nil
}

// who tells who a peer is.
func (u Users) who(peer ipc.Peer) (Who, error) {
	switch peer.UID {
	case 0:
		return WhoRoot, nil
	case u.Middleware:
		return WhoMiddleware, nil
	case u.Console:
		return WhoConsole, nil
	default:
		return 0, fmt.Errorf("user %d may not speak to the system helper", peer.UID)
	}
}

// Serve takes requests on every listener until ctx ends. Each listener has its own
// bound on connections.
func (h *Helper) Serve(ctx context.Context, users Users, listeners ...*net.UnixListener) error {
	server := &ipc.Server{
		Authorize: func(peer ipc.Peer) error {
			_, err := users.who(peer)
			return err
		},
		Handler: func(ctx context.Context, peer ipc.Peer, request []byte, send func([]byte) error) error {
			who, err := users.who(peer)
			if err != nil {
				return err
			}
			return h.Handle(ctx, who, request, send)
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

// parseRequest reads a request. What it does not know might be what matters, so
// it refuses unknown fields; but for what is signed, which the ledger looks at.
func parseRequest(b []byte) (*systemv1.SystemRequest, error) {
	request := &systemv1.SystemRequest{}
	if err := proto.Unmarshal(b, request); err != nil {
		return nil, helperclient.Errorf(helperclient.CodeMalformed, "the request of %d bytes cannot be read: %w", len(b), err)
	}
	if err := posture.RefuseUnknown(request); err != nil {
		return nil, helperclient.Errorf(helperclient.CodeMalformed, "the request cannot be read: %w", err)
	}
	if request.GetVerb() == nil {
		return nil, helperclient.Errorf(helperclient.CodeMalformed, "the request has no verb that is known here")
	}
	if id := request.GetAppId(); id != "" && !changelog.IsAppID(id) {
		return nil, helperclient.Errorf(helperclient.CodeMalformed, "the id of the App is not 16 hexadecimal digits")
	}
	return request, nil
}

// permitted is the table of who may ask for what.
func permitted(who Who, request *systemv1.SystemRequest) bool {
	middleware, console, root := who == WhoMiddleware, who == WhoConsole, who == WhoRoot
	switch request.GetVerb().(type) {
	case *systemv1.SystemRequest_Authority, // it has a table of its own
		*systemv1.SystemRequest_GetPosture, *systemv1.SystemRequest_WatchSystem,
		*systemv1.SystemRequest_GetMachine, *systemv1.SystemRequest_ListBans, *systemv1.SystemRequest_RunAudit,
		*systemv1.SystemRequest_Restrict:
		return middleware || console || root
	case *systemv1.SystemRequest_Submit, *systemv1.SystemRequest_ConfirmTry,
		*systemv1.SystemRequest_FixFinding:
		return middleware || root
	case *systemv1.SystemRequest_LiftBan:
		return root || middleware && request.GetLiftBan().GetPlain() == nil
	case *systemv1.SystemRequest_FactoryReset:
		local := request.GetFactoryReset().GetLocal() != nil
		return root || local && console || !local && middleware
	case *systemv1.SystemRequest_GetSummary:
		return console || root
	case *systemv1.SystemRequest_Announce:
		return middleware
	case *systemv1.SystemRequest_GetUpdate:
		return middleware || console || root
	case *systemv1.SystemRequest_BeginUpdate, *systemv1.SystemRequest_UpdatePiece, *systemv1.SystemRequest_FinishUpdate,
		*systemv1.SystemRequest_AbortUpdate, *systemv1.SystemRequest_WatchUpdate:
		// What is installed has to be signed, whoever brings it.
		return middleware || root
	case *systemv1.SystemRequest_ListServices, *systemv1.SystemRequest_ChangeService, *systemv1.SystemRequest_ReadLogs,
		*systemv1.SystemRequest_ListTimeZones, *systemv1.SystemRequest_SetTimeZone, *systemv1.SystemRequest_Reboot,
		*systemv1.SystemRequest_PowerOff, *systemv1.SystemRequest_InstallDebianUpdates,
		*systemv1.SystemRequest_ListChanges:
		return middleware || root
	case *systemv1.SystemRequest_RecordChange,
		*systemv1.SystemRequest_OrderPairing, *systemv1.SystemRequest_AnswerPairing:
		return middleware
	case *systemv1.SystemRequest_LocalChange, *systemv1.SystemRequest_GetHealth:
		return root
	default:
		return false
	}
}

// Handle answers one request by one reply or several. An error means that no (last)
// reply could be sent; a refusal is a reply.
func (h *Helper) Handle(ctx context.Context, who Who, request []byte, send func([]byte) error) error {
	sendReply := func(reply *systemv1.SystemReply) error {
		b, err := proto.Marshal(reply)
		if err == nil && len(b) > ipc.MaxMessageSize {
			err = fmt.Errorf("a reply of %d bytes is longer than %d", len(b), ipc.MaxMessageSize)
		}
		if err != nil {
			return err
		}
		return send(b)
	}
	reply, err := h.answer(ctx, who, request, sendReply)
	if ctx.Err() != nil {
		return ctx.Err() // whoever asked has gone
	}
	if err != nil {
		refused := asError(err)
		h.log.Info("a request was refused", "by", who, "code", refused.Code, "reason", refused.Message)
		reply = &systemv1.SystemReply{ErrorCode: string(refused.Code), ErrorMessage: refused.Message}
	}
	return sendReply(reply)
}

func (h *Helper) answer(ctx context.Context, who Who, b []byte, send func(*systemv1.SystemReply) error) (*systemv1.SystemReply, error) {
	request, err := parseRequest(b)
	if err != nil {
		return nil, err
	}
	recording := h.recording(who, request)
	reply, err := h.perform(ctx, who, request, send)
	recording.end(reply, err)
	return reply, err
}

// perform does what is asked for, if this one may ask for it.
func (h *Helper) perform(ctx context.Context, who Who, request *systemv1.SystemRequest, send func(*systemv1.SystemReply) error) (*systemv1.SystemReply, error) {
	if !permitted(who, request) {
		return nil, helperclient.Errorf(helperclient.CodePermission, "%s may not ask for this (%T)", who, request.GetVerb())
	}
	if err := h.refuseInReset(); err != nil {
		return nil, err
	}
	progress := func(p *systemv1.Progress) {
		// Whoever does not read it sees the result all the same.
		_ = send(&systemv1.SystemReply{Result: &systemv1.SystemReply_Progress{Progress: p}})
	}
	switch verb := request.GetVerb().(type) {
	case *systemv1.SystemRequest_Authority:
		reply, err := h.callAuthority(ctx, who, verb.Authority)
		if err != nil {
			return nil, helperclient.Errorf(helperclient.CodeInternal, "%w", err)
		}
		return &systemv1.SystemReply{Result: &systemv1.SystemReply_Authority{Authority: reply}}, nil
	case *systemv1.SystemRequest_GetPosture:
		return h.posture(verb.GetPosture.GetNonce(), verb.GetPosture.GetChallenge())
	case *systemv1.SystemRequest_Submit:
		return h.submit(ctx, verb.Submit, progress)
	case *systemv1.SystemRequest_ConfirmTry:
		return h.confirm(verb.ConfirmTry)
	case *systemv1.SystemRequest_Restrict:
		return h.restrict(ctx, who, verb.Restrict)
	case *systemv1.SystemRequest_ListBans:
		return h.listBans(ctx)
	case *systemv1.SystemRequest_LiftBan:
		return h.liftBan(ctx, who, verb.LiftBan)
	case *systemv1.SystemRequest_RunAudit:
		return h.runAudit(ctx)
	case *systemv1.SystemRequest_FixFinding:
		return h.fixFinding(ctx, verb.FixFinding.GetId())
	case *systemv1.SystemRequest_GetMachine:
		return &systemv1.SystemReply{Result: &systemv1.SystemReply_Machine{Machine: h.machine()}}, nil
	case *systemv1.SystemRequest_WatchSystem:
		return nil, h.watch(ctx, who, send)
	case *systemv1.SystemRequest_LocalChange:
		return h.local(ctx, verb.LocalChange, progress)
	case *systemv1.SystemRequest_GetSummary:
		return h.summary(), nil
	case *systemv1.SystemRequest_FactoryReset:
		return h.factoryReset(who, verb.FactoryReset)
	case *systemv1.SystemRequest_Announce:
		return &systemv1.SystemReply{}, h.announce(ctx, verb.Announce)
	case *systemv1.SystemRequest_BeginUpdate, *systemv1.SystemRequest_UpdatePiece, *systemv1.SystemRequest_FinishUpdate,
		*systemv1.SystemRequest_AbortUpdate, *systemv1.SystemRequest_GetUpdate, *systemv1.SystemRequest_WatchUpdate:
		return h.updates(ctx, request, send)
	case *systemv1.SystemRequest_GetHealth:
		return h.health(ctx)
	case *systemv1.SystemRequest_ListServices, *systemv1.SystemRequest_ChangeService, *systemv1.SystemRequest_ReadLogs,
		*systemv1.SystemRequest_ListTimeZones, *systemv1.SystemRequest_SetTimeZone, *systemv1.SystemRequest_Reboot,
		*systemv1.SystemRequest_PowerOff, *systemv1.SystemRequest_InstallDebianUpdates:
		return h.managed(ctx, who, request, send)
	case *systemv1.SystemRequest_ListChanges, *systemv1.SystemRequest_RecordChange:
		return h.changeVerbs(who, request)
	case *systemv1.SystemRequest_OrderPairing, *systemv1.SystemRequest_AnswerPairing:
		return h.orderedPairing(request)
	}
	return nil, helperclient.Errorf(helperclient.CodeInternal, "%T is permitted, but not implemented", request.GetVerb())
}
