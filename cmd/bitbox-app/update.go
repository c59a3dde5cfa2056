package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/client"
	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/owner"
	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/words"
	"github.com/BitBoxSwiss/bitbox-base/internal/commandline"
)

func (p *program) updateCommand() *cobra.Command {
	var status, debian, check, back bool
	var oldest string
	command := &cobra.Command{
		Use:   "update [FILE | URL]",
		Short: "Install a new version of the Base's software",
		Long: `update sends a release file to the Base. The Base accepts it if it is signed with the release
key, newer than the installed version, and made for this kind of machine. It installs the
release, checks its own health, and goes back to the previous version by itself if
something is wrong. Connections break for some seconds; this command waits and reports the
result.

A Base that runs the image restarts with the new version; its Bitcoin node may take 10 minutes
to stop before that. It keeps the version once it is healthy and this App has confirmed it. An
upload that broke off goes on where it stopped, in the same command or the next one.

Ctrl-C while the file is being sent changes nothing. After that, the Base goes on without
this App; but a new version of the image waits 15 minutes for an App, then goes back.

With --check it fetches the signed list of releases from the URL, or from the last one, and
says what is new for the Base. Then it offers to download and install it. The Base itself
fetches nothing.

With --back a Base that runs the image starts its previous version again. With --oldest
the Base runs no version older than the one given, neither by --back nor by itself; "none"
allows any.

With --debian it installs the pending Debian updates now, as the Base does each night, and
shows the progress.

With --status it shows the versions, the result of the last update, and the pending Debian
security updates. With --json it prints one object per line.`,
		Example: `  bitbox-app update bitbox-base_1.3.0_amd64.release
  bitbox-app update --check https://example.org/releases/feed
  bitbox-app update --back
  bitbox-app update --oldest 1.3.0
  bitbox-app update --debian
  bitbox-app update --status
  bitbox-app update --status --all`,
		Args: commandline.Args(0, 1),
	}
	command.Annotations = onSeveral // with --status
	command.Flags().BoolVar(&status, "status", false, "show the versions and the result of the last update")
	command.Flags().BoolVar(&debian, "debian", false, "install the pending Debian updates")
	command.Flags().BoolVar(&check, "check", false, "see whether the signed list of releases at the URL has a newer version")
	command.Flags().BoolVar(&back, "back", false, "start the previous version of the image again")
	command.Flags().StringVar(&oldest, "oldest", "", "allow no `VERSION` older than this one; \"none\" allows any")
	asking := p.consent(command)
	command.RunE = func(c *cobra.Command, args []string) error {
		chosen := 0
		for _, flag := range []string{"check", "back", "oldest", "debian", "status"} {
			if c.Flags().Changed(flag) {
				chosen++
			}
		}
		if chosen > 1 {
			return usageError{errors.New("--check, --back, --oldest, --debian and --status cannot be combined")}
		}
		if check || back || oldest != "" {
			if several, err := p.severalBases(); err != nil || several != nil {
				return cmp.Or(err, error(usageError{errors.New("this works on one Base at a time; name it with --base")}))
			}
		}
		switch {
		case check:
			return p.checkUpdates(c, strings.Join(args, ""), asking)
		case back && len(args) == 0:
			return p.call(c.Context(), owner.UpdateTime, func(ctx context.Context, session *client.Session) error {
				return p.goBack(ctx, session, asking)
			})
		case oldest != "" && len(args) == 0:
			return p.setOldest(c, oldest, asking)
		case debian && len(args) == 0:
			return p.call(c.Context(), owner.UpdateTime, p.debianUpdates)
		case status && len(args) == 0:
			return ask(p, c, callTime, query[*basev1.GetUpdateResponse]{
				ask: func(ctx context.Context, session *client.Session) (*basev1.GetUpdateResponse, error) {
					return owner.UpdateStatus(ctx, session)
				},
				show:    p.printUpdate,
				columns: []string{"INSTALLED", "DEBIAN", "LAST UPDATE"},
				rows: func(status *basev1.GetUpdateResponse) [][]string {
					return [][]string{{status.GetInstalledVersion(), debianText(status), lastUpdate(status.GetUpdate())}}
				},
			})
		case status || debian || back || oldest != "" || len(args) == 0:
			return usageError{errors.New("give one of these: a release file, --check, --back, --oldest, --debian or --status")}
		}
		if several, err := p.severalBases(); err != nil || several != nil {
			return cmp.Or(err, error(usageError{errors.New("a release is installed on one Base at a time; name it with --base")}))
		}
		release, err := client.OpenRelease(args[0])
		if err != nil {
			return err
		}
		defer func() { _ = release.Close() }()
		return p.call(c.Context(), owner.UpdateTime, func(ctx context.Context, session *client.Session) error {
			return p.update(ctx, session, release, asking)
		})
	}
	return command
}

func (p *program) update(ctx context.Context, session *client.Session, release *client.Release, asking *consent) error {
	now, err := owner.UpdateStatus(ctx, session)
	if err != nil {
		return err
	}
	if err := asking.must(ctx, owner.SoftwareChange(now.GetInstalledVersion(), release.Version, release.Image)); err != nil {
		return err
	}
	return p.install(ctx, session, release)
}

// install brings a release, and tells how it goes.
func (p *program) install(ctx context.Context, session *client.Session, release *client.Release) error {
	known, err := p.releases()
	if err != nil {
		return err
	}
	if err := known.Learn(release); err != nil {
		return err
	}
	p.left = "nothing was installed; the Base deletes the partial file"
	if release.Image {
		p.left = "nothing was installed; the same command goes on where it stopped"
	}
	teller := &updateTeller{program: p, size: release.Size}
	if err := session.Install(ctx, release, teller.tell); err != nil {
		return errors.Join(err, teller.err)
	}
	if teller.err != nil || p.json {
		return teller.err
	}
	return p.printf("The Base now runs version %s and is healthy.\n", client.Printable(release.Version))
}

// updateTeller prints each thing once.
type updateTeller struct {
	*program
	size uint64
	line string
	err  error
}

// sentParts is how many lines report the upload in a pipe.
const sentParts = 4

func (t *updateTeller) tell(progress client.UpdateProgress) {
	line, event := owner.UpdateStep(progress).String(), map[string]any{}
	switch u := progress.Update; {
	case progress.Away:
		event["away"] = true
	case u == nil:
		parts := uint64(sentParts)
		if t.out.Moves {
			parts = 100
		}
		part := progress.Sent * parts / max(t.size, 1)
		line = fmt.Sprintf("Sending: %d %% of %s", part*100/parts, size(t.size))
		event["sent"], event["size"] = progress.Sent, t.size
	default:
		event["phase"], event["step"], event["id"] = words.UpdatePhase(u), u.GetStep(), u.GetId()
		if u.GetReason() != "" {
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
	t.err = t.step("", line)
}

func (p *program) printUpdate(status *basev1.GetUpdateResponse) error {
	table := p.table()
	table.row("Installed", status.GetInstalledVersion())
	if status.GetOtherVersion() != "" {
		table.row("Other slot", status.GetOtherVersion())
	}
	if known, err := p.releases(); err == nil {
		if newer, _, err := known.Newer(status); err == nil && newer != nil {
			table.row("New", newer.Said().String())
		}
	}
	table.row("Last update", lastUpdate(status.GetUpdate()))
	if reason := status.GetUpdate().GetReason(); reason != "" {
		table.row("", reason)
	}
	if !status.GetTakesUpdates() {
		table.row("By this App", "not possible: this Base was built without a release key")
	}
	table.row("Debian", debianText(status))
	if status.GetDebianUnknown() == "" {
		for _, one := range status.GetDebianWaiting() {
			table.row("", one)
		}
	}
	return table.print()
}

// debianText is about Debian's own updates.
func debianText(status *basev1.GetUpdateResponse) string {
	switch waiting := len(status.GetDebianWaiting()); {
	case status.GetImage():
		return "comes with each release"
	case status.GetDebianUnknown() != "":
		return "unknown: " + status.GetDebianUnknown()
	case waiting > 0:
		return fmt.Sprintf("pending security updates: %d", waiting)
	}
	return "no pending security updates"
}

func lastUpdate(u *basev1.Update) string {
	if u == nil {
		return "none"
	}
	text := map[basev1.Update_Phase]string{
		basev1.Update_PHASE_DONE:   "installed",
		basev1.Update_PHASE_UNDONE: "failed; the previous version is installed",
		basev1.Update_PHASE_FAILED: "failed; the Base needs repair by hand",
	}[u.GetPhase()]
	if text == "" {
		text = "under way (" + words.UpdatePhase(u) + ": " + u.GetStep() + ")"
	}
	return fmt.Sprintf("%s to %s, %s: %s", u.GetFromVersion(), u.GetToVersion(), when(u.GetBeganAt().AsTime(), time.Now()), text)
}
