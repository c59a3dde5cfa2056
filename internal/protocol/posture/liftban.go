package posture

import (
	"net/netip"
	"time"

	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
)

// SignLiftBan signs the order to lift a ban with an App's key. The result is what
// Ledger.LiftBan takes.
func SignLiftBan(order *systemv1.LiftBanOrder, seed AppSeed) []byte {
	return encode(seal(labelLiftBan, encode(order), seed))
}

// LiftBanOrder returns the order to let an address in again, for SignLiftBan. The
// challenge is a fresh one of the Base.
func (v *View) LiftBanOrder(addr netip.Addr, challenge []byte) *systemv1.LiftBanOrder {
	return &systemv1.LiftBanOrder{
		BaseId: v.chain.base[:], Epoch: v.chain.epoch[:], Challenge: challenge, Address: addr.Unmap().String(),
	}
}

// LiftBan takes the order of an owner's App to let an address in again, and
// returns the address. The order is no part of the chain: a ban ends by itself
// anyway. Its challenge is used up.
func (l *Ledger) LiftBan(signed []byte, now time.Duration) (netip.Addr, Output, error) {
	return l.liftBanWith(orderChecks, signed, now)
}

func (l *Ledger) liftBanWith(checks []orderCheck, signed []byte, now time.Duration) (netip.Addr, Output, error) {
	out := l.Tick(now)
	m := &systemv1.LiftBanOrder{}
	if _, err := l.takeOrder(checks, labelLiftBan, signed, m, now); err != nil {
		return netip.Addr{}, out, err
	}
	addr, err := netip.ParseAddr(m.GetAddress())
	if err != nil {
		return netip.Addr{}, out, reason.Errorf("%w: the address: %w", ErrMalformed, err)
	}
	return addr.Unmap().WithZone(""), out, nil
}
