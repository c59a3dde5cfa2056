package devbase

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/BitBoxSwiss/bitbox-base/internal/failpoint"
	"github.com/BitBoxSwiss/bitbox-base/internal/ipc"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/pairing"
	"github.com/BitBoxSwiss/bitbox-base/internal/secret"
	"github.com/BitBoxSwiss/bitbox-base/internal/state"
)

// The authority's state, apart from the Middleware's.
//
//	authority  seed      the Ed25519 seed of K_state, 32 bytes
//	           registry  what pairing.Machine asked to save last
const (
	authorityFile   = "authority.db"
	authorityKind   = "bitbox-base authority"
	authoritySchema = 1

	bucketAuthority = "authority"
	keySeed         = "seed"
	keyRegistry     = "registry"
)

var (
	parseStateKey    func([]byte) (pairing.StateKey, error)    = secret.New
	generateStateKey func(io.Reader) (pairing.StateKey, error) = secret.Generate
)

// authorityConfig is the configuration of an authority.
type authorityConfig struct {
	stateDir    string
	baseName    func() string
	random      io.Reader            // nil: the system's
	codeModulus uint32               // 0: the protocol's
	now         func() time.Duration // nil: the process's monotonic clock
	logger      *slog.Logger
}

// authority is the ceremony authority with its state.
type authority struct {
	*pairing.Service
	db *state.DB
}

// openAuthority reads the authority's state, or makes it if there never was one.
func openAuthority(config authorityConfig) (*authority, error) {
	db, err := state.Open(filepath.Join(config.stateDir, authorityFile),
		state.Options{Kind: authorityKind, Schema: authoritySchema, Create: true})
	if err != nil {
		return nil, err
	}
	a := &authority{db: db}
	machine, err := loadMachine(db, config)
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	a.Service = pairing.NewService(pairing.ServiceConfig{
		Machine: machine,
		Now:     config.now,
		Save: func(registry []byte) error {
			return store(db, "store the authority's registry", keyRegistry, registry)
		},
	})
	return a, nil
}

func loadMachine(db *state.DB, config authorityConfig) (*pairing.Machine, error) {
	var seed, registry []byte
	err := db.View(func(tx *state.Tx) error {
		seed, registry = tx.Get(bucketAuthority, keySeed), tx.Get(bucketAuthority, keyRegistry)
		return nil
	})
	if err != nil {
		return nil, err
	}
	defer clear(seed)
	key, err := stateKey(db, seed, registry, config)
	if err != nil {
		return nil, fmt.Errorf("read the authority's key: %w", err)
	}
	return pairing.NewMachine(pairing.Config{
		Random:      config.random,
		BaseName:    config.baseName,
		StateKey:    key,
		Registry:    registry,
		CodeModulus: config.codeModulus,
	})
}

// stateKey parses the seed of K_state. Only an authority with an empty state gets a new one.
func stateKey(db *state.DB, seed, registry []byte, config authorityConfig) (pairing.StateKey, error) {
	if seed != nil {
		key, err := parseStateKey(seed)
		if err != nil {
			return key, fmt.Errorf("%w: %w", state.ErrDamaged, err)
		}
		return key, nil
	}
	if registry != nil {
		return pairing.StateKey{}, fmt.Errorf("%w: the registry is there, the key is not", state.ErrDamaged)
	}
	key, err := generateStateKey(config.random)
	if err != nil {
		return key, err
	}
	if err := store(db, "store the authority's key", keySeed, key.Expose()); err != nil {
		return pairing.StateKey{}, err
	}
	public := ed25519.NewKeyFromSeed(key.Expose()).Public().(ed25519.PublicKey)
	config.logger.Info("made a new key for the ceremony authority, which had none", "audit", true, "public_key",
		fmt.Sprintf("%x", []byte(public)))
	return key, nil
}

// close ends the Service and closes the state.
func (a *authority) close() error {
	a.Close()
	return a.db.Close()
}

// console answers requests of the commands `bitbox-base pairing …` on a socket.
func (a *authority) console() ipc.Handler {
	return func(ctx context.Context, _ ipc.Peer, request *ipc.Request, send func([]byte) error) error {
		message, err := request.Read()
		if err != nil {
			return err
		}
		answer, err := pairing.Answer(ctx, a.Port(pairing.CallerConsole), message)
		if err != nil {
			return err
		}
		return send(answer)
	}
}

// store is the only way to write.
func store(db *state.DB, what, key string, value []byte) error {
	return failpoint.Around(what, func() error {
		return db.Update(func(tx *state.Tx) error { return tx.Put(bucketAuthority, key, value) })
	})
}
