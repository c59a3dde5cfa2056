package main

import "testing"

// However large the disk of the system is, node and server for wallets leave something to the Base,
// even if both were taken over.
func TestTheGuestsLeaveRoomOnTheDiskOfTheSystem(t *testing.T) {
	const gib = 1 << 30
	for total, left := range map[uint64]uint64{2 * gib: gib, 20 * gib: 4 * gib, 100 * gib: 10 * gib, 2000 * gib: 200 * gib} {
		for _, elsewhere := range []bool{false, true} {
			node, wallets := guestLimits(total, elsewhere)
			if got := total - node.Bytes - wallets.Bytes; got != left {
				t.Errorf("of %d GiB they leave %d MiB, want %d", total/gib, got>>20, left>>20)
			}
			if elsewhere != (node.Bytes < wallets.Bytes) {
				t.Errorf("of %d GiB the node has %d MiB and the server for wallets %d", total/gib, node.Bytes>>20, wallets.Bytes>>20)
			}
		}
	}
	// The disk that docs/node.md says to buy holds the chain for years, and its index.
	if node, wallets := guestLimits(2_000_000_000_000, false); node.Bytes < 1_400_000_000_000 || wallets.Bytes < 150_000_000_000 {
		t.Errorf("of 2 TB the node has %d GB and the server for wallets %d", node.Bytes/1e9, wallets.Bytes/1e9)
	}
	if _, wallets := guestLimits(256_000_000_000, true); wallets.Bytes < 150_000_000_000 {
		t.Errorf("beside a disk of the chain, of 256 GB the server for wallets has %d GB", wallets.Bytes/1e9)
	}
}
