// Package system implements the system helper, the one privileged process of the Base.
//
// It holds the two machines that decide how open the Base is: the ceremony authority
// (internal/protocol/pairing) and the ledger of the posture (internal/protocol/posture). It
// puts the posture in force (internal/helper/apply), and audits the live machine against it.
//
// # Who may ask for what
//
// Its clients are local processes on a unix socket: the Middleware, the console and root. Only
// the kernel identifies them. The verbs are fixed and typed (api/system/v1/system.proto). None
// names a path, a unit or a command. A Middleware that was taken over can close things, and can
// deliver documents that owners have signed. It cannot open anything, and cannot remove an
// owner's key.
//
// # One truth
//
// The enrolled keys and the ledger are in one file (store.go), and a change of both is one
// transaction. A key has rights only if it is in both.
//
// # How the posture takes effect
//
//	render -> write generation N -> validate -> switch -> reload -> cut -> verify
//
// One goroutine (worker.go) does this, for the state that the ledger says is in force. It keeps
// no state of its own: after a crash it starts again from the ledger, whose loading has undone
// everything that was not settled. If a signed document cannot be applied, it is undone and the
// previous generation is switched back. A change that closes something is never taken back: if
// it cannot be applied, its ports are blocked at once and it is tried again.
package system

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/discovery"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/apply"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/bruteforce"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/caller"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/changerecorder"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/factoryreset"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/generation"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/journal"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/monitor"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/services"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/timezone"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/turns"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/update"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/noiseconn"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/pairing"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/posture"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/provisioning"
)

// Config is what a Helper is made of.
type Config struct {
	// Directory holds system.db and the generations (generation.StateDirectory).
	// It must exist.
	Directory string
	// Live is the machine.
	Live apply.Live
	// Identities returns how a client recognises what is open; nil: it is not known.
	Identities func(posture.Effective) posture.Identities
	// Factory is the posture of a new Base.
	Factory posture.Posture
	// FirstLease is how long SSH is on from the first boot of a new Base on, because
	// the builder of its image has asked for it; 0: it is off. A Base that was reset
	// is not new.
	FirstLease time.Duration
	// Banner is fail2ban, Announcer is Avahi.
	Banner    Banner
	Announcer Announcer
	// Updates takes releases; nil: nobody does.
	Updates *update.Receiver
	// Auditor looks for drift; nil: nobody does.
	Auditor Auditor
	// AuditInterval is how often it looks by itself; 0: never.
	AuditInterval time.Duration
	// NoDisplay: nobody can stand before a display of this Base and compare a code, by
	// how it was installed. Then an owner's App may accept and answer in its place.
	NoDisplay bool
	// Claim names the App that the Base was provisioned for; nil: there is none. ForgetClaim
	// removes it from the disk once it is over.
	Claim       *provisioning.Claim
	ForgetClaim func() error
	// Bounds are the budgets of the callers; nil: CallerBounds.
	Bounds map[caller.Who]Bounds
	// Restart restarts the machine, once a factory reset was ordered; nil: nobody does.
	Restart func(ctx context.Context) error
	// Manager looks after the machine and its services; nil: nobody does. Services are
	// those that there are.
	Manager  Manager
	Services services.Table
	// TimeZone is where the machine's is set.
	TimeZone timezone.Place
	// MonitorInterval is how often services and disk are looked at; 0: never.
	MonitorInterval time.Duration
	// UpdateStamp is the file that Debian touches when its updates were installed well;
	// empty: Debian's.
	UpdateStamp string
	// Disk returns how much there is, and is free, on the disk with the state, in
	// bytes; nil: it is asked for.
	Disk func() (total, available uint64, err error)
	// Clock is the boot-time clock, BootID the id of this boot.
	Clock  func() time.Duration
	BootID string
	// Random is nil for the system's generator.
	Random io.Reader
	Logger *slog.Logger

	// Failpoint, in tests, is called before each step that reaches the disk or
	// the machine. An error fails the step; the test may also kill the process.
	Failpoint func(step string) error
	// CodeModulus is pairing.Config.CodeModulus, for tests.
	CodeModulus uint32
}

// Helper is the system helper without its socket (Serve).
type Helper struct {
	config Config
	log    *slog.Logger
	store  *store
	apply  *apply.Applier
	// changes is the log of changes.
	changes *changerecorder.Recorder
	// counted is the update whose end was recorded, or found no place; watchChanges alone uses it.
	counted string
	budgets map[caller.Who]budgets
	// services and bansNow are asked for all who want to know at the same time.
	services *turns.Shared[[]*basev1.Service]
	bansNow  *turns.Shared[bruteforce.Bans]

	authority *pairing.Service
	retiring  sync.Mutex // held while a key is retired; guards retirer
	retirer   caller.Who

	// mu guards what follows. It is taken while the authority's lock is held
	// (saveRegistry), so the authority is never called with mu held.
	mu       sync.Mutex
	ledger   *posture.Ledger
	enrolled map[posture.SigningKey]pairing.Enrolled // active keys of the authority
	waiters  map[uint64]*waiter                      // by the revision that is being applied
	// unsaved is what was in force for a moment and could not be saved; nil if all
	// was.
	unsaved *posture.Effective
	// version counts what is to be in force; convergence tells what is.
	version     uint64
	convergence convergence
	// again: the worker is to apply everything, as if nothing were known.
	again bool
	// triedSince is the boot-time clock when the revision that is tried had been
	// applied.
	triedSince time.Duration
	bans       []bruteforce.Ban
	// findings are those of the last audit, made while version was auditedVersion.
	findings       []*basev1.Finding
	auditedAt      time.Duration
	auditedVersion uint64
	// entryReloaded is when NGINX was last told to read a new configuration, on the boot-time clock;
	// 0: it was not.
	entryReloaded time.Duration
	// claimID is the key by which the App of the claim recognises the announcement; empty: no
	// claim is open.
	claimID noiseconn.DiscoveryKey
	// announced is the TXT record that the Middleware wants told, nil until it says so.
	announced *discovery.TXT

	// resetOrdered: a factory reset is certain, and resetting is closed.
	resetOrdered bool
	resetting    chan struct{}

	// stopping: the machine restarts, or is being switched off.
	stopping bool
	monitor  monitor.Monitor

	readers     journal.Readers
	laters      turns.Later
	serviceTurn turns.Turn // held while a service is changed, or the time zone; guards restarted
	// restarted is when an App has restarted a service, by its name, on the boot-time clock.
	restarted map[string]time.Duration
	worker    turns.Signal // what is to be in force has changed, or may have
	announcer turns.Signal // so has what is to be announced
	events    events
	told      told
	askedBy   string     // the App for which something is being closed, by the Middleware's word
	auditTurn turns.Turn // held while an audit runs
	bansTurn  turns.Turn // held while fail2ban is asked
}

// BaseName is the name of the Base, as the posture in force has it.
func (h *Helper) BaseName() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.ledger.Effective().NodeName
}

// Open reads the helper's state, or makes it if there never was one. What was not
// settled before is undone, and what has ended by a reboot has ended. Nothing of
// the machine is touched yet: Run does that.
func Open(config Config) (*Helper, error) {
	h := &Helper{
		config:      config,
		log:         config.Logger,
		budgets:     newBudgets(config.Bounds),
		waiters:     map[uint64]*waiter{},
		version:     1,
		convergence: convergence{changed: make(chan struct{})},
		worker:      turns.NewSignal(),
		announcer:   turns.NewSignal(),
		resetting:   make(chan struct{}),
		auditTurn:   turns.New(),
		serviceTurn: turns.New(),
		restarted:   map[string]time.Duration{},
		laters:      turns.NewLater(),
		bansTurn:    turns.New(),
	}
	h.services, h.bansNow = turns.NewShared(h.listServices), turns.NewShared(h.askBans)
	if h.log == nil {
		h.log = slog.New(slog.DiscardHandler)
	}
	if h.config.UpdateStamp == "" {
		h.config.UpdateStamp = updateStamp
	}
	if h.config.Disk == nil {
		h.config.Disk = func() (uint64, uint64, error) { return diskSpace(config.Directory) }
	}
	if h.config.Failpoint == nil {
		h.config.Failpoint = func(string) error { return nil }
	}
	if _, ordered := factoryreset.Ordered(config.Directory); ordered {
		return nil, ErrResetOrdered
	}
	var err error
	if h.store, err = openStore(config.Directory, config.Random, h.config.Failpoint); err != nil {
		return nil, err
	}
	if err := h.open(); err != nil {
		return nil, errors.Join(err, h.changes.Close(), h.store.Close())
	}
	return h, nil
}

func (h *Helper) open() error {
	h.changes = changerecorder.Open(h.config.Directory, h.config.Clock, h.log, h.store.floor)
	h.store.present = h.changes.Floor
	if err := h.loadLedger(); err != nil {
		return err
	}
	h.recordBegin()
	h.mu.Lock()
	h.recordActsLocked()
	h.mu.Unlock()
	h.apply = apply.New(generation.NewStore(h.config.Directory), tellingReloads{h.config.Live, h}, h.config.Failpoint)
	key, err := h.store.stateKey()
	if err != nil {
		return err
	}
	if h.enrolled, err = byKey(h.store.registry); err != nil {
		return err
	}
	if err := h.openClaim(); err != nil {
		return err
	}
	machine, err := pairing.NewMachine(pairing.Config{
		Random:      h.config.Random,
		BaseName:    h.BaseName,
		IsOwner:     h.isOwner,
		StateKey:    key,
		Registry:    h.store.registry,
		Claim:       (*pairing.Claim)(h.config.Claim),
		WallClock:   time.Now,
		CodeModulus: h.config.CodeModulus,
	})
	if err != nil {
		return err
	}
	h.authority = pairing.NewService(pairing.ServiceConfig{Machine: machine,
		Save: func(registry []byte) error {
			if err := h.saveRegistry(registry, machine.OrderedBy); err != nil {
				return err
			}
			h.endClaim()
			return nil
		}, Now: h.config.Clock})
	return h.reconcile()
}

// loadLedger reads the ledger, or begins the first epoch.
func (h *Helper) loadLedger() error {
	config := posture.Config{StateSeed: h.store.seed, Random: h.config.Random, BootID: h.config.BootID, Identities: h.config.Identities}
	var ledger *posture.Ledger
	var out posture.Output
	var err error
	if h.store.ledger == nil {
		h.tellOfReset()
		ledger, out, err = posture.New(config, h.config.Factory, h.config.Clock())
		if _, reset := factoryreset.Last(h.config.Directory); err == nil && h.config.FirstLease != 0 && !reset {
			out, err = ledger.Grant(h.config.FirstLease, "the builder of the image asked for it", h.config.Clock())
			h.log.Warn("SSH is on from the first boot, as the builder of the image has asked", "audit", true, "for", h.config.FirstLease, "error",
				err)
		}
	} else {
		ledger, out, err = posture.Load(config, h.store.ledger, h.config.Clock())
	}
	if err != nil {
		return fmt.Errorf("open the ledger of the posture: %w", err)
	}
	h.ledger = ledger
	h.told.revision, h.told.restriction, _ = h.numbersLocked()
	return h.store.save(changes{ledger: out.Save})
}

// StateKey returns the public half of K_state, the Base's id for Apps.
func (h *Helper) StateKey() ed25519.PublicKey {
	key := posture.PublicKey(h.store.seed)
	return key[:]
}

// Effective is what is in force, or about to be.
func (h *Helper) Effective() posture.Effective {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.inForceLocked()
}

// Close ends the authority and closes the state. Run must have returned.
func (h *Helper) Close() error {
	h.authority.Close()
	return errors.Join(h.changes.Close(), h.store.Close())
}

// Run keeps the machine as the ledger says, until ctx ends.
func (h *Helper) Run(ctx context.Context) {
	var running sync.WaitGroup
	defer running.Wait()
	running.Go(func() { h.work(ctx) })
	if h.config.Auditor != nil && h.config.AuditInterval > 0 {
		running.Go(func() { h.auditAtIntervals(ctx) })
	}
	running.Go(func() { h.keepAnnouncing(ctx) })
	running.Go(func() { h.watchBans(ctx) })
	running.Go(func() { h.watchChanges(ctx) })
	running.Go(func() { h.restartWhenReset(ctx) })
	running.Go(func() { h.laters.Run(ctx) })
	if h.config.Manager != nil && h.config.MonitorInterval > 0 {
		running.Go(func() { turns.Every(ctx, h.config.MonitorInterval, func() { h.lookAfter(ctx) }) })
	}
	<-ctx.Done()
}
