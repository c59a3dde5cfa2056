package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/BitBoxSwiss/bitbox-base/client"
)

func (p *program) lockdownCommand() *cobra.Command {
	command := &cobra.Command{
		Use:   "lockdown",
		Short: "Close everything at once but the channel of this App",
		Long: `lockdown switches SSH off, closes extra APIs and pairing from the network, and ends the
sessions of all other Apps. No key is taken away. 'bitbox-app posture unlock' lifts it.`,
		Example: `  bitbox-app lockdown
  bitbox-app lockdown --yes`,
		Args: cobra.NoArgs,
	}
	asking := p.consent(command)
	command.RunE = func(c *cobra.Command, _ []string) error {
		return p.call(c.Context(), changeTime, func(ctx context.Context, session *client.Session) error {
			// It is the same whatever is open, and the Base is asked for nothing first.
			change := client.PostureChange{Field: "lockdown", Before: "off", After: "on",
				Text: "The Base will be locked down: SSH off, extra APIs closed, no pairing from the network, all other sessions ended."}
			if err := asking.must(ctx, change); err != nil {
				return err
			}
			return asking.done(session.Lockdown(ctx))
		})
	}
	return command
}
