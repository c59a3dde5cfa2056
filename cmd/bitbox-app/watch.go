package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/client"
)

func (p *program) watchCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "watch",
		Short: "Show what happens at the Base, as it happens",
		Long: `watch shows what happens at the Base, until Ctrl-C or for --timeout. With --json it
prints an event a line (bitbox.base.v1.WatchEventsResponse).`,
		Example: `  bitbox-app watch
  bitbox-app watch --json --timeout 1h`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return p.call(c.Context(), 0, p.watch)
		},
	}
}

func (p *program) watch(ctx context.Context, session *client.Session) error {
	stream, err := session.Events.WatchEvents(ctx, &basev1.WatchEventsRequest{})
	if err != nil {
		return watchEnd(ctx, err)
	}
	defer stream.Close()
	for stream.Receive() {
		if err := p.printEvent(stream.Msg()); err != nil {
			return err
		}
	}
	err = watchEnd(ctx, stream.Err())
	if err == nil {
		return nil
	}
	// The stream was cut. The Base says why, if it is asked.
	asking, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	if _, reason := session.Info.GetInfo(asking, &basev1.GetInfoRequest{}); reason != nil {
		return reason
	}
	return err
}

// watchEnd is nil when watching ended because it was to end.
func watchEnd(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	if err == nil {
		err = fmt.Errorf("the Base has ended the stream of events; watch again")
	}
	return err
}

func (p *program) printEvent(event *basev1.WatchEventsResponse) error {
	if p.json {
		return p.printMessage(event)
	}
	return p.printf("%s  %s\n", event.GetTime().AsTime().Local().Format(time.TimeOnly), client.Printable(eventText(event)))
}

func eventText(event *basev1.WatchEventsResponse) string {
	app := func(format string, app *basev1.App) string { return fmt.Sprintf(format, app.GetName(), app.GetId()) }
	switch e := event.GetEvent().(type) {
	case *basev1.WatchEventsResponse_Subscribed:
		return "Watching. Ctrl-C ends it."
	case *basev1.WatchEventsResponse_AppPaired:
		return app("%q (%s) was paired", e.AppPaired.GetApp()) + " as " + roleName(e.AppPaired.GetApp().GetRole()) + "."
	case *basev1.WatchEventsResponse_AppRenamed:
		return app("An App was renamed to %q (%s).", e.AppRenamed.GetApp())
	case *basev1.WatchEventsResponse_AppRoleChanged:
		return app("%q (%s) is now", e.AppRoleChanged.GetApp()) + " " + roleName(e.AppRoleChanged.GetApp().GetRole()) + " instead of " + roleName(e.AppRoleChanged.GetBefore()) + "."
	case *basev1.WatchEventsResponse_AppRevoked:
		return app("%q (%s) was revoked.", e.AppRevoked.GetApp())
	case *basev1.WatchEventsResponse_SessionStarted:
		return app("%q (%s) connected.", e.SessionStarted.GetApp())
	case *basev1.WatchEventsResponse_SessionEnded:
		return app("%q (%s) disconnected.", e.SessionEnded.GetApp())
	case *basev1.WatchEventsResponse_WindowChanged:
		return windowText(e.WindowChanged.GetWindow())
	case *basev1.WatchEventsResponse_PostureChanged:
		return "How open the Base is has changed (" + e.PostureChanged.GetReason() + ")."
	case *basev1.WatchEventsResponse_DriftFound:
		return "The Base is not as it should be: " + list(e.DriftFound.GetFindings(), func(f *basev1.Finding) string { return f.GetTitle() + " (" + f.GetId() + ")" }) + "."
	case *basev1.WatchEventsResponse_BansChanged:
		return bansText(e.BansChanged)
	case *basev1.WatchEventsResponse_ApplyFailed:
		return "The Base could not become as it should be, and tries again: " + e.ApplyFailed.GetReason() + "."
	}
	return "Something happened that this App does not know; its software may be too old."
}

func bansText(e *basev1.BansChangedEvent) string {
	address := func(ban *basev1.Ban) string { return ban.GetAddress() + " (" + ban.GetJail() + ")" }
	var parts []string
	if len(e.GetBanned()) > 0 {
		parts = append(parts, "Banned: "+list(e.GetBanned(), address)+".")
	}
	if len(e.GetLifted()) > 0 {
		parts = append(parts, "Banned no more: "+list(e.GetLifted(), address)+".")
	}
	return strings.Join(parts, " ")
}

func list[T any](all []T, text func(T) string) string {
	var texts []string
	for _, one := range all {
		texts = append(texts, text(one))
	}
	return strings.Join(texts, ", ")
}
