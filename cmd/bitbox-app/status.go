package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/client"
	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/curves"
	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/words"
	"github.com/BitBoxSwiss/bitbox-base/internal/app/terminal"
	"github.com/BitBoxSwiss/bitbox-base/internal/commandline"
	"github.com/BitBoxSwiss/bitbox-base/internal/version"
)

// printMessage prints a message of the API as JSON on one line, with every field.
func (p *program) printMessage(message proto.Message) error {
	return p.printJSON(message)
}

func (p *program) statusCommand() *cobra.Command {
	var measured bool
	command := &cobra.Command{
		Use:   "status",
		Short: "Show what the Base is and how it is doing",
		Long: `status shows the Base's name, version, addresses and health. Beside load, memory, disk and
temperature it draws a curve of the last hour; for memory and disk, of the part in use.
With --history it prints the measurements.`,
		Example: `  bitbox-app status
  bitbox-app status --all
  bitbox-app status --history --json
  bitbox-app status --base home --json`,
		Args:        commandline.Args(0, 0),
		Annotations: onSeveral,
	}
	command.Flags().BoolVar(&measured, "history", false, "print the measurements of the last hour")
	command.RunE = func(c *cobra.Command, _ []string) error {
		if measured {
			return ask(p, c, callTime, measuredQuery(p))
		}
		return ask(p, c, callTime, query[statusAnswer]{
			ask:  p.askStatus,
			json: func(a statusAnswer) any { return a.info },
			show: func(a statusAnswer) error {
				return p.printInfo(a, curves.Draw(a.history.GetSamples(), curveWidth, terminal.UTF8(runtime.GOOS, os.Getenv)))
			},
			columns: []string{"VERSION", "UP", "LOAD", "MEMORY", "DISK", "ROLE"},
			rows:    func(a statusAnswer) [][]string { return infoRow(a.info) },
			table:   func(t *table) { t.styled("MEMORY", freeStyle).styled("DISK", freeStyle) },
		})
	}
	return command
}

// statusAnswer is a Base's answer about itself. history and node are empty if the Base does not
// tell them.
type statusAnswer struct {
	info    *basev1.GetInfoResponse
	history *basev1.GetHistoryResponse
	node    *basev1.GetNodeResponse
	// software is what the Base runs, as its helper has signed it; empty if it is no image.
	software [][2]string
	// reach says where the posture lets the node go.
	reach string
	// open is what stays open for good, in words.
	open []string
}

func (p *program) askStatus(ctx context.Context, session *client.Session) (a statusAnswer, err error) {
	if a.info, err = session.Info.GetInfo(ctx, &basev1.GetInfoRequest{}); err != nil {
		return a, err
	}
	// Older Bases have none; the rest is still worth showing.
	if view, err := session.Posture(ctx); err == nil {
		if a.software, err = p.softwareRows(view.Identities().Image); err != nil {
			return a, err
		}
		a.reach = words.English.NodeReach(view)
		for _, end := range view.Effective().Endpoints {
			if end.UntilClosed {
				a.open = append(a.open, words.English.OpenForGood(end))
			}
		}
	} else if errors.Is(err, client.ErrLyingBase) {
		return a, err
	}
	if a.history, err = session.Machine.GetHistory(ctx, &basev1.GetHistoryRequest{}); err != nil && ctx.Err() != nil {
		return a, err
	}
	if a.node, err = session.Node.GetNode(ctx, &basev1.GetNodeRequest{}); err != nil && ctx.Err() != nil {
		return a, err
	}
	return a, nil
}

// infoRow is a Base in one line.
func infoRow(info *basev1.GetInfoResponse) [][]string {
	load := ""
	if all := info.GetLoadAverage(); len(all) > 0 {
		load = fmt.Sprintf("%.2f", all[0])
	}
	return [][]string{{
		info.GetSoftwareVersion(), duration(info.GetMachineUptimeSeconds()), load,
		freePart(info.GetMemoryAvailableBytes(), info.GetMemoryTotalBytes()),
		freePart(info.GetDiskAvailableBytes(), info.GetDiskTotalBytes()),
		roleName(info.GetCaller().GetRole()),
	}}
}

// freeStyle makes a resource that is running out stand out.
func freeStyle(cell string) terminal.Style {
	var percent int
	if _, err := fmt.Sscanf(cell, "%d %% free", &percent); err != nil || percent >= 10 {
		return terminal.Plain
	}
	return terminal.Red
}

// freePart is the free part of something.
func freePart(available, total uint64) string {
	if total == 0 {
		return "unknown"
	}
	return fmt.Sprintf("%d %% free", available*100/total)
}

// curveWidth is how many columns a curve takes at most.
const curveWidth = 30

func (p *program) printInfo(a statusAnswer, drawn curves.Curves) error {
	info, table := a.info, p.table()
	row := func(name, format string, args ...any) { table.row(name, fmt.Sprintf(format, args...)) }
	row("Name", "%s", info.GetName())
	row("This App", "%s (%s)", info.GetCaller().GetName(), roleName(info.GetCaller().GetRole()))
	row("Public key", "%s", info.GetPublicKey())
	row("Software", "%s, protocol %d", info.GetSoftwareVersion(), info.GetProtocolVersion())
	for _, one := range a.software {
		row(one[0], "%s", one[1])
	}
	row("Up", "%s (software: %s)", duration(info.GetMachineUptimeSeconds()), duration(info.GetDaemonUptimeSeconds()))
	if info.GetTimeZone() != "" {
		// Like every time that the App shows, in this computer's time zone.
		row("Time", "%s", when(info.GetTime().AsTime(), time.Now()))
		row("Time zone", "%s", info.GetTimeZone())
	}
	if a.node.GetNode() != nil {
		row("Node", "%s", words.English.Node(a.node.GetNode()))
		if words.HasNode(a.node.GetNode()) && a.reach != "" {
			row("Internet", "%s", a.reach)
		}
	}
	for _, text := range a.open {
		row("Open", "%s", text)
	}
	for _, trouble := range info.GetDiskTroubles() {
		row("Disk", "%s", trouble)
	}
	if len(info.GetAddresses()) > 0 {
		row("Addresses", "%s", strings.Join(info.GetAddresses(), ", "))
	}
	if err := table.print(); err != nil {
		return err
	}
	// In a table of their own, to keep the curves close to their values.
	table = p.table()
	var load []string
	for _, l := range info.GetLoadAverage() {
		load = append(load, fmt.Sprintf("%.2f", l))
	}
	table.row("Load      ", strings.Join(load, " "), drawn.Load)
	table.row("Memory", words.English.Free(info.GetMemoryAvailableBytes(), info.GetMemoryTotalBytes()), drawn.Memory)
	table.row("Disk", words.English.Free(info.GetDiskAvailableBytes(), info.GetDiskTotalBytes()), drawn.Disk)
	if info.TemperatureCelsius != nil {
		table.row("Temperature", fmt.Sprintf("%.0f °C", info.GetTemperatureCelsius()), drawn.Temperature)
	}
	return table.print()
}

// measuredQuery asks for the measurements.
func measuredQuery(p *program) query[*basev1.GetHistoryResponse] {
	return tableOf(p, query[*basev1.GetHistoryResponse]{
		ask: func(ctx context.Context, session *client.Session) (*basev1.GetHistoryResponse, error) {
			return session.Machine.GetHistory(ctx, &basev1.GetHistoryRequest{})
		},
		columns: []string{"TIME", "LOAD", "MEMORY FREE", "DISK FREE", "TEMPERATURE"},
		rows: func(history *basev1.GetHistoryResponse) (rows [][]string) {
			for _, s := range history.GetSamples() {
				celsius := ""
				if s.TemperatureCelsius != nil {
					celsius = fmt.Sprintf("%.0f °C", s.GetTemperatureCelsius())
				}
				rows = append(rows, []string{s.GetTime().AsTime().Local().Format(time.TimeOnly), fmt.Sprintf("%.2f", s.GetLoad()),
					size(s.GetMemoryAvailableBytes()), size(s.GetDiskAvailableBytes()), celsius})
			}
			return rows
		},
		empty: "nothing has been measured yet",
	})
}

func (p *program) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "version",
		Short:   "Show the version of this App",
		Example: `  bitbox-app version --json`,
		Args:    commandline.Args(0, 0),
		RunE: func(*cobra.Command, []string) error {
			if p.json {
				return p.printJSON(map[string]any{"softwareVersion": version.Software, "protocolVersion": client.ProtocolVersion})
			}
			return p.printf("bitbox-app %s, protocol %d\n", version.Software, client.ProtocolVersion)
		},
	}
}
