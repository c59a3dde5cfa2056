package posture

import (
	"time"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
)

// SignDiskOrder signs the order to use a disk for the chain with an App's key. The result is what
// Ledger.UseDisk takes.
func SignDiskOrder(order *systemv1.DiskOrder, seed AppSeed) []byte {
	return encode(seal(labelDisk, encode(order), seed))
}

// DiskOrder returns the order to use a disk for the chain, for SignDiskOrder. It has what the owner
// has seen of the disk, and has agreed to. The challenge is a fresh one of the Base.
func (v *View) DiskOrder(d *basev1.Disk, erase, small bool, challenge []byte) *systemv1.DiskOrder {
	return &systemv1.DiskOrder{
		BaseId: v.chain.base[:], Epoch: v.chain.epoch[:], Challenge: challenge, Id: d.GetId(), Model: d.GetModel(), SerialEnd: d.GetSerialEnd(),
		SizeBytes: d.GetSizeBytes(), Content: d.GetContent(), Erase: erase, Small: small,
	}
}

// UseDisk takes the order of an owner's App to use a disk for the chain, and returns it. The order
// is no part of the posture. Its challenge is used up. The caller compares the order with the
// disk.
func (l *Ledger) UseDisk(signed []byte, now time.Duration) (*systemv1.DiskOrder, Output, error) {
	return l.useDiskWith(orderChecks, signed, now)
}

func (l *Ledger) useDiskWith(checks []orderCheck, signed []byte, now time.Duration) (*systemv1.DiskOrder, Output, error) {
	out := l.Tick(now)
	m := &systemv1.DiskOrder{}
	if _, err := l.takeOrder(checks, labelDisk, signed, m, now); err != nil {
		return nil, out, err
	}
	return m, out, nil
}
