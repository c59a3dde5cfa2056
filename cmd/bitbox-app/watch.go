package main

import (
	"context"
	"errors"
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
	return w.printf("%s  %s\n", at.Format(layout), client.Printable(words.English.Event(event)))
}
