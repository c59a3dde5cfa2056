package system

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/caller"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/announcement"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/noiseconn"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/provisioning"
)

// The id is the App's of the claim until there is an owner, and then the Middleware's. A power cut
// may leave the claim on disk; the next start forgets it.
func TestTheClaimIsAnnouncedUntilThereIsAnOwnerAndForgottenThen(t *testing.T) {
	secret, err := noiseconn.GenerateClaimSecret(nil)
	if err != nil {
		t.Fatal(err)
	}
	key, err := noiseconn.ClaimDiscoveryKey(secret)
	if err != nil {
		t.Fatal(err)
	}
	public, _, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	own := announcement.TXT{Version: 1, ID: [8]byte{1, 2, 3}, Nonce: [16]byte{4, 5, 6}}
	claimed := own
	claimed.ID = noiseconn.DiscoveryID(key, own.Nonce[:])

	b := newBase(t)
	var forgotten atomic.Int32
	b.config.Claim = &provisioning.Claim{SigningKey: [32]byte(public), Secret: secret, Until: time.Now().Add(time.Hour)}
	b.config.ForgetClaim = func() error { forgotten.Add(1); return errors.New("the power went") }
	tells := func(what string, want announcement.TXT) {
		t.Helper()
		if _, err := b.as(caller.Middleware).Do(t.Context(), &systemv1.SystemRequest{Verb: &systemv1.SystemRequest_Announce{
			Announce: &systemv1.Announce{Version: 1, Nonce: own.Nonce[:], Id: own.ID[:]}}}, nil); err != nil {
			t.Fatal(err)
		}
		until(t, what, func() error {
			if n := len(b.world.Told()); n == 0 || fmt.Sprint(b.world.Told()[n-1].TXT) != fmt.Sprint(want.Strings()) {
				return fmt.Errorf("told %+v", b.world.Told())
			}
			return nil
		})
	}
	b.start()
	tells("the claim is announced", claimed)
	if forgotten.Load() != 0 {
		t.Error("a claim that is open was forgotten")
	}
	b.pair(b.as(caller.Middleware), "phone", owner)
	tells("the Base announces its own id", own)
	if forgotten.Load() == 0 {
		t.Error("the claim stays on disk")
	}
	b.stop()

	before := forgotten.Load()
	b.config.ForgetClaim = func() error { forgotten.Add(1); return nil }
	b.start()
	tells("the Base announces its own id after the restart", own)
	if forgotten.Load() == before {
		t.Error("the claim stays on disk after the restart")
	}
	b.stop()

	expired := newBase(t)
	expired.config.Claim = b.config.Claim
	expired.config.Claim.Until = time.Now().Add(-time.Hour)
	b = expired
	b.start()
	tells("an expired claim is not announced", own)
}
