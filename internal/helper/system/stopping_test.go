package system

import (
	"context"
	"errors"
	"fmt"
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
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/caller"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/machine"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/services"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/update"
	"github.com/BitBoxSwiss/bitbox-base/internal/helperclient"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/posture"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/release"
	"github.com/BitBoxSwiss/bitbox-base/internal/testbed/slottest"
)

func rebootRequest() *systemv1.SystemRequest {
	return &systemv1.SystemRequest{Verb: &systemv1.SystemRequest_Reboot{Reboot: &systemv1.Reboot{}}, AppId: "0123456789abcdef"}
}

func powerOffRequest() *systemv1.SystemRequest {
	return &systemv1.SystemRequest{Verb: &systemv1.SystemRequest_PowerOff{PowerOff: &systemv1.PowerOff{}}}
}

func TestTheMachineStopsAfterTheAnswer(t *testing.T) {
	for target, request := range map[string]*systemv1.SystemRequest{"reboot.target": rebootRequest(), "poweroff.target": powerOffRequest()} {
		b, m := managedBase(t)
		answered := make(chan struct{})
		m.OnStart(func(string) {
			select {
			case <-answered:
			default:
				t.Error("it stops before the answer")
			}
		})
		b.ahead.Store(int64(machine.StopRest))
		b.start()
		events := b.watchEvents()
		if _, err := b.as(caller.Middleware).Do(t.Context(), request, nil); err != nil {
			t.Fatal(err)
		}
		if done := m.Done(); len(done) != 0 {
			t.Errorf("done before the answer: %q", done)
		}
		close(answered)
		for _, again := range []*systemv1.SystemRequest{rebootRequest(), powerOffRequest()} {
			if _, err := b.as(caller.Middleware).Do(t.Context(), again, nil); !errors.Is(err, &helperclient.Error{Code: helperclient.CodeBusy}) {
				t.Errorf("once more: %v", err)
			}
		}
		until(t, "it stops", func() error {
			if done := m.Done(); !slices.Equal(done, []string{"start " + target}) {
				return fmt.Errorf("done: %q", done)
			}
			return nil
		})
		until(t, "it is told", func() error {
			for _, event := range events() {
				if stopping := event.GetMachineStopping(); stopping != nil && stopping.GetPowerOff() == (target == "poweroff.target") &&
					stopping.GetBy().GetId() == request.GetAppId() {
					return nil
				}
			}
			return fmt.Errorf("only %v", events())
		})
	}
}

// A Middleware that was taken over stops the machine at each boot, as soon as it can: who
// stands at the console has some minutes all the same.
func TestAPersonAtTheBaseHasTimeBeforeAnAppCanStopItAgain(t *testing.T) {
	b, m := managedBase(t)
	now := atomic.Int64{}
	b.config.Clock = func() time.Duration { return time.Duration(now.Load()) }
	b.start()
	for _, at := range []time.Duration{0, time.Second, machine.StopRest - 1} {
		now.Store(int64(at))
		for _, request := range []*systemv1.SystemRequest{rebootRequest(), powerOffRequest()} {
			if _, err := b.as(caller.Middleware).Do(t.Context(), request, nil); !errors.Is(err, &helperclient.Error{Code: helperclient.CodeBusy}) ||
				!strings.Contains(err.Error(), "started a moment ago") {
				t.Errorf("%T after %v: %v", request.GetVerb(), at, err)
			}
		}
	}
	if done := m.Done(); len(done) != 0 {
		t.Errorf("done: %q", done)
	}
	if _, err := b.as(caller.Root).Do(t.Context(), rebootRequest(), nil); err != nil {
		t.Errorf("root: %v", err)
	}
}

// slottedMachine runs an image, with the previous version in its other slot.
type slottedMachine struct{ started atomic.Int64 }

func (m *slottedMachine) Architecture(context.Context) (string, error) { return "amd64", nil }
func (m *slottedMachine) Installed(context.Context) (string, error)    { return "2", nil }
func (m *slottedMachine) IsImage() bool                                { return true }
func (m *slottedMachine) Start(context.Context) error                  { m.started.Add(1); return nil }
func (m *slottedMachine) Describe(context.Context, string) (update.Package, error) {
	return update.Package{}, errors.New("an image takes no package")
}

// slotted gives a base the slots of a machine.
func slotted(t *testing.T, b *base) (m *slottedMachine) {
	t.Helper()
	m = &slottedMachine{}
	directory := t.TempDir()
	if err := os.WriteFile(filepath.Join(directory, "slots.json"), []byte(`{"running":"2","other":"1"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	var err error
	if b.config.Updates, err = update.NewReceiver(update.NewStore(directory), m, release.PublicKey(slottest.Seed(1))); err != nil {
		t.Fatal(err)
	}
	return m
}

func startOtherRequest() *systemv1.SystemRequest {
	return &systemv1.SystemRequest{Verb: &systemv1.SystemRequest_StartOtherSlot{StartOtherSlot: &systemv1.StartOtherSlot{}}}
}

// uploadOf brings an image to the helper, up to its last byte, and returns the request that has it installed.
func uploadOf(t *testing.T, b *base, image slottest.Release) *systemv1.SystemRequest {
	t.Helper()
	port := b.as(caller.Middleware)
	began, err := port.Do(t.Context(), &systemv1.SystemRequest{Verb: &systemv1.SystemRequest_BeginUpdate{
		BeginUpdate: &systemv1.BeginUpdate{Header: image.Preamble}}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	id := began.GetUpdateBegan().GetUpload()
	for offset := uint64(0); offset < image.Header.Size; {
		_, size, _ := image.Header.Image.Chunk(offset)
		if _, err := port.Do(t.Context(), &systemv1.SystemRequest{Verb: &systemv1.SystemRequest_UpdatePiece{UpdatePiece: &systemv1.UpdatePiece{
			Upload: id, Offset: offset, Data: image.Parts[offset : offset+size]}}}, nil); err != nil {
			t.Fatal(err)
		}
		offset += size
	}
	return &systemv1.SystemRequest{Verb: &systemv1.SystemRequest_FinishUpdate{FinishUpdate: &systemv1.FinishUpdate{Upload: id}}}
}

// An update of the image, and going back, restart the machine too: a Middleware that was taken over
// would do that at each boot, in the place of asking for a restart.
func TestAnUpdateOfTheImageDoesNotTakeTheTimeAtTheBaseAway(t *testing.T) {
	for name, request := range map[string]func(*base) *systemv1.SystemRequest{
		"back": func(*base) *systemv1.SystemRequest { return startOtherRequest() },
		"forward": func(b *base) *systemv1.SystemRequest {
			return uploadOf(t, b, slottest.NewRelease("3", "amd64", slottest.Seed(1)))
		},
	} {
		t.Run(name, func(t *testing.T) {
			b, _ := managedBase(t)
			m := slotted(t, b)
			now := atomic.Int64{}
			b.config.Clock = func() time.Duration { return time.Duration(now.Load()) }
			b.start()
			restarting := request(b)
			for _, at := range []time.Duration{time.Second, machine.StopRest - 1} {
				now.Store(int64(at))
				if _, err := b.as(caller.Middleware).Do(t.Context(), restarting, nil); !errors.Is(err,
					&helperclient.Error{Code: helperclient.CodeBusy}) || !strings.Contains(err.Error(), "started a moment ago") {
					t.Errorf("after %v: %v", at, err)
				}
			}
			if n := m.started.Load(); n != 0 {
				t.Fatalf("%d were started", n)
			}
			now.Store(int64(machine.StopRest))
			if _, err := b.as(caller.Middleware).Do(t.Context(), restarting, nil); err != nil || m.started.Load() != 1 {
				t.Errorf("later: %v, %d were started", err, m.started.Load())
			}
		})
	}
}

// A Middleware that was taken over, by a hole that the previous version has, has
// that version started again. The running version knows of the hole, and the posture says nothing.
func TestNobodyGoesBackToAVersionWithAKnownHole(t *testing.T) {
	for oldestSafe, want := range map[string]bool{"": true, "1": true, "1.1": false, "2": false} {
		b, _ := managedBase(t)
		m := slotted(t, b)
		b.config.OldestSafe = oldestSafe
		b.ahead.Store(int64(machine.StopRest))
		b.start()
		health, err := b.as(caller.Root).Do(t.Context(),
			&systemv1.SystemRequest{Verb: &systemv1.SystemRequest_GetHealth{GetHealth: &systemv1.GetHealth{}}}, nil)
		if err != nil || health.GetHealth().GetOldestVersion() != oldestSafe {
			t.Errorf("what judges versions is told %v, %v", health.GetHealth(), err)
		}
		_, err = b.as(caller.Middleware).Do(t.Context(), startOtherRequest(), nil)
		if (err == nil) != want || m.started.Load() == 1 != want {
			t.Errorf("with %q as the oldest: %v, %d were started", oldestSafe, err, m.started.Load())
		}
	}
}

// Root has the machine go back whenever it wants.
func TestRootAtTheBaseGoesBackAtOnce(t *testing.T) {
	b, _ := managedBase(t)
	m := slotted(t, b)
	b.config.Clock = func() time.Duration { return time.Second }
	b.start()
	if _, err := b.as(caller.Root).Do(t.Context(), startOtherRequest(), nil); err != nil || m.started.Load() != 1 {
		t.Errorf("%v, %d were started", err, m.started.Load())
	}
}

func TestAMachineThatDoesNotStopCanBeAskedAgain(t *testing.T) {
	b, m := managedBase(t)
	m.Fail("start reboot.target", errors.New("refused"))
	b.ahead.Store(int64(machine.StopRest))
	b.start()
	if _, err := b.as(caller.Middleware).Do(t.Context(), rebootRequest(), nil); err != nil {
		t.Fatal(err)
	}
	until(t, "it is taken again", func() error {
		_, err := b.as(caller.Middleware).Do(t.Context(), powerOffRequest(), nil)
		return err
	})
}

func TestTheMachineIsNotStoppedInTheMiddleOfSomething(t *testing.T) {
	b, m := managedBase(t)
	b.ahead.Store(int64(machine.StopRest))
	b.start()
	m.Set(services.DebianUpdatesUnit, "activating")
	if _, err := b.as(caller.Middleware).Do(t.Context(), rebootRequest(), nil); !errors.Is(err,
		&helperclient.Error{Code: helperclient.CodeBusy}) || !strings.Contains(err.Error(), "Debian") {
		t.Errorf("while Debian's updates are installed: %v", err)
	}
	m.Set(services.DebianUpdatesUnit, "inactive")
	phone := b.pair(b.as(caller.Middleware), "phone", owner)
	b.settled()
	// A change that is being applied, for as long as the machine takes.
	applying, goOn := make(chan struct{}), make(chan struct{})
	b.world.WhenExamined(sync.OnceFunc(func() {
		close(applying)
		<-goOn
	}))
	ended := make(chan error, 1)
	go func() {
		ended <- phone.submit(exposeOwnPort)
	}()
	select {
	case <-applying:
	case err := <-ended:
		t.Fatalf("nothing was examined: %v", err)
	}
	for _, request := range []*systemv1.SystemRequest{rebootRequest(), powerOffRequest(),
		changeRequest("nginx", basev1.ServiceAction_SERVICE_ACTION_RESTART)} {
		if _, err := b.as(caller.Middleware).Do(t.Context(), request, nil); !errors.Is(err, &helperclient.Error{Code: helperclient.CodeBusy}) {
			t.Errorf("%T while a posture is applied: %v", request.GetVerb(), err)
		}
	}
	close(goOn)
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	if _, err := b.as(caller.Middleware).Do(t.Context(), rebootRequest(), nil); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

// Reboot, power off, services and logs are for the Middleware and root, and for no other caller.
func TestTheMachineIsRunByTheMiddlewareAndRoot(t *testing.T) {
	for _, request := range []*systemv1.SystemRequest{
		listRequest(), changeRequest("mdns", 1), logsRequest(nil), rebootRequest(), powerOffRequest(),
		{Verb: &systemv1.SystemRequest_ListTimeZones{}}, {Verb: &systemv1.SystemRequest_SetTimeZone{}},
		{Verb: &systemv1.SystemRequest_InstallDebianUpdates{}},
	} {
		for _, who := range []caller.Who{0, caller.Middleware, caller.Console, caller.Root} {
			if got, want := verbs[helperclient.Kind(request)].May.Has(who), who == caller.Middleware || who == caller.Root; got != want {
				t.Errorf("%v may ask for %T: %v, want %v", who, request.GetVerb(), got, want)
			}
		}
	}
}

func TestTheTimeZoneIsSetAndTimersFollow(t *testing.T) {
	b, m := managedBase(t)
	b.start()
	set := func(name string) error {
		_, err := b.as(caller.Middleware).Do(t.Context(),
			&systemv1.SystemRequest{Verb: &systemv1.SystemRequest_SetTimeZone{SetTimeZone: &systemv1.SetTimeZone{Name: name}}}, nil)
		return err
	}
	if err := set("Europe/Zurich"); err != nil {
		t.Fatal(err)
	}
	if done := m.Done(); !slices.Equal(done, []string{"daemon-reload"}) {
		t.Errorf("done: %q", done)
	}
	for _, name := range []string{"Europe/Zurich\n", "../../etc/shadow", "Mars", ""} {
		if err := set(name); !errors.Is(err, &helperclient.Error{Code: helperclient.CodeInvalid}) ||
			!strings.Contains(err.Error(), "Europe/Zurich") {
			t.Errorf("%q: %v", name, err)
		}
	}
	// The journal repeats a refused request, so a stolen phone could fill it.
	if err := set(strings.Repeat("\x01", 8000)); !errors.Is(err, &helperclient.Error{Code: helperclient.CodeInvalid}) ||
		len(err.Error()) > 600 {
		t.Errorf("a long name: %.600v", err)
	}
	reply, err := b.as(caller.Middleware).Do(t.Context(),
		&systemv1.SystemRequest{Verb: &systemv1.SystemRequest_ListTimeZones{ListTimeZones: &systemv1.ListTimeZones{}}}, nil)
	if err != nil || reply.GetTimeZones().GetCurrent() != "Europe/Zurich" || len(reply.GetTimeZones().GetNames()) != 3 {
		t.Errorf("%v, %v", reply, err)
	}
	machine, err := b.as(caller.Middleware).Do(t.Context(),
		&systemv1.SystemRequest{Verb: &systemv1.SystemRequest_GetMachine{GetMachine: &systemv1.GetMachine{}}}, nil)
	if err != nil || machine.GetMachine().GetTimeZone() != "Europe/Zurich" ||
		machine.GetMachine().GetNodeName() != posture.Factory().NodeName {
		t.Errorf("%v, %v", machine, err)
	}
	if target, err := os.Readlink(b.config.TimeZone.Link); err != nil || target != "/usr/share/zoneinfo/Europe/Zurich" {
		t.Errorf("%q, %v", target, err)
	}
}

func installRequest() *systemv1.SystemRequest {
	return &systemv1.SystemRequest{Verb: &systemv1.SystemRequest_InstallDebianUpdates{InstallDebianUpdates: &systemv1.InstallDebianUpdates{}}}
}

// The image's root file system is not written: apt's unit would end well, and change nothing.
func TestAnImageDoesNotStartDebiansUpdates(t *testing.T) {
	b, m := managedBase(t)
	slotted(t, b)
	b.start()
	_, err := b.install(t.Context())
	if !errors.Is(err, &helperclient.Error{Code: helperclient.CodeRefused}) ||
		!strings.Contains(err.Error(), "Debian's fixes come with its releases") {
		t.Errorf("asked to install Debian's updates the Base says %v", err)
	}
	if done := m.Done(); len(done) != 0 {
		t.Errorf("systemd was asked to %q", done)
	}
}

func (b *base) install(ctx context.Context) (progress []string, err error) {
	return b.installThen(ctx, nil)
}

// installThen does something at each step that is told.
func (b *base) installThen(ctx context.Context, then func(step string)) (progress []string, err error) {
	_, err = b.as(caller.Middleware).Do(ctx, installRequest(), func(p *systemv1.Progress) {
		progress = append(progress, p.GetStep())
		if then != nil {
			then(p.GetStep())
		}
	})
	return progress, err
}

func TestDebiansUpdatesAreInstalledOnceAndFollowed(t *testing.T) {
	b, m := managedBase(t)
	m.Write(services.DebianUpdatesUnit, map[string]any{"MESSAGE": "from last night", "__REALTIME_TIMESTAMP": "1000000"})
	say := func(text string) {
		m.Write(services.DebianUpdatesUnit, map[string]any{"MESSAGE": text, "__REALTIME_TIMESTAMP": fmt.Sprint(time.Now().UnixMicro())})
	}
	m.OnStart(func(unit string) {
		m.Set(unit, "activating")
		m.Change(unit, "StateChangeTimestamp", fmt.Sprintf("@%d", time.Now().Unix()))
		say("Unpacking libssl3")
	})
	b.start()
	ends := func(at string) func(string) {
		return func(step string) {
			if step == at {
				say("All upgrades installed")
				b.touchStamp()
				m.Set(services.DebianUpdatesUnit, "inactive")
			}
		}
	}
	progress, err := b.installThen(t.Context(), ends("Unpacking libssl3"))
	if want := []string{"started", "Unpacking libssl3", "All upgrades installed", "looking what still waits"}; err != nil ||
		!slices.Equal(progress, want) {
		t.Errorf("%q, %v", progress, err)
	}
	// It runs already, and the caller follows that.
	m.Set(services.DebianUpdatesUnit, "activating")
	m.Change(services.DebianUpdatesUnit, "StateChangeTimestamp", fmt.Sprintf("@%d", time.Now().Unix()))
	if progress, err = b.installThen(t.Context(), ends("it is running already")); err != nil || progress[0] != "it is running already" {
		t.Errorf("%q, %v", progress, err)
	}
	if done := m.Done(); !slices.Equal(done, []string{"start " + services.DebianUpdatesUnit}) {
		t.Errorf("done: %q", done)
	}
	b.readersLeave()
}

func (b *base) touchStamp() {
	if err := os.WriteFile(b.config.UpdateStamp, nil, 0o644); err != nil {
		b.t.Error(err)
	}
}

// Debian's unit ends well, whatever its installer did.
func TestAnInstallerThatCrashesIsNotTakenForOneThatIsDone(t *testing.T) {
	b, m := managedBase(t)
	b.touchStamp()
	if err := os.Chtimes(b.config.UpdateStamp, time.Time{}, time.Now().Add(-24*time.Hour)); err != nil {
		t.Fatal(err)
	}
	m.OnStart(func(unit string) { m.Set(unit, "inactive") })
	b.start()
	if _, err := b.install(t.Context()); err == nil || !strings.Contains(err.Error(), "did not end well") {
		t.Errorf("it is done: %v", err)
	}
}

func TestAnInstallationThatFailsSaysSoAndOneWithoutListenersGoesOn(t *testing.T) {
	b, m := managedBase(t)
	m.OnStart(func(unit string) {
		m.Set(unit, "failed")
		m.Change(unit, "Result", "exit-code")
		m.Change(unit, "ExecMainStatus", "100")
	})
	b.start()
	if _, err := b.install(t.Context()); err == nil || !strings.Contains(err.Error(), "it ended with status 100") {
		t.Errorf("one that failed: %v", err)
	}
	m.OnStart(func(unit string) { m.Set(unit, "activating") })
	ctx, hangUp := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer hangUp()
	if _, err := b.install(ctx); err == nil {
		t.Error("it has ended")
	}
	b.readersLeave()
	if done := m.Done(); slices.ContainsFunc(done, func(one string) bool { return strings.HasPrefix(one, "stop") }) {
		t.Errorf("done: %q", done)
	}
}
