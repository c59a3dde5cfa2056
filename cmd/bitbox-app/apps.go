package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/client"
	"github.com/BitBoxSwiss/bitbox-base/internal/commandline"
)

func (p *program) appsCommand() *cobra.Command {
	command := &cobra.Command{
		Use:   "apps",
		Short: "List, rename and revoke the Apps that are paired with the Base, and set their roles",
		Example: `  bitbox-app apps list
  bitbox-app apps role Phone operator
  bitbox-app apps revoke Phone`,
		Args: commandline.Args(0, 0),
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	command.AddCommand(p.appsListCommand(), p.appsRenameCommand(), p.appsRoleCommand(), p.appsRevokeCommand())
	return command
}

func (p *program) appsListCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the Apps that are paired with the Base",
		Example: `  bitbox-app apps list --json
  bitbox-app apps list --all`,
		Args:        commandline.Args(0, 0),
		Annotations: onSeveral,
		RunE: func(c *cobra.Command, _ []string) error {
			return ask(p, c, callTime, tableOf(p, query[*basev1.ListAppsResponse]{
				ask: func(ctx context.Context, session *client.Session) (*basev1.ListAppsResponse, error) {
					return session.Apps.ListApps(ctx, &basev1.ListAppsRequest{})
				},
				columns: []string{"ID", "NAME", "ROLE", "PAIRED", "LAST SEEN", "FROM", "NOW"},
				rows: func(list *basev1.ListAppsResponse) [][]string {
					var rows [][]string
					for _, app := range list.GetApps() {
						rows = append(rows, appCells(app, time.Now()))
					}
					return rows
				},
				table: func(t *table) { t.whole("ID") },
			}))
		},
	}
}

func appCells(app *basev1.App, now time.Time) []string {
	seen, connected := "never", ""
	if app.GetLastSeenAt() != nil {
		seen = when(app.GetLastSeenAt().AsTime(), now)
	}
	switch {
	case app.GetIsCaller():
		connected = "this App"
	case app.GetSessions() > 0:
		connected = "connected"
	}
	return []string{app.GetId(), app.GetName(), roleName(app.GetRole()), when(app.GetPairedAt().AsTime(), now), seen, app.GetLastAddress(),
		connected}
}

// withApp finds the App with this id or name, and calls the function with it.
func (p *program) withApp(c *cobra.Command, usual time.Duration, meant string,
	do func(context.Context, *client.Session, *basev1.App) error) error {
	return p.call(c.Context(), usual, func(ctx context.Context, session *client.Session) error {
		list, err := session.Apps.ListApps(ctx, &basev1.ListAppsRequest{})
		if err != nil {
			return err
		}
		var found []*basev1.App
		for _, app := range list.GetApps() {
			if app.GetId() == meant {
				found = []*basev1.App{app}
				break
			}
			if app.GetName() == meant {
				found = append(found, app)
			}
		}
		switch len(found) {
		case 0:
			return fmt.Errorf("%w: no paired App has the name or id %q; see 'bitbox-app apps list'", client.ErrNoSuchApp, client.Printable(meant))
		case 1:
			return do(ctx, session, found[0])
		}
		return fmt.Errorf("%w: %d Apps are named %q; use the id from 'bitbox-app apps list'", client.ErrNoSuchApp, len(found),
			client.Printable(meant))
	})
}

// meant makes sure that the App with this name in the Base's list is the one that the user means,
// by the signed posture. The question gives a renamed App its former name; if no question is
// asked, the user must give the id.
func (c *consent) meant(ctx context.Context, session *client.Session, app *basev1.App, typed string) error {
	if typed == app.GetId() {
		return nil
	}
	pairedAs, err := session.CheckName(ctx, app.GetId(), typed)
	if err == nil && pairedAs != "" && pairedAs != typed && !c.mayAsk() {
		err = usageError{fmt.Errorf("the App %q was paired as %q; use its id, %s, or leave out --yes", client.Printable(typed),
			client.Printable(pairedAs), client.Printable(app.GetId()))}
	}
	return err
}

func (p *program) appsRenameCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "rename APP NEW-NAME",
		Short: "Rename an App",
		Example: `  bitbox-app apps rename 5f2c9a7e01d4b863 "Anna's phone"
  bitbox-app apps rename Phone "Anna's phone"`,
		Args:              commandline.Args(2, 2),
		ValidArgsFunction: p.completeApps,
		RunE: func(c *cobra.Command, args []string) error {
			return p.withApp(c, callTime, args[0], func(ctx context.Context, session *client.Session, app *basev1.App) error {
				renamed, err := session.Apps.RenameApp(ctx, &basev1.RenameAppRequest{Id: app.GetId(), Name: args[1]})
				if err != nil {
					return err
				}
				if p.json {
					return p.printMessage(renamed)
				}
				return p.printf("%q is now %q.\n", client.Printable(app.GetName()), client.Printable(renamed.GetApp().GetName()))
			})
		},
	}
}

const rolesText = `A viewer sees how the Base is doing; an operator also runs the node; an owner also decides
which Apps are let in and how open the Base is.`

func (p *program) appsRoleCommand() *cobra.Command {
	command := &cobra.Command{
		Use:   "role APP ROLE",
		Short: "Change what an App may do: viewer, operator or owner",
		Long: `role changes what an App may do. ` + rolesText + `

This App signs the change. A higher role is tried and then confirmed, like every change
that opens the Base further. A lower role takes effect at once and ends the App's sessions.
The last owner cannot be given a lower role.`,
		Example: `  bitbox-app apps role Phone operator
  bitbox-app apps role 5f2c9a7e01d4b863 viewer`,
		Args: commandline.Args(2, 2),
		ValidArgsFunction: func(c *cobra.Command, args []string, toComplete string) ([]string, cobra.ShellCompDirective) {
			if len(args) == 1 {
				return basev1.RoleNames(), cobra.ShellCompDirectiveNoFileComp
			}
			return p.completeApps(c, args, toComplete)
		},
	}
	var self bool
	command.Flags().BoolVar(&self, "self", false, "lower the role of the App you are using")
	asking := p.consent(command)
	command.RunE = func(c *cobra.Command, args []string) error {
		role, err := client.ParseRole(args[1])
		if err != nil {
			return err
		}
		return p.withApp(c, changeTime, args[0], func(ctx context.Context, session *client.Session, app *basev1.App) error {
			if app.GetIsCaller() && !self {
				return usageError{errors.New("this would lower the role of the App that you are using, and it could not raise it again; if you mean that, add --self")}
			}
			if err := asking.meant(ctx, session, app, args[0]); err != nil {
				return err
			}
			progress := func(step string) { _ = p.say("  ... %s\n", client.Printable(step)) }
			return asking.done(session.SetRole(ctx, app.GetId(), role, asking.approve(ctx), progress))
		})
	}
	return command
}

func (p *program) appsRevokeCommand() *cobra.Command {
	var self bool
	command := &cobra.Command{
		Use:   "revoke APP",
		Short: "Cut an App off for good",
		Long: `revoke ends the App's sessions within a second, and the Base never accepts its keys again.
The last owner cannot be revoked.

On an appliance this App first signs a change that takes away all rights of the other App.`,
		Example: `  bitbox-app apps revoke Phone
  bitbox-app apps revoke 5f2c9a7e01d4b863`,
		Args:              commandline.Args(1, 1),
		ValidArgsFunction: p.completeApps,
	}
	command.Flags().BoolVar(&self, "self", false, "revoke the App you are using")
	asking := p.consent(command)
	command.RunE = func(c *cobra.Command, args []string) error {
		return p.withApp(c, changeTime, args[0], func(ctx context.Context, session *client.Session, app *basev1.App) error {
			if app.GetIsCaller() && !self {
				return usageError{errors.New("this is the App that you are using; to cut it off, add --self")}
			}
			if err := asking.meant(ctx, session, app, args[0]); err != nil {
				return err
			}
			if _, err := session.RevokeApp(ctx, app.GetId(), asking.approve(ctx)); err != nil {
				return err
			}
			if p.json {
				return p.printMessage(app)
			}
			return p.printf("%q is cut off for good.\n", client.Printable(app.GetName()))
		})
	}
	return command
}

func (p *program) completeApps(c *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var ids []string
	err := p.call(c.Context(), completeTime, func(ctx context.Context, session *client.Session) error {
		list, err := session.Apps.ListApps(ctx, &basev1.ListAppsRequest{})
		for _, app := range list.GetApps() {
			ids = append(ids, cobra.CompletionWithDesc(app.GetId(), client.Printable(app.GetName())))
		}
		return err
	})
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	return ids, cobra.ShellCompDirectiveNoFileComp
}
