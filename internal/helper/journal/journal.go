// Package journal reads what services have logged: it makes a question of a request, asks
// journalctl(1) for units of the table of services, and makes harmless entries of what that
// prints. No text of a request reaches journalctl.
package journal

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/harmless"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/services"
	"github.com/BitBoxSwiss/bitbox-base/internal/helperclient"
	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
)

// Bounds of reading logs.
const (
	// MaxReaders is how many callers read logs at once: each needs a process, and a connection to
	// the helper.
	MaxReaders = 12
	// DefaultLines and MaxLines are how many past entries are returned.
	DefaultLines = 100
	MaxLines     = 10_000
	// MaxBytes bounds the total size of their texts; the oldest entries beyond it are left out.
	MaxBytes = 4 << 20
	// MaxContains is the longest text to search for, in bytes.
	MaxContains = 200
	// batchEntries and batchBytes bound what one reply contains.
	batchEntries = 200
	batchBytes   = 128 << 10
	// searchTime is how long to search the past.
	searchTime = 30 * time.Second
	maxYear    = 9999
)

// Query is a checked request (Check).
type Query struct {
	table    services.Table
	contains string // in lower case
	lines    int
	follow   bool
	// arguments are those of journalctl for this query; since is separate, because it cannot be
	// combined with a cursor.
	arguments []string
	since     []string
}

// Check parses a request, or says what is wrong with it. Services become units of the table;
// times and numbers are formatted again. No text of the request reaches journalctl.
func Check(table services.Table, request *basev1.ReadLogsRequest) (Query, error) {
	if request == nil { // on the wire, one that is left out is an empty one
		request = &basev1.ReadLogsRequest{}
	}
	q := Query{table: table, contains: strings.ToLower(request.GetContains()), lines: int(request.GetLines()), follow: request.GetFollow()}
	switch {
	case len(request.GetContains()) > MaxContains:
		return q, helperclient.Errorf(helperclient.CodeInvalid, "the text to look for has %d bytes; at most %d fit", len(request.GetContains()),
			MaxContains)
	case request.GetLines() > MaxLines:
		return q, helperclient.Errorf(helperclient.CodeInvalid, "at most %d lines can be asked for, not %d; narrow it by a time", MaxLines,
			request.GetLines())
	case request.Priority != nil && request.GetPriority() > 7:
		return q, helperclient.Errorf(helperclient.CodeInvalid, "a priority is 0 (emerg) to 7 (debug), not %d", request.GetPriority())
	case q.follow && request.GetUntil() != nil:
		return q, helperclient.Errorf(helperclient.CodeInvalid, "following has no end, so it cannot be combined with an end time")
	case len(request.GetServices()) > len(table):
		return q, helperclient.Errorf(helperclient.CodeInvalid, "%d services are named, and there are %d", len(request.GetServices()), len(table))
	}
	if q.lines == 0 {
		q.lines = DefaultLines
	}
	wanted := request.GetServices()
	if len(wanted) == 0 {
		wanted = table.Names()
	}
	for _, name := range wanted {
		s, found := table.Find(name)
		if !found {
			return q, helperclient.Errorf(helperclient.CodeInvalid, "there is no service %q here; it is one of %s", harmless.Word(name),
				strings.Join(table.Names(), ", "))
		}
		q.arguments = append(q.arguments, "--unit="+s.Unit)
	}
	if request.Priority != nil {
		q.arguments = append(q.arguments, "--priority="+strconv.Itoa(int(request.GetPriority())))
	}
	for option, at := range map[string]*timestamppb.Timestamp{"--since": request.GetSince(), "--until": request.GetUntil()} {
		if at == nil {
			continue
		}
		if at.CheckValid() != nil || at.GetSeconds() < 0 || at.AsTime().Year() > maxYear {
			return q, helperclient.Errorf(helperclient.CodeInvalid, "the time of %s is out of range", option[2:])
		}
		argument := fmt.Sprintf("%s=@%d.%06d", option, at.GetSeconds(), at.GetNanos()/1000)
		if option == "--since" {
			q.since = []string{argument}
		} else {
			q.arguments = append(q.arguments, argument)
		}
	}
	return q, nil
}

// format makes journalctl print what record reads. Without --all, it leaves out texts longer than
// some 4 KiB (maxText); with it, a text of up to 768 MiB would take many times its size in
// memory. --merge, because otherwise following is limited to this boot, and in a container the
// helper's sandbox cannot tell which boot that is.
var format = []string{
	"--quiet", "--no-pager", "--merge", "--output=json",
	"--output-fields=MESSAGE,PRIORITY,_SYSTEMD_UNIT,UNIT,OBJECT_SYSTEMD_UNIT,_PID",
}

// noText replaces a text that was left out.
const noText = "(an entry that is too long to be shown, or without a text)"

// entry reads a line of journalctl; nil line: it was too long.
func (q Query) entry(line []byte) (*basev1.LogEntry, record, error) {
	if line == nil {
		return &basev1.LogEntry{Priority: 6, Text: noText}, record{}, nil
	}
	r, err := parseRecord(line)
	if err != nil {
		return nil, r, helperclient.Errorf(helperclient.CodeInternal, "read the journal: %w", err)
	}
	e := &basev1.LogEntry{Time: timestamppb.New(time.UnixMicro(r.Microtime)), Priority: r.priority(), Text: noText}
	if r.Message != nil {
		e.Text = harmless.Cut(harmless.Line(strings.ToValidUTF8(ownTime.ReplaceAllString(string(*r.Message), ""), "?")), maxText)
	}
	// The unit's own messages, systemd's about it, or those of root's programs.
	for _, unit := range []field{r.Unit, r.Of, r.Object} {
		if s, known := q.table.OfUnit(string(unit)); known {
			e.Service = s.Name
			break
		}
	}
	return e, r, nil
}

func (q Query) fits(e *basev1.LogEntry) bool {
	return q.contains == "" || strings.Contains(strings.ToLower(e.GetText()), q.contains)
}

// Readers counts the readers of logs. The zero Readers has none.
type Readers struct {
	mu sync.Mutex
	// all counts all readers, and forApps those of the Middleware for Apps.
	all, forApps int
}

// Take takes a place for a reader; give must follow. Apps leave some of the places (MaxReaders)
// to root.
func (r *Readers) Take(forApp bool) (give func(), err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	mine := 0
	if forApp {
		mine = 1
	}
	if r.all >= MaxReaders || r.forApps+mine > helperclient.MaxMiddlewareReaders {
		return nil, helperclient.Errorf(helperclient.CodeBusy, "too many logs are being read; end one of those commands")
	}
	r.all++
	r.forApps += mine
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.all--
		r.forApps -= mine
	}, nil
}

// Source is the journal.
type Source interface {
	// Journal runs journalctl(1), and gives each line of its output to receive; more tells that
	// another line is on its way. A line that is too long is given as nil. Journal returns when
	// journalctl has ended: at the latest with ctx, or with an error of receive.
	Journal(ctx context.Context, receive func(line []byte, more bool) error, arguments ...string) error
}

// Read sends past entries and then, if requested, new ones. It returns when everything was sent,
// and at the latest with ctx or with an error of send.
func (q Query) Read(ctx context.Context, source Source, send func(*systemv1.LogsResult) error) error {
	out := &sender{send: send}
	past, after, err := q.past(ctx, source)
	for _, e := range past {
		if err := out.add(e); err != nil {
			return err
		}
	}
	if err := errors.Join(out.flush(), err); err != nil || !q.follow {
		return err
	}
	if err := out.live(); err != nil {
		return err
	}
	// It continues from the very entry that the past ended with, so that nothing in between is
	// lost.
	arguments := slices.Concat(format, []string{"--follow", "--no-tail"}, q.arguments, after)
	err = source.Journal(ctx, func(line []byte, more bool) error {
		e, _, err := q.entry(line)
		if err == nil && q.fits(e) {
			err = out.add(e)
		}
		if err == nil && !more {
			err = out.flush()
		}
		return err
	}, arguments...)
	if err == nil {
		err = helperclient.Errorf(helperclient.CodeInternal, "journalctl ended unexpectedly")
	}
	return err
}

// Follow gives receive the text of each entry of a unit since a time, until ctx ends or receive
// returns an error. It never returns nil.
func Follow(ctx context.Context, source Source, unit string, since time.Time, receive func(text string) error) error {
	arguments := slices.Concat(format, []string{"--follow", "--no-tail", "--unit=" + unit, sinceArgument(since)})
	err := source.Journal(ctx, func(line []byte, _ bool) error {
		e, _, err := Query{}.entry(line)
		if err != nil {
			return err
		}
		return receive(e.GetText())
	}, arguments...)
	return asReadError(errors.Join(err, reason.New("it has ended")))
}

// errEnough ends a search.
var errEnough = reason.New("enough")

// past returns the last lines that fit, the oldest first, and the argument of journalctl for the
// entries after the newest one, whether that fits or not. It reads backwards, so that it reads no
// more than necessary.
func (q Query) past(ctx context.Context, source Source) (past []*basev1.LogEntry, after []string, err error) {
	arguments := slices.Concat(format, []string{"--reverse"}, q.arguments, q.since)
	if q.contains == "" {
		arguments = append(arguments, "--lines="+strconv.Itoa(q.lines))
	}
	began, after, first := time.Now(), q.since, true
	searching, cancel := context.WithTimeout(ctx, searchTime)
	defer cancel()
	size := 0
	err = source.Journal(searching, func(line []byte, _ bool) error {
		e, r, err := q.entry(line)
		if err != nil {
			return err
		}
		switch {
		case first && r.Cursor != "":
			after = []string{"--after-cursor=" + string(r.Cursor)}
		case first: // a line that was too long has no cursor; repeating a few entries is acceptable
			after = []string{sinceArgument(began)}
		}
		first = false
		if !q.fits(e) {
			return nil
		}
		if size += len(e.GetText()); size > MaxBytes {
			return errEnough
		}
		if past = append(past, e); len(past) >= q.lines {
			return errEnough
		}
		return nil
	}, arguments...)
	slices.Reverse(past)
	switch {
	case err == nil || errors.Is(err, errEnough):
		return past, after, nil
	case ctx.Err() != nil:
		return nil, nil, ctx.Err()
	case searching.Err() != nil:
		return past, after, helperclient.Errorf(helperclient.CodeInternal,
			"only the newest part of the log could be searched within %v; narrow it by a service or a time", searchTime)
	}
	return past, after, asReadError(err)
}

func asReadError(err error) error {
	var known *helperclient.Error
	if errors.As(err, &known) {
		return err
	}
	return helperclient.Errorf(helperclient.CodeInternal, "read the journal: %w", err)
}

// sender sends entries in batches.
type sender struct {
	send  func(*systemv1.LogsResult) error
	batch []*basev1.LogEntry
	size  int
}

func (s *sender) add(e *basev1.LogEntry) error {
	s.batch = append(s.batch, e)
	if s.size += len(e.GetText()); len(s.batch) >= batchEntries || s.size >= batchBytes {
		return s.flush()
	}
	return nil
}

func (s *sender) flush() error {
	if len(s.batch) == 0 {
		return nil
	}
	batch := s.batch
	s.batch, s.size = nil, 0
	return s.send(&systemv1.LogsResult{Entries: batch})
}

// live tells that the following entries are new.
func (s *sender) live() error { return s.send(&systemv1.LogsResult{Live: true}) }

// sinceArgument formats a time for journalctl.
func sinceArgument(at time.Time) string {
	return fmt.Sprintf("--since=@%d.%06d", at.Unix(), at.Nanosecond()/1000)
}
