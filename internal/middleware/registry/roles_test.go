package registry_test

import (
	"testing"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/middleware/registry"
	"github.com/BitBoxSwiss/bitbox-base/internal/middleware/registry/registrytest"
)

// The helper's report is stored on disk, and missed changes are learnt before the first session.
func TestRolesAreStoredAndLearnedAtTheStart(t *testing.T) {
	h := registrytest.New(t, nil)
	a, b := h.Active("a", owner), h.Active("b", viewer)
	h.SetRoles(registrytest.Told(map[*registrytest.App]basev1.Role{a: operator}).GetAppRoles())
	h.Restart()
	if got := h.RoleOf(a.Peer); got != operator {
		t.Errorf("after a restart it is %v", got)
	}
	helper := &registrytest.RoleHelper{First: registrytest.Told(map[*registrytest.App]basev1.Role{a: viewer, b: operator})}
	if err := h.LearnRoles(t.Context(), helper); err != nil || h.RoleOf(a.Peer) != viewer || h.RoleOf(b.Peer) != operator {
		t.Errorf("learned %v and %v: %v", h.RoleOf(a.Peer), h.RoleOf(b.Peer), err)
	}
	// An invalid role, or a role of an unknown App, changes nothing.
	h.SetRoles([]*systemv1.AppRole{{SigningKey: a.Signing, Role: 0}, {SigningKey: a.Signing, Role: 4}, {Role: owner}})
	if got := h.RoleOf(a.Peer); got != viewer {
		t.Errorf("it is %v", got)
	}
}

// On a full disk a lowered role counts all the same.
func TestALoweredRoleHoldsThoughItCannotBeStored(t *testing.T) {
	h := registrytest.New(t, nil)
	a := h.Active("a", owner)
	if err := h.DB.Close(); err != nil {
		t.Fatal(err)
	}
	h.SetRoles(registrytest.Told(map[*registrytest.App]basev1.Role{a: viewer}).GetAppRoles())
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
