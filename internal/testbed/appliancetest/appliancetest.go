// Package appliancetest runs an appliance in the process of a test: the real system helper, the
// real Middleware, and a real channel between it and an App. A simple forwarder replaces NGINX,
// and the packages machinetest and systemdtest replace the machine. So nothing outside of temporary
// directories is touched, and no root is needed.
package appliancetest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/boottime"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/caller"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/ledger"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/nodeorders"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/services"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/system"
	"github.com/BitBoxSwiss/bitbox-base/internal/helperclient"
	"github.com/BitBoxSwiss/bitbox-base/internal/middleware/daemon"
	"github.com/BitBoxSwiss/bitbox-base/internal/nodeclient"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/pairing"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/posture"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/provisioning"
	"github.com/BitBoxSwiss/bitbox-base/internal/testbed/machinetest"
	"github.com/BitBoxSwiss/bitbox-base/internal/testbed/systemdtest"
)

// acceptEvery is how often a request that has not arrived yet is looked for.
const acceptEvery = 20 * time.Millisecond

// Helper is a system helper with its machine.
type Helper struct {
	*system.Helper
	Machine *machinetest.Machine
	// Software is what updates change.
	Software *machinetest.Software
	// Services are what runs on the machine.
	Services *systemdtest.Systemd

	// Signers is the folder with the builder's list of signers of Bitcoin Core; empty: there is none.
	Signers string

	directory string
	ahead     atomic.Int64 // how far its clock was put ahead
	cancel    context.CancelFunc
	done      chan struct{}

	mu    sync.Mutex
	stops func(target string) // is called with reboot.target or poweroff.target
}

// StartHelper runs a helper. Its state is new, unless it is a copy of another one's
// (from), as if a disk had been put back.
func StartHelper(from *Helper) (*Helper, error) {
	directory, err := os.MkdirTemp("", "helper")
	if err != nil {
		return nil, err
	}
	if from != nil {
		if err := copyFiles(directory, from.directory); err != nil {
			return nil, errors.Join(err, os.RemoveAll(directory))
		}
	}
	return startHelper(directory, provisioning.File{})
}

func startHelper(directory string, given provisioning.File) (h *Helper, err error) {
	h = &Helper{Machine: machinetest.New(directory), directory: directory, done: make(chan struct{})}
	software, receiver, err := machinetest.NewSoftware(directory)
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(directory))
	}
	h.Software = software
	place, err := machinetest.NodePlace(directory)
	if err != nil {
		return nil, err
	}
	zone, err := systemdtest.Zones(directory)
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(directory))
	}
	table := append(services.BuiltIn(), systemdtest.Own("electrs", "Electrum server"))
	if err := h.makeNodePlaces(); err != nil {
		return nil, errors.Join(err, os.RemoveAll(directory))
	}
	h.Services = systemdtest.New(table)
	h.stops = func(string) {}
	h.Services.OnStart(h.started)
	h.Helper, err = system.Open(system.Config{
		Config: ledger.Config{
			Directory: directory, Live: h.Machine, NoDisplay: given.NoDisplay, Claim: given.Claim, Factory: given.Factory(),
			BootID:     "the only boot",
			Identities: func(e posture.Effective) posture.Identities { return software.Identities(directory, e) },
			Clock:      func() time.Duration { return boottime.Clock() + time.Duration(h.ahead.Load()) },
		},
		Banner: h.Machine, Network: h.Machine, Sockets: h.Machine, Auditor: h.Machine, Updates: receiver,
		Disks: h.Machine, DiskStore: h.Machine.DiskStore(),
		Systemd: h.Services, Services: table, TimeZone: zone, Node: place, Installed: machinetest.OnlyBtcd, UpdateStamp: h.stamp(),
		NodeIncoming: h.nodePlace("incoming"), NodeRuntime: h.nodePlace("runtime"), Architecture: "amd64",
	})
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(directory))
	}
	var ctx context.Context
	ctx, h.cancel = context.WithCancel(context.Background())
	go func() {
		defer close(h.done)
		h.Run(ctx)
	}()
	return h, nil
}

// nodePlace is a folder of the node, instead of one of the appliance.
func (h *Helper) nodePlace(name string) string { return filepath.Join(h.directory, "node", name) }

// BitcoinCore is the place of the release that an owner has brought.
func (h *Helper) BitcoinCore() string { return h.nodePlace("bitcoin-core") }

// Rebuild is the order to make the chain again.
func (h *Helper) Rebuild() string {
	return filepath.Join(h.nodePlace("runtime"), nodeorders.RebuildFile)
}

func (h *Helper) makeNodePlaces() error {
	var errs []error
	for _, place := range []string{h.nodePlace("incoming"), h.nodePlace("runtime"), h.BitcoinCore()} {
		errs = append(errs, os.MkdirAll(place, 0o755))
	}
	return errors.Join(errs...)
}

func (h *Helper) stamp() string { return filepath.Join(h.directory, "upgrade-stamp") }

// started does what some units do.
func (h *Helper) started(unit string) {
	switch {
	case strings.HasSuffix(unit, ".target"):
		h.mu.Lock()
		defer h.mu.Unlock()
		go h.stops(unit)
	case unit == nodeorders.Unit:
		_ = nodeorders.Install(context.Background(), h.nodePlace("incoming"), h.Signers, "amd64", h.BitcoinCore())
		h.Services.Set(unit, "inactive")
	case unit == services.DebianUpdatesUnit:
		h.Services.Say(unit, "Unpacking libssl3 (3.0.17-1~deb12u3)")
		h.Services.Set(unit, "inactive")
		_ = os.WriteFile(h.stamp(), nil, 0o644) // without it the update has failed
	}
}

// copyFiles copies what stands in a directory, not what stands below.
func copyFiles(to, from string) error {
	entries, err := os.ReadDir(from)
	for _, e := range entries {
		if err != nil || !e.Type().IsRegular() {
			continue
		}
		var content []byte
		if content, err = os.ReadFile(filepath.Join(from, e.Name())); err == nil {
			err = os.WriteFile(filepath.Join(to, e.Name()), content, 0o600)
		}
	}
	return err
}

// Advance puts the clock of the helper ahead. The next question finds every lease and try ended
// whose time is over by then.
func (h *Helper) Advance(d time.Duration) { h.ahead.Add(int64(d)) }

// Let lets an App in, see the function Let.
func (h *Helper) Let(ctx context.Context, number string, role basev1.Role) error {
	return Let(ctx, helperclient.Client{Port: h.Port(caller.Console)}.Authority(), number, role)
}

// Let plays somebody at a Base who accepts an App's number ("123 456"), and says
// yes to the code.
func Let(ctx context.Context, console pairing.Client, number string, role basev1.Role) error {
	n, err := strconv.ParseUint(strings.ReplaceAll(number, " ", ""), 10, 32)
	if err != nil {
		return fmt.Errorf("read the request number %q: %w", number, err)
	}
	if err := console.OpenWindow(ctx); err != nil {
		return err
	}
	for err = console.Accept(ctx, uint32(n), role); err != nil; err = console.Accept(ctx, uint32(n), role) {
		select { // the request may not have arrived yet
		case <-ctx.Done():
			return err
		case <-time.After(acceptEvery):
		}
	}
	for seen := uint64(0); ; {
		snapshot, err := console.Watch(ctx, seen)
		if err != nil {
			return err
		}
		if snapshot.GetCeremony().GetPhase() == systemv1.Ceremony_PHASE_SHOWN {
			id, _ := pairing.CeremonyIDOf(snapshot)
			return console.Answer(ctx, id, true)
		}
		seen = snapshot.GetVersion()
	}
}

// Stop ends the helper and deletes its state.
func (h *Helper) Stop() error {
	h.cancel()
	<-h.done
	h.Software.Wait()
	return errors.Join(h.Close(), os.RemoveAll(h.directory))
}

// Appliance is a helper, the Middleware, and what stands before that.
type Appliance struct {
	*Helper
	stateDir string
	tcp      net.Listener
	cancel   context.CancelFunc
	done     chan error
	passed   atomic.Uint32     // connections
	port     helperclient.Port // the Middleware's way to the helper

	stopping sync.Mutex // held while the Middleware is restarted or ended
	stopped  bool

	mu    sync.Mutex // guards what follows
	shut  bool
	conns map[net.Conn]struct{}
}

// Start runs an appliance. through may put something between its Middleware and
// its helper: then the Middleware is one that was taken over. It may be nil.
func Start(through func(helperclient.Port) helperclient.Port) (*Appliance, error) {
	helper, err := StartHelper(nil)
	if err != nil {
		return nil, err
	}
	return start(helper, through)
}

// StartWithoutDisplay is Start, for a Base that nobody can stand before.
func StartWithoutDisplay(through func(helperclient.Port) helperclient.Port) (*Appliance, error) {
	return StartProvisioned(provisioning.File{NoDisplay: true}, through)
}

// StartProvisioned is Start, for a new Base with a provisioning file.
func StartProvisioned(given provisioning.File, through func(helperclient.Port) helperclient.Port) (*Appliance, error) {
	directory, err := os.MkdirTemp("", "helper")
	if err != nil {
		return nil, err
	}
	helper, err := startHelper(directory, given)
	if err != nil {
		return nil, err
	}
	return start(helper, through)
}

func start(helper *Helper, through func(helperclient.Port) helperclient.Port) (*Appliance, error) {
	a := &Appliance{Helper: helper, done: make(chan error, 1), conns: map[net.Conn]struct{}{}, cancel: func() {}}
	if err := a.start(through); err != nil {
		a.done <- nil
		return nil, errors.Join(err, a.Stop())
	}
	return a, nil
}

func (a *Appliance) start(through func(helperclient.Port) helperclient.Port) (err error) {
	if a.stateDir, err = os.MkdirTemp("", "middleware"); err != nil { // short, for the socket's path
		return err
	}
	if a.tcp, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		return err
	}
	a.port = a.Port(caller.Middleware)
	if through != nil {
		a.port = through(a.port)
	}
	if err := a.startMiddleware(); err != nil {
		return err
	}
	a.Software.OnRestart(func() {
		a.Shut()
		a.Open()
	})
	a.Helper.mu.Lock()
	defer a.Helper.mu.Unlock()
	a.stops = func(target string) {
		a.Shut()
		if target == "reboot.target" {
			a.restartMiddleware()
		}
	}
	go a.serve()
	return nil
}

func (a *Appliance) startMiddleware() error {
	entry, err := net.Listen("unix", a.socket())
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	a.cancel = cancel
	go func() {
		a.done <- daemon.Run(ctx, daemon.ApplianceConfig{
			StateDir: a.middlewareState(), Entry: entry,
			Helper: helperclient.Client{Port: a.port}, Node: nodeclient.Dial(a.NodeSocket()), Logger: slog.New(slog.DiscardHandler),
		})
	}()
	return nil
}

// restartMiddleware is what a reboot is to an App.
func (a *Appliance) restartMiddleware() {
	a.stopping.Lock()
	defer a.stopping.Unlock()
	if a.stopped {
		return
	}
	a.cancel()
	err := <-a.done
	if err == nil {
		err = a.startMiddleware()
	}
	if err != nil {
		a.done <- err // for Stop
		return
	}
	a.Open()
}

// NodeSocket is where its Middleware looks for bitbox-node. Nothing answers there by itself.
func (a *Appliance) NodeSocket() string { return filepath.Join(a.stateDir, "node") }

// Directories are where the helper and the Middleware keep what they store.
func (a *Appliance) Directories() (helper, middleware string) {
	return a.directory, a.middlewareState()
}

func (a *Appliance) middlewareState() string { return filepath.Join(a.stateDir, "state") }

func (a *Appliance) socket() string { return filepath.Join(a.stateDir, "entry") }

// Address is where Apps reach it.
func (a *Appliance) Address() string { return a.tcp.Addr().String() }

// Stop ends the appliance and deletes its state.
func (a *Appliance) Stop() error {
	if a.tcp != nil {
		_ = a.tcp.Close()
	}
	a.Shut()
	a.stopping.Lock()
	defer a.stopping.Unlock()
	a.stopped = true
	a.cancel()
	ended := <-a.done
	if errors.Is(ended, &helperclient.Error{Code: helperclient.CodeReset}) {
		ended = nil // it began when a factory reset was ordered already
	}
	return errors.Join(ended, a.Helper.Stop(), os.RemoveAll(a.stateDir))
}

// Shut ends all connections and lets none in, as if a change had closed the entry.
func (a *Appliance) Shut() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.shut = true
	for conn := range a.conns {
		_ = conn.Close()
	}
}

// Open takes Shut back.
func (a *Appliance) Open() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.shut = false
}

// serve is NGINX's part.
func (a *Appliance) serve() {
	for {
		conn, err := a.tcp.Accept()
		if err != nil {
			return
		}
		go a.pass(conn)
	}
}

func (a *Appliance) pass(conn net.Conn) {
	defer conn.Close()
	a.mu.Lock()
	if a.shut {
		a.mu.Unlock()
		return
	}
	a.conns[conn] = struct{}{}
	a.mu.Unlock()
	defer func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		delete(a.conns, conn)
	}()
	inner, err := net.Dial("unix", a.socket())
	if err != nil {
		return
	}
	defer inner.Close()
	// Each comes from an address of its own, since the limits of one address would
	// make tests wait.
	from, port := a.passed.Add(1), conn.RemoteAddr().(*net.TCPAddr).Port
	if _, err := fmt.Fprintf(inner, "PROXY TCP4 10.0.%d.%d 10.0.0.0 %d %d\r\n", from>>8&0xff, from&0xff, port, posture.EntryPort); err != nil {
		return
	}
	go func() {
		_, _ = io.Copy(inner, conn)
		// Not Close: it would throw away what the Base has sent before it ended.
		_ = inner.(*net.UnixConn).CloseWrite()
	}()
	_, _ = io.Copy(conn, inner)
}
