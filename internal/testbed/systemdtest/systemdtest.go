// Package systemdtest is a systemd and a journal in memory, for tests of the helper and of all
// that asks it. It takes the arguments that the helper gives the real ones, and knows no others.
package systemdtest

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
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

// Systemd implements debianupdates.Systemd.
type Systemd struct {
	mu     sync.Mutex
	table  services.Table
	units  map[string]map[string]string
	fails  map[string]error    // by verb and unit
	breaks map[string]bool     // units that fail when they are started
	unmet  map[string][]string // conditions that are not met, by unit
	did    []string            // verb and unit, in order
	now    func(entry int) time.Time

	entries []map[string]any // of the journal, the oldest first
	asked   [][]string       // arguments of journalctl
	logged  chan struct{}    // closed, and made again, when something is logged

	started, reloading func(unit string)
	asking             func(query []string)
}

// New returns a systemd with the units of a table. All run, except those that run only on demand.
func New(table services.Table) *Systemd {
	s := &Systemd{
		table: table, units: map[string]map[string]string{}, fails: map[string]error{}, breaks: map[string]bool{},
		unmet: map[string][]string{}, now: func(int) time.Time { return time.Now() }, logged: make(chan struct{}),
	}
	for _, service := range table {
		state := "active"
		if service.OnDemand {
			state = "inactive"
		}
		s.setLocked(service.Unit, state)
	}
	return s
}

// Own is a service of a builder, who lets an App do with it what it may do with mdns.
func Own(name, description string) services.Service {
	mdns, _ := services.BuiltIn().Find("mdns")
	return services.Service{Name: name, Unit: name + ".service", Description: description, Actions: mdns.Actions}
}

// Zones makes a tz database with three zones below a directory.
func Zones(directory string) (timezone.Place, error) {
	database := filepath.Join(directory, "zoneinfo")
	p := timezone.Place{Database: database, Localtime: filepath.Join(database, "localtime"), Link: filepath.Join(directory, "localtime")}
	err := errors.Join(
		os.MkdirAll(database, 0o755),
		os.WriteFile(filepath.Join(database, "tzdata.zi"), []byte("Z Asia/Tokyo x\nZ Etc/UTC x\nZ Europe/Zurich x\n"), 0o644))
	if link := os.Symlink(p.Link, p.Localtime); !errors.Is(link, fs.ErrExist) {
		err = errors.Join(err, link)
	}
	return p, err
}

// Set puts a unit into a state, such as "active".
func (s *Systemd) Set(unit, state string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.setLocked(unit, state)
}

func (s *Systemd) setLocked(unit, state string) {
	u := s.units[unit]
	if u == nil {
		u = map[string]string{"Id": unit, "LoadState": "loaded", "Type": "exec", "Result": "success", "NRestarts": "0",
			"MemoryCurrent": "2097152", "Job": "",
			// Nothing was checked yet.
			"ConditionResult": "no", "ConditionTimestamp": "", "AssertResult": "no", "AssertTimestamp": ""}
		s.units[unit] = u
	}
	u["ActiveState"], u["StateChangeTimestamp"] = state, s.dateLocked()
	u["SubState"] = map[string]string{"active": "running", "inactive": "dead", "failed": "failed", "activating": "start"}[state]
}

func (s *Systemd) dateLocked() string { return fmt.Sprintf("@%d", s.now(0).Unix()) }

// Change gives a unit another property.
func (s *Systemd) Change(unit, property, value string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.units[unit][property] = value
}

// Fail makes an order fail, such as "stop electrs.service".
func (s *Systemd) Fail(order string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fails[order] = err
}

// Break makes a unit fail whenever it is started.
func (s *Systemd) Break(unit string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.breaks[unit] = true
}

// Refuse has conditions keep a unit from starting; without any it starts again.
func (s *Systemd) Refuse(unit string, conditions ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.unmet[unit] = conditions
}

// Forget has systemd load a unit again, as it does with one that nothing refers to.
func (s *Systemd) Forget(unit string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.units, unit)
	s.setLocked(unit, "inactive")
	s.units[unit]["StateChangeTimestamp"] = ""
}

// Date dates entries of the journal by their number; 0 dates the states of units too.
func (s *Systemd) Date(now func(entry int) time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now = now
}

// OnStart has each unit told that systemd has started, restarted or stopped, unless a condition
// refused it.
func (s *Systemd) OnStart(do func(unit string)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.started = do
}

// OnReload has something done while systemd reloads its units.
func (s *Systemd) OnReload(do func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reloading = func(string) { do() }
}

// OnQuestion has each question to the journal told, before it is answered; nil: none.
func (s *Systemd) OnQuestion(do func(arguments []string)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asking = do
}

// Done lists what systemd was ordered, such as "stop electrs.service".
func (s *Systemd) Done() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.did)
}

// Asked lists the questions to the journal.
func (s *Systemd) Asked() [][]string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.asked)
}

// Systemctl implements debianupdates.Systemd.
func (s *Systemd) Systemctl(ctx context.Context, arguments ...string) (string, error) {
	if err := ctx.Err(); err != nil {
		return "", err
	}
	words := slices.DeleteFunc(slices.Clone(arguments), func(a string) bool { return strings.HasPrefix(a, "-") })
	if len(words) == 0 {
		return "", errors.New("systemctl was given no verb")
	}
	verb, units := words[0], words[1:]
	s.mu.Lock()
	if verb == "show" {
		defer s.mu.Unlock()
		return s.showLocked(units), nil
	}
	s.did = append(s.did, strings.Join(words, " "))
	told, unit := s.reloading, ""
	var err error
	if verb != "daemon-reload" {
		unit = units[0]
		if told = s.started; len(s.unmet[unit]) > 0 {
			told = nil
		}
		err = s.orderLocked(verb, unit)
	}
	s.mu.Unlock()
	if told != nil {
		told(unit)
	}
	return "", err
}

func (s *Systemd) showLocked(units []string) string {
	var blocks []string
	for _, unit := range units {
		u := s.units[unit]
		if u == nil {
			u = map[string]string{"Id": unit, "LoadState": "not-found", "ActiveState": "inactive", "SubState": "dead", "ConditionResult": "no"}
		}
		var block strings.Builder
		for _, key := range slices.Sorted(maps.Keys(u)) {
			fmt.Fprintf(&block, "%s=%s\n", key, u[key])
		}
		blocks = append(blocks, block.String())
	}
	return strings.Join(blocks, "\n")
}

func (s *Systemd) orderLocked(verb, unit string) error {
	switch err := s.fails[verb+" "+unit]; {
	case err != nil:
		return err
	case verb == "stop":
		s.setLocked(unit, "inactive")
	case s.breaks[unit]:
		s.setLocked(unit, "failed")
		s.units[unit]["Result"], s.units[unit]["ExecMainStatus"] = "exit-code", "7"
		return errors.New("the job failed")
	default:
		// That a condition refuses it is no error.
		result, state := "yes", "active"
		if len(s.unmet[unit]) > 0 {
			result, state = "no", "inactive"
		}
		s.setLocked(unit, state)
		s.units[unit]["ConditionResult"], s.units[unit]["ConditionTimestamp"] = result, s.dateLocked()
	}
	return nil
}

// Unmet implements units.Conditions: systemd knows what the last start of a unit checked, as
// long as it has the unit.
func (s *Systemd) Unmet(_ context.Context, unit string) ([]string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.units[unit]["ConditionTimestamp"] == "" {
		return nil, nil
	}
	return s.unmet[unit], nil
}

// Log has a service of the table log a line, with a priority of syslog(3).
func (s *Systemd) Log(name, text string, priority int) error {
	service, known := s.table.Find(name)
	if !known {
		return fmt.Errorf("there is no service %q", name)
	}
	s.Write(service.Unit, map[string]any{"MESSAGE": text, "PRIORITY": strconv.Itoa(priority)})
	return nil
}

// Say has a unit log a line.
func (s *Systemd) Say(unit, text string) { s.Write(unit, map[string]any{"MESSAGE": text}) }
