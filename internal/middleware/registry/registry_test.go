package registry_test

import (
	"errors"
	"fmt"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/failpoint"
	"github.com/BitBoxSwiss/bitbox-base/internal/middleware/admission"
	"github.com/BitBoxSwiss/bitbox-base/internal/middleware/registry"
	"github.com/BitBoxSwiss/bitbox-base/internal/middleware/registry/registrytest"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/noiseconn"
	"github.com/BitBoxSwiss/bitbox-base/internal/state"
)

const (
	viewer   = basev1.Role_ROLE_VIEWER
	operator = basev1.Role_ROLE_OPERATOR
	owner    = basev1.Role_ROLE_OWNER
)

func TestTheIdentityIsMadeOnceAndSaidInTheLog(t *testing.T) {
	h := registrytest.New(t, nil)
	public, name, discovery := h.PublicKey(), h.Name(), h.DiscoveryKey()
	if !h.Logs("made a new identity") || !h.Logs(public.String()) {
		t.Error("the log does not tell that an identity was made")
	}
	h.ResetLog()
	h.Restart()
	if h.PublicKey() != public || h.Name() != name || !h.DiscoveryKey().Equal(discovery) {
		t.Error("a restart changes the identity")
	}
	if h.Logs("made a new identity") {
		t.Error("a second identity was made")
	}
}

func TestAnIncompleteIdentityIsDamageAndNeverReplaced(t *testing.T) {
	for _, lost := range []string{registry.KeyStatic, registry.KeyDiscovery, registry.KeyName} {
		h := registrytest.New(t, nil)
		if err := h.DB.Update(func(tx *state.Tx) error { return tx.Delete(registry.BucketIdentity, lost) }); err != nil {
			t.Fatal(err)
		}
		if _, err := registry.Open(h.Config); !errors.Is(err, state.ErrDamaged) {
			t.Errorf("without %s: %v; want ErrDamaged", lost, err)
		}
	}
	h := registrytest.New(t, nil)
	h.Active("phone", owner)
	err := h.DB.Update(func(tx *state.Tx) error {
		return errors.Join(tx.Delete(registry.BucketIdentity, registry.KeyStatic), tx.Delete(registry.BucketIdentity, registry.KeyDiscovery),
			tx.Delete(registry.BucketIdentity, registry.KeyName))
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := registry.Open(h.Config); !errors.Is(err, state.ErrDamaged) {
		t.Errorf("pairings without an identity: %v; want ErrDamaged", err)
	}
}

func TestADamagedPairingIsRefused(t *testing.T) {
	h := registrytest.New(t, nil)
	h.Active("phone", owner)
	var key string
	var good []byte
	if err := h.DB.View(func(tx *state.Tx) error {
		return tx.ForEach(registry.BucketPairings, func(k string, v []byte) error {
			key, good = k, v
			return nil
		})
	}); err != nil {
		t.Fatal(err)
	}
	if _, err := registry.ParsePairing([]byte(key), good, nil); err != nil {
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
		if _, err := registry.ParsePairing([]byte(bad.key), []byte(bad.value), progress); err == nil {
			t.Errorf("accepted: %q", bad)
		}
	}
}

func TestAPendingAppHasNoRightsUntilItConnects(t *testing.T) {
	h := registrytest.New(t, nil)
	a := h.Confirm("phone", owner)
	first := h.Active("first", owner)
	session := registrytest.Must(h.Begin(t.Context(), first.Peer, registrytest.From, func() {})).(*registry.Session)
	if apps := h.Apps(session); len(apps) != 1 {
		t.Errorf("a pending App is listed: %v", apps)
	}
	if _, err := h.Rename(a.ID(), "x", session); !errors.Is(err, registry.ErrUnknownApp) {
		t.Errorf("a pending App can be renamed: %v", err)
	}
	if _, err := h.Begin(t.Context(), a.Peer, registrytest.From, func() {}); err != nil {
		t.Fatal(err)
	}
	if apps := h.Apps(session); len(apps) != 2 {
		t.Errorf("an active App is not listed: %v", apps)
	}
	if !h.Authority.Active[string(a.Signing)] {
		t.Error("the authority does not know that the App is active")
	}
}

func TestAPendingAppLapsesWithTimeAndWithARestart(t *testing.T) {
	h := registrytest.New(t, func(c *registry.Config) { c.PendingTime = time.Millisecond })
	a := h.Confirm("late", owner)
	registrytest.Eventually(t, "it lapses", func() bool { return h.Logs("whose App did not connect in time") })
	if _, _, _, err := a.Handshake(); registrytest.ReasonOf(err) != admission.Lapsed {
		t.Errorf("a lapsed App's frame: %v; want a refusal that does not count for a ban", err)
	}
	if _, err := h.Begin(t.Context(), a.Peer, registrytest.From, func() {}); registrytest.ReasonOf(err) != admission.Lapsed {
		t.Errorf("a lapsed App begins a session: %v", err)
	}

	h.Config.PendingTime = time.Hour
	h.Restart()
	b := h.Confirm("unlucky", owner)
	h.Restart()
	if _, _, _, err := b.Handshake(); registrytest.ReasonOf(err) != admission.Lapsed {
		t.Errorf("after a restart: %v", err)
	}
	if h.Active("next", owner); h.Stored() != 1 {
		t.Errorf("%d pairings are stored", h.Stored())
	}
}

func TestAConnectFrameFromBeforeTheRestartIsNotAcceptedAgain(t *testing.T) {
	h := registrytest.New(t, nil)
	a := h.Active("phone", owner)
	recorded := a.Seq.Load() + 1
	if _, _, _, err := a.Handshake(); err != nil { // takes it; no first record follows
		t.Fatal(err)
	}
	h.Restart()
	if _, err := h.Arrive(a.Peer, recorded); registrytest.ReasonOf(err) != admission.Replayed {
		t.Errorf("after a restart: %v; want silence", err)
	}
	if _, err := h.Arrive(a.Peer, recorded+1); err != nil {
		t.Errorf("the next one: %v", err)
	}
	// The broken variant keeps the number in memory only.
	h.Restart()
	if err := h.DB.Update(func(tx *state.Tx) error { return tx.Delete(registry.BucketProgress, string(a.Peer[:])) }); err != nil {
		t.Fatal(err)
	}
	h.Restart()
	if _, err := h.Arrive(a.Peer, recorded); err != nil {
		t.Errorf("without what was stored it should be taken; this attack proves nothing (%v)", err)
	}
}

// A kill or a power cut loses the unsaved changes, of at most a second: such an R1 is answered
// once more. An orderly stop loses nothing (the test above).
func TestAKillForgetsWhatWasNotSavedYetAndNothingElse(t *testing.T) {
	h := registrytest.New(t, nil)
	a := h.Active("phone", owner)
	saved := a.Seq.Load() + 1
	if _, _, _, err := a.Handshake(); err != nil {
		t.Fatal(err)
	}
	registrytest.Eventually(t, "it is saved", func() bool { return h.SavedSeq(a.Peer) == saved })
	if _, _, _, err := a.Handshake(); err != nil {
		t.Fatal(err)
	}
	h.Kill()
	h.Restart()
	if _, err := h.Arrive(a.Peer, saved); registrytest.ReasonOf(err) != admission.Replayed {
		t.Errorf("what was saved: %v; want silence", err)
	}
	if _, err := h.Arrive(a.Peer, saved+1); err != nil {
		t.Errorf("what was not saved: %v; this kill has forgotten nothing, so the test shows nothing", err)
	}
	if _, err := h.Arrive(a.Peer, saved+1); registrytest.ReasonOf(err) != admission.Replayed {
		t.Errorf("once more: %v; want silence", err)
	}
}

// No connection waits for the disk, and none holds the lock that every call takes while the disk
// is written.
func TestAConnectionHoldsNobodyUpForADisk(t *testing.T) {
	writing, written := make(chan struct{}), make(chan struct{})
	var armed atomic.Bool
	t.Cleanup(failpoint.Set(func(point string) error {
		if point == "before: store the progress of pairings" && armed.CompareAndSwap(true, false) {
			close(writing)
			<-written
		}
		return nil
	}))
	h := registrytest.New(t, nil)
	a := h.Active("phone", owner)
	armed.Store(true)
	if _, _, _, err := a.Handshake(); err != nil {
		t.Fatal(err)
	}
	<-writing
	done := make(chan struct{})
	go func() {
		defer close(done)
		if _, _, _, err := a.Handshake(); err != nil {
			t.Error(err)
		}
		h.Stored() // takes the lock
	}()
	select {
	case <-done:
	case <-time.After(registrytest.TestTime):
		t.Error("the disk holds up a connection")
	}
	close(written)
	<-done
}

// Saving never lowers a stored number, whatever comes late.
func TestSavingNeverLowersANumber(t *testing.T) {
	h := registrytest.New(t, nil)
	a := h.Active("phone", owner)
	if _, _, _, err := a.Handshake(); err != nil {
		t.Fatal(err)
	}
	h.Restart()
	high := h.SavedSeq(a.Peer) + 1000
	if err := h.StoreSeq(a.Peer, high); err != nil {
		t.Fatal(err)
	}
	if _, _, _, err := a.Handshake(); err != nil { // its number is lower
		t.Fatal(err)
	}
	h.Restart()
	if got := h.SavedSeq(a.Peer); got != high {
		t.Errorf("%d is stored, not %d", got, high)
	}
}

func TestAFullDiskDoesNotKeepTheOwnerOut(t *testing.T) {
	h := registrytest.New(t, nil)
	a := h.Active("phone", owner)
	if err := h.DB.Close(); err != nil { // every write fails from now on
		t.Fatal(err)
	}
	if _, _, _, err := a.Handshake(); err != nil {
		t.Errorf("handshake: %v", err)
	}
	session, err := h.Begin(t.Context(), a.Peer, registrytest.From, func() {})
	if err != nil {
		t.Fatalf("session: %v", err)
	}
	if _, err := h.Rename(a.ID(), "other", session.(*registry.Session)); err == nil {
		t.Error("a change that is not stored is called done")
	}
	if got := h.Apps(session.(*registry.Session))[0].GetName(); got != "phone" {
		t.Errorf("the App is called %q after a change that failed", got)
	}
	registrytest.Eventually(t, "the log tells", func() bool { return h.Logs("store the numbers of connections") })
}

func TestARevokedAppIsToldSoAndStaysOut(t *testing.T) {
	h := registrytest.New(t, nil)
	boss, a := h.Active("boss", owner), h.Active("phone", viewer)
	session := registrytest.Must(h.Begin(t.Context(), boss.Peer, registrytest.From, func() {})).(*registry.Session)
	if err := h.Revoke(t.Context(), a.ID(), session); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if status, _, _, err := a.Handshake(); status != noiseconn.StatusRevoked || err != nil {
			t.Errorf("its handshake ends with %v, %v", status, err)
		}
		if _, err := h.Begin(t.Context(), a.Peer, registrytest.From, func() {}); registrytest.ReasonOf(err) != admission.Revoked {
			t.Errorf("it begins a session: %v", err)
		}
		if err := h.MayPair(a.Peer); err == nil {
			t.Error("its static key can be paired again")
		}
		if err := h.Revoke(t.Context(), a.ID(), session); !errors.Is(err, registry.ErrUnknownApp) {
			t.Errorf("it is revoked a second time: %v", err)
		}
		h.Restart()
	}
	if h.Authority.Active[string(a.Signing)] {
		t.Error("the authority still holds its signing key")
	}
	if !h.Authority.Active[string(boss.Signing)] {
		t.Error("the owner's signing key is gone")
	}
}

func TestTheLastOwnerCannotBeRevoked(t *testing.T) {
	h := registrytest.New(t, nil)
	boss := h.Active("boss", owner)
	h.Active("phone", operator)
	h.Confirm("heir", owner) // has no rights yet
	session := registrytest.Must(h.Begin(t.Context(), boss.Peer, registrytest.From, func() {})).(*registry.Session)
	if err := h.Revoke(t.Context(), boss.ID(), session); !errors.Is(err, registry.ErrLastOwner) {
		t.Errorf("Revoke: %v", err)
	}
	second := h.Active("second", owner)
	if err := h.Revoke(t.Context(), boss.ID(), session); err != nil {
		t.Errorf("one of two owners: %v", err)
	}
	if !h.Authority.Active[string(boss.Signing)] {
		t.Error("the Middleware took an owner's signing key away")
	}
	if got := h.Authority.CutOff; len(got) != 1 || !got[0].Equal(boss.Signing) {
		t.Errorf("the windows of %x were closed, not those of the revoked owner", got)
	}
	h.ResetLog()
	h.Restart() // the tombstone explains the key that has no pairing
	if h.Logs("no App is paired with") {
		t.Error("a revoked owner's key is reported as unknown")
	}
	session = registrytest.Must(h.Begin(t.Context(), second.Peer, registrytest.From, func() {})).(*registry.Session)
	if err := h.Revoke(t.Context(), second.ID(), session); !errors.Is(err, registry.ErrLastOwner) {
		t.Errorf("a tombstone counts as an owner: %v", err)
	}
}

func TestPairingsAndTombstonesAreBounded(t *testing.T) {
	h := registrytest.New(t, nil)
	boss := h.Active("boss", owner)
	session := registrytest.Must(h.Begin(t.Context(), boss.Peer, registrytest.From, func() {})).(*registry.Session)
	var revoked []*registrytest.App
	for i := range registry.MaxTombstones + 1 {
		a := h.Active(fmt.Sprintf("phone %d", i), viewer)
		if err := h.Revoke(t.Context(), a.ID(), session); err != nil {
			t.Fatal(err)
		}
		revoked = append(revoked, a)
	}
	if _, _, _, err := revoked[0].Handshake(); registrytest.ReasonOf(err) != admission.WrongMAC1 {
		t.Errorf("the oldest tombstone is still there: %v", err)
	}
	if status, _, _, err := revoked[1].Handshake(); status != noiseconn.StatusRevoked {
		t.Errorf("the second oldest is forgotten: %v", err)
	}
	for i := range registry.MaxPairings - 1 {
		h.Confirm(fmt.Sprintf("tablet %d", i), viewer)
	}
	a := registrytest.NewApp(h)
	if err := h.MayPair(a.Peer); err == nil {
		t.Error("there is room for one more than allowed")
	}
	if _, _, err := h.Pend(admission.Pairing{Peer: a.Peer, SigningKey: a.Signing, Name: "x", Role: viewer}); err == nil {
		t.Error("one more than allowed is stored")
	}
	h.Restart()
	if h.Lapsed() != registry.MaxLapsed {
		t.Errorf("%d lapsed pairings are remembered, not %d", h.Lapsed(), registry.MaxLapsed)
	}
}

func TestAPairingThatOnlyOneSideKnowsHasNoRights(t *testing.T) {
	h := registrytest.New(t, nil)
	kept, lost := h.Active("kept", owner), h.Active("lost", owner)
	delete(h.Authority.Active, string(lost.Signing))
	h.Authority.Active["a key that nobody is paired with …."] = true
	h.Restart()
	if _, _, _, err := kept.Handshake(); err != nil {
		t.Errorf("a pairing that both know: %v", err)
	}
	if _, _, _, err := lost.Handshake(); registrytest.ReasonOf(err) != admission.Lapsed {
		t.Errorf("a pairing that the authority does not know: %v", err)
	}
	if !h.Logs("no App is paired with") {
		t.Error("the log does not tell of a key without a pairing")
	}
	h.Restart()
	if h.Stored() != 1 {
		t.Errorf("%d pairings are stored", h.Stored())
	}

	// The same at the moment of the first connection.
	unknown := h.Confirm("unknown", viewer)
	clear(h.Authority.Pending)
	if _, err := h.Begin(t.Context(), unknown.Peer, registrytest.From, func() {}); registrytest.ReasonOf(err) != admission.Lapsed {
		t.Errorf("a pending pairing that the authority does not know: %v", err)
	}
	// An authority that does not answer is no reason to drop anything.
	waiting := h.Confirm("waiting", viewer)
	h.Authority.Broken = errors.New("the helper restarts")
	if _, err := h.Begin(t.Context(), waiting.Peer, registrytest.From, func() {}); err == nil {
		t.Error("a session began without the authority's word")
	}
	h.Authority.Broken = nil
	if _, err := h.Begin(t.Context(), waiting.Peer, registrytest.From, func() {}); err != nil {
		t.Errorf("when the authority is back: %v", err)
	}
}

func TestTheOldestSessionOfAnAppMakesRoom(t *testing.T) {
	h := registrytest.New(t, nil)
	a := h.Active("phone", owner)
	cut := make([]int, registry.MaxSessions+2)
	var sessions []admission.Session
	for i := range cut {
		sessions = append(sessions, registrytest.Must(h.Begin(t.Context(), a.Peer, registrytest.From, func() { cut[i]++ })))
	}
	if cut[0] == 0 || cut[1] == 0 || cut[2] != 0 {
		t.Errorf("cut: %v; want the two oldest", cut)
	}
	for _, s := range sessions {
		s.End()
	}
	if live := h.SessionsOf(a.Peer); live != 0 {
		t.Errorf("%d sessions are left", live)
	}
}

func TestASessionEndsAtItsLatestTime(t *testing.T) {
	h := registrytest.New(t, func(c *registry.Config) { c.SessionTime = time.Millisecond })
	a := h.Active("phone", owner)
	cut := make(chan struct{})
	registrytest.Must(h.Begin(t.Context(), a.Peer, registrytest.From, func() { close(cut) }))
	select {
	case <-cut:
	case <-time.After(registrytest.TestTime):
		t.Error("the session goes on")
	}
}

func TestNamesAndTimesSurviveARestart(t *testing.T) {
	h := registrytest.New(t, nil)
	a := h.Active("phone", owner)
	session := registrytest.Must(h.Begin(t.Context(), a.Peer, registrytest.From, func() {})).(*registry.Session)
	if _, err := h.Rename(a.ID(), "kitchen phone", session); err != nil {
		t.Fatal(err)
	}
	before := h.Apps(session)[0]
	h.Restart()
	session = registrytest.Must(h.Begin(t.Context(), a.Peer, registrytest.From, func() {})).(*registry.Session)
	after := h.Apps(session)[0]
	if after.GetName() != "kitchen phone" || after.GetId() != before.GetId() || after.GetRole() != owner ||
		!after.GetPairedAt().AsTime().Equal(before.GetPairedAt().AsTime()) {
		t.Errorf("before %v, after %v", before, after)
	}
	if after.GetSessions() != 1 || !after.GetIsCaller() || after.GetLastSeenAt() == nil {
		t.Errorf("after the restart: %v", after)
	}
}

func TestAnAddressIsAcquaintedWhileItsAppHasRights(t *testing.T) {
	h := registrytest.New(t, nil)
	boss := h.Active("boss", owner)
	session := registrytest.Must(h.Begin(t.Context(), boss.Peer, registrytest.From, func() {})).(*registry.Session)
	phone := h.Confirm("phone", viewer)
	mobile := netip.MustParseAddr("2001:db8:7::1")
	neighbour := netip.MustParseAddr("2001:db8:7::2")
	if h.Acquainted(mobile) {
		t.Error("acquainted before an App came from there")
	}
	registrytest.Must(h.Begin(t.Context(), phone.Peer, mobile, func() {})).End()
	check := func(when string, want bool) {
		t.Helper()
		for _, address := range []netip.Addr{mobile, neighbour} {
			if got := h.Acquainted(address); got != want {
				t.Errorf("%s: %s acquainted: %t, want %t", when, address, got, want)
			}
		}
		if !h.Acquainted(registrytest.From) || h.Acquainted(netip.MustParseAddr("2001:db8:8::1")) {
			t.Errorf("%s: the owner's address is not acquainted, or a stranger's is", when)
		}
	}
	check("after its first record", true)
	h.Restart()
	check("after a restart", true)
	if err := h.Revoke(t.Context(), phone.ID(), session); err != nil {
		t.Fatal(err)
	}
	check("after its App was revoked", false)
	h.Restart()
	check("after its App was revoked and a restart", false)

	// It ends by itself after a week without its App.
	h.Age(boss.Peer, registry.AcquaintedTime+time.Second)
	if h.Acquainted(registrytest.From) {
		t.Error("acquainted for more than a week without its App")
	}
}
