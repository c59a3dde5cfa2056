package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/client"
	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/owner"
	"github.com/BitBoxSwiss/bitbox-base/internal/commandline"
)

func (p *program) nameCommand() *cobra.Command {
	command := &cobra.Command{
		Use:   "name [NEW-NAME]",
		Short: "Show or change the name of the Base",
		Long: `name shows the name of the Base, or changes it: for all Apps, on its screen, and on the local
network. The name is part of the posture, so this App signs the change, and the Base undoes
it unless the App can still reach it.

A name has 1 to 63 bytes, no control or invisible characters, and begins and ends with a
visible character.`,
		Example: `  bitbox-app name
  bitbox-app name kitchen`,
		Args:              commandline.Args(0, 1),
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	command.Annotations = onSeveral // without a new name
	asking := p.consent(command)
	command.RunE = func(c *cobra.Command, args []string) error {
		if len(args) == 1 {
			if err := p.oneBase(c); err != nil {
				return err
			}
			return p.apply(c, asking, client.Change{Edit: client.Rename(args[0])})
		}
		return ask(p, c, callTime, query[*basev1.GetInfoResponse]{
			ask: func(ctx context.Context, session *client.Session) (*basev1.GetInfoResponse, error) {
				return session.Info.GetInfo(ctx, &basev1.GetInfoRequest{})
			},
			json:    func(info *basev1.GetInfoResponse) any { return map[string]string{"name": info.GetName()} },
			show:    func(info *basev1.GetInfoResponse) error { return p.printf("%s\n", client.Printable(info.GetName())) },
			columns: []string{"NAME"},
			rows:    func(info *basev1.GetInfoResponse) [][]string { return [][]string{{info.GetName()}} },
		})
	}
	return command
}

func (p *program) timezoneCommand() *cobra.Command {
	var list bool
	command := &cobra.Command{
		Use:   "timezone [NAME]",
		Short: "Show or set the time zone of the Base's machine",
		Long: `timezone shows or sets the time zone of the machine, which its clock, its log files and its
scheduled tasks use. This App shows all times in this computer's time zone.`,
		Example: `  bitbox-app timezone
  bitbox-app timezone --list
  bitbox-app timezone Europe/Zurich`,
		Args: commandline.Args(0, 1),
		ValidArgsFunction: func(c *cobra.Command, args []string, _ string) (names []string, _ cobra.ShellCompDirective) {
			if len(args) > 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			err := p.call(c.Context(), completeTime, func(ctx context.Context, session *client.Session) error {
				zones, err := session.Machine.ListTimeZones(ctx, &basev1.ListTimeZonesRequest{})
				for _, name := range zones.GetNames() {
					names = append(names, client.Printable(name))
				}
				return err
			})
			if err != nil {
				return nil, cobra.ShellCompDirectiveError
			}
			return names, cobra.ShellCompDirectiveNoFileComp
		},
	}
	command.Annotations = onSeveral // to show, not to set or to list
	command.Flags().BoolVar(&list, "list", false, "list all time zones")
	command.RunE = func(c *cobra.Command, args []string) error {
		if list && len(args) > 0 {
			return usageError{errors.New("--list and NAME cannot be combined")}
		}
		if len(args) == 0 && !list {
			return ask(p, c, callTime, query[*basev1.ListTimeZonesResponse]{
				ask: func(ctx context.Context, session *client.Session) (*basev1.ListTimeZonesResponse, error) {
					return session.Machine.ListTimeZones(ctx, &basev1.ListTimeZonesRequest{})
				},
				show: func(zones *basev1.ListTimeZonesResponse) error {
					return p.printf("%s\n", client.Printable(zones.GetCurrent()))
				},
				columns: []string{"TIME ZONE"},
				rows:    func(zones *basev1.ListTimeZonesResponse) [][]string { return [][]string{{zones.GetCurrent()}} },
			})
		}
		if err := p.oneBase(c); err != nil {
			return err
		}
		return p.call(c.Context(), callTime, func(ctx context.Context, session *client.Session) error {
			if list {
				return p.listTimeZones(ctx, session)
			}
			return p.setTimeZone(ctx, session, args[0])
		})
	}
	return command
}

func (p *program) setTimeZone(ctx context.Context, session *client.Session, name string) error {
	if _, err := session.Machine.SetTimeZone(ctx, &basev1.SetTimeZoneRequest{Name: name}); err != nil {
		return err
	}
	if p.json {
		return p.printJSON(map[string]string{"current": name})
	}
	return p.printf("The Base's time zone is now %s.\n", client.Printable(name))
}

func (p *program) listTimeZones(ctx context.Context, session *client.Session) error {
	zones, err := session.Machine.ListTimeZones(ctx, &basev1.ListTimeZonesRequest{})
	switch {
	case err != nil:
		return err
	case p.json:
		return p.printMessage(zones)
	}
	for _, name := range zones.GetNames() {
		if err := p.printf("%s\n", client.Printable(name)); err != nil {
			return err
		}
	}
	return nil
}

func (p *program) rebootCommand() *cobra.Command {
	var wait bool
	command := &cobra.Command{
		Use:   "reboot",
		Short: "Restart the Base's machine",
		Long: `reboot restarts the Base's machine. Afterwards SSH is off, and a change on trial is undone.
With --wait the command ends once the Base answers again. A Base with a Bitcoin node may take 10
minutes longer: the node writes the state of the chain when it stops.`,
		Example: `  bitbox-app reboot
  bitbox-app reboot --wait --yes`,
		Args: commandline.Args(0, 0),
	}
	command.Flags().BoolVar(&wait, "wait", false, "wait until the Base answers again")
	asking := p.consent(command)
	command.RunE = func(c *cobra.Command, _ []string) error {
		return p.call(c.Context(), owner.RebootTime, func(ctx context.Context, session *client.Session) error {
			if err := asking.must(ctx, owner.Deed{Kind: owner.Reboot}.Change()); err != nil {
				return err
			}
			if _, err := session.Machine.Reboot(ctx, &basev1.RebootRequest{}); err != nil {
				return err
			}
			if !wait {
				if p.json {
					return p.printJSON(map[string]any{"rebooting": true})
				}
				return p.printf("The Base is restarting. A Bitcoin node may take 10 minutes to stop.\n")
			}
			begun := time.Now()
			if err := p.say("The Base is restarting. Waiting for it to answer.\n"); err != nil {
				return err
			}
			if _, err := session.AwaitReboot(ctx, begun); err != nil {
				return err
			}
			took := time.Since(begun).Round(time.Second)
			if p.json {
				return p.printJSON(map[string]any{"rebooted": true, "seconds": int(took.Seconds())})
			}
			return p.printf("The Base answers again after %s.\n", duration(uint64(took.Seconds())))
		})
	}
	return command
}

func (p *program) shutdownCommand() *cobra.Command {
	command := &cobra.Command{
		Use:   "shutdown",
		Short: "Switch the Base's machine off",
		Long: `shutdown switches the Base's machine off. Only somebody at the Base can switch it on again.
Its Bitcoin node may take 10 minutes to stop before that.`,
		Example: `  bitbox-app shutdown`,
		Args:    commandline.Args(0, 0),
	}
	asking := p.consent(command)
	command.RunE = func(c *cobra.Command, _ []string) error {
		return p.call(c.Context(), changeTime, func(ctx context.Context, session *client.Session) error {
			if err := asking.must(ctx, owner.Deed{Kind: owner.PowerOff}.Change()); err != nil {
				return err
			}
			if _, err := session.Machine.PowerOff(ctx, &basev1.PowerOffRequest{}); err != nil {
				return err
			}
			if p.json {
				return p.printJSON(map[string]any{"off": true})
			}
			return p.printf("The Base is switching itself off. Only somebody at the Base can switch it on again.\n")
		})
	}
	return command
}

// debianUpdates makes the Base install Debian's updates, and shows the progress.
func (p *program) debianUpdates(ctx context.Context, session *client.Session) error {
	err := session.InstallDebianUpdates(ctx, func(line string) error {
		if p.json {
			return p.printMessage(&basev1.InstallDebianUpdatesResponse{Progress: line})
		}
		return p.printf("  ... %s\n", client.Printable(line))
	})
	if err != nil {
		return err
	}
	status, err := session.UpdateStatus(ctx)
	if err != nil {
		return fmt.Errorf("the updates are installed, but the App could not ask which ones remain: %w", err)
	}
	if p.json {
		return p.printMessage(&basev1.InstallDebianUpdatesResponse{Done: true})
	}
	switch waiting := len(status.GetDebianWaiting()); {
	case status.GetDebianUnknown() != "":
		return p.printf("Done. Which updates remain is unknown: %s.\n", client.Printable(status.GetDebianUnknown()))
	case waiting > 0:
		return p.printf("Done. Debian security updates still pending: %d.\n", waiting)
	}
	return p.printf("Done. No Debian security updates are pending.\n")
}
