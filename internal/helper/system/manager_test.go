package system

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"google.golang.org/protobuf/types/known/timestamppb"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/caller"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/server"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/services"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/timezone"
)

// manager is a systemd and a journal in memory. It takes the arguments that the real
// ones take, and knows no others.
type manager struct {
	mu        sync.Mutex
	units     map[string]map[string]string
	fail      map[string]error     // by verb and unit
	breaks    map[string]bool      // units that fail when they are started
	did       []string             // verb and unit, in order
	journal   []map[string]any     // the oldest first
	asked     [][]string           // arguments of journalctl
	logged    chan struct{}        // closed and replaced when something is logged
	started   func(unit string)    // told of each start, without the lock
	asking    func(query []string) // told of each question to the journal
	unmet     map[string][]string  // conditions that are not met, by unit
	reloading func()               // called while systemd reloads its units
}

func newManager() *manager {
	m := &manager{
		units: map[string]map[string]string{}, unmet: map[string][]string{}, fail: map[string]error{}, breaks: map[string]bool{},
		logged: make(chan struct{}),
	}
	for _, s := range services.BuiltIn() {
		m.set(s.Unit, "active")
	}
	m.set(services.DebianUpdatesUnit, "inactive")
	return m
}

func (m *manager) set(unit, state string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.setLocked(unit, state)
}

func (m *manager) setLocked(unit, state string) {
	u := m.units[unit]
	if u == nil {
		u = map[string]string{"Id": unit, "LoadState": "loaded", "Type": "exec", "Result": "success", "NRestarts": "0",
			"MemoryCurrent": "1048576", "Job": "",
			// Nothing was checked yet.
			"ConditionResult": "no", "ConditionTimestamp": "", "AssertResult": "no", "AssertTimestamp": ""}
		m.units[unit] = u
	}
	u["ActiveState"], u["StateChangeTimestamp"] = state, "@1795723082"
	u["SubState"] = map[string]string{"active": "running", "inactive": "dead", "failed": "failed", "activating": "start"}[state]
}

func (m *manager) change(unit, property, value string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.units[unit][property] = value
}

func (m *manager) done() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.did)
}

func (m *manager) Systemctl(ctx context.Context, arguments ...string) (string, error) {
	if err := ctx.Err(); err != nil {
		return "", err
	}
	words := slices.DeleteFunc(slices.Clone(arguments), func(a string) bool { return strings.HasPrefix(a, "-") })
	if len(words) == 0 {
		return "", errors.New("no verb")
	}
	m.mu.Lock()
	verb, units := words[0], words[1:]
	if verb == "show" {
		defer m.mu.Unlock()
		var blocks []string
		for _, unit := range units {
			u := m.units[unit]
			if u == nil {
				u = map[string]string{"Id": unit, "LoadState": "not-found", "ActiveState": "inactive", "SubState": "dead", "ConditionResult": "no"}
			}
			var block strings.Builder
			for _, key := range slices.Sorted(maps.Keys(u)) {
				fmt.Fprintf(&block, "%s=%s\n", key, u[key])
			}
			blocks = append(blocks, block.String())
		}
		return strings.Join(blocks, "\n"), nil
	}
	m.did = append(m.did, strings.Join(words, " "))
	var err error
	for _, unit := range units {
		if err = m.fail[verb+" "+unit]; err != nil {
			break
		}
		switch {
		case verb == "stop":
			m.setLocked(unit, "inactive")
		case m.breaks[unit]:
			m.setLocked(unit, "failed")
			m.units[unit]["Result"], m.units[unit]["ExecMainStatus"] = "exit-code", "7"
			err = errors.New("job failed")
		default:
			m.checkLocked(unit)
		}
	}
	started, reloading := m.started, m.reloading
	if len(units) > 0 && len(m.unmet[units[0]]) > 0 {
		started = nil
	}
	m.mu.Unlock()
	if verb == "daemon-reload" && reloading != nil {
		reloading()
	}
	if started != nil && len(units) > 0 {
		started(units[0])
	}
	return "", err
}

// checkLocked starts a unit if its conditions are met. That one refused it is no error.
func (m *manager) checkLocked(unit string) {
	result, state := "yes", "active"
	if len(m.unmet[unit]) > 0 {
		result, state = "no", "inactive"
	}
	m.setLocked(unit, state)
	maps.Copy(m.units[unit], map[string]string{"ConditionResult": result, "ConditionTimestamp": "@1795723082"})
}

// forget makes systemd load a unit again, as it does with one that nothing refers to.
func (m *manager) forget(unit string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.units, unit)
	m.setLocked(unit, "inactive")
	m.units[unit]["StateChangeTimestamp"] = ""
}

// Unmet knows what the last start of a unit checked, as long as systemd has the unit.
func (m *manager) Unmet(_ context.Context, unit string) ([]string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.units[unit]["ConditionTimestamp"] == "" {
		return nil, nil
	}
	return m.unmet[unit], nil
}

// tooLong marks an entry whose line is too long to be given.
const tooLong = "too long"

// log writes an entry.
func (m *manager) log(unit string, fields map[string]any) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := len(m.journal)
	entry := map[string]any{"_SYSTEMD_UNIT": unit, "PRIORITY": "6", "__CURSOR": strconv.Itoa(n),
		"__REALTIME_TIMESTAMP": strconv.Itoa(1795723082000000 + n*1000000)}
	maps.Copy(entry, fields)
	m.journal = append(m.journal, entry)
	close(m.logged)
	m.logged = make(chan struct{})
}

func (m *manager) say(unit, text string) { m.log(unit, map[string]any{"MESSAGE": text}) }

func (m *manager) Journal(ctx context.Context, receive func([]byte, bool) error, arguments ...string) error {
	var units []string
	from, lines, follow, reverse := 0, -1, false, false
	var since, until float64
	priority := 7
	for _, a := range arguments {
		key, value, _ := strings.Cut(a, "=")
		seconds, _ := strconv.ParseFloat(strings.TrimPrefix(value, "@"), 64)
		switch key {
		case "--unit":
			units = append(units, value)
		case "--lines":
			lines, _ = strconv.Atoi(value)
		case "--after-cursor":
			from, _ = strconv.Atoi(value)
			from++
		case "--since":
			since = seconds
		case "--until":
			until = seconds
		case "--priority":
			priority, _ = strconv.Atoi(value)
		case "--follow":
			follow = true
		case "--reverse":
			reverse = true
		case "--quiet", "--no-pager", "--merge", "--output", "--output-fields", "--no-tail":
		default:
			return fmt.Errorf("journalctl knows no %s", a)
		}
	}
	m.mu.Lock()
	m.asked = append(m.asked, arguments)
	asking := m.asking
	m.mu.Unlock()
	if asking != nil {
		asking(arguments)
	}
	for {
		m.mu.Lock()
		entries, logged := slices.Clone(m.journal[min(from, len(m.journal)):]), m.logged
		from = max(from, len(m.journal))
		m.mu.Unlock()
		entries = slices.DeleteFunc(entries, func(e map[string]any) bool {
			micro, _ := strconv.ParseFloat(e["__REALTIME_TIMESTAMP"].(string), 64)
			p, _ := strconv.Atoi(fmt.Sprint(e["PRIORITY"]))
			return !slices.Contains(units, fmt.Sprint(e["_SYSTEMD_UNIT"])) && !slices.Contains(units, fmt.Sprint(e["UNIT"])) ||
				micro/1e6 < since || until != 0 && micro/1e6 > until || p > priority
		})
		if reverse {
			slices.Reverse(entries)
			if lines >= 0 {
				entries = entries[:min(lines, len(entries))]
			}
		}
		for i, e := range entries {
			long := e[tooLong] != nil
			line, err := json.Marshal(e)
			if long {
				line = nil
			}
			if err != nil {
				return err
			}
			if err := receive(line, i < len(entries)-1); err != nil {
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

// managedBase is a Base whose services are the built-in ones and two of a builder.
func managedBase(t *testing.T) (*base, *manager) {
	t.Helper()
	b, m := newBase(t), newManager()
	b.config.Systemd = m
	// These tests ask for more than a caller may have in a minute; the budgets have tests of
	// their own (table_test.go).
	b.config.Bounds = maps.Clone(server.CallerBounds)
	b.config.Bounds[caller.Middleware] = server.Bounds{Holds: server.CallerBounds[caller.Middleware].Holds, Calls: 1e6, Work: 1e6}
	b.config.Services = append(services.BuiltIn(), ownService("electrs"), ownService("bitcoind"))
	b.config.TimeZone = zones(t, b.directory)
	b.config.UpdateStamp = filepath.Join(b.directory, "upgrade-stamp")
	m.set("electrs.service", "active")
	m.set("bitcoind.service", "inactive")
	return b, m
}

func ownService(name string) services.Service {
	mdns, _ := services.BuiltIn().Find("mdns")
	return services.Service{Name: name, Unit: name + ".service", Description: "The builder's " + name, Actions: mdns.Actions}
}

// zones is a small tz database; the link is the helper's.
func zones(t *testing.T, directory string) timezone.Place {
	t.Helper()
	root := t.TempDir()
	p := timezone.Place{Database: root, Localtime: filepath.Join(root, "localtime"), Link: filepath.Join(directory, "localtime")}
	if err := errors.Join(
		os.WriteFile(filepath.Join(root, "tzdata.zi"), []byte("Z Europe/Zurich x\nZ Etc/UTC x\n"), 0o644),
		os.Symlink(p.Link, p.Localtime)); err != nil {
		t.Fatal(err)
	}
	return p
}

func listRequest() *systemv1.SystemRequest {
	return &systemv1.SystemRequest{Verb: &systemv1.SystemRequest_ListServices{ListServices: &systemv1.ListServices{}}}
}

func changeRequest(name string, action basev1.ServiceAction) *systemv1.SystemRequest {
	return &systemv1.SystemRequest{Verb: &systemv1.SystemRequest_ChangeService{ChangeService: &systemv1.ChangeService{Name: name,
		Action: action}}}
}

func logsRequest(r *basev1.ReadLogsRequest) *systemv1.SystemRequest {
	return &systemv1.SystemRequest{Verb: &systemv1.SystemRequest_ReadLogs{ReadLogs: &systemv1.ReadLogs{Request: r}}}
}

func (b *base) change(name string, action basev1.ServiceAction) (*basev1.Service, error) {
	reply, err := b.as(caller.Middleware).Do(b.t.Context(), changeRequest(name, action), nil)
	if err != nil {
		return nil, err
	}
	return reply.GetServices().GetServices()[0], nil
}

func (b *base) listed(name string) *basev1.Service {
	b.t.Helper()
	reply, err := b.as(caller.Middleware).Do(b.t.Context(), listRequest(), nil)
	if err != nil {
		b.t.Fatal(err)
	}
	for _, s := range reply.GetServices().GetServices() {
		if s.GetName() == name {
			return s
		}
	}
	b.t.Fatalf("%s is not listed", name)
	return nil
}

const (
	actStart   = basev1.ServiceAction_SERVICE_ACTION_START
	actStop    = basev1.ServiceAction_SERVICE_ACTION_STOP
	actRestart = basev1.ServiceAction_SERVICE_ACTION_RESTART
	actEnable  = basev1.ServiceAction_SERVICE_ACTION_ENABLE
	actDisable = basev1.ServiceAction_SERVICE_ACTION_DISABLE
)

// logs reads all that there is.
func (b *base) logs(r *basev1.ReadLogsRequest) ([]*basev1.LogEntry, error) {
	var all []*basev1.LogEntry
	err := b.as(caller.Middleware).Each(b.t.Context(), logsRequest(r), func(reply *systemv1.SystemReply) error {
		all = append(all, reply.GetLogs().GetEntries()...)
		return nil
	})
	return all, err
}

func texts(entries []*basev1.LogEntry) []string {
	var all []string
	for _, e := range entries {
		all = append(all, e.GetText())
	}
	return all
}

func seconds(n int64) *timestamppb.Timestamp { return &timestamppb.Timestamp{Seconds: n} }

// watchEvents collects what the helper tells.
func (b *base) watchEvents() (events func() []*basev1.Event) {
	b.t.Helper()
	var mu sync.Mutex
	var all []*basev1.Event
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	ready := make(chan struct{})
	go func() {
		defer close(done)
		_ = b.as(caller.Root).Each(ctx, &systemv1.SystemRequest{Verb: &systemv1.SystemRequest_WatchSystem{WatchSystem: &systemv1.WatchSystem{}}},
			func(reply *systemv1.SystemReply) error {
				mu.Lock()
				defer mu.Unlock()
				if len(all) == 0 {
					close(ready)
				}
				all = append(all, reply.GetEvent().GetEvent())
				return nil
			})
	}()
	<-ready
	b.t.Cleanup(func() {
		cancel()
		<-done
	})
	return func() []*basev1.Event {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(all)
	}
}
