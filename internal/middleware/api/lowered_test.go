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

// heldWindow holds back each window on its way to the authority until go is closed.
type heldWindow struct {
	*registrytest.Authority
	underWay, goOn chan struct{}
}

func (w heldWindow) OpenWindow(ctx context.Context) error {
	close(w.underWay)
	<-w.goOn
	return w.Authority.OpenWindow(ctx)
}

// The attack: an owner has the window opened without a signature, and is cut off while this is on
// its way. The close arrives first, and the window after it.
func TestAWindowUnderWayDoesNotOutliveItsOwner(t *testing.T) {
	for how, lose := range map[string]func(l *hall, boss, evil *registrytest.App){
		"revoked": func(l *hall, boss, evil *registrytest.App) {
			if _, err := baserpc.NewAppsServiceClient(l.client(boss)).RevokeApp(t.Context(),
				&basev1.RevokeAppRequest{Id: evil.ID()}); err != nil {
				t.Error(err)
			}
		},
		"lowered": func(l *hall, _, evil *registrytest.App) {
			l.house.SetRoles(registrytest.Told(map[*registrytest.App]basev1.Role{evil: viewer}).GetAppRoles())
		},
		"still an owner": func(*hall, *registrytest.App, *registrytest.App) {},
	} {
		h := registrytest.New(t, nil)
		window := heldWindow{h.Authority, make(chan struct{}), make(chan struct{})}
		l := serve(t, h, func(c *Config) { c.Window = window })
		boss, evil := h.Active("boss", owner), h.Active("evil", owner)
		client := baserpc.NewPairingServiceClient(l.client(evil))
		ended := make(chan error, 1)
		go func() {
			_, err := client.OpenWindow(t.Context(), &basev1.OpenWindowRequest{})
			ended <- err
		}()
		<-window.underWay
		lose(l, boss, evil)
		close(window.goOn)
		err := <-ended
		l.Stop() // the call itself has ended
		snapshot, _ := h.Authority.Watch(t.Context(), 0)
		if stays := how == "still an owner"; (err == nil) != stays || snapshot.GetWindowOpen() != stays {
			t.Errorf("%s: the window is open: %v; the App is told %v", how, snapshot.GetWindowOpen(), err)
		}
	}
}
