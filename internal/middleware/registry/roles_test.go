package registry_test

import (
	"context"
	"sync"
	"testing"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/middleware/events"
	"github.com/BitBoxSwiss/bitbox-base/internal/middleware/registry"
	"github.com/BitBoxSwiss/bitbox-base/internal/middleware/registry/registrytest"
)

// roleHelper is a helper whose events tell roles.
type roleHelper struct {
	events.Helper
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

// The helper's word is on disk, and what was missed is learned before anybody is served.
func TestRolesAreStoredAndLearnedAtTheStart(t *testing.T) {
	h := registrytest.New(t, nil)
	a, b := h.Active("a", owner), h.Active("b", viewer)
	h.SetRoles(told(map[*registrytest.App]basev1.Role{a: operator}).GetAppRoles())
	h.Restart()
	if got := h.RoleOf(a.Peer); got != operator {
		t.Errorf("after a restart it is %v", got)
	}
	helper := &roleHelper{first: told(map[*registrytest.App]basev1.Role{a: viewer, b: operator})}
	if err := h.LearnRoles(t.Context(), helper); err != nil || h.RoleOf(a.Peer) != viewer || h.RoleOf(b.Peer) != operator {
		t.Errorf("learned %v and %v: %v", h.RoleOf(a.Peer), h.RoleOf(b.Peer), err)
	}
	// What is no role, or nobody's, changes nothing.
	h.SetRoles([]*systemv1.AppRole{{SigningKey: a.Signing, Role: 0}, {SigningKey: a.Signing, Role: 4}, {Role: owner}})
	if got := h.RoleOf(a.Peer); got != viewer {
		t.Errorf("it is %v", got)
	}
}

// On a full disk a role that was taken is gone all the same.
func TestALoweredRoleHoldsThoughItCannotBeStored(t *testing.T) {
	h := registrytest.New(t, nil)
	a := h.Active("a", owner)
	if err := h.DB.Close(); err != nil {
		t.Fatal(err)
	}
	h.SetRoles(told(map[*registrytest.App]basev1.Role{a: viewer}).GetAppRoles())
	if got := h.RoleOf(a.Peer); got != viewer || !h.Logs("store the role of an App") {
		t.Errorf("it is %v", got)
	}
}

func TestARoleMayDoWhatTheOneBeforeItMay(t *testing.T) {
	const (
		nobody   = basev1.Role_ROLE_UNSPECIFIED
		viewer   = basev1.Role_ROLE_VIEWER
		operator = basev1.Role_ROLE_OPERATOR
		owner    = basev1.Role_ROLE_OWNER
		invented = owner + 1
	)
	allowed := map[[2]basev1.Role]bool{
		{viewer, viewer}:   true,
		{operator, viewer}: true, {operator, operator}: true,
		{owner, viewer}: true, {owner, operator}: true, {owner, owner}: true,
	}
	for _, role := range []basev1.Role{nobody, viewer, operator, owner, invented, -1} {
		for _, least := range []basev1.Role{nobody, viewer, operator, owner, invented, -1} {
			if got := registry.MayCall(role, least); got != allowed[[2]basev1.Role{role, least}] {
				t.Errorf("registry.MayCall(%v, %v) = %t", role, least, got)
			}
		}
	}
}
