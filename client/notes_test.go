//go:build linux

package client

import (
	"errors"
	"os"
	"testing"
	"time"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
)

// failing makes the App unable to write one thing to its disk: meanwhile others may read its
// database, so it is not opened. It returns how often that was tried, and what Options.Unstored heard.
func failing(t *testing.T, a *App, what string) (tried *int, heard *[]error) {
	t.Helper()
	tried, heard = new(int), new([]error)
	mode := func(mode os.FileMode) {
		if err := os.Chmod(a.store.path, mode); err != nil {
			t.Error(err)
		}
	}
	a.store.failpoint = func(point string) {
		switch point {
		case "before: " + what:
			*tried++
			mode(0o604)
		case "after: " + what:
			mode(0o600)
		}
	}
	a.notes.tell = func(err error) { *heard = append(*heard, err) }
	return tried, heard
}

// wantUnstored checks that what could not be stored was tried, and made known once.
func wantUnstored(t *testing.T, tried *int, heard *[]error) {
	t.Helper()
	failures := 0
	for _, err := range *heard {
		if errors.Is(err, ErrStorage) {
			failures++
		}
	}
	if *tried == 0 || failures != 1 {
		t.Errorf("tried %d times, heard %v", *tried, *heard)
	}
}

func TestARoleThatCannotBeStoredHidesNoAnswer(t *testing.T) {
	a, b := testApp(t), newFakeBase(t)
	paired := mustPair(t, a, b)
	now := time.Now()
	a.now = func() time.Time { return now }
	session := open(t, a)
	if err := getInfo(t, session); err != nil {
		t.Fatal(Explain(err))
	}
	a.saving.Wait() // nothing else is stored from now on
	b.reports.Store(int32(basev1.Role_ROLE_VIEWER))
	tried, heard := failing(t, a, "store the role of this App")
	for range 2 {
		if err := getInfo(t, session); err != nil {
			t.Fatal(Explain(err))
		}
	}
	wantUnstored(t, tried, heard)
	if kept := bases(t, a)[0]; kept.Role != paired.Role || !kept.RoleAt.Equal(paired.RoleAt) {
		t.Errorf("%v as of %v is remembered, not the older %v as of %v", kept.Role, kept.RoleAt, paired.Role, paired.RoleAt)
	}
	a.store.failpoint = nil
	if err := getInfo(t, session); err != nil || len(*heard) != 2 || (*heard)[1] != nil {
		t.Errorf("with room again: %v, heard %v", err, *heard)
	}
	if kept := bases(t, a)[0]; kept.Role != basev1.Role_ROLE_VIEWER {
		t.Errorf("with room again %v is remembered", kept.Role)
	}
}

// Each answer of a hostile Base has another role.
func TestARoleThatAlternatesCostsFewWrites(t *testing.T) {
	a, b := testApp(t), newFakeBase(t)
	mustPair(t, a, b)
	now := time.Now()
	a.now = func() time.Time { return now }
	writes := 0
	a.store.failpoint = func(point string) {
		if point == "before: store the role of this App" {
			writes++
		}
	}
	session := open(t, a)
	const answers = 50
	for n := range answers {
		b.reports.Store(int32(basev1.Role_ROLE_VIEWER) + int32(n%2))
		if err := getInfo(t, session); err != nil {
			t.Fatal(Explain(err))
		}
	}
	if writes != roleBurst {
		t.Errorf("%d answers at one time cost %d writes, not %d", answers, writes, roleBurst)
	}
	now = now.Add(2 * roleEvery) // the other role than the stored one is there in one of two answers
	for n := range answers {
		b.reports.Store(int32(basev1.Role_ROLE_VIEWER) + int32(n%2))
		if err := getInfo(t, session); err != nil {
			t.Fatal(Explain(err))
		}
	}
	if writes != roleBurst+2 {
		t.Errorf("after %v there were %d writes, not %d", 2*roleEvery, writes, roleBurst+2)
	}
}

func TestAPairingThatCannotBeStoredAsActiveHidesNoAnswer(t *testing.T) {
	a, b := testApp(t), newFakeBase(t)
	tried, heard := failing(t, a, "store that the pairing is active")
	base, err := a.Pair(t.Context(), []string{b.address()}, PairOptions{Confirm: sayYes})
	if err != nil || base.State != Pending {
		t.Fatalf("the pairing is %s, %v", base.State, err)
	}
	wantUnstored(t, tried, heard)
	if err := getInfo(t, open(t, a)); err != nil {
		t.Error(Explain(err))
	}
	a.store.failpoint = nil
	if err := getInfo(t, open(t, a)); err != nil || bases(t, a)[0].State != Active {
		t.Errorf("with room again the pairing is %s, %v", bases(t, a)[0].State, err)
	}
}

func TestARevocationIsToldEvenIfItCannotBeStored(t *testing.T) {
	a, b := testApp(t), newFakeBase(t)
	mustPair(t, a, b)
	b.revokeAll()
	tried, heard := failing(t, a, "store that the App was revoked")
	wantKind(t, getInfo(t, open(t, a)), ErrRevoked)
	wantUnstored(t, tried, heard)
}

func TestAPairingThatIsVoidIsToldEvenIfItCannotBeDeleted(t *testing.T) {
	a, b := testApp(t), newFakeBase(t)
	base := mustPair(t, a, b)
	if err := a.store.change(base.AppID, "mend the test", func(r *stored) { r.State = Pending }); err != nil {
		t.Fatal(err)
	}
	a.now = func() time.Time { return time.Now().Add(a.timing.pendingLife) }
	a.timing.handshake, a.timing.lateness = 200*time.Millisecond, time.Hour // in vain
	b.mu.Lock()
	b.deaf = true
	b.mu.Unlock()
	tried, heard := failing(t, a, "delete the pairing")
	wantKind(t, getInfo(t, open(t, a)), ErrPairAgain)
	wantUnstored(t, tried, heard)
}

func TestABaseThatAnswersIsReachedEvenIfThatCannotBeStored(t *testing.T) {
	a, b := testApp(t), newFakeBase(t)
	base := mustPair(t, a, b)
	if err := a.store.silent(base.AppID, b.address(), a.now()); err != nil {
		t.Fatal(err)
	}
	tried, heard := failing(t, a, "store that the Base has answered")
	if err := getInfo(t, open(t, a)); err != nil {
		t.Error(Explain(err))
	}
	wantUnstored(t, tried, heard)
}

func TestAChangeOfANameSucceedsEvenIfTheAppCannotStoreIt(t *testing.T) {
	h := newHouse(t)
	tried, heard := failing(t, h.owner, "store the new name of the Base")
	view, err := h.session.Apply(t.Context(), Change{Approve: approve, Edit: func(p *Posture, _ *PostureView, _ uint64) error {
		p.NodeName = "Cellar"
		return nil
	}})
	if err != nil || view.Effective().NodeName != "Cellar" {
		t.Fatal(Explain(err))
	}
	wantUnstored(t, tried, heard)
}

func TestAFactoryResetSucceedsEvenIfTheAppCannotStoreIt(t *testing.T) {
	h := newHouse(t)
	tried, heard := failing(t, h.owner, "store that the Base was reset")
	if err := h.session.FactoryReset(t.Context(), func(name string) (ResetAnswer, error) {
		return ResetAnswer{Typed: name}, nil
	}); err != nil {
		t.Fatal(Explain(err))
	}
	wantUnstored(t, tried, heard)
}

// What guards against a Base that shows an older state must be stored; what was seen already is.
func TestAPostureThatWasSeenNeedsNoDisk(t *testing.T) {
	h := newHouse(t)
	h.look()
	tried, _ := failing(t, h.owner, "store which posture of the Base was seen")
	if _, err := h.session.Posture(t.Context()); err != nil || *tried != 0 {
		t.Errorf("the posture that was seen: %v, after %d writes", err, *tried)
	}
	_, err := h.session.Lockdown(t.Context())
	wantKind(t, err, ErrStorage)
}
