package ledger

import (
	"crypto/ed25519"
	"errors"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/pairing"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/prepaired"
)

// MakePrePaired makes the helper's state of a Base that is pre-paired, in a directory that
// has none: a key of the board's own, the first revision, and the App as its
// owner, by the same code that enrols an App which was paired. It returns
// K_state.
func MakePrePaired(config Config, half *prepaired.Half) (stateKey ed25519.PublicKey, err error) {
	config.Factory.NodeName = half.BaseName
	k, err := open(config, false) // the first helper begins the log of changes
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, k.Close()) }()
	if len(k.enrolled) > 0 {
		return nil, errors.New("this Base has an owner; it cannot be pre-paired again")
	}
	registry, err := pairing.NewRegistry(pairing.Enrolled{
		SigningKey: half.SigningKey, AppKey: half.App, Role: basev1.Role_ROLE_OWNER, Name: half.AppName,
	})
	if err != nil {
		return nil, err
	}
	return k.StateKey(), k.saveRegistry(registry, func([32]byte) pairing.OwnerKey { return pairing.OwnerKey{} })
}
