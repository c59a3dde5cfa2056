//go:build linux

package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/boottime"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/caller"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/chaindisk"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/firewall"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/generation"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/host"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/ledger"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/server"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/services"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/system"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/timezone"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/units"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/update"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/update/debian"
	"github.com/BitBoxSwiss/bitbox-base/internal/helperclient"
	"github.com/BitBoxSwiss/bitbox-base/internal/ipc"
	"github.com/BitBoxSwiss/bitbox-base/internal/node/settings"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/posture"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/sshkey"
	"github.com/BitBoxSwiss/bitbox-base/test/stage"
)

// floodPatience is how long the intruder waits for one answer. It hangs up on what is answered
// without end, and on what takes long: an audit goes on for nobody then.
const floodPatience = time.Second

// beyondPlaces is how many more connections the intruder asks for than one user may have.
const beyondPlaces = 32

// flood is what an intruder in the Middleware does, in the Base: on all connections that it gets,
// and on more, it asks again and again until it is ended. Half of them ask for the services alone,
// as fast as they are answered. The others send each verb in turn.
func flood() error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	client := helperclient.Client{Port: helperclient.Dial(generation.SystemSocket)}
	everything := eachVerb()
	services := []*systemv1.SystemRequest{{Verb: &systemv1.SystemRequest_ListServices{ListServices: &systemv1.ListServices{}}}}
	var asked, refused atomic.Int64
	var looping sync.WaitGroup
	for n := range ipc.MaxPerUser + beyondPlaces {
		requests := everything
		if n%2 == 0 {
			requests = services
		}
		looping.Go(func() {
			for next := n; ctx.Err() == nil; next++ {
				asking, hangUp := context.WithTimeout(ctx, floodPatience)
				_, err := client.Do(asking, requests[next%len(requests)], nil)
				hangUp()
				if asked.Add(1); err != nil {
					refused.Add(1)
				}
			}
		})
	}
	looping.Wait()
	fmt.Printf("asked %d times, in %d ways, and got no answer or a refusal %d times\n", asked.Load(), len(everything), refused.Load())
	return nil
}

// eachVerb is a request for each verb of system.proto, empty or with what has the helper do the most, and
// what closes. Three are left out. A lockdown, a restart and the end of the machine may be had by any
// Middleware; then nothing is open that somebody at the console could close.
func eachVerb() (requests []*systemv1.SystemRequest) {
	full := []*systemv1.SystemRequest{
		{Verb: &systemv1.SystemRequest_ReadLogs{ReadLogs: &systemv1.ReadLogs{Request: &basev1.ReadLogsRequest{Lines: 1000}}}},
		{Verb: &systemv1.SystemRequest_ChangeService{ChangeService: &systemv1.ChangeService{
			Name: "mdns", Action: basev1.ServiceAction_SERVICE_ACTION_RESTART}}},
		{Verb: &systemv1.SystemRequest_SetTimeZone{SetTimeZone: &systemv1.SetTimeZone{Name: "Europe/Zurich"}}},
		{Verb: &systemv1.SystemRequest_SetTimeZone{SetTimeZone: &systemv1.SetTimeZone{Name: "Europe/Berlin"}}},
		{Verb: &systemv1.SystemRequest_FixFinding{FixFinding: &systemv1.FixFinding{Id: "kernel-settings"}}},
		{Verb: &systemv1.SystemRequest_GetPosture{GetPosture: &systemv1.GetPosture{Nonce: make([]byte, 32), Challenge: true}}},
		{Verb: &systemv1.SystemRequest_Submit{Submit: &systemv1.Submit{Document: make([]byte, posture.MaxDocumentSize)}}},
	}
	for _, r := range []*systemv1.Restrict{
		{What: &systemv1.Restrict_PairingShut{PairingShut: &systemv1.PairingShut{}}},
		{What: &systemv1.Restrict_AppCutOff{AppCutOff: &systemv1.AppCutOff{SigningKey: make([]byte, 32)}}},
		endLease(posture.KindSSH),
	} {
		full = append(full, &systemv1.SystemRequest{Verb: &systemv1.SystemRequest_Restrict{Restrict: r}})
	}
	fields := (&systemv1.SystemRequest{}).ProtoReflect().Descriptor().Oneofs().ByName("verb").Fields()
	for i := range fields.Len() {
		field := fields.Get(i)
		if field.Name() == "reboot" || field.Name() == "power_off" || field.Name() == "restrict" {
			continue
		}
		request := &systemv1.SystemRequest{}
		m := request.ProtoReflect()
		m.Set(field, m.NewField(field))
		requests = append(requests, request)
	}
	return append(requests, full...)
}

// unhurried is a machine on which nothing waits for a closing.
type unhurried struct{ host.Host }

func (unhurried) Closing() (end func()) { return func() {} }

// unbounded is the helper as it must not be: budgets that never bind, the same places for
// programs for all, nothing that waits for a closing, and a program for each request of the Middleware's
// that closes nothing.
func unbounded() error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	bootID, err := boottime.ID()
	if err != nil {
		return err
	}
	machine := host.New(1 << 20)
	updates, err := update.NewReceiver(update.NewStore(update.Directory), debian.Machine{}, nil)
	if err != nil {
		return err
	}
	all := map[caller.Who]server.Bounds{}
	for who := range server.CallerBounds {
		all[who] = server.Bounds{Holds: 1 << 40, Calls: 1 << 30, Work: 1 << 30}
	}
	helper, err := system.Open(system.Config{
		Config: ledger.Config{
			Directory: generation.StateDirectory, Factory: posture.Factory(), Clock: boottime.Clock, BootID: bootID, Live: unhurried{machine},
			Logger: slog.New(slog.NewTextHandler(os.Stderr, nil)),
		},
		Banner: machine, Network: machine, Systemd: machine, Services: services.BuiltIn(), Bounds: all, Updates: updates,
		Sockets: machine, Disks: machine, DiskStore: chaindisk.TheStore, Node: settings.At("/"), TimeZone: timezone.At("/"),
	})
	if err != nil {
		return err
	}
	users, err := caller.LookUp()
	if err != nil {
		return err
	}
	listener, err := passedListener()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go helper.Run(ctx)
	server := &ipc.Server{
		Authorize: func(peer ipc.Peer) error {
			_, err := users.Who(peer)
			return err
		},
		Handler: func(ctx context.Context, peer ipc.Peer, received *ipc.Request, send func([]byte) error) error {
			who, err := users.Who(peer)
			if err != nil {
				return err
			}
			b, err := received.Read()
			if err != nil {
				return err
			}
			request := &systemv1.SystemRequest{}
			if err := proto.Unmarshal(b, request); err != nil {
				return err
			}
			if who == caller.Middleware && request.GetRestrict() == nil {
				if _, err := units.Show(ctx, machine, services.BuiltIn().Units()...); err != nil {
					return err
				}
				return send(nil)
			}
			return helper.Port(who).Stream(ctx, request, func(reply *systemv1.SystemReply) error {
				b, err := proto.Marshal(reply)
				if err != nil {
					return err
				}
				return send(b)
			})
		},
	}
	return server.Serve(ctx, listener)
}

// flooded runs do while the Middleware's user floods the helper.
func (b *base) flooded(do func()) {
	b.t.Helper()
	b.MustExec("systemd-run", "--quiet", "--unit=flood", "--property=User="+firewall.MiddlewareUser, "/usr/bin/e2e-relay", "flood")
	b.WaitActive("flood.service")
	do()
	// Not by a job of systemd's: while it answers a flood it gets to none.
	b.MustExec("systemctl", "kill", "--signal=TERM", "flood.service")
	b.Until("the flood has ended", func() error {
		if state := b.State("flood.service"); state == "active" || state == "deactivating" {
			return errors.New(state)
		}
		return nil
	})
	b.t.Logf("the flood %s", strings.TrimSpace(b.Journal("flood.service")))
}

const (
	// rounds is how often each closing is measured, quiet and flooded.
	rounds = 3
	// measurements is how often all rounds are tried at the most.
	measurements = 3
	// brokenTime is the least time that a helper without budgets gets to close.
	brokenTime = 30 * time.Second
)

// closing is how long each kind of closing took. A cut has the block of the
// port in it: both are one step, in which the packet filter drops what is new before the connections
// that exist are ended (apply's closeAtOnce).
type closing struct{ lease, cut, lockdown time.Duration }

// String is what the bench reads (bench/closing.go).
func (c closing) String() string {
	return fmt.Sprintf("lease %v, cut %v, lockdown %v", c.lease, c.cut, c.lockdown)
}

// close measures what somebody at the console closes.
func (b *base) close(ctx context.Context) (took closing, err error) {
	_, key := newKey(b.t)
	own := netip.AddrPortFrom(b.V4, posture.Extras[0].Port)
	ended, err := b.openToAWallet(ctx, key, own)
	if err != nil {
		return closing{}, err
	}
	begun := time.Now()
	gone := make(chan time.Duration, 1)
	go func() {
		<-ended
		gone <- time.Since(begun)
	}()
	if err := restrictAs(ctx, b.console, endLease(posture.KindElectrum)); err != nil {
		return closing{}, err
	}
	took.lease = time.Since(begun)
	select {
	case took.cut = <-gone:
	case <-ctx.Done():
		return closing{}, ctx.Err()
	case <-time.After(stage.Patience):
		return closing{}, errors.New("the connection lives on")
	}
	// All is open again: the flood may have ended the lease of SSH, and no other.
	if _, err := b.openToAWallet(ctx, key, own); err != nil {
		return closing{}, err
	}
	begun = time.Now()
	if err := restrictAs(ctx, b.console, &systemv1.Restrict{What: &systemv1.Restrict_Lockdown{Lockdown: &systemv1.Lockdown{}}}); err != nil {
		return closing{}, err
	}
	took.lockdown = time.Since(begun)
	if state := b.State(generation.SSHUnit); state != "inactive" {
		return closing{}, fmt.Errorf("after the lockdown sshd is %s", state)
	}
	return took, nil
}

// compare measures by turns how long closing takes when the Base is quiet and under a flood, so that
// other programs of this machine slow both down. It returns the medians.
func (b *base) compare(ctx context.Context) (quiet, loaded closing, err error) {
	var without, under []closing
	for range rounds {
		took, err := b.close(ctx)
		if err != nil {
			return closing{}, closing{}, fmt.Errorf("quiet: %w", err)
		}
		without = append(without, took)
		b.flooded(func() { took, err = b.close(ctx) })
		if err != nil {
			return closing{}, closing{}, fmt.Errorf("under the flood: %w", err)
		}
		under = append(under, took)
		b.t.Logf("round %d: quietly %v; flooded %v", len(under), without[len(under)-1], took)
	}
	return medians(without), medians(under), nil
}

// openToAWallet opens SSH and the Electrum API, and connects a wallet to it. The channel is closed
// when its connection ends.
func (b *base) openToAWallet(ctx context.Context, key sshkey.Key, own netip.AddrPort) (ended <-chan struct{}, err error) {
	if err := b.openLocally(ctx, key); err != nil {
		return nil, err
	}
	conn, err := b.wallet(own)
	for deadline := time.Now().Add(stage.Patience); err != nil; conn, err = b.wallet(own) {
		if time.Now().After(deadline) || ctx.Err() != nil {
			return nil, fmt.Errorf("the wallet: %w", err)
		}
	}
	return ends(conn), nil
}

// medians returns the median of each kind.
func medians(all []closing) closing {
	median := func(of func(closing) time.Duration) time.Duration {
		var times []time.Duration
		for _, took := range all {
			times = append(times, of(took))
		}
		slices.Sort(times)
		return times[len(times)/2]
	}
	return closing{
		median(func(c closing) time.Duration { return c.lease }), median(func(c closing) time.Duration { return c.cut }),
		median(func(c closing) time.Duration { return c.lockdown }),
	}
}

func restrictAs(ctx context.Context, client helperclient.Client, r *systemv1.Restrict) error {
	ctx, cancel := context.WithTimeout(ctx, stage.Patience)
	defer cancel()
	_, err := client.Do(ctx, &systemv1.SystemRequest{Verb: &systemv1.SystemRequest_Restrict{Restrict: r}}, nil)
	return err
}

// openLocally opens SSH and the Electrum API as root at the console.
func (b *base) openLocally(ctx context.Context, key sshkey.Key) error {
	change := func(c *systemv1.LocalChange) error {
		_, err := b.root.Do(ctx, &systemv1.SystemRequest{Verb: &systemv1.SystemRequest_LocalChange{LocalChange: c}}, nil)
		return err
	}
	err := change(&systemv1.LocalChange{Change: &systemv1.LocalChange_LiftRestrictions{LiftRestrictions: &systemv1.LiftRestrictions{}}})
	if err != nil && !errors.Is(err, &helperclient.Error{Code: helperclient.CodeNothing}) {
		return err
	}
	reply, err := b.root.Do(ctx, &systemv1.SystemRequest{Verb: &systemv1.SystemRequest_GetPosture{
		GetPosture: &systemv1.GetPosture{Nonce: make([]byte, 32)}}}, nil)
	if err != nil {
		return err
	}
	view, err := posture.VerifyChain(posture.Expectation{Base: b.stateKey, Nonce: make([]byte, 32)}, reply.GetPosture().GetChain(),
		reply.GetPosture().GetReport())
	if err != nil {
		return err
	}
	p, revision := view.Posture()
	expose(true)(&p, revision+1)
	p.SSHKeys = []sshkey.Key{key}
	p.SSH = &posture.Lease{Length: 5 * time.Minute, GrantedIn: revision + 1}
	return change(&systemv1.LocalChange{Change: &systemv1.LocalChange_Posture{Posture: p.Proto()}})
}

// The attack: the Middleware was taken over, and asks for everything on 96 connections
// without end. Somebody at the console closes the Base meanwhile.
func TestClosingDoesNotDependOnLoad(t *testing.T) {
	b := boot(t)
	b.electrum()
	process := b.MustExec("systemctl", "show", "--property=MainPID,NRestarts", helperUnit)
	// A late closing is measured again: a helper that depends on load is late each time.
	var quiet, loaded closing
	var late []string
	for range measurements {
		var err error
		if quiet, loaded, err = b.compare(t.Context()); err != nil {
			t.Fatal(err)
		}
		if now := b.MustExec("systemctl", "show", "--property=MainPID,NRestarts", helperUnit); now != process {
			t.Errorf("the helper was %s, and is %s", process, now)
		}
		if late = loaded.beyond(quiet); len(late) == 0 {
			break
		}
		t.Logf("late under the flood: %s", strings.Join(late, ", "))
	}
	t.Logf("quiet: %v", quiet)
	t.Logf("under the flood: %v", loaded)
	if len(late) > 0 {
		t.Errorf("too late under each of %d floods: %s", measurements, strings.Join(late, ", "))
	}

	// Broken: without budgets and without a reserve, under the former limit of tasks.
	dropIn := b.Path(filepath.Join("etc/systemd/system", helperUnit+".d"))
	if err := errors.Join(os.MkdirAll(dropIn, 0o755), os.WriteFile(filepath.Join(dropIn, "broken.conf"),
		[]byte("[Service]\nExecStart=\nExecStart=/usr/bin/e2e-relay unbounded\nTasksMax=128\nCPUWeight=100\n"), 0o644)); err != nil {
		t.Fatal(err)
	}
	b.MustExec("systemctl", "daemon-reload")
	b.MustExec("systemctl", "restart", helperUnit)
	process = b.MustExec("systemctl", "show", "--property=MainPID,NRestarts", helperUnit)
	if _, err := b.close(t.Context()); err != nil {
		t.Fatalf("the helper without budgets does not even close when it is quiet, so this attack proves nothing: %v", err)
	}
	if now := b.MustExec("systemctl", "show", "--property=MainPID,NRestarts", helperUnit); now != process {
		t.Fatalf("the helper without budgets was %s when it was quiet, and is %s; this attack proves nothing", process, now)
	}
	var broken closing
	var err error
	// It may never come to an end, which is the attack's gain as well.
	ctx, cancel := context.WithTimeout(t.Context(), max(brokenTime, 10*quiet.lockdown))
	defer cancel()
	b.flooded(func() { broken, err = b.close(ctx) })
	crashed := b.MustExec("systemctl", "show", "--property=MainPID,NRestarts", helperUnit) != process
	t.Logf("broken: %v, crashed %v, %v", broken, crashed, err)
	if err == nil && !crashed && len(broken.beyond(quiet)) == 0 {
		t.Error("the helper without budgets closes in time as well; this attack proves nothing")
	}
}

// beyond lists what took more than twice its quiet time, or one second more where that is
// larger.
func (c closing) beyond(quiet closing) (late []string) {
	for what, times := range map[string][2]time.Duration{"the end of a lease": {c.lease, quiet.lease}, "a cut": {c.cut, quiet.cut},
		"a lockdown": {c.lockdown, quiet.lockdown}} {
		if times[0] > max(2*times[1], times[1]+time.Second) {
			late = append(late, fmt.Sprintf("%s took %v, and %v when quiet", what, times[0], times[1]))
		}
	}
	return late
}
