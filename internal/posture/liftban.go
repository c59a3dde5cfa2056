package posture

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
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

// liftBanCheck is one reason to refuse an order.
type liftBanCheck struct {
	name   string
	refuse func(*Ledger, *liftBan) error
}

type liftBan struct {
	signed *systemv1.Signed
	m      *systemv1.LiftBanOrder
	now    time.Duration
}

// liftBanChecks stand in the order in which they are made.
var liftBanChecks = []liftBanCheck{
	{"no unknown field", func(_ *Ledger, o *liftBan) error {
		return errors.Join(refuseUnknown(o.signed.ProtoReflect()), refuseUnknown(o.m.ProtoReflect()))
	}},
	{"this Base", func(l *Ledger, o *liftBan) error {
		return unless(bytes.Equal(o.m.GetBaseId(), l.chain.base[:]), ErrWrongBase)
	}},
	{"this epoch", func(l *Ledger, o *liftBan) error {
		return unless(bytes.Equal(o.m.GetEpoch(), l.chain.epoch[:]), ErrWrongEpoch)
	}},
	{"signer", func(l *Ledger, o *liftBan) error {
		owner := slices.ContainsFunc(l.Effective().Apps, func(a App) bool {
			return a.Role == roleOwner && bytes.Equal(a.SigningKey[:], o.signed.GetSigner())
		})
		return unless(owner, ErrNotOwner)
	}},
	{"signature", func(_ *Ledger, o *liftBan) error { return verify(labelLiftBan, o.signed) }},
	{"challenge", func(l *Ledger, o *liftBan) error { return l.checkChallenge(o.m.GetChallenge(), o.now) }},
}

// LiftBan takes the order of an owner's App to let an address in again, and
// returns the address. The order is no part of the chain: a ban ends by itself
// anyway. Its challenge is used up.
func (l *Ledger) LiftBan(signed []byte, now time.Duration) (netip.Addr, Output, error) {
	return l.liftBanWith(liftBanChecks, signed, now)
}

func (l *Ledger) liftBanWith(checks []liftBanCheck, signed []byte, now time.Duration) (netip.Addr, Output, error) {
	out := l.Tick(now)
	o := &liftBan{signed: &systemv1.Signed{}, m: &systemv1.LiftBanOrder{}, now: now}
	if err := errors.Join(read(signed, MaxDocumentSize, o.signed), read(o.signed.GetMessage(), MaxDocumentSize, o.m)); err != nil {
		return netip.Addr{}, out, fmt.Errorf("lift a ban: %w", err)
	}
	for _, check := range checks {
		if err := check.refuse(l, o); err != nil {
			return netip.Addr{}, out, fmt.Errorf("lift a ban: %w", err)
		}
	}
	l.challenges = slices.DeleteFunc(slices.Clone(l.challenges), func(c challenge) bool {
		return bytes.Equal(c.value[:], o.m.GetChallenge())
	})
	addr, err := netip.ParseAddr(o.m.GetAddress())
	if err != nil {
		return netip.Addr{}, out, fmt.Errorf("lift a ban: %w: the address: %w", ErrMalformed, err)
	}
	return addr.Unmap().WithZone(""), out, nil
}
