package pairing

import (
	"crypto/ed25519"
	"slices"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
)

// OwnerKey is K_sign of an owner's App.
type OwnerKey [ed25519.PublicKeySize]byte

// The orders of an owner's App. No Caller can ask for it: the holder of the Service
// verifies signature, role and challenge of the order, and then calls these methods
// (Service.With). All bounds are those of the console: three acts in 180 s, one reveal
// for each, and the deadlines.

// OpenWindowFor opens the window for one App with a role, by an owner's order. A person at the
// Base accepts and confirms it, with this role or a lower one.
func (m *Machine) OpenWindowFor(owner OwnerKey, role basev1.Role) error {
	if !roleExists(role) {
		return ErrRoleInvalid.because("there is no role %d", role)
	}
	m.beginWindow(ordered{owner: owner, role: role})
	return nil
}

// orderedRole is the role that an owner has ordered for the window that is open, 0 if
// there is none.
func (m *Machine) orderedRole() basev1.Role {
	if !m.windowOpen() {
		return 0
	}
	return m.window.role
}

// AcceptFor is the act, by an owner's App. Only AnswerFor with the same owner, or the
// console, answers the ceremony.
func (m *Machine) AcceptFor(owner OwnerKey, number uint32, role basev1.Role) error {
	if owner == (OwnerKey{}) || !m.registry.hasOwner(activeOnly) {
		return ErrPermission.because("no owner has ordered it")
	}
	return m.accept(number, role, owner)
}

// answerCheck is one reason to refuse an owner's answer.
type answerCheck struct {
	name string
	// refuse: the answer does not fit the ceremony.
	refuse func(c *ceremony, owner OwnerKey, answer *systemv1.PairingAnswer) bool
	// ends: a refusal ends the ceremony. It does so when the right owner has answered.
	ends bool
}

// answerChecks stand in the order in which they are made. Tests take out each in turn
// and show what attack it stops.
var answerChecks = []answerCheck{
	{"same owner", func(c *ceremony, owner OwnerKey, _ *systemv1.PairingAnswer) bool {
		return owner == (OwnerKey{}) || c.byOwner != owner
	}, false},
	{"this ceremony", func(c *ceremony, _ OwnerKey, a *systemv1.PairingAnswer) bool {
		return string(a.GetCeremonyId()) != string(c.id[:])
	}, false},
	{"words", func(c *ceremony, _ OwnerKey, a *systemv1.PairingAnswer) bool { return !c.words.Equal(a.GetWords()) }, true},
	{"role", func(c *ceremony, _ OwnerKey, a *systemv1.PairingAnswer) bool { return a.GetRole() != c.role }, true},
	{"key", func(c *ceremony, _ OwnerKey, a *systemv1.PairingAnswer) bool {
		return !slices.Equal(a.GetSigningKey(), c.revealed.SigningKey)
	}, true},
	// The words do not cover the name: the Middleware, which carries the reveal, could change it.
	{"name", func(c *ceremony, _ OwnerKey, a *systemv1.PairingAnswer) bool {
		return a.GetAppName() != c.revealed.Name
	}, true},
}

// AnswerFor takes the owner's answer: the words that the new App shows, or none for
// no. There is one try: words, role, key or name that are not those of the ceremony end
// it. An error means that there was no such ceremony to answer.
func (m *Machine) AnswerFor(owner OwnerKey, answer *systemv1.PairingAnswer) (matched bool, err error) {
	c := m.ceremony
	if c == nil {
		return false, ErrNoCeremony
	}
	no := len(answer.GetWords()) == 0
	for _, check := range m.answerChecks {
		switch {
		case !check.ends && check.refuse(c, owner, answer):
			return false, ErrNoCeremony
		case !check.ends:
		case no:
			m.end(systemv1.LastCeremony_OUTCOME_REJECTED_AT_BASE)
			return false, nil
		case c.phase != systemv1.Ceremony_PHASE_SHOWN:
			return false, ErrNoCeremony
		case check.refuse(c, owner, answer):
			m.end(systemv1.LastCeremony_OUTCOME_REFUSED)
			return false, nil
		}
	}
	c.baseConfirmed = true
	return true, nil
}

// stillOwner tells whether a pairing that an owner has accepted may go on. The zero
// key stands for the console.
func (m *Machine) stillOwner(owner OwnerKey) bool { return owner == (OwnerKey{}) || m.isOwner(owner) }

// activeOwner is IsOwner by the registry.
func (m *Machine) activeOwner(owner OwnerKey) bool {
	e := m.registry.find(owner[:])
	return e != nil && e.active && e.role == basev1.Role_ROLE_OWNER
}

// endOrders ends what a former owner has begun: the window that it has ordered, and the
// ceremony in it. If an owner was lost just now, it also ends ceremonies from an
// unsigned window. A ceremony that began at the console goes on.
func (m *Machine) endOrders(ownerLost bool) {
	m.endOrdersOf(func(owner OwnerKey) bool { return !m.activeOwner(owner) })
	if ownerLost {
		m.endUnsigned()
	}
}

// cutOff ends what an owner may have begun whom the Middleware has revoked, pending keys too.
// The registry still has this owner's key.
func (m *Machine) cutOff(revoked OwnerKey) {
	m.endOrdersOf(func(owner OwnerKey) bool { return owner == revoked })
	m.endUnsigned()
	if revoked != (OwnerKey{}) { // which stands for nobody
		m.registry = slices.DeleteFunc(m.registry, func(e entry) bool { return !e.active && e.orderedBy == revoked })
	}
}

// endOrdersOf ends the window that an owner has ordered, and the ceremony by an order, if the
// owner is gone.
func (m *Machine) endOrdersOf(gone func(OwnerKey) bool) {
	if m.orderedRole() != 0 && gone(m.window.owner) {
		m.windowEnds, m.window = 0, ordered{}
	}
	if c := m.ceremony; c != nil && c.orderedBy != (OwnerKey{}) && gone(c.orderedBy) {
		m.end(systemv1.LastCeremony_OUTCOME_REFUSED)
	}
	m.hideUnlessListening()
}

// endUnsigned ends an unsigned window, and the ceremony that began in one.
func (m *Machine) endUnsigned() {
	if m.windowOpen() && m.window.unsigned {
		m.windowEnds, m.window = 0, ordered{}
	}
	if c := m.ceremony; c != nil && c.unsigned {
		m.end(systemv1.LastCeremony_OUTCOME_REFUSED)
	}
	m.hideUnlessListening()
}

// OrderedBy returns the owner whose App has ordered the pairing of an enrolled key, as long
// as this process remembers; zero: nobody has.
func (m *Machine) OrderedBy(signingKey [ed25519.PublicKeySize]byte) OwnerKey {
	if e := m.registry.find(signingKey[:]); e != nil {
		return e.orderedBy
	}
	return OwnerKey{}
}

// Snapshot is what a caller may see now.
func (m *Machine) Snapshot(caller Caller) *systemv1.Snapshot {
	m.publish()
	return m.snapshot(caller)
}
