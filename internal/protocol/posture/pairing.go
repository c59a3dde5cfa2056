package posture

import (
	"errors"
	"time"

	"google.golang.org/protobuf/proto"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
)

// ErrPairingOrder: an order or answer about a pairing has a field that cannot be.
var ErrPairingOrder = reason.New("what it says about the pairing cannot be")

// maxNumber is the largest request number, of six digits.
const maxNumber = 999_999

// SignPairingOrder signs an order about a pairing with an App's key. The result is
// what Ledger.PairingOrder takes.
func SignPairingOrder(order *systemv1.PairingOrder, seed AppSeed) []byte {
	return encode(seal(labelPairingOrder, encode(order), seed))
}

// SignPairingAnswer signs the answer to a ceremony with an App's key. The result is
// what Ledger.PairingAnswer takes.
func SignPairingAnswer(answer *systemv1.PairingAnswer, seed AppSeed) []byte {
	return encode(seal(labelPairingAnswer, encode(answer), seed))
}

// PairingOrder returns the order to open a window for a role or, if number is not nil,
// to accept the request with that number, for SignPairingOrder. The challenge is a
// fresh one of the Base.
func (v *View) PairingOrder(role basev1.Role, number *uint32, challenge []byte) *systemv1.PairingOrder {
	return &systemv1.PairingOrder{BaseId: v.chain.base[:], Epoch: v.chain.epoch[:], Challenge: challenge, Role: role, Number: number}
}

// PairingAnswer returns the answer to a ceremony, for SignPairingAnswer. words are
// those that the new App shows, 12 bytes; nil is no. name is what the owner was told that
// it calls itself. The challenge is a fresh one of the Base.
func (v *View) PairingAnswer(ceremony, words []byte, role basev1.Role, key []byte, name string, challenge []byte) *systemv1.PairingAnswer {
	return &systemv1.PairingAnswer{
		BaseId: v.chain.base[:], Epoch: v.chain.epoch[:], Challenge: challenge,
		CeremonyId: ceremony, Words: words, Role: role, SigningKey: key, AppName: name,
	}
}

// PairingOrder takes an order about a pairing that an owner's App has signed, and
// returns it with its signer. Its challenge is used up. The caller carries the order
// out.
func (l *Ledger) PairingOrder(signed []byte, now time.Duration) (owner SigningKey, order *systemv1.PairingOrder, out Output, err error) {
	return l.pairingOrderWith(orderChecks, signed, now)
}

func (l *Ledger) pairingOrderWith(checks []orderCheck, signed []byte,
	now time.Duration) (SigningKey, *systemv1.PairingOrder, Output, error) {
	out := l.Tick(now)
	m := &systemv1.PairingOrder{}
	signer, err := l.takeOrder(checks, labelPairingOrder, signed, m, now)
	if err == nil && (m.GetNumber() > maxNumber || m.GetRole() < basev1.Role_ROLE_VIEWER || m.GetRole() > basev1.Role_ROLE_OWNER) {
		err = ErrPairingOrder
	}
	if err != nil {
		return SigningKey{}, nil, out, err
	}
	return signer, m, out, nil
}

// PairingAnswer takes an owner's answer to a ceremony like PairingOrder.
func (l *Ledger) PairingAnswer(signed []byte, now time.Duration) (owner SigningKey, answer *systemv1.PairingAnswer, out Output, err error) {
	return l.pairingAnswerWith(orderChecks, signed, now)
}

func (l *Ledger) pairingAnswerWith(checks []orderCheck, signed []byte,
	now time.Duration) (SigningKey, *systemv1.PairingAnswer, Output, error) {
	out := l.Tick(now)
	m := &systemv1.PairingAnswer{}
	signer, err := l.takeOrder(checks, labelPairingAnswer, signed, m, now)
	if err != nil {
		return SigningKey{}, nil, out, err
	}
	return signer, m, out, nil
}

// PairingReport signs what was made of an answer. The result is what
// View.PairingMatched takes.
func (l *Ledger) PairingReport(answer *systemv1.PairingAnswer, matched bool) []byte {
	return encode(seal(labelPairingReport, encode(&systemv1.PairingReport{Answer: answer, Matched: matched}), l.config.StateSeed))
}

// pairingReportCheck is one reason not to believe a report about an answer.
type pairingReportCheck struct {
	name   string
	refuse func(v *View, answer *systemv1.PairingAnswer, signed *systemv1.Signed, report *systemv1.PairingReport) error
}

// pairingReportChecks stand in the order in which they are made.
var pairingReportChecks = []pairingReportCheck{
	{"no unknown field", func(_ *View, _ *systemv1.PairingAnswer, signed *systemv1.Signed, report *systemv1.PairingReport) error {
		return errors.Join(refuseUnknown(signed.ProtoReflect()), refuseUnknown(report.ProtoReflect()))
	}},
	{"signer", func(v *View, _ *systemv1.PairingAnswer, signed *systemv1.Signed, _ *systemv1.PairingReport) error {
		return unless(string(signed.GetSigner()) == string(v.chain.base[:]), ErrNotHelper)
	}},
	{"signature", func(_ *View, _ *systemv1.PairingAnswer, signed *systemv1.Signed, _ *systemv1.PairingReport) error {
		return verify(labelPairingReport, signed)
	}},
	{"this answer", func(_ *View, answer *systemv1.PairingAnswer, _ *systemv1.Signed, report *systemv1.PairingReport) error {
		return unless(proto.Equal(report.GetAnswer(), answer), ErrReport)
	}},
}

// PairingMatched tells how the Base's authority judged an answer. It verifies the report,
// so an error means that somebody in between lies.
func (v *View) PairingMatched(answer *systemv1.PairingAnswer, report []byte) (bool, error) {
	return v.pairingMatchedWith(pairingReportChecks, answer, report)
}

func (v *View) pairingMatchedWith(checks []pairingReportCheck, answer *systemv1.PairingAnswer, report []byte) (bool, error) {
	signed, m := &systemv1.Signed{}, &systemv1.PairingReport{}
	if err := errors.Join(read(report, MaxDocumentSize, signed), read(signed.GetMessage(), MaxDocumentSize, m)); err != nil {
		return false, err
	}
	for _, check := range checks {
		if err := check.refuse(v, answer, signed, m); err != nil {
			return false, err
		}
	}
	return m.GetMatched(), nil
}
