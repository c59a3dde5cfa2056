//go:build linux

package boot_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/client"
	"github.com/BitBoxSwiss/bitbox-base/image/build"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/generation"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/services"
	"github.com/BitBoxSwiss/bitbox-base/test/stage"
)

// ownServices are what the builder of this appliance runs on it: one that works, and one
// that ends at once, again and again.
var ownServices = map[string]string{
	services.OwnFile:                     "# what this appliance runs\nticker ticker.service Says something now and then\nbroken broken.service Ends at once\n",
	"/etc/systemd/system/ticker.service": "[Unit]\nDescription=Ticker\n[Service]\nExecStart=/bin/sh -c 'while true; do echo tick; echo \"<4>Tock of a clock\"; sleep 0.2; done'\n",
	"/etc/systemd/system/broken.service": "[Unit]\nDescription=Broken\nStartLimitIntervalSec=0\n[Service]\nExecStart=/bin/sh -c 'exit 3'\nRestart=always\nRestartSec=0.1\n",
	"/etc/systemd/system/reads.timer":    "[Timer]\nOnCalendar=*-*-* 06:00\n",
	"/etc/systemd/system/reads.service":  "[Service]\nType=oneshot\nExecStart=/bin/true\n",
}

// manager is an owner's App at an appliance, and what it calls.
type manager struct {
	*stage.Stage
	t       *testing.T
	app     *client.App
	session *client.Session
}

// call goes over one connection as long as that lives: the packet filter lets an address
// begin so many in a second.
func (m *manager) call(use func(context.Context, *client.Session) error) error {
	ctx, cancel := context.WithTimeout(m.t.Context(), 4*callTime)
	defer cancel()
	return use(ctx, m.session)
}

func (m *manager) services() map[string]*basev1.Service {
	m.t.Helper()
	all := map[string]*basev1.Service{}
	if err := m.call(func(ctx context.Context, s *client.Session) error {
		list, err := s.Services.ListServices(ctx, &basev1.ListServicesRequest{})
		for _, service := range list.GetServices() {
			all[service.GetName()] = service
		}
		return err
	}); err != nil {
		m.t.Fatal(client.Explain(err))
	}
	return all
}

func (m *manager) change(name string, action basev1.ServiceAction) (service *basev1.Service, err error) {
	err = m.call(func(ctx context.Context, s *client.Session) error {
		changed, err := s.Services.ChangeService(ctx, &basev1.ChangeServiceRequest{Name: name, Action: action})
		service = changed.GetService()
		return err
	})
	return service, err
}

func (m *manager) mustChange(name string, action basev1.ServiceAction) *basev1.Service {
	m.t.Helper()
	service, err := m.change(name, action)
	if err != nil {
		m.t.Fatalf("%v of %s: %s", action, name, client.Explain(err))
	}
	return service
}

func (m *manager) logs(r *basev1.ReadLogsRequest, until func([]*basev1.LogEntry) bool) (entries []*basev1.LogEntry, err error) {
	err = m.call(func(ctx context.Context, s *client.Session) error {
		stream, err := s.Services.ReadLogs(ctx, r)
		if err != nil {
			return err
		}
		for message, err := range stream.All() {
			if err != nil {
				return err
			}
			if entries = append(entries, message.GetEntries()...); until != nil && until(entries) {
				return nil
			}
		}
		return nil
	})
	return entries, err
}

// reboot has the App restart the machine, and returns when that answers again.
func (m *manager) reboot() {
	m.t.Helper()
	if err := m.call(func(ctx context.Context, s *client.Session) error {
		_, err := s.Machine.Reboot(ctx, &basev1.RebootRequest{})
		// Not in the first minutes after a boot; a container's clock is that of the
		// machine below, which may have been started just now.
		for ; errors.Is(err, client.ErrConflict) && ctx.Err() == nil; _, err = s.Machine.Reboot(ctx, &basev1.RebootRequest{}) {
			time.Sleep(time.Second)
		}
		if err != nil {
			return err
		}
		answered := time.Now()
		m.AwaitReboot()
		_, err = s.AwaitReboot(ctx, answered)
		return err
	}); err != nil {
		m.t.Fatalf("reboot: %s", client.Explain(err))
	}
}

const (
	toStop    = basev1.ServiceAction_SERVICE_ACTION_STOP
	toStart   = basev1.ServiceAction_SERVICE_ACTION_START
	toRestart = basev1.ServiceAction_SERVICE_ACTION_RESTART
	toEnable  = basev1.ServiceAction_SERVICE_ACTION_ENABLE
	toDisable = basev1.ServiceAction_SERVICE_ACTION_DISABLE
)

// A whole appliance from a root that nobody can write to: systemd, its journal, Avahi
// and the clock are real.
func TestAnOwnerLooksAfterTheMachineAndItsServices(t *testing.T) {
	t.Parallel()
	stage.NeedRoot(t)
	file := deb(t, newVersion)
	s := stage.Boot(t, stage.Config{Bare: true, ReadOnly: true, Prepare: func(t *testing.T, root string) {
		if err := build.Configure(t.Context(), root, build.Options{Package: file}); err != nil {
			t.Fatal(err)
		}
		for path, text := range ownServices {
			if err := errors.Join(os.MkdirAll(filepath.Join(root, filepath.Dir(path)), 0o755),
				os.WriteFile(filepath.Join(root, path), []byte(text), 0o644)); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Remove(filepath.Join(root, "usr/lib/systemd/network/80-bitbox-base.network")); err != nil {
			t.Fatal(err)
		}
	}})
	m := &manager{Stage: s, t: t, app: pair(t, s, s.Attacker(1))}
	var err error
	if m.session, err = m.app.Open(""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.session.Close)
	before := etc(s)
	run := func(name string, test func(t *testing.T)) {
		t.Run(name, func(t *testing.T) {
			m.t = t
			test(t)
		})
		m.t = t
	}

	run("services are listed as they are", func(t *testing.T) {
		all := m.services()
		for name, state := range map[string]basev1.Service_State{
			"firewall": basev1.Service_STATE_DONE, "nginx": basev1.Service_STATE_RUNNING, "middleware": basev1.Service_STATE_RUNNING,
			"ssh":  basev1.Service_STATE_STOPPED,
			"mdns": basev1.Service_STATE_RUNNING, "ticker": basev1.Service_STATE_RUNNING,
		} {
			if got := all[name]; got.GetState() != state || got.GetEnabled() != (name != "ssh") || state == basev1.Service_STATE_RUNNING &&
				got.GetSince() == nil {
				t.Errorf("%s: %v", name, got)
			}
		}
	})
	run("a service that is restarted again and again raises an event", func(t *testing.T) {
		// It has done so since the boot; a later reader sees the next one.
		m.mustChange("broken", toStop)
		m.restartsNGINX()
		waitEvent(m, func() { _, _ = m.change("broken", toStart) }, func(event *basev1.Event) bool {
			return event.GetServiceFailed().GetService().GetName() == "broken" && strings.Contains(event.GetServiceFailed().GetReason(), "3 times")
		})
		m.mustChange("broken", toDisable)
	})
	run("logs are read, filtered and followed", func(t *testing.T) {
		lines, err := m.logs(&basev1.ReadLogsRequest{Services: []string{"ticker"}, Contains: "TOCK of a", Lines: 5}, nil)
		if err != nil || len(lines) != 5 || lines[4].GetPriority() != 4 || lines[4].GetService() != "ticker" ||
			!strings.HasPrefix(lines[4].GetText(), "Tock of a clock") {
			t.Errorf("with a text: %v, %v", lines, err)
		}
		warnings := uint32(4)
		if lines, err = m.logs(&basev1.ReadLogsRequest{Services: []string{"ticker"}, Priority: &warnings, Lines: 3}, nil); err != nil ||
			len(lines) != 3 || !strings.HasPrefix(lines[0].GetText(), "Tock") {
			t.Errorf("warnings: %v, %v", lines, err)
		}
		cut := time.Now()
		stage.Until(t, "it ticks", func() error {
			lines, err = m.logs(&basev1.ReadLogsRequest{Services: []string{"ticker"}, Since: timestamppb.New(cut)}, nil)
			if err == nil && len(lines) < 3 {
				err = fmt.Errorf("%d lines", len(lines))
			}
			return err
		})
		if first := lines[0].GetTime().AsTime(); first.Before(cut.Truncate(time.Microsecond)) {
			t.Errorf("since %v there is a line of %v", cut, first)
		}
		if lines, err = m.logs(&basev1.ReadLogsRequest{Services: []string{"ticker"}, Until: timestamppb.New(cut), Lines: 1}, nil); err != nil ||
			len(lines) != 1 || lines[0].GetTime().AsTime().After(cut) {
			t.Errorf("until: %v, %v", lines, err)
		}
		lines, err = m.logs(&basev1.ReadLogsRequest{Services: []string{"ticker"}, Lines: 1, Follow: true},
			func(e []*basev1.LogEntry) bool { return len(e) >= 12 })
		if err != nil || len(lines) < 12 {
			t.Fatalf("followed: %v, %v", lines, err)
		}
		for i, e := range lines[1:] {
			tick := e.GetText() == "tick"
			if was := lines[i].GetText() == "tick"; was == tick {
				t.Errorf("a line is missing or twice between %v and %v", lines[i], e)
			}
		}
		s.Until("the readers of the journal have ended", func() error {
			if out, err := s.Exec("pgrep", "journalctl"); err == nil {
				return fmt.Errorf("they run: %s", out)
			}
			return nil
		})
		if _, err := m.logs(&basev1.ReadLogsRequest{Services: []string{"ticker.service"}}, nil); !errors.Is(err, client.ErrInvalid) {
			t.Errorf("a unit in place of a name: %v", err)
		}
	})
	run("the time zone is set, and timers follow", func(t *testing.T) {
		s.MustExec("systemctl", "start", "reads.timer")
		if err := m.call(func(ctx context.Context, s *client.Session) error {
			zones, err := s.Machine.ListTimeZones(ctx, &basev1.ListTimeZonesRequest{})
			if err != nil || zones.GetCurrent() != "Etc/UTC" || !slices.Contains(zones.GetNames(), "Asia/Tokyo") {
				return fmt.Errorf("there are %d, and it is %q: %w", len(zones.GetNames()), zones.GetCurrent(), err)
			}
			_, err = s.Machine.SetTimeZone(ctx, &basev1.SetTimeZoneRequest{Name: "Asia/Tokyo"})
			return err
		}); err != nil {
			t.Fatal(client.Explain(err))
		}
		m.isInTokyo()
	})
	run("a name is announced, shown, and what is no name is refused", func(t *testing.T) {
		rename := func(name string) error {
			return m.call(func(ctx context.Context, s *client.Session) error {
				_, err := s.Apply(ctx, client.Change{Edit: client.Rename(name),
					Approve: func([]client.PostureChange) (bool, error) { return true, nil }})
				return err
			})
		}
		for _, bad := range []string{"", "two\nlines", "\u202erorrim", strings.Repeat("x", 64), " x"} {
			if err := rename(bad); !errors.Is(err, client.ErrInvalid) || !strings.Contains(client.Explain(err), "1 to 63 bytes") {
				t.Errorf("%q: %v", bad, err)
			}
		}
		if err := rename("attic"); err != nil {
			t.Fatal(client.Explain(err))
		}
		m.isCalled("attic")
	})
	run("what is switched off stays off across a reboot, and everything else stays", func(t *testing.T) {
		if service := m.mustChange("ticker", toDisable); service.GetEnabled() || service.GetState() != basev1.Service_STATE_STOPPED {
			t.Errorf("%v", service)
		}
		m.mustChange("mdns", toDisable)
		m.reboot()
		if all := m.services(); all["ticker"].GetState() != basev1.Service_STATE_STOPPED || all["ticker"].GetEnabled() ||
			all["mdns"].GetState() != basev1.Service_STATE_STOPPED ||
			all["broken"].GetState() != basev1.Service_STATE_STOPPED || all["nginx"].GetState() != basev1.Service_STATE_RUNNING {
			t.Errorf("after the reboot: %v", all)
		}
		for _, unit := range []string{"ticker.service", generation.MDNSUnit} {
			if state := s.State(unit); state != "inactive" {
				t.Errorf("%s is %s", unit, state)
			}
		}
		m.isInTokyo()
		if err := m.call(func(ctx context.Context, session *client.Session) error {
			found, err := session.Audit.RunAudit(ctx, &basev1.RunAuditRequest{})
			for _, finding := range found.GetFindings() {
				if strings.Contains(finding.GetFound(), generation.MDNSUnit) {
					t.Errorf("the audit does not know that mDNS was switched off: %v", finding)
				}
			}
			return err
		}); err != nil {
			t.Error(client.Explain(err))
		}
		for _, name := range []string{"ticker", "mdns"} {
			if service := m.mustChange(name, toEnable); !service.GetEnabled() || service.GetState() != basev1.Service_STATE_RUNNING {
				t.Errorf("enabled: %v", service)
			}
		}
		m.isCalled("attic")
		s.Reboot()
		s.WaitActive("ticker.service")
		s.WaitActive(generation.MDNSUnit)
	})
	run("Debian's updates are installed on a read-only root", func(t *testing.T) {
		s.MustExec("unattended-upgrade", "--dry-run")
		var said []string
		if err := m.call(func(ctx context.Context, session *client.Session) error {
			if err := session.InstallDebianUpdates(ctx, func(line string) error {
				said = append(said, line)
				return nil
			}); err != nil {
				return err
			}
			// Without a list of what there is, nobody can say that nothing waits.
			status, err := session.UpdateStatus(ctx)
			if err == nil && !strings.Contains(status.GetDebianUnknown(), "there is no list") {
				err = fmt.Errorf("what waits is told as %q, %q", status.GetDebianWaiting(), status.GetDebianUnknown())
			}
			return err
		}); err != nil || len(said) < 3 || strings.Contains(strings.Join(said, "\n"), "Traceback") {
			t.Errorf("%q, %s", said, client.Explain(err))
		}
	})
	run("nothing has written to /etc", func(t *testing.T) {
		if changed := changes(before, etc(s), "/etc/machine-id"); len(changed) != 0 {
			t.Errorf("changed: %q", changed)
		}
	})
}

// restartsNGINX has the App restart what carries its own answer.
func (m *manager) restartsNGINX() {
	m.t.Helper()
	begun := func() string {
		return m.MustExec("systemctl", "show", generation.ProxyUnit, "-p", "ActiveEnterTimestampMonotonic")
	}
	before := begun()
	m.mustChange("nginx", toRestart) // the answer came all the same
	m.Until("NGINX was restarted", func() error {
		if now := begun(); now == before || m.State(generation.ProxyUnit) != "active" {
			return errors.New(now)
		}
		return nil
	})
	stage.Until(m.t, "the Base answers after NGINX was restarted", func() error {
		time.Sleep(time.Second) // the packet filter counts who comes
		return m.call(func(ctx context.Context, s *client.Session) error {
			_, err := s.Info.GetInfo(ctx, &basev1.GetInfoRequest{})
			return err
		})
	})
}

func (m *manager) isInTokyo() {
	m.t.Helper()
	for _, argv := range [][]string{{"env", "-u", "TZ", "date"},
		{"env", "-u", "TZ", "systemctl", "show", "reads.timer", "-p", "NextElapseUSecRealtime"}} {
		out := m.MustExec(argv...)
		if argv[3] == "systemctl" && m.State("reads.timer") != "active" {
			continue
		}
		if !strings.Contains(out, "JST") || argv[3] == "systemctl" && !strings.Contains(out, "06:00:00 JST") {
			m.t.Errorf("%q says %q", argv, out)
		}
	}
	if err := m.call(func(ctx context.Context, s *client.Session) error {
		info, err := s.Info.GetInfo(ctx, &basev1.GetInfoRequest{})
		if err == nil && info.GetTimeZone() != "Asia/Tokyo" {
			err = fmt.Errorf("the App is told of %q", info.GetTimeZone())
		}
		return err
	}); err != nil {
		m.t.Error(err)
	}
}

func (m *manager) isCalled(name string) {
	m.t.Helper()
	if err := m.call(func(ctx context.Context, s *client.Session) error {
		info, err := s.Info.GetInfo(ctx, &basev1.GetInfoRequest{})
		if err == nil && info.GetName() != name {
			err = fmt.Errorf("the App is told of %q", info.GetName())
		}
		return err
	}); err != nil {
		m.t.Error(err)
	}
	app := (&booted{Stage: m.Stage, t: m.t}).program(m.t)
	stage.Until(m.t, "mDNS says "+name, func() error {
		ctx, cancel := context.WithTimeout(m.t.Context(), callTime)
		defer cancel()
		command := m.Attacker(2).Command(ctx, app, "discover", "--json")
		command.Env = append(os.Environ(), "BITBOX_APP_DIR="+m.t.TempDir())
		out, err := command.CombinedOutput()
		if err == nil && !strings.Contains(string(out), `"`+name+`"`) {
			err = fmt.Errorf("it says %s", out)
		}
		return err
	})
}

// waitEvent does something, and waits for an event.
func waitEvent(m *manager, do func(), wanted func(*basev1.Event) bool) {
	m.t.Helper()
	if err := m.call(func(ctx context.Context, s *client.Session) error {
		stream, err := s.Events.WatchEvents(ctx, &basev1.WatchEventsRequest{})
		if err != nil {
			return err
		}
		for event, err := range stream.All() {
			if err != nil {
				return fmt.Errorf("it never came: %w", err)
			}
			if event.GetSubscribed() != nil {
				do()
			}
			if wanted(event) {
				return nil
			}
		}
		return errors.New("it never came")
	}); err != nil {
		m.t.Error(err)
	}
}
