package appliancetest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/BitBoxSwiss/bitbox-base/internal/helper/services"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/timezone"
)

// Services is a systemd and a journal in memory, which know as much as the helper asks
// of them. It implements debianupdates.Systemd.
type Services struct {
	mu      sync.Mutex
	units   map[string]*unit
	entries []map[string]string
	logged  chan struct{} // closed and replaced when something is logged
	// stamp is touched when Debian's updates are installed.
	stamp string
	// stops is called with reboot.target or poweroff.target.
	stops func(target string)
}

type unit struct {
	state, result string
	breaks        bool
}

// Own is the service of a builder that an appliance of tests has beside the Base's own.
var Own = services.Service{Name: "electrs", Unit: "electrs.service", Description: "Electrum server"}

func newServices() (*Services, services.Table) {
	table := services.BuiltIn()
	mdns, _ := table.Find("mdns")
	own := Own
	own.Actions = mdns.Actions
	table = append(table, own)
	s := &Services{units: map[string]*unit{}, logged: make(chan struct{}), stops: func(string) {}}
	for _, service := range table {
		s.units[service.Unit] = &unit{state: "active", result: "success"}
		if service.OnDemand {
			s.units[service.Unit].state = "inactive"
		}
	}
	return s, table
}

// Log has a service log a line, with a priority of syslog(3).
func (s *Services) Log(name, text string, priority int) error {
	service, known := append(services.BuiltIn(), Own).Find(name)
	if !known {
		return fmt.Errorf("there is no service %q", name)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.logLocked(service.Unit, text, priority)
	return nil
}

func (s *Services) logLocked(unit, text string, priority int) {
	s.entries = append(s.entries, map[string]string{
		"_SYSTEMD_UNIT": unit, "MESSAGE": text, "PRIORITY": strconv.Itoa(priority), "__CURSOR": strconv.Itoa(len(s.entries)),
		"__REALTIME_TIMESTAMP": strconv.FormatInt(time.Now().UnixMicro(), 10),
	})
	close(s.logged)
	s.logged = make(chan struct{})
}

// Break makes a service fail whenever it is started.
func (s *Services) Break(unit string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.units[unit].breaks = true
}

// Systemctl implements debianupdates.Systemd.
func (s *Services) Systemctl(_ context.Context, arguments ...string) (string, error) {
	words := slices.DeleteFunc(slices.Clone(arguments), func(a string) bool { return strings.HasPrefix(a, "-") })
	if len(words) == 0 {
		return "", errors.New("systemctl was given no verb")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch verb, units := words[0], words[1:]; verb {
	case "show":
		var blocks []string
		for _, name := range units {
			blocks = append(blocks, s.showLocked(name))
		}
		return strings.Join(blocks, "\n"), nil
	case "daemon-reload":
		return "", nil
	default:
		return "", s.changeLocked(verb, units[0])
	}
}

func (s *Services) showLocked(name string) string {
	u := s.units[name]
	if u == nil {
		return "Id=" + name + "\nLoadState=not-found\nActiveState=inactive\n"
	}
	return fmt.Sprintf("Id=%s\nLoadState=loaded\nType=exec\nActiveState=%s\nResult=%s\nExecMainStatus=7\nNRestarts=0\nMemoryCurrent=2097152\nStateChangeTimestamp=@%d\nConditionResult=yes\nJob=\n",
		name, u.state, u.result, time.Now().Unix())
}

func (s *Services) changeLocked(verb, name string) error {
	if strings.HasSuffix(name, ".target") {
		go s.stops(name)
		return nil
	}
	u := s.units[name]
	switch {
	case u == nil:
		return fmt.Errorf("there is no unit %s", name)
	case name == services.DebianUpdatesUnit:
		s.logLocked(name, "Unpacking libssl3 (3.0.17-1~deb12u3)", 6)
		return os.WriteFile(s.stamp, nil, 0o644)
	case verb == "stop":
		u.state = "inactive"
	case u.breaks:
		u.state, u.result = "failed", "exit-code"
		return errors.New("the job failed")
	default:
		u.state = "active"
	}
	return nil
}

// Unmet implements debianupdates.Systemd: every condition is met.
func (s *Services) Unmet(context.Context, string) ([]string, error) { return nil, nil }

// Journal implements debianupdates.Systemd.
func (s *Services) Journal(ctx context.Context, receive func(line []byte, more bool) error, arguments ...string) error {
	options := map[string]string{}
	var units []string
	for _, a := range arguments {
		key, value, _ := strings.Cut(a, "=")
		if key == "--unit" {
			units = append(units, value)
		}
		options[key] = value
	}
	_, follow := options["--follow"]
	_, reverse := options["--reverse"]
	from := 0
	if cursor, set := options["--after-cursor"]; set {
		from, _ = strconv.Atoi(cursor)
		from++
	}
	for {
		s.mu.Lock()
		entries, logged := slices.Clone(s.entries[min(from, len(s.entries)):]), s.logged
		from = max(from, len(s.entries))
		s.mu.Unlock()
		entries = slices.DeleteFunc(entries, func(e map[string]string) bool {
			return !slices.Contains(units, e["_SYSTEMD_UNIT"]) || !within(e, options)
		})
		if reverse {
			slices.Reverse(entries)
		}
		if lines, err := strconv.Atoi(options["--lines"]); err == nil {
			entries = entries[:min(lines, len(entries))]
		}
		for i, e := range entries {
			line, err := json.Marshal(e)
			if err == nil {
				err = receive(line, i < len(entries)-1)
			}
			if err != nil {
				return err
			}
		}
		if !follow {
			return nil
		}
		select {
		case <-logged:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// within tells whether an entry is of the time and of the priority that are asked for.
func within(entry, options map[string]string) bool {
	at, _ := strconv.ParseFloat(entry["__REALTIME_TIMESTAMP"], 64)
	for option, earlier := range map[string]bool{"--since": true, "--until": false} {
		bound, err := strconv.ParseFloat(strings.TrimPrefix(options[option], "@"), 64)
		if err == nil && (at/1e6 < bound) == earlier && at/1e6 != bound {
			return false
		}
	}
	if most := options["--priority"]; most != "" && entry["PRIORITY"] > most {
		return false
	}
	return true
}

// newTimeZone makes a small tz database below a directory.
func newTimeZone(directory string) (timezone.Place, error) {
	database := filepath.Join(directory, "zoneinfo")
	p := timezone.Place{Database: database, Localtime: filepath.Join(database, "localtime"), Link: filepath.Join(directory, "localtime")}
	return p, errors.Join(
		os.MkdirAll(database, 0o755),
		os.WriteFile(filepath.Join(database, "tzdata.zi"), []byte("Z Asia/Tokyo x\nZ Etc/UTC x\nZ Europe/Zurich x\n"), 0o644),
		os.Symlink(p.Link, p.Localtime))
}
