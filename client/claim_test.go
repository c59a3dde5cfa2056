//go:build linux

package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/bootdisk"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/caller"
	"github.com/BitBoxSwiss/bitbox-base/internal/helperclient"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/noiseconn"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/provisioning"
	"github.com/BitBoxSwiss/bitbox-base/internal/state"
	"github.com/BitBoxSwiss/bitbox-base/internal/testbed/appliancetest"
)

// claimer is an App that has written a provisioning file.
func claimer(t *testing.T) (a *App, content []byte) {
	t.Helper()
	a = testApp(t)
	made, err := a.Provision(t.TempDir(), ProvisionOptions{Name: "Cellar", NoDisplay: true, Pair: true})
	if err != nil || made.Base.State != Unclaimed {
		t.Fatalf("%+v, %v", made, err)
	}
	info, err := os.Stat(made.File)
	if err != nil || info.Mode() != 0o600 {
		t.Fatalf("%v, %v", info, err)
	}
	return a, must(os.ReadFile(made.File))
}

// board boots a board with a provisioning file for the first time.
func board(t *testing.T, content []byte) *appliancetest.Appliance {
	t.Helper()
	return boardThrough(t, content, nil)
}

func boardThrough(t *testing.T, content []byte, through func(helperclient.Port) helperclient.Port) *appliancetest.Appliance {
	t.Helper()
	b, err := appliancetest.StartProvisioned(must(provisioning.Parse(content)), through)
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

// give gives an App another one's side of a pairing.
func give(t *testing.T, to *App, record stored) {
	t.Helper()
	p := must(record.parse())
	if err := to.store.add(p.AppID, &record); err != nil {
		t.Fatal(err)
	}
}

func TestTheAppOfAClaimIsAnOwnerFromItsFirstCallOn(t *testing.T) {
	a, content := claimer(t)
	b := board(t, content)
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
	if _, err := session.Apply(t.Context(), Change{Edit: Expose("electrum", Opening{For: time.Hour}), Approve: approve}); err != nil {
		t.Errorf("the owner cannot change the posture: %s", Explain(err))
	}
	if now := record(t, a); !bytes.Equal(now.StateKey, b.StateKey()) || base.PublicKey == [32]byte{} {
		t.Error("the App does not know the board's own keys")
	}
}

// The attack: somebody has the provisioning file and, worse, all that the App had then, and comes
// once the App has claimed the board.
func TestACopyOfTheFileIsOfNoUseAfterTheFirstConnection(t *testing.T) {
	a, content := claimer(t)
	before := record(t, a)
	b := board(t, content)
	if err := askAt(t, a, b.Address()); err != nil {
		t.Fatal(Explain(err))
	}
	thief := testApp(t)
	give(t, thief, before)
	if err := askAt(t, thief, b.Address()); !errors.Is(err, ErrSilent) {
		t.Errorf("with the claim: %v", err)
	}
	if err := askAt(t, a, b.Address()); err != nil {
		t.Errorf("the App itself: %s", Explain(err))
	}
	// A board that has forgotten nothing would let the thief in.
	if err := askAt(t, thief, board(t, content).Address()); err != nil {
		t.Errorf("the broken variant withstands the attack, so this test shows nothing: %s", Explain(err))
	}
}

// The attack: a second board has the same file, or a copy that somebody has taken, and stands where
// the App looks for its Base.
func TestASecondBoardWithTheSameFileIsRefused(t *testing.T) {
	a, content := claimer(t)
	before := record(t, a)
	first, second := board(t, content), board(t, content)
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
		t.Error("the App has taken up the second board")
	}
	first.Open()
	if err := askAt(t, a, first.Address()); err != nil {
		t.Errorf("the first board: %s", Explain(err))
	}
	// The broken variant has not noted that it has used its claim.
	weak := testApp(t)
	give(t, weak, before)
	if err := askAt(t, weak, second.Address()); err != nil {
		t.Errorf("the broken variant withstands the attack, so this test shows nothing: %s", Explain(err))
	}
}

// The attack: a machine plays the Base, and knows all of the file but the secret. So does a man in
// the middle, who has a handshake of his own with each side.
func TestAMachineWithoutTheSecretIsNotTakenForTheBase(t *testing.T) {
	other := must(noiseconn.GenerateClaimSecret(nil))
	for what, proof := range map[string]func(*revealed) []byte{
		"none": func(*revealed) []byte { return nil },
		"that of another secret": func(p *revealed) []byte {
			return must(noiseconn.ClaimProof(other, p.payload.RA, p.rb, p.h, p.payload.SigningKey, p.stateKey, p.role))
		},
	} {
		t.Run(what, func(t *testing.T) {
			a, _ := claimer(t)
			b := newFakeBase(t)
			b.rb = func(p *revealed) []byte { return append(b.honestP4(p), proof(p)...) }
			if err := askAt(t, a, b.address()); !errors.Is(err, ErrInterference) {
				t.Errorf("the App says %v", err)
			}
			if record(t, a).State != Unclaimed {
				t.Error("the App has taken it up")
			}
			a.proves = func(_, _ []byte) bool { return true }
			if err := askAt(t, a, b.address()); err != nil || record(t, a).State != Active {
				t.Errorf("the broken variant withstands the attack, so this test shows nothing: %v", err)
			}
		})
	}
}

// A Middleware that was taken over has the static key and everything that passes, but not the
// secret: it cannot give the App a K_state of its own.
func TestATakenOverMiddlewareCannotForgeTheKeysOfAClaimedBase(t *testing.T) {
	a, content := claimer(t)
	_, another := claimer(t)
	other := board(t, another)
	f := &forger{stateKey: other.StateKey()}
	f.forging.Store(true)
	liar := boardThrough(t, content, func(port helperclient.Port) helperclient.Port {
		f.Port = port
		return f
	})
	if err := askAt(t, a, liar.Address()); !errors.Is(err, ErrInterference) || record(t, a).State != Unclaimed {
		t.Errorf("the App says %v, and has %v", err, record(t, a).State)
	}
	f.forging.Store(false)
	if err := askAt(t, a, liar.Address()); err != nil {
		t.Errorf("an honest Middleware: %s", Explain(err))
	}
	// The broken variant believes it without the proof.
	weak, content := claimer(t)
	weak.proves = func(_, _ []byte) bool { return true }
	weak.opens = func([32]byte, *noiseconn.P4) bool { return true }
	f2 := &forger{stateKey: other.StateKey()}
	f2.forging.Store(true)
	second := boardThrough(t, content, func(port helperclient.Port) helperclient.Port {
		f2.Port = port
		return f2
	})
	_ = askAt(t, weak, second.Address())
	if got := record(t, weak); !bytes.Equal(got.StateKey, other.StateKey()) {
		t.Error("the broken variant withstands the attack, so this test shows nothing")
	}
}

// forger is a Middleware that puts another K_state into P4, and commits to it.
type forger struct {
	helperclient.Port
	forging  atomic.Bool
	stateKey []byte
}

func (f *forger) Stream(ctx context.Context, request *systemv1.SystemRequest, receive func(*systemv1.SystemReply) error) error {
	return f.Port.Stream(ctx, request, func(reply *systemv1.SystemReply) error {
		if p4 := reply.GetAuthority().GetReveal().GetP4(); f.forging.Load() && p4 != nil {
			copy(p4[32:], f.stateKey)
		}
		return receive(reply)
	})
}

// The helper of one board does not vouch for another, whatever connection carries it.
func TestAnotherBoardsReportIsNotBelieved(t *testing.T) {
	a, content := claimer(t)
	second := board(t, content)
	r := &rogue{}
	first := boardThrough(t, content, r.through)
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

// The Base has stored a pairing as pending, or even as active, that did not reach the App's disk.
func TestAnAppThatWasEndedWhileItClaimedGoesOn(t *testing.T) {
	a, content := claimer(t)
	b := board(t, content)
	before := record(t, a)
	p := must(before.parse())
	if err := a.claimAt(t.Context(), p, b.Address()); err != nil {
		t.Fatal(Explain(err))
	}
	if got := record(t, a); got.State != Pending {
		t.Fatalf("it is %v", got.State)
	}
	// The App's stored pairing is lost.
	if err := a.store.change(p.AppID, "forget", func(r *stored) { *r = before }); err != nil {
		t.Fatal(err)
	}
	if err := askAt(t, a, b.Address()); err != nil {
		t.Error(Explain(err))
	}
}

// The Base has dropped what was pending, and the App has not.
func TestAClaimWhosePendingPairingDiedIsMadeAgain(t *testing.T) {
	a, content := claimer(t)
	first := board(t, content)
	p := must(func() (*pairing, error) { r := record(t, a); return r.parse() }())
	if err := a.claimAt(t.Context(), p, first.Address()); err != nil {
		t.Fatal(Explain(err))
	}
	first.Shut()
	again := board(t, content) // it knows nothing of what was pending
	if err := askAt(t, a, again.Address()); err != nil {
		t.Error(Explain(err))
	}
}

func TestAClaimExpires(t *testing.T) {
	a, content := claimer(t)
	b := board(t, content)
	a.now = func() time.Time { return time.Now().Add(provisioning.ClaimTime + time.Minute) }
	if err := askAt(t, a, b.Address()); !errors.Is(err, ErrPairAgain) {
		t.Errorf("the App says %v", err)
	}
	f := must(provisioning.Parse(content))
	f.Claim.Until = time.Now().Add(-time.Minute).UTC().Truncate(time.Second)
	expired := board(t, must(f.Marshal()))
	a.now = time.Now
	if err := askAt(t, a, expired.Address()); !errors.Is(err, ErrSilent) {
		t.Errorf("an expired Base: %v", err)
	}
}

func TestAProvisioningFileIsWrittenWholeOrNotAtAll(t *testing.T) {
	public, private := filepath.Join(t.TempDir(), "id.pub"), filepath.Join(t.TempDir(), "id")
	const key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDvpxXGDAu0w+FUDIb/ygcy6q1chR7o1fzWvDDnfwJSA alice@laptop\n"
	const secret = "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n"
	for path, content := range map[string]string{public: key, private: secret} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for what, o := range map[string]ProvisionOptions{
		"a private key":         {SSHKey: private, Pair: true},
		"a key that is missing": {SSHKey: public + "x", Pair: true},
		"a lease without a key": {SSHLease: time.Hour, Pair: true},
		"a lease for years":     {SSHKey: public, SSHLease: 10000 * time.Hour, Pair: true},
		"a name with a line":    {Name: "a\nssh-key " + key, Pair: true},
		"a name that hides":     {Name: "a\x1bname", Pair: true},
	} {
		a, directory := testApp(t), t.TempDir()
		_, err := a.Provision(directory, o)
		if !errors.Is(err, ErrInvalid) || strings.Contains(Explain(err), "\n") {
			t.Errorf("%s: %v", what, err)
		}
		if entries, _ := os.ReadDir(directory); len(entries) != 0 || len(bases(t, a)) != 0 {
			t.Errorf("%s: something was written", what)
		}
	}
	a := testApp(t)
	_, err := a.Provision(filepath.Join(t.TempDir(), "none"), ProvisionOptions{Pair: true})
	if !errors.Is(err, ErrInvalid) || len(bases(t, a)) != 0 {
		t.Errorf("a directory that is not there: %v", err)
	}
	directory := t.TempDir()
	path := filepath.Join(directory, bootdisk.ProvisionFile)
	if err := os.WriteFile(path, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Provision(directory, ProvisionOptions{Pair: true}); !errors.Is(err, ErrFileExists) {
		t.Error(err)
	}
	if content := must(os.ReadFile(path)); string(content) != "mine" || len(bases(t, a)) != 0 {
		t.Error("the file was written over, or a claim was stored")
	}
	made, err := a.Provision(directory, ProvisionOptions{SSHKey: public, SSHLease: time.Hour, Replace: true})
	if err != nil || made.Base != nil || len(made.SSHKeys) != 1 {
		t.Fatalf("%+v, %v", made, err)
	}
	f, err := provisioning.Parse(must(os.ReadFile(path)))
	if err != nil || f.SSHLease != time.Hour || len(f.SSHKeys) != 1 || f.Claim != nil {
		t.Errorf("%+v, %v", f, err)
	}
	// A disk that takes nothing: what the App had stored of the claim is gone again.
	if os.Geteuid() != 0 {
		if err := os.Chmod(directory, 0o500); err != nil {
			t.Fatal(err)
		}
		if _, err := a.Provision(directory, ProvisionOptions{Pair: true, Replace: true}); !errors.Is(err, ErrStorage) || len(bases(t, a)) != 0 {
			t.Errorf("a directory that cannot be written: %v", err)
		}
	}
}

// The leftovers of an image of an earlier version that was never met are of no use.
func TestAnImageOfAnEarlierVersionThatWasNeverMetIsLeftOut(t *testing.T) {
	a, _ := claimer(t)
	p := record(t, a)
	id := must(p.parse()).AppID
	if err := a.store.change(id, "make it old", func(r *stored) { r.State, r.Claim = unmetImage, nil }); err != nil {
		t.Fatal(err)
	}
	if list, err := a.Bases(); err != nil || len(list) != 0 {
		t.Errorf("%v, %v", list, err)
	}
}
