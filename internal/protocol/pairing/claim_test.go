package pairing

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"slices"
	"testing"
	"time"

	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/noiseconn"
)

// claimedWorld is a Base whose provisioning file names an App. without takes a check out.
func claimedWorld(t testing.TB, without string) (*world, *testApp) {
	t.Helper()
	w, a := newWorld(t, 0), newApp(t, "phone")
	s, err := noiseconn.GenerateClaimSecret(nil)
	if err != nil {
		t.Fatal(err)
	}
	w.config.Claim = &Claim{App: a.static, SigningKey: [32]byte(a.public()), Secret: s}
	w.restart()
	w.machine.claimChecks = slices.DeleteFunc(slices.Clone(claimChecks), func(c claimCheck) bool { return c.name == without })
	return w, a
}

func (w *world) mark(signer ed25519.PrivateKey, p1 []byte) []byte {
	w.t.Helper()
	mark, err := noiseconn.ClaimMark(w.config.Claim.Secret, signer, p1)
	if err != nil {
		w.t.Fatal(err)
	}
	return mark
}

// claim sends one claim of a, with another P1 each time.
func (w *world) claim(a *testApp) (granted bool) {
	w.t.Helper()
	_, _ = rand.Read(a.p1)
	return w.sendClaim(a, w.mark(a.key, a.p1))
}

func (w *world) sendClaim(a *testApp, mark []byte) (granted bool) {
	w.t.Helper()
	granted, id, commitment, err := w.middleware.Claim(w.t.Context(), mark, a.p1)
	if err != nil {
		w.t.Fatal(err)
	}
	if granted {
		a.id, a.commitment = id, commitment
	}
	return granted
}

// revealClaim returns the proof behind P4.
func (w *world) revealClaim(a *testApp) ([]byte, error) {
	p4, _, err := w.middleware.Reveal(w.t.Context(), a.id, a.h, a.payload, a.static)
	if err != nil {
		return nil, err
	}
	a.p4, err = noiseconn.ParseP4(p4[:noiseconn.P4Size])
	return p4[noiseconn.P4Size:], err
}

func TestTheAppOfTheClaimBecomesOwnerWithoutAnybodyAtTheBase(t *testing.T) {
	w, a := claimedWorld(t, "")
	if !w.see(w.console).GetClaimOpen() {
		t.Error("the console does not see that the Base waits for its App")
	}
	if !w.claim(a) {
		t.Fatal("the claim was not granted")
	}
	proof, err := w.revealClaim(a)
	if err != nil {
		t.Fatal(err)
	}
	want, err := noiseconn.ClaimProof(w.config.Claim.Secret, a.ra, a.p4.RB, a.h, a.public(), a.p4.StateKey, a.p4.Role)
	if err != nil || !bytes.Equal(proof, want) || a.p4.Role != byte(owner) ||
		a.commitment != noiseconn.Commit(a.p4.RB, a.p4.StateKey, a.p4.Role) {
		t.Fatalf("P4 is %+v with the proof %x, %v", a.p4, proof, err)
	}
	if c := w.see(w.console).GetCeremony(); c != nil {
		t.Errorf("the console is asked about %v", c)
	}
	if err := w.enrol(a); err != nil {
		t.Fatal(err)
	}
	if err := w.middleware.Activate(t.Context(), a.public()); err != nil {
		t.Fatal(err)
	}
	s := w.see(w.console)
	if !s.GetPaired() || s.GetClaimOpen() || s.GetActsLeft() != MaxActs || w.saves != 1 {
		t.Errorf("afterwards the console shows %v, %d saves", s, w.saves)
	}
}

// claimAttack returns whether an attacker has got what the claim must not give.
type claimAttack struct {
	without string // the check that stops it
	try     func(t *testing.T, w *world, a *testApp) (succeeded bool)
}

var claimAttacks = map[string]claimAttack{
	"a thief of the file asks with a key of his own": {"mark", func(_ *testing.T, w *world, _ *testApp) bool {
		thief := newApp(w.t, "thief")
		return w.sendClaim(thief, w.mark(thief.key, thief.p1))
	}},
	"a recorder sends the App's claim again": {"answered once", func(t *testing.T, w *world, a *testApp) bool {
		if !w.claim(a) {
			t.Fatal("the App's own was not granted")
		}
		return w.sendClaim(a, w.mark(a.key, a.p1))
	}},
	"a Middleware that was taken over ends a person's pairing by a claim that it kept back": {"no other ceremony",
		func(t *testing.T, w *world, a *testApp) bool {
			person := newApp(t, "person")
			w.show(person, noRole)
			_ = w.claim(a)
			return w.see(w.console).GetCeremony().GetCode() != person.code(t, 0)
		}},
	"a Middleware that was taken over reveals its own signing key": {"signing key", func(t *testing.T, w *world, a *testApp) bool {
		if !w.claim(a) {
			t.Fatal("not granted")
		}
		mine := newApp(t, "mine")
		mine.id, mine.static = a.id, a.static
		if _, err := w.revealClaim(mine); err != nil {
			return false
		}
		return w.enrol(mine) == nil
	}},
	"a Middleware that was taken over puts another App's static key beside the signing key": {"static key",
		func(t *testing.T, w *world, a *testApp) bool {
			if !w.claim(a) {
				t.Fatal("not granted")
			}
			a.static = newApp(t, "mine").static
			_, err := w.revealClaim(a)
			return err == nil
		}},
	"the claim is used although somebody at the display was first": {"no other owner", func(t *testing.T, w *world, a *testApp) bool {
		person := newApp(t, "person")
		w.show(person, noRole)
		w.answer(person, true)
		if err := w.enrol(person); err != nil {
			t.Fatal(err)
		}
		return w.claim(a)
	}},
}

func TestNobodyButItsAppUsesAClaim(t *testing.T) {
	for name, attack := range claimAttacks {
		t.Run(name, func(t *testing.T) {
			if w, a := claimedWorld(t, ""); attack.try(t, w, a) {
				t.Error("it succeeded")
			}
			if w, a := claimedWorld(t, attack.without); !attack.try(t, w, a) {
				t.Errorf("without the check %q it fails as well, so it proves nothing", attack.without)
			}
		})
	}
}

// The attack: a thief with the file, the App's earlier claims and the App's keys comes once the
// claim is over. The broken variant of each way forgets that it is.
func TestAClaimIsOverOnceItWasUsedOrAnOwnerWasPairedOrItsTimeHasCome(t *testing.T) {
	pairAtDisplay := func(w *world, _ *testApp) { w.pair(newApp(w.t, "person"), noRole) }
	use := func(w *world, a *testApp) {
		if !w.claim(a) {
			w.t.Fatal("not granted")
		}
		if _, err := w.revealClaim(a); err != nil {
			w.t.Fatal(err)
		}
		if err := w.enrol(a); err != nil {
			w.t.Fatal(err)
		}
		if err := w.middleware.Activate(w.t.Context(), a.public()); err != nil {
			w.t.Fatal(err)
		}
	}
	retire := func(w *world) {
		for _, e := range w.machine.registry {
			if err := w.console.Retire(w.t.Context(), e.signingKey[:]); err != nil {
				w.t.Fatal(err)
			}
		}
	}
	for name, over := range map[string]func(w *world, a *testApp){
		"used":                                  use,
		"used, then all owners were taken away": func(w *world, a *testApp) { use(w, a); retire(w) },
		"an owner was paired":                   pairAtDisplay,
		"an owner was paired and taken away":    func(w *world, a *testApp) { pairAtDisplay(w, a); retire(w) },
		"used, then a restart":                  func(w *world, a *testApp) { use(w, a); w.restart() },
		"expired": func(w *world, _ *testApp) {
			w.config.Claim.Until = time.Unix(1000, 0)
			w.config.WallClock = func() time.Time { return time.Unix(1000, 0) }
			w.restart()
		},
	} {
		t.Run(name, func(t *testing.T) {
			w, a := claimedWorld(t, "")
			over(w, a)
			w.now += time.Hour
			if w.claim(a) || w.see(w.console).GetClaimOpen() {
				t.Error("the claim is still answered")
			}
			w.machine.claim = newClaim(*w.config.Claim, nil)
			w.machine.registry = nil
			w.machine.published = w.machine.view()
			if !w.claim(a) {
				t.Error("a Base that has forgotten that its claim is over is silent as well, so it proves nothing")
			}
		})
	}
}

func TestAnAppThatLostItsConnectionClaimsAgain(t *testing.T) {
	for name, lost := range map[string]func(w *world, a *testApp){
		"before P3": func(*world, *testApp) {},
		"after P4": func(w *world, a *testApp) {
			if _, err := w.revealClaim(a); err != nil {
				w.t.Fatal(err)
			}
		},
		"after its key was enrolled": func(w *world, a *testApp) {
			if _, err := w.revealClaim(a); err != nil {
				w.t.Fatal(err)
			}
			if err := w.enrol(a); err != nil {
				w.t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			w, a := claimedWorld(t, "")
			if !w.claim(a) {
				t.Fatal("not granted")
			}
			lost(w, a)
			if !w.claim(a) {
				t.Fatal("the second was not granted")
			}
			if _, err := w.revealClaim(a); err != nil {
				t.Fatal(err)
			}
			if err := w.enrol(a); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func TestAClaimThatCannotBeStoredStaysOpen(t *testing.T) {
	w, a := claimedWorld(t, "")
	if !w.claim(a) {
		t.Fatal("not granted")
	}
	if _, err := w.revealClaim(a); err != nil {
		t.Fatal(err)
	}
	if err := w.enrol(a); err != nil {
		t.Fatal(err)
	}
	w.full = true
	wantError(t, w.middleware.Activate(t.Context(), a.public()), ErrStorage)
	if !w.see(w.console).GetClaimOpen() {
		t.Error("the claim is over, and nobody is owner")
	}
	w.full = false
	if err := w.middleware.Activate(t.Context(), a.public()); err != nil {
		t.Fatal(err)
	}
}

func TestAMalformedClaimIsRefused(t *testing.T) {
	w, a := claimedWorld(t, "")
	_, _, _, err := w.middleware.Claim(t.Context(), w.mark(a.key, a.p1)[1:], a.p1)
	wantError(t, err, ErrMalformed)
	_, _, _, err = w.middleware.Claim(t.Context(), w.mark(a.key, a.p1), a.p1[1:])
	wantError(t, err, ErrMalformed)
	_, _, _, err = w.console.Claim(t.Context(), w.mark(a.key, a.p1), a.p1)
	wantError(t, err, ErrPermission)
}
