package system

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/bruteforce"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/caller"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/ledger"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/server"
	"github.com/BitBoxSwiss/bitbox-base/internal/helperclient"
	"github.com/BitBoxSwiss/bitbox-base/internal/ipc"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/posture"
)

// The attacker of this file has taken over the Middleware: it speaks to the helper's
// socket as that user, knows everything that Apps have ever sent, and holds no
// owner's key.

// attack is a Base with an honest history, and what its Middleware has seen of it.
type attack struct {
	*base
	attacker helperclient.Client // the Middleware's user, by the kernel's word
	phone    *app                // an owner
	viewer   *app
	removed  *app // an owner who was taken away
	before   posture.Effective
	seen     map[string][]byte // signed documents, by what they are
}

func newAttack(t *testing.T) *attack {
	t.Helper()
	needRoot(t)
	b := newBase(t)
	b.start()
	socket := b.serve()
	x := &attack{base: b, attacker: b.user(socket, testUsers.Middleware), seen: map[string][]byte{}}
	honest := x.attacker // it was honest once
	x.phone = b.pair(honest, "phone", owner)
	x.removed = b.pair(honest, "old phone", owner)
	x.viewer = b.pair(honest, "tablet", basev1.Role_ROLE_VIEWER)

	sign := func(name string, a *app, doc *systemv1.PostureDocument) []byte {
		x.seen[name] = posture.SignDocument(doc, a.seed)
		return x.seen[name]
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(x.phone.submitSigned(sign("replayed: opened once", x.phone, x.phone.draft(false, open))))
	must(x.phone.submitSigned(sign("replayed: closed again", x.phone, x.phone.draft(false, func(p *posture.Posture, _ uint64) {
		p.Extras, p.SSH = nil, nil
	}))))
	must(x.phone.submitSigned(sign("replayed: took an owner away", x.phone, x.phone.draft(false, func(p *posture.Posture, _ uint64) {
		p.Apps = slices.DeleteFunc(slices.Clone(p.Apps), func(a posture.App) bool { return a.SigningKey == x.removed.key })
	}))))

	// Signed by those who may not.
	sign("forged by a stranger", &app{seed: newAppSeed()}, x.phone.draft(false, open))
	sign("by a viewer", x.viewer, x.phone.draft(false, open))
	sign("by an owner who was taken away", x.removed, x.phone.draft(false, open))
	// Signed by the owner, and kept back.
	withheld := x.phone.draft(false, open)
	sign("withheld for two minutes", x.phone, withheld)
	b.advance(posture.ChallengeLife)
	// The owner signs what fits a history that is not this one.
	sign("with an invented challenge", x.phone, changed(x.phone, func(d *systemv1.PostureDocument) { d.Challenge = make([]byte, 32) }))
	sign("a revision ahead", x.phone, changed(x.phone, func(d *systemv1.PostureDocument) { d.Revision++ }))
	sign("of another epoch", x.phone, changed(x.phone, func(d *systemv1.PostureDocument) { d.Epoch = make([]byte, 16) }))
	sign("for another Base", x.phone, changed(x.phone, func(d *systemv1.PostureDocument) { d.BaseId = make([]byte, 32) }))
	sign("as if the console had", x.phone, changed(x.phone,
		func(d *systemv1.PostureDocument) { d.Origin = systemv1.PostureDocument_ORIGIN_LOCAL }))
	good := posture.SignDocument(x.phone.draft(false, open), x.phone.seed)
	for _, length := range []int{0, 1, len(good) / 2, len(good) - 64, len(good) - 1} {
		x.seen[fmt.Sprintf("truncated to %d bytes", length)] = good[:length]
	}
	x.seen["with a bit flipped"] = slices.Concat(good[:40], []byte{good[40] ^ 1}, good[41:])
	x.seen["with a field that nobody knows"] = append(bytes.Clone(good), 0xfa, 0x3f, 1, 'x')
	var envelope systemv1.Signed
	must(proto.Unmarshal(good, &envelope))
	envelope.Signature = nil
	unsigned, err := proto.Marshal(&envelope)
	must(err)
	x.seen["unsigned"] = unsigned
	b.settled()
	x.before = b.helper.Effective()
	return x
}

func changed(a *app, change func(*systemv1.PostureDocument)) *systemv1.PostureDocument {
	doc := a.draft(false, open)
	change(doc)
	return doc
}

// handedIn are all ways to hand bytes in.
func handedIn(b []byte, connected uint64) map[string]*systemv1.SystemRequest {
	key := slices.Concat(b, make([]byte, 32))[:32]
	return map[string]*systemv1.SystemRequest{
		"submit": submitRequest(b),
		"confirm": {Verb: &systemv1.SystemRequest_ConfirmTry{ConfirmTry: &systemv1.ConfirmTry{
			Confirmation: b, ConnectedAtMs: connected}}},
		"lift ban": {Verb: &systemv1.SystemRequest_LiftBan{LiftBan: &systemv1.LiftBan{By: &systemv1.LiftBan_Order{Order: b}}}},
		"lift ban plain": {Verb: &systemv1.SystemRequest_LiftBan{LiftBan: &systemv1.LiftBan{By: &systemv1.LiftBan_Plain{
			Plain: &systemv1.LiftBanOrder{Address: "192.0.2.1"}}}}},
		"reset": {Verb: &systemv1.SystemRequest_FactoryReset{FactoryReset: &systemv1.FactoryReset{By: &systemv1.FactoryReset_Order{
			Order: b}}}},
		"reset at once": {Verb: &systemv1.SystemRequest_FactoryReset{FactoryReset: &systemv1.FactoryReset{By: &systemv1.FactoryReset_Local{
			Local: &systemv1.LocalReset{}}}}},
		"node settings":  nodeRequest(b),
		"order pairing":  orderRequest(b),
		"answer pairing": answerRequest(b),
		"reset by none":  {Verb: &systemv1.SystemRequest_FactoryReset{FactoryReset: &systemv1.FactoryReset{}}},
		"local": {Verb: &systemv1.SystemRequest_LocalChange{LocalChange: &systemv1.LocalChange{Change: &systemv1.LocalChange_GoBack{
			GoBack: &systemv1.GoBack{Revision: 4}}}}},
		"unlock": {Verb: &systemv1.SystemRequest_LocalChange{LocalChange: &systemv1.LocalChange{
			Change: &systemv1.LocalChange_LiftRestrictions{LiftRestrictions: &systemv1.LiftRestrictions{}}}}},
		"accept": {Verb: &systemv1.SystemRequest_Authority{Authority: &systemv1.AuthorityRequest{Verb: &systemv1.AuthorityRequest_Accept{
			Accept: &systemv1.Accept{Number: 1, Role: owner}}}}},
		"answer": {Verb: &systemv1.SystemRequest_Authority{Authority: &systemv1.AuthorityRequest{Verb: &systemv1.AuthorityRequest_Answer{
			Answer: &systemv1.Answer{CeremonyId: b, Yes: true}}}}},
		"activate": {Verb: &systemv1.SystemRequest_Authority{Authority: &systemv1.AuthorityRequest{Verb: &systemv1.AuthorityRequest_Activate{
			Activate: &systemv1.Activate{SigningKey: key}}}}},
		"enrol": {Verb: &systemv1.SystemRequest_Authority{Authority: &systemv1.AuthorityRequest{Verb: &systemv1.AuthorityRequest_Enrol{
			Enrol: &systemv1.Enrol{CeremonyId: b, Signature: b}}}}},
		"reveal": {Verb: &systemv1.SystemRequest_Authority{Authority: &systemv1.AuthorityRequest{Verb: &systemv1.AuthorityRequest_Reveal{
			Reveal: &systemv1.Reveal{CeremonyId: b, P3Payload: b}}}}},
	}
}

func TestACompromisedMiddlewareOpensNothing(t *testing.T) {
	x := newAttack(t)
	x.world.Ban(bruteforce.Ban{Jail: bruteforce.JailSSH, Addr: netip.MustParseAddr("192.0.2.1")})
	for name, document := range x.seen {
		for verb, request := range handedIn(document, uint64(x.config.Clock().Milliseconds())) {
			reply, err := x.attacker.Do(t.Context(), request, nil)
			if err == nil && reply.GetAuthority().GetErrorCode() == "" {
				t.Errorf("%s, a document %s: accepted", verb, name)
			}
		}
		if after := x.helper.Effective(); !posture.NoMoreOpen(after, x.before) {
			t.Fatalf("a document %s has opened the Base: %+v", name, after)
		}
	}
	if err := x.world.Is(x.before); err != nil {
		t.Errorf("the machine has changed: %v", err)
	}
	if len(x.world.Lifted()) > 0 {
		t.Error("a ban was lifted without an owner")
	}
	// The test can fail: the same bytes, fresh and from the owner, do open it.
	x.phone.mustSubmit(open)
	if posture.NoMoreOpen(x.helper.Effective(), x.before) {
		t.Error("the owner's own document opens nothing, so the attack has proved nothing")
	}
}

// It lets a try be confirmed, or not; without the owner it cannot make it stay.
func TestACompromisedMiddlewareConfirmsNoTry(t *testing.T) {
	x := newAttack(t)
	tried := posture.SignDocument(x.phone.draft(true, open), x.phone.seed)
	if err := x.phone.submitSigned(tried); err != nil {
		t.Fatal(err)
	}
	for _, b := range append(slices.Collect(values(x.seen)), tried) {
		request := handedIn(b, uint64(x.config.Clock().Milliseconds()))["confirm"]
		if _, err := x.attacker.Do(t.Context(), request, nil); err == nil {
			t.Fatal("a try was confirmed without the owner")
		}
	}
	x.advance(posture.TryTime)
	until(t, "the try is undone", func() error { return x.world.Is(x.before) })
}

func values[K comparable, V any](m map[K]V) func(func(V) bool) {
	return func(yield func(V) bool) {
		for _, v := range m {
			if !yield(v) {
				return
			}
		}
	}
}

func TestACompromisedMiddlewareLocksNoOwnerOut(t *testing.T) {
	x := newAttack(t)
	restrict := func(r *systemv1.Restrict) error {
		_, err := x.attacker.Do(t.Context(), &systemv1.SystemRequest{Verb: &systemv1.SystemRequest_Restrict{Restrict: r}}, nil)
		return err
	}
	cutOff := func(key posture.SigningKey) *systemv1.Restrict {
		return &systemv1.Restrict{What: &systemv1.Restrict_AppCutOff{AppCutOff: &systemv1.AppCutOff{SigningKey: key[:]}}}
	}
	authority := x.attacker.Authority()
	sizeBefore := x.chainSize()
	for range 100 {
		_ = restrict(lockdown())
		_ = restrict(&systemv1.Restrict{What: &systemv1.Restrict_PairingShut{PairingShut: &systemv1.PairingShut{}}})
		if err := restrict(cutOff(x.phone.key)); !errors.Is(err, &helperclient.Error{Code: helperclient.CodePermission}) {
			t.Fatalf("an owner was cut off: %v", err)
		}
		if err := authority.Retire(t.Context(), x.phone.key[:]); err == nil {
			t.Fatal("an owner's key was retired")
		}
		_, _, _ = authority.Reconcile(t.Context(), nil)
		_ = authority.CloseWindow(t.Context())
		for range 20 { // every challenge that an App may hold is void
			_, _ = x.attacker.Do(t.Context(), getPosture(make([]byte, 32), true), nil)
		}
	}
	if grown := x.chainSize() - sizeBefore; grown > 1024 {
		t.Errorf("the flood has put %d bytes into the history", grown)
	}
	// It may take viewers away; it serves them anyway, or not.
	if err := restrict(cutOff(x.viewer.key)); err != nil {
		t.Errorf("cut a viewer off: %v", err)
	}
	if e := x.helper.Effective(); !e.Lockdown || !e.PairingClosed {
		t.Errorf("the flood has closed nothing: %+v", e)
	}
	if err := authority.OpenWindow(t.Context()); err == nil {
		t.Error("a pairing window was opened from the network in a lockdown")
	}
	// Once the Middleware is honest again the owner opens what it has closed.
	x.phone.mustSubmit(open)
	x.settled()
	if e := x.helper.Effective(); e.Lockdown || e.PairingClosed || e.SSH == nil {
		t.Errorf("the owner cannot undo it: %+v", e)
	}
	// And so can root at the console, without any App.
	_ = restrict(lockdown())
	if _, err := x.as(caller.Root).Do(t.Context(), handedIn(nil, 0)["unlock"], nil); err != nil {
		t.Fatal(err)
	}
	if x.helper.Effective().Lockdown {
		t.Error("root cannot lift a lockdown")
	}
}

func TestStrangersAndTheConsoleMayDoOnlyWhatIsTheirs(t *testing.T) {
	x := newAttack(t)
	socket := x.directory + "/s"
	if _, err := x.user(socket, strangerUser).Do(t.Context(), submitRequest(nil), nil); err == nil {
		t.Error("a stranger was answered")
	}
	console := x.user(socket, testUsers.Console)
	for name, request := range handedIn(x.seen["replayed: opened once"], 0) {
		switch name {
		case "accept", "answer", "activate", "enrol", "reveal":
			continue // the authority's own table
		case "reset at once":
			continue // a person at the console may
		}
		if _, err := console.Do(t.Context(), request, nil); !errors.Is(err, &helperclient.Error{Code: helperclient.CodePermission}) {
			t.Errorf("the console sent %s: %v", name, err)
		}
	}
	if err := x.attacker.Authority().Accept(t.Context(), 1, owner); err == nil {
		t.Error("the Middleware has accepted a request in place of a human")
	}
	// The test can fail: the kernel's word is what counts.
	if _, err := (caller.Users{Middleware: strangerUser}).Who(ipc.Peer{UID: strangerUser}); err != nil {
		t.Error("users are not told apart by their number")
	}
}

func TestAnOwnersOrderLiftsABanOnce(t *testing.T) {
	x := newAttack(t)
	addr := netip.MustParseAddr("192.0.2.1")
	x.world.Ban(bruteforce.Ban{Jail: bruteforce.JailSSH, Addr: addr, Since: time.Unix(1, 0), Until: time.Unix(2, 0)})
	lift := func(signed []byte) (*systemv1.SystemReply, error) {
		return x.attacker.Do(t.Context(), handedIn(signed, 0)["lift ban"], nil)
	}
	view := x.phone.look()
	for name, signed := range map[string][]byte{
		"a viewer's":        posture.SignLiftBan(view.LiftBanOrder(addr, x.phone.challenge()), x.viewer.seed),
		"a removed owner's": posture.SignLiftBan(view.LiftBanOrder(addr, x.phone.challenge()), x.removed.seed),
		"an old one":        posture.SignLiftBan(view.LiftBanOrder(addr, make([]byte, 32)), x.phone.seed),
	} {
		if _, err := lift(signed); err == nil {
			t.Errorf("%s order was followed", name)
		}
	}
	order := posture.SignLiftBan(view.LiftBanOrder(addr, x.phone.challenge()), x.phone.seed)
	reply, err := lift(order)
	if err != nil || !reply.GetLiftBan().GetLifted() || !slices.Equal(x.world.Lifted(), []netip.Addr{addr}) {
		t.Fatalf("the owner's order: %v, %v", reply, err)
	}
	if _, err := lift(order); !errors.Is(err, &helperclient.Error{Code: helperclient.CodeStale}) {
		t.Errorf("the same order again: %v", err)
	}
}

// A key that only one of authority and posture knows has no rights, and is taken
// away at the next start.
func TestKeysThatDisagreeAreReconciledTowardsClosed(t *testing.T) {
	b := newBase(t)
	b.start()
	middleware := b.as(caller.Middleware)
	b.pair(middleware, "phone", owner)
	registryOne, ledgerOne := b.helper.keeper.Saved().Registry, b.helper.keeper.Saved().Ledger
	second := b.pair(middleware, "tablet", owner)
	registryTwo, ledgerTwo := b.helper.keeper.Saved().Registry, b.helper.keeper.Saved().Ledger
	b.stop()
	for name, c := range map[string]ledger.Saved{
		"the posture lists a key that was not enrolled": {Registry: registryOne, Ledger: ledgerTwo},
		"a key is enrolled that the posture lacks":      {Registry: registryTwo, Ledger: ledgerOne},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := ledger.OpenStore(b.directory, nil)
			if err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(s.Save(c), s.Close()); err != nil {
				t.Fatal(err)
			}
			b.t = t
			b.start()
			defer b.stop()
			b.settled()
			if e := b.helper.Effective(); len(e.Apps) != 1 || e.Apps[0].Name != "phone" {
				t.Errorf("the posture has the Apps %+v", e.Apps)
			}
			if enrolled := b.helper.keeper.Enrolled(); len(enrolled) != 1 || enrolled[second.key].Role != 0 {
				t.Errorf("%d keys are enrolled", len(enrolled))
			}
		})
	}
}

// The authority forgets an App that an owner's document removes, but not while the
// document may still be undone.
func TestATriedRemovalOfAnAppIsUndoneWhole(t *testing.T) {
	b := newBase(t)
	b.start()
	a := b.pair(b.as(caller.Middleware), "phone", owner)
	other := b.pair(b.as(caller.Middleware), "tablet", owner)
	remove := func(p *posture.Posture, _ uint64) {
		p.Apps = slices.DeleteFunc(slices.Clone(p.Apps), func(a posture.App) bool { return a.SigningKey == other.key })
	}
	if err := a.submitSigned(posture.SignDocument(a.draft(true, remove), a.seed)); err != nil {
		t.Fatal(err)
	}
	if len(b.helper.Effective().Apps) != 1 {
		t.Error("it has rights while its removal is tried")
	}
	b.advance(posture.TryTime)
	until(t, "the removal is undone", func() error {
		if len(b.helper.Effective().Apps) != 2 {
			return errors.New("it is not")
		}
		return nil
	})
	other.via = b.as(caller.Middleware)
	other.mustSubmit(func(p *posture.Posture, _ uint64) { p.NodeName = "still here" })
	a.mustSubmit(remove)
	if _, enrolled := b.helper.keeper.Enrolled()[other.key]; enrolled {
		t.Error("the authority still knows the key")
	}
}

func FuzzRequest(f *testing.F) {
	for _, request := range handedIn([]byte("some bytes"), 1) {
		b, err := proto.Marshal(request)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		first, _, _ := protowire.ConsumeTag(b)
		kind := uint16(first)
		request, err := server.Parse(kind, b)
		if err != nil {
			return
		}
		// A stranger may send nothing, whatever it is.
		if verbs[helperclient.Kind(request)].May.Has(0) {
			t.Fatalf("%T is permitted to nobody in particular", request.GetVerb())
		}
		again, err := proto.Marshal(request)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := server.Parse(kind, again); err != nil {
			t.Fatalf("what was read once cannot be read again: %v", err)
		}
	})
}

// chainSize is how long the history of the posture is, in bytes.
func (b *base) chainSize() (n int) {
	b.helper.keeper.Look(func(l *posture.Ledger) { n = len(l.Chain()) })
	return n
}

// The attack: the Middleware leaves out a part that each honest request has. The helper then has a
// nil pointer. It must answer all the same, and not crash.
func TestARequestThatLacksAnyPartDoesNotEndTheHelper(t *testing.T) {
	b := newBase(t)
	b.config.Bounds = map[caller.Who]server.Bounds{}
	for who := range server.CallerBounds { // no request is refused before it is looked at
		b.config.Bounds[who] = server.Bounds{Holds: 1 << 30, Calls: 1 << 20, Work: 1 << 20}
	}
	b.start()
	b.settled()
	fields := verbField.Fields()
	for i := range fields.Len() {
		if v := verbs[uint16(fields.Get(i).Number())]; !v.May.Has(caller.Middleware) {
			continue
		}
		for _, verb := range hollow(fields.Get(i).Message(), 4) {
			request := &systemv1.SystemRequest{}
			request.ProtoReflect().Set(fields.Get(i), protoreflect.ValueOfMessage(verb))
			// Some verbs are answered until the caller hangs up.
			ctx, hangUp := context.WithTimeout(t.Context(), 100*time.Millisecond)
			_, _ = b.as(caller.Middleware).Do(ctx, request, nil)
			hangUp()
		}
	}
	if _, err := b.as(caller.Root).Do(t.Context(),
		&systemv1.SystemRequest{Verb: &systemv1.SystemRequest_GetMachine{GetMachine: &systemv1.GetMachine{}}}, nil); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

// hollow makes messages of a kind that lack everything: without fields, and with one field that is such a
// message itself, down to a depth.
func hollow(kind protoreflect.MessageDescriptor, depth int) []protoreflect.Message {
	found, err := protoregistry.GlobalTypes.FindMessageByName(kind.FullName())
	if err != nil {
		panic(err)
	}
	all := []protoreflect.Message{found.New()}
	for i := range kind.Fields().Len() {
		field := kind.Fields().Get(i)
		if field.Message() == nil || field.IsMap() || depth == 0 {
			continue
		}
		for _, inner := range hollow(field.Message(), depth-1) {
			outer := found.New()
			if field.IsList() {
				outer.Mutable(field).List().Append(protoreflect.ValueOfMessage(inner))
			} else {
				outer.Set(field, protoreflect.ValueOfMessage(inner))
			}
			all = append(all, outer)
		}
	}
	return all
}
