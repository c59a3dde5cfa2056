package posture

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/noiseconn"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/release"
	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
)

// Times of the Ledger.
const (
	// ChallengeLife is how long a challenge can be used.
	ChallengeLife = 120 * time.Second
	// TryTime is how long a change that is tried stays without a confirmation.
	TryTime = 60 * time.Second
	// ApplyTime is how long the applying of a document may take before it is
	// undone: several times what the slowest machine needs.
	ApplyTime = 120 * time.Second
)

// maxChallenges is how many are out at most; the oldest gives way. More Apps than
// that do not change a posture within two minutes.
const maxChallenges = 16

// Errors of the Ledger.
var (
	ErrChallenge      = reason.New("the signed challenge is not one that the Base gave out in the last two minutes, or was used; fetch a new one and sign again")
	ErrBusy           = reason.New("another change is being applied or on trial; wait until it is confirmed or undone, at most a minute or two")
	ErrNoTry          = reason.New("no change is on trial; it was undone, or already confirmed")
	ErrWrongTry       = reason.New("the confirmation is for another change than the one on trial, or was signed by another App")
	ErrNoOwnerAnyMore = reason.New("the change would take away its signer's role of owner, so it cannot be tried; sign it to hold at once")
	ErrOldConnection  = reason.New("the confirmation came over a connection from before the change; connect again and confirm again")
	ErrState          = reason.New("the saved posture cannot be used; the Base keeps to what is closed: restore the file, or reset the Base at its console")
	ErrKnownApp       = reason.New("this App is already known; a pairing needs a fresh key")
	ErrTooNew         = reason.New("the change forbids the version that runs; install the newer one first, then forbid what is older")
	ErrCutOff         = reason.New("the change raises an App that was cut off for good; pair it again")
)

// Config is what a Ledger needs.
type Config struct {
	// StateSeed is K_state's. Its public key is the Base's id.
	StateSeed StateSeed
	// Random gives epoch and challenges; nil is the system's generator.
	Random io.Reader
	// Wall is asked for the stamps that people read; nil is time.Now. It decides
	// nothing.
	Wall func() time.Time
	// BootID names this boot (/proc/sys/kernel/random/boot_id). All times that
	// are given to a Ledger are on the boot-time clock of this boot.
	BootID string
	// Identities returns how a client recognises what is open, for reports; nil: it is not
	// known.
	Identities func(Effective) Identities
	// Running is the version of the software that runs; empty: it is not known.
	Running string
}

// Ledger keeps the posture of a Base. It is a machine without I/O: not safe for
// use by several goroutines, and it counts time only when it is told.
//
// Every method takes now, the boot-time clock, counts the leases first, and
// returns an Output, also beside an error. The life of a change:
//
//	Challenge -> an App signs -> Submit -> [save, apply] -> Applied -> settled
//	                                                  \         \-> a try: Confirm within 60 s -> settled
//	                                                   \-> Undo      \-> not confirmed: undone
//
// A document that is not settled is undone by the next Load, so a crash at any
// point ends in the old posture or in the new one.
type Ledger struct {
	config Config
	chain  *chain

	phase systemv1.PostureReport_Phase
	// pendingUntil is when the last document is undone unless it gets settled;
	// meaningless once it is.
	pendingUntil time.Duration

	running   []RunningLease
	countedAt time.Duration
	savedAt   time.Duration

	// challenges are those that can be used, oldest first. They live in memory
	// only: a restart voids them.
	challenges []challenge

	// acts are what the Base has done by itself and nobody has taken yet.
	acts []Act

	submitChecks  []submitCheck
	confirmChecks []confirmCheck
	closingChecks []closingCheck
	kept          int // keptRevisions; fewer in tests
}

type challenge struct {
	value [32]byte
	until time.Duration
}

// Output is what a call leads to.
type Output struct {
	// Save, when not nil, replaces what was saved before. It must be on the disk
	// before anything follows from the call: a reply, or the applying of a
	// document. If it cannot be saved, drop this Ledger, load the last one
	// saved, and close what a restriction wanted closed nevertheless.
	Save []byte
	// Changed: Effective is another than before, beyond the passing of time.
	Changed bool
}

const (
	phaseSettled  = systemv1.PostureReport_PHASE_SETTLED
	phaseApplying = systemv1.PostureReport_PHASE_APPLYING
	phaseTrying   = systemv1.PostureReport_PHASE_TRYING
)

func newLedger(config Config, now time.Duration) (*Ledger, error) {
	if config.StateSeed.Empty() {
		return nil, reason.New("open the posture's ledger: there is no key to sign its reports with")
	}
	if config.BootID == "" {
		return nil, reason.New("open the posture's ledger: without an id of the boot no lease can be counted")
	}
	if config.Random == nil {
		config.Random = rand.Reader
	}
	if config.Wall == nil {
		config.Wall = time.Now
	}
	return &Ledger{
		config: config, phase: phaseSettled, countedAt: now, savedAt: now,
		submitChecks: submitChecks, confirmChecks: confirmChecks, closingChecks: closingChecks,
		kept: keptRevisions,
	}, nil
}

// New begins a new epoch with the factory posture. It is for a Base that has
// never had one, or was reset: everything signed before is void.
func New(config Config, factory Posture, now time.Duration) (*Ledger, Output, error) {
	l, err := newLedger(config, now)
	if err != nil {
		return nil, Output{}, err
	}
	if err := factory.Validate(); err != nil {
		return nil, Output{}, reason.Errorf("factory posture: %w", err)
	}
	if len(factory.grants()) > 0 || len(factory.Apps) > 0 {
		return nil, Output{}, reason.New("factory posture: it must not grant a lease nor list an App")
	}
	var epoch Epoch
	if _, err := io.ReadFull(l.config.Random, epoch[:]); err != nil {
		return nil, Output{}, reason.Errorf("draw %d random bytes for the epoch: %w", len(epoch), err)
	}
	base := PublicKey(config.StateSeed)
	doc := &systemv1.PostureDocument{
		BaseId: base[:], Epoch: epoch[:], PreviousHash: make([]byte, len(Hash{})),
		RestrictionSeenHash: make([]byte, len(Hash{})),
		Origin:              systemv1.PostureDocument_ORIGIN_FACTORY,
		Version:             documentVersion,
		SignedAt:            l.config.Wall().Unix(),
		Posture:             factory.Proto(),
	}
	anchor := newAnchor(base, entry{doc: doc, signed: seal(labelDocument, encode(doc), config.StateSeed)}, config.StateSeed)
	if l.chain, err = verifyChain(base, &systemv1.PostureChain{Anchor: anchor}); err != nil {
		return nil, Output{}, reason.Errorf("begin the posture's chain: %w", err)
	}
	return l, l.output(now, true), nil
}

// Load goes on with what was saved. Every signature and hash is checked again. A
// document that was not settled is undone; SSH's lease ends if this is another
// boot. The Output is to be saved at once.
func Load(config Config, saved []byte, now time.Duration) (*Ledger, Output, error) {
	l, err := newLedger(config, now)
	if err != nil {
		return nil, Output{}, err
	}
	var state systemv1.LedgerState
	if err := readStrict(saved, 2*MaxChainSize, &state); err != nil {
		return nil, Output{}, reason.Errorf("%w: %w", ErrState, err)
	}
	if l.chain, err = verifyChain(PublicKey(config.StateSeed), state.GetChain()); err != nil {
		return nil, Output{}, reason.Errorf("%w: %w", ErrState, err)
	}
	if state.GetPending() && (l.chain.beforeTip() == nil || l.chain.tip().doc.GetOrigin() == systemv1.PostureDocument_ORIGIN_UNDO) {
		return nil, Output{}, reason.Errorf("%w: it says that revision %d is not settled, which cannot be", ErrState, l.chain.revision())
	}
	l.running = leasesFromProto(state.GetLeases())
	counted := fromMilliseconds(state.GetCountedAtMs())
	if sameBoot := state.GetBootId() == config.BootID && counted <= now; sameBoot {
		l.countedAt = counted
		l.count(now)
	} else {
		left, ended := reboot(l.running)
		l.running = left
		l.end(ended, systemv1.Restriction_ACTOR_REBOOT)
	}
	if state.GetPending() {
		l.undo("the Base restarted before it was settled")
	}
	return l, l.output(now, true), nil
}

// output makes the Output of a call; changed also means that there is something
// to save.
func (l *Ledger) output(now time.Duration, changed bool) Output {
	if !changed {
		return Output{}
	}
	l.savedAt = now
	return Output{Changed: true, Save: l.encode()}
}

func (l *Ledger) encode() []byte {
	return encode(&systemv1.LedgerState{
		Chain: l.chain.proto(), Pending: l.phase != phaseSettled,
		BootId: l.config.BootID, CountedAtMs: milliseconds(l.countedAt), Leases: leasesToProto(l.running),
	})
}

// Tick does what is due: ends leases, undoes what was not confirmed, saves what
// is left of the leases each minute. Call it at Deadline at the latest.
func (l *Ledger) Tick(now time.Duration) Output {
	changed := l.count(now)
	if l.phase != phaseSettled && now >= l.pendingUntil {
		reason := "not confirmed in time"
		if l.phase == phaseApplying {
			reason = "applying it took too long"
		}
		l.undo(reason)
		changed = true
	}
	out := l.output(now, changed)
	if !changed && len(l.running) > 0 && now-l.savedAt >= checkpointInterval {
		out = l.output(now, true)
		out.Changed = false
	}
	return out
}

// Deadline returns when the next Tick is due, false if nothing is.
func (l *Ledger) Deadline() (time.Duration, bool) {
	var due []time.Duration
	if l.phase != phaseSettled {
		due = append(due, l.pendingUntil)
	}
	for _, lease := range l.running {
		due = append(due, l.countedAt+lease.Remaining, l.savedAt+checkpointInterval)
	}
	if len(due) == 0 {
		return 0, false
	}
	return slices.Min(due), true
}

// count counts the leases up to now, and tells whether one ended.
func (l *Ledger) count(now time.Duration) bool {
	left, ended := pass(l.running, max(now-l.countedAt, 0))
	l.running, l.countedAt = left, max(now, l.countedAt)
	l.end(ended, systemv1.Restriction_ACTOR_CLOCK)
	return len(ended) > 0
}

// end records the end of leases.
func (l *Ledger) end(ended []RunningLease, actor Actor) {
	for _, lease := range ended {
		l.acts = append(l.acts, Act{Kind: ActLeaseEnded, Detail: string(lease.Kind) + ", by " + actorName(actor)})
		closing := Closing{Type: ClosingLease, Kind: lease.Kind, GrantedIn: lease.GrantedIn}
		if err := l.record(closing, actor); err != nil && !errors.Is(err, ErrNothingToClose) {
			panic(fmt.Sprintf("posture: record the end of a lease: %v", err)) // there is no other reason for a lease
		}
	}
}

// Challenge gives out a challenge for one document or one confirmation.
func (l *Ledger) Challenge(now time.Duration) ([]byte, Output, error) {
	out := l.Tick(now)
	c := challenge{until: now + ChallengeLife}
	if _, err := io.ReadFull(l.config.Random, c.value[:]); err != nil {
		return nil, out, reason.Errorf("draw %d random bytes for a challenge: %w", len(c.value), err)
	}
	if len(l.challenges) == maxChallenges {
		l.challenges = l.challenges[1:]
	}
	l.challenges = append(slices.Clone(l.challenges), c)
	return slices.Clone(c.value[:]), out, nil
}

// VoidChallenges makes every document and order worthless that was signed and has not arrived. An
// owner whose order was honest signs it again, with a new challenge.
func (l *Ledger) VoidChallenges() { l.challenges = nil }

// checkChallenge: it is one of those given out, and not too old. Once what it was
// used for is applied or settled all of them are void, so each is used once and
// only for what follows the revision that it was given out for.
func (l *Ledger) checkChallenge(value []byte, now time.Duration) error {
	i := slices.IndexFunc(l.challenges, func(c challenge) bool { return bytes.Equal(c.value[:], value) })
	return unless(i >= 0 && now < l.challenges[i].until, ErrChallenge)
}

// submitCheck is one reason to refuse a document that fits the chain.
type submitCheck struct {
	name   string
	refuse func(l *Ledger, d *candidate, now time.Duration) error
}

// submitChecks stand in the order in which they are made, after those of the
// chain.
var submitChecks = []submitCheck{
	{"signed by an App", func(_ *Ledger, d *candidate, _ time.Duration) error {
		return unless(d.origin() == systemv1.PostureDocument_ORIGIN_OWNER, ErrNotOwner)
	}},
	{"no other change", func(l *Ledger, _ *candidate, _ time.Duration) error {
		return unless(l.phase == phaseSettled, ErrBusy)
	}},
	// A restriction is no part of the documents, so what follows cannot be checks of
	// the chain: a Middleware may cut an App off, and give an owner's document to the
	// helper only then.
	{"signed by an owner who was not cut off", func(l *Ledger, d *candidate, _ time.Duration) error {
		return unless(!l.isCutOff(SigningKey(d.signed.GetSigner())), ErrNotOwner)
	}},
	{"raises nobody who was cut off", func(l *Ledger, d *candidate, _ time.Duration) error {
		return unless(!slices.ContainsFunc(d.posture.Apps, func(a App) bool {
			was, found := findApp(l.chain.tip().posture.Apps, a.SigningKey)
			return found && a.Role > was.Role && l.isCutOff(a.SigningKey)
		}), ErrCutOff)
	}},
	{"an owner with rights is left", func(l *Ledger, d *candidate, _ time.Duration) error {
		return unless(slices.ContainsFunc(d.posture.Apps, func(a App) bool {
			return a.Role == roleOwner && !l.isCutOff(a.SigningKey)
		}), ErrLastOwner)
	}},
	{"allows the version that runs", func(l *Ledger, d *candidate, _ time.Duration) error {
		return l.checkOldest(d.posture)
	}},
	{"challenge", func(l *Ledger, d *candidate, now time.Duration) error {
		return l.checkChallenge(d.doc.GetChallenge(), now)
	}},
}

// checkOldest refuses to raise the oldest version above the one that runs: the Base would run what
// nobody may run, and remove the version that it could go back to. Where the value is not changed,
// nothing is refused: a Base that has gone back must still be able to close things.
func (l *Ledger) checkOldest(p Posture) error {
	raised := p.OldestVersion != l.chain.tip().posture.OldestVersion
	return unless(!raised || l.config.Running == "" || !release.Below(l.config.Running, p.OldestVersion), ErrTooNew)
}

// isCutOff tells whether a restriction has cut an App off.
func (l *Ledger) isCutOff(app SigningKey) bool {
	return Closing{Type: ClosingApp, App: app}.isActive(l.chain.active())
}

// Submit takes a document that an App has signed (SignDocument). After it, what
// is to be applied is Effective; then call Applied or Undo.
func (l *Ledger) Submit(signed []byte, now time.Duration) (Output, error) {
	out := l.Tick(now)
	var envelope systemv1.Signed
	if err := read(signed, MaxDocumentSize, &envelope); err != nil {
		return out, err
	}
	d, err := decodeDocument(&envelope)
	if err != nil {
		return out, err
	}
	if err := l.chain.check(d); err != nil {
		return out, err
	}
	for _, check := range l.submitChecks {
		if err := check.refuse(l, d, now); err != nil {
			return out, err
		}
	}
	l.append(d)
	l.phase, l.pendingUntil = phaseApplying, now+ApplyTime
	return l.output(now, true), nil
}

// append makes d the last document and lets its leases begin. Those of the one
// before go on until it is settled, for it may be undone.
func (l *Ledger) append(d *candidate) {
	before := l.chain.tip().posture
	l.chain.append(d)
	l.running = begin(l.running, d.doc.GetRevision(), d.posture, before)
}

// Applied tells that a revision is in force and was verified. A document that is
// tried now waits for its confirmation; any other is settled.
func (l *Ledger) Applied(revision uint64, now time.Duration) (Output, error) {
	out := l.Tick(now)
	if l.phase != phaseApplying || l.chain.revision() != revision {
		return out, reason.Errorf("note that revision %d was applied: it is not being applied; apply what is in force", revision)
	}
	l.challenges = nil // a confirmation takes one that was given out from now on
	if l.chain.tip().doc.GetTry() {
		l.phase, l.pendingUntil = phaseTrying, now+TryTime
	} else {
		l.settle()
	}
	return l.output(now, true), nil
}

// Undo takes the last document back because it could not be applied, and keeps in the
// history why. Revision is the one that was being applied or tried; if it no longer is,
// nothing is done and ErrNoTry is returned.
func (l *Ledger) Undo(revision uint64, why string, now time.Duration) (Output, error) {
	out := l.Tick(now)
	if l.phase == phaseSettled || l.chain.revision() != revision {
		return out, reason.Errorf("undo revision %d: %w", revision, ErrNoTry)
	}
	l.undo(why)
	return l.output(now, true), nil
}

// confirmCheck is one reason to refuse a confirmation.
type confirmCheck struct {
	name   string
	refuse func(*Ledger, *confirmation) error
}

type confirmation struct {
	signed        *systemv1.Signed
	m             *systemv1.TryConfirmation
	newConnection bool
	now           time.Duration
}

// confirmChecks stand in the order in which they are made.
var confirmChecks = []confirmCheck{
	{"no unknown field", func(_ *Ledger, c *confirmation) error {
		return errors.Join(refuseUnknown(c.signed.ProtoReflect()), refuseUnknown(c.m.ProtoReflect()))
	}},
	{"a try", func(l *Ledger, _ *confirmation) error { return unless(l.phase == phaseTrying, ErrNoTry) }},
	{"same App", func(l *Ledger, c *confirmation) error {
		return unless(bytes.Equal(c.signed.GetSigner(), l.chain.tip().signed.GetSigner()), ErrWrongTry)
	}},
	{"still an owner", func(l *Ledger, _ *confirmation) error {
		return unless(l.isOwner(l.chain.tip().signed.GetSigner()), ErrNoOwnerAnyMore)
	}},
	{"signature", func(_ *Ledger, c *confirmation) error { return verify(labelConfirmation, c.signed) }},
	{"same document", func(l *Ledger, c *confirmation) error {
		tip := l.chain.tip()
		return unless(proto.Equal(c.m, &systemv1.TryConfirmation{
			BaseId: l.chain.base[:], Epoch: l.chain.epoch[:],
			Revision: tip.doc.GetRevision(), DocumentHash: tip.hash[:], Challenge: c.m.GetChallenge(),
		}), ErrWrongTry)
	}},
	{"new connection", func(_ *Ledger, c *confirmation) error { return unless(c.newConnection, ErrOldConnection) }},
	{"challenge", func(l *Ledger, c *confirmation) error { return l.checkChallenge(c.m.GetChallenge(), c.now) }},
}

// Confirm takes the confirmation of a try (SignConfirmation). The caller vouches
// that it came over a connection made after the change; the challenge, given out
// after it, shows that the App can still hear the Base.
func (l *Ledger) Confirm(signed []byte, newConnection bool, now time.Duration) (Output, error) {
	out := l.Tick(now)
	c := &confirmation{signed: &systemv1.Signed{}, m: &systemv1.TryConfirmation{}, newConnection: newConnection, now: now}
	if err := errors.Join(read(signed, MaxDocumentSize, c.signed), read(c.signed.GetMessage(), MaxDocumentSize, c.m)); err != nil {
		return out, err
	}
	for _, check := range l.confirmChecks {
		if err := check.refuse(l, c); err != nil {
			return out, err
		}
	}
	l.settle()
	return l.output(now, true), nil
}

// isOwner tells whether a key is that of an owner's App now.
func (l *Ledger) isOwner(signer []byte) bool {
	return slices.ContainsFunc(l.Effective().Apps, func(a App) bool {
		return a.Role == roleOwner && bytes.Equal(a.SigningKey[:], signer)
	})
}

// settle makes the last document hold.
func (l *Ledger) settle() {
	l.phase = phaseSettled
	l.challenges = nil
	l.running = begin(l.running, 0, l.chain.tip().posture)
	l.chain.compact(l.config.StateSeed, l.kept)
}

// undo appends the content of the document before the last one as a new revision.
func (l *Ledger) undo(reason string) {
	if noiseconn.CheckName(reason) != nil {
		reason = "it could not be applied"
	}
	if err := l.appendOwn(systemv1.PostureDocument_ORIGIN_UNDO, l.chain.beforeTip().posture, nil, reason); err != nil {
		panic(fmt.Sprintf("posture: undo: %v", err)) // the same content was the last one before
	}
	l.acts = append(l.acts, Act{Kind: ActUndone, Detail: fmt.Sprintf("revision %d: %s", l.chain.revision()-1, reason)})
	l.settle()
}

// Interrupt undoes a document that is not settled, because an act at the Base goes before it. Call it before
// you read the content that the act changes.
func (l *Ledger) Interrupt(now time.Duration) Output {
	out := l.Tick(now)
	if l.phase == phaseSettled {
		return out
	}
	l.undoPending()
	return l.output(now, true)
}

// undoPending undoes what is not settled.
func (l *Ledger) undoPending() {
	if l.phase != phaseSettled {
		l.undo("an act at the Base came between")
	}
}

// appendOwn signs and appends a document of the helper's own.
func (l *Ledger) appendOwn(origin systemv1.PostureDocument_Origin, p Posture, lifts []uint64, note string) error {
	if err := p.Validate(); err != nil {
		return err
	}
	doc := l.chain.next(p)
	doc.Origin, doc.Lifts, doc.Note, doc.SignedAt = origin, lifts, note, l.config.Wall().Unix()
	d, err := decodeDocument(seal(labelDocument, encode(doc), l.config.StateSeed))
	if err != nil {
		return err
	}
	if err := l.chain.check(d); err != nil {
		return err
	}
	l.append(d)
	return nil
}

// Enrol adds an App that was paired at the Base. It is settled at once, since no
// server is configured by it. A document on trial is undone first. note names the owner
// who ordered the pairing; it is empty for a pairing at the console.
func (l *Ledger) Enrol(app App, note string, now time.Duration) (Output, error) {
	out := l.Tick(now)
	if _, known := findApp(l.chain.tip().posture.Apps, app.SigningKey); known {
		return out, ErrKnownApp
	}
	l.undoPending()
	p := l.chain.tip().posture
	p.Apps = append(slices.Clone(p.Apps), app)
	err := l.appendOwn(systemv1.PostureDocument_ORIGIN_CEREMONY, p, nil, note)
	if err == nil {
		l.acts = append(l.acts, Act{Kind: ActEnrolled, Detail: app.Name + " as " + app.Role.Name()})
	}
	l.settle()
	return l.output(now, true), err
}

// Grant leases SSH, for a Base whose provisioning file asks for it from the first boot
// on. It is settled at once and stands in the history as local. Without a key it is refused.
func (l *Ledger) Grant(length time.Duration, note string, now time.Duration) (Output, error) {
	out := l.Interrupt(now)
	p, revision := l.Posture()
	p.SSH = &Lease{Length: length, GrantedIn: revision + 1}
	if err := l.appendOwn(systemv1.PostureDocument_ORIGIN_LOCAL, p, nil, note); err != nil {
		return out, err
	}
	l.acts = append(l.acts, Act{Kind: ActGranted, Detail: fmt.Sprintf("SSH for %v: %s", length, note)})
	l.settle()
	return l.output(now, true), nil
}

// Retire takes an App away at the console, an owner's too. An App that is not
// there is taken away already.
func (l *Ledger) Retire(key SigningKey, note string, now time.Duration) (Output, error) {
	l.Interrupt(now)
	p := l.chain.tip().posture
	p.Apps = slices.DeleteFunc(slices.Clone(p.Apps), func(a App) bool { return a.SigningKey == key })
	var err error
	if gone, there := findApp(l.chain.tip().posture.Apps, key); there {
		if err = l.appendOwn(systemv1.PostureDocument_ORIGIN_LOCAL, p, nil, note); err == nil {
			l.acts = append(l.acts, Act{Kind: ActRetired, Detail: gone.Name})
		}
	}
	l.settle()
	return l.output(now, true), err
}

// Limit lowers the role of an App to what its key was enrolled with, for a Base whose
// two halves disagree. It is settled at once, and no more than that: a role that is
// lower already, or an App that is not there, stays as it is.
func (l *Ledger) Limit(key SigningKey, role basev1.Role, note string, now time.Duration) (Output, error) {
	l.Interrupt(now)
	p := l.chain.tip().posture
	p.Apps = slices.Clone(p.Apps)
	var err error
	if i := slices.IndexFunc(p.Apps, func(a App) bool { return a.SigningKey == key && a.Role > role }); i >= 0 {
		p.Apps[i].Role = role
		err = l.appendOwn(systemv1.PostureDocument_ORIGIN_LOCAL, p, nil, note)
	}
	l.settle()
	return l.output(now, true), err
}

// Local takes a posture from root at the console, who may do all that an owner
// may, and lift restrictions; the history records it as local. A document
// on trial is undone first. After it, apply as after Submit.
func (l *Ledger) Local(p Posture, lifts []uint64, note string, now time.Duration) (Output, error) {
	out := l.Tick(now)
	if err := l.checkOldest(p); err != nil {
		return out, err
	}
	l.undoPending()
	err := l.appendOwn(systemv1.PostureDocument_ORIGIN_LOCAL, p, lifts, note)
	if err == nil {
		l.phase, l.pendingUntil = phaseApplying, now+ApplyTime
	}
	return l.output(now, true), err
}

// Restrict closes something at once, for any caller. A ClosingLease without
// GrantedIn closes any lease of its kind. ErrNothingToClose means
// that it is closed already.
func (l *Ledger) Restrict(closing Closing, actor Actor, now time.Duration) (Output, error) {
	changed := l.Tick(now).Changed
	closed, err := false, ErrNothingToClose
	for _, c := range l.named(closing) {
		switch refused := l.record(c, actor); {
		case refused == nil:
			closed = true
		case !errors.Is(refused, ErrNothingToClose):
			err = refused
		}
	}
	if closed {
		err = nil
	}
	return l.output(now, changed || closed), err
}

// named returns closing, or the closings of all leases of its kind.
func (l *Ledger) named(closing Closing) []Closing {
	if closing.Type != ClosingLease || closing.GrantedIn != 0 {
		return []Closing{closing}
	}
	var list []Closing
	for _, lease := range l.running {
		if lease.Kind == closing.Kind {
			list = append(list, Closing{Type: ClosingLease, Kind: lease.Kind, GrantedIn: lease.GrantedIn})
		}
	}
	for _, p := range l.chain.lastPostures() { // a lease without an end is not among the running ones
		if lease, granted := p.lease(closing.Kind); granted && lease.UntilClosed {
			list = append(list, Closing{Type: ClosingLease, Kind: closing.Kind, GrantedIn: lease.GrantedIn})
		}
	}
	return list
}

// record appends a restriction.
func (l *Ledger) record(closing Closing, actor Actor) error {
	for _, check := range l.closingChecks {
		if err := check.refuse(l.chain, closing); err != nil {
			return err
		}
	}
	number, hash := l.chain.lastRestriction()
	m := &systemv1.Restriction{
		Epoch: l.chain.epoch[:], Number: number + 1, PreviousHash: hash[:], Revision: l.chain.revision(),
		RecordedAt: l.config.Wall().Unix(), Actor: actor,
	}
	closing.describe(m)
	if err := l.chain.restrict(encode(m)); err != nil {
		return err
	}
	l.running = slices.DeleteFunc(slices.Clone(l.running), func(lease RunningLease) bool {
		return closing == Closing{Type: ClosingLease, Kind: lease.Kind, GrantedIn: lease.GrantedIn}
	})
	return nil
}

// Report signs what is in force, for the App that chose nonce (32 bytes).
func (l *Ledger) Report(nonce []byte, now time.Duration) ([]byte, Output, error) {
	out := l.Tick(now)
	if len(nonce) != nonceSize {
		return nil, out, reason.Errorf("sign a report: the nonce has %d bytes, not %d", len(nonce), nonceSize)
	}
	number, hash := l.chain.lastRestriction()
	tip := l.chain.tip()
	report := &systemv1.PostureReport{
		BaseId: l.chain.base[:], Epoch: l.chain.epoch[:],
		Revision: tip.doc.GetRevision(), DocumentHash: tip.hash[:],
		RestrictionNumber: number, RestrictionHash: hash[:],
		Nonce: nonce, Phase: l.phase, Leases: leasesToProto(l.running),
	}
	report.UndoneInMs = milliseconds(l.UndoneIn(now))
	if l.config.Identities != nil {
		l.config.Identities(l.Effective()).addTo(report)
	}
	return encode(seal(labelReport, encode(report), l.config.StateSeed)), out, nil
}

// UndoneIn returns how long the last document waits to be settled; 0: it is.
func (l *Ledger) UndoneIn(now time.Duration) time.Duration {
	if l.phase == phaseSettled {
		return 0
	}
	return max(0, l.pendingUntil-now)
}

// Chain returns the history as an App verifies it (VerifyChain), at most
// MaxChainSize bytes.
func (l *Ledger) Chain() []byte { return encode(l.chain.proto()) }

// Effective is what is in force, with the leases as the last call has counted
// them.
func (l *Ledger) Effective() Effective {
	e := effective(l.chain.revision(), l.chain.tip().posture, l.chain.active(), l.running)
	if l.phase != phaseSettled {
		e = l.chain.cautious(e)
	}
	return e
}

// Undone is what would be in force if the last document were undone now; of one that holds, what is.
func (l *Ledger) Undone() Effective {
	if before := l.chain.beforeTip(); l.phase != phaseSettled && before != nil {
		return effective(l.chain.revision(), before.posture, l.chain.activeOver(before), l.running)
	}
	return l.Effective()
}

// WhyUndone returns why a revision was undone, as the history has it; empty: it was not, or so long ago
// that it is no longer kept.
func (l *Ledger) WhyUndone(revision uint64) string {
	i := slices.IndexFunc(l.chain.entries, func(e entry) bool {
		return e.doc.GetRevision() == revision+1 && e.doc.GetOrigin() == systemv1.PostureDocument_ORIGIN_UNDO
	})
	if i < 0 {
		return ""
	}
	return l.chain.entries[i].doc.GetNote()
}

// Posture returns the last document's content and revision.
func (l *Ledger) Posture() (Posture, uint64) { return l.chain.tip().posture, l.chain.revision() }

// Back returns the content for a new revision that goes back to an earlier one
// (see the function back), to be given to Local.
func (l *Ledger) Back(revision uint64) (Posture, error) { return l.chain.back(revision) }

// Phase tells whether the last document holds, is being applied, or is tried.
func (l *Ledger) Phase() systemv1.PostureReport_Phase { return l.phase }

// Liftable returns the numbers of the restrictions in force that a document can
// lift, for Local.
func (l *Ledger) Liftable() []uint64 {
	var numbers []uint64
	for _, r := range l.chain.active() {
		if r.liftable() {
			numbers = append(numbers, r.Number)
		}
	}
	return numbers
}

// LastRestriction returns the number of the last restriction, 0 if there is none.
func (l *Ledger) LastRestriction() uint64 {
	number, _ := l.chain.lastRestriction()
	return number
}
