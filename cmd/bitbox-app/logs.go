package main

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/timestamppb"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/client"
	"github.com/BitBoxSwiss/bitbox-base/internal/timespan"
)

// logsTime is how long the Base may search its log.
const logsTime = time.Minute

// priorities are those of syslog(3), the most severe first.
var priorities = []string{"emerg", "alert", "crit", "err", "warning", "notice", "info", "debug"}

func (p *program) logsCommand() *cobra.Command {
	var (
		request                basev1.ReadLogsRequest
		since, until, priority string
	)
	command := &cobra.Command{
		Use:   "logs [SERVICE...]",
		Short: "Show the logs of services",
		Long: `logs shows the last lines that the named services have logged, or all services if none is
named. Times are how long ago (90m, 2h, 3d), a time of today (15:04), or a date with or
without a time (2026-11-26, "2026-11-26 15:04"), in this computer's time zone. With --json
it prints one entry per line.`,
		Example: `  bitbox-app logs
  bitbox-app logs nginx --follow
  bitbox-app logs --since 1h --priority warning
  bitbox-app logs middleware --contains refused --lines 20`,
		ValidArgsFunction: p.completeServices(basev1.ServiceAction_SERVICE_ACTION_UNSPECIFIED, false),
	}
	command.Annotations = onSeveral
	flags := command.Flags()
	flags.BoolVarP(&request.Follow, "follow", "f", false, "keep showing new lines until Ctrl-C")
	flags.StringVar(&since, "since", "", sinceUsage)
	flags.StringVar(&until, "until", "", "only lines up to this time")
	flags.StringVar(&request.Contains, "contains", "", "only lines that contain this text; case does not matter")
	flags.StringVar(&priority, "priority", "", "only lines of at least this severity: "+strings.Join(priorities, ", "))
	flags.Uint32VarP(&request.Lines, "lines", "n", 0, "show the last N lines, at most 10000 (default 100)")
	for _, name := range []string{"since", "until", "contains", "lines"} {
		_ = command.RegisterFlagCompletionFunc(name, cobra.NoFileCompletions)
	}
	_ = command.RegisterFlagCompletionFunc("priority", cobra.FixedCompletions(priorities, cobra.ShellCompDirectiveNoFileComp))
	command.RunE = func(c *cobra.Command, args []string) error {
		request.Services = args
		for _, at := range []struct {
			text string
			to   **timestamppb.Timestamp
		}{{since, &request.Since}, {until, &request.Until}} {
			if at.text == "" {
				continue
			}
			t, err := parseTime(at.text, time.Now())
			if err != nil {
				return usageError{err}
			}
			*at.to = timestamppb.New(t)
		}
		if priority != "" {
			number, err := parsePriority(priority)
			if err != nil {
				return usageError{err}
			}
			request.Priority = &number
		}
		usual := logsTime
		if request.GetFollow() {
			usual = 0
		}
		return p.stream(c, usual, func(p *program, ctx context.Context, session *client.Session) error {
			return p.logs(ctx, session, &request)
		})
	}
	return command
}

func (p *program) logs(ctx context.Context, session *client.Session, request *basev1.ReadLogsRequest) error {
	for entry, err := range session.ReadLogs(ctx, request) {
		if err == nil {
			err = p.printEntry(entry)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (p *program) printEntry(e *basev1.LogEntry) error {
	if p.json {
		return p.printMessage(e)
	}
	return p.printf("%s  %s: %s\n", e.GetTime().AsTime().Local().Format(time.DateTime), client.Printable(e.GetService()),
		client.Printable(e.GetText()))
}

// parsePriority reads a name or its number.
func parsePriority(text string) (uint32, error) {
	if i := slices.Index(priorities, strings.ToLower(text)); i >= 0 {
		return uint32(i), nil
	}
	if n, err := strconv.ParseUint(text, 10, 3); err == nil {
		return uint32(n), nil
	}
	return 0, fmt.Errorf("%q is not a priority; use one of %s, or 0 to 7", text, strings.Join(priorities, ", "))
}

// sinceUsage explains the flag --since.
const sinceUsage = "only from this time on, such as 1h, 3d, 15:04 or 2026-11-26"

// sinceTime reads the argument of --since; zero if there is none.
func sinceTime(text string) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	t, err := parseTime(text, time.Now())
	if err != nil {
		return time.Time{}, usageError{err}
	}
	return t, nil
}

// parseTime reads a time as people write it.
func parseTime(text string, now time.Time) (time.Time, error) {
	if ago, err := timespan.Parse(text); err == nil {
		return now.Add(-ago), nil
	}
	if t, err := time.Parse(time.RFC3339, text); err == nil {
		return t, nil
	}
	for _, layout := range []string{time.DateTime, "2006-01-02 15:04", time.DateOnly} {
		if t, err := time.ParseInLocation(layout, text, now.Location()); err == nil {
			return t, nil
		}
	}
	for _, layout := range []string{"15:04", time.TimeOnly} {
		if t, err := time.ParseInLocation(layout, text, now.Location()); err == nil {
			return time.Date(now.Year(), now.Month(), now.Day(), t.Hour(), t.Minute(), t.Second(), 0, now.Location()), nil
		}
	}
	return time.Time{}, fmt.Errorf("%q is not a time; write how long ago, such as 1h or 3d, or a time, such as 15:04 or \"2026-11-26 15:04\"",
		text)
}
