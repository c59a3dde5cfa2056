package ledger

import (
	"encoding/binary"
	"io"
	"path/filepath"
	"time"

	"github.com/BitBoxSwiss/bitbox-base/internal/failpoint"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/changelog"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/pairing"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/posture"
	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
	"github.com/BitBoxSwiss/bitbox-base/internal/secret"
	"github.com/BitBoxSwiss/bitbox-base/internal/state"
)

// The helper's state, one file so that keys and posture change together.
//
//	system  seed      the Ed25519 seed of K_state, 32 bytes
//	        registry  what the ceremony authority asked to save last
//	        ledger    what the posture's ledger asked to save last
//	        changes   an entry that the log of changes has (internal/helper/changerecorder): number (8) | hash (32)
const (
	stateKind   = "bitbox-base system"
	stateSchema = 1

	bucket      = "system"
	keySeed     = "seed"
	keyRegistry = "registry"
	keyLedger   = "ledger"
	keyChanges  = "changes"

	// stateWait is how long a starting helper waits for the one before to end.
	stateWait = 10 * time.Second
)

var (
	parseSeed     func([]byte) (posture.StateSeed, error)    = secret.New
	generateSeed  func(io.Reader) (posture.StateSeed, error) = secret.Generate
	parseStateKey func([]byte) (pairing.StateKey, error)     = secret.New
)

// StateFile is the name of the state in its directory.
const StateFile = "system.db"

// Saved is what is written together or not at all.
type Saved struct {
	Registry []byte // nil: nobody was ever enrolled
	Ledger   []byte // nil: there never was a posture
}

// Store is the state with its last saved values.
type Store struct {
	Saved

	db   *state.DB
	seed posture.StateSeed
	// floor is the entry of keyChanges, nil if there never was a log of changes; present, if
	// set, returns what it is to be from now on.
	floor   *changelog.Floor
	present func() *changelog.Floor
}

// OpenStore opens the state in a directory, or makes it.
func OpenStore(directory string, random io.Reader) (*Store, error) {
	db, err := state.Open(filepath.Join(directory, StateFile),
		state.Options{Kind: stateKind, Schema: stateSchema, Create: true, Wait: stateWait})
	if err != nil {
		return nil, err
	}
	s := &Store{db: db}
	if err := s.load(random); err != nil {
		_ = db.Close()
		return nil, err
	}
	return s, nil
}

func (s *Store) load(random io.Reader) error {
	var seed, floor []byte
	err := s.db.View(func(tx *state.Tx) error {
		floor = tx.Get(bucket, keyChanges)
		seed, s.Registry, s.Ledger = tx.Get(bucket, keySeed), tx.Get(bucket, keyRegistry), tx.Get(bucket, keyLedger)
		return nil
	})
	if err != nil {
		return err
	}
	defer clear(seed)
	if floor != nil {
		if len(floor) != floorSize {
			return reason.Errorf("read where the log of changes was: %w", state.ErrDamaged)
		}
		s.floor = &changelog.Floor{Number: binary.BigEndian.Uint64(floor), Hash: changelog.Hash(floor[8:])}
	}
	switch {
	case seed != nil:
		if s.seed, err = parseSeed(seed); err != nil {
			return reason.Errorf("read the Base's key: %w: %w", state.ErrDamaged, err)
		}
		return nil
	case s.Registry != nil || s.Ledger != nil:
		// A new key would make every App take this Base for another.
		return reason.Errorf("read the Base's key: %w: it is missing, though there is a posture", state.ErrDamaged)
	}
	if s.seed, err = generateSeed(random); err != nil {
		return reason.Errorf("make the Base's key: %w", err)
	}
	return s.db.Update(func(tx *state.Tx) error { return tx.Put(bucket, keySeed, s.seed.Expose()) })
}

// floorSize is the length of keyChanges, in bytes.
const floorSize = 8 + len(changelog.Hash{})

func (s *Store) stateKey() (pairing.StateKey, error) { return parseStateKey(s.seed.Expose()) }

// Save writes both; nil is left as it is.
func (s *Store) Save(c Saved) error {
	if c.Registry == nil && c.Ledger == nil {
		return nil
	}
	var floor *changelog.Floor
	if s.present != nil {
		floor = s.present()
	}
	if err := failpoint.Reach("save"); err != nil {
		return reason.Errorf("save the posture: %w", err)
	}
	err := s.db.Update(func(tx *state.Tx) error {
		if c.Registry != nil {
			if err := tx.Put(bucket, keyRegistry, c.Registry); err != nil {
				return err
			}
		}
		if floor != nil {
			if err := tx.Put(bucket, keyChanges, append(binary.BigEndian.AppendUint64(nil, floor.Number), floor.Hash[:]...)); err != nil {
				return err
			}
		}
		if c.Ledger == nil {
			return nil
		}
		return tx.Put(bucket, keyLedger, c.Ledger)
	})
	if err != nil {
		return reason.Errorf("save the posture: %w", err)
	}
	if c.Registry != nil {
		s.Registry = c.Registry
	}
	if c.Ledger != nil {
		s.Ledger = c.Ledger
	}
	return failpoint.Reach("saved")
}

// Close closes the file.
func (s *Store) Close() error { return s.db.Close() }
