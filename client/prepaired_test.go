//go:build linux

package client

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/caller"
	"github.com/BitBoxSwiss/bitbox-base/internal/helperclient"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/noiseconn"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/prepaired"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/rpc"
	"github.com/BitBoxSwiss/bitbox-base/internal/state"
	"github.com/BitBoxSwiss/bitbox-base/internal/testbed/appliancetest"
)

// builder is an App that has made the keys of an image.
func builder(t *testing.T) (a *App, file []byte) {
	t.Helper()
	a = testApp(t)
	path := filepath.Join(t.TempDir(), "cellar.keys")
	base, err := a.PrePair(path, "Cellar")
	if err != nil || base.State != PrePaired {
		t.Fatalf("%+v, %v", base, err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode() != 0o600 {
		t.Fatalf("%v, %v", info, err)
	}
	return a, must(os.ReadFile(path))
}

// board boots a board of an image for the first time.
func board(t *testing.T, file []byte) *appliancetest.Appliance {
	t.Helper()
	return boardThrough(t, file, nil)
}

func boardThrough(t *testing.T, file []byte, through func(helperclient.Port) helperclient.Port) *appliancetest.Appliance {
	t.Helper()
	b, err := appliancetest.StartPrePaired(file, through)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Stop(); err != nil {
			t.Errorf("stop the board: %v", err)
		}
	})
	return b
}

// askAt calls the Base at an address once.
func askAt(t *testing.T, a *App, address string) error {
	t.Helper()
	session, err := a.Open("", address)
	if err != nil {
		t.Fatal(err)
	}
	defer session.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	_, err = session.Info.GetInfo(ctx, &basev1.GetInfoRequest{})
	return err
}

func record(t *testing.T, a *App) (s stored) {
	t.Helper()
	err := a.store.view("look", func(tx *state.Tx) error {
		return tx.ForEach(bucketBases, func(_ string, raw []byte) error { return json.Unmarshal(raw, &s) })
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// give gives an App another one's half.
func give(t *testing.T, to *App, record stored) {
	t.Helper()
	p := must(record.parse())
	if err := to.store.add(p.AppID, &record); err != nil {
		t.Fatal(err)
	}
}

func TestAPrePairedAppIsAnOwnerFromItsFirstCallOn(t *testing.T) {
	a, file := builder(t)
	b := board(t, file)
	if err := askAt(t, a, b.Address()); err != nil {
		t.Fatal(Explain(err))
	}
	base, err := a.Base("Cellar")
	if err != nil || base.State != Active || base.Role != basev1.Role_ROLE_OWNER {
		t.Fatalf("%+v, %v", base, err)
	}
	session, err := a.Open("")
	if err != nil {
		t.Fatal(err)
	}
	defer session.Close()
	view, err := session.Posture(t.Context())
	if err != nil {
		t.Fatal(Explain(err))
	}
	if e := view.Effective(); len(e.Apps) != 1 || e.NodeName != "Cellar" || e.SSH != nil {
		t.Errorf("in force is %+v", e)
	}
	if _, err := session.Apply(t.Context(), Change{Edit: Expose("electrum", true, time.Hour), Approve: approve}); err != nil {
		t.Errorf("the owner cannot change the posture: %s", Explain(err))
	}
	if !bytes.Equal(record(t, a).StateKey, b.StateKey()) {
		t.Error("the App does not know the board's key")
	}
}

// No key that lets the App in, or makes it believe a report, is one of the image.
func TestTheImagesKeysAreOfNoUseAfterTheFirstConnection(t *testing.T) {
	a, file := builder(t)
	b := board(t, file)
	image := record(t, a)
	if err := askAt(t, a, b.Address()); err != nil {
		t.Fatal(Explain(err))
	}
	now := record(t, a)
	if bytes.Equal(now.Pair, now.PrePaired.Pair) || bytes.Contains(file, now.Pair) || bytes.Contains(file, now.StateKey) {
		t.Error("a key in use is one of the image")
	}
	// Somebody has the image and, worse, all of the App's half as it was then.
	thief := testApp(t)
	give(t, thief, image)
	if err := askAt(t, thief, b.Address()); !errors.Is(err, ErrSilent) {
		t.Errorf("with the image's keys: %v", err)
	}
	if err := askAt(t, a, b.Address()); err != nil {
		t.Errorf("the App itself: %s", Explain(err))
	}
}

// The attack: a second board is made of the same image, or of a copy that somebody has
// taken, and stands where the App looks for its Base.
func TestASecondBoardOfTheSameImageIsRefused(t *testing.T) {
	a, file := builder(t)
	first, second := board(t, file), board(t, file)
	if err := askAt(t, a, first.Address()); err != nil {
		t.Fatal(Explain(err))
	}
	first.Shut()
	err := askAt(t, a, second.Address())
	if !errors.Is(err, ErrSecondBoard) {
		t.Errorf("the second board: %v", err)
	}
	t.Log(Explain(err))
	if got := record(t, a); !bytes.Equal(got.StateKey, first.StateKey()) {
		t.Error("the App has fetched the keys of the second board")
	}
	first.Open()
	if err := askAt(t, a, first.Address()); err != nil {
		t.Errorf("the first board: %s", Explain(err))
	}

	// The broken variant goes on with the image's keys, as if they were a pairing's.
	image := record(t, a)
	weak := testApp(t)
	image.State, image.Addresses = PrePaired, nil
	give(t, weak, image)
	first.Shut()
	if err := askAt(t, weak, second.Address()); err != nil {
		t.Errorf("the broken variant withstands the attack, so this test shows nothing: %v", err)
	}
}

// With the image's keys an App gets the board's, and nothing else.
func TestTheImagesKeysFetchTheBoardsKeysAndNothingElse(t *testing.T) {
	a, file := builder(t)
	b := board(t, file)
	record := record(t, a)
	p := must(record.parse())
	conn, _, err := a.reach(t.Context(), p.ofImage(), []string{b.Address()})
	if err != nil {
		t.Fatal(err)
	}
	s := a.session(p.AppID)
	defer s.Close()
	must(s.transport.take(rpc.NewSession(conn)))
	_, err = s.Info.GetInfo(t.Context(), &basev1.GetInfoRequest{})
	if !errors.Is(err, ErrDenied) {
		t.Errorf("GetInfo: %v", err)
	}
	if _, err := s.Apps.ListApps(t.Context(), &basev1.ListAppsRequest{}); !errors.Is(err, ErrDenied) {
		t.Errorf("ListApps: %v", err)
	}
}

// A Middleware that was taken over before the first connection cannot give the App a
// K_state of its own: the image's certifying key, which only root had, did not sign it.
func TestATakenOverMiddlewareCannotForgeTheKeysOfAPrePairedBase(t *testing.T) {
	a, file := builder(t)
	half := must(prepaired.Parse(file))
	// It makes up a half with the same keys but for the certifying key, which it has not.
	other, _, err := prepaired.New(nil, "laptop", "Cellar")
	if err != nil {
		t.Fatal(err)
	}
	half.Certifying = other.Certifying
	liar := board(t, half.Marshal())
	if err := askAt(t, a, liar.Address()); !errors.Is(err, ErrLyingBase) {
		t.Errorf("a key that the image's did not sign: %v", err)
	}
	if record(t, a).State != PrePaired {
		t.Error("the App has taken it up")
	}
	a.certified = func(ed25519.PublicKey, noiseconn.PublicKey, noiseconn.PublicKey, []byte, []byte) bool { return true }
	if err := askAt(t, a, liar.Address()); err != nil {
		t.Errorf("the broken variant withstands the attack, so this test shows nothing: %v", err)
	}
}

// The helper of one board does not vouch for another, whatever connection carries it.
func TestAnotherBoardsReportIsNotBelieved(t *testing.T) {
	a, file := builder(t)
	second := board(t, file)
	r := &rogue{}
	first := boardThrough(t, file, r.through)
	if err := askAt(t, a, first.Address()); err != nil {
		t.Fatal(Explain(err))
	}
	r.does(func(request *systemv1.SystemRequest) (*systemv1.SystemReply, helperclient.Port) {
		return nil, second.Port(caller.Middleware)
	})
	session, err := a.Open("", first.Address())
	if err != nil {
		t.Fatal(err)
	}
	defer session.Close()
	if _, err := session.Posture(t.Context()); !errors.Is(err, ErrLyingBase) {
		t.Errorf("the second board's posture: %v", err)
	}
}

func TestAnImagesKeysAreNotWrittenOverAFile(t *testing.T) {
	a := testApp(t)
	path := filepath.Join(t.TempDir(), "there")
	if err := os.WriteFile(path, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := a.PrePair(path, "Cellar"); !errors.Is(err, ErrInvalid) {
		t.Error(err)
	}
	if content := must(os.ReadFile(path)); string(content) != "mine" {
		t.Error("the file was written over or removed")
	}
	if bases, err := a.Bases(); err != nil || len(bases) != 0 {
		t.Errorf("%v, %v", bases, err)
	}
	if _, err := a.PrePair(filepath.Join(t.TempDir(), "x"), "a\x1bname"); !errors.Is(err, ErrInvalid) {
		t.Error(err)
	}
}

// An App that was ended between the board's answer and its own disk asks again.
func TestAnAppThatWasEndedWhileItTookTheBoardUpAsksAgain(t *testing.T) {
	a, file := builder(t)
	b := board(t, file)
	before := record(t, a)
	p := must(before.parse())
	conn, address, err := a.reach(t.Context(), p.ofImage(), []string{b.Address()})
	if err != nil {
		t.Fatal(err)
	}
	if err := a.fetchKeysOver(t.Context(), p, conn.Conn, address); err != nil {
		t.Fatal(err)
	}
	// What it had stored is lost.
	if err := a.store.change(p.AppID, "forget", func(r *stored) { *r = before }); err != nil {
		t.Fatal(err)
	}
	if err := askAt(t, a, b.Address()); err != nil {
		t.Error(Explain(err))
	}
}
