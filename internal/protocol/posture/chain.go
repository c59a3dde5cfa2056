package posture

import (
	"bytes"
	"errors"
	"slices"

	"google.golang.org/protobuf/proto"

	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/noiseconn"
	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
)

// The limits of the history that a Base keeps: beyond either one the older half is
// dropped, and an anchor signed by the helper stands in its place.
const (
	keptRevisions = 128
	keptBytes     = MaxChainSize / 2
)

// Errors of the chain. Each is one reason why a document or a restriction is not
// the next one.
var (
	ErrVersion       = reason.New("the signed message was made by another version of the software; update the App or the Base, whichever is older")
	ErrWrongBase     = reason.New("the signed message was made for another Base")
	ErrWrongEpoch    = reason.New("the signed message was made before the Base was reset or restored (or after); fetch the posture again, and sign again")
	ErrNotOwner      = reason.New("the signer is not an owner's App in the previous revision; an owner has to sign")
	ErrNotHelper     = reason.New("the message says that it is the Base's own, but was not signed with the Base's key")
	ErrRevisionTaken = reason.New("the revision is already taken; check the difference and sign again")
	ErrRevisionAhead = reason.New("an earlier revision is missing; fetch the posture again")
	ErrFork          = reason.New("the message continues another history than this one")
	ErrSeen          = reason.New("the restriction that the change names as the last one seen is not the one here; fetch the posture again")
	ErrLift          = reason.New("the change lifts a restriction that it may not lift")
	ErrApps          = reason.New("the change lists an App that was not paired at the Base, or with other details; only a pairing at the Base adds an App, and its key, its id and, with a raised role, its name must not change")
	ErrLastOwner     = reason.New("no owner would be left; keep at least one")
	ErrLeaseGrant    = reason.New("the change continues a lease that the previous revision does not have; grant it in this revision")
	ErrOrigin        = reason.New("the origin of the change does not fit what it changes")
	ErrNumber        = reason.New("the number or revision of the restriction is not the next one")
)

// chain is the documents and the restrictions, verified. The helper appends to
// one, an App builds one from the bytes that it was given; both go through
// the same two tables of checks.
type chain struct {
	base   SigningKey // K_state
	epoch  Epoch
	anchor *systemv1.Signed
	// entries[0] is the anchor's document.
	entries []entry
	// links are the restrictions after entries[0].seen, in order.
	links []link

	documentChecks    []documentCheck
	restrictionChecks []restrictionCheck
}

// entry is one document in its place.
type entry struct {
	signed  *systemv1.Signed
	doc     *systemv1.PostureDocument
	posture Posture
	hash    Hash
	// restrictions is the number of the last restriction before it, with its hash.
	restrictions     uint64
	restrictionsHash Hash
	// active are the restrictions in force when it had just been appended.
	active []Restriction
}

// link is one restriction in its place.
type link struct {
	Restriction
	hash Hash
}

// tip is the last document. The slice is never empty.
func (c *chain) tip() *entry { return &c.entries[len(c.entries)-1] }

// beforeTip is the document before the last one, nil when it is not there.
func (c *chain) beforeTip() *entry {
	if len(c.entries) < 2 {
		return nil
	}
	return &c.entries[len(c.entries)-2]
}

func (c *chain) revision() uint64 { return c.tip().doc.GetRevision() }

// lastRestriction returns the number and hash of the last restriction.
func (c *chain) lastRestriction() (uint64, Hash) {
	if len(c.links) == 0 {
		return c.entries[0].restrictions, c.entries[0].restrictionsHash
	}
	last := c.links[len(c.links)-1]
	return last.Number, last.hash
}

// restrictionHash returns the hash of a restriction by its number.
func (c *chain) restrictionHash(number uint64) (Hash, bool) {
	first := c.entries[0].restrictions
	switch {
	case number == first:
		return c.entries[0].restrictionsHash, true
	case number < first || number-first > uint64(len(c.links)):
		return Hash{}, false
	default:
		return c.links[number-first-1].hash, true
	}
}

// since returns the restrictions with a number above n.
func (c *chain) since(n uint64) []Restriction {
	var list []Restriction
	for _, l := range c.links {
		if l.Number > n {
			list = append(list, l.Restriction)
		}
	}
	return list
}

// active returns the restrictions in force now.
func (c *chain) active() []Restriction { return c.activeOver(c.tip()) }

// activeOver returns the restrictions that are in force if e is: those that were
// when it was appended, and all that came since.
func (c *chain) activeOver(e *entry) []Restriction {
	return append(slices.Clone(e.active), c.since(e.restrictions)...)
}

// next returns a document with the content p that continues the chain. Its origin
// is left to the caller.
func (c *chain) next(p Posture) *systemv1.PostureDocument {
	number, hash := c.lastRestriction()
	return &systemv1.PostureDocument{
		BaseId: c.base[:], Epoch: c.epoch[:], Revision: c.revision() + 1, PreviousHash: c.tip().hash[:],
		RestrictionSeen: number, RestrictionSeenHash: hash[:], Posture: p.Proto(), Version: documentVersion,
	}
}

// back returns the content for a new revision that goes back to an earlier one:
// its settings, with the Apps of today: an App that was removed stays removed. A
// lease that still runs goes on. Any other lease is granted again for its whole
// length, and the owner sees that in the difference before signing.
func (c *chain) back(revision uint64) (Posture, error) {
	first := c.entries[0].doc.GetRevision()
	if revision < first || revision >= c.revision() {
		return Posture{}, reason.Errorf("go back to revision %d: those that are kept are %d to %d", revision, first, c.revision()-1)
	}
	now, p := c.tip().posture, c.entries[revision-first].posture
	p.Apps = slices.Clone(now.Apps)
	renew := func(kind Kind, lease Lease) Lease {
		if today, found := now.lease(kind); found && today == lease {
			return lease
		}
		lease.GrantedIn = c.revision() + 1
		return lease
	}
	if p.SSH != nil {
		lease := renew(KindSSH, *p.SSH)
		p.SSH = &lease
	}
	p.Extras = slices.Clone(p.Extras)
	for i := range p.Extras {
		p.Extras[i].Lease = renew(p.Extras[i].Kind, p.Extras[i].Lease)
	}
	return p, nil
}

// candidate is a document that may become the next one.
type candidate struct {
	signed  *systemv1.Signed
	doc     *systemv1.PostureDocument
	posture Posture
	// shape is what could not be read of the content.
	shape error
}

func (d *candidate) origin() systemv1.PostureDocument_Origin { return d.doc.GetOrigin() }

// decodeDocument reads an envelope and the document inside.
func decodeDocument(signed *systemv1.Signed) (*candidate, error) {
	var doc systemv1.PostureDocument
	if err := read(signed.GetMessage(), MaxDocumentSize, &doc); err != nil {
		return nil, err
	}
	p, shape := decodePosture(doc.GetPosture())
	return &candidate{signed: signed, doc: &doc, posture: p, shape: shape}, nil
}

// documentCheck is one reason to refuse a document.
type documentCheck struct {
	name string
	// refuse returns the reason, or nil. All checks before it have passed.
	refuse func(*chain, *candidate) error
}

// documentChecks stand in the order in which they are made. A document that
// passes all of them is the next one of its chain. Tests take out each in turn
// and show what attack it stops.
var documentChecks = []documentCheck{
	{"no unknown field", func(_ *chain, d *candidate) error {
		return errors.Join(refuseUnknown(d.signed.ProtoReflect()), refuseUnknown(d.doc.ProtoReflect()))
	}},
	{"this version", func(_ *chain, d *candidate) error { return d.refuseVersion() }},
	{"this Base", func(c *chain, d *candidate) error {
		return unless(bytes.Equal(d.doc.GetBaseId(), c.base[:]), ErrWrongBase)
	}},
	{"this epoch", func(c *chain, d *candidate) error {
		return unless(bytes.Equal(d.doc.GetEpoch(), c.epoch[:]), ErrWrongEpoch)
	}},
	{"signer", (*chain).refuseSigner},
	{"signature", func(_ *chain, d *candidate) error { return verify(labelDocument, d.signed) }},
	{"next revision", func(c *chain, d *candidate) error {
		return errors.Join(
			unless(d.doc.GetRevision() > c.revision(), ErrRevisionTaken),
			unless(d.doc.GetRevision() <= c.revision()+1, ErrRevisionAhead))
	}},
	{"previous document", func(c *chain, d *candidate) error {
		return unless(bytes.Equal(d.doc.GetPreviousHash(), c.tip().hash[:]), ErrFork)
	}},
	{"restriction seen", (*chain).refuseSeen},
	{"lifts", (*chain).refuseLifts},
	{"content", func(_ *chain, d *candidate) error { return errors.Join(d.shape, d.posture.Validate()) }},
	{"note", func(_ *chain, d *candidate) error { return checkNote(d.doc.GetNote()) }},
	{"apps", (*chain).refuseApps},
	{"an owner is left", func(c *chain, d *candidate) error {
		owned := slices.ContainsFunc(d.posture.Apps, func(a App) bool { return a.Role == roleOwner })
		return unless(owned || d.origin() != systemv1.PostureDocument_ORIGIN_OWNER, ErrLastOwner)
	}},
	{"leases", (*chain).refuseLeases},
	{"ceremony", (*chain).refuseCeremony},
	{"undo", (*chain).refuseUndo},
}

// refuseVersion: an older App does not know each limit, so its document would leave it out.
func (d *candidate) refuseVersion() error {
	return unless(d.doc.GetVersion() == documentVersion, ErrVersion)
}

func unless(ok bool, err error) error {
	if ok {
		return nil
	}
	return err
}

func (c *chain) refuseSigner(d *candidate) error {
	switch d.origin() {
	case systemv1.PostureDocument_ORIGIN_OWNER:
		for _, app := range c.tip().posture.Apps {
			if app.Role == roleOwner && bytes.Equal(app.SigningKey[:], d.signed.GetSigner()) {
				return nil
			}
		}
		return ErrNotOwner
	case systemv1.PostureDocument_ORIGIN_CEREMONY, systemv1.PostureDocument_ORIGIN_LOCAL, systemv1.PostureDocument_ORIGIN_UNDO:
		return unless(bytes.Equal(d.signed.GetSigner(), c.base[:]), ErrNotHelper)
	default: // the factory's document stands in an anchor only
		return ErrOrigin
	}
}

// refuseSeen: who signed knew the document before, so knew the restrictions
// before that as well.
func (c *chain) refuseSeen(d *candidate) error {
	number := d.doc.GetRestrictionSeen()
	hash, known := c.restrictionHash(number)
	return unless(known && number >= c.tip().restrictions && bytes.Equal(d.doc.GetRestrictionSeenHash(), hash[:]), ErrSeen)
}

func (c *chain) refuseLifts(d *candidate) error {
	active := c.active()
	for i, number := range d.doc.GetLifts() {
		at := slices.IndexFunc(active, func(r Restriction) bool { return r.Number == number })
		switch {
		case slices.Contains(d.doc.GetLifts()[:i], number):
			return reason.Errorf("restriction %d twice: %w", number, ErrLift)
		case number > d.doc.GetRestrictionSeen():
			return reason.Errorf("restriction %d, but its signer has seen only up to %d: %w", number, d.doc.GetRestrictionSeen(), ErrLift)
		case at < 0:
			return reason.Errorf("restriction %d, which is not in force: %w", number, ErrLift)
		case !active[at].liftable():
			return reason.Errorf("restriction %d, which ended a lease or cut an App off for good: %w", number, ErrLift)
		}
	}
	return nil
}

// refuseApps: Apps are added by the ceremony alone, whose document refuseCeremony
// looks at, and come back when the document that took them away is undone. An owner
// may change what an App that is there may do. The owner who raises a role has read the name of
// that App, so the same document must not rename it.
func (c *chain) refuseApps(d *candidate) error {
	switch d.origin() {
	case systemv1.PostureDocument_ORIGIN_CEREMONY, systemv1.PostureDocument_ORIGIN_UNDO:
		return nil
	}
	for _, app := range d.posture.Apps {
		was, found := findApp(c.tip().posture.Apps, app.SigningKey)
		if !found || app.ID != was.ID || app.Role > was.Role && app.Name != was.Name {
			return reason.Errorf("%q: %w", app.Name, ErrApps)
		}
	}
	return nil
}

// refuseLeases: a lease begins with this document, or is the one before.
func (c *chain) refuseLeases(d *candidate) error {
	if d.origin() == systemv1.PostureDocument_ORIGIN_UNDO {
		return nil
	}
	for _, g := range d.posture.grants() {
		was, found := c.tip().posture.lease(g.Kind)
		if g.GrantedIn != d.doc.GetRevision() && !(found && was == g.Lease) {
			return reason.Errorf("%s, granted in %d: %w", g.Kind, g.GrantedIn, ErrLeaseGrant)
		}
	}
	return nil
}

// refuseCeremony: one App more, and nothing else.
func (c *chain) refuseCeremony(d *candidate) error {
	if d.origin() != systemv1.PostureDocument_ORIGIN_CEREMONY {
		return nil
	}
	before := c.tip().posture
	n := len(before.Apps)
	if len(d.posture.Apps) != n+1 {
		return ErrOrigin
	}
	before.Apps = append(slices.Clone(before.Apps), d.posture.Apps[n])
	return unless(proto.Equal(before.Proto(), d.posture.Proto()) && len(d.doc.GetLifts()) == 0, ErrOrigin)
}

// refuseUndo: the content of the document before the last one.
func (c *chain) refuseUndo(d *candidate) error {
	if d.origin() != systemv1.PostureDocument_ORIGIN_UNDO {
		return nil
	}
	before := c.beforeTip()
	if before == nil || c.tip().doc.GetOrigin() == systemv1.PostureDocument_ORIGIN_UNDO || len(d.doc.GetLifts()) > 0 {
		return ErrOrigin
	}
	return unless(proto.Equal(before.doc.GetPosture(), d.doc.GetPosture()), ErrOrigin)
}

// checkNote: a note is as long and as plain as a name.
func checkNote(note string) error {
	if note == "" {
		return nil
	}
	if err := noiseconn.CheckName(note); err != nil {
		return &FieldError{Field: "note", Problem: "cannot be shown: " + reason.Of(err)}
	}
	return nil
}

// check returns why a document is not the next one, or nil.
func (c *chain) check(d *candidate) error {
	for _, check := range c.documentChecks {
		if err := check.refuse(c, d); err != nil {
			return err
		}
	}
	return nil
}

// append makes a document that was checked the last one.
func (c *chain) append(d *candidate) {
	number, hash := c.lastRestriction()
	c.entries = append(c.entries, entry{
		signed: d.signed, doc: d.doc, posture: d.posture,
		hash:         hashOf(labelDocument, d.signed.GetMessage()),
		restrictions: number, restrictionsHash: hash,
		active: c.activeAfter(d),
	})
}

// activeAfter returns the restrictions in force once d is appended: an undone
// document has lifted nothing; any other lifts what it names. A
// restriction of something that no longer exists is left out, so that the list stays short.
func (c *chain) activeAfter(d *candidate) []Restriction {
	active := c.active()
	if d.origin() == systemv1.PostureDocument_ORIGIN_UNDO {
		active = c.activeOver(c.beforeTip())
	}
	return slices.DeleteFunc(active, func(r Restriction) bool {
		return slices.Contains(d.doc.GetLifts(), r.Number) || (!r.closes(d.posture) && !r.liftable())
	})
}

// restrictionCheck is one reason to refuse a restriction.
type restrictionCheck struct {
	name   string
	refuse func(*chain, *systemv1.Restriction, Restriction) error
}

// restrictionChecks stand in the order in which they are made.
var restrictionChecks = []restrictionCheck{
	{"this epoch", func(c *chain, m *systemv1.Restriction, _ Restriction) error {
		return unless(bytes.Equal(m.GetEpoch(), c.epoch[:]), ErrWrongEpoch)
	}},
	{"next number", func(c *chain, _ *systemv1.Restriction, r Restriction) error {
		last, _ := c.lastRestriction()
		return unless(r.Number == last+1 && r.Revision == c.revision(), ErrNumber)
	}},
	{"previous restriction", func(c *chain, m *systemv1.Restriction, _ Restriction) error {
		_, last := c.lastRestriction()
		return unless(bytes.Equal(m.GetPreviousHash(), last[:]), ErrFork)
	}},
}

// restrict reads, checks and appends the exact bytes of a restriction.
func (c *chain) restrict(raw []byte) error {
	m, r, err := parseRestriction(raw)
	if err != nil {
		return err
	}
	for _, check := range c.restrictionChecks {
		if err := check.refuse(c, m, r); err != nil {
			return reason.Errorf("restriction %d: %w", r.Number, err)
		}
	}
	c.links = append(c.links, link{Restriction: r, hash: hashOf(labelRestriction, raw)})
	return nil
}

// proto returns the chain as it is stored and shown.
func (c *chain) proto() *systemv1.PostureChain {
	m := &systemv1.PostureChain{Anchor: c.anchor}
	for _, e := range c.entries[1:] {
		m.Documents = append(m.Documents, e.signed)
	}
	for _, l := range c.links {
		m.Restrictions = append(m.Restrictions, l.raw)
	}
	return m
}

// verifyChain builds a chain from its bytes, with every check. base is K_state;
// its holder is trusted for the anchor and for documents whose origin is the Base
// itself.
func verifyChain(base SigningKey, m *systemv1.PostureChain) (*chain, error) {
	c := &chain{base: base, documentChecks: documentChecks, restrictionChecks: restrictionChecks}
	if err := refuseUnknown(m.ProtoReflect()); err != nil {
		return nil, err
	}
	if err := c.begin(m.GetAnchor()); err != nil {
		return nil, reason.Errorf("anchor of the posture's history: %w", err)
	}
	return c, c.replay(m.GetDocuments(), m.GetRestrictions())
}

// replay appends documents and restrictions in the order in which they happened:
// a restriction names the revision during which it was recorded.
func (c *chain) replay(documents []*systemv1.Signed, restrictions [][]byte) error {
	for {
		for len(restrictions) > 0 {
			_, r, err := parseRestriction(restrictions[0])
			if err != nil {
				return err
			}
			if len(documents) > 0 && r.Revision > c.revision() {
				break
			}
			if err := c.restrict(restrictions[0]); err != nil {
				return err
			}
			restrictions = restrictions[1:]
		}
		if len(documents) == 0 {
			return nil
		}
		d, err := decodeDocument(documents[0])
		if err != nil {
			return err
		}
		if err := c.check(d); err != nil {
			return reason.Errorf("document for revision %d: %w", d.doc.GetRevision(), err)
		}
		c.append(d)
		documents = documents[1:]
	}
}

// begin starts a chain from an anchor.
func (c *chain) begin(signed *systemv1.Signed) error {
	var anchor systemv1.ChainAnchor
	if err := readStrict(signed.GetMessage(), MaxChainSize, &anchor); err != nil {
		return err
	}
	if !bytes.Equal(signed.GetSigner(), c.base[:]) {
		return ErrNotHelper
	}
	if err := verify(labelAnchor, signed); err != nil {
		return err
	}
	d, err := decodeDocument(anchor.GetDocument())
	if err != nil {
		return err
	}
	if err := errors.Join(
		refuseUnknown(d.doc.ProtoReflect()),
		d.refuseVersion(),
		verify(labelDocument, d.signed),
		unless(bytes.Equal(anchor.GetBaseId(), c.base[:]) && bytes.Equal(d.doc.GetBaseId(), c.base[:]), ErrWrongBase),
		unless(bytes.Equal(anchor.GetEpoch(), d.doc.GetEpoch()) && len(anchor.GetEpoch()) == len(Epoch{}), ErrWrongEpoch),
		unless(len(anchor.GetRestrictionHash()) == len(Hash{}), ErrMalformed),
		d.shape, d.posture.Validate(),
	); err != nil {
		return err
	}
	c.epoch = Epoch(anchor.GetEpoch())
	var active []Restriction
	for _, raw := range anchor.GetActive() {
		_, r, err := parseRestriction(raw)
		if err != nil {
			return err
		}
		active = append(active, r)
	}
	c.anchor = signed
	c.entries = []entry{{
		signed: d.signed, doc: d.doc, posture: d.posture,
		hash:         hashOf(labelDocument, d.signed.GetMessage()),
		restrictions: anchor.GetRestrictionNumber(), restrictionsHash: Hash(anchor.GetRestrictionHash()),
		active: active,
	}}
	return nil
}

// newAnchor signs the entry e as the place where a chain begins.
func newAnchor(base SigningKey, e entry, seed StateSeed) *systemv1.Signed {
	anchor := &systemv1.ChainAnchor{
		BaseId: base[:], Epoch: e.doc.GetEpoch(), Document: e.signed,
		RestrictionNumber: e.restrictions, RestrictionHash: e.restrictionsHash[:],
	}
	for _, r := range e.active {
		anchor.Active = append(anchor.Active, r.raw)
	}
	return seal(labelAnchor, encode(anchor), seed)
}

// compact drops the older half of the history, as often as needed to be
// within the limits.
func (c *chain) compact(seed StateSeed, most int) {
	for len(c.entries) > 1 && (len(c.entries) > most || proto.Size(c.proto()) > keptBytes) {
		cut := len(c.entries) / 2
		if cut+1 < len(c.entries) && c.entries[cut+1].doc.GetOrigin() == systemv1.PostureDocument_ORIGIN_UNDO {
			cut++ // an undo is verified against the document before the one that it undoes
		}
		c.entries = slices.Clone(c.entries[cut:])
		first := c.entries[0]
		c.links = slices.DeleteFunc(slices.Clone(c.links), func(l link) bool { return l.Number <= first.restrictions })
		c.anchor = newAnchor(c.base, first, seed)
	}
}
