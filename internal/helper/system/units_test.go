package system

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/harmless"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/caller"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/generation"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/services"
	"github.com/BitBoxSwiss/bitbox-base/internal/helperclient"
	"github.com/BitBoxSwiss/bitbox-base/internal/testbed/systemdtest"
)

// hostile are names with which somebody would reach another unit.
var hostile = []string{
	"", "../x", "ssh", "ssh.service", "sshd.service", "--now", "-H evil", "bitbox-base-firewall", "bitbox-base-firewall.service",
	"bitbox-base-ssh.service",
	"firewall", "firewall\n", "firewall\x00", "electrs\n", "electrs\x00bitcoind", "electrs.service", " electrs", "electrs ", "ELECTRS",
	"electrs;reboot", "*", "bitbox-base-*",
	"reboot.target", "poweroff.target", "emergency.target", "getty@tty2.service", "systemd-journald.service", "dbus.service",
	"/etc/systemd/system/a.service",
	"nginx.service", "debug-shell.service", "rescue.target", strings.Repeat("a", 1<<16),
}

// reached is what a Middleware that was taken over makes systemd do, with each action and
// each name: those of the table, and hostile ones.
func reached(t *testing.T, change func(*base)) []string {
	b, m := managedBase(t)
	change(b)
	b.start()
	b.settled()
	names := append(slices.Clone(hostile), b.config.Services.Names()...)
	for _, name := range names {
		for action := range basev1.ServiceAction(8) {
			service, err := b.change(name, action)
			if s, known := b.config.Services.Find(name); (!known || !s.May(action)) && err == nil {
				t.Errorf("%v of %q was done: %v", action, harmless.Word(name), service)
			}
			if err != nil && strings.ContainsAny(err.Error(), "\n\x00") || err != nil && len(err.Error()) > 600 {
				t.Errorf("%v of %q: the sentence %q", action, harmless.Word(name), err)
			}
		}
	}
	until(t, "what waits for the answer to leave is done", func() error {
		done := m.Done()
		for _, want := range []string{"restart " + generation.ProxyUnit, "restart " + generation.MiddlewareUnit} {
			if !slices.Contains(done, want) {
				return errors.New(want)
			}
		}
		return nil
	})
	return m.Done()
}

// forbidden finds the actions that an App must never cause.
func forbidden(done []string) (found []string) {
	harmless := []string{"start", "restart"}
	mayEnd := []string{generation.MDNSUnit, services.TimeUnit, generation.ChainUnit, generation.WalletUnit,
		"electrs.service", "bitcoind.service"}
	table := append(services.BuiltIn(), systemdtest.Own("electrs", ""), systemdtest.Own("bitcoind", ""))
	for _, one := range done {
		verb, unit, _ := strings.Cut(one, " ")
		s, known := table.OfUnit(unit)
		switch {
		case known && verb == "stop" && slices.Contains(mayEnd, unit):
		case known && slices.Contains(harmless, verb) && len(s.Actions) > 0:
		default:
			found = append(found, one)
		}
	}
	return found
}

func TestACompromisedMiddlewareReachesNoUnitBeyondTheTable(t *testing.T) {
	if found := forbidden(reached(t, func(*base) {})); found != nil {
		t.Errorf("done: %q", found)
	}
	// The same attack finds out a table that gives SSH away.
	loose := reached(t, func(b *base) {
		for i, s := range b.config.Services {
			if s.Name == "ssh" || s.Name == "firewall" {
				b.config.Services[i].Actions = systemdtest.Own("x", "").Actions
			}
		}
	})
	if found := forbidden(loose); !slices.Contains(found, "start "+generation.SSHUnit) ||
		!slices.Contains(found, "stop "+generation.FirewallUnit) {
		t.Errorf("a loose table was not found out: %q", found)
	}
}

func TestAnErrorSaysWhatIsAllowed(t *testing.T) {
	b, _ := managedBase(t)
	b.start()
	for _, c := range []struct {
		name   string
		action basev1.ServiceAction
		want   string
	}{
		{"elektrs", actStart, "electrs, bitcoind"},
		{"nginx", actStop, "can start or restart nginx, and nothing else"},
		{"firewall", actStop, "nothing can be done to firewall"},
		{"electrs", 0, "start or stop or restart or enable or disable electrs"},
	} {
		if _, err := b.change(c.name, c.action); !errors.Is(err, &helperclient.Error{Code: helperclient.CodeInvalid}) ||
			!strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

func TestAServiceIsStoppedAndStarted(t *testing.T) {
	b, m := managedBase(t)
	b.start()
	if s, err := b.change("electrs", actStop); err != nil || s.GetState() != basev1.Service_STATE_STOPPED || !s.GetEnabled() {
		t.Errorf("stopped: %v, %v", s, err)
	}
	if s, err := b.change("electrs", actStart); err != nil || s.GetState() != basev1.Service_STATE_RUNNING {
		t.Errorf("started: %v, %v", s, err)
	}
	m.Refuse("electrs.service", "ConditionPathExists=/etc/electrs.toml")
	if _, err := b.change("electrs", actRestart); err == nil ||
		!strings.Contains(err.Error(), "electrs did not start: a condition of its unit is not met: ConditionPathExists=/etc/electrs.toml") {
		t.Errorf("one that a condition forbids: %v", err)
	}
	m.Refuse("electrs.service")
	m.Break("electrs.service")
	if _, err := b.change("electrs", actRestart); err == nil ||
		!strings.Contains(err.Error(), "electrs did not start: it ended with status 7") {
		t.Errorf("one that breaks: %v", err)
	}
	m.Fail("stop bitcoind.service", errors.New("no"))
	if _, err := b.change("bitcoind", actStop); err == nil {
		t.Error("a stop that did not work has worked")
	}
}

func TestADisabledServiceStaysOff(t *testing.T) {
	b, m := managedBase(t)
	b.start()
	if s, err := b.change("electrs", actDisable); err != nil || s.GetEnabled() || s.GetState() != basev1.Service_STATE_STOPPED {
		t.Fatalf("%v, %v", s, err)
	}
	// The condition of its unit looks for this file.
	if _, err := os.Lstat(filepath.Join(b.directory, "disabled", "electrs")); err != nil {
		t.Error(err)
	}
	for _, action := range []basev1.ServiceAction{actStart, actRestart} {
		if _, err := b.change("electrs", action); !errors.Is(err, &helperclient.Error{Code: helperclient.CodeRefused}) ||
			!strings.Contains(err.Error(), "enable it") {
			t.Errorf("%v: %v", action, err)
		}
	}
	b.stop()
	b.start()
	if s := b.listed("electrs"); s.GetEnabled() {
		t.Errorf("after a restart: %v", s)
	}
	if s, err := b.change("electrs", actEnable); err != nil || !s.GetEnabled() || s.GetState() != basev1.Service_STATE_RUNNING {
		t.Errorf("enabled: %v, %v", s, err)
	}
	if entries, err := os.ReadDir(filepath.Join(b.directory, "disabled")); err != nil || len(entries) != 0 {
		t.Errorf("left: %v, %v", entries, err)
	}
	// Twice is as good as once.
	for _, action := range []basev1.ServiceAction{actEnable, actDisable, actDisable, actEnable} {
		if _, err := b.change("electrs", action); err != nil {
			t.Errorf("%v: %v", action, err)
		}
	}
	if last := m.Done()[len(m.Done())-1]; last != "start electrs.service" {
		t.Errorf("done last: %s", last)
	}
}

func TestAServiceThatCannotBeMarkedIsNotStopped(t *testing.T) {
	b, m := managedBase(t)
	b.fail = func(step string) error {
		if step == "mark service" {
			return errors.New("the disk is full")
		}
		return nil
	}
	b.start()
	_, err := b.change("electrs", actDisable)
	if !errors.Is(err, &helperclient.Error{Code: helperclient.CodeStorage}) || slices.Contains(m.Done(), "stop electrs.service") ||
		!b.listed("electrs").GetEnabled() {
		t.Errorf("%v; done: %q", err, m.Done())
	}
}

// A link with the name of the builder's unit that leads to SSH's.
func TestAnotherNameOfAUnitIsNotFollowed(t *testing.T) {
	b, m := managedBase(t)
	b.start()
	m.Change("electrs.service", "Id", generation.SSHUnit)
	for _, action := range []basev1.ServiceAction{actStart, actStop, actRestart, actEnable, actDisable} {
		if _, err := b.change("electrs", action); !errors.Is(err, &helperclient.Error{Code: helperclient.CodeRefused}) {
			t.Errorf("%v: %v", action, err)
		}
	}
	if done := m.Done(); len(done) != 0 {
		t.Errorf("done: %q", done)
	}
	if entries, _ := os.ReadDir(filepath.Join(b.directory, "disabled")); len(entries) != 0 {
		t.Errorf("marked: %v", entries)
	}
}

func TestTheAnswerIsSentBeforeItsCarrierRestarts(t *testing.T) {
	b, m := managedBase(t)
	answered := make(chan struct{})
	m.OnStart(func(unit string) {
		if unit != generation.ProxyUnit {
			return
		}
		select {
		case <-answered:
		default:
			t.Error("NGINX was restarted before the answer")
		}
	})
	b.start()
	if s, err := b.change("nginx", actRestart); err != nil || s.GetState() != basev1.Service_STATE_STARTING {
		t.Fatalf("%v, %v", s, err)
	}
	close(answered)
	until(t, "it is restarted", func() error {
		if !slices.Contains(m.Done(), "restart "+generation.ProxyUnit) {
			return errors.New("not yet")
		}
		return nil
	})
}

// A Middleware that was taken over, or a stolen phone of an operator's, restarts
// services again and again that must not be stopped: without fail2ban nobody is banned, and
// without the entry no owner gets in to lock the Base down.
func TestAServiceThatMustNotStopIsNotRestartedAgainAndAgain(t *testing.T) {
	b, m := managedBase(t)
	b.start()
	restarts := func() (n int) {
		for _, done := range m.Done() {
			if strings.HasPrefix(done, "restart ") {
				n++
			}
		}
		return n
	}
	for n := range 5 {
		if _, err := b.change("fail2ban", actRestart); (err == nil) != (n == 0) || n > 0 &&
			(!errors.Is(err, &helperclient.Error{Code: helperclient.CodeBusy}) || !strings.Contains(err.Error(), "again in ")) {
			t.Errorf("restart %d: %v", n+1, err)
		}
		if _, err := b.change("fail2ban", actStart); err != nil {
			t.Errorf("it cannot be started: %v", err)
		}
	}
	if n := restarts(); n != 1 {
		t.Errorf("it was restarted %d times", n)
	}
	// A service that may be stopped, and an action that root asks for.
	for range 3 {
		if _, err := b.change("electrs", actRestart); err != nil {
			t.Error(err)
		}
		if _, err := b.as(caller.Root).Do(t.Context(), changeRequest("fail2ban", actRestart), nil); err != nil {
			t.Error(err)
		}
	}
	// Each has a time of its own, and it ends.
	for _, name := range []string{"nginx", "middleware"} {
		if _, err := b.change(name, actRestart); err != nil {
			t.Error(err)
		}
		if _, err := b.change(name, actRestart); !errors.Is(err, &helperclient.Error{Code: helperclient.CodeBusy}) {
			t.Errorf("%s again: %v", name, err)
		}
	}
	b.advance(2 * time.Minute)
	if _, err := b.change("fail2ban", actRestart); err != nil {
		t.Errorf("later: %v", err)
	}
}

// Each change of the time zone makes systemd reload all its units. Everything else waits for
// that, even an owner's lockdown.
func TestTimeZonesAreSetOneAfterTheOther(t *testing.T) {
	b, m := managedBase(t)
	var inside, most atomic.Int32
	m.OnReload(func() {
		most.Store(max(most.Load(), inside.Add(1)))
		time.Sleep(5 * time.Millisecond)
		inside.Add(-1)
	})
	b.start()
	set := func(name string) error {
		_, err := b.as(caller.Middleware).Do(t.Context(),
			&systemv1.SystemRequest{Verb: &systemv1.SystemRequest_SetTimeZone{SetTimeZone: &systemv1.SetTimeZone{Name: name}}}, nil)
		return err
	}
	var setting sync.WaitGroup
	for n := range 16 {
		setting.Go(func() {
			if err := set([]string{"Europe/Zurich", "Etc/UTC"}[n%2]); err != nil {
				t.Error(err)
			}
		})
	}
	setting.Wait()
	if most.Load() > 1 {
		t.Errorf("systemd was told %d times at once", most.Load())
	}
}
