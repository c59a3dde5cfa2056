package posture

import (
	"bytes"
	"errors"
	"slices"
	"time"

	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
)

const nonceSize = 32

// Errors of an App that looks at a Base's posture. Each means that somebody
// between the App and the Base's helper may be lying.
var (
	ErrOlder  = reason.New("the Base shows an older posture than this App has seen; do not rely on it, and check the Base's console")
	ErrReport = reason.New("the Base's report does not fit its history or the question; do not rely on it, and check the Base's console")
)

// Memory is what an App keeps of a Base between two looks: the highest it has
// seen. The zero Memory knows nothing yet. A Base that begins a new epoch has lost
// its pairings, so the App pairs again and begins with a zero Memory too.
type Memory struct {
	Epoch           Epoch
	Revision        uint64
	Hash            Hash
	Restriction     uint64
	RestrictionHash Hash
}

// Expectation is what an App knows before it looks.
type Expectation struct {
	// Base is K_state, which came with the pairing and was covered by its code.
	Base SigningKey
	// Memory is that of the last look.
	Memory Memory
	// Nonce are the 32 random bytes of the App's question.
	Nonce []byte
}

// View is a Base's posture, verified by an App.
type View struct {
	chain   *chain
	report  *systemv1.PostureReport
	running []RunningLease
	// Gap: the Base no longer keeps all that happened since the last look. Its
	// helper vouches for where the kept part begins.
	Gap bool
}

// reportCheck is one reason not to believe a report.
type reportCheck struct {
	name   string
	refuse func(*looking) error
}

// looking is what is being verified.
type looking struct {
	Expectation
	chain  *chain
	signed *systemv1.Signed
	report *systemv1.PostureReport
}

// reportChecks stand in the order in which they are made. The chain's own checks
// come before.
var reportChecks = []reportCheck{
	{"no unknown field", func(l *looking) error {
		return errors.Join(refuseUnknown(l.signed.ProtoReflect()), refuseUnknown(l.report.ProtoReflect()))
	}},
	{"signer", func(l *looking) error { return unless(bytes.Equal(l.signed.GetSigner(), l.Base[:]), ErrNotHelper) }},
	{"signature", func(l *looking) error { return verify(labelReport, l.signed) }},
	{"same chain", func(l *looking) error {
		r, tip := l.report, l.chain.tip()
		number, hash := l.chain.lastRestriction()
		return unless(bytes.Equal(r.GetBaseId(), l.Base[:]) && bytes.Equal(r.GetEpoch(), l.chain.epoch[:]) &&
			r.GetRevision() == tip.doc.GetRevision() && bytes.Equal(r.GetDocumentHash(), tip.hash[:]) &&
			r.GetRestrictionNumber() == number && bytes.Equal(r.GetRestrictionHash(), hash[:]), ErrReport)
	}},
	{"nonce", func(l *looking) error {
		return unless(len(l.Nonce) == nonceSize && bytes.Equal(l.report.GetNonce(), l.Nonce), ErrReport)
	}},
	{"known epoch", func(l *looking) error {
		return unless(l.Memory == (Memory{}) || l.Memory.Epoch == l.chain.epoch, ErrWrongEpoch)
	}},
	{"not older", func(l *looking) error {
		number, _ := l.chain.lastRestriction()
		return unless(l.chain.revision() >= l.Memory.Revision && number >= l.Memory.Restriction, ErrOlder)
	}},
	{"same history", func(l *looking) error {
		if l.Memory == (Memory{}) {
			return nil
		}
		for _, e := range l.chain.entries {
			if e.doc.GetRevision() == l.Memory.Revision && e.hash != l.Memory.Hash {
				return ErrFork
			}
		}
		hash, kept := l.chain.restrictionHash(l.Memory.Restriction)
		return unless(!kept || hash == l.Memory.RestrictionHash, ErrFork)
	}},
}

// VerifyChain is the App's side: it verifies the Base's history (Ledger.Chain) and
// its report (Ledger.Report), and trusts nobody who carried them. It refuses a history
// that is older than the one that the App has seen before, or forked from it.
func VerifyChain(expect Expectation, history, report []byte) (*View, error) {
	return verifyWith(reportChecks, expect, history, report)
}

func verifyWith(checks []reportCheck, expect Expectation, history, report []byte) (*View, error) {
	var m systemv1.PostureChain
	if err := read(history, MaxChainSize, &m); err != nil {
		return nil, unverified(err)
	}
	c, err := verifyChain(expect.Base, &m)
	if err != nil {
		return nil, unverified(err)
	}
	return believe(checks, expect, c, report)
}

// unverified says that nothing that the Base has shown counts. ErrOlder and ErrReport say so themselves.
func unverified(err error) error {
	if errors.Is(err, ErrOlder) || errors.Is(err, ErrReport) {
		return err
	}
	return reason.Errorf("the Base's posture does not verify (%w); do not rely on it, and check the Base's console", err)
}

// believe checks a report against a verified chain.
func believe(checks []reportCheck, expect Expectation, c *chain, report []byte) (*View, error) {
	l := &looking{Expectation: expect, chain: c, signed: &systemv1.Signed{}, report: &systemv1.PostureReport{}}
	if err := errors.Join(read(report, MaxDocumentSize, l.signed), read(l.signed.GetMessage(), MaxDocumentSize, l.report)); err != nil {
		return nil, unverified(err)
	}
	for _, check := range checks {
		if err := check.refuse(l); err != nil {
			return nil, unverified(err)
		}
	}
	gap := expect.Memory != (Memory{}) && expect.Memory.Revision < c.entries[0].doc.GetRevision()
	return &View{chain: c, report: l.report, running: leasesFromProto(l.report.GetLeases()), Gap: gap}, nil
}

// Memory returns what the App is to keep, before it acts on the View.
func (v *View) Memory() Memory {
	number, hash := v.chain.lastRestriction()
	return Memory{Epoch: v.chain.epoch, Revision: v.chain.revision(), Hash: v.chain.tip().hash, Restriction: number, RestrictionHash: hash}
}

// Effective is what was in force when the report was signed.
func (v *View) Effective() Effective {
	e := effective(v.chain.revision(), v.chain.tip().posture, v.chain.active(), v.running)
	if v.report.GetPhase() != phaseSettled {
		e = v.chain.cautious(e)
	}
	return e
}

// Unlocked is what would be in force without the restrictions that a document can lift:
// what goes on below a lockdown.
func (v *View) Unlocked() Effective {
	active := slices.DeleteFunc(v.chain.active(), Restriction.liftable)
	e := effective(v.chain.revision(), v.chain.tip().posture, active, v.running)
	if v.report.GetPhase() != phaseSettled {
		e = v.chain.cautious(e)
	}
	return e
}

// Posture returns the last document's content and revision: what a next one
// begins from.
func (v *View) Posture() (Posture, uint64) { return v.chain.tip().posture, v.chain.revision() }

// Pending tells whether the last document is not settled yet, whether it waits for
// a confirmation, and in how long it will be undone.
func (v *View) Pending() (pending, trying bool, undoneIn time.Duration) {
	phase := v.report.GetPhase()
	return phase != phaseSettled, phase == phaseTrying, fromMilliseconds(v.report.GetUndoneInMs())
}

// Liftable returns the restrictions in force that a document can lift.
func (v *View) Liftable() []Restriction {
	return slices.DeleteFunc(v.chain.active(), func(r Restriction) bool { return !r.liftable() })
}

// Back returns the content for a new revision that goes back to an earlier one:
// its settings, with the Apps of today. A lease that still runs goes on; any
// other starts again.
func (v *View) Back(revision uint64) (Posture, error) { return v.chain.back(revision) }

// Draft returns the next document, for SignDocument. Leases that begin with it
// have GrantedIn = the revision of Posture, plus one. lifts are numbers of
// Liftable. The challenge is a fresh one of the Base.
func (v *View) Draft(p Posture, lifts []uint64, challenge []byte, try bool, signedAt time.Time) (*systemv1.PostureDocument, error) {
	if err := p.Validate(); err != nil {
		return nil, err
	}
	doc := v.chain.next(p)
	doc.Origin = systemv1.PostureDocument_ORIGIN_OWNER
	doc.Lifts, doc.Challenge, doc.Try, doc.SignedAt = lifts, challenge, try, signedAt.Unix()
	return doc, nil
}

// Changes says what will be different once the Base has accepted a document of
// Draft: what its owner reads before signing.
func (v *View) Changes(doc *systemv1.PostureDocument) []Change {
	p, _ := decodePosture(doc.GetPosture())
	d := &candidate{doc: doc, posture: p}
	after := effective(doc.GetRevision(), p, v.chain.activeAfter(d), begin(v.running, doc.GetRevision(), p))
	return Diff(v.Effective(), after)
}

// Confirmation returns the confirmation of the try that is on, for
// SignConfirmation. The challenge was given out after the try had begun.
func (v *View) Confirmation(challenge []byte) *systemv1.TryConfirmation {
	return &systemv1.TryConfirmation{
		BaseId: v.chain.base[:], Epoch: v.chain.epoch[:],
		Revision: v.chain.revision(), DocumentHash: v.chain.tip().hash[:], Challenge: challenge,
	}
}
