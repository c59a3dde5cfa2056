package system

import (
	"context"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
)

// lookAfter looks at services and disk once, and tells what is new.
func (h *Helper) lookAfter(ctx context.Context) {
	list, err := h.listServices(ctx)
	if ctx.Err() != nil {
		return
	}
	if err != nil {
		h.log.Warn("the services could not be looked at", "error", err)
	}
	total, available, err := h.config.Disk()
	if err != nil {
		h.log.Warn("the disk could not be looked at", "error", err)
	}
	waiting, unknown := h.debianUpdates()
	h.mu.Lock()
	defer h.mu.Unlock()
	events := h.monitor.Services(list, h.config.Clock())
	events = append(events, h.monitor.Disk(total, available)...)
	if unknown == "" {
		events = append(events, h.monitor.Updates(waiting)...)
	}
	for _, event := range events {
		switch happened := event.GetEvent().(type) {
		case *basev1.Event_ServiceFailed:
			h.log.Warn("a service fails", "service", happened.ServiceFailed.GetService().GetName(), "reason", happened.ServiceFailed.GetReason())
		case *basev1.Event_DiskFilling:
			h.log.Warn("the disk is filling up", "available", available, "total", total)
		}
		h.publishLocked(event)
	}
}
