package pairing

import (
	"crypto/ed25519"
	"slices"
	"time"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/noiseconn"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/publickey"
	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
)

// entry is one enrolled key.
type entry struct {
	signingKey [ed25519.PublicKeySize]byte // K_sign
	appKey     noiseconn.PublicKey         // as the Middleware told it
	role       basev1.Role
	name       string
	active     bool

	// Of a pending entry only, and never stored.
	ceremony CeremonyID
	expires  time.Duration
	byOwner  OwnerKey // the owner whose App has answered, and who must still be one

	// orderedBy is the owner who has ordered the pairing; never stored, for the
	// posture's history tells it.
	orderedBy OwnerKey
}

// registry holds the enrolled keys, at most MaxKeys.
type registry []entry

func (r registry) find(signingKey []byte) *entry {
	for i := range r {
		if string(r[i].signingKey[:]) == string(signingKey) {
			return &r[i]
		}
	}
	return nil
}

func (r registry) hasAppKey(key noiseconn.PublicKey) bool {
	return slices.ContainsFunc(r, func(e entry) bool { return e.appKey == key })
}

// The pairings that hasOwner counts.
const (
	activeOnly = true
	pendingToo = false
)

func (r registry) hasOwner(activeOnly bool) bool {
	return slices.ContainsFunc(r, func(e entry) bool {
		return e.role == basev1.Role_ROLE_OWNER && (e.active || !activeOnly)
	})
}

// dropPending forgets a key that an earlier ceremony has left.
func (r *registry) dropPending(signingKey []byte) {
	*r = slices.DeleteFunc(*r, func(e entry) bool { return !e.active && string(e.signingKey[:]) == string(signingKey) })
}

func (r *registry) expire(now time.Duration) {
	*r = slices.DeleteFunc(*r, func(e entry) bool { return !e.active && e.expires <= now })
}

func roleExists(role basev1.Role) bool {
	return role >= basev1.Role_ROLE_VIEWER && role <= basev1.Role_ROLE_OWNER
}

// The registry as it is stored. Pending entries are not: they die at a restart.
//
//	offset  size
//	0       1     version, 1
//	1       1     number of entries
//	then each entry:
//	0       32    K_sign
//	32      32    the App's public static key
//	64      1     role, by its number in the API
//	65      1     length of the name
//	66      63    name, zero padded
const (
	registryVersion = 1
	entrySize       = 32 + 32 + 1 + 1 + noiseconn.MaxNameSize
)

func (r registry) marshal() []byte {
	b := []byte{registryVersion, 0}
	for _, e := range r {
		if !e.active {
			continue
		}
		b[1]++
		b = append(b, e.signingKey[:]...)
		b = append(b, e.appKey[:]...)
		b = append(b, byte(e.role), byte(len(e.name)))
		b = append(b, e.name...)
		b = append(b, make([]byte, noiseconn.MaxNameSize-len(e.name))...)
	}
	return b
}

// parseRegistry accepts what marshal writes and nothing else. nil is the registry
// of a new Base.
func parseRegistry(b []byte) (registry, error) {
	if b == nil {
		return nil, nil
	}
	if len(b) < 2 {
		return nil, reason.Errorf("it is damaged: %d bytes are too few", len(b))
	}
	if b[0] != registryVersion {
		return nil, reason.Errorf("it has version %d, and this program knows version %d; install the version that wrote it, or a newer one", b[0], registryVersion)
	}
	count := int(b[1])
	if count > MaxKeys || len(b) != 2+count*entrySize {
		return nil, reason.Errorf("it is damaged: %d bytes with %d keys", len(b), count)
	}
	var r registry
	for field := range slices.Chunk(b[2:], entrySize) {
		e, err := parseEntry(field)
		if err != nil {
			return nil, reason.Errorf("it is damaged: key %d: %w", len(r)+1, err)
		}
		if r.find(e.signingKey[:]) != nil || r.hasAppKey(e.appKey) {
			return nil, reason.Errorf("it is damaged: key %d is there twice", len(r)+1)
		}
		r = append(r, e)
	}
	return r, nil
}

func parseEntry(b []byte) (entry, error) {
	role, length, name := basev1.Role(b[64]), int(b[65]), b[66:]
	if !roleExists(role) {
		return entry{}, reason.Errorf("there is no role %d", role)
	}
	if length > len(name) || slices.ContainsFunc(name[min(length, len(name)):], func(c byte) bool { return c != 0 }) {
		return entry{}, reason.New("the name's length is wrong")
	}
	if err := noiseconn.CheckName(string(name[:length])); err != nil {
		return entry{}, err
	}
	if err := publickey.CheckSigning(b[:32]); err != nil {
		return entry{}, err
	}
	return entry{
		signingKey: [ed25519.PublicKeySize]byte(b[:32]),
		appKey:     noiseconn.PublicKey(b[32:64]),
		role:       role,
		name:       string(name[:length]),
		active:     true,
	}, nil
}
