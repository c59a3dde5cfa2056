package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/client"
	"github.com/BitBoxSwiss/bitbox-base/internal/terminal"
	"github.com/BitBoxSwiss/bitbox-base/internal/version"
)

// printMessage prints a message of the API as JSON on one line, with every field.
func (p *program) printMessage(message proto.Message) error {
	return p.printJSON(message)
}

func (p *program) statusCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Show what the Base is and how it does",
		Example: `  bitbox-app status
  bitbox-app status --base home --json
  bitbox-app status --all`,
		Args:        cobra.NoArgs,
		Annotations: onSeveral,
		RunE: func(c *cobra.Command, _ []string) error {
			return ask(p, c, callTime, query[*basev1.GetInfoResponse]{
				ask: func(ctx context.Context, session *client.Session) (*basev1.GetInfoResponse, error) {
					return session.Info.GetInfo(ctx, &basev1.GetInfoRequest{})
				},
				show:    p.printInfo,
				columns: []string{"VERSION", "UP", "LOAD", "MEMORY", "DISK", "ROLE"},
				rows:    infoRow,
				table:   func(t *table) { t.styled("MEMORY", freeStyle).styled("DISK", freeStyle) },
			})
		},
	}
}

// infoRow is a Base in one line.
func infoRow(info *basev1.GetInfoResponse) [][]string {
	load := ""
	if all := info.GetLoadAverage(); len(all) > 0 {
		load = fmt.Sprintf("%.2f", all[0])
	}
	return [][]string{{
		info.GetSoftwareVersion(), duration(info.GetMachineUptimeSeconds()), load,
		free(info.GetMemoryAvailableBytes(), info.GetMemoryTotalBytes()),
		free(info.GetDiskAvailableBytes(), info.GetDiskTotalBytes()),
		roleName(info.GetCaller().GetRole()),
	}}
}

// freeStyle has what is running out stand out.
func freeStyle(cell string) terminal.Style {
	var percent int
	if _, err := fmt.Sscanf(cell, "%d %% free", &percent); err != nil || percent >= 10 {
		return terminal.Plain
	}
	return terminal.Red
}

// free is how much of something is free.
func free(available, total uint64) string {
	if total == 0 {
		return "unknown"
	}
	return fmt.Sprintf("%d %% free", available*100/total)
}

func (p *program) printInfo(info *basev1.GetInfoResponse) error {
	table := p.table()
	row := func(name, format string, args ...any) { table.row(name, fmt.Sprintf(format, args...)) }
	row("Name", "%s", info.GetName())
	row("This App", "%s (%s)", info.GetCaller().GetName(), roleName(info.GetCaller().GetRole()))
	row("Public key", "%x", info.GetPublicKey())
	row("Software", "%s, protocol %d", info.GetSoftwareVersion(), info.GetProtocolVersion())
	row("Up", "%s (its daemon %s)", duration(info.GetMachineUptimeSeconds()), duration(info.GetDaemonUptimeSeconds()))
	var load []string
	for _, l := range info.GetLoadAverage() {
		load = append(load, fmt.Sprintf("%.2f", l))
	}
	row("Load", "%s", strings.Join(load, " "))
	row("Memory", "%s of %s available", size(info.GetMemoryAvailableBytes()), size(info.GetMemoryTotalBytes()))
	row("Disk", "%s of %s available", size(info.GetDiskAvailableBytes()), size(info.GetDiskTotalBytes()))
	if len(info.GetAddresses()) > 0 {
		row("Addresses", "%s", strings.Join(info.GetAddresses(), ", "))
	}
	if info.TemperatureCelsius != nil {
		row("Temperature", "%.0f °C", info.GetTemperatureCelsius())
	}
	return table.print()
}

func (p *program) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "version",
		Short:   "Show the version of this App",
		Example: `  bitbox-app version --json`,
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			if p.json {
				return p.printJSON(map[string]any{"softwareVersion": version.Software, "protocolVersion": client.ProtocolVersion})
			}
			return p.printf("bitbox-app %s, protocol %d\n", version.Software, client.ProtocolVersion)
		},
	}
}
