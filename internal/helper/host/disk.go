package host

import (
	"context"
	"time"

	"github.com/BitBoxSwiss/bitbox-base/internal/helper/chaindisk"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/generation"
)

// The units say how long they may take themselves: the node to stop, and a disk to be checked.
const (
	nodeStopTime  = 11 * time.Minute
	diskReadyTime = 46 * time.Minute
)

// LookAtDisks implements chaindisk.Machine.
func (m Host) LookAtDisks(ctx context.Context) error { return m.once(ctx, "start", chaindisk.LookUnit) }

// PrepareDisk implements chaindisk.Machine. The mount is stopped after the node that needs it;
// where there is none, there is nothing to stop.
func (m Host) PrepareDisk(ctx context.Context) error {
	if err := m.unitWithin(ctx, nodeStopTime, "stop", generation.ChainUnit); err != nil {
		return err
	}
	if m.active(ctx, chaindisk.MountUnit) {
		if err := m.unit(ctx, "stop", chaindisk.MountUnit); err != nil {
			return err
		}
	}
	if err := m.unitWithin(ctx, diskReadyTime, "start", chaindisk.ReadyUnit); err != nil {
		return err
	}
	return m.unit(ctx, "start", generation.ChainUnit)
}
