package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/client"
	"github.com/BitBoxSwiss/bitbox-base/internal/version"
)

// printMessage prints a message of the API as JSON on one line, with every field.
func (p *program) printMessage(message proto.Message) error {
	text, err := protojson.MarshalOptions{EmitUnpopulated: true}.Marshal(message)
	if err != nil {
		return fmt.Errorf("print JSON: %w", err)
	}
	// The package varies its spaces on purpose.
	var line bytes.Buffer
	if err := json.Compact(&line, text); err != nil {
		return fmt.Errorf("print JSON: %w", err)
	}
	_, err = fmt.Fprintf(p.out, "%s\n", line.Bytes())
	return err
}

func (p *program) statusCommand() *cobra.Command {
	var measured bool
	command := &cobra.Command{
		Use:   "status",
		Short: "Show what the Base is and how it does",
		Long: `status shows what the Base is and how it does. Beside load, memory, disk and temperature it
draws their last hour; of memory and disk, what is in use. With --history it prints what
was measured.`,
		Example: `  bitbox-app status
  bitbox-app status --history --json
  bitbox-app status --base home --json`,
		Args: cobra.NoArgs,
	}
	command.Flags().BoolVar(&measured, "history", false, "print what was measured in the last hour")
	command.RunE = func(c *cobra.Command, _ []string) error {
		return p.call(c.Context(), callTime, func(ctx context.Context, session *client.Session) error {
			if measured {
				history, err := session.Machine.GetHistory(ctx, &basev1.GetHistoryRequest{})
				if err != nil {
					return err
				}
				return p.printHistory(history)
			}
			info, err := session.Info.GetInfo(ctx, &basev1.GetInfoRequest{})
			if err != nil {
				return err
			}
			if p.json {
				return p.printMessage(info)
			}
			// A Base of before has none; the rest is still worth having.
			history, err := session.Machine.GetHistory(ctx, &basev1.GetHistoryRequest{})
			if err != nil && ctx.Err() != nil {
				return err
			}
			return p.printInfo(info, drawHistory(history.GetSamples(), sparkSteps()))
		})
	}
	return command
}

func (p *program) printInfo(info *basev1.GetInfoResponse, history histories) error {
	table := p.table()
	row := func(name, format string, args ...any) { table.row(name, fmt.Sprintf(format, args...)) }
	drawn := func(name, line, format string, args ...any) { table.row(name, fmt.Sprintf(format, args...), line) }
	row("Name", "%s", info.GetName())
	row("This App", "%s (%s)", info.GetCaller().GetName(), roleName(info.GetCaller().GetRole()))
	row("Public key", "%x", info.GetPublicKey())
	row("Software", "%s, protocol %d", info.GetSoftwareVersion(), info.GetProtocolVersion())
	row("Up", "%s (its daemon %s)", duration(info.GetMachineUptimeSeconds()), duration(info.GetDaemonUptimeSeconds()))
	if info.GetTimeZone() != "" {
		row("Time", "%s (%s)", when(info.GetTime().AsTime(), time.Now()), info.GetTimeZone())
	}
	if len(info.GetAddresses()) > 0 {
		row("Addresses", "%s", strings.Join(info.GetAddresses(), ", "))
	}
	if err := table.print(); err != nil {
		return err
	}
	// In a table of their own, so that what is drawn stands close by.
	table = p.table()
	var load []string
	for _, l := range info.GetLoadAverage() {
		load = append(load, fmt.Sprintf("%.2f", l))
	}
	drawn("Load      ", history.load, "%s", strings.Join(load, " "))
	drawn("Memory", history.memory, "%s of %s available", size(info.GetMemoryAvailableBytes()), size(info.GetMemoryTotalBytes()))
	drawn("Disk", history.disk, "%s of %s available", size(info.GetDiskAvailableBytes()), size(info.GetDiskTotalBytes()))
	if info.TemperatureCelsius != nil {
		drawn("Temperature", history.temperature, "%.0f °C", info.GetTemperatureCelsius())
	}
	return table.print()
}

func (p *program) printHistory(history *basev1.GetHistoryResponse) error {
	if p.json {
		return p.printMessage(history)
	}
	table := p.table("TIME", "LOAD", "MEMORY FREE", "DISK FREE", "TEMPERATURE")
	for _, s := range history.GetSamples() {
		celsius := ""
		if s.TemperatureCelsius != nil {
			celsius = fmt.Sprintf("%.0f °C", s.GetTemperatureCelsius())
		}
		table.row(s.GetTime().AsTime().Local().Format(time.TimeOnly), fmt.Sprintf("%.2f", s.GetLoad()), size(s.GetMemoryAvailableBytes()), size(s.GetDiskAvailableBytes()), celsius)
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
