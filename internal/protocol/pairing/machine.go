package pairing

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"io"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/noiseconn"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/publickey"
	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
	"github.com/BitBoxSwiss/bitbox-base/internal/secret"
)

// Bounds of one request.
const (
	// MaxRequestSize is the longest request that Answer parses, in bytes.
	MaxRequestSize = 64 << 10
	// maxReconcile is how many keys a Reconcile may name: more than a Middleware
	// can hold.
	maxReconcile = 1024
)

// Config is what a Machine is made of.
type Config struct {
	// Random gives r_B and ceremony ids; nil: the system's generator.
	Random io.Reader
	// BaseName returns the name that P4 carries. It must pass noiseconn.CheckName.
	BaseName func() string
	// StateKey is the seed of K_state.
	StateKey StateKey
	// Claim names the App that the Base was provisioned for; nil: there is none. It is of no
	// use from the first active owner on.
	Claim *Claim
	// WallClock tells whether the claim has expired; nil: it never does.
	WallClock func() time.Time
	// IsOwner tells whether a key is an owner's now. It is asked about the owner whose App
	// has ordered a pairing: minutes may pass between that owner's yes and the enrolment. Nil
	// means the registry, which learns a role when it is settled. IsOwner is called for Enrol
	// and Activate only, never within With.
	IsOwner func(OwnerKey) bool
	// Registry is what Output.Save gave last; nil on a new Base.
	Registry []byte
	// CodeModulus is the number of different codes; 0: a million. Tests reduce
	// it, in order to see an attacker's luck.
	CodeModulus uint32
}

// Machine is the authority without I/O: it has no clock, no goroutine and no
// lock. Time is a monotonic duration from any origin. It is not safe for
// concurrent use; Service makes it so.
type Machine struct {
	random   io.Reader
	baseName func() string
	isOwner  func(OwnerKey) bool
	stateKey ed25519.PublicKey
	modulus  uint32

	now        time.Duration
	windowEnds time.Duration   // the window is open before it
	windows    uint64          // how often it was opened or prolonged
	window     ordered         // the opener of the window, and its role
	acts       []time.Duration // of the last ActsTime, oldest first
	heard      heard
	ceremony   *ceremony // nil: none is on
	last       *systemv1.LastCeremony
	registry   registry
	claim      *claim // nil: none is open

	answerChecks []answerCheck // fewer in tests
	claimChecks  []claimCheck  // fewer in tests

	version   uint64
	published *systemv1.Snapshot // what version stands for
}

// ordered tells how a window was opened; zero: at the console.
type ordered struct {
	// An owner has signed an order for it, for one App with this role.
	owner OwnerKey
	role  basev1.Role
	// unsigned: the Middleware has opened it, for an owner's App that has signed nothing. It is
	// closed when any owner goes, since the authority does not know which one it was.
	unsigned bool
}

// ceremony is one pairing, from the act on.
type ceremony struct {
	id       CeremonyID
	phase    systemv1.Ceremony_Phase
	deadline time.Duration
	role     basev1.Role
	number   uint32
	// p1 is the digest of the request that the act is for; nil: the first that
	// comes with the number.
	p1 *p1Digest
	rb secret.Key[rbKind]
	// byOwner: an owner's App has acted, and answers. orderedBy: it has acted, or has
	// ordered the window. Zero: nobody's.
	byOwner, orderedBy OwnerKey
	unsigned           bool // the act was given in an unsigned window
	byClaim            bool // the claim stands in the place of the act and of the human's yes

	// Known from PHASE_SHOWN on. An App's half is no secret once r_B is out.
	h             [32]byte
	revealed      *noiseconn.P3Payload
	appKey        noiseconn.PublicKey
	code          uint32
	words         noiseconn.Words
	baseConfirmed bool
	appConfirmed  bool
}

type rbKind struct{}

// Output is what comes of a request.
type Output struct {
	// Reply shares no memory with the Machine.
	Reply *systemv1.AuthorityReply
	// Save, if not nil, is the registry, which must be on disk (fsync) before
	// Reply is given out. If that fails, the reply is Unsaved's.
	Save []byte
	// Unchanged is set for a Watch that has seen the present version.
	Unchanged bool

	undo func() // makes the change undone that Save was for
}

// NewMachine makes a Machine. It fails for a registry that is damaged or of a
// newer version: to begin with an empty one in its place would let anybody
// become owner.
func NewMachine(config Config) (*Machine, error) {
	m := &Machine{
		random:   config.Random,
		baseName: config.BaseName,
		isOwner:  config.IsOwner,
		modulus:  config.CodeModulus,
		version:  1,

		answerChecks: answerChecks,
		claimChecks:  claimChecks,
	}
	if m.random == nil {
		m.random = rand.Reader
	}
	if m.modulus == 0 {
		m.modulus = noiseconn.CodeModulus
	}
	if m.isOwner == nil {
		m.isOwner = m.activeOwner
	}
	if m.baseName == nil {
		return nil, reason.New("make the ceremony authority: no name of the Base is given")
	}
	if err := noiseconn.CheckName(m.baseName()); err != nil {
		return nil, reason.Errorf("make the ceremony authority: the name of the Base: %w", err)
	}
	if config.StateKey.Empty() {
		return nil, reason.New("make the ceremony authority: its signing key is empty")
	}
	m.stateKey = ed25519.NewKeyFromSeed(config.StateKey.Expose()).Public().(ed25519.PublicKey)
	var err error
	if m.registry, err = parseRegistry(config.Registry); err != nil {
		return nil, reason.Errorf("read the registry of enrolled keys: %w", err)
	}
	if config.Claim != nil && !m.registry.hasOwner(activeOnly) {
		m.claim = newClaim(*config.Claim, config.WallClock)
	}
	m.published = m.view()
	return m, nil
}

// StateKey returns K_state, the public half.
func (m *Machine) StateKey() ed25519.PublicKey { return slices.Clone(m.stateKey) }

// Version counts what can be seen: it grows with each change of the snapshot, but
// for times that run down.
func (m *Machine) Version() uint64 { return m.version }

// Handle answers one request. It does not fail: a refusal is a reply.
func (m *Machine) Handle(now time.Duration, caller Caller, message *systemv1.AuthorityRequest) Output {
	m.Tick(now)
	reply := &systemv1.AuthorityReply{}
	output, err := m.dispatch(caller, message, reply)
	m.publish()
	switch {
	case err != nil:
		reply = refusal(err)
	case reply.Result == nil:
		snapshot := m.snapshot(caller)
		reply.Result = &systemv1.AuthorityReply_Snapshot{Snapshot: snapshot}
		output.Unchanged = message.GetWatch() != nil && message.GetWatch().GetSeenVersion() == m.version
	}
	output.Reply = proto.CloneOf(reply)
	return output
}

// Unsaved takes back the change whose Save failed, and returns the output to be
// given out in its place.
func (m *Machine) Unsaved(output Output, cause error) Output {
	if output.undo != nil {
		output.undo()
	}
	m.publish()
	return Output{Reply: refusal(ErrStorage.because("%v", cause))}
}

// Tick lets time pass: what has run out by now is dropped, and its secrets wiped.
func (m *Machine) Tick(now time.Duration) {
	m.now = max(m.now, now)
	if m.ceremony != nil && m.ceremony.deadline <= m.now {
		m.end(systemv1.LastCeremony_OUTCOME_TIMED_OUT)
	}
	m.registry.expire(m.now)
	m.endClaim()
	m.acts = slices.DeleteFunc(m.acts, func(act time.Duration) bool { return act+ActsTime <= m.now })
	m.heard.expire(m.now)
	m.hideUnlessListening()
	m.publish()
}

// Deadline returns when Tick has something to do next; false: never, unless a
// request comes.
func (m *Machine) Deadline() (deadline time.Duration, ok bool) {
	consider := func(t time.Duration) {
		if !ok || t < deadline {
			deadline, ok = t, true
		}
	}
	if m.ceremony != nil {
		consider(m.ceremony.deadline)
	}
	if m.windowOpen() {
		consider(m.windowEnds)
	}
	if len(m.acts) > 0 {
		consider(m.acts[0] + ActsTime)
	}
	for _, e := range m.registry {
		if !e.active {
			consider(e.expires)
		}
	}
	for _, r := range m.heard.shown {
		consider(r.last + ShownFor)
	}
	return deadline, ok
}

// mayCall is the table of the callers of each verb.
func mayCall(caller Caller, request *systemv1.AuthorityRequest) bool {
	switch request.GetVerb().(type) {
	case *systemv1.AuthorityRequest_Hear, *systemv1.AuthorityRequest_Claim, *systemv1.AuthorityRequest_Reveal,
		*systemv1.AuthorityRequest_Enrol, *systemv1.AuthorityRequest_Abort,
		*systemv1.AuthorityRequest_Activate, *systemv1.AuthorityRequest_Reconcile:
		return caller == CallerMiddleware
	case *systemv1.AuthorityRequest_Accept, *systemv1.AuthorityRequest_Answer:
		return caller == CallerConsole
	case *systemv1.AuthorityRequest_OpenWindow, *systemv1.AuthorityRequest_CloseWindow,
		*systemv1.AuthorityRequest_Watch, *systemv1.AuthorityRequest_Retire:
		return caller == CallerMiddleware || caller == CallerConsole
	}
	return false
}

// dispatch runs one verb. A verb that sets no result is answered with a snapshot.
func (m *Machine) dispatch(caller Caller, request *systemv1.AuthorityRequest, reply *systemv1.AuthorityReply) (Output, error) {
	if request.GetVerb() == nil {
		return Output{}, ErrMalformed.because("it has no verb that is known here")
	}
	if !mayCall(caller, request) {
		return Output{}, ErrPermission.because("%s sent %T", caller, request.GetVerb())
	}
	switch verb := request.GetVerb().(type) {
	case *systemv1.AuthorityRequest_Hear:
		result, err := m.hear(verb.Hear)
		reply.Result = &systemv1.AuthorityReply_Hear{Hear: result}
		return Output{}, err
	case *systemv1.AuthorityRequest_Claim:
		result, err := m.hearClaim(verb.Claim)
		reply.Result = &systemv1.AuthorityReply_Hear{Hear: result}
		return Output{}, err
	case *systemv1.AuthorityRequest_Reveal:
		result, err := m.reveal(verb.Reveal)
		reply.Result = &systemv1.AuthorityReply_Reveal{Reveal: result}
		return Output{}, err
	case *systemv1.AuthorityRequest_Enrol:
		result, err := m.enrol(verb.Enrol)
		reply.Result = &systemv1.AuthorityReply_Enrol{Enrol: result}
		return Output{}, err
	case *systemv1.AuthorityRequest_Abort:
		m.abort(verb.Abort)
		return Output{}, nil
	case *systemv1.AuthorityRequest_Activate:
		return m.activate(verb.Activate)
	case *systemv1.AuthorityRequest_Reconcile:
		result, err := m.reconcile(verb.Reconcile)
		reply.Result = &systemv1.AuthorityReply_Reconcile{Reconcile: result}
		return Output{}, err
	case *systemv1.AuthorityRequest_OpenWindow:
		m.openWindow(caller)
		return Output{}, nil
	case *systemv1.AuthorityRequest_CloseWindow:
		return Output{}, m.closeWindow(verb.CloseWindow.GetRevokedOwner())
	case *systemv1.AuthorityRequest_Accept:
		return Output{}, m.accept(verb.Accept.GetNumber(), verb.Accept.GetRole(), OwnerKey{})
	case *systemv1.AuthorityRequest_Answer:
		return Output{}, m.answer(verb.Answer)
	case *systemv1.AuthorityRequest_Watch:
		return Output{}, nil
	case *systemv1.AuthorityRequest_Retire:
		return m.retire(caller, verb.Retire)
	}
	return Output{}, ErrInternal.because("%T is permitted, but not implemented", request.GetVerb())
}

// openWindow opens or prolongs the window. The console opens it for any role. The
// Middleware neither widens nor prolongs a window that an owner has ordered.
func (m *Machine) openWindow(caller Caller) {
	if caller != CallerConsole && m.orderedRole() != 0 {
		return
	}
	m.beginWindow(ordered{unsigned: caller != CallerConsole})
}

// beginWindow opens or prolongs the window.
func (m *Machine) beginWindow(by ordered) {
	m.window, m.windowEnds = by, m.now+WindowTime
	m.windows++
}

// windowOpen tells whether a window was opened and has not run out.
func (m *Machine) windowOpen() bool { return m.now < m.windowEnds }

// listening tells whether requests are shown and may be accepted. A pending owner
// counts like an active one: a Base without an owner enrols one key and then stops
// listening, until that key has died or a window is opened.
func (m *Machine) listening() bool { return m.windowOpen() || !m.registry.hasOwner(pendingToo) }

// hear takes a pairing request. Silence is no error: most of what comes from the
// network gets it.
func (m *Machine) hear(request *systemv1.Hear) (*systemv1.HearResult, error) {
	p1 := request.GetP1()
	if len(p1) != noiseconn.P1Size {
		return nil, ErrMalformed.because("P1 has %d bytes, not %d", len(p1), noiseconn.P1Size)
	}
	digest, number := sha256.Sum256(p1), noiseconn.RequestNumber(p1)
	// Remembered also while no window is open: an owner's App may accept a number then, and
	// means the request that came first with it. One for which there is no room can still be
	// granted, to an act whose number nobody had heard; else a flood from the owner's own
	// address would keep the owner out.
	m.heard.add(m.now, digest, number, sourceOf(request.GetAddress()), m.listening())
	if !m.ceremony.accepts(digest, number) {
		return &systemv1.HearResult{}, nil
	}
	m.heard.remove(digest)
	return m.grant(), nil
}

// grant commits the ceremony to r_B, and so answers its P1.
func (m *Machine) grant() *systemv1.HearResult {
	c := m.ceremony
	c.phase, c.deadline = systemv1.Ceremony_PHASE_COMMITTED, m.now+CommittedTime
	commitment := noiseconn.Commit([32]byte(c.rb.Expose()), m.stateKey, byte(c.role))
	return &systemv1.HearResult{Granted: true, CeremonyId: c.id[:], Commitment: commitment[:]}
}

// accepts tells whether the act was for this very P1.
func (c *ceremony) accepts(digest p1Digest, number uint32) bool {
	switch {
	case c == nil || c.phase != systemv1.Ceremony_PHASE_ACCEPTED:
		return false
	case c.p1 != nil:
		return digest == *c.p1
	default:
		return number == c.number
	}
}

// accept is the act, of the console or, if byOwner is set, of that owner's App. It
// counts at once, whatever comes of it: if it counted only when r_B was given out, a P1
// could be had answered any number of times.
func (m *Machine) accept(number uint32, role basev1.Role, byOwner OwnerKey) error {
	if number >= noiseconn.CodeModulus {
		return ErrMalformed.because("a request number has six digits, not %d", number)
	}
	// An act that waits for its P1 may be replaced: a human mistypes.
	if m.ceremony != nil && m.ceremony.phase != systemv1.Ceremony_PHASE_ACCEPTED {
		return ErrBusy
	}
	orderedBy := byOwner
	if byOwner == (OwnerKey{}) && m.windowOpen() {
		orderedBy = m.window.owner
	}
	switch ordered := m.orderedRole(); {
	case byOwner != (OwnerKey{}): // the order is what a window is for
	case !m.listening():
		return ErrNotListening
	case ordered == 0:
	case role == basev1.Role_ROLE_UNSPECIFIED:
		role = ordered
	case role > ordered:
		return ErrRoleInvalid.because("an owner has opened this window for a lower one; close it, and open another at the Base")
	}
	switch {
	case m.registry.hasOwner(pendingToo):
		if role == basev1.Role_ROLE_UNSPECIFIED {
			return ErrRoleRequired
		}
		if !roleExists(role) {
			return ErrRoleInvalid.because("there is no role %d", role)
		}
	case role == basev1.Role_ROLE_UNSPECIFIED:
		role = basev1.Role_ROLE_OWNER
	case role != basev1.Role_ROLE_OWNER:
		return ErrRoleInvalid
	}
	if len(m.registry) >= MaxKeys {
		return ErrRegistryFull
	}
	if len(m.acts) >= MaxActs {
		return ErrTooManyActs.because("the next is possible in %d s", (m.actWait()+time.Second-1)/time.Second)
	}
	c := &ceremony{
		phase:    systemv1.Ceremony_PHASE_ACCEPTED,
		deadline: m.now + AcceptedTime,
		role:     role,
		number:   number,
		p1:       m.heard.earliest(m.now, number),
		byOwner:  byOwner, orderedBy: orderedBy,
		unsigned: byOwner == (OwnerKey{}) && m.windowOpen() && m.window.unsigned,
	}
	if err := m.begin(c); err != nil {
		return err
	}
	m.acts = append(m.acts, m.now)
	return nil
}

// begin draws the ceremony's id and r_B, and puts it in the place of the one before.
func (m *Machine) begin(c *ceremony) (err error) {
	if _, err := io.ReadFull(m.random, c.id[:]); err != nil {
		return ErrInternal.because("read 16 random bytes: %v", err)
	}
	if c.rb, err = secret.Generate[rbKind](m.random); err != nil {
		return ErrInternal.because("%v", err)
	}
	if m.ceremony != nil {
		m.end(systemv1.LastCeremony_OUTCOME_SUPERSEDED)
	}
	m.ceremony = c
	return nil
}

// find returns the ceremony with this id, if it is on and in this phase.
func (m *Machine) find(id []byte, phase systemv1.Ceremony_Phase) (*ceremony, error) {
	if m.ceremony == nil || m.ceremony.phase != phase || string(id) != string(m.ceremony.id[:]) {
		return nil, ErrNoCeremony
	}
	return m.ceremony, nil
}

// reveal takes the App's half, and only then gives out r_B. There is one try:
// whatever does not hold ends the ceremony.
func (m *Machine) reveal(request *systemv1.Reveal) (*systemv1.RevealResult, error) {
	c, err := m.find(request.GetCeremonyId(), systemv1.Ceremony_PHASE_COMMITTED)
	if err != nil {
		return nil, err
	}
	p4, err := m.revealTo(c, request)
	if err != nil {
		m.end(systemv1.LastCeremony_OUTCOME_REFUSED)
		return nil, err
	}
	c.phase, c.deadline = systemv1.Ceremony_PHASE_SHOWN, m.now+ShownTime
	return &systemv1.RevealResult{P4: p4, Role: c.role}, nil
}

func (m *Machine) revealTo(c *ceremony, request *systemv1.Reveal) (p4 []byte, err error) {
	if n := len(request.GetHandshakeHash()); n != len(c.h) {
		return nil, ErrBadReveal.because("the handshake hash has %d bytes, not %d", n, len(c.h))
	}
	c.h = [32]byte(request.GetHandshakeHash())
	if c.appKey, err = noiseconn.ParsePublicKey(request.GetAppPublicKey()); err != nil {
		return nil, ErrBadReveal.because("%v", err)
	}
	if c.revealed, err = noiseconn.ParseP3Payload(request.GetP3Payload()); err != nil {
		return nil, ErrBadReveal.because("%v", err)
	}
	if c.byClaim {
		if err := m.checkReveal(c); err != nil {
			return nil, err
		}
	}
	if m.registry.find(c.revealed.SigningKey) != nil || m.registry.hasAppKey(c.appKey) {
		return nil, ErrKnownKey
	}
	rb := [32]byte(c.rb.Expose())
	c.code, err = noiseconn.CodeDigits(c.revealed.RA, rb, c.h, c.revealed.SigningKey, m.stateKey, byte(c.role), m.modulus)
	if err != nil {
		return nil, ErrInternal.because("%v", err)
	}
	c.words, err = noiseconn.ComputeWords(c.revealed.RA, rb, c.h, c.revealed.SigningKey, m.stateKey, byte(c.role))
	if err != nil {
		return nil, ErrInternal.because("%v", err)
	}
	p4, err = (&noiseconn.P4{RB: rb, StateKey: m.stateKey, Role: byte(c.role), Name: m.baseName()}).Marshal()
	if err != nil {
		return nil, ErrInternal.because("%v", err)
	}
	if c.byClaim {
		proof, err := m.claim.prove(c, rb, m.stateKey)
		if err != nil {
			return nil, ErrInternal.because("%v", err)
		}
		p4 = append(p4, proof...)
		c.baseConfirmed = true // the owner has said yes by the provisioning file
	}
	return p4, nil
}

// answer is the human's word. "No" is taken at any time, "yes" only to a code.
func (m *Machine) answer(request *systemv1.Answer) error {
	if !request.GetYes() {
		if m.ceremony == nil || string(request.GetCeremonyId()) != string(m.ceremony.id[:]) {
			return ErrNoCeremony
		}
		m.end(systemv1.LastCeremony_OUTCOME_REJECTED_AT_BASE)
		return nil
	}
	c, err := m.find(request.GetCeremonyId(), systemv1.Ceremony_PHASE_SHOWN)
	if err != nil {
		return err
	}
	c.baseConfirmed = true
	return nil
}

// enrol takes the App's signature. With the human's yes it makes K_sign pending.
func (m *Machine) enrol(request *systemv1.Enrol) (*systemv1.EnrolResult, error) {
	c, err := m.find(request.GetCeremonyId(), systemv1.Ceremony_PHASE_SHOWN)
	if err != nil {
		return nil, err
	}
	message := noiseconn.EnrolMessage(c.h, c.revealed.SigningKey, c.revealed.RA, [32]byte(c.rb.Expose()))
	if !publickey.Verify(c.revealed.SigningKey, message, request.GetSignature()) {
		m.end(systemv1.LastCeremony_OUTCOME_REFUSED)
		return nil, ErrBadSignature
	}
	c.appConfirmed = true
	if !c.baseConfirmed {
		return nil, ErrAwaitingAnswer
	}
	if !m.stillOwner(c.byOwner) {
		m.end(systemv1.LastCeremony_OUTCOME_REFUSED)
		return nil, ErrPermission.because("the owner who accepted it has lost that role")
	}
	// Pending keys are not saved: they die at a restart anyway.
	m.registry = append(m.registry, entry{
		signingKey: [ed25519.PublicKeySize]byte(c.revealed.SigningKey),
		appKey:     c.appKey,
		role:       c.role,
		name:       c.revealed.Name,
		ceremony:   c.id,
		orderedBy:  c.orderedBy,
		byOwner:    c.byOwner,
		expires:    m.now + PendingTime,
	})
	// One key a window.
	m.windowEnds, m.window, m.heard = 0, ordered{}, heard{}
	m.end(systemv1.LastCeremony_OUTCOME_ENROLLED)
	return &systemv1.EnrolResult{Role: c.role, AppName: c.revealed.Name}, nil
}

// abort ends a ceremony, or takes its pending key back. It accepts a
// ceremony that has ended, since the connection may be lost at any time.
func (m *Machine) abort(request *systemv1.Abort) {
	id := string(request.GetCeremonyId())
	switch {
	case m.ceremony != nil && string(m.ceremony.id[:]) == id && request.GetRejectedByApp():
		m.end(systemv1.LastCeremony_OUTCOME_REJECTED_BY_APP)
	case m.ceremony != nil && string(m.ceremony.id[:]) == id:
		m.end(systemv1.LastCeremony_OUTCOME_CONNECTION_LOST)
	default:
		m.registry = slices.DeleteFunc(m.registry, func(e entry) bool { return !e.active && string(e.ceremony[:]) == id })
	}
}

// activate makes a pending key active.
func (m *Machine) activate(request *systemv1.Activate) (Output, error) {
	e := m.registry.find(request.GetSigningKey())
	switch {
	case e == nil:
		return Output{}, ErrUnknownKey
	case e.active:
		return Output{}, nil
	}
	key := e.signingKey
	if !m.stillOwner(e.byOwner) {
		m.registry = slices.DeleteFunc(m.registry, func(other entry) bool { return other.signingKey == key })
		return Output{}, ErrUnknownKey.because("the owner who accepted its App has lost that role")
	}
	e.active = true
	claim := m.claim
	m.endClaim()
	return Output{Save: m.registry.marshal(), undo: func() { m.registry.find(key[:]).active, m.claim = false, claim }}, nil
}

// retire takes a key away. Only the console may take an owner's: otherwise a
// Middleware that was taken over could lock every owner out.
func (m *Machine) retire(caller Caller, request *systemv1.Retire) (Output, error) {
	e := m.registry.find(request.GetSigningKey())
	if e == nil {
		return Output{}, ErrUnknownKey
	}
	if caller != CallerConsole && e.role == basev1.Role_ROLE_OWNER {
		return Output{}, ErrPermission.because("an owner's key is taken away at the console only")
	}
	before := m.registry
	wasOwner := e.active && e.role == basev1.Role_ROLE_OWNER
	m.registry = slices.DeleteFunc(slices.Clone(before), func(other entry) bool { return other.signingKey == e.signingKey })
	m.endOrders(wasOwner)
	if !e.active {
		return Output{}, nil
	}
	return Output{Save: m.registry.marshal(), undo: func() { m.registry = before }}, nil
}

// SetRoles gives active keys the roles that owners have signed. No Caller can ask for
// it (Service.With). It returns the registry, which the caller saves, or nil if nothing
// has changed; undo takes the change back if saving fails.
func (m *Machine) SetRoles(roles map[[ed25519.PublicKeySize]byte]basev1.Role) (save []byte, undo func()) {
	before := m.registry
	after := slices.Clone(before)
	changed, ownerLost := false, false
	for i := range after {
		role, listed := roles[after[i].signingKey]
		if listed && after[i].active && roleExists(role) && role != after[i].role {
			ownerLost = ownerLost || after[i].role == basev1.Role_ROLE_OWNER
			after[i].role, changed = role, true
		}
	}
	if !changed {
		return nil, func() {}
	}
	m.registry = after
	m.endOrders(ownerLost)
	return after.marshal(), func() { m.registry = before }
}

// reconcile is the report of a Middleware that has just started: its earlier connections are
// gone, and with them the ceremony and pending keys. An act that
// waits for its P1 needs no connection yet. Active keys stay whatever it says.
func (m *Machine) reconcile(request *systemv1.Reconcile) (*systemv1.ReconcileResult, error) {
	held := request.GetActiveSigningKeys()
	if len(held) > maxReconcile {
		return nil, ErrMalformed.because("it names %d keys, more than %d", len(held), maxReconcile)
	}
	if m.ceremony != nil && m.ceremony.phase != systemv1.Ceremony_PHASE_ACCEPTED {
		m.end(systemv1.LastCeremony_OUTCOME_CONNECTION_LOST)
	}
	m.registry = slices.DeleteFunc(m.registry, func(e entry) bool { return !e.active })
	result := &systemv1.ReconcileResult{}
	known := map[string]bool{}
	for _, key := range held {
		known[string(key)] = true
		if m.registry.find(key) == nil {
			result.UnknownSigningKeys = append(result.UnknownSigningKeys, key)
		}
	}
	for _, e := range m.registry {
		if !known[string(e.signingKey[:])] {
			result.OrphanedSigningKeys = append(result.OrphanedSigningKeys, slices.Clone(e.signingKey[:]))
		}
	}
	return result, nil
}

// closeWindow also ends the ceremony and drops pending keys: closing the window means
// that nobody is to be let in. With the signing key of a revoked owner it ends what this
// owner may have begun, and nothing else.
func (m *Machine) closeWindow(revokedOwner []byte) error {
	switch len(revokedOwner) {
	case 0:
	case len(OwnerKey{}):
		m.cutOff(OwnerKey(revokedOwner))
		return nil
	default:
		return ErrMalformed.because("the owner's key has %d bytes", len(revokedOwner))
	}
	m.windowEnds, m.window = 0, ordered{}
	m.registry = slices.DeleteFunc(m.registry, func(e entry) bool { return !e.active })
	if m.ceremony != nil {
		m.end(systemv1.LastCeremony_OUTCOME_SUPERSEDED)
	}
	m.hideUnlessListening()
	return nil
}

// hideUnlessListening shows no number while none may be accepted.
func (m *Machine) hideUnlessListening() {
	if !m.listening() {
		m.heard.hide()
	}
}

// end forgets the ceremony and its secret.
func (m *Machine) end(outcome systemv1.LastCeremony_Outcome) {
	c := m.ceremony
	m.last = &systemv1.LastCeremony{Id: slices.Clone(c.id[:]), Outcome: outcome, Role: c.role}
	if c.phase == systemv1.Ceremony_PHASE_SHOWN {
		m.last.AppName = c.revealed.Name
	}
	c.rb.Wipe()
	m.ceremony = nil
}

// actWait is the time until a further act is possible.
func (m *Machine) actWait() time.Duration {
	if len(m.acts) < MaxActs {
		return 0
	}
	return m.acts[0] + ActsTime - m.now
}

// publish counts the version up if there is something new to see.
func (m *Machine) publish() {
	if view := m.view(); !proto.Equal(view, m.published) {
		m.version++
		m.published = view
	}
}

// view is all that can be seen, without what changes with the clock alone.
func (m *Machine) view() *systemv1.Snapshot {
	view := &systemv1.Snapshot{
		Paired:     m.registry.hasOwner(activeOnly),
		WindowOpen: m.windowOpen(),
		Listening:  m.listening(),
		Requests:   m.heard.numbers(),
		ActsLeft:   uint32(MaxActs - len(m.acts)),
		Last:       m.last,
		WindowRole: m.orderedRole(),
		ClaimOpen:  m.claim != nil,

		WindowNumber: m.windows,
	}
	if c := m.ceremony; c != nil {
		view.Ceremony = &systemv1.Ceremony{
			Id: c.id[:], Phase: c.phase, Number: c.number, Role: c.role,
			BaseConfirmed: c.baseConfirmed, AppConfirmed: c.appConfirmed,
		}
		if c.byOwner != (OwnerKey{}) {
			view.Ceremony.ByOwner = c.byOwner[:]
		}
		if c.phase == systemv1.Ceremony_PHASE_SHOWN && !c.byClaim { // nobody compares anything
			view.Ceremony.AppName = c.revealed.Name
			view.Ceremony.SigningKey = c.revealed.SigningKey
			view.Ceremony.Code = noiseconn.FormatNumber(c.code)
		}
	}
	return view
}

// snapshot is what this caller may see. The code is for the display alone: a Middleware
// that was taken over could otherwise make the other side show the same code. The words are
// in no snapshot: their only source is the new App. The Middleware learns a ceremony's id
// from Hear, when it has the P1 that was accepted. The exception is a ceremony that an
// owner's App has begun, since the Middleware carries the answer to it.
func (m *Machine) snapshot(caller Caller) *systemv1.Snapshot {
	s := proto.CloneOf(m.published)
	s.Version = m.version
	if m.windowOpen() {
		s.WindowRemainingMs = uint64((m.windowEnds - m.now).Milliseconds())
	}
	s.ActWaitMs = uint64(m.actWait().Milliseconds())
	if caller == CallerConsole && m.ceremony != nil && m.ceremony.byClaim {
		s.Ceremony = nil // there is nothing to compare, and nothing to answer
	}
	if caller != CallerConsole {
		s.Requests = nil
		if s.Ceremony != nil {
			s.Ceremony.Code = ""
			s.Ceremony.Number = 0
			if s.Ceremony.Phase == systemv1.Ceremony_PHASE_ACCEPTED && s.Ceremony.ByOwner == nil {
				s.Ceremony.Id = nil
			}
		}
	}
	return s
}

// wipe forgets the ceremony that is on, if any.
func (m *Machine) wipe() {
	if m.ceremony != nil {
		m.end(systemv1.LastCeremony_OUTCOME_CONNECTION_LOST)
	}
}

func refusal(err error) *systemv1.AuthorityReply {
	var e *Error
	if !errors.As(err, &e) {
		e = ErrInternal.because("%v", err)
	}
	return &systemv1.AuthorityReply{ErrorCode: string(e.Code), ErrorMessage: e.Message}
}
