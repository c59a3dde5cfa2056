package api

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"sync"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/timezone"
	"github.com/BitBoxSwiss/bitbox-base/internal/middleware/events"
	"github.com/BitBoxSwiss/bitbox-base/internal/middleware/registry"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/changelog"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/noiseconn"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/pairing"
	"github.com/BitBoxSwiss/bitbox-base/internal/version"
)

// authorityTime bounds what an App makes the daemon ask of other processes.
const authorityTime = 10 * time.Second

// apiError gives an error the code that Apps act on.
func apiError(err error) error {
	code := connect.CodeInternal
	var refused *pairing.Error
	switch {
	case errors.Is(err, registry.ErrNoRights):
		code = connect.CodeUnauthenticated
	case errors.Is(err, registry.ErrRole), errors.Is(err, registry.ErrPrePaired):
		code = connect.CodePermissionDenied
	case errors.Is(err, registry.ErrUnknownApp):
		code = connect.CodeNotFound
	case errors.Is(err, registry.ErrLastOwner), errors.Is(err, events.ErrNoHistory), errors.As(err, &refused):
		code = connect.CodeFailedPrecondition
	case errors.Is(err, events.ErrTooMany), errors.Is(err, errTooManyStreams):
		code = connect.CodeResourceExhausted
	case errors.Is(err, context.DeadlineExceeded):
		code = connect.CodeUnavailable
	}
	return connect.NewError(code, err)
}

// infoService tells what the Base is and how it does.
type infoService struct{ *Server }

func (s infoService) GetInfo(ctx context.Context, _ *basev1.GetInfoRequest) (*basev1.GetInfoResponse, error) {
	info, err := readSysinfo(s.StateDir)
	if err != nil {
		return nil, apiError(err)
	}
	response := &basev1.GetInfoResponse{
		Name:                 s.Registry.Name(),
		SoftwareVersion:      version.Software,
		ProtocolVersion:      noiseconn.ProtocolVersion,
		MachineUptimeSeconds: info.uptimeSeconds,
		DaemonUptimeSeconds:  uint64(time.Since(s.started) / time.Second),
		LoadAverage:          info.load[:],
		MemoryTotalBytes:     info.memoryTotal,
		MemoryAvailableBytes: info.memoryAvailable,
		DiskTotalBytes:       info.diskTotal,
		DiskAvailableBytes:   info.diskAvailable,
		Caller:               s.Registry.Describe(sessionOf(ctx)),
	}
	public := s.Registry.PublicKey()
	response.PublicKey = hex.EncodeToString(public[:])
	s.addSystem(ctx, response)
	return response, nil
}

// addSystem adds what others tell. Without them the rest is still worth having.
func (s infoService) addSystem(ctx context.Context, response *basev1.GetInfoResponse) {
	ctx, cancel := context.WithTimeout(ctx, authorityTime)
	defer cancel()
	response.Time = timestamppb.Now()
	if s.Helper != nil {
		s.addMachine(ctx, response)
		return
	}
	response.TimeZone = timezone.At("/").Current()
	addresses, err := s.System.Addresses(ctx)
	if err != nil {
		s.Logger.Warn("ask for the addresses of the Base", "error", err)
	}
	response.Addresses = addresses
	celsius, ok, err := s.System.Temperature(ctx)
	if err != nil {
		s.Logger.Warn("ask for the temperature of the Base", "error", err)
	}
	if ok {
		response.TemperatureCelsius = &celsius
	}
}

// addMachine adds what the helper tells; above all the name, which is the posture's.
func (s infoService) addMachine(ctx context.Context, response *basev1.GetInfoResponse) {
	reply, err := s.ask(ctx, &systemv1.SystemRequest{Verb: &systemv1.SystemRequest_GetMachine{GetMachine: &systemv1.GetMachine{}}}, nil)
	machine := reply.GetMachine()
	if err != nil {
		s.Logger.Warn("ask the system helper about the machine", "error", err)
	}
	response.Name = s.lastName.or(machine.GetNodeName(), response.GetName())
	response.Addresses, response.TimeZone = machine.GetAddresses(), machine.GetTimeZone()
	if machine != nil {
		response.TemperatureCelsius = machine.TemperatureCelsius
	}
}

// lastName is the name that the helper has told last.
type lastName struct {
	mu   sync.Mutex
	name string
}

// or remembers told and returns it; if it is empty, what was told before; else other.
func (n *lastName) or(told, other string) string {
	n.mu.Lock()
	defer n.mu.Unlock()
	if told != "" {
		n.name = told
	}
	if n.name != "" {
		return n.name
	}
	return other
}

// appsService lists and changes who is paired.
type appsService struct{ *Server }

func (s appsService) ListApps(ctx context.Context, _ *basev1.ListAppsRequest) (*basev1.ListAppsResponse, error) {
	return &basev1.ListAppsResponse{Apps: s.Registry.Apps(sessionOf(ctx))}, nil
}

func (s appsService) RenameApp(ctx context.Context, request *basev1.RenameAppRequest) (*basev1.RenameAppResponse, error) {
	if err := noiseconn.CheckName(request.GetName()); err != nil {
		return nil, connect.NewError(connect.CodeInvalidArgument, fmt.Errorf("name: %w", err))
	}
	before := s.Registry.NameOf(request.GetId())
	app, err := s.Registry.Rename(request.GetId(), request.GetName(), sessionOf(ctx))
	s.recordChange(ctx, changelog.RenameApp, fmt.Sprintf("%s (%s) to %s", before, request.GetId(), request.GetName()), err)
	if err != nil {
		return nil, apiError(err)
	}
	return &basev1.RenameAppResponse{App: app}, nil
}

func (s appsService) RevokeApp(ctx context.Context, request *basev1.RevokeAppRequest) (*basev1.RevokeAppResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, authorityTime)
	defer cancel()
	name := s.Registry.NameOf(request.GetId())
	err := s.Registry.Revoke(ctx, request.GetId(), sessionOf(ctx))
	s.recordChange(ctx, changelog.RevokeApp, fmt.Sprintf("%s (%s)", name, request.GetId()), err)
	if err != nil {
		return nil, apiError(err)
	}
	return &basev1.RevokeAppResponse{}, nil
}

// pairingService opens and closes the window for further Apps.
type pairingService struct{ *Server }

func (s pairingService) GetWindow(ctx context.Context, _ *basev1.GetWindowRequest) (*basev1.GetWindowResponse, error) {
	window, err := s.window(ctx, func(context.Context) error { return nil })
	if err != nil {
		return nil, err
	}
	return &basev1.GetWindowResponse{Window: window}, nil
}

func (s pairingService) OpenWindow(ctx context.Context, request *basev1.OpenWindowRequest) (*basev1.OpenWindowResponse, error) {
	if len(request.GetOrder()) > 0 {
		snapshot, err := s.order(ctx, request.GetOrder())
		if err != nil {
			return nil, err
		}
		s.audit.Info("the pairing window was opened by an order", "by", sessionOf(ctx).ID())
		return &basev1.OpenWindowResponse{Window: events.WindowOf(snapshot)}, nil
	}
	window, err := s.window(ctx, s.Window.OpenWindow)
	if err != nil {
		return nil, err
	}
	s.audit.Info("the pairing window was opened", "by", sessionOf(ctx).ID())
	return &basev1.OpenWindowResponse{Window: window}, nil
}

func (s pairingService) CloseWindow(ctx context.Context, _ *basev1.CloseWindowRequest) (*basev1.CloseWindowResponse, error) {
	if _, err := s.window(ctx, s.Window.CloseWindow); err != nil {
		return nil, err
	}
	s.audit.Info("the pairing window was closed", "by", sessionOf(ctx).ID())
	return &basev1.CloseWindowResponse{}, nil
}

// window changes the window and returns what it is then.
func (s pairingService) window(ctx context.Context, change func(context.Context) error) (*basev1.Window, error) {
	ctx, cancel := context.WithTimeout(ctx, authorityTime)
	defer cancel()
	if err := change(ctx); err != nil {
		return nil, apiError(err)
	}
	snapshot, err := s.Window.Watch(ctx, 0) // 0: answers at once
	if err != nil {
		return nil, apiError(err)
	}
	return events.WindowOf(snapshot), nil
}

// eventsService streams what happens.
type eventsService struct{ *Server }

var (
	errFellBehind = errors.New("this stream was read too slowly; watch again")
	errStopping   = errors.New("the Base is stopping")
)

func (s eventsService) WatchEvents(ctx context.Context, request *basev1.WatchEventsRequest, stream *connect.ServerStream[basev1.WatchEventsResponse]) error {
	subscription, err := s.Events.Subscribe(sessionOf(ctx).ID(), request.GetReplay(), request.GetAfter())
	if err != nil {
		return apiError(err)
	}
	defer subscription.Close()
	send := func(event *basev1.WatchEventsResponse) error {
		return sendWithin(deadlineOf(ctx).SetWriteDeadline, func() error { return stream.Send(event) })
	}
	for _, event := range subscription.Past {
		select {
		case <-s.stopping:
			return connect.NewError(connect.CodeUnavailable, errStopping)
		default:
		}
		event = proto.CloneOf(event) // others are sent it, too
		event.Past = true
		if err := send(event); err != nil {
			return err
		}
	}
	event := &basev1.WatchEventsResponse{
		Time: timestamppb.Now(),
		Event: &basev1.WatchEventsResponse_Subscribed{
			Subscribed: &basev1.SubscribedEvent{LastSequence: subscription.Last, Gap: subscription.Gap}},
	}
	for {
		if err := send(event); err != nil {
			return err
		}
		if request.GetPastOnly() {
			return nil
		}
		var ok bool
		select {
		case event, ok = <-subscription.Events:
			if !ok {
				return connect.NewError(connect.CodeResourceExhausted, errFellBehind)
			}
		case <-s.stopping:
			return connect.NewError(connect.CodeUnavailable, errStopping)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// sendWithin bounds one message by callTime, and the pause until the next one
// not at all.
func sendWithin(setDeadline func(time.Time) error, send func() error) error {
	if err := setDeadline(time.Now().Add(callTime)); err != nil {
		return err
	}
	if err := send(); err != nil {
		return err
	}
	return setDeadline(time.Time{})
}
