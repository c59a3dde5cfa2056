package middleware

import (
	"context"
	"sync"
	"testing"

	"connectrpc.com/connect"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/api/base/v1/basev1connect"
	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
)

// roleHelper is a helper whose events tell roles.
type roleHelper struct {
	Helper
	mu     sync.Mutex
	first  *systemv1.SystemEvent
	events chan *systemv1.SystemEvent
}

func (h *roleHelper) Each(ctx context.Context, request *systemv1.SystemRequest, receive func(*systemv1.SystemReply) error) error {
	if request.GetWatchSystem() == nil {
		<-ctx.Done() // of updates it knows nothing
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
func told(roles map[*app]basev1.Role) *systemv1.SystemEvent {
	event := &systemv1.SystemEvent{Happened: &systemv1.SystemEvent_PostureChanged{PostureChanged: &systemv1.PostureChanged{Reason: "a test"}}}
	for a, role := range roles {
		event.AppRoles = append(event.AppRoles, &systemv1.AppRole{SigningKey: a.signing, Role: role})
	}
	return event
}

func (h *house) roleOf(a *app) basev1.Role {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.pairings[a.peer].role
}

func TestALoweredAppLosesItsRightsAndItsStreamsAtOnce(t *testing.T) {
	attack := func(t *testing.T, cuts bool) (streamEnded bool) {
		h := newHouse(t, nil)
		l := h.serve(fakeSystem{})
		boss, demoted := h.active("boss", owner), h.active("demoted", owner)
		helper := &roleHelper{first: told(nil), events: make(chan *systemv1.SystemEvent, 8)}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); h.FollowHelper(ctx, helper) }()
		defer func() { cancel(); <-done }()
		bossSees := watch(t.Context(), t, l.client(boss))
		l.noCut = !cuts
		client := l.client(demoted)
		theirs := watch(t.Context(), t, client)

		helper.events <- told(map[*app]basev1.Role{boss: owner, demoted: viewer})
		for {
			event := bossSees.next(t)
			if changed := event.GetAppRoleChanged(); changed != nil {
				if changed.GetApp().GetId() != demoted.id() || changed.GetApp().GetRole() != viewer || changed.GetBefore() != owner {
					t.Errorf("the event says %v", changed)
				}
				break
			}
		}
		if cuts {
			<-theirs.ended
		}
		if _, err := basev1connect.NewPairingServiceClient(l.client(demoted), anyURL).OpenWindow(t.Context(), &basev1.OpenWindowRequest{}); codeOf(err) != connect.CodePermissionDenied {
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
	h := newHouse(t, nil)
	l := h.serve(fakeSystem{})
	a := h.active("a", viewer)
	client := l.client(a)
	sees := watch(t.Context(), t, client)
	h.setRoles(told(map[*app]basev1.Role{a: owner}).GetAppRoles())
	for sees.next(t).GetAppRoleChanged() == nil {
	}
	if _, err := basev1connect.NewPairingServiceClient(client, anyURL).OpenWindow(t.Context(), &basev1.OpenWindowRequest{}); err != nil {
		t.Errorf("a raised App: %v", err)
	}
}

// The helper's word is on disk, and what was missed is learned before anybody is served.
func TestRolesAreStoredAndLearnedAtTheStart(t *testing.T) {
	h := newHouse(t, nil)
	a, b := h.active("a", owner), h.active("b", viewer)
	h.setRoles(told(map[*app]basev1.Role{a: operator}).GetAppRoles())
	h.restart()
	if got := h.roleOf(a); got != operator {
		t.Errorf("after a restart it is %v", got)
	}
	helper := &roleHelper{first: told(map[*app]basev1.Role{a: viewer, b: operator})}
	if err := h.LearnRoles(t.Context(), helper); err != nil || h.roleOf(a) != viewer || h.roleOf(b) != operator {
		t.Errorf("learned %v and %v: %v", h.roleOf(a), h.roleOf(b), err)
	}
	// What is no role, or nobody's, changes nothing.
	h.setRoles([]*systemv1.AppRole{{SigningKey: a.signing, Role: 0}, {SigningKey: a.signing, Role: 4}, {Role: owner}})
	if got := h.roleOf(a); got != viewer {
		t.Errorf("it is %v", got)
	}
}

// On a full disk a role that was taken is gone all the same.
func TestALoweredRoleHoldsThoughItCannotBeStored(t *testing.T) {
	h := newHouse(t, nil)
	a := h.active("a", owner)
	if err := h.db.Close(); err != nil {
		t.Fatal(err)
	}
	h.setRoles(told(map[*app]basev1.Role{a: viewer}).GetAppRoles())
	if got := h.roleOf(a); got != viewer || !h.logs("store the role of an App") {
		t.Errorf("it is %v", got)
	}
}
