package machinetest

import (
	"errors"
	"os"
	"path/filepath"

	"github.com/BitBoxSwiss/bitbox-base/internal/bitcoincore"
	"github.com/BitBoxSwiss/bitbox-base/internal/node/settings"
)

// NodePlace makes the folders of a node's settings below a directory, with a builder's settings:
// btcd on regtest.
func NodePlace(directory string) (settings.Place, error) {
	p := settings.At(filepath.Join(directory, "node"))
	err := errors.Join(os.MkdirAll(filepath.Dir(p.Signed), 0o755), os.MkdirAll(filepath.Dir(p.File), 0o755), os.MkdirAll(p.Data, 0o755))
	if err == nil {
		err = os.WriteFile(p.File, []byte("program btcd\nnetwork regtest\nblock-every 20s\n"), 0o644)
	}
	return p, err
}

// OnlyBtcd is a Base to which nobody has brought Bitcoin Core.
func OnlyBtcd(s settings.Settings) error {
	if s.Program == settings.Core {
		return bitcoincore.ErrNone
	}
	return nil
}
