package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/BitBoxSwiss/bitbox-base/client"
	"github.com/BitBoxSwiss/bitbox-base/internal/commandline"
)

// forFlag adds the flag for the length of a lease.
func forFlag(command *cobra.Command) *time.Duration {
	length := new(time.Duration)
	commandline.DurationVar(command.Flags(), length, "for", "how long: 5m (minutes) to 7d")
	_ = command.RegisterFlagCompletionFunc("for", cobra.FixedCompletions([]string{"1h", "1d", "7d"}, cobra.ShellCompDirectiveNoFileComp))
	return length
}

// chosen refuses a lease without a length, and a length that no Base accepts.
func chosen(length time.Duration) error {
	switch {
	case length == 0:
		return usageError{errors.New("give a time, such as --for 1d; 5m (minutes) to 7d are allowed")}
	case length < client.MinLease || length > client.MaxLease || length%time.Second != 0:
		return usageError{fmt.Errorf("--for %s is not possible: 5m (minutes) to 7d are allowed, in whole seconds",
			commandline.FormatDuration(length))}
	}
	return nil
}

// isExtra refuses an unknown kind of extra API.
func isExtra(kind string) error {
	if !slices.Contains(client.Extras(), kind) {
		return usageError{fmt.Errorf("%q is not an extra API; available: %s", client.Printable(kind), strings.Join(client.Extras(), ", "))}
	}
	return nil
}

func (p *program) exposeCommand() *cobra.Command {
	command := &cobra.Command{
		Use:   "expose KIND --for TIME",
		Short: "Open an extra API for a limited time",
		Long: `expose makes an extra API reachable from the network, over TLS, for 5 minutes to 7 days.
It shares the port of the encrypted channel, or gets a port of its own. Then expose shows
how to connect, and the fingerprint of the certificate. The only kind is electrum, for
Electrum wallets.`,
		Example: `  bitbox-app expose electrum --for 1d
  bitbox-app expose electrum --for 7d --own-port --yes`,
		Args:              commandline.Args(1, 1),
		ValidArgsFunction: cobra.FixedCompletions(client.Extras(), cobra.ShellCompDirectiveNoFileComp),
	}
	length := forFlag(command)
	var ownPort bool
	command.Flags().BoolVar(&ownPort, "own-port", false, "give it a port of its own instead of sharing the entry port")
	asking := p.consent(command)
	command.RunE = func(c *cobra.Command, args []string) error {
		if err := cmp.Or(isExtra(args[0]), chosen(*length)); err != nil {
			return err
		}
		return p.applyAndSay(c, asking, client.Change{Edit: client.Expose(args[0], ownPort, *length)},
			func(host string, view *client.PostureView) *connection {
				return exposedAt(host, args[0], view)
			})
	}
	return command
}

func (p *program) unexposeCommand() *cobra.Command {
	command := &cobra.Command{
		Use:               "unexpose KIND",
		Short:             "Close an extra API before its lease ends, and end its connections",
		Example:           `  bitbox-app unexpose electrum`,
		Args:              commandline.Args(1, 1),
		ValidArgsFunction: cobra.FixedCompletions(client.Extras(), cobra.ShellCompDirectiveNoFileComp),
	}
	asking := p.consent(command)
	command.RunE = func(c *cobra.Command, args []string) error {
		if err := isExtra(args[0]); err != nil {
			return err
		}
		return p.endLease(c, asking, args[0])
	}
	return command
}

func (p *program) endLease(c *cobra.Command, asking *consent, kind string) error {
	return p.call(c.Context(), changeTime, func(ctx context.Context, session *client.Session) error {
		return asking.done(session.EndLease(ctx, kind, asking.approve(ctx)))
	})
}
