package posture

import (
	"bytes"
	"errors"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
)

// ownersOrder is what an owner signs that is no part of the chain: it says what to do
// once, not how open the Base shall be.
type ownersOrder interface {
	proto.Message
	GetBaseId() []byte
	GetEpoch() []byte
	GetChallenge() []byte
}

// givenOrder is an order with its envelope.
type givenOrder struct {
	label  string
	signed *systemv1.Signed
	m      ownersOrder
	now    time.Duration
}

// orderCheck is one reason to refuse an order.
type orderCheck struct {
	name   string
	refuse func(*Ledger, *givenOrder) error
}

// orderChecks stand in the order in which they are made.
var orderChecks = []orderCheck{
	{"no unknown field", func(_ *Ledger, o *givenOrder) error {
		return errors.Join(refuseUnknown(o.signed.ProtoReflect()), refuseUnknown(o.m.ProtoReflect()))
	}},
	{"this Base", func(l *Ledger, o *givenOrder) error {
		return unless(bytes.Equal(o.m.GetBaseId(), l.chain.base[:]), ErrWrongBase)
	}},
	{"this epoch", func(l *Ledger, o *givenOrder) error {
		return unless(bytes.Equal(o.m.GetEpoch(), l.chain.epoch[:]), ErrWrongEpoch)
	}},
	{"signer", func(l *Ledger, o *givenOrder) error {
		return unless(l.isOwner(o.signed.GetSigner()), ErrNotOwner)
	}},
	{"signature", func(_ *Ledger, o *givenOrder) error { return verify(o.label, o.signed) }},
	{"challenge", func(l *Ledger, o *givenOrder) error { return l.checkChallenge(o.m.GetChallenge(), o.now) }},
}

// takeOrder reads a signed order into m, uses its challenge up, and returns its signer.
// If it fails, nothing has changed.
func (l *Ledger) takeOrder(checks []orderCheck, label string, signed []byte, m ownersOrder, now time.Duration) (SigningKey, error) {
	o := &givenOrder{label: label, signed: &systemv1.Signed{}, m: m, now: now}
	if err := errors.Join(read(signed, MaxDocumentSize, o.signed), read(o.signed.GetMessage(), MaxDocumentSize, m)); err != nil {
		return SigningKey{}, err
	}
	for _, check := range checks {
		if err := check.refuse(l, o); err != nil {
			return SigningKey{}, err
		}
	}
	l.challenges = slices.DeleteFunc(slices.Clone(l.challenges), func(c challenge) bool {
		return bytes.Equal(c.value[:], m.GetChallenge())
	})
	return SigningKey(o.signed.GetSigner()), nil
}

// SignReset signs the order to wipe a Base with an App's key. The result is what
// Ledger.Reset takes.
func SignReset(order *systemv1.ResetOrder, seed AppSeed) []byte {
	return encode(seal(labelReset, encode(order), seed))
}

// ResetOrder returns the order to wipe the Base, for SignReset. The name is what
// the owner has typed, the challenge a fresh one of the Base. The chain stays; the
// caller may change that.
func (v *View) ResetOrder(name string, challenge []byte) *systemv1.ResetOrder {
	return &systemv1.ResetOrder{BaseId: v.chain.base[:], Epoch: v.chain.epoch[:], Challenge: challenge, Name: name}
}

// ErrOtherName: an owner has typed the name of another Base.
var ErrOtherName = reason.New("the typed name is not that of this Base")

// Reset takes the order of an owner's App to wipe the Base, and tells whether the chain
// of the node goes as well. The challenge is used up. The caller wipes.
func (l *Ledger) Reset(signed []byte, now time.Duration) (eraseChain bool, out Output, err error) {
	return l.resetWith(orderChecks, signed, now)
}

func (l *Ledger) resetWith(checks []orderCheck, signed []byte, now time.Duration) (eraseChain bool, _ Output, err error) {
	out := l.Tick(now)
	m := &systemv1.ResetOrder{}
	if _, err := l.takeOrder(checks, labelReset, signed, m, now); err != nil {
		return false, out, err
	}
	if m.GetName() != l.Effective().NodeName {
		return false, out, ErrOtherName
	}
	return m.GetEraseChain(), out, nil
}
