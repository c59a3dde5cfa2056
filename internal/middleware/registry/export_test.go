package registry

import (
	"encoding/binary"
	"time"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/noiseconn"
	"github.com/BitBoxSwiss/bitbox-base/internal/state"
)

// Internals that the tests use.
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

// Age makes the App's addresses that much older.
func (r *Registry) Age(peer noiseconn.PublicKey, by time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for n := range r.pairings[peer].acquaintances {
		r.pairings[peer].acquaintances[n].Seen = r.pairings[peer].acquaintances[n].Seen.Add(-by)
	}
	r.indexAcquaintedLocked()
}

// Kill ends the saving as a kill does: unsaved changes are lost.
func (r *Registry) Kill() {
	r.mu.Lock()
	clear(r.saver.dirty)
	r.mu.Unlock()
	r.Close()
}

// SavedSeq is the number of an App on disk.
func (r *Registry) SavedSeq(peer noiseconn.PublicKey) (seq uint64) {
	_ = r.config.DB.View(func(tx *state.Tx) error {
		if value := tx.Get(bucketProgress, string(peer[:])); len(value) == 16 {
			seq = binary.BigEndian.Uint64(value)
		}
		return nil
	})
	return seq
}

// StoreSeq writes a number past the Registry.
func (r *Registry) StoreSeq(peer noiseconn.PublicKey, seq uint64) error {
	return r.config.DB.Update(func(tx *state.Tx) error {
		return tx.Put(bucketProgress, string(peer[:]), binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, seq), 0))
	})
}
