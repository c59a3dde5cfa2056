// Package system is the system helper, the one privileged process of the Base. It has the one
// table of what can be asked (verbs.go), and puts together the parts that do it:
//
//   - what is to be in force, on the disk and on the machine ([ledger.Keeper])
//   - what was changed, and who watches ([changerecorder.Log], internal/helper/events)
//   - a part for each group of verbs: bans, drift, announce, machine, services, updates, resets
//   - the server, which asks who may ask for what before it parses anything ([server.Server])
//
// # Who may ask for what
//
// Its clients are local processes on a unix socket: the Middleware, the console and root. Only
// the kernel identifies them. The verbs are fixed and typed (api/system/v1/system.proto). None
// names a path, a unit or a command. A Middleware that was taken over can close things, and can
// deliver documents that owners have signed. It cannot open anything, and cannot remove an
// owner's key.
package system

import (
	"context"
	"crypto/ed25519"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/BitBoxSwiss/bitbox-base/internal/helper/announce"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/bans"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/caller"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/chaindisk"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/changerecorder"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/debianupdates"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/drift"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/factoryreset"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/journal"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/ledger"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/machine"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/monitor"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/nodeorders"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/nodesettings"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/server"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/servicecontrol"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/services"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/timezone"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/turns"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/update"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/wallets"
	"github.com/BitBoxSwiss/bitbox-base/internal/helperclient"
	"github.com/BitBoxSwiss/bitbox-base/internal/node/settings"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/posture"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/release"
)

// Config is what a Helper is made of.
type Config struct {
	// Config is for what is to be in force.
	ledger.Config
	// Banner is fail2ban, Network is Avahi.
	Banner  bans.Banner
	Network announce.Network
	// Updates takes releases.
	Updates *update.Receiver
	// OldestSafe is the oldest version that may be gone back to, whatever the posture allows;
	// empty: any.
	OldestSafe string
	// Auditor looks for drift.
	Auditor drift.Auditor
	// AuditInterval is how often it looks by itself; 0: never.
	AuditInterval time.Duration
	// Bounds are the budgets of the callers; nil: server.CallerBounds.
	Bounds map[caller.Who]server.Bounds
	// Restart restarts the machine, once a factory reset was ordered; nil: nobody does.
	Restart func(ctx context.Context) error
	// Systemd is systemd and its journal, which are given no word that came from a request, but
	// for numbers. Services are those that there are.
	Systemd  debianupdates.Systemd
	Services services.Table
	// TimeZone is where the machine's is set.
	TimeZone timezone.Place
	// Node is where the settings of the Bitcoin node are. Installed tells whether the program of
	// some settings is there; nil: it is looked for.
	Node      settings.Place
	Installed func(settings.Settings) error
	// MonitorInterval is how often services and disk are looked at; 0: never.
	MonitorInterval time.Duration
	// UpdateStamp is the file that Debian touches when its updates were installed well;
	// empty: Debian's.
	UpdateStamp string
	// Disks has the disks looked at and prepared; nil: nobody does. DiskStore is where that is kept.
	Disks     chaindisk.Machine
	DiskStore chaindisk.Store
	// NodeIncoming and NodeRuntime are places of the Bitcoin node (internal/helper/nodeorders); empty:
	// those of the appliance. Architecture is Debian's name for the machine's.
	NodeIncoming, NodeRuntime, Architecture string
	// Sockets is what the kernel knows of connections.
	Sockets wallets.Sockets
	// Disk returns how much there is, and is free, on the disk with the state, in
	// bytes; nil: it is asked for.
	Disk func() (total, available uint64, err error)
}

// Helper is the system helper.
type Helper struct {
	config    Config
	keeper    *ledger.Keeper
	changes   *changerecorder.Log
	bans      *bans.Bans
	drift     *drift.Drift
	announcer *announce.Announcer
	machine   *machine.Machine
	services  *servicecontrol.Control
	journal   *journal.Logs
	debian    *debianupdates.Debian
	updates   *update.Verbs
	resets    *factoryreset.Orders
	disks     *chaindisk.Verbs
	node      *nodeorders.Orders
	settings  *nodesettings.Settings
	monitor   *monitor.Looker
	wallets   *wallets.Wallets
	later     turns.Later
	server    *server.Server
}

// Open reads the helper's state, or makes it (ledger.Open). Nothing of the machine is touched
// yet: Run does that.
func Open(config Config) (*Helper, error) {
	if config.Logger == nil {
		config.Logger = slog.New(slog.DiscardHandler)
	}
	if config.Disk == nil {
		config.Disk = func() (uint64, uint64, error) { return machine.DiskSpace(config.Directory) }
	}
	keeper, err := ledger.Open(withNode(config.Config, config.Node, config.Logger))
	if err != nil {
		return nil, err
	}
	h := &Helper{config: config, keeper: keeper, later: turns.NewLater()}
	log, clock, hub := config.Logger, config.Clock, keeper.Events
	if err := hub.Resume(config.Directory); err != nil {
		log.Warn("Apps will read that events may be missing", "error", err)
	}
	// systemd does nothing else while it reloads its units, so a reload and a change of a
	// service wait for each other.
	busy := turns.New()
	h.changes = changerecorder.NewLog(keeper.Changes, keeper, config.Updates, keeper.SignHead)
	h.bans = bans.New(config.Banner, keeper, hub, log)
	h.drift = drift.New(config.Auditor, keeper, keeper.Changes.Usable, hub, clock, log)
	name := func() string { return keeper.Effective().NodeName }
	h.announcer = announce.New(config.Network, name, keeper.ClaimID, keeper.Changed, log)
	h.disks = chaindisk.NewVerbs(chaindisk.Config{
		Machine: config.Disks, Store: config.DiskStore, Ledger: keeper, Events: hub, Clock: clock, Log: log,
		Fit: func(ctx context.Context, size uint64) error { return h.settings.Fit(ctx, size) },
	})
	h.machine = machine.New(machine.Config{
		Disks: h.disks.Known, Systemd: config.Systemd, Zone: config.TimeZone, Reading: busy, Name: name, Later: h.later, Events: hub,
		Clock: clock, Log: log,
	})
	h.services = servicecontrol.New(servicecontrol.Config{
		Systemd: config.Systemd, Table: config.Services, Directory: config.Directory, Applying: keeper.Applying, Turn: busy, Later: h.later,
		Clock: clock, Log: log,
	})
	h.settings = nodesettings.New(nodesettings.Config{
		Place: config.Node, Ledger: keeper, Systemd: config.Systemd, Installed: config.Installed, Turn: busy, Log: log,
	})
	h.journal = &journal.Logs{Table: config.Services, Source: config.Systemd, Readers: &journal.Readers{}}
	h.debian = debianupdates.New(debianupdates.Config{
		Systemd: config.Systemd, Readers: h.journal.Readers, Stamp: config.UpdateStamp, Stopping: h.machine.Stopping,
		IsImage: config.Updates.IsImage, Renew: h.drift.Renew, Log: log,
	})
	h.updates = update.NewVerbs(config.Updates, h.drift.DebianUpdates, h.oldest, h.machine.MayStop, log)
	h.node = nodeorders.New(nodeorders.Config{
		Incoming: config.NodeIncoming, Runtime: config.NodeRuntime, Architecture: config.Architecture, Ledger: keeper, Systemd: config.Systemd,
		Later: h.later, Log: log,
	})
	h.resets = factoryreset.NewOrders(config.Directory, keeper, config.Restart, log)
	h.monitor = &monitor.Looker{
		Services: h.services.Services, Disk: config.Disk, Updates: h.drift.DebianUpdates, Events: hub, Clock: clock, Log: log,
	}
	h.wallets = wallets.New(config.Sockets, keeper.Effective, time.Now, log)
	h.machine.Refuse = []func(context.Context) error{h.updates.RefuseWhileInstalling, h.debian.RefuseWhileInstalling, h.refuseWhileApplying}
	h.server = server.New(h.verbs(), config.Bounds, h.changes, h.resets.Refuse, log)
	return h, nil
}

// withNode puts the node that was chosen into each signed report. A new fault of its settings is logged.
func withNode(c ledger.Config, place settings.Place, log *slog.Logger) ledger.Config {
	identities := c.Identities
	var told atomic.Pointer[string]
	c.Identities = func(e posture.Effective) (i posture.Identities) {
		if identities != nil {
			i = identities(e)
		}
		var err error
		i.Node, err = nodesettings.Chosen(place)
		fault := i.Node.GetFault()
		if before := told.Swap(&fault); err != nil && (before == nil || *before != fault) {
			log.Warn("the settings of the node cannot be read", "error", err)
		}
		return i
	}
	return c
}

// oldest is the oldest version that may be gone back to. An owner can raise it, and not lower it
// below what the running version knows.
func (h *Helper) oldest() string {
	allowed := h.keeper.Effective().OldestVersion
	if release.Below(allowed, h.config.OldestSafe) {
		return h.config.OldestSafe
	}
	return allowed
}

// refuseWhileApplying refuses to stop the machine in the middle of a change.
func (h *Helper) refuseWhileApplying(context.Context) error {
	if h.keeper.Applying() {
		return helperclient.Errorf(helperclient.CodeBusy, "a change of the posture is being applied; try again in a moment")
	}
	return nil
}

// Run keeps the machine as the ledger says, and looks after it, until ctx ends.
func (h *Helper) Run(ctx context.Context) {
	var running sync.WaitGroup
	defer running.Wait()
	for _, run := range []func(context.Context){
		h.keeper.Run, h.announcer.Run, h.bans.Run, h.changes.Run, h.resets.Run, h.later.Run, h.disks.Run, h.wallets.Run,
		func(ctx context.Context) { h.drift.Run(ctx, h.config.AuditInterval) },
	} {
		running.Go(func() { run(ctx) })
	}
	if h.config.MonitorInterval > 0 {
		running.Go(func() { h.monitor.Run(ctx, h.config.MonitorInterval) })
	}
}

// Serve takes requests on every listener until ctx ends.
func (h *Helper) Serve(ctx context.Context, users caller.Users, listeners ...*net.UnixListener) error {
	return h.server.Serve(ctx, users, listeners...)
}

// Port returns the way to the Helper within its own process.
func (h *Helper) Port(who caller.Who) helperclient.Port { return h.server.Port(who) }

// Close ends the authority, and closes the state. Run must have returned.
func (h *Helper) Close() error {
	if err := h.keeper.Events.Keep(h.config.Directory); err != nil {
		h.config.Logger.Warn("after the next start Apps will read that events may be missing", "error", err)
	}
	return h.keeper.Close()
}

// StateKey returns the public half of K_state, the Base's id for Apps.
func (h *Helper) StateKey() ed25519.PublicKey { return h.keeper.StateKey() }

// Effective is what is in force, or about to be.
func (h *Helper) Effective() posture.Effective { return h.keeper.Effective() }

// Reapply puts what is in force in force again, whole, and returns when it is.
func (h *Helper) Reapply(ctx context.Context) error { return h.keeper.Reapply(ctx) }
