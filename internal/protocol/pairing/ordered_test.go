package pairing

import (
	"encoding/binary"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/noiseconn"
)

func (a *testApp) owner() OwnerKey { return OwnerKey(a.public()) }

// settled is paired, whose clock the machine has seen, as with Service.With.
func settled(t testing.TB) (*world, *testApp) {
	t.Helper()
	w, first := paired(t)
	w.machine.Tick(w.now)
	return w, first
}

// settledTwice has a second owner as well.
func settledTwice(t testing.TB) (w *world, first, second *testApp) {
	t.Helper()
	w, first = settled(t)
	second = newApp(t, "second")
	if err := w.console.OpenWindow(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.pair(second, owner)
	w.now += ActsTime
	return w, first, second
}

func wordsOf(t testing.TB, p3 *noiseconn.P3Payload, p4 *noiseconn.P4, h [32]byte) noiseconn.Words {
	t.Helper()
	words, err := noiseconn.ComputeWords(p3.RA, p4.RB, h, p3.SigningKey, p4.StateKey, p4.Role)
	if err != nil {
		t.Fatal(err)
	}
	return words
}

// words are those that the App shows.
func (a *testApp) words(t testing.TB) noiseconn.Words {
	return wordsOf(t, &noiseconn.P3Payload{RA: a.ra, SigningKey: a.public()}, a.p4, a.h)
}

// rightAnswer is what an honest owner's App signs.
func (a *testApp) rightAnswer(t testing.TB, role basev1.Role) *systemv1.PairingAnswer {
	words := a.words(t)
	return &systemv1.PairingAnswer{CeremonyId: a.id[:], Words: words[:], Role: role, SigningKey: a.public(), AppName: a.name}
}

// ordered takes a pairing that an owner's App has begun to the point where the new App
// shows its words.
func (w *world) ordered(by, a *testApp, role basev1.Role) {
	w.t.Helper()
	if err := w.machine.AcceptFor(by.owner(), a.number(), role); err != nil {
		w.t.Fatal(err)
	}
	if !w.hear(a) {
		w.t.Fatal("the accepted request was not granted")
	}
	w.reveal(a)
}

func TestAnOwnersAppAcceptsAndAnswersByWords(t *testing.T) {
	w, first := settled(t)
	a := newApp(t, "phone")
	w.ordered(first, a, viewer)
	if s := w.see(w.middleware); s.GetCeremony().GetBaseConfirmed() || string(s.GetCeremony().GetByOwner()) != string(first.public()) ||
		string(s.GetCeremony().GetSigningKey()) != string(a.public()) {
		t.Errorf("the Middleware is told %v", s)
	}
	wantError(t, w.enrol(a), ErrAwaitingAnswer)
	if matched, err := w.machine.AnswerFor(first.owner(), a.rightAnswer(t, viewer)); !matched || err != nil {
		t.Fatal(matched, err)
	}
	if err := w.enrol(a); err != nil {
		t.Fatal(err)
	}
	if got := w.machine.OrderedBy([32]byte(a.public())); got != first.owner() {
		t.Errorf("it was ordered by %x", got)
	}
	if err := w.middleware.Activate(t.Context(), a.public()); err != nil {
		t.Fatal(err)
	}
	if list, err := ParseRegistry(w.disk); err != nil || len(list) != 2 || list[1].Role != viewer {
		t.Errorf("enrolled: %+v, %v", list, err)
	}
}

// An owner says yes, and loses that role before the new App has confirmed or connected.
func TestTheYesOfAFormerOwnerIsWorthNothing(t *testing.T) {
	for _, pending := range []bool{false, true} {
		for _, asks := range []bool{true, false} {
			w, first := settled(t)
			a := newApp(t, "accomplice")
			w.ordered(first, a, owner)
			if _, err := w.machine.AnswerFor(first.owner(), a.rightAnswer(t, owner)); err != nil {
				t.Fatal(err)
			}
			var err error
			if pending {
				err = w.enrol(a)
			}
			// The change is being applied: the helper knows, the registry not yet. The
			// broken variant does not ask.
			w.machine.isOwner = func(OwnerKey) bool { return !asks }
			if !pending && err == nil {
				err = w.enrol(a)
			}
			if err == nil {
				err = w.middleware.Activate(t.Context(), a.public())
			}
			if refused := err != nil; refused != asks {
				t.Errorf("pending %v, asked whether it is an owner %v: %v", pending, asks, err)
			}
			if e := w.machine.registry.find(a.public()); (e != nil) == asks {
				t.Errorf("pending %v, asked %v: its key is %+v", pending, asks, e)
			}
		}
	}
}

// An owner's order ends with its time, whatever the Middleware opens, and with its
// owner's role: the display says that an owner has ordered it.
func TestAnOrderedWindowOutlivesNeitherItsTimeNorItsOwner(t *testing.T) {
	w, first := settled(t)
	if err := w.machine.OpenWindowFor(first.owner(), owner); err != nil {
		t.Fatal(err)
	}
	for range 10 {
		w.now += WindowTime / 4
		if err := w.middleware.OpenWindow(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if s := w.see(w.console); s.GetWindowRole() != noRole {
		t.Errorf("the window is still that of the order: %v", s)
	}

	for how, lose := range map[string]func(w *world, first *testApp){
		"lowered": func(w *world, first *testApp) {
			w.machine.SetRoles(map[[32]byte]basev1.Role{[32]byte(first.public()): viewer})
		},
		"taken away": func(w *world, first *testApp) {
			if err := w.console.Retire(t.Context(), first.public()); err != nil {
				t.Fatal(err)
			}
		},
	} {
		for _, window := range []bool{true, false} {
			w, first := settled(t)
			second := newApp(t, "second")
			if err := w.console.OpenWindow(t.Context()); err != nil {
				t.Fatal(err)
			}
			w.pair(second, owner)
			w.now += ActsTime
			w.machine.Tick(w.now)
			if window {
				if err := w.machine.OpenWindowFor(first.owner(), owner); err != nil {
					t.Fatal(err)
				}
			} else if err := w.machine.AcceptFor(first.owner(), 123456, owner); err != nil {
				t.Fatal(err)
			}
			lose(w, first)
			if s := w.see(w.console); s.GetWindowOpen() || s.GetWindowRole() != noRole || s.GetCeremony() != nil {
				t.Errorf("its owner was %s: %v", how, s)
			}
			// Another owner's stays.
			if err := w.machine.OpenWindowFor(second.owner(), viewer); err != nil {
				t.Fatal(err)
			}
			w.machine.SetRoles(map[[32]byte]basev1.Role{[32]byte(first.public()): basev1.Role_ROLE_OPERATOR})
			if s := w.see(w.console); s.GetWindowRole() != viewer {
				t.Errorf("another owner's window: %v", s)
			}
		}
	}
}

// The attack: an owner's App opens a window without a signature, and its owner is revoked.
// The window must not let an accomplice in, even if the act was already given. The broken
// variant is one that takes the window for the console's.
func TestAnUnsignedWindowEndsWithTheOwnerWhoMayHaveOpenedIt(t *testing.T) {
	losses := map[string]func(w *world, first *testApp) error{
		"lowered": func(w *world, first *testApp) error {
			w.machine.SetRoles(map[[32]byte]basev1.Role{[32]byte(first.public()): viewer})
			return nil
		},
		"taken away": func(w *world, first *testApp) error { return w.console.Retire(t.Context(), first.public()) },
		// The Middleware has cut off the owner, whose key needs a signature to be taken away.
		"cut off": func(w *world, first *testApp) error { return w.middleware.CloseWindowOf(t.Context(), first.public()) },
	}
	attack := func(t *testing.T, lose func(w *world, first *testApp) error, acted, atConsole, broken bool) (goesOn bool) {
		w, first, _ := settledTwice(t)
		accomplice := newApp(t, "accomplice")
		open := w.middleware
		if atConsole {
			open = w.console
		}
		if err := open.OpenWindow(t.Context()); err != nil {
			t.Fatal(err)
		}
		w.machine.window.unsigned = w.machine.window.unsigned && !broken
		if acted {
			w.show(accomplice, owner)
		}
		if err := lose(w, first); err != nil {
			t.Fatal(err)
		}
		s := w.see(w.console)
		if acted && s.GetWindowOpen() != (s.GetCeremony() != nil) {
			t.Errorf("the window and the ceremony in it differ: %v", s)
		}
		return s.GetWindowOpen()
	}
	for how, lose := range losses {
		for _, acted := range []bool{false, true} {
			if attack(t, lose, acted, false, false) {
				t.Errorf("the owner was %s, after an act %v: the window is still open", how, acted)
			}
			if !attack(t, lose, acted, true, false) {
				t.Errorf("the owner was %s, after an act %v: the console's window was closed", how, acted)
			}
			if !attack(t, lose, acted, false, true) {
				t.Errorf("the owner was %s: the broken variant withstands, so this test shows nothing", how)
			}
		}
	}
}

// The attack: an owner's App orders a pairing by signature, and an owner's client revokes that
// App without a signed document. So the registry has the owner's key, and the Middleware alone
// says whose orders end. Each stage of an accomplice's pairing ends. What another owner has
// ordered, or the console has opened, goes on.
func TestWhatARevokedOwnerHasOrderedEndsWithoutADocument(t *testing.T) {
	stages := map[string]func(w *world, by, accomplice *testApp) error{
		"a window": func(w *world, by, _ *testApp) error { return w.machine.OpenWindowFor(by.owner(), owner) },
		"an act in its window": func(w *world, by, accomplice *testApp) error {
			err := w.machine.OpenWindowFor(by.owner(), owner)
			w.accept(accomplice, owner)
			return err
		},
		"an act by its order": func(w *world, by, accomplice *testApp) error {
			return w.machine.AcceptFor(by.owner(), accomplice.number(), owner)
		},
		"a pending key": func(w *world, by, accomplice *testApp) error {
			w.ordered(by, accomplice, owner)
			if _, err := w.machine.AnswerFor(by.owner(), accomplice.rightAnswer(t, owner)); err != nil {
				return err
			}
			return w.enrol(accomplice)
		},
		"the console's window": func(w *world, _, _ *testApp) error { return w.console.OpenWindow(t.Context()) },
		"an act at the console": func(w *world, _, accomplice *testApp) error {
			err := w.console.OpenWindow(t.Context())
			w.accept(accomplice, owner)
			return err
		},
	}
	for stage, reach := range stages {
		for _, byRevoked := range []bool{true, false} {
			w, first, second := settledTwice(t)
			accomplice := newApp(t, "accomplice")
			w.machine.Tick(w.now)
			by := second
			if byRevoked {
				by = first
			}
			if err := reach(w, by, accomplice); err != nil {
				t.Fatal(stage, err)
			}
			for _, nobody := range [][]byte{make([]byte, len(OwnerKey{})), {1}} {
				_ = w.middleware.CloseWindowOf(t.Context(), nobody) // of which the second is malformed
			}
			goesOn := func() bool {
				s := w.see(w.console)
				return s.GetWindowOpen() || s.GetCeremony() != nil || w.machine.registry.find(accomplice.public()) != nil
			}
			if !goesOn() {
				t.Errorf("%s: nobody's windows were closed, and it ended", stage)
			}
			if err := w.middleware.CloseWindowOf(t.Context(), first.public()); err != nil {
				t.Fatal(err)
			}
			if ends := byRevoked && !strings.Contains(stage, "console"); goesOn() == ends {
				t.Errorf("%s, by the revoked owner %v: it goes on %v", stage, byRevoked, ends)
			}
			if w.machine.registry.find(first.public()) == nil {
				t.Error("the Middleware has taken an owner's key away")
			}
		}
	}
}

// The bounds are those of the console.
func TestActsOfAnOwnersAppCountLikeThoseOfTheConsole(t *testing.T) {
	w, first := settled(t)
	for range MaxActs - 1 {
		a := newApp(t, "phone")
		w.ordered(first, a, viewer)
		if err := w.middleware.Abort(t.Context(), a.id, false); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.console.OpenWindow(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.accept(newApp(t, "at the console"), viewer)
	wantError(t, w.machine.AcceptFor(first.owner(), 123456, viewer), ErrTooManyActs)
	w.now += ActsTime
	w.machine.Tick(w.now)
	late := newApp(t, "late")
	w.ordered(first, late, viewer)
	wantError(t, w.machine.AcceptFor(first.owner(), 123456, viewer), ErrBusy)
	w.now += ShownTime
	w.machine.Tick(w.now)
	_, err := w.machine.AnswerFor(first.owner(), late.rightAnswer(t, viewer))
	wantError(t, err, ErrNoCeremony)
	// Nobody orders anything on a Base that has no owner, and nobody at all is no owner.
	wantError(t, newWorld(t, 0).machine.AcceptFor(first.owner(), 123456, owner), ErrPermission)
	wantError(t, w.machine.AcceptFor(OwnerKey{}, 123456, owner), ErrPermission)
	wantError(t, w.machine.AcceptFor(first.owner(), 1_000_000, owner), ErrMalformed)
	wantError(t, w.machine.AcceptFor(first.owner(), 1, 4), ErrRoleInvalid)
	wantError(t, w.machine.AcceptFor(first.owner(), 1, noRole), ErrRoleRequired)
}

// answerAttacks are answers that somebody brings in the place of the right one. Each is
// beaten by one check.
var answerAttacks = []struct {
	name, stoppedBy string
	ends            bool
	forge           func(a *testApp, by *OwnerKey, answer *systemv1.PairingAnswer)
}{
	{"by another owner", "same owner", false, func(_ *testApp, by *OwnerKey, _ *systemv1.PairingAnswer) { by[0] ^= 1 }},
	{"of another ceremony", "this ceremony", false, func(_ *testApp, _ *OwnerKey, answer *systemv1.PairingAnswer) {
		answer.CeremonyId = make([]byte, 16)
	}},
	{"with other words", "words", true, func(_ *testApp, _ *OwnerKey, answer *systemv1.PairingAnswer) { answer.Words[11] ^= 1 }},
	{"with the first words only", "words", true,
		func(_ *testApp, _ *OwnerKey, answer *systemv1.PairingAnswer) { answer.Words = answer.Words[:11] }},
	{"for another role", "role", true, func(_ *testApp, _ *OwnerKey, answer *systemv1.PairingAnswer) { answer.Role = owner }},
	{"with another key swapped in", "key", true,
		func(_ *testApp, _ *OwnerKey, answer *systemv1.PairingAnswer) { answer.SigningKey = make([]byte, 32) }},
	{"for an App that is enrolled under another name", "name", true,
		func(_ *testApp, _ *OwnerKey, answer *systemv1.PairingAnswer) { answer.AppName = "tablet" }},
}

func TestForgedAnswersAreRefused(t *testing.T) {
	tried := map[string]bool{}
	attack := func(t *testing.T, forge func(*testApp, *OwnerKey, *systemv1.PairingAnswer), without string) (w *world, matched bool,
		err error) {
		w, first := settled(t)
		a := newApp(t, "phone")
		w.ordered(first, a, viewer)
		w.machine.answerChecks = slices.DeleteFunc(slices.Clone(answerChecks), func(c answerCheck) bool { return c.name == without })
		by, answer := first.owner(), a.rightAnswer(t, viewer)
		forge(a, &by, answer)
		matched, err = w.machine.AnswerFor(by, answer)
		return w, matched, err
	}
	for _, forged := range answerAttacks {
		t.Run(forged.name, func(t *testing.T) {
			w, matched, err := attack(t, forged.forge, "")
			if matched || (err == nil) != forged.ends {
				t.Errorf("matched %v, %v", matched, err)
			}
			if on := w.see(w.console).GetCeremony() != nil; on == forged.ends {
				t.Errorf("the ceremony goes on: %v", on)
			}
			if _, matched, err := attack(t, forged.forge, forged.stoppedBy); !matched || err != nil {
				t.Errorf("without the check %q something else stops it: %v, %v", forged.stoppedBy, matched, err)
			}
		})
		tried[forged.stoppedBy] = true
	}
	for _, check := range answerChecks {
		if !tried[check.name] {
			t.Errorf("no attack shows what the check %q is for", check.name)
		}
	}
}

func TestAnAnswerComesOnceAndOnlyToWhatIsShown(t *testing.T) {
	w, first := settled(t)
	a := newApp(t, "phone")
	if err := w.machine.AcceptFor(first.owner(), a.number(), viewer); err != nil {
		t.Fatal(err)
	}
	id := w.see(w.middleware).GetCeremony().GetId() // the Middleware carries the answer, so it is told
	_, err := w.machine.AnswerFor(first.owner(), &systemv1.PairingAnswer{CeremonyId: id, Words: make([]byte, 12), Role: viewer})
	wantError(t, err, ErrNoCeremony)
	if matched, err := w.machine.AnswerFor(first.owner(), &systemv1.PairingAnswer{CeremonyId: id}); matched || err != nil {
		t.Errorf("a no before the words: %v, %v", matched, err)
	}
	if s := w.see(w.console); s.GetCeremony() != nil || s.GetLast().GetOutcome() != systemv1.LastCeremony_OUTCOME_REJECTED_AT_BASE {
		t.Errorf("after a no: %v", s)
	}

	// Of an act at the console nobody's App answers, and the Middleware is not told the id.
	if err := w.console.OpenWindow(t.Context()); err != nil {
		t.Fatal(err)
	}
	b := newApp(t, "tablet")
	w.accept(b, viewer)
	if id := w.see(w.middleware).GetCeremony().GetId(); id != nil {
		t.Error("the Middleware is told the id of an act at the console")
	}
	w.hear(b)
	w.reveal(b)
	_, err = w.machine.AnswerFor(first.owner(), b.rightAnswer(t, viewer))
	wantError(t, err, ErrNoCeremony)
	_, err = w.machine.AnswerFor(OwnerKey{}, b.rightAnswer(t, viewer))
	wantError(t, err, ErrNoCeremony)
}

// Neither the words nor the code are anywhere in what the Middleware is told, and the
// words are not even in what the console is.
func TestWordsAreToldToNobody(t *testing.T) {
	w, first := settled(t)
	a := newApp(t, "phone")
	w.ordered(first, a, viewer)
	words := a.words(t)
	for name, client := range map[string]Client{"middleware": w.middleware, "console": w.console} {
		s := w.see(client)
		b, err := proto.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		if text := prototext.Format(s); containsAny(string(b)+text, string(words[:]), words.String(), string(words[:4])) {
			t.Errorf("the %s is told the words: %s", name, text)
		}
	}
	if s := w.see(w.middleware); s.GetCeremony().GetCode() != "" || s.GetCeremony().GetNumber() != 0 {
		t.Errorf("the Middleware is told %v", s)
	}
}

func firstWord(words noiseconn.Words) [2]byte { return [2]byte(words[:2]) }

func containsAny(text string, parts ...string) bool {
	return slices.ContainsFunc(parts, func(part string) bool {
		for i := 0; i+len(part) <= len(text); i++ {
			if text[i:i+len(part)] == part {
				return true
			}
		}
		return false
	})
}

// A man in the middle finishes with the Base, knows its words, and has the new App
// reveal. Even against an owner who compared the first word alone he would need luck:
// the commitment leaves him nothing to grind. Without it the same attacker always wins
// that word, and with patience all six.
func TestCommitmentKeepsAManInTheMiddleFromGrindingTheWords(t *testing.T) {
	const most = 1 << 20 // a word has 16 bits
	attack := func(opens func([32]byte, *noiseconn.P4) bool) (won bool) {
		w, first := settled(t)
		v := newVictim(t, opens)
		mine := newApp(t, "phone") // the attacker's leg with the Base
		w.ordered(first, mine, viewer)
		target := mine.words(t)

		p4 := &noiseconn.P4{RB: random32(), StateKey: mine.p4.StateKey, Role: byte(viewer), Name: "Base"}
		revealed, h := appLeg(t, v, noiseconn.Commit(p4.RB, p4.StateKey, p4.Role))
		for n := uint64(0); n < most && firstWord(wordsOf(t, revealed, p4, h)) != firstWord(target); n++ {
			binary.BigEndian.PutUint64(p4.RB[:], n)
		}
		return v.opens(v.c, p4) && firstWord(wordsOf(t, revealed, p4, h)) == firstWord(target)
	}
	if attack(opensAll) {
		t.Error("the man in the middle has his words shown")
	}
	if !attack(opensNothing) {
		t.Error("the attack fails without a commitment too, so it shows nothing")
	}
}

// The owner reads at the new App the words of the leg that the new App is on.
// If somebody is in between, the Base is on another one.
func TestAManInTheMiddleIsSeenInTheWords(t *testing.T) {
	attack := func(without string) (matched bool) {
		w, first := settled(t)
		mine := newApp(t, "phone")
		w.ordered(first, mine, viewer)
		v := newVictim(t, opensAll)
		p4 := &noiseconn.P4{RB: random32(), StateKey: mine.p4.StateKey, Role: byte(viewer), Name: "Base"}
		revealed, h := appLeg(t, v, noiseconn.Commit(p4.RB, p4.StateKey, p4.Role))
		read := wordsOf(t, revealed, p4, h)
		answer := mine.rightAnswer(t, viewer)
		answer.Words = read[:]
		w.machine.answerChecks = slices.DeleteFunc(slices.Clone(answerChecks), func(c answerCheck) bool { return c.name == without })
		matched, err := w.machine.AnswerFor(first.owner(), answer)
		if err != nil {
			t.Fatal(err)
		}
		if !matched && w.see(w.console).GetLast().GetOutcome() != systemv1.LastCeremony_OUTCOME_REFUSED {
			t.Error("the ceremony goes on")
		}
		return matched
	}
	if attack("") {
		t.Error("the man in the middle was let in")
	}
	if !attack("words") {
		t.Error("the attack fails though nobody compares, so it shows nothing")
	}
}

func TestAWindowForARole(t *testing.T) {
	w, first := settled(t)
	operator := basev1.Role_ROLE_OPERATOR
	if err := w.machine.OpenWindowFor(first.owner(), operator); err != nil {
		t.Fatal(err)
	}
	for name, client := range map[string]Client{"middleware": w.middleware, "console": w.console} {
		if s := w.see(client); !s.GetWindowOpen() || s.GetWindowRole() != operator {
			t.Errorf("the %s is told %v", name, s)
		}
	}
	// A Middleware that was taken over can prolong it, not widen it.
	if err := w.middleware.OpenWindow(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantError(t, w.console.Accept(t.Context(), 123456, owner), ErrRoleInvalid)
	a := newApp(t, "phone")
	w.hear(a)
	w.accept(a, noRole)
	if got := w.see(w.console).GetCeremony().GetRole(); got != operator {
		t.Errorf("the role is %v", got)
	}
	// A person there may give a lower role, and answers as usual.
	w.accept(a, viewer)
	w.hear(a)
	w.reveal(a)
	_, err := w.machine.AnswerFor(first.owner(), a.rightAnswer(t, viewer))
	wantError(t, err, ErrNoCeremony)
	w.answer(a, true)
	if err := w.enrol(a); err != nil {
		t.Fatal(err)
	}
	if got := w.machine.OrderedBy([32]byte(a.public())); got != first.owner() {
		t.Errorf("it was ordered by %x", got)
	}
	// It was for one App.
	if s := w.see(w.console); s.GetWindowOpen() || s.GetWindowRole() != noRole {
		t.Errorf("afterwards: %v", s)
	}

	// It ends with its time, and the console opens one for whomever.
	if err := w.machine.OpenWindowFor(first.owner(), viewer); err != nil {
		t.Fatal(err)
	}
	w.now += WindowTime + PendingTime + time.Second
	if err := w.middleware.OpenWindow(t.Context()); err != nil {
		t.Fatal(err)
	}
	if s := w.see(w.console); s.GetWindowRole() != noRole {
		t.Errorf("a role of a window that has ended: %v", s)
	}
	if err := w.machine.OpenWindowFor(first.owner(), viewer); err != nil {
		t.Fatal(err)
	}
	if err := w.console.OpenWindow(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantError(t, w.console.Accept(t.Context(), 123456, noRole), ErrRoleRequired)
	wantError(t, w.machine.OpenWindowFor(first.owner(), 4), ErrRoleInvalid)
}

func TestRolesFollowWhatOwnersHaveSignedAndNoCaller(t *testing.T) {
	w, first := settled(t)
	second := newApp(t, "second")
	if err := w.console.OpenWindow(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.pair(second, viewer)
	key := [32]byte(second.public())
	save, undo := w.machine.SetRoles(map[[32]byte]basev1.Role{key: owner, [32]byte(first.public()): owner, {1}: owner})
	if list, err := ParseRegistry(save); err != nil || len(list) != 2 || list[1].Role != owner {
		t.Fatalf("%+v, %v", list, err)
	}
	// A Middleware cannot remove the key of a present owner.
	wantError(t, w.middleware.Retire(t.Context(), second.public()), ErrPermission)
	undo()
	if save, _ := w.machine.SetRoles(map[[32]byte]basev1.Role{key: viewer}); save != nil {
		t.Error("a change that could not be saved was not undone")
	}
	if save, _ := w.machine.SetRoles(map[[32]byte]basev1.Role{key: 4}); save != nil {
		t.Error("a role that there is not was set")
	}
	if err := w.middleware.Retire(t.Context(), second.public()); err != nil {
		t.Error(err)
	}
}
