// Package registry stores the identity of the Base and its pairings on disk, and holds the
// live sessions. It says who may connect and what each App may do; internal/middleware/admission
// asks it.
package registry

import (
	"context"
	"crypto/ed25519"
	"encoding/hex"
	"errors"
	"io"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/middleware/admission"
	"github.com/BitBoxSwiss/bitbox-base/internal/middleware/events"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/noiseconn"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/pairing"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/rpc"
	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
	"github.com/BitBoxSwiss/bitbox-base/internal/state"
)

// Limits of the protocol (docs/protocol.md, sections 4.4 and 5).
const (
	// MaxPairings is how many pairings there are at most, pending ones included.
	MaxPairings = 32
	// MaxTombstones is how many revoked Apps are told so; the oldest is forgotten.
	MaxTombstones = 64
	// PendingTime is how long a pairing waits for its App's first connection.
	PendingTime = 180 * time.Second
	// SessionTime is how long a session lasts at most.
	SessionTime = 24 * time.Hour
)

// Limits of this implementation.
const (
	// MaxSessions is how many sessions one App has; the oldest makes room. An App that lost its
	// network leaves some behind until they are found dead.
	MaxSessions = 8
	// maxLapsed is how many pairings that were never completed are remembered.
	maxLapsed = 16
)

// Reasons for refusals.
var (
	ErrUnknownApp = reason.New("no App with this id is paired")
	ErrLastOwner  = reason.New("the last owner cannot be revoked: nobody could manage the Base afterwards; pair another owner first")
	ErrNoRights   = reason.New("this App has no rights")
	ErrRole       = reason.New("the role of this App does not permit it; ask an owner")
)

// Authority is what the Registry needs of the ceremony authority; pairing.Client is one.
type Authority interface {
	Activate(ctx context.Context, signingKey ed25519.PublicKey) error
	Retire(ctx context.Context, signingKey ed25519.PublicKey) error
	CloseWindowOf(ctx context.Context, owner ed25519.PublicKey) error
	Reconcile(ctx context.Context, active []ed25519.PublicKey) (unknown, orphaned []ed25519.PublicKey, err error)
}

// Config is the configuration of a Registry. Zero durations mean the protocol's.
type Config struct {
	DB *state.DB
	// Events is told of what changes; nil: nobody is.
	Events *events.Hub
	// Logger gets a line with audit=true for everything that changes something.
	Logger *slog.Logger
	// Random nil means the system's generator.
	Random io.Reader
	// Name is given to a Base that has none yet.
	Name        string
	PendingTime time.Duration
	SessionTime time.Duration
}

// Registry knows the Base's identity, its pairings and its live sessions. It
// implements admission.Registry.
type Registry struct {
	config   Config
	logger   *slog.Logger // audit
	events   *events.Hub
	identity identity
	// authority is set by Connect, before anything else is called.
	authority Authority

	// recognition is read without the lock, so strangers' frames do not block anything.
	recognition atomic.Pointer[recognition]
	// acquainted are the addresses from which Apps with rights have come, and when; also read
	// without the lock.
	acquainted atomic.Pointer[map[netip.Prefix]time.Time]

	saver *saver

	mu       sync.Mutex
	pairings map[noiseconn.PublicKey]*record // stored ones
	lapsed   []*record                       // the oldest first
}

// standing is the state of a pairing.
type standing string

const (
	standingPending standing = "pending" // both people said yes; the App has not connected yet
	standingActive  standing = "active"  // the only one with rights
	standingRevoked standing = "revoked" // a tombstone
	standingLapsed  standing = "lapsed"  // was pending, and its time is over; in memory only
)

// record is a pairing. Registry.mu guards everything that can change.
type record struct {
	peer       noiseconn.PublicKey
	signingKey ed25519.PublicKey
	pair       noiseconn.PairKey
	mac1       noiseconn.MAC1Key
	role       basev1.Role
	pairedAt   time.Time

	name          string
	standing      standing
	revokedAt     time.Time
	lastSeen      time.Time      // zero: never
	lastAddress   netip.Addr     // of the last session; invalid: never, or not known
	acquaintances []acquaintance // the least recently used first, at most MaxAcquainted
	sequence      sequence
	// acknowledged: the authority also has the signing key as active.
	acknowledged bool
	sessions     []*Session  // the oldest first
	calls        rpc.Peer    // what its sessions share
	lapse        *time.Timer // nil unless pending
}

// recognition is what Recognise searches: keys[i] belongs to found[i].
type recognition struct {
	keys  []noiseconn.MAC1Key
	found []admission.Recognised
}

// Open reads the Base's identity and pairings from the state. In a new state it makes an
// identity, and logs that. Pending pairings have lapsed.
func Open(config Config) (*Registry, error) {
	if config.PendingTime == 0 {
		config.PendingTime = PendingTime
	}
	if config.SessionTime == 0 {
		config.SessionTime = SessionTime
	}
	if config.Events == nil {
		config.Events = events.Open(nil, config.Logger)
	}
	r := &Registry{
		config:   config,
		logger:   config.Logger.With(slog.Bool("audit", true)),
		events:   config.Events,
		pairings: map[noiseconn.PublicKey]*record{},
		saver:    newSaver(),
	}
	if err := r.loadIdentity(); err != nil {
		return nil, err
	}
	if err := r.loadPairings(); err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.indexLocked()
	r.saver.done.Go(r.keepSaving)
	return r, nil
}

// Static returns the Base's static key.
func (r *Registry) Static() noiseconn.StaticKey { return r.identity.static }

// PublicKey returns the Base's public static key.
func (r *Registry) PublicKey() noiseconn.PublicKey { return r.identity.public }

// DiscoveryKey returns K_disc.
func (r *Registry) DiscoveryKey() noiseconn.DiscoveryKey { return r.identity.discovery }

// Name returns the name of the Base.
func (r *Registry) Name() string { return r.identity.name }

// Connect gives the Registry the authority, before it is used, and compares the active pairings
// with the authority's keys. A pairing or key that only one side has gives no rights: a pairing
// whose key the authority does not know is dropped.
func (r *Registry) Connect(ctx context.Context, authority Authority) error {
	r.authority = authority
	r.mu.Lock()
	var active []ed25519.PublicKey
	for _, p := range r.pairings {
		if p.standing == standingActive {
			active = append(active, p.signingKey)
		}
	}
	r.mu.Unlock()
	unknown, orphaned, err := r.authority.Reconcile(ctx, active)
	if err != nil {
		return reason.Errorf("compare the pairings with the authority: %w", err)
	}
	for _, key := range orphaned {
		if r.revoked(key) {
			continue // its owner's key stays until the console removes it
		}
		r.logger.Warn("the authority holds a signing key that no App is paired with; retire it at the console if you do not know it",
			"signing_key", hex.EncodeToString(key))
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, p := range r.pairings {
		if p.standing != standingActive {
			continue
		}
		p.acknowledged = true
		if slices.ContainsFunc(unknown, func(key ed25519.PublicKey) bool { return key.Equal(p.signingKey) }) {
			if err := r.dropLocked(p, "dropped a pairing that the authority does not know; this App must pair again"); err != nil {
				return err
			}
		}
	}
	return nil
}

// revoked tells whether a signing key is that of a tombstone.
func (r *Registry) revoked(signingKey ed25519.PublicKey) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, p := range r.pairings {
		if p.standing == standingRevoked && signingKey.Equal(p.signingKey) {
			return true
		}
	}
	return false
}

// Recognise implements admission.Registry.
func (r *Registry) Recognise(r1 []byte) (admission.Recognised, bool) {
	index := r.recognition.Load()
	i := noiseconn.MatchMAC1(index.keys, r1)
	if i < 0 {
		return admission.Recognised{}, false
	}
	return index.found[i], true
}

// indexLocked rebuilds the index that Recognise searches. It must follow each change of the known
// pairings.
func (r *Registry) indexLocked() {
	index := &recognition{}
	add := func(p *record) {
		index.keys = append(index.keys, p.mac1)
		index.found = append(index.found, admission.Recognised{Peer: p.peer, Pair: p.pair, Lapsed: p.standing == standingLapsed})
	}
	for _, wanted := range []standing{standingActive, standingPending, standingRevoked} {
		for _, p := range r.pairings {
			if p.standing == wanted {
				add(p)
			}
		}
	}
	for _, p := range r.lapsed {
		add(p)
	}
	r.recognition.Store(index)
	r.indexAcquaintedLocked()
}

// Arrive implements admission.Registry. The number is stored in memory before the R1 is answered,
// and on disk within a second.
func (r *Registry) Arrive(peer noiseconn.PublicKey, seq uint64) (noiseconn.Status, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	p, ok := r.pairings[peer]
	if !ok {
		return 0, &admission.Refusal{Reason: admission.Lapsed}
	}
	switch err := p.sequence.accept(seq); {
	case errors.Is(err, errSeqTooHigh):
		return 0, &admission.Refusal{Reason: admission.SeqTooHigh, Err: err}
	case err != nil:
		return 0, &admission.Refusal{Reason: admission.Replayed}
	}
	r.saveSoonLocked(p)
	if p.standing == standingRevoked {
		return noiseconn.StatusRevoked, nil
	}
	return noiseconn.StatusOK, nil
}

// MayPair implements admission.Registry.
func (r *Registry) MayPair(peer noiseconn.PublicKey) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.mayPairLocked(peer)
}

func (r *Registry) mayPairLocked(peer noiseconn.PublicKey) error {
	known := r.pairings[peer]
	if known != nil && known.standing != standingPending {
		return reason.New("this static key is paired or revoked already; an App makes a fresh one for each pairing")
	}
	if known == nil && r.countLocked(standingActive)+r.countLocked(standingPending) >= MaxPairings {
		return reason.Errorf("%d Apps are paired, and the Base does not accept more; revoke one first", MaxPairings)
	}
	return nil
}

func (r *Registry) countLocked(wanted standing) int {
	n := 0
	for _, p := range r.pairings {
		if p.standing == wanted {
			n++
		}
	}
	return n
}

// Pend implements admission.Registry.
func (r *Registry) Pend(confirmed admission.Pairing) (noiseconn.PairKey, noiseconn.DiscoveryKey, error) {
	fail := func(err error) (noiseconn.PairKey, noiseconn.DiscoveryKey, error) {
		return noiseconn.PairKey{}, noiseconn.DiscoveryKey{}, err
	}
	pair, err := noiseconn.GeneratePairKey(r.config.Random)
	if err != nil {
		return fail(err)
	}
	mac1, err := noiseconn.MAC1KeyOf(pair)
	if err != nil {
		return fail(err)
	}
	p := &record{
		peer:       confirmed.Peer,
		signingKey: slices.Clone(confirmed.SigningKey),
		pair:       pair,
		mac1:       mac1,
		role:       confirmed.Role,
		pairedAt:   time.Now(),
		name:       confirmed.Name,
		standing:   standingPending,
		sequence:   restoredSequence(0),
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.mayPairLocked(p.peer); err != nil {
		return fail(err)
	}
	if before := r.pairings[p.peer]; before != nil {
		// An App that claims the Base again, since it has lost what came of the last time.
		before.lapse.Stop()
		if err := r.dropLocked(before, "dropped a pairing whose App has begun a new one"); err != nil {
			return fail(err)
		}
	}
	if err := r.saveLocked(p); err != nil {
		return fail(err)
	}
	r.pairings[p.peer] = p
	p.lapse = time.AfterFunc(r.config.PendingTime, func() { r.lapse(p) })
	r.indexLocked()
	r.audit("both sides have confirmed an App; it has rights once it connects", p)
	return pair, r.identity.discovery, nil
}

// lapse ends a pairing whose App did not connect in time.
func (r *Registry) lapse(p *record) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if p.standing != standingPending {
		return
	}
	if err := r.dropLocked(p, "dropped a pairing whose App did not connect in time; it must pair again"); err != nil {
		// it has no rights already, and a restart drops it
		r.config.Logger.Error("drop a pairing whose App did not connect in time", "app", p.id(), "error", err)
	}
}

// dropLocked forgets a pairing without rights. Its mac1 stays known in memory: its App keeps
// trying for a while, and must not be mistaken for a stranger and banned.
func (r *Registry) dropLocked(p *record, why string) error {
	if err := r.deleteLocked(p); err != nil {
		return err
	}
	delete(r.pairings, p.peer)
	r.rememberLapsedLocked(p)
	r.indexLocked()
	r.audit(why, p)
	return nil
}

func (r *Registry) rememberLapsedLocked(p *record) {
	p.standing = standingLapsed
	r.lapsed = append(r.lapsed, p)
	if len(r.lapsed) > maxLapsed {
		r.lapsed = slices.Delete(r.lapsed, 0, 1)
	}
}

// Rename gives an App another name, which owners' Apps show.
func (r *Registry) Rename(id, name string, by *Session) (*basev1.App, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	p := r.findLocked(id)
	if p == nil {
		return nil, ErrUnknownApp
	}
	before := p.name
	p.name = name
	if err := r.saveLocked(p); err != nil {
		p.name = before
		return nil, err
	}
	r.audit("an App was renamed", p, "before", before, "by", by.ID())
	app := r.describeLocked(p)
	r.events.Publish(&basev1.Event{Event: &basev1.Event_AppRenamed{AppRenamed: &basev1.AppRenamedEvent{App: app}}})
	return r.describeForLocked(p, by), nil
}

// ownGrace is how long the session of an App that has revoked itself continues, so that it gets
// its answer. No other call is answered in that time.
const ownGrace = 500 * time.Millisecond

// Revoke removes an App's rights for good, and cuts its sessions.
func (r *Registry) Revoke(ctx context.Context, id string, by *Session) error {
	r.mu.Lock()
	p := r.findLocked(id)
	if err := r.revokeLocked(p, by); err != nil {
		r.mu.Unlock()
		return err
	}
	retire := p.role != basev1.Role_ROLE_OWNER
	r.mu.Unlock()
	if !retire {
		// The Middleware cannot remove an owner's signing key. But windows that this owner may
		// have opened must not outlast it.
		r.closeWindowOf(ctx, p)
		return nil
	}
	if err := r.authority.Retire(ctx, p.signingKey); err != nil && !errors.Is(err, pairing.ErrUnknownKey) {
		r.config.Logger.Warn("retire the signing key of a revoked App", "app", p.id(), "error", err)
	}
	return nil
}

// Opened is called after an owner's App has opened a window without a signature. If the App has
// lost the right to it meanwhile, the close that goes with that may have overtaken the window; so
// the window is closed here, and the error says which right is gone.
func (r *Registry) Opened(ctx context.Context, by *Session) error {
	lost := r.Authorise(by, basev1.Role_ROLE_OWNER)
	if lost == nil {
		return nil
	}
	r.closeWindowOf(ctx, by.app)
	return lost
}

// closeWindowOf closes the windows that an owner may have opened who has lost the right to it. The
// owner stays without rights if that fails: a helper that has died has lost its window, and one
// that does not answer closes it after 180 s. It lets nobody in without an act at the Base.
func (r *Registry) closeWindowOf(ctx context.Context, p *record) {
	if err := r.authority.CloseWindowOf(ctx, p.signingKey); err != nil {
		r.config.Logger.Warn("close the pairing window that a former owner may have opened", "app", p.id(), "error", err)
	}
}

func (r *Registry) revokeLocked(p *record, by *Session) error {
	if p == nil {
		return ErrUnknownApp
	}
	if p.role == basev1.Role_ROLE_OWNER && r.ownersLocked() == 1 {
		return ErrLastOwner
	}
	p.standing, p.revokedAt = standingRevoked, time.Now()
	if err := r.saveLocked(p); err != nil {
		p.standing, p.revokedAt = standingActive, time.Time{}
		return err
	}
	for _, s := range p.sessions {
		if s == by {
			time.AfterFunc(ownGrace, s.cut)
			continue
		}
		s.cut()
	}
	p.acquaintances = nil
	if err := r.saveAcquaintancesLocked(p); err != nil {
		r.config.Logger.Error("forget the addresses of a revoked App", "app", p.id(), "error", err) // they no longer count
	}
	r.forgetTombstonesLocked()
	r.indexLocked()
	r.audit("an App was revoked", p, "by", by.ID())
	r.events.Publish(&basev1.Event{Event: &basev1.Event_AppRevoked{AppRevoked: &basev1.AppRevokedEvent{App: r.describeLocked(p)}}})
	return nil
}

func (r *Registry) ownersLocked() int {
	n := 0
	for _, p := range r.pairings {
		if p.standing == standingActive && p.role == basev1.Role_ROLE_OWNER {
			n++
		}
	}
	return n
}

// forgetTombstonesLocked drops the oldest tombstones above the limit.
func (r *Registry) forgetTombstonesLocked() {
	for r.countLocked(standingRevoked) > MaxTombstones {
		var oldest *record
		for _, p := range r.pairings {
			if p.standing == standingRevoked && (oldest == nil || p.revokedAt.Before(oldest.revokedAt)) {
				oldest = p
			}
		}
		if err := r.deleteLocked(oldest); err != nil {
			r.config.Logger.Error("forget the oldest tombstone", "app", oldest.id(), "error", err)
			return
		}
		delete(r.pairings, oldest.peer)
	}
}

// Apps lists the paired Apps, the oldest first, as the App of a session sees it.
func (r *Registry) Apps(to *Session) []*basev1.App {
	r.mu.Lock()
	defer r.mu.Unlock()
	var active []*record
	for _, p := range r.pairings {
		if p.standing == standingActive {
			active = append(active, p)
		}
	}
	slices.SortFunc(active, func(a, b *record) int {
		if c := a.pairedAt.Compare(b.pairedAt); c != 0 {
			return c
		}
		return slices.Compare(a.peer[:], b.peer[:])
	})
	apps := make([]*basev1.App, 0, len(active))
	for _, p := range active {
		apps = append(apps, r.describeForLocked(p, to))
	}
	return apps
}

// Describe returns the App of a session as it sees itself.
func (r *Registry) Describe(s *Session) *basev1.App {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.describeForLocked(s.app, s)
}

// findLocked returns the pairing with rights that has an id, or nil.
func (r *Registry) findLocked(id string) *record {
	for _, p := range r.pairings {
		if p.standing == standingActive && p.id() == id {
			return p
		}
	}
	return nil
}

// Known returns the App with rights that has an id; nil if there is none.
func (r *Registry) Known(id string) *basev1.App {
	r.mu.Lock()
	defer r.mu.Unlock()
	if p := r.findLocked(id); p != nil {
		return r.describeLocked(p)
	}
	return nil
}

// NameOf is the name of an App with rights; empty if there is none with this id.
func (r *Registry) NameOf(id string) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if p := r.findLocked(id); p != nil {
		return p.name
	}
	return ""
}

// id is the API's id of the pairing.
func (p *record) id() string { return p.peer.AppID() }

func (r *Registry) describeLocked(p *record) *basev1.App {
	app := &basev1.App{
		Id:       p.id(),
		Name:     p.name,
		Role:     p.role,
		PairedAt: timestamppb.New(p.pairedAt),
		Sessions: uint32(len(p.sessions)),
	}
	if !p.lastSeen.IsZero() {
		app.LastSeenAt = timestamppb.New(p.lastSeen)
	}
	if p.lastAddress.IsValid() {
		app.LastAddress = p.lastAddress.String()
	}
	return app
}

func (r *Registry) describeForLocked(p *record, to *Session) *basev1.App {
	app := r.describeLocked(p)
	app.IsCaller = to.app == p
	return app
}

// audit writes the line about a change of an App.
func (r *Registry) audit(what string, p *record, attributes ...any) {
	r.logger.Info(what, append([]any{"app", p.id(), "name", p.name, "role", p.role.String()}, attributes...)...)
}

// Close saves the changes of connections, and stops everything that would still write: pending
// pairings lapse with the process. The listener must be closed before.
func (r *Registry) Close() {
	r.saver.once.Do(func() { close(r.saver.stop) })
	r.saver.done.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, p := range r.pairings {
		if p.lapse != nil {
			p.lapse.Stop()
		}
	}
}
