package posture

import (
	"slices"
	"time"

	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
)

// maxRestrictionSize is several times what one takes, in bytes.
const maxRestrictionSize = 512

// ErrNothingToClose: the restriction would change nothing, because it is in
// force already or what it closes is not there. This is what bounds them:
// between two revisions there can be no more than there are things to close,
// however often a taken-over daemon asks.
var ErrNothingToClose = reason.New("there is nothing left to close")

// ErrOwnerCutOff: an owner's App cannot be cut off without a signature, or a
// taken-over daemon could lock every owner out.
var ErrOwnerCutOff = reason.New("an owner's App can be removed only by a document that an owner has signed, or at the console")

// ClosingType says what a Closing closes.
type ClosingType int

const (
	// ClosingLockdown closes SSH, every extra API, and pairing. It takes no key away.
	ClosingLockdown ClosingType = iota + 1
	// ClosingPairing closes pairing from the network.
	ClosingPairing
	// ClosingLease ends one lease, for good.
	ClosingLease
	// ClosingApp cuts one App off, for good.
	ClosingApp
)

// Closing is what a restriction closes. It is comparable: the same Closing twice
// is no more than once.
type Closing struct {
	Type ClosingType
	// Kind and GrantedIn name the lease, for ClosingLease alone.
	Kind      Kind
	GrantedIn uint64
	// App is the key of the App, for ClosingApp alone.
	App SigningKey
}

// liftable tells whether a document can lift it. The others need no lifting: a
// lease is granted again, an App is paired again.
func (c Closing) liftable() bool { return c.Type == ClosingLockdown || c.Type == ClosingPairing }

// Actor says who asked for a restriction.
type Actor = systemv1.Restriction_Actor

// Actors.
const (
	ActorMiddleware = systemv1.Restriction_ACTOR_MIDDLEWARE
	ActorConsole    = systemv1.Restriction_ACTOR_CONSOLE
	ActorClock      = systemv1.Restriction_ACTOR_CLOCK
	ActorReboot     = systemv1.Restriction_ACTOR_REBOOT
)

// Restriction is one that was recorded.
type Restriction struct {
	// Number counts from 1.
	Number uint64
	// Revision is the one during which it was recorded.
	Revision uint64
	// RecordedAt is by the Base's clock, for people.
	RecordedAt time.Time
	Actor      Actor
	Closing

	// raw are its exact bytes.
	raw []byte
}

// parseRestriction reads the exact bytes of a restriction.
func parseRestriction(raw []byte) (*systemv1.Restriction, Restriction, error) {
	var m systemv1.Restriction
	if err := readStrict(raw, maxRestrictionSize, &m); err != nil {
		return nil, Restriction{}, err
	}
	r := Restriction{
		Number: m.GetNumber(), Revision: m.GetRevision(), Actor: m.GetActor(),
		RecordedAt: time.Unix(m.GetRecordedAt(), 0), raw: raw,
	}
	switch what := m.GetWhat().(type) {
	case *systemv1.Restriction_Lockdown:
		r.Type = ClosingLockdown
	case *systemv1.Restriction_PairingShut:
		r.Type = ClosingPairing
	case *systemv1.Restriction_LeaseEnded:
		r.Type = ClosingLease
		r.Kind, r.GrantedIn = Kind(what.LeaseEnded.GetKind()), what.LeaseEnded.GetGrantedIn()
	case *systemv1.Restriction_AppCutOff:
		r.Type = ClosingApp
		if copy(r.App[:], what.AppCutOff.GetSigningKey()) != len(r.App) || len(what.AppCutOff.GetSigningKey()) != len(r.App) {
			return nil, Restriction{}, reason.Errorf("%w: restriction %d, in which the key of the App has %d bytes, not 32",
				ErrMalformed, r.Number, len(what.AppCutOff.GetSigningKey()))
		}
	default:
		return nil, Restriction{}, reason.Errorf("%w: restriction %d closes nothing", ErrMalformed, r.Number)
	}
	return &m, r, nil
}

// describe fills in what is closed.
func (c Closing) describe(m *systemv1.Restriction) {
	switch c.Type {
	case ClosingLockdown:
		m.What = &systemv1.Restriction_Lockdown{Lockdown: &systemv1.Lockdown{}}
	case ClosingPairing:
		m.What = &systemv1.Restriction_PairingShut{PairingShut: &systemv1.PairingShut{}}
	case ClosingLease:
		m.What = &systemv1.Restriction_LeaseEnded{LeaseEnded: &systemv1.LeaseEnded{Kind: string(c.Kind), GrantedIn: c.GrantedIn}}
	case ClosingApp:
		m.What = &systemv1.Restriction_AppCutOff{AppCutOff: &systemv1.AppCutOff{SigningKey: c.App[:]}}
	}
}

// closingCheck is one reason not to record a restriction. A View does not ask: who
// lies in the Base's name can only make it look more closed.
type closingCheck struct {
	name   string
	refuse func(*chain, Closing) error
}

// closingChecks look at the last document, and at the one before, which comes back
// if the last one is undone.
var closingChecks = []closingCheck{
	{"no owner", func(c *chain, closing Closing) error {
		for _, p := range c.lastPostures() {
			if app, found := findApp(p.Apps, closing.App); found && app.Role == roleOwner && closing.Type == ClosingApp {
				return reason.Errorf("%q: %w", app.Name, ErrOwnerCutOff)
			}
		}
		return nil
	}},
	{"closes something", func(c *chain, closing Closing) error {
		return unless(slices.ContainsFunc(c.lastPostures(), closing.closes), ErrNothingToClose)
	}},
	{"not again", func(c *chain, closing Closing) error {
		return unless(!closing.isActive(c.active()), ErrNothingToClose)
	}},
}

// lastPostures returns what the last document holds, and the one before.
func (c *chain) lastPostures() []Posture {
	postures := []Posture{c.tip().posture}
	if before := c.beforeTip(); before != nil {
		postures = append(postures, before.posture)
	}
	return postures
}

// closes tells whether there is something in p for c to close.
func (c Closing) closes(p Posture) bool {
	switch c.Type {
	case ClosingLockdown:
		return true
	case ClosingPairing:
		return !p.PairingClosed
	case ClosingLease:
		lease, granted := p.lease(c.Kind)
		return granted && lease.GrantedIn == c.GrantedIn
	case ClosingApp:
		_, found := findApp(p.Apps, c.App)
		return found
	default:
		return false
	}
}

// isActive tells whether one of active closes exactly what c closes.
func (c Closing) isActive(active []Restriction) bool {
	return slices.ContainsFunc(active, func(r Restriction) bool { return r.Closing == c })
}
