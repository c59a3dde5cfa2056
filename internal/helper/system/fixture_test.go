package system

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/boottime"
	"github.com/BitBoxSwiss/bitbox-base/internal/failpoint"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/caller"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/ledger"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/services"
	"github.com/BitBoxSwiss/bitbox-base/internal/helperclient"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/noiseconn"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/pairing"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/posture"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/sshkey"
	"github.com/BitBoxSwiss/bitbox-base/internal/secret"
	"github.com/BitBoxSwiss/bitbox-base/internal/testbed/machinetest"
	"github.com/BitBoxSwiss/bitbox-base/internal/testbed/systemdtest"
)

// patience is far more than anything here takes.
const patience = 3 * time.Minute

// until waits until condition returns nil.
func until(t *testing.T, what string, condition func() error) {
	t.Helper()
	var err error
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(2 * time.Millisecond) {
		if err = condition(); err == nil {
			return
		}
	}
	t.Fatalf("waited %v until %s: %v", patience, what, err)
}

// base is a Base: a helper and its machine.
type base struct {
	t         *testing.T
	directory string
	world     *machinetest.Machine
	systemd   *systemdtest.Systemd
	fail      func(step string) error // of each step that reaches the disk or the machine; nil: none fails
	ahead     atomic.Int64            // how far the clock was put ahead
	config    Config
	helper    *Helper
	stop      func()
}

// newBase returns a Base that has never run.
func newBase(t *testing.T) *base {
	t.Helper()
	b := &base{t: t, directory: t.TempDir()}
	b.world = machinetest.New(b.directory)
	b.config = goldenConfig(b.world, b.directory)
	b.config.Clock = func() time.Duration { return boottime.Clock() + time.Duration(b.ahead.Load()) }
	b.systemd = b.config.Systemd.(*systemdtest.Systemd)
	return b
}

// nodePlace makes a folder of the node's, below that of a helper.
func nodePlace(directory, name string) string {
	place := filepath.Join(directory, "node", name)
	if err := os.MkdirAll(place, 0o755); err != nil {
		panic(err)
	}
	return place
}

// goldenConfig is a helper's with a directory of its own, and a machine of tests.
func goldenConfig(machine *machinetest.Machine, directory string) Config {
	_, updates, err := machinetest.NewSoftware(directory)
	if err != nil {
		panic(err)
	}
	place, err := machinetest.NodePlace(directory)
	if err != nil {
		panic(err)
	}
	zone, err := systemdtest.Zones(directory)
	if err != nil {
		panic(err)
	}
	table := append(services.BuiltIn(), systemdtest.Own("electrs", "Electrum server"), systemdtest.Own("bitcoind", "Bitcoin Core"))
	return Config{
		Config: ledger.Config{
			Directory: directory, Live: machine, Factory: posture.Factory(), BootID: "boot 1", Clock: boottime.Clock,
			Logger: slog.New(slog.DiscardHandler),
		},
		Banner: machine, Network: machine, Sockets: machine, Auditor: machine, Updates: updates,
		Systemd: systemdtest.New(table), Services: table, TimeZone: zone, Node: place, Installed: machinetest.OnlyBtcd,
		UpdateStamp:  filepath.Join(directory, "upgrade-stamp"),
		NodeIncoming: nodePlace(directory, "incoming"), NodeRuntime: nodePlace(directory, "runtime"), Architecture: "amd64",
	}
}

// start runs the helper, and waits until the machine is as it says.
func (b *base) start() {
	b.t.Helper()
	if b.fail != nil {
		b.t.Cleanup(failpoint.Set(b.fail))
	}
	var err error
	if b.helper, err = Open(b.config); err != nil {
		b.t.Fatalf("open the helper: %v", err)
	}
	b.helper.keeper.Apply.VerifyTime = 100 * time.Millisecond
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		b.helper.Run(ctx)
	}()
	stopped := false
	b.stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		<-done
		if err := b.helper.Close(); err != nil {
			b.t.Errorf("close the helper: %v", err)
		}
	}
	b.t.Cleanup(b.stop)
}

// settled waits until the machine is what the ledger says.
func (b *base) settled() {
	b.t.Helper()
	until(b.t, "the machine is what the ledger says", func() error {
		if _, applying, failure := b.helper.keeper.InForce(); applying || failure != nil {
			return errors.Join(errors.New("the worker is not done"), failure)
		}
		return b.world.Is(b.helper.Effective())
	})
}

// advance puts the clock ahead, and has the ledger look at it.
func (b *base) advance(d time.Duration) {
	b.ahead.Add(int64(d))
	b.helper.keeper.Summary()
}

// as is a client that calls as who, within this process.
func (b *base) as(who caller.Who) helperclient.Client {
	return helperclient.Client{Port: b.helper.Port(who)}
}

// app is an App: its keys, and what it has seen of the Base.
type app struct {
	base   *base
	seed   posture.AppSeed
	key    posture.SigningKey
	name   string
	memory posture.Memory
	// via is what carries its requests.
	via helperclient.Client
}

var (
	generateAppSeed func(io.Reader) (posture.AppSeed, error) = secret.Generate
	parseAppSeed    func([]byte) (posture.AppSeed, error)    = secret.New
)

func newAppSeed() posture.AppSeed {
	seed, err := generateAppSeed(rand.Reader)
	if err != nil {
		panic(err)
	}
	return seed
}

// newOpenBase returns a Base that runs, and on which an owner has opened what posture open opens.
func newOpenBase(t *testing.T) (*base, *app) {
	t.Helper()
	b := newBase(t)
	b.start()
	a := b.pair(b.as(caller.Middleware), "phone", owner)
	a.mustSubmit(open)
	b.settled()
	return b, a
}

// pair runs a whole ceremony through the given Middleware, with a human who says
// yes at the console.
func (b *base) pair(middleware helperclient.Client, name string, role basev1.Role) *app {
	b.t.Helper()
	a := &app{base: b, seed: newAppSeed(), name: name, via: middleware}
	a.key = posture.PublicKey(a.seed)
	if err := b.ceremony(middleware.Authority(), b.as(caller.Console).Authority(), a, role); err != nil {
		b.t.Fatalf("pair %s: %v", name, err)
	}
	return a
}

func (b *base) ceremony(middleware, console pairing.Client, a *app, role basev1.Role) error {
	ctx := b.t.Context()
	p1 := make([]byte, noiseconn.P1Size)
	appKey, h, ra := [32]byte{}, [32]byte{}, [32]byte{}
	for _, random := range [][]byte{p1, appKey[:], h[:], ra[:]} {
		_, _ = rand.Read(random)
	}
	appKey[31] &= 0x7f // canonical
	private := ed25519.NewKeyFromSeed(a.seed.Expose())
	public := private.Public().(ed25519.PublicKey)
	if err := console.OpenWindow(ctx); err != nil {
		return err
	}
	if _, _, _, err := middleware.Hear(ctx, p1, netip.AddrFrom16([16]byte(p1))); err != nil {
		return err
	}
	if err := console.Accept(ctx, noiseconn.RequestNumber(p1), role); err != nil {
		return err
	}
	_, id, _, err := middleware.Hear(ctx, p1, netip.AddrFrom16([16]byte(p1)))
	if err != nil {
		return err
	}
	payload, err := (&noiseconn.P3Payload{RA: ra, SigningKey: public, Name: a.name}).Marshal()
	if err != nil {
		return err
	}
	record, _, err := middleware.Reveal(ctx, id, h, payload, appKey)
	if err != nil {
		return err
	}
	p4, err := noiseconn.ParseP4(record)
	if err != nil {
		return err
	}
	if err := console.Answer(ctx, id, true); err != nil {
		return err
	}
	if _, _, err := middleware.Enrol(ctx, id, ed25519.Sign(private, noiseconn.EnrolMessage(h, public, ra, p4.RB))); err != nil {
		return err
	}
	return middleware.Activate(ctx, public)
}

// look is an App's look at the Base.
func (a *app) look() *posture.View {
	a.base.t.Helper()
	view, err := a.lookAt(a.base.t.Context(), a.base.helper.StateKey())
	if err != nil {
		a.base.t.Fatalf("the App does not believe the Base: %v", err)
	}
	return view
}

func (a *app) lookAt(ctx context.Context, stateKey ed25519.PublicKey) (*posture.View, error) {
	nonce := make([]byte, 32)
	_, _ = rand.Read(nonce)
	reply, err := a.via.Do(ctx, getPosture(nonce, false), nil)
	if err != nil {
		return nil, err
	}
	expect := posture.Expectation{Base: posture.SigningKey(stateKey), Memory: a.memory, Nonce: nonce}
	view, err := posture.VerifyChain(expect, reply.GetPosture().GetChain(), reply.GetPosture().GetReport())
	if err != nil {
		return nil, err
	}
	a.memory = view.Memory()
	return view, nil
}

func getPosture(nonce []byte, challenge bool) *systemv1.SystemRequest {
	return &systemv1.SystemRequest{Verb: &systemv1.SystemRequest_GetPosture{GetPosture: &systemv1.GetPosture{Nonce: nonce,
		Challenge: challenge}}}
}

func (a *app) challenge() []byte {
	a.base.t.Helper()
	challenge, err := a.askChallenge(a.base.t.Context())
	if err != nil {
		a.base.t.Fatalf("get a challenge: %v", err)
	}
	return challenge
}

func (a *app) askChallenge(ctx context.Context) ([]byte, error) {
	reply, err := a.via.Do(ctx, getPosture(make([]byte, 32), true), nil)
	return reply.GetPosture().GetChallenge(), err
}

// draft is the next document with a change, not signed yet.
func (a *app) draft(try bool, change func(p *posture.Posture, next uint64)) *systemv1.PostureDocument {
	a.base.t.Helper()
	doc, err := draftFrom(a.look(), a.challenge(), try, change)
	if err != nil {
		a.base.t.Fatalf("draft: %v", err)
	}
	return doc
}

func draftFrom(view *posture.View, challenge []byte, try bool, change func(*posture.Posture, uint64)) (*systemv1.PostureDocument, error) {
	p, revision := view.Posture()
	change(&p, revision+1)
	var lifts []uint64
	for _, r := range view.Liftable() {
		lifts = append(lifts, r.Number)
	}
	return view.Draft(p, lifts, challenge, try, time.Now())
}

// submitSigned carries bytes to the helper as a Middleware would.
func (a *app) submitSigned(signed []byte) error {
	_, err := a.via.Do(a.base.t.Context(), submitRequest(signed), nil)
	return err
}

// confirm brings a confirmation over a connection that began then, in milliseconds of the boot-time clock.
func (a *app) confirm(signed []byte, connected uint64) error {
	_, err := a.via.Do(a.base.t.Context(), &systemv1.SystemRequest{Verb: &systemv1.SystemRequest_ConfirmTry{
		ConfirmTry: &systemv1.ConfirmTry{Confirmation: signed, ConnectedAtMs: connected}}}, nil)
	return err
}

func submitRequest(signed []byte) *systemv1.SystemRequest {
	return &systemv1.SystemRequest{Verb: &systemv1.SystemRequest_Submit{Submit: &systemv1.Submit{Document: signed}}}
}

func (a *app) submit(change func(p *posture.Posture, next uint64)) error {
	a.base.t.Helper()
	return a.submitSigned(posture.SignDocument(a.draft(false, change), a.seed))
}

func (a *app) mustSubmit(change func(p *posture.Posture, next uint64)) {
	a.base.t.Helper()
	if err := a.submit(change); err != nil {
		a.base.t.Fatalf("submit: %v", err)
	}
}

// Changes.

func testKey() sshkey.Key { return keyOf(7) }

// keyOf is the SSH key of a seed.
func keyOf(seed byte) sshkey.Key {
	private := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, ed25519.SeedSize))
	public, err := ssh.NewPublicKey(private.Public())
	if err != nil {
		panic(err)
	}
	key, err := sshkey.Parse(strings.TrimSpace(string(ssh.MarshalAuthorizedKey(public))))
	if err != nil {
		panic(err)
	}
	return key
}

// open opens what can be opened: the Electrum API on a port of its own, and SSH.
func open(p *posture.Posture, next uint64) {
	exposeOwnPort(p, next)
	p.SSHKeys = []sshkey.Key{testKey()}
	p.SSH = &posture.Lease{Length: time.Hour, GrantedIn: next}
}

func exposeOwnPort(p *posture.Posture, next uint64) {
	p.Extras = []posture.ExtraEndpoint{{Kind: posture.KindElectrum, OwnPort: true,
		Lease: posture.Lease{Length: 24 * time.Hour, GrantedIn: next}}}
}

func (b *base) restrict(who caller.Who, r *systemv1.Restrict) error {
	_, err := b.as(who).Do(b.t.Context(), &systemv1.SystemRequest{Verb: &systemv1.SystemRequest_Restrict{Restrict: r}}, nil)
	return err
}

// local makes a change as root at the console.
func (b *base) local(change *systemv1.LocalChange) error {
	_, err := b.as(caller.Root).Do(b.t.Context(), &systemv1.SystemRequest{Verb: &systemv1.SystemRequest_LocalChange{LocalChange: change}}, nil)
	return err
}

func unlock(reopen bool) *systemv1.LocalChange {
	return &systemv1.LocalChange{Change: &systemv1.LocalChange_LiftRestrictions{LiftRestrictions: &systemv1.LiftRestrictions{Reopen: reopen}}}
}

func lockdown() *systemv1.Restrict {
	return &systemv1.Restrict{What: &systemv1.Restrict_Lockdown{Lockdown: &systemv1.Lockdown{}}}
}
