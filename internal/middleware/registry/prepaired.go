package registry

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/boottime"
	"github.com/BitBoxSwiss/bitbox-base/internal/middleware/events"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/noiseconn"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/prepaired"
	"github.com/BitBoxSwiss/bitbox-base/internal/state"
)

// A Base that was pre-paired (package prepaired) has two entries of its App at first: the
// image's, which may fetch this board's keys, and the board's own, which
// is a pairing like any other. When the App has come with the board's keys once,
// the image's can no longer be used.

const (
	bucketPrePaired = "prepaired"
	keyApp          = "app"
	keyImage        = "image"
	keyCertificate  = "certificate"
)

// ErrPrePaired: an App that came with the keys of an image asks for something else, or again.
var ErrPrePaired = errors.New("the keys of an image serve to fetch those of its board, once, and for nothing else")

// MakePrePaired makes the state of a Base that is pre-paired: its identity, the entries of
// its App, and the certificate of K_state. It fails for a state that has anything in it.
func MakePrePaired(db *state.DB, half *prepaired.Half, stateKey ed25519.PublicKey) error {
	r := &Registry{config: Config{DB: db}, logger: slog.New(slog.DiscardHandler), events: events.Open(nil, slog.New(slog.DiscardHandler)),
		pairings: map[noiseconn.PublicKey]*record{}}
	var used bool
	err := db.View(func(tx *state.Tx) error {
		for _, bucket := range []string{bucketIdentity, bucketPairings, bucketPrePaired} {
			if err := tx.ForEach(bucket, func(string, []byte) error { used = true; return nil }); err != nil {
				return err
			}
		}
		return nil
	})
	switch {
	case err != nil:
		return err
	case used:
		return errors.New("this Base has an identity; it cannot be pre-paired again")
	}
	certificate, err := half.Certify(stateKey)
	if err != nil {
		return err
	}
	if err := r.storeIdentity(half.Static, half.Discovery, half.BaseName); err != nil {
		return err
	}
	pair, err := noiseconn.GeneratePairKey(nil)
	if err != nil {
		return err
	}
	now := time.Now()
	for _, p := range []*record{{peer: half.App, pair: pair, standing: standingActive},
		{peer: half.ImageApp, pair: half.Image, standing: standingPrePaired}} {
		p.signingKey, p.role, p.name, p.pairedAt = half.SigningKey[:], basev1.Role_ROLE_OWNER, half.AppName, now
		if err := r.saveLocked(p); err != nil {
			return err
		}
	}
	return r.update("store the certificate of a pre-paired Base", func(tx *state.Tx) error {
		return errors.Join(
			tx.Put(bucketPrePaired, keyApp, half.App[:]),
			tx.Put(bucketPrePaired, keyImage, half.ImageApp[:]),
			tx.Put(bucketPrePaired, keyCertificate, slices.Concat(stateKey, certificate)),
		)
	})
}

// beginPrePaired begins the session of an App that came with the image's keys; nil: it
// came with others.
func (r *Registry) beginPrePaired(p *record, cut func()) *Session {
	r.mu.Lock()
	defer r.mu.Unlock()
	if p.standing != standingPrePaired {
		return nil
	}
	s := &Session{registry: r, app: p, beganAt: boottime.Clock(), cut: cut, limit: time.AfterFunc(prePairedTime, cut)}
	p.sessions = append(p.sessions, s)
	for _, oldest := range p.sessions[:max(0, len(p.sessions)-MaxSessions)] {
		oldest.cut()
	}
	return s
}

// prePairedTime is how long a session with the image's keys lasts.
const prePairedTime = 30 * time.Second

// usedUp makes the image's keys useless once p, the App with the board's own, is here.
// That is on disk before the App gets an answer.
func (r *Registry) usedUp(p *record) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	var image *record
	for _, other := range r.pairings {
		if other.standing == standingPrePaired && p.signingKey.Equal(other.signingKey) {
			image = other
		}
	}
	if image == nil {
		return nil
	}
	image.standing = standingUsedUp
	if err := r.saveLocked(image); err != nil {
		image.standing = standingPrePaired
		return err
	}
	for _, s := range image.sessions {
		s.cut()
	}
	r.indexLocked()
	r.audit("the App that this Base was pre-paired with has fetched its keys; the image's keys can no longer be used", p)
	return nil
}

// PrePairedKeysOf returns the board's keys to an App that came with the image's.
func (r *Registry) PrePairedKeysOf(s *Session) (*basev1.FetchKeysResponse, error) {
	var app, image, certificate []byte
	err := r.config.DB.View(func(tx *state.Tx) error {
		app, image, certificate = tx.Get(bucketPrePaired, keyApp), tx.Get(bucketPrePaired, keyImage), tx.Get(bucketPrePaired, keyCertificate)
		return nil
	})
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(app) != noiseconn.KeySize || len(certificate) != ed25519.PublicKeySize+ed25519.SignatureSize ||
		string(image) != string(s.app.peer[:]) {
		return nil, fmt.Errorf("read the certificate of a pre-paired Base: %w", state.ErrDamaged)
	}
	own := r.pairings[noiseconn.PublicKey(app)]
	if own == nil || own.standing != standingActive || s.app.standing != standingPrePaired {
		return nil, ErrPrePaired
	}
	return &basev1.FetchKeysResponse{
		PairKey:   slices.Clone(own.pair.Expose()),
		StateKey:  certificate[:ed25519.PublicKeySize],
		Signature: certificate[ed25519.PublicKeySize:],
	}, nil
}
