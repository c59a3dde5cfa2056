package ledger

import (
	"errors"

	"github.com/BitBoxSwiss/bitbox-base/internal/helper/generation"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/posture"
	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
	"github.com/BitBoxSwiss/bitbox-base/internal/state"
)

// Closed is in force when nobody can tell what should be: the entry alone, where
// the Middleware answers nobody without the helper.
func Closed() posture.Effective {
	factory := posture.Factory()
	return posture.Effective{
		NodeName:      factory.NodeName,
		Endpoints:     []posture.Endpoint{{Kind: posture.KindEntry, Port: posture.EntryPort}},
		Bans:          factory.Bans,
		PairingClosed: true,
	}
}

// Prepare brings the configuration on disk in line with the ledger before anything
// of it is read: at boot, before the packet filter is loaded. A try that was on, and
// SSH's lease, have ended by then. If the state cannot be used, the configuration is
// that of a closed Base, and the log says why. The error is one of writing it; then
// nothing may start.
func Prepare(config Config) error {
	wanted := Closed()
	k, err := Open(config)
	if err == nil {
		wanted = k.Effective()
		err = k.Close()
	}
	if errors.Is(err, state.ErrInUse) {
		return err // the helper runs, and does that
	}
	if err != nil && config.Logger != nil {
		config.Logger.Error("the posture cannot be read, so the Base is closed", "audit", true, "error", err)
	}
	return writeGeneration(config.Directory, wanted)
}

// writeGeneration puts wanted in force on disk, unless it is.
func writeGeneration(directory string, wanted posture.Effective) error {
	files, err := generation.RenderFor(wanted, generation.ThisMachine())
	if err != nil {
		return err
	}
	store := generation.NewStore(directory)
	current, err := store.Current()
	if err != nil && !errors.Is(err, generation.ErrNone) {
		return reason.Errorf("prepare the configuration: %w", err)
	}
	if err == nil {
		if drift, err := store.Verify(files); err == nil && len(drift) == 0 {
			return nil
		}
	}
	if err := store.Write(current+1, files); err != nil {
		return err
	}
	return store.Switch(current + 1)
}
