package registrytest

import (
	"context"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/middleware/events"
)

// RoleHelper is a system helper whose events report roles.
type RoleHelper struct {
	events.Helper
	// First is what each new stream begins with.
	First *systemv1.SystemEvent
	// Events are told after it.
	Events chan *systemv1.SystemEvent
}

// Each streams the events until ctx ends.
func (h *RoleHelper) Each(ctx context.Context, request *systemv1.SystemRequest, receive func(*systemv1.SystemReply) error) error {
	if request.GetWatchSystem() == nil { // of updates there is nothing to tell
		<-ctx.Done()
		return ctx.Err()
	}
	event := h.First
	for {
		if err := receive(&systemv1.SystemReply{Result: &systemv1.SystemReply_Event{Event: event}}); err != nil {
			return err
		}
		select {
		case event = <-h.Events:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Told is an event with the roles of Apps.
func Told(roles map[*App]basev1.Role) *systemv1.SystemEvent {
	event := &systemv1.SystemEvent{Run: 1}
	for a, role := range roles {
		event.AppRoles = append(event.AppRoles, &systemv1.AppRole{SigningKey: a.Signing, Role: role})
	}
	return event
}
