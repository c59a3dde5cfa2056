package api

import (
	"context"
	"sync"
	"testing"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/api/base/v1/baserpc"
	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/middleware/registry/registrytest"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/rpc"
)

// roleHelper is a helper whose events tell roles.
type roleHelper struct {
	Helper
	mu     sync.Mutex
	first  *systemv1.SystemEvent
	events chan *systemv1.SystemEvent
}

func (h *roleHelper) Each(ctx context.Context, request *systemv1.SystemRequest, receive func(*systemv1.SystemReply) error) error {
	if request.GetWatchSystem() == nil { // of updates there is nothing to tell
		<-ctx.Done()
		return ctx.Err()
	}
	h.mu.Lock()
	event := h.first
	h.mu.Unlock()
	for {
		if err := receive(&systemv1.SystemReply{Result: &systemv1.SystemReply_Event{Event: event}}); err != nil {
			return err
		}
		select {
		case event = <-h.events:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// told is an event in which Apps have roles.
func told(roles map[*registrytest.App]basev1.Role) *systemv1.SystemEvent {
	event := &systemv1.SystemEvent{}
	for a, role := range roles {
		event.AppRoles = append(event.AppRoles, &systemv1.AppRole{SigningKey: a.Signing, Role: role})
	}
	return event
}

func TestALoweredAppLosesItsRightsAndItsStreamsAtOnce(t *testing.T) {
	attack := func(t *testing.T, cuts bool) (streamEnded bool) {
		h := registrytest.New(t, nil)
		l := serve(t, h, nil)
		boss, demoted := h.Active("boss", owner), h.Active("demoted", owner)
		helper := &roleHelper{first: told(nil), events: make(chan *systemv1.SystemEvent, 8)}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); h.Events.Follow(ctx, helper, h.Registry) }()
		defer func() { cancel(); <-done }()
		bossSees := watch(t.Context(), t, l.client(boss))
		l.noCut = !cuts
		client := l.client(demoted)
		theirs := watch(t.Context(), t, client)

		helper.events <- told(map[*registrytest.App]basev1.Role{boss: owner, demoted: viewer})
		for {
			event := bossSees.next(t)
			if changed := event.GetAppRoleChanged(); changed != nil {
				if changed.GetApp().GetId() != demoted.ID() || changed.GetApp().GetRole() != viewer || changed.GetBefore() != owner {
					t.Errorf("the event says %v", changed)
				}
				break
			}
		}
		if cuts {
			<-theirs.ended
		}
		if _, err := baserpc.NewPairingServiceClient(l.client(demoted)).OpenWindow(t.Context(),
			&basev1.OpenWindowRequest{}); rpc.CodeOf(err) != rpc.Denied {
			t.Errorf("an owner who was lowered opens the window: %v", err)
		}
		select {
		case <-theirs.ended:
			return true
		default:
			return cuts
		}
	}
	if !attack(t, true) {
		t.Error("the stream of an App that was lowered goes on")
	}
	if attack(t, false) {
		t.Error("without the cut the stream should have gone on; this test proves nothing")
	}
}

func TestARaisedAppKeepsItsSessionsAndGetsTheRights(t *testing.T) {
	h := registrytest.New(t, nil)
	l := serve(t, h, nil)
	a := h.Active("a", viewer)
	client := l.client(a)
	sees := watch(t.Context(), t, client)
	h.SetRoles(told(map[*registrytest.App]basev1.Role{a: owner}).GetAppRoles())
	for sees.next(t).GetAppRoleChanged() == nil {
	}
	if _, err := baserpc.NewPairingServiceClient(client).OpenWindow(t.Context(), &basev1.OpenWindowRequest{}); err != nil {
		t.Errorf("a raised App: %v", err)
	}
}
