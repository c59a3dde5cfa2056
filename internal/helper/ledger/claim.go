package ledger

import (
	"time"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/noiseconn"
	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
)

// openClaim begins to wait for the App of the claim, unless there is an owner already: then the
// claim is over, and was not forgotten when the power went.
func (k *Keeper) openClaim() (err error) {
	if k.config.Claim == nil {
		return nil
	}
	if k.claimKey, err = noiseconn.ClaimDiscoveryKey(k.config.Claim.Secret); err != nil {
		return reason.Errorf("open the claim of this Base: %w", err)
	}
	k.endClaim()
	return nil
}

// endClaim forgets the claim once there is an owner. The authority has forgotten it by itself.
func (k *Keeper) endClaim() {
	k.mu.Lock()
	owned := false
	for _, e := range k.enrolled {
		owned = owned || e.Role == basev1.Role_ROLE_OWNER
	}
	over := owned && !k.claimKey.Empty()
	if over {
		k.claimKey = noiseconn.DiscoveryKey{}
	}
	k.mu.Unlock()
	if !over {
		return
	}
	k.Changed.Wake()
	if k.config.ForgetClaim == nil {
		return
	}
	if err := k.config.ForgetClaim(); err != nil {
		// It is useless now, and the next start tries to remove it again.
		k.log.Error("the claim of this Base stays on its disk", "audit", true, "error", err)
	}
}

// ClaimID is the id of an mDNS record with this nonce, by which the App of the claim recognises the
// Base; ok is false if no claim is open.
func (k *Keeper) ClaimID(nonce []byte) (id [8]byte, ok bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.claimKey.Empty() || !time.Now().Before(k.config.Claim.Until) {
		return id, false
	}
	return noiseconn.DiscoveryID(k.claimKey, nonce), true
}
