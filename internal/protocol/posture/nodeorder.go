package posture

import (
	"time"

	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
)

// SignNodeOrder signs an order about the Bitcoin node with an App's key. The result is what
// Ledger.NodeOrder takes.
func SignNodeOrder(order *systemv1.NodeOrder, seed AppSeed) []byte {
	return encode(seal(labelNodeOrder, encode(order), seed))
}

// InstallOrder returns the order to install an archive of Bitcoin Core, for SignNodeOrder. The
// challenge is a fresh one of the Base.
func (v *View) InstallOrder(archive string, hash [32]byte, challenge []byte) *systemv1.NodeOrder {
	return &systemv1.NodeOrder{BaseId: v.chain.base[:], Epoch: v.chain.epoch[:], Challenge: challenge,
		What: &systemv1.NodeOrder_Install{Install: &systemv1.InstallBitcoinCore{Archive: archive, Sha256: hash[:]}}}
}

// RebuildOrder returns the order to make the chain again, for SignNodeOrder. The challenge is a
// fresh one of the Base.
func (v *View) RebuildOrder(way systemv1.RebuildChain_Way, challenge []byte) *systemv1.NodeOrder {
	return &systemv1.NodeOrder{BaseId: v.chain.base[:], Epoch: v.chain.epoch[:], Challenge: challenge,
		What: &systemv1.NodeOrder_Rebuild{Rebuild: &systemv1.RebuildChain{Way: way}}}
}

// NodeOrder takes an order of an owner's App about the node. It is no part of the chain: it says
// what to do once. Its challenge is used up.
func (l *Ledger) NodeOrder(signed []byte, now time.Duration) (*systemv1.NodeOrder, Output, error) {
	return l.nodeOrderWith(orderChecks, signed, now)
}

func (l *Ledger) nodeOrderWith(checks []orderCheck, signed []byte, now time.Duration) (*systemv1.NodeOrder, Output, error) {
	out := l.Tick(now)
	m := &systemv1.NodeOrder{}
	if _, err := l.takeOrder(checks, labelNodeOrder, signed, m, now); err != nil {
		return nil, out, err
	}
	return m, out, nil
}
