package client

import (
	"context"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/posture"
)

// Disks has the Base look at its disks.
func (s *Session) Disks(ctx context.Context) (*basev1.ListDisksResponse, error) {
	return s.disks.ListDisks(ctx, &basev1.ListDisksRequest{})
}

// UseDisk orders a disk, as Disks has shown it, to be used for the chain. The order is signed, and
// names the disk by what was shown of it: if any of that is not so, the Base refuses it. With erase
// the owner has agreed to lose the content; a disk that has a chain needs no erasing. With small
// the owner knows that the disk is too small for the whole chain of mainnet.
//
// When it returns nil the order is certain. The node stops then, and Disks tells how it goes on.
func (s *Session) UseDisk(ctx context.Context, disk *basev1.Disk, erase, small bool) error {
	seen, err := s.look(ctx, true)
	if err != nil {
		return err
	}
	_, err = s.disks.UseDisk(ctx, &basev1.UseDiskRequest{
		Order: posture.SignDiskOrder(seen.view.DiskOrder(disk, erase, small, seen.challenge), seen.seed)})
	return err
}
