package registry

import (
	"context"
	"errors"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/middleware/events"
	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
)

var errLearned = reason.New("the roles are known")

// LearnRoles asks the helper once for the role of each App, before the first session: changes
// made while this daemon was not running, or was being killed, count.
func (r *Registry) LearnRoles(ctx context.Context, helper events.Helper) error {
	err := helper.Each(ctx, &systemv1.SystemRequest{Verb: &systemv1.SystemRequest_WatchSystem{WatchSystem: &systemv1.WatchSystem{}}},
		func(reply *systemv1.SystemReply) error {
			r.SetRoles(reply.GetEvent().GetAppRoles())
			return errLearned
		})
	if errors.Is(err, errLearned) {
		return nil
	}
	return err
}

// SetRoles gives Apps the roles that the helper has reported. The helper decides, by documents
// that owners have signed; this daemon only follows, so that it serves each App what its role
// allows. An App that is not named keeps its role. Sessions of a lowered App are cut: its calls
// under way began with another role.
func (r *Registry) SetRoles(roles []*systemv1.AppRole) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, of := range roles {
		for _, p := range r.pairings {
			if p.standing == standingActive && string(p.signingKey) == string(of.GetSigningKey()) && p.role != of.GetRole() &&
				MayCall(of.GetRole(), basev1.Role_ROLE_VIEWER) {
				r.setRoleLocked(p, of.GetRole())
			}
		}
	}
}

func (r *Registry) setRoleLocked(p *record, role basev1.Role) {
	before := p.role
	p.role = role
	if err := r.saveLocked(p); err != nil {
		// it holds all the same, and is learnt again at the next start
		r.config.Logger.Error("store the role of an App", "app", p.id(), "error", err)
	}
	if role < before {
		for _, s := range p.sessions {
			s.cut()
		}
	}
	r.audit("the role of an App was changed", p, "before", before.String())
	r.events.Publish(&basev1.Event{Event: &basev1.Event_AppRoleChanged{
		AppRoleChanged: &basev1.AppRoleChangedEvent{App: r.describeLocked(p), Before: before}}})
}

// MayCall tells whether an App with this role may call a method that requires least. Each role
// includes the rights of the one before it.
func MayCall(role, least basev1.Role) bool {
	return least > basev1.Role_ROLE_UNSPECIFIED && role >= least && role <= basev1.Role_ROLE_OWNER
}
