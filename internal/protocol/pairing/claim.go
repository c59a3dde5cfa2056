package pairing

import (
	"crypto/ed25519"
	"crypto/sha256"
	"slices"
	"time"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/noiseconn"
)

// Claim names the App that a provisioning file makes the owner, without a person at the Base.
// The Base knows the App by its two keys, and the App knows the Base by the secret.
type Claim struct {
	App        noiseconn.PublicKey
	SigningKey [ed25519.PublicKeySize]byte
	Secret     noiseconn.ClaimSecret
	// Until is when it expires, by the wall clock. A Base that does not know the time takes
	// it for an earlier one.
	Until time.Time
}

// MaxClaims is how many P1 a claim answers: more than an App sends in a life, and few enough
// to remember. After that the Base is silent until it restarts.
const MaxClaims = 1024

// claim is a Claim that is open.
type claim struct {
	Claim
	wallClock func() time.Time
	answered  map[p1Digest]bool // each once: a copy of a claim is answered by nothing
}

func newClaim(c Claim, wallClock func() time.Time) *claim {
	return &claim{Claim: c, wallClock: wallClock, answered: map[p1Digest]bool{}}
}

// claimCheck is one reason for silence, or to end the ceremony.
type claimCheck struct {
	name string
	// mark refuses a claim that was heard; reveal refuses what its App has revealed.
	mark   func(m *Machine, mark, p1 []byte, digest p1Digest) bool
	reveal func(m *Machine, c *ceremony) bool
}

// claimChecks stand in the order in which they are made. Tests take out each in turn and show
// what attack it stops.
var claimChecks = []claimCheck{
	{name: "open", mark: func(m *Machine, _, _ []byte, _ p1Digest) bool { return m.claim == nil }},
	// Somebody at the display was first, and the App will have connected soon.
	{name: "no other owner", mark: func(m *Machine, _, _ []byte, _ p1Digest) bool {
		return slices.ContainsFunc(m.registry, func(e entry) bool { return e.signingKey != m.claim.SigningKey })
	}},
	// A ceremony of a person goes on. One by the claim was lost: its App alone asks again.
	{name: "no other ceremony", mark: func(m *Machine, _, _ []byte, _ p1Digest) bool {
		return m.ceremony != nil && !m.ceremony.byClaim
	}},
	{name: "mark", mark: func(m *Machine, mark, p1 []byte, _ p1Digest) bool {
		return !noiseconn.CheckClaimMark(m.claim.Secret, m.claim.SigningKey[:], mark, p1)
	}},
	{name: "answered once", mark: func(m *Machine, _, _ []byte, digest p1Digest) bool {
		return m.claim.answered[digest] || len(m.claim.answered) >= MaxClaims
	}},
	{name: "signing key", reveal: func(m *Machine, c *ceremony) bool {
		return string(c.revealed.SigningKey) != string(m.claim.SigningKey[:])
	}},
	{name: "static key", reveal: func(m *Machine, c *ceremony) bool { return c.appKey != m.claim.App }},
}

// hearClaim takes a claim. Whatever does not hold gets silence, as a request does that nobody
// has accepted. It takes no act: an act bounds guesses at six digits, and nothing can be
// guessed here.
func (m *Machine) hearClaim(request *systemv1.Claim) (*systemv1.HearResult, error) {
	p1 := request.GetP1()
	if len(p1) != noiseconn.P1Size || len(request.GetMark()) != noiseconn.ClaimMarkSize {
		return nil, ErrMalformed.because("the claim has %d and %d bytes, not %d and %d", len(request.GetMark()), len(p1),
			noiseconn.ClaimMarkSize, noiseconn.P1Size)
	}
	digest := p1Digest(sha256.Sum256(p1))
	for _, check := range m.claimChecks {
		if check.mark != nil && check.mark(m, request.GetMark(), p1, digest) {
			return &systemv1.HearResult{}, nil
		}
	}
	m.claim.answered[digest] = true
	if err := m.begin(&ceremony{role: basev1.Role_ROLE_OWNER, byClaim: true}); err != nil {
		return nil, err
	}
	return m.grant(), nil
}

// checkReveal refuses another App than that of the claim. The same App may come again: what it
// has of the last time may have been lost on its way.
func (m *Machine) checkReveal(c *ceremony) error {
	if m.claim == nil {
		return ErrNoCeremony
	}
	for _, check := range m.claimChecks {
		if check.reveal != nil && check.reveal(m, c) {
			return ErrBadReveal.because("it is not that of the App which the Base was provisioned for")
		}
	}
	m.registry.dropPending(c.revealed.SigningKey)
	return nil
}

// prove is what shows the App that this authority has the secret.
func (c *claim) prove(of *ceremony, rb [32]byte, stateKey ed25519.PublicKey) ([]byte, error) {
	return noiseconn.ClaimProof(c.Secret, of.revealed.RA, rb, of.h, of.revealed.SigningKey, stateKey, byte(of.role))
}

// endClaim forgets the claim for good: it was used, an owner was paired at the display, or its
// time is over.
func (m *Machine) endClaim() {
	if m.claim == nil {
		return
	}
	expired := m.claim.wallClock != nil && !m.claim.wallClock().Before(m.claim.Until)
	if !expired && !m.registry.hasOwner(activeOnly) {
		return
	}
	m.claim = nil
	if m.ceremony != nil && m.ceremony.byClaim {
		m.end(systemv1.LastCeremony_OUTCOME_TIMED_OUT)
	}
}
