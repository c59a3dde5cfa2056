package systemdtest

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// TooLong marks an entry whose line is too long to be given.
const TooLong = "too long"

// Write writes an entry into the journal. fields replace those that each entry has.
func (s *Systemd) Write(unit string, fields map[string]any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := len(s.entries)
	entry := map[string]any{"_SYSTEMD_UNIT": unit, "PRIORITY": "6", "__CURSOR": strconv.Itoa(n),
		"__REALTIME_TIMESTAMP": strconv.FormatInt(s.now(n).UnixMicro(), 10)}
	maps.Copy(entry, fields)
	s.entries = append(s.entries, entry)
	close(s.logged)
	s.logged = make(chan struct{})
}

// query is what journalctl is asked.
type query struct {
	units           []string
	from, lines     int
	follow, reverse bool
	since, until    float64 // in seconds; 0: without a bound
	priority        int
}

func parseQuery(arguments []string) (q query, err error) {
	q.lines, q.priority = -1, 7
	for _, a := range arguments {
		key, value, _ := strings.Cut(a, "=")
		switch key {
		case "--unit":
			q.units = append(q.units, value)
		case "--lines":
			q.lines, err = strconv.Atoi(value)
		case "--after-cursor":
			q.from, err = strconv.Atoi(value)
			q.from++
		case "--since":
			q.since, err = strconv.ParseFloat(strings.TrimPrefix(value, "@"), 64)
		case "--until":
			q.until, err = strconv.ParseFloat(strings.TrimPrefix(value, "@"), 64)
		case "--priority":
			q.priority, err = strconv.Atoi(value)
		case "--follow":
			q.follow = true
		case "--reverse":
			q.reverse = true
		case "--quiet", "--no-pager", "--merge", "--output", "--output-fields", "--no-tail":
		default:
			err = fmt.Errorf("journalctl knows no %s", a)
		}
		if err != nil {
			return q, err
		}
	}
	return q, nil
}

func (q query) fits(entry map[string]any) bool {
	text := func(field string) string { return fmt.Sprint(entry[field]) }
	micro, _ := strconv.ParseFloat(text("__REALTIME_TIMESTAMP"), 64)
	priority, _ := strconv.Atoi(text("PRIORITY"))
	return (slices.Contains(q.units, text("_SYSTEMD_UNIT")) || slices.Contains(q.units, text("UNIT"))) &&
		micro/1e6 >= q.since && (q.until == 0 || micro/1e6 <= q.until) && priority <= q.priority
}

// Journal implements debianupdates.Systemd.
func (s *Systemd) Journal(ctx context.Context, receive func(line []byte, more bool) error, arguments ...string) error {
	q, err := parseQuery(arguments)
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.asked = append(s.asked, arguments)
	asking := s.asking
	s.mu.Unlock()
	if asking != nil {
		asking(arguments)
	}
	for {
		s.mu.Lock()
		entries, logged := slices.Clone(s.entries[min(q.from, len(s.entries)):]), s.logged
		q.from = max(q.from, len(s.entries))
		s.mu.Unlock()
		entries = slices.DeleteFunc(entries, func(e map[string]any) bool { return !q.fits(e) })
		if q.reverse {
			slices.Reverse(entries)
		}
		if q.lines >= 0 {
			entries = entries[:min(q.lines, len(entries))]
		}
		for i, e := range entries {
			line, err := json.Marshal(e)
			if e[TooLong] != nil {
				line = nil
			}
			if err == nil {
				err = receive(line, i < len(entries)-1)
			}
			if err != nil {
				return err
			}
		}
		if !q.follow {
			return nil
		}
		select {
		case <-logged:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
