package main

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/client"
	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/owner"
	"github.com/BitBoxSwiss/bitbox-base/internal/commandline"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/changelog"
)

// logLines is how many entries are shown by default.
const logLines = 30

func (p *program) logCommand() *cobra.Command {
	var since string
	var lines int
	command := &cobra.Command{
		Use:   "log",
		Short: "Show who changed what on the Base, when, and with what result",
		Long: `log shows the Base's log of changes, which the Base keeps as a hash chain and signs. Each
time, the App verifies that nothing in it was altered, and that all that it has seen before
is still there.

Owners are identified by their signature. For other Apps there is only the word of the part
of the Base that faces the network; their names are in quotation marks with a question
mark. With --json it prints one object (docs/app/log.md).`,
		Example: `  bitbox-app log
  bitbox-app log --since 1d
  bitbox-app log --since 2026-11-26 --all
  bitbox-app log --lines 0 --json
  bitbox-app log verify`,
		Args:        commandline.Args(0, 0),
		Annotations: onSeveral,
		RunE: func(c *cobra.Command, _ []string) error {
			if lines < 0 {
				return usageError{errors.New("--lines must be a number, or 0 for all")}
			}
			from, err := sinceTime(since)
			if err != nil {
				return err
			}
			if c.Flags().Changed("since") && !c.Flags().Changed("lines") {
				lines = 0
			}
			return ask(p, c, changesTime, query[changes]{
				ask: func(ctx context.Context, session *client.Session) (changes, error) {
					view, err := session.Changes(ctx)
					return changesOf(view, from, lines), err
				},
				json:    func(seen changes) any { return loggedOf(seen) },
				show:    p.printChanges,
				columns: changeColumns,
				rows:    changeRows,
				empty:   noChange,
			})
		},
	}
	command.Flags().StringVar(&since, "since", "", sinceUsage)
	command.Flags().IntVar(&lines, "lines", logLines, "show the last N entries; 0 shows all")
	_ = command.RegisterFlagCompletionFunc("since", cobra.NoFileCompletions)
	_ = command.RegisterFlagCompletionFunc("lines", cobra.NoFileCompletions)
	command.AddCommand(p.logVerifyCommand())
	return command
}

// changesTime is how long it may take to read a full log over a slow network.
const changesTime = 2 * time.Minute

// changes are the entries to show, of a log that was verified whole.
type changes struct {
	view    *client.ChangeLog
	entries []*systemv1.ChangeEntry
	hashes  []changelog.Hash
}

// changesOf chooses the newest entries, from a time on; 0 lines means all.
func changesOf(view *client.ChangeLog, from time.Time, lines int) changes {
	if view == nil {
		return changes{}
	}
	entries, hashes := view.Entries, view.Hashes
	for !from.IsZero() && len(entries) > 0 && entries[0].GetTime() < from.Unix() {
		entries, hashes = entries[1:], hashes[1:]
	}
	if cut := len(entries) - lines; lines > 0 && cut > 0 {
		entries, hashes = entries[cut:], hashes[cut:]
	}
	return changes{view, entries, hashes}
}

// noChange is the row for an empty log.
const noChange = "No changes."

var changeColumns = []string{"WHEN", "WHO", "WHAT", "RESULT", "DETAIL"}

func changeRows(seen changes) (rows [][]string) {
	for _, e := range seen.entries {
		result, detail := "done", e.GetDetail()
		if failure := e.GetFailure(); failure != "" {
			result = "not done"
			detail = strings.TrimPrefix(detail+" ("+failure+")", " ")
		}
		rows = append(rows, []string{time.Unix(e.GetTime(), 0).Local().Format(time.DateTime), whoText(e), e.GetWhat(), result, detail})
	}
	return rows
}

func (p *program) printChanges(seen changes) error {
	if len(seen.entries) == 0 {
		return p.printf("%s\n", noChange)
	}
	table := p.table(changeColumns...)
	for _, cells := range changeRows(seen) {
		table.row(cells...)
	}
	if err := table.print(); err != nil {
		return err
	}
	if seen.view.Missed {
		return p.printf("The Base has discarded entries that this App has not seen; it keeps the last 10,000.\n")
	}
	return nil
}

func loggedOf(seen changes) loggedJSON {
	log := loggedJSON{Entries: []entryJSON{}, Last: seen.view.Last, LastHash: seen.view.LastHash.String(), Forgotten: seen.view.Forgotten}
	for n, e := range seen.entries {
		log.Entries = append(log.Entries, entryOf(e, seen.hashes[n].String()))
	}
	return log
}

// loggedJSON and entryJSON are the output of --json. Their fields keep their meaning.
type loggedJSON struct {
	Entries   []entryJSON `json:"entries"`
	Last      uint64      `json:"last"`
	LastHash  string      `json:"lastHash"`
	Forgotten uint64      `json:"forgotten"`
}

type entryJSON struct {
	Number     uint64    `json:"number"`
	Time       time.Time `json:"time"`
	Actor      string    `json:"actor"`
	AppID      string    `json:"appId,omitempty"`
	AppName    string    `json:"appName,omitempty"`
	SigningKey string    `json:"signingKey,omitempty"`
	What       string    `json:"what"`
	Detail     string    `json:"detail,omitempty"`
	Done       bool      `json:"done"`
	Failure    string    `json:"failure,omitempty"`
	Hash       string    `json:"hash"`
}

func entryOf(e *systemv1.ChangeEntry, hash string) entryJSON {
	return entryJSON{
		Number: e.GetNumber(), Time: time.Unix(e.GetTime(), 0).UTC(), Actor: strings.ToLower(strings.TrimPrefix(e.GetActor().String(), "ACTOR_")),
		AppID: e.GetAppId(), AppName: e.GetAppName(), SigningKey: hex.EncodeToString(e.GetSigningKey()),
		What: e.GetWhat(), Detail: e.GetDetail(), Done: e.GetFailure() == "", Failure: e.GetFailure(), Hash: hash,
	}
}

// whoText is who did it, marked if that is only the Middleware's word.
func whoText(e *systemv1.ChangeEntry) string {
	name := owner.AppOf(e)
	switch e.GetActor() {
	case systemv1.ChangeEntry_ACTOR_OWNER:
		return name
	case systemv1.ChangeEntry_ACTOR_APP:
		if name == "" {
			return "an App?"
		}
		return fmt.Sprintf("%q?", name)
	case systemv1.ChangeEntry_ACTOR_CONSOLE:
		return "the console"
	case systemv1.ChangeEntry_ACTOR_ROOT:
		return "root"
	case systemv1.ChangeEntry_ACTOR_BASE:
		return "the Base"
	}
	return "?"
}

func (p *program) logVerifyCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "verify",
		Short: "Verify that the log of changes was not altered",
		Long: `verify reads the whole log of changes and checks each entry, the hash chain, the Base's
signature, and that all that this App has seen before is still in it. If something does not
match, the exit code says so (bitbox-app help exit-codes).`,
		Example: `  bitbox-app log verify
  bitbox-app log verify --all`,
		Args:        commandline.Args(0, 0),
		Annotations: onSeveral,
		RunE: func(c *cobra.Command, _ []string) error {
			return ask(p, c, changesTime, query[*client.ChangeLog]{
				ask: func(ctx context.Context, session *client.Session) (*client.ChangeLog, error) {
					return session.Changes(ctx)
				},
				json: func(view *client.ChangeLog) any {
					return map[string]any{
						"verified": true, "entries": len(view.Entries), "last": view.Last, "lastHash": view.LastHash.String(), "forgotten": view.Forgotten}
				},
				show: func(view *client.ChangeLog) error {
					if view.Last == 0 {
						return p.printf("The log of changes has no entries yet.\n")
					}
					return p.printf("The log of changes is intact: %d entries, the last is number %d with the hash %s.\n", len(view.Entries), view.Last,
						view.LastHash)
				},
				columns: []string{"LOG", "ENTRIES", "LAST", "HASH"},
				rows: func(view *client.ChangeLog) [][]string {
					return [][]string{{"intact", strconv.Itoa(len(view.Entries)), strconv.FormatUint(view.Last, 10), view.LastHash.String()}}
				},
				table: func(t *table) { t.whole("HASH") },
			})
		},
	}
}
