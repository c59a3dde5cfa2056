package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/timestamppb"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/client"
	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/owner"
	"github.com/BitBoxSwiss/bitbox-base/internal/commandline"
)

// errNotBanned: there was no ban to lift.
var errNotBanned = errors.New("not banned")

func (p *program) bansCommand() *cobra.Command {
	command := &cobra.Command{
		Use:   "bans",
		Short: "List banned addresses, and lift bans",
		Example: `  bitbox-app bans list
  bitbox-app bans lift 192.168.1.20`,
		Args: commandline.Args(0, 0),
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	command.AddCommand(p.bansListCommand(), p.bansLiftCommand())
	return command
}

func (p *program) bansListCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List banned addresses",
		Example: `  bitbox-app bans list
  bitbox-app bans list --json`,
		Args:        commandline.Args(0, 0),
		Annotations: onSeveral,
		RunE: func(c *cobra.Command, _ []string) error {
			q := tableOf(p, query[*basev1.ListBansResponse]{
				ask: func(ctx context.Context, session *client.Session) (*basev1.ListBansResponse, error) {
					return session.Bans(ctx)
				},
				columns: []string{"ADDRESS", "FOR", "SINCE", "UNTIL"},
				rows: func(list *basev1.ListBansResponse) [][]string {
					var rows [][]string
					for _, ban := range list.GetBans() {
						rows = append(rows, []string{ban.GetAddress(), ban.GetJail(), known(ban.GetSince()), known(ban.GetUntil())})
					}
					return rows
				},
				empty: "no address is banned",
				table: func(t *table) { t.whole("ADDRESS") },
			})
			alone := q.show
			q.show = func(list *basev1.ListBansResponse) error {
				if len(list.GetBans()) == 0 {
					return p.printf("No address is banned. Bans since the Base started: %d.\n", list.GetTotal())
				}
				if err := alone(list); err != nil {
					return err
				}
				if more := int64(list.GetCurrent()) - int64(len(list.GetBans())); more > 0 {
					return p.printf("... and %d more. %d since the Base was started.\n", more, list.GetTotal())
				}
				return p.printf("Bans since the Base started: %d.\n", list.GetTotal())
			}
			return ask(p, c, callTime, q)
		},
	}
}

// known formats a time that the Base may not know.
func known(t *timestamppb.Timestamp) string {
	if t == nil {
		return "unknown"
	}
	return when(t.AsTime(), time.Now())
}

func (p *program) bansLiftCommand() *cobra.Command {
	command := &cobra.Command{
		Use:     "lift ADDRESS",
		Short:   "Lift the ban of an address",
		Example: `  bitbox-app bans lift 192.168.1.20`,
		Args:    commandline.Args(1, 1),
		ValidArgsFunction: func(c *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			if len(args) > 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			var list []string
			err := p.call(c.Context(), completeTime, func(ctx context.Context, session *client.Session) error {
				bans, err := session.Bans(ctx)
				for _, ban := range bans.GetBans() {
					list = append(list, cobra.CompletionWithDesc(client.Printable(ban.GetAddress()), client.Printable(ban.GetJail())))
				}
				return err
			})
			if err != nil {
				return nil, cobra.ShellCompDirectiveError
			}
			return list, cobra.ShellCompDirectiveNoFileComp
		},
	}
	asking := p.consent(command)
	command.RunE = func(c *cobra.Command, args []string) error {
		return p.call(c.Context(), changeTime, func(ctx context.Context, session *client.Session) error {
			if err := asking.must(ctx, owner.Deed{Kind: owner.LiftBan, Subject: args[0]}.Change()); err != nil {
				return err
			}
			lifted, err := session.LiftBan(ctx, args[0])
			switch {
			case err != nil:
				return err
			case !lifted:
				return fmt.Errorf("%w: %s; see 'bitbox-app bans list'", errNotBanned, client.Printable(args[0]))
			case p.json:
				return p.printJSON(map[string]string{"lifted": args[0]})
			}
			return p.printf("The ban of %s is lifted.\n", client.Printable(args[0]))
		})
	}
	return command
}
