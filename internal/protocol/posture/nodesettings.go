package posture

import (
	"time"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
)

// SignNodeSettings signs the order to run another node with an App's key. The result is what
// Ledger.ChangeNode takes.
func SignNodeSettings(order *systemv1.NodeSettingsOrder, seed AppSeed) []byte {
	return encode(seal(labelNodeSettings, encode(order), seed))
}

// NodeSettingsOrder returns the order to run a node with these settings, for SignNodeSettings. The
// challenge is a fresh one of the Base.
func (v *View) NodeSettingsOrder(settings *basev1.NodeSettings, challenge []byte) *systemv1.NodeSettingsOrder {
	return &systemv1.NodeSettingsOrder{BaseId: v.chain.base[:], Epoch: v.chain.epoch[:], Challenge: challenge, Settings: settings}
}

// ChangeNode takes the order of an owner's App to run another node, and returns the settings, which
// the caller checks. The order is no part of the posture. Its challenge is used up.
func (l *Ledger) ChangeNode(signed []byte, now time.Duration) (*basev1.NodeSettings, Output, error) {
	return l.changeNodeWith(orderChecks, signed, now)
}

func (l *Ledger) changeNodeWith(checks []orderCheck, signed []byte, now time.Duration) (*basev1.NodeSettings, Output, error) {
	out := l.Tick(now)
	m := &systemv1.NodeSettingsOrder{}
	if _, err := l.takeOrder(checks, labelNodeSettings, signed, m, now); err != nil {
		return nil, out, err
	}
	return m.GetSettings(), out, nil
}
