package system

import (
	"fmt"
	"time"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/discovery"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/noiseconn"
)

// openClaim begins to wait for the App of the claim, unless there is an owner already: then the
// claim is over, and was not forgotten when the power went.
func (h *Helper) openClaim() (err error) {
	if h.config.Claim == nil {
		return nil
	}
	if h.claimID, err = noiseconn.ClaimDiscoveryKey(h.config.Claim.Secret); err != nil {
		return fmt.Errorf("open the claim of this Base: %w", err)
	}
	h.endClaim()
	return nil
}

// endClaim forgets the claim once there is an owner. The authority has forgotten it by itself.
func (h *Helper) endClaim() {
	h.mu.Lock()
	owned := false
	for _, e := range h.enrolled {
		owned = owned || e.Role == basev1.Role_ROLE_OWNER
	}
	over := owned && !h.claimID.Empty()
	if over {
		h.claimID = noiseconn.DiscoveryKey{}
	}
	h.mu.Unlock()
	if !over {
		return
	}
	h.announcer.Wake()
	if h.config.ForgetClaim == nil {
		return
	}
	if err := h.config.ForgetClaim(); err != nil {
		// It is of no use any more, and the next start tries again.
		h.log.Error("the claim of this Base stays on its disk", "audit", true, "error", err)
	}
}

// announcedLocked is what the Middleware wants told. Before there is an owner, no App knows the
// Base but that of the claim, and the id is for that one.
func (h *Helper) announcedLocked() discovery.TXT {
	txt := *h.announced
	if !h.claimID.Empty() && time.Now().Before(h.config.Claim.Until) {
		txt.ID = noiseconn.DiscoveryID(h.claimID, txt.Nonce[:])
	}
	return txt
}
