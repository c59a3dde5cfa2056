package monitor

import (
	"context"
	"log/slog"
	"time"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/events"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/turns"
)

// Looker looks at services, disk and updates at intervals, and tells what is new.
type Looker struct {
	Services func(ctx context.Context) ([]*basev1.Service, error)
	// Disk is how much there is, and is free, on the disk with the state, in bytes.
	Disk func() (total, available uint64, err error)
	// Updates are those of Debian's that wait; unknown says why they are not known.
	Updates func() (waiting []string, unknown string)
	Events  *events.Hub
	Clock   func() time.Duration
	Log     *slog.Logger

	monitor Monitor
}

// Run looks until ctx ends.
func (l *Looker) Run(ctx context.Context, interval time.Duration) {
	turns.Every(ctx, interval, func() { l.look(ctx) })
}

func (l *Looker) look(ctx context.Context) {
	list, err := l.Services(ctx)
	if ctx.Err() != nil {
		return
	}
	if err != nil {
		l.Log.Warn("the services could not be looked at", "error", err)
	}
	total, available, err := l.Disk()
	if err != nil {
		l.Log.Warn("the disk could not be looked at", "error", err)
	}
	waiting, unknown := l.Updates()
	news := l.monitor.Services(list, l.Clock())
	news = append(news, l.monitor.Disk(total, available)...)
	if unknown == "" {
		news = append(news, l.monitor.Updates(waiting)...)
	}
	for _, event := range news {
		switch happened := event.GetEvent().(type) {
		case *basev1.Event_ServiceFailed:
			l.Log.Warn("a service fails", "service", happened.ServiceFailed.GetService().GetName(), "reason", happened.ServiceFailed.GetReason())
		case *basev1.Event_DiskFilling:
			l.Log.Warn("the disk is filling up", "available", available, "total", total)
		}
		l.Events.Publish(event)
	}
}
