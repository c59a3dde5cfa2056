package api

import (
	"context"
	"testing"
	"time"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/api/base/v1/baserpc"
	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/middleware/registry/registrytest"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/rpc"
)

func TestALoweredAppLosesItsRightsAndItsStreamsAtOnce(t *testing.T) {
	attack := func(t *testing.T, cuts bool) (streamEnded bool) {
		h := registrytest.New(t, nil)
		l := serve(t, h, nil)
		boss, demoted := h.Active("boss", owner), h.Active("demoted", owner)
		helper := &registrytest.RoleHelper{First: registrytest.Told(nil), Events: make(chan *systemv1.SystemEvent, 8)}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); h.Events.Follow(ctx, helper, h.Registry, func(time.Duration) {}) }()
		defer func() { cancel(); <-done }()
		bossSees := watch(t.Context(), t, l.client(boss))
		l.noCut = !cuts
		client := l.client(demoted)
		theirs := watch(t.Context(), t, client)

		helper.Events <- registrytest.Told(map[*registrytest.App]basev1.Role{boss: owner, demoted: viewer})
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
	h.SetRoles(registrytest.Told(map[*registrytest.App]basev1.Role{a: owner}).GetAppRoles())
	for sees.next(t).GetAppRoleChanged() == nil {
	}
	if _, err := baserpc.NewPairingServiceClient(client).OpenWindow(t.Context(), &basev1.OpenWindowRequest{}); err != nil {
		t.Errorf("a raised App: %v", err)
	}
}
