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
)

// updateTime is how long an update may take: bringing the file, waiting for Debian's own
// updates, installing on a slow card, and going back.
const updateTime = time.Hour

func (p *program) updateCommand() *cobra.Command {
	var status, debian bool
	command := &cobra.Command{
		Use:   "update [FILE]",
		Short: "Bring the Base a new version of its software",
		Long: `update brings a release file to the Base, which takes it if it is signed by who makes the
releases, newer than what it has, and for this kind of machine. The Base installs it, looks
whether it is well then, and goes back to the version before by itself if not. Connections
break for some seconds meanwhile; this command waits and tells how it ended.

Ctrl-C while the file is being sent leaves everything as it was. Later the Base goes on
without this App.

With --debian it installs the updates of Debian that wait, as the Base does each night by
itself, and shows what is done.

With --status it tells the versions, how the last update went, and which security updates
of Debian wait. With --json it prints one object a line.`,
		Example: `  bitbox-app update bitbox-base_1.3.0_amd64.release
  bitbox-app update --debian
  bitbox-app update --status`,
		Args: cobra.MaximumNArgs(1),
	}
	command.Flags().BoolVar(&status, "status", false, "tell the versions and how the last update went")
	command.Flags().BoolVar(&debian, "debian", false, "install the updates of Debian that wait")
	asking := p.consent(command)
	command.RunE = func(c *cobra.Command, args []string) error {
		switch {
		case debian && !status && len(args) == 0:
			return p.call(c.Context(), updateTime, p.debianUpdates)
		case status && !debian && len(args) == 0:
			return p.call(c.Context(), callTime, p.updateStatus)
		case status || debian || len(args) == 0:
			return usageError{errors.New("update wants a release file, --debian or --status, and one of them only")}
		}
		release, err := client.OpenRelease(args[0])
		if err != nil {
			return err
		}
		defer func() { _ = release.Close() }()
		return p.call(c.Context(), updateTime, func(ctx context.Context, session *client.Session) error {
			return p.update(ctx, session, release, asking)
		})
	}
	return command
}

func (p *program) update(ctx context.Context, session *client.Session, release *client.Release, asking *consent) error {
	now, err := session.UpdateStatus(ctx)
	if err != nil {
		return err
	}
	change := client.PostureChange{Field: "software", Before: now.GetInstalledVersion(), After: release.Version,
		Text: fmt.Sprintf("Version %s will be installed in place of %s; Apps are disconnected for some seconds.", release.Version, now.GetInstalledVersion())}
	if err := asking.must(ctx, change); err != nil {
		return err
	}
	teller := &updateTeller{program: p, size: release.Size}
	if err := session.Install(ctx, release, teller.tell); err != nil {
		return errors.Join(err, teller.err)
	}
	if teller.err != nil || p.json {
		return teller.err
	}
	return p.printf("The Base runs version %s, and is well.\n", client.Printable(release.Version))
}

// updateTeller prints each thing once.
type updateTeller struct {
	*program
	size uint64
	line string
	err  error
}

// sentParts is into how many parts the sending of a file is divided for who watches.
const sentParts = 4

func (t *updateTeller) tell(progress client.UpdateProgress) {
	var line string
	event := map[string]any{}
	switch u := progress.Update; {
	case u == nil:
		part := progress.Sent * sentParts / max(t.size, 1)
		line = fmt.Sprintf("Sending: %d %% of %s", part*100/sentParts, size(t.size))
		event["sent"], event["size"] = progress.Sent, t.size
	case progress.Away:
		line = "The Base restarts; waiting for it."
		event["away"] = true
	default:
		line = updatePhase(u) + ": " + u.GetStep()
		event["phase"], event["step"], event["id"] = updatePhase(u), u.GetStep(), u.GetId()
		if u.GetReason() != "" {
			line += " (" + u.GetReason() + ")"
			event["reason"] = u.GetReason()
		}
	}
	if line == t.line || t.err != nil {
		return
	}
	t.line = line
	if t.json {
		t.err = t.printJSON(event)
		return
	}
	t.err = t.printf("%s\n", client.Printable(line))
}

// updatePhase is a word for people and scripts.
func updatePhase(u *basev1.Update) string {
	return strings.ToLower(strings.TrimPrefix(u.GetPhase().String(), "PHASE_"))
}

func (p *program) updateStatus(ctx context.Context, session *client.Session) error {
	status, err := session.UpdateStatus(ctx)
	if err != nil {
		return err
	}
	if p.json {
		return p.printMessage(status)
	}
	table := p.table()
	table.row("Installed", status.GetInstalledVersion())
	table.row("Last update", lastUpdate(status.GetUpdate()))
	if reason := status.GetUpdate().GetReason(); reason != "" {
		table.row("", reason)
	}
	if !status.GetTakesUpdates() {
		table.row("Over the channel", "none: this Base was built without a release key")
	}
	switch waiting := status.GetDebianWaiting(); {
	case status.GetDebianUnknown() != "":
		table.row("Debian", "not known: "+status.GetDebianUnknown())
	case len(waiting) == 0:
		table.row("Debian", "no security update waits")
	default:
		table.row("Debian", fmt.Sprintf("security updates that wait: %d", len(waiting)))
		for _, one := range waiting {
			table.row("", one)
		}
	}
	return table.print()
}

func lastUpdate(u *basev1.Update) string {
	if u == nil {
		return "none"
	}
	text := map[basev1.Update_Phase]string{
		basev1.Update_PHASE_DONE:   "installed",
		basev1.Update_PHASE_UNDONE: "did not hold; the version before is installed",
		basev1.Update_PHASE_FAILED: "failed; somebody has to look at the Base",
	}[u.GetPhase()]
	if text == "" {
		text = "under way (" + updatePhase(u) + ": " + u.GetStep() + ")"
	}
	return fmt.Sprintf("%s to %s, %s: %s", u.GetFromVersion(), u.GetToVersion(), when(u.GetBeganAt().AsTime(), time.Now()), text)
}
