package posture

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/secret"
)

// attacked is a Base that the attacks below are made on: two owners, an operator,
// a lease that runs, a lockdown as restriction 1, and one owner taken away.
type attacked struct {
	*device
	owner, removed AppSeed
	operator       AppSeed
	// earlyChallenge was given out before the change that is tried was applied.
	earlyChallenge []byte
	// oldDisk is what was saved before the last change.
	oldDisk []byte
}

func newAttacked(t tester) *attacked {
	a := &attacked{device: newDevice(t)}
	a.owner = a.device.owner("owner")
	a.removed = a.device.owner("removed")
	a.operator = a.pair("operator", basev1.Role_ROLE_OPERATOR)
	a.change(a.owner, func(p *Posture) {
		p.Apps = slices.DeleteFunc(p.Apps, func(app App) bool { return app.SigningKey == PublicKey(a.removed) })
	})
	a.change(a.owner, a.openElectrum(time.Hour))
	a.must(a.ledger.Restrict(Closing{Type: ClosingLockdown}, ActorMiddleware, a.now))
	return a
}

// forge signs a document that was changed after it was drafted honestly.
func forge[Kind any](a *attacked, seed secret.Key[Kind], change func(*systemv1.PostureDocument)) *systemv1.Signed {
	doc := a.draft(func(*Posture) {})
	change(doc)
	return seal(labelDocument, encode(doc), seed)
}

var unknownField = protowire.AppendVarint(protowire.AppendTag(nil, 4711, protowire.VarintType), 1)

// documentAttacks has at least one attack for each check of a document. Those
// signed with K_state are what a helper gone wrong could do.
var documentAttacks = []struct {
	name, stoppedBy string
	want            error
	forge           func(*attacked) *systemv1.Signed
}{
	{"a field from the future in the document", "no unknown field", ErrUnknownField, func(a *attacked) *systemv1.Signed {
		return forge(a, a.owner, func(doc *systemv1.PostureDocument) { doc.ProtoReflect().SetUnknown(unknownField) })
	}},
	{"a field from the future deep inside", "no unknown field", ErrUnknownField, func(a *attacked) *systemv1.Signed {
		return forge(a, a.owner, func(doc *systemv1.PostureDocument) {
			doc.Posture.ExtraEndpoints[0].Lease.ProtoReflect().SetUnknown(unknownField)
		})
	}},
	{"a field from the future in the envelope", "no unknown field", ErrUnknownField, func(a *attacked) *systemv1.Signed {
		signed := forge(a, a.owner, func(*systemv1.PostureDocument) {})
		signed.ProtoReflect().SetUnknown(unknownField)
		return signed
	}},
	{"made for another Base of the same owner", "this Base", ErrWrongBase, func(a *attacked) *systemv1.Signed {
		return forge(a, a.owner, func(doc *systemv1.PostureDocument) { doc.BaseId[0] ^= 1 })
	}},
	{"made before a reset", "this epoch", ErrWrongEpoch, func(a *attacked) *systemv1.Signed {
		return forge(a, a.owner, func(doc *systemv1.PostureDocument) { doc.Epoch[0] ^= 1 })
	}},
	{"signed by an operator", "signer", ErrNotOwner, func(a *attacked) *systemv1.Signed {
		return forge(a, a.operator, func(*systemv1.PostureDocument) {})
	}},
	{"signed by an owner who was taken away", "signer", ErrNotOwner, func(a *attacked) *systemv1.Signed {
		return forge(a, a.removed, func(*systemv1.PostureDocument) {})
	}},
	{"signed by a stranger", "signer", ErrNotOwner, func(a *attacked) *systemv1.Signed {
		return forge(a, seedFrom[appSeedKind](a.random), func(*systemv1.PostureDocument) {})
	}},
	{"passed off as the helper's own by an owner", "signer", ErrNotHelper, func(a *attacked) *systemv1.Signed {
		return forge(a, a.owner, func(doc *systemv1.PostureDocument) { doc.Origin = systemv1.PostureDocument_ORIGIN_LOCAL })
	}},
	{"a factory posture in the middle", "signer", ErrOrigin, func(a *attacked) *systemv1.Signed {
		return forge(a, a.config.StateSeed, func(doc *systemv1.PostureDocument) { doc.Origin = systemv1.PostureDocument_ORIGIN_FACTORY })
	}},
	{"not signed, with an owner's key beside it", "signature", ErrSignature, func(a *attacked) *systemv1.Signed {
		signed := forge(a, a.owner, func(*systemv1.PostureDocument) {})
		signed.Signature = nil
		return signed
	}},
	{"another document under an owner's signature", "signature", ErrSignature, func(a *attacked) *systemv1.Signed {
		honest := forge(a, a.owner, func(*systemv1.PostureDocument) {})
		signed := forge(a, a.owner, func(doc *systemv1.PostureDocument) { doc.Posture.PairingClosed = true })
		signed.Signature = honest.Signature
		return signed
	}},
	{"the networks taken out of what an owner has signed", "signature", ErrSignature, func(a *attacked) *systemv1.Signed {
		limit := func(doc *systemv1.PostureDocument) { doc.Posture.ExtraEndpoints[0].From = []string{"192.168.1.0/24"} }
		honest := forge(a, a.owner, limit)
		signed := forge(a, a.owner, func(*systemv1.PostureDocument) {})
		signed.Signature = honest.Signature
		return signed
	}},
	{"a time that an owner has signed, without its end", "signature", ErrSignature, func(a *attacked) *systemv1.Signed {
		honest := forge(a, a.owner, func(*systemv1.PostureDocument) {})
		signed := forge(a, a.owner, func(doc *systemv1.PostureDocument) {
			doc.Posture.ExtraEndpoints[0].Lease = &systemv1.PostureLease{UntilClosed: true, GrantedIn: doc.Revision}
		})
		signed.Signature = honest.Signature
		return signed
	}},
	{"an owner's signature over the same bytes as something else", "signature", ErrSignature, func(a *attacked) *systemv1.Signed {
		doc := a.draft(func(*Posture) {})
		return seal(labelConfirmation, encode(doc), a.owner)
	}},
	{"a second document for the same revision", "next revision", ErrRevisionTaken, func(a *attacked) *systemv1.Signed {
		return forge(a, a.owner, func(doc *systemv1.PostureDocument) {
			doc.Revision--
			doc.Posture.ExtraEndpoints = nil
		})
	}},
	{"a revision left out", "next revision", ErrRevisionAhead, func(a *attacked) *systemv1.Signed {
		return forge(a, a.owner, func(doc *systemv1.PostureDocument) { doc.Revision++ })
	}},
	{"the continuation of another history", "previous document", ErrFork, func(a *attacked) *systemv1.Signed {
		return forge(a, a.owner, func(doc *systemv1.PostureDocument) { doc.PreviousHash[0] ^= 1 })
	}},
	{"a restriction seen that does not exist", "restriction seen", ErrSeen, func(a *attacked) *systemv1.Signed {
		return forge(a, a.owner, func(doc *systemv1.PostureDocument) { doc.RestrictionSeen = 99 })
	}},
	{"a restriction seen with another content", "restriction seen", ErrSeen, func(a *attacked) *systemv1.Signed {
		return forge(a, a.owner, func(doc *systemv1.PostureDocument) { doc.RestrictionSeenHash[0] ^= 1 })
	}},
	{"an older restriction seen than by the document before", "restriction seen", ErrSeen, func(a *attacked) *systemv1.Signed {
		a.change(a.owner, func(p *Posture) { p.NodeName = "has seen 1" })
		return forge(a, a.owner, func(doc *systemv1.PostureDocument) {
			doc.RestrictionSeen, doc.RestrictionSeenHash = 0, make([]byte, 32)
		})
	}},
	{"lifting more than was seen", "lifts", ErrLift, func(a *attacked) *systemv1.Signed {
		return forge(a, a.owner, func(doc *systemv1.PostureDocument) {
			doc.RestrictionSeen, doc.RestrictionSeenHash = 0, make([]byte, 32)
			doc.Lifts = []uint64{1}
		})
	}},
	{"lifting what is not in force", "lifts", ErrLift, func(a *attacked) *systemv1.Signed {
		a.lift(a.owner, 1)
		return forge(a, a.owner, func(doc *systemv1.PostureDocument) { doc.Lifts = []uint64{1} })
	}},
	{"lifting the end of a lease", "lifts", ErrLift, func(a *attacked) *systemv1.Signed {
		a.must(a.ledger.Restrict(Closing{Type: ClosingLease, Kind: KindElectrum}, ActorMiddleware, a.now))
		return forge(a, a.owner, func(doc *systemv1.PostureDocument) { doc.Lifts = []uint64{2} })
	}},
	{"lifting the same twice", "lifts", ErrLift, func(a *attacked) *systemv1.Signed {
		return forge(a, a.owner, func(doc *systemv1.PostureDocument) { doc.Lifts = []uint64{1, 1} })
	}},
	{"a ban policy that bans nobody", "content", nil, func(a *attacked) *systemv1.Signed {
		return forge(a, a.owner, func(doc *systemv1.PostureDocument) { doc.Posture.Bans.MaxTries = 1_000_000 })
	}},
	{"an SSH key with a command", "content", nil, func(a *attacked) *systemv1.Signed {
		return forge(a, a.owner, func(doc *systemv1.PostureDocument) {
			doc.Posture.SshKeys = []string{`command="/bin/sh" ` + keyOne.Line}
		})
	}},
	{"terminal controls in the note", "note", nil, func(a *attacked) *systemv1.Signed {
		return forge(a, a.owner, func(doc *systemv1.PostureDocument) { doc.Note = "\x1b[2J" })
	}},
	{"an App that was never paired", "apps", ErrApps, func(a *attacked) *systemv1.Signed {
		return forge(a, a.owner, func(doc *systemv1.PostureDocument) {
			doc.Posture.Apps = append(doc.Posture.Apps, &systemv1.EnrolledApp{
				SigningKey: []byte("01234567890123456789012345678901"), Role: roleOwner, Name: "new", AppId: "0123456789abcdef",
			})
		})
	}},
	{"an App that was taken away", "apps", ErrApps, func(a *attacked) *systemv1.Signed {
		return forge(a, a.owner, func(doc *systemv1.PostureDocument) {
			doc.Posture.Apps = append(doc.Posture.Apps, Posture{Apps: []App{appOf("removed", roleOwner, a.removed)}}.Proto().Apps...)
		})
	}},
	{"an App raised under the name of another", "apps", ErrApps, func(a *attacked) *systemv1.Signed {
		return forge(a, a.owner, func(doc *systemv1.PostureDocument) {
			doc.Posture.Apps[1].Role, doc.Posture.Apps[1].Name = roleOwner, "owner"
		})
	}},
	{"an App raised with a key put in the place of its own", "apps", ErrApps, func(a *attacked) *systemv1.Signed {
		return forge(a, a.owner, func(doc *systemv1.PostureDocument) {
			key := PublicKey(a.removed)
			doc.Posture.Apps[1].Role, doc.Posture.Apps[1].SigningKey = roleOwner, key[:]
		})
	}},
	{"an operator who makes itself an owner", "signer", ErrNotOwner, func(a *attacked) *systemv1.Signed {
		return forge(a, a.operator, func(doc *systemv1.PostureDocument) { doc.Posture.Apps[1].Role = roleOwner })
	}},
	{"signed by an owner who was lowered", "signer", ErrNotOwner, func(a *attacked) *systemv1.Signed {
		second := a.device.owner("second")
		a.change(a.owner, func(p *Posture) { p.Apps[2].Role = basev1.Role_ROLE_OPERATOR })
		return forge(a, second, func(*systemv1.PostureDocument) {})
	}},
	{"an App with the id of another pairing", "apps", ErrApps, func(a *attacked) *systemv1.Signed {
		return forge(a, a.owner, func(doc *systemv1.PostureDocument) { doc.Posture.Apps[1].AppId = "0123456789abcdef" })
	}},
	{"the last owner lowered", "an owner is left", ErrLastOwner, func(a *attacked) *systemv1.Signed {
		return forge(a, a.owner, func(doc *systemv1.PostureDocument) { doc.Posture.Apps[0].Role = basev1.Role_ROLE_VIEWER })
	}},
	{"a document of an older version, whose signer knows no networks", "this version", ErrVersion, func(a *attacked) *systemv1.Signed {
		return forge(a, a.owner, func(doc *systemv1.PostureDocument) { doc.Version = 0 })
	}},
	{"a document of a newer version", "this version", ErrVersion, func(a *attacked) *systemv1.Signed {
		return forge(a, a.owner, func(doc *systemv1.PostureDocument) { doc.Version++ })
	}},
	{"SSH without an end", "content", nil, func(a *attacked) *systemv1.Signed {
		return forge(a, a.owner, func(doc *systemv1.PostureDocument) {
			doc.Posture.SshKeys = []string{keyOne.Line}
			doc.Posture.Ssh = &systemv1.PostureLease{UntilClosed: true, GrantedIn: doc.Revision}
		})
	}},
	{"a network that is written so that programs could differ about it", "content", nil, func(a *attacked) *systemv1.Signed {
		return forge(a, a.owner, func(doc *systemv1.PostureDocument) {
			doc.Posture.ExtraEndpoints[0].From = []string{"::ffff:10.0.0.0/104"}
		})
	}},
	{"a lease that loses its end without being granted again", "leases", ErrLeaseGrant, func(a *attacked) *systemv1.Signed {
		return forge(a, a.owner, func(doc *systemv1.PostureDocument) {
			doc.Posture.ExtraEndpoints[0].Lease.Seconds, doc.Posture.ExtraEndpoints[0].Lease.UntilClosed = 0, true
		})
	}},
	{"a lease that nobody granted", "leases", ErrLeaseGrant, func(a *attacked) *systemv1.Signed {
		return forge(a, a.owner, func(doc *systemv1.PostureDocument) {
			doc.Posture.SshKeys = []string{keyOne.Line}
			doc.Posture.Ssh = &systemv1.PostureLease{Seconds: 3600, GrantedIn: 2}
		})
	}},
	{"a lease made longer without a new grant", "leases", ErrLeaseGrant, func(a *attacked) *systemv1.Signed {
		return forge(a, a.owner, func(doc *systemv1.PostureDocument) { doc.Posture.ExtraEndpoints[0].Lease.Seconds = 604800 })
	}},
	{"a ceremony that opens SSH along the way", "ceremony", ErrOrigin, func(a *attacked) *systemv1.Signed {
		return forge(a, a.config.StateSeed, func(doc *systemv1.PostureDocument) {
			doc.Origin = systemv1.PostureDocument_ORIGIN_CEREMONY
			doc.Posture.SshKeys = []string{keyOne.Line}
			doc.Posture.Ssh = &systemv1.PostureLease{Seconds: 3600, GrantedIn: doc.Revision}
			doc.Posture.Apps = append(doc.Posture.Apps, Posture{Apps: []App{appOf("new", roleOwner, a.removed)}}.Proto().Apps...)
		})
	}},
	{"a ceremony that lifts a lockdown", "ceremony", ErrOrigin, func(a *attacked) *systemv1.Signed {
		return forge(a, a.config.StateSeed, func(doc *systemv1.PostureDocument) {
			doc.Origin, doc.Lifts = systemv1.PostureDocument_ORIGIN_CEREMONY, []uint64{1}
			doc.Posture.Apps = append(doc.Posture.Apps, Posture{Apps: []App{appOf("new", roleOwner, a.removed)}}.Proto().Apps...)
		})
	}},
	{"an undo that goes somewhere else", "undo", ErrOrigin, func(a *attacked) *systemv1.Signed {
		return forge(a, a.config.StateSeed, func(doc *systemv1.PostureDocument) {
			doc.Origin = systemv1.PostureDocument_ORIGIN_UNDO
			doc.Posture.PairingClosed = true
		})
	}},
	{"an undo of an undo", "undo", ErrOrigin, func(a *attacked) *systemv1.Signed {
		a.must(a.ledger.Submit(SignDocument(a.draft(a.openSSH(time.Hour)), a.owner), a.now))
		a.must(a.ledger.Undo(a.ledger.chain.revision(), "", a.now))
		return forge(a, a.config.StateSeed, func(doc *systemv1.PostureDocument) {
			doc.Origin = systemv1.PostureDocument_ORIGIN_UNDO
			doc.Posture = proto.Clone(a.ledger.chain.beforeTip().doc.Posture).(*systemv1.Posture)
		})
	}},
	{"an undo that lifts a lockdown", "undo", ErrOrigin, func(a *attacked) *systemv1.Signed {
		return forge(a, a.config.StateSeed, func(doc *systemv1.PostureDocument) {
			doc.Origin, doc.Lifts = systemv1.PostureDocument_ORIGIN_UNDO, []uint64{1}
			doc.Posture = proto.Clone(a.ledger.chain.beforeTip().doc.Posture).(*systemv1.Posture)
		})
	}},
}

func TestForgedDocumentsAreRefused(t *testing.T) {
	tried := map[string]bool{}
	for _, attack := range documentAttacks {
		t.Run(attack.name, func(t *testing.T) {
			a := newAttacked(t)
			d, err := decodeDocument(attack.forge(a))
			if err != nil {
				t.Fatalf("the attack is no document: %v", err)
			}
			err = a.ledger.chain.check(d)
			if err == nil {
				t.Fatal("it was accepted")
			}
			var field *FieldError
			if attack.want != nil && !errors.Is(err, attack.want) {
				t.Errorf("refused with %q instead of %q", err, attack.want)
			} else if attack.want == nil && !errors.As(err, &field) {
				t.Errorf("refused with %q instead of the name of a field", err)
			}

			broken := *a.ledger.chain
			broken.documentChecks = without(t, documentChecks, func(c documentCheck) bool { return c.name == attack.stoppedBy })
			if err := broken.check(d); err != nil {
				t.Errorf("without the check %q something else stops it: %v", attack.stoppedBy, err)
			}
		})
		tried[attack.stoppedBy] = true
	}
	for _, check := range documentChecks {
		if !tried[check.name] {
			t.Errorf("no attack shows what the check %q is for", check.name)
		}
	}
}

var restrictionAttacks = []struct {
	name, stoppedBy string
	want            error
	forge           func(*systemv1.Restriction)
}{
	{"from another epoch", "this epoch", ErrWrongEpoch, func(m *systemv1.Restriction) { m.Epoch[0] ^= 1 }},
	{"one left out", "next number", ErrNumber, func(m *systemv1.Restriction) { m.Number++ }},
	{"one again", "next number", ErrNumber, func(m *systemv1.Restriction) { m.Number-- }},
	{"moved to another revision", "next number", ErrNumber, func(m *systemv1.Restriction) { m.Revision-- }},
	{"the continuation of another history", "previous restriction", ErrFork, func(m *systemv1.Restriction) { m.PreviousHash[0] ^= 1 }},
}

func TestForgedRestrictionsAreRefused(t *testing.T) {
	tried := map[string]bool{}
	for _, attack := range restrictionAttacks {
		t.Run(attack.name, func(t *testing.T) {
			a := newAttacked(t)
			number, hash := a.ledger.chain.lastRestriction()
			m := &systemv1.Restriction{
				Epoch: a.ledger.chain.epoch[:], Number: number + 1, PreviousHash: hash[:], Revision: a.ledger.chain.revision(),
			}
			m.Epoch = slices.Clone(m.Epoch)
			Closing{Type: ClosingPairing}.describe(m)
			attack.forge(m)

			if err := a.ledger.chain.restrict(encode(m)); !errors.Is(err, attack.want) {
				t.Errorf("got %v instead of %q", err, attack.want)
			}
			broken := *a.ledger.chain
			broken.restrictionChecks = without(t, restrictionChecks, func(c restrictionCheck) bool { return c.name == attack.stoppedBy })
			if err := broken.restrict(encode(m)); err != nil {
				t.Errorf("without the check %q something else stops it: %v", attack.stoppedBy, err)
			}
		})
		tried[attack.stoppedBy] = true
	}
	for _, check := range restrictionChecks {
		if !tried[check.name] {
			t.Errorf("no attack shows what the check %q is for", check.name)
		}
	}
}

// A signed document with any one bit changed, anywhere in its envelope, is
// refused, and so is every beginning of it.
func TestEachFlippedBitAndEachTruncationOfADocumentIsRefused(t *testing.T) {
	a := newAttacked(t)
	honest := encode(forge(a, a.owner, func(*systemv1.PostureDocument) {}))
	accepted := func(checks []documentCheck, bytes []byte) bool {
		var signed systemv1.Signed
		if read(bytes, MaxDocumentSize, &signed) != nil {
			return false
		}
		d, err := decodeDocument(&signed)
		if err != nil {
			return false
		}
		chain := *a.ledger.chain
		chain.documentChecks = checks
		return chain.check(d) == nil
	}
	if !accepted(documentChecks, honest) {
		t.Fatal("the honest document is refused")
	}
	unsigned := without(t, documentChecks, func(c documentCheck) bool { return c.name == "signature" })
	slipped := 0
	for i := range len(honest) * 8 {
		flipped := slices.Clone(honest)
		flipped[i/8] ^= 1 << (i % 8)
		if accepted(documentChecks, flipped) {
			t.Errorf("accepted with bit %d flipped", i)
		}
		if accepted(unsigned, flipped) {
			slipped++
		}
	}
	if slipped < 64*8 {
		t.Errorf("without the signature's check only %d flipped bits pass: this test shows little", slipped)
	}
	for n := range honest {
		if accepted(documentChecks, honest[:n]) {
			t.Errorf("accepted after %d of %d bytes", n, len(honest))
		}
	}
}

func TestLabelsCannotBeTakenForEachOther(t *testing.T) {
	labels := []string{labelDocument, labelConfirmation, labelReport, labelAnchor, labelLiftBan, labelReset, labelRestriction,
		labelNodeSettings}
	for i, a := range labels {
		for j, b := range labels {
			if i != j && len(a) <= len(b) && a == b[:len(a)] {
				t.Errorf("%q begins with %q: bytes signed for the one could be read as the other", b, a)
			}
		}
	}
}

// The kept history is cut from time to time. The rest must verify by itself,
// continue what Apps remember, and hold the restrictions in force.
func TestHistoryIsBoundedAndStaysVerifiable(t *testing.T) {
	d := newDevice(t)
	owner := d.owner("owner")
	operator := d.pair("operator", basev1.Role_ROLE_OPERATOR)
	d.must(d.ledger.Restrict(Closing{Type: ClosingApp, App: PublicKey(operator)}, ActorMiddleware, d.now))
	d.must(d.ledger.Restrict(Closing{Type: ClosingLockdown}, ActorMiddleware, d.now))
	early := d.memory
	d.blind = true
	most := 0
	for i := range 2*keptRevisions + 10 {
		d.change(owner, func(p *Posture) { p.NodeName = fmt.Sprintf("node %d", i) })
		if i%50 == 0 {
			d.look()
		}
		most = max(most, len(d.ledger.chain.entries))
	}
	if most > keptRevisions {
		t.Errorf("%d revisions were kept, more than %d", most, keptRevisions)
	}
	if e := d.ledger.Effective(); !e.Lockdown || len(e.Apps) != 1 {
		t.Errorf("a restriction from before the cut is no longer in force: %+v", e)
	}
	d.look()
	d.memory, d.blind = early, false
	if view := d.look(); !view.Gap {
		t.Error("an App that was away for long is not told that there is a gap")
	}
	d.restart()
	d.lift(owner, 2)
	if d.ledger.Effective().Lockdown {
		t.Error("a restriction from before the cut cannot be lifted")
	}
}

// A restriction of something that is long gone is dropped.
func TestRestrictionsInForceDoNotPileUp(t *testing.T) {
	d := newDevice(t)
	owner := d.owner("owner")
	for range 20 {
		d.change(owner, func(p *Posture) { d.openSSH(time.Hour)(p); d.openElectrum(time.Hour)(p) })
		d.must(d.ledger.Restrict(Closing{Type: ClosingLease, Kind: KindSSH}, ActorMiddleware, d.now))
		d.must(d.ledger.Restrict(Closing{Type: ClosingLease, Kind: KindElectrum}, ActorMiddleware, d.now))
	}
	if n := len(d.ledger.chain.active()); n != 2 {
		t.Errorf("%d restrictions are in force, not the last 2", n)
	}
}

func TestHistoryFitsIntoOneFrameWhateverOwnersSign(t *testing.T) {
	d := newDevice(t)
	owner := d.owner("owner")
	d.blind = true
	for i := range 60 {
		d.change(owner, func(p *Posture) {
			p.SSHKeys = nil
			for j := range MaxSSHKeys {
				p.SSHKeys = append(p.SSHKeys, rsaKey(fmt.Sprintf("%d %d", i, j)))
			}
		})
		if n := len(d.ledger.Chain()); n > MaxChainSize {
			t.Fatalf("after %d large documents the history has %d bytes, more than %d", i, n, MaxChainSize)
		}
	}
	d.look()
}
