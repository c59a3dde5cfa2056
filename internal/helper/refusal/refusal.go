// Package refusal gives each error of the helper the code and the sentence that its caller
// gets, and names the ends of a verb that are neither success nor failure.
package refusal

import (
	"errors"

	"github.com/BitBoxSwiss/bitbox-base/internal/helperclient"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/pairing"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/posture"
	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
)

// codes says which code the errors of the ledger have. The first that fits counts.
var codes = []struct {
	err  error
	code helperclient.Code
}{
	{posture.ErrBusy, helperclient.CodeBusy},
	{posture.ErrChallenge, helperclient.CodeStale}, {posture.ErrRevisionTaken, helperclient.CodeStale},
	{posture.ErrRevisionAhead, helperclient.CodeStale},
	{posture.ErrFork, helperclient.CodeStale}, {posture.ErrSeen, helperclient.CodeStale}, {posture.ErrWrongEpoch, helperclient.CodeStale},
	{posture.ErrNoTry, helperclient.CodeNothing}, {posture.ErrNothingToClose, helperclient.CodeNothing},
	{posture.ErrMalformed, helperclient.CodeMalformed}, {posture.ErrUnknownField, helperclient.CodeMalformed},
	{posture.ErrOwnerCutOff, helperclient.CodePermission},
}

// Of gives an error its code.
func Of(err error) *helperclient.Error {
	var known *helperclient.Error
	var authority *pairing.Error
	var field *posture.FieldError
	switch {
	case errors.As(err, &known):
		return known
	case errors.As(err, &authority):
		switch authority.Code {
		case pairing.CodePermission:
			return &helperclient.Error{Code: helperclient.CodePermission, Message: authority.Message}
		case pairing.CodeNoCeremony:
			return &helperclient.Error{Code: helperclient.CodeNothing, Message: authority.Message}
		}
		return &helperclient.Error{Code: helperclient.CodeRefused, Message: authority.Message}
	case errors.As(err, &field):
		return &helperclient.Error{Code: helperclient.CodeInvalid, Message: reason.Of(err)}
	}
	for _, c := range codes {
		if errors.Is(err, c.err) {
			return &helperclient.Error{Code: c.code, Message: reason.Of(err)}
		}
	}
	return &helperclient.Error{Code: helperclient.CodeRefused, Message: reason.Of(err)}
}

// ErrUnderWay says that what was asked for was accepted, and that the helper was stopped before
// its end. If it is undone at the next start, the Base records that by itself.
var ErrUnderWay = reason.New("it was accepted, and the Base stopped before it was in force")

// ErrNotAwaited says that a request goes on although its caller has left.
var ErrNotAwaited = reason.New("it goes on, although its caller has left")

// Accepted tells whether a request was begun, however it ended.
func Accepted(err error) bool {
	return err == nil || errors.Is(err, &helperclient.Error{Code: helperclient.CodeNotApplied}) || errors.Is(err, ErrUnderWay)
}
