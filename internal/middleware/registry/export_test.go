package registry

import (
	"time"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/noiseconn"
)

// What the tests see of the inside.
const (
	KeyStatic       = keyStatic
	KeyDiscovery    = keyDiscovery
	KeyName         = keyName
	BucketIdentity  = bucketIdentity
	BucketPairings  = bucketPairings
	BucketProgress  = bucketProgress
	BucketAddresses = bucketAddresses
	MaxLapsed       = maxLapsed
)

var ParsePairing = parsePairing

func (r *Registry) Stored() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.pairings)
}

func (r *Registry) Lapsed() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.lapsed)
}

func (r *Registry) SessionsOf(peer noiseconn.PublicKey) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.pairings[peer].sessions)
}

func (r *Registry) RoleOf(peer noiseconn.PublicKey) basev1.Role {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.pairings[peer].role
}

func (r *Registry) Delete(peer noiseconn.PublicKey) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.deleteLocked(r.pairings[peer])
}

// Age has the App come from its addresses that much earlier than it has.
func (r *Registry) Age(peer noiseconn.PublicKey, by time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for n := range r.pairings[peer].acquaintances {
		r.pairings[peer].acquaintances[n].Seen = r.pairings[peer].acquaintances[n].Seen.Add(-by)
	}
	r.indexAcquaintedLocked()
}
