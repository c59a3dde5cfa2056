package registry

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"time"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/boottime"
	"github.com/BitBoxSwiss/bitbox-base/internal/middleware/admission"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/noiseconn"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/pairing"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/rpc"
)

// Session is the stay of one App on one connection. It implements
// admission.Session.
type Session struct {
	registry *Registry
	app      *record
	beganAt  time.Duration // on the boot-time clock
	cut      func()        // ends the connection at once; never blocks
	limit    *time.Timer   // cuts at the latest allowed time
}

// ID is the id of the App.
func (s *Session) ID() string { return s.app.id() }

// Calls is what all sessions of the App share of the bounds of calls.
func (s *Session) Calls() *rpc.Peer { return &s.app.calls }

// IsOwner tells whether the App is an owner's, now.
func (s *Session) IsOwner() bool {
	return s.registry.Authorise(s, basev1.Role_ROLE_OWNER) == nil
}

// BeganAt is when the session began, on the boot-time clock.
func (s *Session) BeganAt() time.Duration { return s.beganAt }

// Begin implements admission.Registry. A pending pairing becomes active, here
// first and then at the authority: were it the other way round, a crash in between would
// leave an owner's key without an App.
func (r *Registry) Begin(ctx context.Context, peer noiseconn.PublicKey, address netip.Addr, cut func()) (admission.Session, error) {
	p, err := r.activate(peer)
	if err != nil {
		return nil, err
	}
	if err := r.acknowledge(ctx, p); err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := p.rights(); err != nil { // it may have been revoked since
		return nil, err
	}
	s := &Session{registry: r, app: p, beganAt: boottime.Clock(), cut: cut}
	s.limit = time.AfterFunc(r.config.SessionTime, cut)
	p.sessions = append(p.sessions, s)
	for _, oldest := range p.sessions[:max(0, len(p.sessions)-MaxSessions)] {
		oldest.cut()
	}
	isNew := p.lastSeen.IsZero()
	p.lastSeen = time.Now()
	if address.IsValid() {
		p.lastAddress = address
	}
	r.acquaintLocked(p, address, p.lastSeen)
	r.saveSoonLocked(p)
	app := r.describeLocked(p)
	if isNew {
		r.audit("an App was paired", p)
		r.events.Publish(&basev1.Event{Event: &basev1.Event_AppPaired{AppPaired: &basev1.AppPairedEvent{App: app}}})
	}
	r.events.Publish(&basev1.Event{Event: &basev1.Event_SessionStarted{SessionStarted: &basev1.SessionStartedEvent{App: app}}})
	return s, nil
}

// activate returns the pairing of an App that has proved to be there. A pending
// one is active from then on, also on disk.
func (r *Registry) activate(peer noiseconn.PublicKey) (*record, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	p, ok := r.pairings[peer]
	if !ok {
		return nil, &admission.Refusal{Reason: admission.Lapsed}
	}
	if p.standing != standingPending {
		return p, p.rights()
	}
	p.standing = standingActive
	if err := r.saveLocked(p); err != nil {
		p.standing = standingPending
		return nil, err
	}
	p.lapse.Stop()
	return p, nil
}

// rights returns why the pairing gives none, or nil.
func (p *record) rights() error {
	switch p.standing {
	case standingActive:
		return nil
	case standingRevoked:
		return &admission.Refusal{Reason: admission.Revoked}
	default:
		return &admission.Refusal{Reason: admission.Lapsed}
	}
}

// acknowledge has the authority give the signing key its rights, once. If it
// does not know the key, the pairing has none either.
func (r *Registry) acknowledge(ctx context.Context, p *record) error {
	r.mu.Lock()
	acknowledged := p.acknowledged
	r.mu.Unlock()
	if acknowledged {
		return nil
	}
	err := r.authority.Activate(ctx, p.signingKey)
	r.mu.Lock()
	defer r.mu.Unlock()
	if err == nil {
		p.acknowledged = true
		return nil
	}
	if !errors.Is(err, pairing.ErrUnknownKey) || p.standing != standingActive {
		return err
	}
	if err := r.dropLocked(p, "dropped a pairing that the authority does not know; this App must pair again"); err != nil {
		return err
	}
	return &admission.Refusal{Reason: admission.Lapsed, Err: err}
}

// End implements admission.Session.
func (s *Session) End() {
	s.limit.Stop()
	r := s.registry
	r.mu.Lock()
	defer r.mu.Unlock()
	s.app.sessions = slices.DeleteFunc(s.app.sessions, func(other *Session) bool { return other == s })
	r.events.Publish(&basev1.Event{Event: &basev1.Event_SessionEnded{SessionEnded: &basev1.SessionEndedEvent{App: r.describeLocked(s.app)}}})
}

// EndOtherSessions ends all sessions but one, of all Apps.
func (r *Registry) EndOtherSessions(keep *Session) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, p := range r.pairings {
		for _, s := range p.sessions {
			if s != keep {
				s.cut()
			}
		}
	}
}

// Authorise tells whether the App of a session may call a method that asks for
// least, now.
func (r *Registry) Authorise(s *Session, least basev1.Role) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if s.app.rights() != nil {
		return ErrNoRights
	}
	if !MayCall(s.app.role, least) {
		return ErrRole
	}
	return nil
}
