package system

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"google.golang.org/protobuf/proto"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/caller"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/ledger"
	"github.com/BitBoxSwiss/bitbox-base/internal/helperclient"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/noiseconn"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/pairing"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/posture"
)

const (
	viewer   = basev1.Role_ROLE_VIEWER
	operator = basev1.Role_ROLE_OPERATOR
)

// setRole changes the role of an App.
func setRole(a *app, role basev1.Role) func(*posture.Posture, uint64) {
	return func(p *posture.Posture, _ uint64) {
		i := slices.IndexFunc(p.Apps, func(other posture.App) bool { return other.SigningKey == a.key })
		p.Apps[i].Role = role
	}
}

// roles are those of an App in both halves of the helper's state, and on the disk.
func (b *base) roles(a *app) (ledger, authority, stored basev1.Role) {
	b.t.Helper()
	b.helper.keeper.Look(func(l *posture.Ledger) {
		for _, app := range l.Effective().Apps {
			if app.SigningKey == a.key {
				ledger = app.Role
			}
		}
	})
	authority = b.helper.keeper.Enrolled()[a.key].Role
	list, err := pairing.ParseRegistry(b.helper.keeper.Saved().Registry)
	if err != nil {
		b.t.Fatal(err)
	}
	for _, e := range list {
		if e.SigningKey == a.key {
			stored = e.Role
		}
	}
	return ledger, authority, stored
}

func (b *base) wantRole(a *app, want basev1.Role, when string) {
	b.t.Helper()
	ledger, authority, stored := b.roles(a)
	if ledger != want || authority != want || stored != want {
		b.t.Errorf("%s: the ledger has %v, the authority %v, on the disk is %v; want %v", when, ledger, authority, stored, want)
	}
}

func TestTheAuthorityFollowsTheRolesThatOwnersSign(t *testing.T) {
	b := newBase(t)
	b.start()
	m := b.as(caller.Middleware)
	phone, tablet := b.pair(m, "phone", owner), b.pair(m, "tablet", viewer)
	phone.mustSubmit(setRole(tablet, owner))
	b.wantRole(tablet, owner, "raised")
	// A Middleware cannot remove the key of a present owner.
	retire := &systemv1.AuthorityRequest{Verb: &systemv1.AuthorityRequest_Retire{Retire: &systemv1.Retire{SigningKey: tablet.key[:]}}}
	reply, err := m.Do(t.Context(), &systemv1.SystemRequest{Verb: &systemv1.SystemRequest_Authority{Authority: retire}}, nil)
	if err != nil || reply.GetAuthority().GetErrorCode() != string(pairing.CodePermission) {
		t.Errorf("a Middleware takes a new owner's key: %v, %v", reply, err)
	}
	tablet.mustSubmit(func(p *posture.Posture, _ uint64) { p.NodeName = "the tablet's" })
	phone.mustSubmit(setRole(tablet, operator))
	b.wantRole(tablet, operator, "lowered")
	if err := tablet.submit(func(p *posture.Posture, _ uint64) { p.NodeName = "still" }); !errors.Is(err,
		&helperclient.Error{Code: helperclient.CodeRefused}) {
		t.Errorf("who was an owner signs: %v", err)
	}
	b.stop()
	b.start()
	b.wantRole(tablet, operator, "after a restart")
}

// A watcher is told the roles at the start and with each change. A role on trial counts only
// if it is lower.
func TestWatchersAreToldWhatEachAppMayDo(t *testing.T) {
	b := newBase(t)
	b.start()
	m := b.as(caller.Middleware)
	phone, tablet := b.pair(m, "phone", owner), b.pair(m, "tablet", operator)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var told atomic.Int32
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = m.Each(ctx, &systemv1.SystemRequest{Verb: &systemv1.SystemRequest_WatchSystem{WatchSystem: &systemv1.WatchSystem{}}},
			func(reply *systemv1.SystemReply) error {
				for _, r := range reply.GetEvent().GetAppRoles() {
					if string(r.GetSigningKey()) == string(tablet.key[:]) {
						told.Store(int32(r.GetRole()))
					}
				}
				return nil
			})
	}()
	wait := func(want basev1.Role) {
		t.Helper()
		until(t, "the watcher is told "+want.String(), func() error {
			if got := basev1.Role(told.Load()); got != want {
				return fmt.Errorf("it was told %v", got)
			}
			return nil
		})
	}
	wait(operator)
	if err := phone.submitSigned(posture.SignDocument(phone.draft(true, setRole(tablet, viewer)), phone.seed)); err != nil {
		t.Fatal(err)
	}
	wait(viewer)
	if _, authority, _ := b.roles(tablet); authority != operator {
		t.Errorf("the authority has %v while it is only tried", authority)
	}
	b.advance(posture.TryTime)
	wait(operator)
	cancel()
	<-done
}

// A change of a role is saved twice: when it is taken, and when it is settled, with both
// halves in one write. Cut anywhere, both have the old role or both the new one.
func TestAHelperKilledDuringAChangeOfARoleLeavesOneRole(t *testing.T) {
	for _, change := range []struct{ from, to basev1.Role }{{viewer, owner}, {owner, viewer}} {
		for step, want := range map[string]basev1.Role{"save 1": change.from, "saved 1": change.from, "save 2": change.from,
			"saved 2": change.to} {
			t.Run(fmt.Sprintf("%v to %v at %s", change.from, change.to, step), func(t *testing.T) {
				b := newBase(t)
				b.start()
				m := b.as(caller.Middleware)
				phone, tablet := b.pair(m, "phone", owner), b.pair(m, "tablet", change.from)
				b.settled()
				b.stop()
				if err := os.WriteFile(filepath.Join(b.directory, seedFile), phone.seed.Expose(), 0o600); err != nil {
					t.Fatal(err)
				}
				b.kill(step, "", raiseVariable+"="+change.to.String())
				b.start()
				b.settled()
				b.wantRole(tablet, want, "after the kill")
				phone.via = b.as(caller.Middleware)
				phone.mustSubmit(func(p *posture.Posture, _ uint64) {
					setRole(tablet, change.to)(p, 0)
					p.NodeName = "goes on"
				})
				b.wantRole(tablet, change.to, "once more")
			})
		}
	}
}

// Somebody has exchanged a part of the state, or an older version let a role be lowered
// without the authority: of two roles the lower counts.
func TestOfTwoRolesTheLowerCounts(t *testing.T) {
	for _, stored := range []basev1.Role{viewer, owner} {
		b := newBase(t)
		b.start()
		m := b.as(caller.Middleware)
		b.pair(m, "phone", owner)
		tablet := b.pair(m, "tablet", operator)
		b.settled()
		list, err := pairing.ParseRegistry(b.helper.keeper.Saved().Registry)
		if err != nil {
			t.Fatal(err)
		}
		list[1].Role = stored
		registry, err := pairing.NewRegistry(list...)
		if err != nil {
			t.Fatal(err)
		}
		b.stop()
		store, err := ledger.OpenStore(b.directory, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(store.Save(ledger.Saved{Registry: registry}), store.Close()); err != nil {
			t.Fatal(err)
		}
		b.start()
		b.wantRole(tablet, min(stored, operator), "the authority had "+stored.String())
	}
}

// newcomer is an App that asks to be let in, by way of the given Middleware.
type newcomer struct {
	*app
	p1            []byte
	h, ra, static [32]byte
	id            pairing.CeremonyID
	p4            *noiseconn.P4
}

func (b *base) newcomer(name string) *newcomer {
	n := &newcomer{app: &app{base: b, seed: newAppSeed(), name: name}, p1: make([]byte, noiseconn.P1Size)}
	n.key = posture.PublicKey(n.seed)
	for _, random := range [][]byte{n.p1, n.h[:], n.ra[:], n.static[:]} {
		_, _ = rand.Read(random)
	}
	n.static[31] &= 0x7f // canonical
	return n
}

// reveal goes on until the new App shows its words.
func (n *newcomer) reveal(m pairing.Client) (noiseconn.Words, error) {
	ctx := n.base.t.Context()
	granted, id, _, err := m.Hear(ctx, n.p1, netip.AddrFrom16([16]byte(n.p1)))
	if err != nil || !granted {
		return noiseconn.Words{}, errors.Join(err, errors.New("it was not granted"))
	}
	n.id = id
	payload, err := (&noiseconn.P3Payload{RA: n.ra, SigningKey: n.key[:], Name: n.name}).Marshal()
	if err != nil {
		return noiseconn.Words{}, err
	}
	record, _, err := m.Reveal(ctx, id, n.h, payload, n.static)
	if err != nil {
		return noiseconn.Words{}, err
	}
	if n.p4, err = noiseconn.ParseP4(record); err != nil {
		return noiseconn.Words{}, err
	}
	return noiseconn.ComputeWords(n.ra, n.p4.RB, n.h, n.key[:], n.p4.StateKey, n.p4.Role)
}

func (n *newcomer) enrol(m pairing.Client) error {
	if err := n.confirm(m); err != nil {
		return err
	}
	return m.Activate(n.base.t.Context(), n.key[:])
}

// confirm is the yes of the new App's user, which makes its key pending.
func (n *newcomer) confirm(m pairing.Client) error {
	private := ed25519.NewKeyFromSeed(n.seed.Expose())
	_, _, err := m.Enrol(n.base.t.Context(), n.id, ed25519.Sign(private, noiseconn.EnrolMessage(n.h, n.key[:], n.ra, n.p4.RB)))
	return err
}

func orderRequest(signed []byte) *systemv1.SystemRequest {
	return &systemv1.SystemRequest{Verb: &systemv1.SystemRequest_OrderPairing{OrderPairing: &systemv1.OrderPairing{Order: signed}}}
}

func answerRequest(signed []byte) *systemv1.SystemRequest {
	return &systemv1.SystemRequest{Verb: &systemv1.SystemRequest_AnswerPairing{AnswerPairing: &systemv1.AnswerPairing{Answer: signed}}}
}

func (a *app) letIn(number uint32, role basev1.Role) []byte {
	return posture.SignPairingOrder(a.look().PairingOrder(role, &number, a.challenge()), a.seed)
}

func TestAnOwnersAppLetsAnotherInThroughTheHelper(t *testing.T) {
	b := newBase(t)
	b.config.NoDisplay = true
	b.start()
	m := b.as(caller.Middleware)
	phone := b.pair(m, "phone", owner)
	n := b.newcomer("tablet")
	number := noiseconn.RequestNumber(n.p1)
	reply, err := m.Do(t.Context(), orderRequest(phone.letIn(number, operator)), nil)
	if err != nil || len(reply.GetAuthority().GetSnapshot().GetCeremony().GetId()) != 16 {
		t.Fatalf("%v, %v", reply, err)
	}
	words, err := n.reveal(m.Authority())
	if err != nil {
		t.Fatal(err)
	}
	view := phone.look()
	answer := view.PairingAnswer(n.id[:], words[:], operator, n.key[:], n.name, phone.challenge())
	reply, err = m.Do(t.Context(), answerRequest(posture.SignPairingAnswer(answer, phone.seed)), nil)
	if err != nil {
		t.Fatal(err)
	}
	if matched, err := view.PairingMatched(answer, reply.GetPairingAnswered().GetReport()); !matched || err != nil {
		t.Fatalf("%v, %v", matched, err)
	}
	if err := n.enrol(m.Authority()); err != nil {
		t.Fatal(err)
	}
	b.wantRole(n.app, operator, "let in")
	history := phone.look().History()
	if last := history[len(history)-1]; last.Note != "ordered by the App 'phone'" {
		t.Errorf("the history says %+v", last)
	}
}

// The attack: an owner's App is revoked without a signed document, so that the helper still has its
// key. An order that it has signed just before, and that the Middleware still holds, arrives after
// that.
func TestWhatARevokedOwnerHasUnderWayArrivesInVain(t *testing.T) {
	for name, order := range map[string]func(evil *app, n *newcomer) *systemv1.SystemRequest{
		"a window": func(evil *app, _ *newcomer) *systemv1.SystemRequest {
			return orderRequest(posture.SignPairingOrder(evil.look().PairingOrder(owner, nil, evil.challenge()), evil.seed))
		},
		"an act": func(evil *app, n *newcomer) *systemv1.SystemRequest {
			return orderRequest(evil.letIn(noiseconn.RequestNumber(n.p1), owner))
		},
		"a document": func(evil *app, _ *newcomer) *systemv1.SystemRequest {
			return submitRequest(posture.SignDocument(evil.draft(false, func(p *posture.Posture, _ uint64) { p.NodeName = "Evil" }), evil.seed))
		},
	} {
		for _, late := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, late %v", name, late), func(t *testing.T) {
				b := newBase(t)
				b.config.NoDisplay = true
				b.start()
				m := b.as(caller.Middleware)
				b.pair(m, "phone", owner)
				evil := b.pair(m, "evil", owner)
				request := order(evil, b.newcomer("accomplice"))
				if late {
					if err := m.Authority().CloseWindowOf(t.Context(), evil.key[:]); err != nil {
						t.Fatal(err)
					}
				}
				_, err := m.Do(t.Context(), request, nil)
				switch {
				case late && !errors.Is(err, &helperclient.Error{Code: helperclient.CodeStale}):
					t.Errorf("it took effect: %v", err)
				case !late && err != nil:
					t.Errorf("an owner's order is refused: %v; this attack proves nothing", err)
				}
				if s, err := m.Authority().Watch(t.Context(), 0); late && (err != nil || s.GetWindowOpen() || s.GetCeremony() != nil) {
					t.Errorf("the Base lets somebody in: %v, %v", s, err)
				}
			})
		}
	}
}

// The Middleware was taken over: it brings what it has, and has no owner's key.
func TestACompromisedMiddlewareLetsNobodyIn(t *testing.T) {
	b := newBase(t)
	b.config.NoDisplay = true
	b.start()
	m := b.as(caller.Middleware)
	phone, other, guest := b.pair(m, "phone", owner), b.pair(m, "other", owner), b.pair(m, "guest", viewer)
	b.advance(pairing.ActsTime)
	n := b.newcomer("attacker")
	number := noiseconn.RequestNumber(n.p1)
	stranger := &app{base: b, seed: newAppSeed(), via: m}
	orderBy := func(by *app) []byte {
		return posture.SignPairingOrder(phone.look().PairingOrder(owner, &number, phone.challenge()), by.seed)
	}
	phone.mustSubmit(setRole(other, viewer))
	for name, signed := range map[string][]byte{
		"nothing": nil, "by a stranger": orderBy(stranger), "by a viewer": orderBy(guest), "by an owner who was lowered": orderBy(other),
		"a lift of a ban": posture.SignReset(phone.look().ResetOrder("BitBox Base", phone.challenge()), phone.seed),
	} {
		if _, err := m.Do(t.Context(), orderRequest(signed), nil); err == nil {
			t.Errorf("an order that is %s was taken", name)
		}
	}
	// It has a true order, and puts its own App in the place of the one that was meant.
	if _, err := m.Do(t.Context(), orderRequest(phone.letIn(number, owner)), nil); err != nil {
		t.Fatal(err)
	}
	words, err := n.reveal(m.Authority())
	if err != nil {
		t.Fatal(err)
	}
	answerBy := func(by *app, change func(*systemv1.PairingAnswer)) []byte {
		answer := proto.CloneOf(phone.look().PairingAnswer(n.id[:], words[:], owner, n.key[:], n.name, phone.challenge()))
		change(answer)
		return posture.SignPairingAnswer(answer, by.seed)
	}
	same := func(*systemv1.PairingAnswer) {}
	for name, signed := range map[string][]byte{
		"nothing": nil, "by a stranger": answerBy(stranger, same), "by a viewer": answerBy(guest, same),
		"by an owner who was lowered": answerBy(other, same),
		"of another ceremony":         answerBy(phone, func(a *systemv1.PairingAnswer) { a.CeremonyId = make([]byte, 16) }),
	} {
		if _, err := m.Do(t.Context(), answerRequest(signed), nil); err == nil {
			t.Errorf("an answer that is %s was taken", name)
		}
	}
	// The owner types the words of the App that he meant: they are others.
	reply, err := m.Do(t.Context(), answerRequest(answerBy(phone, func(a *systemv1.PairingAnswer) { a.Words = []byte("of the other") })), nil)
	if err != nil {
		t.Fatal(err)
	}
	var signed systemv1.Signed
	var report systemv1.PairingReport
	if err := errors.Join(proto.Unmarshal(reply.GetPairingAnswered().GetReport(), &signed),
		proto.Unmarshal(signed.GetMessage(), &report)); err != nil || report.GetMatched() {
		t.Errorf("%v, %v", &report, err)
	}
	if lines := b.lines(); !strings.Contains(lines[len(lines)-1], "words that did not match, as owner") {
		t.Errorf("the log says of it %q", lines[len(lines)-1])
	}
	if err := n.enrol(m.Authority()); err == nil {
		t.Error("the attacker's App was let in")
	}
	// And without the owner it gets no answer of its own either.
	for name, request := range handedIn(make([]byte, 16), 0) {
		if name != "accept" && name != "answer" {
			continue
		}
		if reply, err := m.Do(t.Context(), request, nil); err == nil && reply.GetAuthority().GetErrorCode() == "" {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestABaseWithADisplayOrAClosedOneTakesNoActFromTheNetwork(t *testing.T) {
	b := newBase(t)
	b.start()
	m := b.as(caller.Middleware)
	phone := b.pair(m, "phone", owner)
	if _, err := m.Do(t.Context(), orderRequest(phone.letIn(123456, viewer)), nil); !errors.Is(err,
		&helperclient.Error{Code: helperclient.CodePermission}) {
		t.Errorf("a Base with a display: %v", err)
	}
	// The console orders nothing, and root neither: they act themselves.
	for _, who := range []caller.Who{caller.Console, caller.Root} {
		if _, err := b.as(who).Do(t.Context(), orderRequest(phone.letIn(123456, viewer)), nil); !errors.Is(err,
			&helperclient.Error{Code: helperclient.CodePermission}) {
			t.Errorf("%v: %v", who, err)
		}
	}
	b.stop()
	b.config.NoDisplay = true
	b.start()
	phone.via = b.as(caller.Middleware)
	m = phone.via
	n := b.newcomer("tablet")
	if _, err := m.Do(t.Context(), orderRequest(phone.letIn(noiseconn.RequestNumber(n.p1), viewer)), nil); err != nil {
		t.Fatal(err)
	}
	words, err := n.reveal(m.Authority())
	if err != nil {
		t.Fatal(err)
	}
	answer := posture.SignPairingAnswer(phone.look().PairingAnswer(n.id[:], words[:], viewer, n.key[:], n.name, phone.challenge()), phone.seed)
	if err := b.restrict(caller.Middleware, lockdown()); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Do(t.Context(), answerRequest(answer), nil); err == nil {
		t.Error("a lockdown does not end a pairing that is on")
	}
	if _, err := m.Do(t.Context(), orderRequest(phone.letIn(123456, viewer)), nil); !errors.Is(err,
		&helperclient.Error{Code: helperclient.CodePermission}) {
		t.Errorf("a Base that is locked down: %v", err)
	}
}

// Both have said yes, and then somebody locks the Base down before the App has connected.
func TestALockdownLetsNobodyInWhoHasNotConnectedYet(t *testing.T) {
	for name, close := range map[string]*systemv1.Restrict{
		"lockdown": lockdown(), "pairing closed": {What: &systemv1.Restrict_PairingShut{PairingShut: &systemv1.PairingShut{}}}, "nothing": nil,
	} {
		b := newBase(t)
		b.config.NoDisplay = true
		b.start()
		m := b.as(caller.Middleware)
		phone, n := b.pair(m, "phone", owner), b.newcomer("tablet")
		if _, err := m.Do(t.Context(), orderRequest(phone.letIn(noiseconn.RequestNumber(n.p1), owner)), nil); err != nil {
			t.Fatal(err)
		}
		words, err := n.reveal(m.Authority())
		if err != nil {
			t.Fatal(err)
		}
		answer := phone.look().PairingAnswer(n.id[:], words[:], owner, n.key[:], n.name, phone.challenge())
		if _, err := m.Do(t.Context(), answerRequest(posture.SignPairingAnswer(answer, phone.seed)), nil); err != nil {
			t.Fatal(err)
		}
		if err := n.confirm(m.Authority()); err != nil {
			t.Fatal(err)
		}
		if close != nil {
			if err := b.restrict(caller.Middleware, close); err != nil {
				t.Fatal(err)
			}
		}
		err = m.Authority().Activate(t.Context(), n.key[:])
		if (err == nil) != (close == nil) {
			t.Errorf("%s: the App is let in: %v", name, err)
		}
	}
}

// An owner has said yes to an App that answers nothing yet, and is lowered meanwhile: the
// orders that this owner signed before no longer let anybody in.
func TestAFormerOwnerLetsNobodyIn(t *testing.T) {
	stages := map[string]func(n *newcomer, lower func()) error{
		"lowered before the new App confirms": func(n *newcomer, lower func()) error {
			lower()
			return n.enrol(n.via.Authority())
		},
		"lowered before the new App connects": func(n *newcomer, lower func()) error {
			if err := n.confirm(n.via.Authority()); err != nil {
				n.base.t.Fatal(err)
			}
			lower()
			return n.via.Authority().Activate(n.base.t.Context(), n.key[:])
		},
		// The same attack wins as long as it is an owner's.
		"lowered afterwards": func(n *newcomer, lower func()) error {
			err := n.enrol(n.via.Authority())
			lower()
			return err
		},
	}
	for name, attack := range stages {
		for how, change := range map[string]func(evil *app) func(*posture.Posture, uint64){
			"a lower role": func(evil *app) func(*posture.Posture, uint64) { return setRole(evil, viewer) },
			"taken away": func(evil *app) func(*posture.Posture, uint64) {
				return func(p *posture.Posture, _ uint64) {
					p.Apps = slices.DeleteFunc(p.Apps, func(a posture.App) bool { return a.SigningKey == evil.key })
				}
			},
		} {
			t.Run(name+", "+how, func(t *testing.T) {
				b := newBase(t)
				b.config.NoDisplay = true
				b.start()
				m := b.as(caller.Middleware)
				phone, evil := b.pair(m, "phone", owner), b.pair(m, "evil", owner)
				n := b.newcomer("accomplice")
				n.via = m
				if _, err := m.Do(t.Context(), orderRequest(evil.letIn(noiseconn.RequestNumber(n.p1), owner)), nil); err != nil {
					t.Fatal(err)
				}
				words, err := n.reveal(m.Authority())
				if err != nil {
					t.Fatal(err)
				}
				answer := evil.look().PairingAnswer(n.id[:], words[:], owner, n.key[:], n.name, evil.challenge())
				if _, err := m.Do(t.Context(), answerRequest(posture.SignPairingAnswer(answer, evil.seed)), nil); err != nil {
					t.Fatal(err)
				}
				err = attack(n, func() { phone.mustSubmit(change(evil)) })
				ledger, authority, _ := b.roles(n.app)
				if late := name != "lowered afterwards"; late && (err == nil || ledger != 0 || authority != 0) {
					t.Errorf("a former owner has let in an App as %v: %v", ledger, err)
				} else if !late && (err != nil || ledger != owner) {
					t.Errorf("an owner lets nobody in: %v; this attack proves nothing", err)
				}
			})
		}
	}
}
