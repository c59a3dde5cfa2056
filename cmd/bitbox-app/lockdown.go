package main

import (
	"context"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/BitBoxSwiss/bitbox-base/client"
	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/owner"
	"github.com/BitBoxSwiss/bitbox-base/internal/commandline"
)

func (p *program) lockdownCommand() *cobra.Command {
	command := &cobra.Command{
		Use:   "lockdown",
		Short: "Close everything at once, except the channel of this App",
		Long: `lockdown switches SSH off, closes the extra APIs and pairing from the network, and ends the
sessions of all other Apps. No keys are removed. 'bitbox-app posture unlock' lifts it.`,
		Example: `  bitbox-app lockdown
  bitbox-app lockdown --yes
  bitbox-app lockdown --all`,
		Args:        commandline.Args(0, 0),
		Annotations: onSeveral,
	}
	asking := p.consent(command)
	command.RunE = func(c *cobra.Command, _ []string) error {
		several, err := p.severalBases()
		if err != nil {
			return err
		}
		// The text is the same whatever is open; the Base is asked for nothing first.
		change := owner.Deed{Kind: owner.Lockdown}.Change()
		if several != nil {
			change.Text = "These Bases will be locked down (SSH off, extra APIs closed, no pairing from the network, all other sessions ended): " +
				strings.Join(several, ", ") + "."
			if err := asking.must(c.Context(), change); err != nil {
				return err
			}
		}
		return ask(p, c, changeTime, query[*client.PostureView]{
			ask: func(ctx context.Context, session *client.Session) (*client.PostureView, error) {
				if several == nil {
					if err := asking.must(ctx, change); err != nil {
						return nil, err
					}
				}
				return session.Lockdown(ctx)
			},
			json:    func(view *client.PostureView) any { return asking.changed(view) },
			show:    func(view *client.PostureView) error { return asking.done(view, nil) },
			columns: []string{"LOCKDOWN", "REVISION"},
			rows: func(view *client.PostureView) [][]string {
				return [][]string{{"on, signed by the Base", strconv.FormatUint(view.Effective().Revision, 10)}}
			},
		})
	}
	return command
}
