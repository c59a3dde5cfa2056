package main

import "testing"

// However large the disk of the system is, the node leaves something to the Base.
func TestTheNodeLeavesRoomOnTheDiskOfTheSystem(t *testing.T) {
	const gib = 1 << 30
	for total, left := range map[uint64]uint64{2 * gib: gib, 20 * gib: 4 * gib, 100 * gib: 10 * gib, 2000 * gib: 200 * gib} {
		if got := total - nodeLimits(total).Bytes; got != left {
			t.Errorf("of %d GiB it leaves %d MiB, want %d", total/gib, got>>20, left>>20)
		}
	}
}
