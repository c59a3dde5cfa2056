package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/client"
	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/owner"
	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/words"
	"github.com/BitBoxSwiss/bitbox-base/internal/app/terminal"
	"github.com/BitBoxSwiss/bitbox-base/internal/commandline"
)

// serviceTime is how long a service may take to start or stop.
const serviceTime = time.Minute

// serviceActions are the commands, in order. A command that takes a service away asks first.
var serviceActions = []struct {
	word, short string
	action      basev1.ServiceAction
	deed        owner.DeedKind // what it asks about; 0: it does not ask
}{
	{"start", "Start a service", basev1.ServiceAction_SERVICE_ACTION_START, 0},
	{"stop", "Stop a service until the next boot, or until it is started", basev1.ServiceAction_SERVICE_ACTION_STOP, owner.StopService},
	{"restart", "Stop a service and start it again", basev1.ServiceAction_SERVICE_ACTION_RESTART, 0},
	{"enable", "Start a service, now and at each boot", basev1.ServiceAction_SERVICE_ACTION_ENABLE, 0},
	{"disable", "Stop a service, and do not start it at boot", basev1.ServiceAction_SERVICE_ACTION_DISABLE, owner.DisableService},
}

func (p *program) servicesCommand() *cobra.Command {
	command := &cobra.Command{
		Use:   "services",
		Short: "List, start and stop the services of the Base",
		Long: `services lists the services of the Base. The Base decides what may be done to each: services
that keep the Base closed, or that let you reach it, cannot be stopped from an App.`,
		Example: `  bitbox-app services
  bitbox-app services restart nginx
  bitbox-app services disable mdns`,
		Args:        commandline.Args(0, 0),
		Annotations: onSeveral,
		RunE:        func(c *cobra.Command, _ []string) error { return p.listServices(c) },
	}
	command.AddCommand(&cobra.Command{
		Use:         "list",
		Short:       "List the services of the Base",
		Example:     `  bitbox-app services list --json`,
		Args:        commandline.Args(0, 0),
		Annotations: onSeveral,
		RunE:        func(c *cobra.Command, _ []string) error { return p.listServices(c) },
	})
	for _, a := range serviceActions {
		one := &cobra.Command{
			Use:               a.word + " NAME",
			Short:             a.short,
			Example:           "  bitbox-app services " + a.word + " mdns",
			Args:              commandline.Args(1, 1),
			ValidArgsFunction: p.completeServices(a.action, true),
		}
		ask := func(context.Context, string) error { return nil }
		if a.deed != 0 {
			asking := p.consent(one)
			ask = func(ctx context.Context, name string) error {
				return asking.must(ctx, owner.Deed{Kind: a.deed, Subject: name}.Change())
			}
		}
		one.RunE = func(c *cobra.Command, args []string) error { return p.changeService(c, args[0], a.action, ask) }
		command.AddCommand(one)
	}
	return command
}

func (p *program) listServices(c *cobra.Command) error {
	return ask(p, c, callTime, tableOf(p, query[*basev1.ListServicesResponse]{
		ask: func(ctx context.Context, session *client.Session) (*basev1.ListServicesResponse, error) {
			return session.Services.ListServices(ctx, &basev1.ListServicesRequest{})
		},
		columns: []string{"NAME", "STATE", "SINCE", "MEMORY", "RESTARTS", "AT BOOT", "DESCRIPTION"},
		rows: func(list *basev1.ListServicesResponse) (rows [][]string) {
			for _, s := range list.GetServices() {
				rows = append(rows, serviceCells(s, time.Now()))
			}
			return rows
		},
		empty: "no managed services",
		table: func(t *table) { t.whole("NAME").styled("STATE", serviceStyle) },
	}))
}

// serviceStyle makes an unhealthy service stand out.
func serviceStyle(state string) terminal.Style {
	if strings.HasPrefix(state, "failed") {
		return terminal.Red
	}
	return terminal.Plain
}

func serviceCells(s *basev1.Service, now time.Time) []string {
	since, memory, boot := "", "", "no"
	if s.GetSince() != nil {
		since = when(s.GetSince().AsTime(), now)
	}
	if s.MemoryBytes != nil {
		memory = size(s.GetMemoryBytes())
	}
	if s.GetEnabled() {
		boot = "yes"
	}
	return []string{s.GetName(), words.ServiceState(s), since, memory, fmt.Sprint(s.GetRestarts()), boot, s.GetDescription()}
}

func (p *program) changeService(c *cobra.Command, name string, action basev1.ServiceAction, ask func(context.Context, string) error) error {
	return p.call(c.Context(), changeTime, func(ctx context.Context, session *client.Session) error {
		if err := ask(ctx, name); err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(ctx, serviceTime)
		defer cancel()
		changed, err := session.Services.ChangeService(ctx, &basev1.ChangeServiceRequest{Name: name, Action: action})
		if err != nil {
			return err
		}
		if p.json {
			return p.printMessage(changed)
		}
		s := changed.GetService()
		text := fmt.Sprintf("%s is %s", s.GetName(), words.ServiceState(s))
		switch action {
		case basev1.ServiceAction_SERVICE_ACTION_ENABLE:
			text += ", and starts at each boot"
		case basev1.ServiceAction_SERVICE_ACTION_DISABLE:
			text += ", and does not start at boot"
		}
		return p.printf("%s.\n", client.Printable(text))
	})
}

// completeServices offers the names of services that allow the action; without an action, all.
func (p *program) completeServices(action basev1.ServiceAction, one bool) cobra.CompletionFunc {
	return func(c *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if one && len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		var names []string
		err := p.call(c.Context(), completeTime, func(ctx context.Context, session *client.Session) error {
			list, err := session.Services.ListServices(ctx, &basev1.ListServicesRequest{})
			for _, s := range list.GetServices() {
				may := action == basev1.ServiceAction_SERVICE_ACTION_UNSPECIFIED
				for _, a := range s.GetActions() {
					may = may || a == action
				}
				if may {
					names = append(names, cobra.CompletionWithDesc(client.Printable(s.GetName()), client.Printable(s.GetDescription())))
				}
			}
			return err
		})
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	}
}
