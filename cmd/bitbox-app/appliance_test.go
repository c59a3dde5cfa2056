//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/netip"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"google.golang.org/protobuf/proto"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/client"
	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/words"
	"github.com/BitBoxSwiss/bitbox-base/internal/app/terminal"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/bruteforce"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/caller"
	"github.com/BitBoxSwiss/bitbox-base/internal/helperclient"
	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
	"github.com/BitBoxSwiss/bitbox-base/internal/testbed/appliancetest"
	"github.com/BitBoxSwiss/bitbox-base/internal/testbed/machinetest"
)

// appliances are those of the running scripts, by working directory.
var appliances sync.Map

// standing is an appliance whose helper can be replaced by a copy.
type standing struct {
	*appliancetest.Appliance
	of     exchange
	copied helperclient.Port
}

// exchange is the way from the Middleware to the present helper.
type exchange struct {
	mu sync.Mutex
	helperclient.Port
	lie atomic.Pointer[string] // the version that the Middleware reports; nil: the true one
}

func (e *exchange) set(port helperclient.Port) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.Port = port
}

func (e *exchange) through(port helperclient.Port) helperclient.Port {
	e.set(port)
	return e
}

func (e *exchange) now() helperclient.Port {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.Port
}

func (e *exchange) Stream(ctx context.Context, request *systemv1.SystemRequest, receive func(*systemv1.SystemReply) error) error {
	return e.now().Stream(ctx, request, func(reply *systemv1.SystemReply) error {
		if lie := e.lie.Load(); lie != nil && reply.GetUpdateStatus() != nil {
			reply.GetUpdateStatus().Installed, reply.GetUpdateStatus().Image = *lie, false
		}
		return receive(reply)
	})
}

// applianceCommand runs one appliance, and plays what happens to it:
//
//	appliance start [no-display]   sets $appliance to where it listens
//	appliance pair NAME ROLE       lets an App in, with the present directory
//	appliance wait                 three minutes pass
//	appliance ban ADDRESS
//	appliance drift ID SEVERITY
//	appliance break|mend           it takes no new configuration, or takes it again
//	appliance shut|open            it has no connections, or takes them again
//	appliance copy|putback         its helper's disk is copied; the copy takes its place
//	appliance sicken VERSION       it is not well with that version of its software
//	appliance log SERVICE TEXT PRIORITY
//	appliance lies                 its Middleware says that a version is installed which no release follows
//	appliance rest                 some time goes by
//	appliance wallet ADDRESS       a server listens for wallets, and a wallet is connected
//	appliance breaks UNIT          a service that fails whenever it is started
func applianceCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: appliance start|pair|ban|drift|break|mend|shut|open|copy|putback|sicken")
	}
	if args[0] == "start" {
		var a standing
		var err error
		start := appliancetest.Start
		if len(args) > 1 {
			start = appliancetest.StartWithoutDisplay
		}
		a.Appliance, err = start(a.of.through)
		ts.Check(err)
		ts.Setenv("appliance", a.Address())
		appliances.Store(ts.Getenv("WORK"), &a)
		ts.Defer(func() {
			appliances.Delete(ts.Getenv("WORK"))
			if err := a.Stop(); err != nil {
				ts.Logf("stop the appliance: %v", err)
			}
		})
		return
	}
	running, ok := appliances.Load(ts.Getenv("WORK"))
	if !ok {
		ts.Fatalf("no appliance runs")
	}
	a := running.(*standing)
	switch args[0] {
	case "pair":
		ts.Check(pairInProcess(a.Appliance, ts.Getenv(dirVariable), args[1], basev1.Role(basev1.Role_value["ROLE_"+strings.ToUpper(args[2])])))
	case "wait":
		a.Advance(3 * time.Minute)
	case "ban":
		a.Machine.Ban(bruteforce.Ban{Jail: "sshd", Addr: netip.MustParseAddr(args[1]), Since: time.Now(), Until: time.Now().Add(time.Hour)})
	case "drift":
		a.Machine.Drift(&basev1.Finding{
			Id: args[1], Severity: basev1.Finding_Severity(basev1.Finding_Severity_value["SEVERITY_"+strings.ToUpper(args[2])]),
			Title: "Something is open", Expected: "closed", Found: "open\nreally", Why: "Because.", Fix: "Close it.", Fixable: true,
		})
		a.Advance(time.Minute) // the helper reports for a while what it has just found
	case "break":
		a.Machine.Break(reason.New("the rules do not parse"))
	case "image":
		ts.Check(a.Software.BecomeImage())
	case "forge":
		a.Software.Forge(args[1])
	case "lies":
		lie := "9.9\x1b[2J"
		a.of.lie.Store(&lie)
	case "sicken":
		a.Software.Sicken(args[1])
	case "log":
		priority, err := parsePriority(args[3])
		ts.Check(err)
		ts.Check(a.Services.Log(args[1], args[2], int(priority)))
	case "rest":
		a.Advance(time.Hour)
	case "breaks":
		a.Services.Break(args[1])
	case "wallet":
		listenForWallets(a.Machine, netip.MustParseAddrPort(args[1]))
	case "mend":
		a.Machine.Break(nil)
	case "shut":
		a.Shut()
	case "open":
		a.Open()
	case "copy":
		copied, err := appliancetest.StartHelper(a.Helper)
		ts.Check(err)
		ts.Defer(func() { ts.Check(copied.Stop()) })
		a.copied = copied.Port(caller.Middleware)
	case "putback":
		a.of.set(a.copied)
	default:
		ts.Fatalf("unknown: appliance %s", args[0])
	}
}

func pairInProcess(a *appliancetest.Appliance, dir, name string, role basev1.Role) error {
	ctx, cancel := context.WithTimeout(context.Background(), scriptTime)
	defer cancel()
	app, err := client.New(client.Options{Dir: dir, Name: name, NoDiscovery: true})
	if err != nil {
		return err
	}
	let := make(chan error, 1)
	_, err = app.Pair(ctx, []string{a.Address()}, client.PairOptions{
		Requested: func(number string) { go func() { let <- a.Let(ctx, number, role) }() },
		Confirm:   func(context.Context, client.Code) (bool, error) { return true, nil },
	})
	return errors.Join(err, <-let)
}

// teller tells when something was printed.
type teller struct {
	mu      sync.Mutex
	printed bytes.Buffer
	awaited string
	once    sync.Once
	seen    chan struct{}
}

func (t *teller) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.printed.Write(b)
	if strings.Contains(t.printed.String(), t.awaited) {
		t.once.Do(func() { close(t.seen) })
	}
	return len(b), nil
}

// A change is approved only by a yes after the question was printed.
func TestOnlyAYesAfterTheQuestionApproves(t *testing.T) {
	opening := []client.PostureChange{{Text: "SSH will be \x1b[2Jon.", Opens: true}, {Text: "Something will be closed."}}
	for name, c := range map[string]struct {
		early, late string
		want        bool
	}{
		"yes":              {"", "y\n", true},
		"in full":          {"", "Yes\n", true},
		"no":               {"", "n\n", false},
		"nothing":          {"", "\n", false},
		"something else":   {"", "sure\n", false},
		"typed too early":  {"y\n", "n\n", false},
		"and then a yes":   {"n\n", "y\n", true},
		"nobody answers":   {"", "", false},
		"early and nobody": {"y\n", "", false},
	} {
		t.Run(name, func(t *testing.T) {
			in, typing := io.Pipe()
			out := &teller{awaited: "Go on? [y/N] ", seen: make(chan struct{})}
			p := &program{in: in, out: &terminal.Output{To: out}, terminal: true}
			approve := (&consent{program: p}).approve(t.Context())
			_, _ = io.WriteString(typing, c.early)
			// The reader has it; a test cannot see whether the reader has read its clock.
			time.Sleep(50 * time.Millisecond)
			go func() {
				<-out.seen
				time.Sleep(50 * time.Millisecond)
				_, _ = io.WriteString(typing, c.late)
				_ = typing.Close()
			}()
			yes, err := approve(opening)
			if yes != c.want || (err != nil) != (c.late == "") {
				t.Errorf("%v, %v", yes, err)
			}
			if want := "Changes at the Base:\n  [opens] SSH will be ?[2Jon.\n  Something will be closed.\nGo on? [y/N] "; out.printed.String() != want {
				t.Errorf("printed %q", out.printed.String())
			}
		})
	}
}

func TestEachExitCodeIsInTheTableOnce(t *testing.T) {
	seen := map[int]bool{}
	for _, e := range exits {
		if seen[e.code] || e.code <= 0 || e.code >= exitInterrupted {
			t.Errorf("code %d", e.code)
		}
		seen[e.code] = true
	}
}

func TestEventsOfTheHelperAreTold(t *testing.T) {
	ban := &basev1.Ban{Jail: "sshd", Address: "192.0.2.7"}
	for want, event := range map[string]*basev1.Event{
		"SSH was switched on for 2 hours, by the App 'Laptop'.": {Event: &basev1.Event_PostureChanged{
			PostureChanged: &basev1.PostureChangedEvent{Changes: []string{"SSH was switched on for 2 hours."}, By: "the App 'Laptop'"}}},
		`SSH was switched off. Pairing was closed, by "Phone" (6b2c).`: {Event: &basev1.Event_PostureChanged{
			PostureChanged: &basev1.PostureChangedEvent{Changes: []string{"SSH was switched off.", "Pairing was closed."},
				App: &basev1.App{Id: "6b2c", Name: "Phone"}}}},
		"SSH was switched off (its time is over).": {Event: &basev1.Event_PostureChanged{
			PostureChanged: &basev1.PostureChangedEvent{Changes: []string{"SSH was switched off."}, Note: "its time is over"}}},
		"The machine is restarting, as requested by an App (6b2c).": {Event: &basev1.Event_MachineStopping{
			MachineStopping: &basev1.MachineStoppingEvent{By: &basev1.App{Id: "6b2c"}}}},
		"Banned: 192.0.2.7 (sshd). (3 more of this kind were left out. 9 more entries do not fit here.)": {LeftOut: proto.Uint32(3),
			Cut: proto.Uint32(9), Event: &basev1.Event_BansChanged{
				BansChanged: &basev1.BansChangedEvent{Banned: []*basev1.Ban{ban}}}},
		"The pairing window is open to let in a viewer for another 1 min.": {Event: &basev1.Event_WindowChanged{
			WindowChanged: &basev1.WindowChangedEvent{Window: &basev1.Window{Open: true, RemainingMs: 60_000, Role: basev1.Role_ROLE_VIEWER}}}},
		"The machine was booted (version 1.3.0). It had stopped without warning, so its last events may be missing.": {
			Event: &basev1.Event_BaseStarted{BaseStarted: &basev1.BaseStartedEvent{SoftwareVersion: "1.3.0", Booted: true, CutOff: true}}},
		"Events of the machine that are missing here: 7.": {Event: &basev1.Event_EventsMissed{
			EventsMissed: &basev1.EventsMissedEvent{Count: proto.Uint64(7)}}},
		"Events of the machine may be missing: the Base's system helper had stopped without warning.": {Event: &basev1.Event_EventsMissed{
			EventsMissed: &basev1.EventsMissedEvent{}}},
		"Events of the node that are missing here: 7.": {Event: &basev1.Event_NodeEventsMissed{
			NodeEventsMissed: &basev1.NodeEventsMissedEvent{Count: proto.Uint64(7)}}},
		"Events of the node may be missing: the Base did not hear its node process for a while.": {Event: &basev1.Event_NodeEventsMissed{
			NodeEventsMissed: &basev1.NodeEventsMissedEvent{}}},
		"The audit has findings: Open (port), Odd (key).": {Event: &basev1.Event_DriftFound{
			DriftFound: &basev1.DriftFoundEvent{Findings: []*basev1.Finding{{Id: "port", Title: "Open"}, {Id: "key", Title: "Odd"}}}}},
		"Banned: 192.0.2.7 (sshd).": {Event: &basev1.Event_BansChanged{
			BansChanged: &basev1.BansChangedEvent{Banned: []*basev1.Ban{ban}}}},
		"No longer banned: 192.0.2.7 (sshd).": {Event: &basev1.Event_BansChanged{
			BansChanged: &basev1.BansChangedEvent{Lifted: []*basev1.Ban{ban}}}},
		"The Base could not apply its posture, and tries again: no room.": {Event: &basev1.Event_ApplyFailed{
			ApplyFailed: &basev1.ApplyFailedEvent{Reason: "no room"}}},
	} {
		if got := words.English.Event(event); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

// An event without its own text would be shown as an unknown kind.
func TestEachKindOfEventHasItsWords(t *testing.T) {
	kinds := (&basev1.Event{}).ProtoReflect().Descriptor().Oneofs().ByName("event").Fields()
	unknown, seen := words.English.Event(&basev1.Event{}), map[string]bool{}
	for i := range kinds.Len() {
		event := &basev1.Event{}
		m := event.ProtoReflect()
		m.Set(kinds.Get(i), m.NewField(kinds.Get(i)))
		text := words.English.Event(event)
		if text == unknown || seen[text] {
			t.Errorf("%s is told as %q", kinds.Get(i).Name(), text)
		}
		seen[text] = true
	}
}

func TestEventsAreToldInSentences(t *testing.T) {
	for want, event := range map[string]*basev1.Event{
		"Somebody asked to be paired (3 different requests); this was ignored because no pairing window was open.": {
			Event: &basev1.Event_PairingAttempt{PairingAttempt: &basev1.PairingAttemptEvent{Requests: 3, Ignored: true}}},
		"The update to version 2 was undone; version 1 is installed: it was not healthy.": {
			Event: &basev1.Event_UpdateEnded{UpdateEnded: &basev1.UpdateEndedEvent{FromVersion: "1", ToVersion: "2",
				Reason: "it was not healthy."}}},
		"The service backup has failed.": {
			Event: &basev1.Event_ServiceFailed{ServiceFailed: &basev1.ServiceFailedEvent{Service: &basev1.Service{Name: "backup"}}}},
		"The disk is filling up: 1.0 KiB of 2.0 KiB are free.": {
			Event: &basev1.Event_DiskFilling{DiskFilling: &basev1.DiskFillingEvent{TotalBytes: 2048, AvailableBytes: 1024}}},
		`The machine is shutting down, as requested by "Laptop" (12).`: {
			Event: &basev1.Event_MachineStopping{MachineStopping: &basev1.MachineStoppingEvent{PowerOff: true,
				By: &basev1.App{Id: "12", Name: "Laptop"}}}},
		`"Phone" (34) is now operator instead of viewer.`: {
			Event: &basev1.Event_AppRoleChanged{AppRoleChanged: &basev1.AppRoleChangedEvent{
				App: &basev1.App{Id: "34", Name: "Phone", Role: basev1.Role_ROLE_OPERATOR}, Before: basev1.Role_ROLE_VIEWER}}},
	} {
		if got := words.English.Event(event); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

// releaseCommand writes a release file:
//
//	release FILE VERSION [forged|damaged|cut|other]
func releaseCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: release FILE VERSION [forged|damaged|cut|other|image]")
	}
	how, architecture := strings.Join(args[2:], ""), machinetest.Architecture
	if how == "other" {
		architecture = "arm64"
	}
	file, err := machinetest.Release(args[1], architecture, 1<<20, how == "forged")
	ts.Check(err)
	switch how {
	case "image":
		file = machinetest.ImageRelease(args[1])
	case "damaged":
		file[len(file)/2] ^= 1
	case "cut":
		file = file[:len(file)/2]
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), file, 0o600))
}
