package middleware

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"time"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/api/base/v1/basev1connect"
	"github.com/BitBoxSwiss/bitbox-base/internal/boottime"
	"github.com/BitBoxSwiss/bitbox-base/internal/helperclient"
	"github.com/BitBoxSwiss/bitbox-base/internal/middleware/admission"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/noiseconn"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/pairing"
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

func (s *Session) id() string { return s.app.id() }

// Begin implements admission.Registry. A pending pairing becomes active, here
// first and then at the authority: were it the other way round, a crash in between would
// leave an owner's key without an App.
func (r *Registry) Begin(ctx context.Context, peer noiseconn.PublicKey, address netip.Addr, cut func()) (admission.Session, error) {
	p, err := r.activate(peer)
	if err != nil {
		return nil, err
	}
	if s := r.beginPrePaired(p, cut); s != nil {
		return s, nil
	}
	if err := r.acknowledge(ctx, p); err != nil {
		return nil, err
	}
	if err := r.usedUp(p); err != nil {
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
	if p.lastSeen.Sub(p.lastSeenSaved) >= lastSeenStep {
		if err := r.saveProgressLocked(p); err != nil {
			r.config.Logger.Error("store when an App was last seen", "app", p.id(), "error", err)
		}
	}
	if address.IsValid() && address != p.lastAddress {
		p.lastAddress = address
		if err := r.saveAddressLocked(p); err != nil {
			r.config.Logger.Error("store where an App came from", "app", p.id(), "error", err)
		}
	}
	app := r.describeLocked(p)
	if isNew {
		r.audit("an App was paired", p)
		r.events.publish(&basev1.WatchEventsResponse{Event: &basev1.WatchEventsResponse_AppPaired{AppPaired: &basev1.AppPairedEvent{App: app}}})
	}
	r.events.publish(&basev1.WatchEventsResponse{Event: &basev1.WatchEventsResponse_SessionStarted{SessionStarted: &basev1.SessionStartedEvent{App: app}}})
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
	case standingActive, standingPrePaired:
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
	if s.app.standing == standingPrePaired || s.app.standing == standingUsedUp {
		return // nobody was told that it began
	}
	r.events.publish(&basev1.WatchEventsResponse{Event: &basev1.WatchEventsResponse_SessionEnded{SessionEnded: &basev1.SessionEndedEvent{App: r.describeLocked(s.app)}}})
}

// endOtherSessions ends all sessions but one, of all Apps.
func (r *Registry) endOtherSessions(keep *Session) {
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

// askingOf returns the places that the App of a session has for methods of the asking
// table.
func (r *Registry) askingOf(s *Session) chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	if s.app.asking == nil {
		s.app.asking = make(chan struct{}, maxAsking)
	}
	return s.app.asking
}

// errTooManyStreams: a call of the streaming table finds no place.
var errTooManyStreams = errors.New("too many logs or installations are being followed already; end one of them")

// beginStream takes a place for a call of the streaming table; end gives it back.
func (r *Registry) beginStream(s *Session) (end func(), err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if s.app.streams >= maxStreaming || r.streams >= helperclient.MaxMiddlewareReaders {
		return nil, errTooManyStreams
	}
	s.app.streams++
	r.streams++
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		s.app.streams--
		r.streams--
	}, nil
}

// authorise tells whether the App of a session may call a method that asks for
// least, now. With an image's keys an App may fetch the board's, and nothing else.
func (r *Registry) authorise(s *Session, method string, least basev1.Role) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if s.app.rights() != nil {
		return errNoRights
	}
	if (s.app.standing == standingPrePaired) != (method == basev1connect.PrePairedServiceFetchKeysProcedure) {
		return errPrePaired
	}
	if !mayCall(s.app.role, least) {
		return errRole
	}
	return nil
}
