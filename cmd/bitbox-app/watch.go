package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/client"
	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/words"
	"github.com/BitBoxSwiss/bitbox-base/internal/commandline"
)

// watchFlags say how much of the past to show.
type watchFlags struct {
	since time.Time // zero: everything unseen
	kept  bool
	past  bool
}

func (p *program) watchCommand() *cobra.Command {
	var flags watchFlags
	var since string
	command := &cobra.Command{
		Use:   "watch",
		Short: "Show events of the Base: those that this App has missed, then new ones",
		Long: `watch shows the events since this App looked last, then new events as they happen, until
Ctrl-C or for --timeout. If the connection is lost, watch reconnects; no event is lost or
shown twice. The Base keeps the last hundred events of each kind.

With --json it prints one event per line (bitbox.base.v1.Event, docs/app/watch.md).`,
		Example: `  bitbox-app watch
  bitbox-app watch --since 1d
  bitbox-app watch --kept --past --json`,
		Args:        commandline.Args(0, 0),
		Annotations: onSeveral,
		RunE: func(c *cobra.Command, _ []string) error {
			if since != "" && flags.kept {
				return usageError{errors.New("--since and --kept cannot be combined")}
			}
			var err error
			if flags.since, err = sinceTime(since); err != nil {
				return err
			}
			return p.stream(c, 0, func(p *program, ctx context.Context, session *client.Session) error {
				return p.watch(ctx, session, flags)
			})
		},
	}
	command.Flags().StringVar(&since, "since", "", sinceUsage)
	command.Flags().BoolVar(&flags.kept, "kept", false, "show all that the Base keeps")
	command.Flags().BoolVar(&flags.past, "past", false, "do not wait for more")
	_ = command.RegisterFlagCompletionFunc("since", cobra.NoFileCompletions)
	return command
}

func (p *program) watch(ctx context.Context, session *client.Session, flags watchFlags) error {
	seen, err := session.EventsSeen()
	if err != nil {
		return err
	}
	w := &watcher{program: p, session: session, seen: seen, pastOnly: flags.past}
	watch := client.Watch{Replay: true, PastOnly: flags.past, Lost: w.lost}
	switch {
	case flags.kept:
	case !flags.since.IsZero():
		w.from = flags.since
	case seen > 0:
		watch.After, w.away = seen, true
	default: // it has never looked; older events are no news to it
		w.away = true
		if w.from, err = p.pairedAt(session); err != nil {
			return err
		}
	}
	err = w.run(ctx, watch)
	if errors.Is(err, client.ErrNotNow) && !flags.past {
		p.complain(client.Explain(err))
		err = w.run(ctx, client.Watch{Lost: w.lost})
	}
	return err
}

// pairedAt is when this App was paired with the Base of a session.
func (p *program) pairedAt(session *client.Session) (time.Time, error) {
	app, err := p.app(client.Options{})
	if err != nil {
		return time.Time{}, err
	}
	bases, err := app.Bases()
	if err != nil {
		return time.Time{}, err
	}
	for _, base := range bases {
		if base.Name == session.Base() {
			return base.PairedAt.Truncate(time.Second), nil
		}
	}
	return time.Time{}, nil
}

// watcher shows events, and remembers which were shown.
type watcher struct {
	*program
	session *client.Session
	from    time.Time // older events are not shown
	away    bool      // past events that were not seen yet
	missed  []*basev1.Event
	seen    uint64
	live    bool
	cut     bool
	// pastOnly: do not wait for more.
	pastOnly bool
}

func (w *watcher) run(ctx context.Context, watch client.Watch) error {
	for event, err := range w.session.WatchEvents(ctx, watch) {
		if err != nil {
			return err
		}
		if err := w.show(event); err != nil {
			return err
		}
	}
	return nil
}

func (w *watcher) show(event *basev1.Event) error {
	if event.GetPast() && !w.live {
		// Their number is printed before them.
		if !event.GetTime().AsTime().Before(w.from) {
			w.missed = append(w.missed, event)
		}
		return nil
	}
	if now := event.GetSubscribed(); now != nil && !w.live {
		w.live = true
		if err := w.showMissed(now); err != nil {
			return err
		}
		// Every event up to here was shown, or is older than requested.
		if err := w.keep(now.GetLastSequence(), now.GetLastSequence() < w.seen); err != nil {
			return err
		}
	}
	if err := w.printEvent(event); err != nil {
		return err
	}
	return w.keep(event.GetSequence(), false)
}

func (w *watcher) showMissed(now *basev1.SubscribedEvent) error {
	if w.away && !w.json {
		switch n := len(w.missed); {
		case n == 1:
			if err := w.printf("1 event while this App was away:\n"); err != nil {
				return err
			}
		case n > 1:
			if err := w.printf("%d events while this App was away:\n", n); err != nil {
				return err
			}
		}
		if now.GetGap() {
			if err := w.printf("(More has happened than the Base keeps.)\n"); err != nil {
				return err
			}
		}
	}
	if len(w.missed) == 0 && w.pastOnly && !w.json {
		return w.printf("Nothing has happened.\n")
	}
	for _, event := range w.missed {
		if err := w.printEvent(event); err != nil {
			return err
		}
	}
	w.missed = nil
	return nil
}

// keep remembers that an event was shown.
func (w *watcher) keep(sequence uint64, again bool) error {
	if sequence <= w.seen && !again {
		return nil
	}
	w.seen = sequence
	return w.session.SawEvents(sequence)
}

// lost is called when the connection was lost.
func (w *watcher) lost(err error) {
	w.cut = true
	if !w.json {
		w.complain(strings.TrimSuffix(client.Explain(err), "; try again") + "; trying again")
	}
}

func (w *watcher) printEvent(event *basev1.Event) error {
	switch {
	case w.json:
		return w.printMessage(event)
	case event.GetSubscribed() != nil && w.pastOnly:
		return nil
	case event.GetSubscribed() != nil && w.cut:
		w.cut = false
		return w.printf("%s  Connected again.\n", time.Now().Format(time.TimeOnly))
	}
	at := event.GetTime().AsTime().Local()
	layout := time.TimeOnly
	if event.GetPast() {
		layout = time.DateTime
	}
	return w.printf("%s  %s\n", at.Format(layout), client.Printable(eventText(event)))
}

// eventText describes an event in words, and what is missing.
func eventText(event *basev1.Event) string {
	text := eventWords(event)
	var missing []string
	if n := event.GetLeftOut(); n > 0 {
		missing = append(missing, fmt.Sprintf("%d more of this kind were left out.", n))
	}
	if n := event.GetCut(); n > 0 {
		missing = append(missing, fmt.Sprintf("%d more entries do not fit here.", n))
	}
	if len(missing) > 0 {
		text += " (" + strings.Join(missing, " ") + ")"
	}
	return text
}

// eventWords is the one place with the words of each kind of event.
func eventWords(event *basev1.Event) string {
	app := func(format string, app *basev1.App) string { return fmt.Sprintf(format, app.GetName(), app.GetId()) }
	switch e := event.GetEvent().(type) {
	case *basev1.Event_Subscribed:
		return "Watching. Ctrl-C ends it."
	case *basev1.Event_AppPaired:
		return app("%q (%s) was paired", e.AppPaired.GetApp()) + " as " + roleName(e.AppPaired.GetApp().GetRole()) + "."
	case *basev1.Event_AppRenamed:
		return app("An App was renamed to %q (%s).", e.AppRenamed.GetApp())
	case *basev1.Event_AppRevoked:
		return app("%q (%s) was revoked.", e.AppRevoked.GetApp())
	case *basev1.Event_AppRoleChanged:
		return app("%q (%s) is now", e.AppRoleChanged.GetApp()) + " " + roleName(e.AppRoleChanged.GetApp().GetRole()) +
			" instead of " + roleName(e.AppRoleChanged.GetBefore()) + "."
	case *basev1.Event_SessionStarted:
		return app("%q (%s) connected.", e.SessionStarted.GetApp())
	case *basev1.Event_SessionEnded:
		return app("%q (%s) disconnected.", e.SessionEnded.GetApp())
	case *basev1.Event_WindowChanged:
		return windowText(e.WindowChanged.GetWindow())
	case *basev1.Event_PairingAttempt:
		return attemptText(e.PairingAttempt)
	case *basev1.Event_PostureChanged:
		return postureText(e.PostureChanged)
	case *basev1.Event_DriftFound:
		return "The audit has findings: " +
			list(e.DriftFound.GetFindings(), func(f *basev1.Finding) string { return f.GetTitle() + " (" + f.GetId() + ")" }) + "."
	case *basev1.Event_BansChanged:
		return bansText(e.BansChanged)
	case *basev1.Event_ApplyFailed:
		return "The Base could not apply its posture, and tries again: " + e.ApplyFailed.GetReason() + "."
	case *basev1.Event_ServiceFailed:
		return because(fmt.Sprintf("The service %s has failed", e.ServiceFailed.GetService().GetName()), e.ServiceFailed.GetReason())
	case *basev1.Event_ServiceRecovered:
		return fmt.Sprintf("The service %s works again.", e.ServiceRecovered.GetService().GetName())
	case *basev1.Event_DiskFilling:
		return fmt.Sprintf("The disk is filling up: %s of %s are free.", size(e.DiskFilling.GetAvailableBytes()),
			size(e.DiskFilling.GetTotalBytes()))
	case *basev1.Event_UpdateWaiting:
		return "Security updates of Debian are waiting: " + strings.Join(e.UpdateWaiting.GetPackages(), ", ") + "."
	case *basev1.Event_UpdateEnded:
		return updateText(e.UpdateEnded)
	case *basev1.Event_BaseStarted:
		return startText(e.BaseStarted)
	case *basev1.Event_MachineStopping:
		return stopText(e.MachineStopping)
	}
	return nodeWords(event)
}

// nodeWords are those of the events about the node.
func nodeWords(event *basev1.Event) string {
	switch e := event.GetEvent().(type) {
	case *basev1.Event_NodeStopped:
		return because("The node does not answer", e.NodeStopped.GetReason())
	case *basev1.Event_NodeBehind:
		return behindText(e.NodeBehind)
	case *basev1.Event_NodeCaughtUp:
		return fmt.Sprintf("The node is up to date: %s, block %d.", words.English.Network(e.NodeCaughtUp.GetNetwork()),
			e.NodeCaughtUp.GetHeight())
	case *basev1.Event_NodeLonely:
		return fmt.Sprintf("The node has had no peer for %d minutes.", e.NodeLonely.GetMinutes())
	case *basev1.Event_ChainReorganised:
		return reorganisedText(e.ChainReorganised)
	case *basev1.Event_NodeDiskFilling:
		return fmt.Sprintf("The node's disk is full in about %s: %s are free.", duration(e.NodeDiskFilling.GetFullSeconds()),
			size(e.NodeDiskFilling.GetAvailableBytes()))
	case *basev1.Event_DiskTrouble:
		return fmt.Sprintf("A disk is in trouble: %s.", client.Printable(e.DiskTrouble.GetTrouble()))
	case *basev1.Event_NodeUnmaintained:
		return fmt.Sprintf("%s %s no longer gets fixes; update it.", e.NodeUnmaintained.GetSoftware(), e.NodeUnmaintained.GetVersion())
	}
	return "This App does not know this kind of event; its software may be too old."
}

// postureText describes a change of how open the Base is.
func postureText(e *basev1.PostureChangedEvent) string {
	text := strings.TrimSuffix(strings.Join(e.GetChanges(), " "), ".")
	by := e.GetBy()
	if e.GetApp() != nil {
		by = appText(e.GetApp())
	}
	if by != "" {
		text += ", by " + by
	}
	if e.GetNote() != "" {
		text += " (" + e.GetNote() + ")"
	}
	return text + "."
}

// appText is the name of an App and its id.
func appText(app *basev1.App) string {
	if app.GetName() == "" {
		return "an App (" + app.GetId() + ")"
	}
	return fmt.Sprintf("%q (%s)", app.GetName(), app.GetId())
}

// because adds a reason to a sentence, if there is one.
func because(sentence, reason string) string {
	if reason = strings.TrimRight(reason, "."); reason != "" {
		sentence += ": " + reason
	}
	return sentence + "."
}

func attemptText(e *basev1.PairingAttemptEvent) string {
	text := "Somebody asked to be paired"
	if n := e.GetRequests(); n > 1 {
		text += fmt.Sprintf(" (%d different requests)", n)
	}
	if e.GetIgnored() {
		return text + "; this was ignored because no pairing window was open."
	}
	return text + "."
}

func updateText(e *basev1.UpdateEndedEvent) string {
	if e.GetInstalled() {
		return fmt.Sprintf("The Base was updated from version %s to %s.", e.GetFromVersion(), e.GetToVersion())
	}
	return because(fmt.Sprintf("The update to version %s was undone; version %s is installed", e.GetToVersion(), e.GetFromVersion()),
		e.GetReason())
}

func startText(e *basev1.BaseStartedEvent) string {
	if e.GetBooted() {
		return fmt.Sprintf("The machine was booted (version %s).", e.GetSoftwareVersion())
	}
	return fmt.Sprintf("The Base's software was started (version %s).", e.GetSoftwareVersion())
}

func stopText(e *basev1.MachineStoppingEvent) string {
	text := "The machine is restarting"
	if e.GetPowerOff() {
		text = "The machine is shutting down"
	}
	if by := e.GetBy(); by != nil {
		return text + ", as requested by " + appText(by) + "."
	}
	return text + ", as requested by somebody at the Base."
}

func bansText(e *basev1.BansChangedEvent) string {
	address := func(ban *basev1.Ban) string { return ban.GetAddress() + " (" + ban.GetJail() + ")" }
	var parts []string
	if len(e.GetBanned()) > 0 {
		parts = append(parts, "Banned: "+list(e.GetBanned(), address)+".")
	}
	if len(e.GetLifted()) > 0 {
		parts = append(parts, "No longer banned: "+list(e.GetLifted(), address)+".")
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
