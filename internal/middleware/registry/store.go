package registry

import (
	"crypto/ed25519"
	"encoding/binary"
	"encoding/json"
	"errors"
	"net/netip"
	"slices"
	"time"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/failpoint"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/noiseconn"
	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
	"github.com/BitBoxSwiss/bitbox-base/internal/state"
)

// The names with which the state database is opened.
const (
	// StateKind marks the database as the Middleware's.
	StateKind = "bitbox-base middleware"
	// StateSchema is the version of the layout below.
	StateSchema = 1
)

// Buckets and keys of the database.
//
//	identity  static     the Base's static key, 32 bytes
//	          discovery  K_disc, 32 bytes
//	          name       UTF-8
//	pairings  public static key of the App (32) -> storedPairing, JSON
//	progress  public static key of the App (32) -> highest seq (8) | last seen, ms since 1970 (8)
//	addresses public static key of the App (32) -> where its last session came from, as text
//	acquainted public static key of the App (32) -> []acquaintance, JSON (acquainted.go)
const (
	bucketIdentity   = "identity"
	bucketPairings   = "pairings"
	bucketProgress   = "progress"
	bucketAddresses  = "addresses" // apart from progress, whose size the previous version checks
	bucketAcquainted = "acquainted"
)

const (
	keyStatic    = "static"
	keyDiscovery = "discovery"
	keyName      = "name"
)

// identity is what makes the Base this one.
type identity struct {
	static    noiseconn.StaticKey
	public    noiseconn.PublicKey
	discovery noiseconn.DiscoveryKey
	name      string
}

// storedPairing is a pairing on disk.
type storedPairing struct {
	SigningKey []byte    `json:"signing_key"`
	PairKey    []byte    `json:"pair_key"`
	Name       string    `json:"name"`
	Role       int32     `json:"role"`
	Standing   standing  `json:"standing"`
	PairedAt   time.Time `json:"paired_at"`
	RevokedAt  time.Time `json:"revoked_at,omitzero"`
}

// update is the only way to write.
func (r *Registry) update(what string, change func(*state.Tx) error) error {
	if err := failpoint.Around(what, func() error { return r.config.DB.Update(change) }); err != nil {
		return reason.Errorf("%s: %w", what, err)
	}
	return nil
}

// loadIdentity reads the identity. Only a database with nothing in it gets a new one.
func (r *Registry) loadIdentity() error {
	var static, discovery, name []byte
	empty := true
	err := r.config.DB.View(func(tx *state.Tx) error {
		static = tx.Get(bucketIdentity, keyStatic)
		discovery = tx.Get(bucketIdentity, keyDiscovery)
		name = tx.Get(bucketIdentity, keyName)
		return tx.ForEach(bucketPairings, func(string, []byte) error {
			empty = false
			return nil
		})
	})
	if err != nil {
		return reason.Errorf("read the identity of the Base: %w", err)
	}
	if static == nil && discovery == nil && name == nil && empty {
		return r.makeIdentity()
	}
	defer clear(static)
	defer clear(discovery)
	return r.setIdentity(static, discovery, string(name))
}

func (r *Registry) setIdentity(static, discovery []byte, name string) error {
	var id identity
	var err, discoveryErr error
	id.static, err = noiseconn.ParseStatic(static)
	id.discovery, discoveryErr = noiseconn.ParseDiscoveryKey(discovery)
	if err = errors.Join(err, discoveryErr, noiseconn.CheckName(name)); err != nil {
		return reason.Errorf("read the identity of the Base: %w: %w", state.ErrDamaged, err)
	}
	id.name = name
	if id.public, err = noiseconn.PublicOf(id.static); err != nil {
		return err
	}
	r.identity = id
	return nil
}

func (r *Registry) makeIdentity() error {
	static, err := noiseconn.GenerateStatic(r.config.Random)
	if err != nil {
		return err
	}
	public, err := noiseconn.PublicOf(static)
	if err != nil {
		return err
	}
	discovery, err := noiseconn.GenerateDiscoveryKey(r.config.Random)
	if err != nil {
		return err
	}
	name := r.config.Name
	if name == "" {
		name = "bitbox-base-" + public.String()[:4] // so that two in one network differ
	}
	if err := noiseconn.CheckName(name); err != nil {
		return reason.Errorf("name the Base: %w", err)
	}
	if err := r.storeIdentity(static, discovery, name); err != nil {
		return err
	}
	r.identity = identity{static: static, public: public, discovery: discovery, name: name}
	r.logger.Info("made a new identity for this Base, which had none", "name", name, "public_key", public.String())
	return nil
}

func (r *Registry) storeIdentity(static noiseconn.StaticKey, discovery noiseconn.DiscoveryKey, name string) error {
	return r.update("store the identity of the Base", func(tx *state.Tx) error {
		return errors.Join(
			tx.Put(bucketIdentity, keyStatic, static.Expose()),
			tx.Put(bucketIdentity, keyDiscovery, discovery.Expose()),
			tx.Put(bucketIdentity, keyName, []byte(name)),
		)
	})
}

// loadPairings reads all pairings. Pending pairings have lapsed.
func (r *Registry) loadPairings() error {
	var pending []*record
	err := r.config.DB.View(func(tx *state.Tx) error {
		return tx.ForEach(bucketPairings, func(key string, value []byte) error {
			p, err := parsePairing([]byte(key), value, tx.Get(bucketProgress, key))
			if err != nil {
				return reason.Errorf("%w: %w", state.ErrDamaged, err)
			}
			if address := tx.Get(bucketAddresses, key); address != nil {
				if p.lastAddress, err = netip.ParseAddr(string(address)); err != nil {
					return reason.Errorf("%w: where a paired App came from: %w", state.ErrDamaged, err)
				}
			}
			if p.acquaintances, err = parseAcquaintances(tx.Get(bucketAcquainted, key)); err != nil {
				return reason.Errorf("%w: %w", state.ErrDamaged, err)
			}
			if p.standing == standingPending {
				pending = append(pending, p)
			} else {
				r.pairings[p.peer] = p
			}
			return nil
		})
	})
	if err != nil {
		return reason.Errorf("read the pairings: %w", err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, p := range pending {
		if err := r.dropLocked(p, "dropped a pairing whose App had not connected before the restart; it must pair again"); err != nil {
			return err
		}
	}
	return nil
}

func parsePairing(key, value, progress []byte) (*record, error) {
	var stored storedPairing
	if err := json.Unmarshal(value, &stored); err != nil {
		return nil, reason.Errorf("a pairing: %w", err)
	}
	defer clear(stored.PairKey)
	peer, peerErr := noiseconn.ParsePublicKey(key)
	pair, pairErr := noiseconn.ParsePairKey(stored.PairKey)
	if err := errors.Join(peerErr, pairErr, noiseconn.CheckName(stored.Name)); err != nil {
		return nil, reason.Errorf("a pairing: %w", err)
	}
	mac1, err := noiseconn.MAC1KeyOf(pair)
	if err != nil {
		return nil, err
	}
	role := basev1.Role(stored.Role)
	known := slices.Contains([]standing{standingPending, standingActive, standingRevoked}, stored.Standing)
	if len(stored.SigningKey) != ed25519.PublicKeySize || !MayCall(role, basev1.Role_ROLE_VIEWER) || !known {
		return nil, reason.New("a pairing: the signing key, the role or the standing is not valid")
	}
	p := &record{
		peer: peer, signingKey: stored.SigningKey, pair: pair, mac1: mac1, role: role,
		pairedAt: stored.PairedAt, name: stored.Name, standing: stored.Standing, revokedAt: stored.RevokedAt,
		sequence: restoredSequence(0),
	}
	if progress == nil {
		return p, nil
	}
	if len(progress) != 16 {
		return nil, reason.Errorf("the progress of a pairing has %d bytes, not 16", len(progress))
	}
	p.sequence = restoredSequence(binary.BigEndian.Uint64(progress))
	if ms := binary.BigEndian.Uint64(progress[8:]); ms != 0 {
		p.lastSeen = time.UnixMilli(int64(ms))
	}
	return p, nil
}

// saveLocked stores a pairing as it stands.
func (r *Registry) saveLocked(p *record) error {
	stored := storedPairing{
		SigningKey: p.signingKey, PairKey: p.pair.Expose(), Name: p.name, Role: int32(p.role),
		Standing: p.standing, PairedAt: p.pairedAt.UTC(), RevokedAt: p.revokedAt.UTC(),
	}
	value, err := json.Marshal(stored)
	if err != nil {
		return err
	}
	defer clear(value)
	return r.update("store a pairing as "+string(p.standing), func(tx *state.Tx) error {
		return tx.Put(bucketPairings, string(p.peer[:]), value)
	})
}

// storedStanding is how a pairing stands on disk; empty: it is not there.
func storedStanding(tx *state.Tx, key string) (standing, error) {
	value := tx.Get(bucketPairings, key)
	if value == nil {
		return "", nil
	}
	var stored storedPairing
	defer func() { clear(stored.PairKey) }()
	err := json.Unmarshal(value, &stored)
	return stored.Standing, err
}

func (r *Registry) deleteLocked(p *record) error {
	return r.update("delete a pairing", func(tx *state.Tx) error {
		key := string(p.peer[:])
		return errors.Join(tx.Delete(bucketPairings, key), tx.Delete(bucketProgress, key), tx.Delete(bucketAddresses, key),
			tx.Delete(bucketAcquainted, key))
	})
}
