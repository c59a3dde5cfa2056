package middleware

import (
	"errors"
	"fmt"
	"testing"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/middleware/admission"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/noiseconn"
	"github.com/BitBoxSwiss/bitbox-base/internal/state"
	"time"
)

const (
	viewer   = basev1.Role_ROLE_VIEWER
	operator = basev1.Role_ROLE_OPERATOR
	owner    = basev1.Role_ROLE_OWNER
)

func TestTheIdentityIsMadeOnceAndSaidInTheLog(t *testing.T) {
	h := newHouse(t, nil)
	public, name, discovery := h.PublicKey(), h.Name(), h.DiscoveryKey()
	if !h.logs("made a new identity") || !h.logs(public.String()) {
		t.Error("the log does not tell that an identity was made")
	}
	h.log.Reset()
	h.restart()
	if h.PublicKey() != public || h.Name() != name || !h.DiscoveryKey().Equal(discovery) {
		t.Error("a restart changes the identity")
	}
	if h.logs("made a new identity") {
		t.Error("a second identity was made")
	}
}

func TestAnIncompleteIdentityIsDamageAndNeverReplaced(t *testing.T) {
	for _, lost := range []string{keyStatic, keyDiscovery, keyName} {
		h := newHouse(t, nil)
		if err := h.db.Update(func(tx *state.Tx) error { return tx.Delete(bucketIdentity, lost) }); err != nil {
			t.Fatal(err)
		}
		if _, err := OpenRegistry(h.config); !errors.Is(err, state.ErrDamaged) {
			t.Errorf("without %s: %v; want ErrDamaged", lost, err)
		}
	}
	h := newHouse(t, nil)
	h.active("phone", owner)
	err := h.db.Update(func(tx *state.Tx) error {
		return errors.Join(tx.Delete(bucketIdentity, keyStatic), tx.Delete(bucketIdentity, keyDiscovery), tx.Delete(bucketIdentity, keyName))
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := OpenRegistry(h.config); !errors.Is(err, state.ErrDamaged) {
		t.Errorf("pairings without an identity: %v; want ErrDamaged", err)
	}
}

func TestADamagedPairingIsRefused(t *testing.T) {
	h := newHouse(t, nil)
	h.active("phone", owner)
	var key string
	var good []byte
	if err := h.db.View(func(tx *state.Tx) error {
		return tx.ForEach(bucketPairings, func(k string, v []byte) error {
			key, good = k, v
			return nil
		})
	}); err != nil {
		t.Fatal(err)
	}
	if _, err := parsePairing([]byte(key), good, nil); err != nil {
		t.Fatalf("the good one: %v", err)
	}
	for _, bad := range []struct{ key, value, progress string }{
		{key, "", ""},
		{key, "{}", ""},
		{key[1:], string(good), ""},
		{key, `{"signing_key":"AA==","pair_key":"AA==","name":"x","role":3,"standing":"active"}`, ""},
		{key, string(good[:len(good)-1]), ""},
		{key, string(good), "short"},
	} {
		var progress []byte
		if bad.progress != "" {
			progress = []byte(bad.progress)
		}
		if _, err := parsePairing([]byte(bad.key), []byte(bad.value), progress); err == nil {
			t.Errorf("accepted: %q", bad)
		}
	}
}

func TestAPendingAppHasNoRightsUntilItConnects(t *testing.T) {
	h := newHouse(t, nil)
	a := h.pend("phone", owner)
	first := h.active("first", owner)
	session := must(h.Begin(t.Context(), first.peer, from, func() {})).(*Session)
	if apps := h.Apps(session); len(apps) != 1 {
		t.Errorf("a pending App is listed: %v", apps)
	}
	if _, err := h.Rename(a.id(), "x", session); !errors.Is(err, ErrUnknownApp) {
		t.Errorf("a pending App can be renamed: %v", err)
	}
	if _, err := h.Begin(t.Context(), a.peer, from, func() {}); err != nil {
		t.Fatal(err)
	}
	if apps := h.Apps(session); len(apps) != 2 {
		t.Errorf("an active App is not listed: %v", apps)
	}
	if !h.authority.active[string(a.signing)] {
		t.Error("the authority does not know that the App is active")
	}
}

func TestAPendingAppLapsesWithTimeAndWithARestart(t *testing.T) {
	h := newHouse(t, func(c *RegistryConfig) { c.PendingTime = time.Millisecond })
	a := h.pend("late", owner)
	eventually(t, "it lapses", func() bool { return h.logs("whose App did not connect in time") })
	if _, _, _, err := a.handshake(); reasonOf(err) != admission.Lapsed {
		t.Errorf("a lapsed App's frame: %v; want a refusal that does not count for a ban", err)
	}
	if _, err := h.Begin(t.Context(), a.peer, from, func() {}); reasonOf(err) != admission.Lapsed {
		t.Errorf("a lapsed App begins a session: %v", err)
	}

	h.config.PendingTime = time.Hour
	h.restart()
	b := h.pend("unlucky", owner)
	h.restart()
	if _, _, _, err := b.handshake(); reasonOf(err) != admission.Lapsed {
		t.Errorf("after a restart: %v", err)
	}
	if h.active("next", owner); len(h.pairings) != 1 {
		t.Errorf("%d pairings are stored", len(h.pairings))
	}
}

func TestAConnectFrameOfBeforeTheRestartIsNotTakenAgain(t *testing.T) {
	h := newHouse(t, nil)
	a := h.active("phone", owner)
	recorded := a.seq.Load() + 1
	if _, _, _, err := a.handshake(); err != nil { // takes it; no first record follows
		t.Fatal(err)
	}
	h.restart()
	if _, err := h.Arrive(a.peer, recorded); reasonOf(err) != admission.Replayed {
		t.Errorf("after a restart: %v; want silence", err)
	}
	if _, err := h.Arrive(a.peer, recorded+1); err != nil {
		t.Errorf("the next one: %v", err)
	}
	// What a Base would do that keeps it in memory only.
	if err := h.db.Update(func(tx *state.Tx) error { return tx.Delete(bucketProgress, string(a.peer[:])) }); err != nil {
		t.Fatal(err)
	}
	h.restart()
	if _, err := h.Arrive(a.peer, recorded); err != nil {
		t.Errorf("without what was stored it should be taken; this attack proves nothing (%v)", err)
	}
}

func TestAFullDiskDoesNotKeepTheOwnerOut(t *testing.T) {
	h := newHouse(t, nil)
	a := h.active("phone", owner)
	if err := h.db.Close(); err != nil { // every write fails from now on
		t.Fatal(err)
	}
	if _, _, _, err := a.handshake(); err != nil {
		t.Errorf("handshake: %v", err)
	}
	session, err := h.Begin(t.Context(), a.peer, from, func() {})
	if err != nil {
		t.Fatalf("session: %v", err)
	}
	if _, err := h.Rename(a.id(), "other", session.(*Session)); err == nil {
		t.Error("a change that is not stored is called done")
	}
	if got := h.Apps(session.(*Session))[0].GetName(); got != "phone" {
		t.Errorf("the App is called %q after a change that failed", got)
	}
	if !h.logs("store the number of a connection") {
		t.Error("the log does not tell")
	}
}

func TestARevokedAppIsToldSoAndStaysOut(t *testing.T) {
	h := newHouse(t, nil)
	boss, a := h.active("boss", owner), h.active("phone", viewer)
	session := must(h.Begin(t.Context(), boss.peer, from, func() {})).(*Session)
	if err := h.Revoke(t.Context(), a.id(), session); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if status, _, _, err := a.handshake(); status != noiseconn.StatusRevoked || err != nil {
			t.Errorf("its handshake ends with %v, %v", status, err)
		}
		if _, err := h.Begin(t.Context(), a.peer, from, func() {}); reasonOf(err) != admission.Revoked {
			t.Errorf("it begins a session: %v", err)
		}
		if err := h.MayPair(a.peer); err == nil {
			t.Error("its static key can be paired again")
		}
		if err := h.Revoke(t.Context(), a.id(), session); !errors.Is(err, ErrUnknownApp) {
			t.Errorf("it is revoked a second time: %v", err)
		}
		h.restart()
	}
	if h.authority.active[string(a.signing)] {
		t.Error("the authority still holds its signing key")
	}
	if !h.authority.active[string(boss.signing)] {
		t.Error("the owner's signing key is gone")
	}
}

func TestTheLastOwnerCannotBeRevoked(t *testing.T) {
	h := newHouse(t, nil)
	boss := h.active("boss", owner)
	h.active("phone", operator)
	h.pend("heir", owner) // has no rights yet
	session := must(h.Begin(t.Context(), boss.peer, from, func() {})).(*Session)
	if err := h.Revoke(t.Context(), boss.id(), session); !errors.Is(err, ErrLastOwner) {
		t.Errorf("Revoke: %v", err)
	}
	second := h.active("second", owner)
	if err := h.Revoke(t.Context(), boss.id(), session); err != nil {
		t.Errorf("one of two owners: %v", err)
	}
	if !h.authority.active[string(boss.signing)] {
		t.Error("the Middleware took an owner's signing key away")
	}
	h.log.Reset()
	h.restart() // the tombstone explains the key that has no pairing
	if h.logs("no App is paired with") {
		t.Error("a revoked owner's key is reported as unknown")
	}
	session = must(h.Begin(t.Context(), second.peer, from, func() {})).(*Session)
	if err := h.Revoke(t.Context(), second.id(), session); !errors.Is(err, ErrLastOwner) {
		t.Errorf("a tombstone counts as an owner: %v", err)
	}
}

func TestPairingsAndTombstonesAreBounded(t *testing.T) {
	h := newHouse(t, nil)
	boss := h.active("boss", owner)
	session := must(h.Begin(t.Context(), boss.peer, from, func() {})).(*Session)
	var revoked []*app
	for i := range MaxTombstones + 1 {
		a := h.active(fmt.Sprintf("phone %d", i), viewer)
		if err := h.Revoke(t.Context(), a.id(), session); err != nil {
			t.Fatal(err)
		}
		revoked = append(revoked, a)
	}
	if _, _, _, err := revoked[0].handshake(); reasonOf(err) != admission.WrongMAC1 {
		t.Errorf("the oldest tombstone is still there: %v", err)
	}
	if status, _, _, err := revoked[1].handshake(); status != noiseconn.StatusRevoked {
		t.Errorf("the second oldest is forgotten: %v", err)
	}
	for i := range MaxPairings - 1 {
		h.pend(fmt.Sprintf("tablet %d", i), viewer)
	}
	a := newApp(h)
	if err := h.MayPair(a.peer); err == nil {
		t.Error("there is room for one more than allowed")
	}
	if _, _, err := h.Pend(admission.Pairing{Peer: a.peer, SigningKey: a.signing, Name: "x", Role: viewer}); err == nil {
		t.Error("one more than allowed is stored")
	}
	h.restart()
	if len(h.lapsed) != maxLapsed {
		t.Errorf("%d lapsed pairings are remembered, not %d", len(h.lapsed), maxLapsed)
	}
}

func TestWhatAuthorityAndMiddlewareDisagreeAboutHasNoRights(t *testing.T) {
	h := newHouse(t, nil)
	kept, lost := h.active("kept", owner), h.active("lost", owner)
	delete(h.authority.active, string(lost.signing))
	h.authority.active["a key that nobody is paired with …."] = true
	h.restart()
	if _, _, _, err := kept.handshake(); err != nil {
		t.Errorf("a pairing that both know: %v", err)
	}
	if _, _, _, err := lost.handshake(); reasonOf(err) != admission.Lapsed {
		t.Errorf("a pairing that the authority does not know: %v", err)
	}
	if !h.logs("no App is paired with") {
		t.Error("the log does not tell of a key without a pairing")
	}
	h.restart()
	if len(h.pairings) != 1 {
		t.Errorf("%d pairings are stored", len(h.pairings))
	}

	// The same in the moment of the first connection.
	unknown := h.pend("unknown", viewer)
	clear(h.authority.pending)
	if _, err := h.Begin(t.Context(), unknown.peer, from, func() {}); reasonOf(err) != admission.Lapsed {
		t.Errorf("a pending pairing that the authority does not know: %v", err)
	}
	// An authority that does not answer is no reason to drop anything.
	waiting := h.pend("waiting", viewer)
	h.authority.broken = errors.New("the helper restarts")
	if _, err := h.Begin(t.Context(), waiting.peer, from, func() {}); err == nil {
		t.Error("a session began without the authority's word")
	}
	h.authority.broken = nil
	if _, err := h.Begin(t.Context(), waiting.peer, from, func() {}); err != nil {
		t.Errorf("when the authority is back: %v", err)
	}
}

func TestTheOldestSessionOfAnAppMakesRoom(t *testing.T) {
	h := newHouse(t, nil)
	a := h.active("phone", owner)
	cut := make([]int, MaxSessions+2)
	var sessions []admission.Session
	for i := range cut {
		sessions = append(sessions, must(h.Begin(t.Context(), a.peer, from, func() { cut[i]++ })))
	}
	if cut[0] == 0 || cut[1] == 0 || cut[2] != 0 {
		t.Errorf("cut: %v; want the two oldest", cut)
	}
	for _, s := range sessions {
		s.End()
	}
	if live := len(h.pairings[a.peer].sessions); live != 0 {
		t.Errorf("%d sessions are left", live)
	}
}

func TestASessionEndsAtItsLatestTime(t *testing.T) {
	h := newHouse(t, func(c *RegistryConfig) { c.SessionTime = time.Millisecond })
	a := h.active("phone", owner)
	cut := make(chan struct{})
	must(h.Begin(t.Context(), a.peer, from, func() { close(cut) }))
	select {
	case <-cut:
	case <-time.After(testTime):
		t.Error("the session goes on")
	}
}

func TestNamesAndTimesSurviveARestart(t *testing.T) {
	h := newHouse(t, nil)
	a := h.active("phone", owner)
	session := must(h.Begin(t.Context(), a.peer, from, func() {})).(*Session)
	if _, err := h.Rename(a.id(), "kitchen phone", session); err != nil {
		t.Fatal(err)
	}
	before := h.Apps(session)[0]
	h.restart()
	session = must(h.Begin(t.Context(), a.peer, from, func() {})).(*Session)
	after := h.Apps(session)[0]
	if after.GetName() != "kitchen phone" || after.GetId() != before.GetId() || after.GetRole() != owner ||
		!after.GetPairedAt().AsTime().Equal(before.GetPairedAt().AsTime()) {
		t.Errorf("before %v, after %v", before, after)
	}
	if after.GetSessions() != 1 || !after.GetIsCaller() || after.GetLastSeenAt() == nil {
		t.Errorf("after the restart: %v", after)
	}
}
