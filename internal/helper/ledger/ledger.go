// Package ledger keeps what is to be in force: the ledger of the posture
// (internal/protocol/posture) and the keys that the ceremony authority
// (internal/protocol/pairing) has enrolled. It keeps them on the disk, and the machine as they
// say.
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
package ledger

import (
	"crypto/ed25519"
	"errors"
	"io"
	"log/slog"
	"maps"
	"sync"
	"time"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/apply"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/caller"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/changerecorder"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/events"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/factoryreset"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/generation"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/turns"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/changelog"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/noiseconn"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/pairing"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/posture"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/provisioning"
	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
)

// Config is what a Keeper is made of.
type Config struct {
	// Directory holds the state and the generations (generation.StateDirectory). It must exist.
	Directory string
	// Live is the machine.
	Live apply.Live
	// Identities returns how a client recognises what is open; nil: it is not known.
	Identities func(posture.Effective) posture.Identities
	// Factory is the posture of a new Base.
	Factory posture.Posture
	// FirstLease is how long SSH is on from the first boot of a new Base on, because
	// its provisioning asks for it; 0: it is off. A Base that was reset
	// is not new.
	FirstLease time.Duration
	// NoDisplay: nobody can stand before a display of this Base and compare a code, by
	// how it was installed. Then an owner's App may accept and answer in its place.
	NoDisplay bool
	// Claim names the App that the Base was provisioned for; nil: there is none. ForgetClaim
	// removes it from the disk once it is over; nil: nobody does.
	Claim       *provisioning.Claim
	ForgetClaim func() error
	// Running is the version of the software that runs; empty: it is not known.
	Running string
	// Clock is the boot-time clock, BootID the id of this boot.
	Clock  func() time.Duration
	BootID string
	// Random is nil for the system's generator.
	Random io.Reader
	// Logger is nil for none.
	Logger *slog.Logger
}

// Keeper keeps the ledger and the keys, and the machine as they say.
type Keeper struct {
	// Changes is the log of changes, Events what those who watch are told.
	Changes *changerecorder.Recorder
	Events  *events.Hub
	// Apply puts in force. Its times may be set before Run.
	Apply *apply.Applier
	// Changed wakes one goroutine when something else is to be in force.
	Changed turns.Signal

	config Config
	log    *slog.Logger
	store  *Store

	authority *pairing.Service
	retiring  sync.Mutex // held while a key is retired; guards retirer
	retirer   caller.Who

	// mu guards what follows. It is taken while the authority's lock is held
	// (saveRegistry), so the authority is never called with mu held.
	mu       sync.Mutex
	ledger   *posture.Ledger
	enrolled map[posture.SigningKey]pairing.Enrolled // active keys of the authority
	waiters  map[uint64]*waiter                      // by the revision that is being applied
	// claimKey is what the App of the claim recognises the Base by; empty: no claim is open.
	claimKey noiseconn.DiscoveryKey
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
	worker     turns.Signal // what is to be in force has changed, or may have
	pairings   turns.Signal // the same, for endPairings
	told       told
	askedBy    string // the App for which something is being closed, by the Middleware's word
}

// Open reads the state, or makes it if there never was one. An unsettled document is
// undone, and leases that a reboot ends have ended. It touches nothing of the machine: Run
// does that.
func Open(config Config) (*Keeper, error) {
	if config.Logger == nil {
		config.Logger = slog.New(slog.DiscardHandler)
	}
	k := &Keeper{
		Events: events.New(time.Now), Changed: turns.NewSignal(), config: config, log: config.Logger, waiters: map[uint64]*waiter{}, version: 1,
		convergence: convergence{changed: make(chan struct{})}, worker: turns.NewSignal(), pairings: turns.NewSignal(),
	}
	if _, ordered := factoryreset.Ordered(config.Directory); ordered {
		return nil, factoryreset.ErrOrdered
	}
	var err error
	if k.store, err = OpenStore(config.Directory, config.Random); err != nil {
		return nil, err
	}
	if err := k.open(); err != nil {
		return nil, errors.Join(err, k.Changes.Close(), k.store.Close())
	}
	return k, nil
}

func (k *Keeper) open() error {
	k.Changes = changerecorder.Open(k.config.Directory, k.config.Clock, k.log, k.store.floor)
	k.store.present = k.Changes.Floor
	if err := k.loadLedger(); err != nil {
		return err
	}
	k.Changes.Begin(k.ledger.Effective(), k.config.Directory)
	k.Changes.Acts(k.ledger.TakeActs())
	k.Apply = apply.New(generation.NewStore(k.config.Directory), tellingReloads{k.config.Live, k})
	key, err := k.store.stateKey()
	if err != nil {
		return err
	}
	if k.enrolled, err = byKey(k.store.Registry); err != nil {
		return err
	}
	if err := k.openClaim(); err != nil {
		return err
	}
	machine, err := pairing.NewMachine(pairing.Config{
		Random:    k.config.Random,
		BaseName:  k.BaseName,
		IsOwner:   k.isOwner,
		StateKey:  key,
		Registry:  k.store.Registry,
		Claim:     (*pairing.Claim)(k.config.Claim),
		WallClock: time.Now,
	})
	if err != nil {
		return err
	}
	k.authority = pairing.NewService(pairing.ServiceConfig{Machine: machine,
		Save: func(registry []byte) error {
			if err := k.saveRegistry(registry, machine.OrderedBy); err != nil {
				return err
			}
			k.endClaim()
			return nil
		}, Now: k.config.Clock})
	return k.reconcile()
}

// loadLedger reads the ledger, or begins the first epoch.
func (k *Keeper) loadLedger() error {
	config := posture.Config{StateSeed: k.store.seed, Random: k.config.Random, BootID: k.config.BootID, Identities: k.config.Identities,
		Running: k.config.Running}
	var ledger *posture.Ledger
	var out posture.Output
	var err error
	if k.store.Ledger == nil {
		r, reset := factoryreset.Last(k.config.Directory)
		if reset { // what told of it before may have been lost with the power
			k.log.Warn("after a factory reset this Base is as new", "audit", true, "by", r.By, "ordered_at", r.OrderedAt)
		}
		ledger, out, err = posture.New(config, k.config.Factory, k.config.Clock())
		if err == nil && k.config.FirstLease != 0 && !reset {
			out, err = ledger.Grant(k.config.FirstLease, "the builder of the image asked for it", k.config.Clock())
			k.log.Warn("SSH is on from the first boot, as requested by the builder of the image", "audit", true, "for", k.config.FirstLease, "error",
				err)
		}
	} else {
		ledger, out, err = posture.Load(config, k.store.Ledger, k.config.Clock())
	}
	if err != nil {
		return reason.Errorf("open the ledger of the posture: %w", err)
	}
	k.ledger = ledger
	k.told.revision, k.told.restriction = ledger.Effective().Revision, ledger.LastRestriction()
	k.noteLocked()
	return k.store.Save(Saved{Ledger: out.Save})
}

// Close ends the authority and closes the state. Run must have returned.
func (k *Keeper) Close() error {
	k.authority.Close()
	return errors.Join(k.Changes.Close(), k.store.Close())
}

// StateKey returns the public half of K_state, the Base's id for Apps.
func (k *Keeper) StateKey() ed25519.PublicKey {
	key := posture.PublicKey(k.store.seed)
	return key[:]
}

// BaseName is the name of the Base, as the ledger has it.
func (k *Keeper) BaseName() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.ledger.Effective().NodeName
}

// Effective is what is in force, or about to be.
func (k *Keeper) Effective() posture.Effective {
	wanted, _ := k.Wanted()
	return wanted
}

// Wanted is what is in force, or about to be, with a number that is another for anything else.
func (k *Keeper) Wanted() (wanted posture.Effective, version uint64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.inForceLocked(), k.version
}

// InForce tells which version the machine is, and why it is not the one that is wanted: the
// worker is not done yet (applying), or could not (failure).
func (k *Keeper) InForce() (version uint64, applying bool, failure error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	c := k.convergence
	if applying = c.version != k.version; !applying {
		failure = c.failure
	}
	return c.version, applying, failure
}

// Enrolled returns the active keys.
func (k *Keeper) Enrolled() map[posture.SigningKey]pairing.Enrolled {
	k.mu.Lock()
	defer k.mu.Unlock()
	return maps.Clone(k.enrolled)
}

// Saved returns what was saved last.
func (k *Keeper) Saved() Saved {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.store.Saved
}

// Look gives the ledger to look, which must not change it nor keep it.
func (k *Keeper) Look(look func(l *posture.Ledger)) {
	k.mu.Lock()
	defer k.mu.Unlock()
	look(k.ledger)
}

// Update runs one call of the ledger, and saves what comes of it.
func (k *Keeper) Update(call func(l *posture.Ledger, now time.Duration) (posture.Output, error)) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.updateLocked(func() (posture.Output, error) { return call(k.ledger, k.config.Clock()) })
}

// SignHead signs a head of the log of changes as this Base in its epoch.
func (k *Keeper) SignHead(head *systemv1.ChangesHead) ([]byte, error) {
	base := posture.PublicKey(k.store.seed)
	k.mu.Lock()
	epoch := k.ledger.Epoch()
	k.mu.Unlock()
	head.BaseId, head.Epoch = base[:], epoch[:]
	return changelog.Sign(head, k.store.seed)
}

// Applying tells whether a new posture is being applied.
func (k *Keeper) Applying() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.ledger.Phase() == systemv1.PostureReport_PHASE_APPLYING
}

// Summary sums up the posture in force for the person who stands at the Base.
func (k *Keeper) Summary() *systemv1.Summary {
	k.mu.Lock()
	defer k.mu.Unlock()
	_ = k.updateLocked(func() (posture.Output, error) { return k.ledger.Tick(k.config.Clock()), nil }) // what is left of leases
	e := k.inForceLocked()
	s := &systemv1.Summary{
		NodeName: e.NodeName, Revision: e.Revision, Phase: k.ledger.Phase(), Lockdown: e.Lockdown, PairingClosed: e.PairingClosed,
		UndoneInMs: uint64(k.ledger.UndoneIn(k.config.Clock()).Milliseconds()), NotApplied: k.convergence.failure != nil || k.unsaved != nil,
	}
	for _, app := range e.Apps {
		s.Apps++
		if app.Role == basev1.Role_ROLE_OWNER {
			s.Owners++
		}
	}
	if e.SSH != nil {
		s.Ssh = &systemv1.OpenSSH{Keys: uint32(len(e.SSH.Keys)), RemainingMs: uint64(e.SSH.Remaining.Milliseconds())}
	}
	for _, endpoint := range e.Endpoints {
		if endpoint.Kind != posture.KindEntry {
			s.Apis = append(s.Apis, &systemv1.OpenAPI{
				Kind: string(endpoint.Kind), Port: uint32(endpoint.Port), RemainingMs: uint64(endpoint.Remaining.Milliseconds()),
				UntilClosed: endpoint.UntilClosed, From: endpoint.From.Strings()})
		}
	}
	return s
}
