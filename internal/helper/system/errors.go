package system

import (
	"errors"

	"github.com/BitBoxSwiss/bitbox-base/internal/helperclient"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/pairing"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/posture"
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

// asError gives an error its code.
func asError(err error) *helperclient.Error {
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
		return &helperclient.Error{Code: helperclient.CodeInvalid, Message: helperclient.Plain(err)}
	}
	for _, c := range codes {
		if errors.Is(err, c.err) {
			return &helperclient.Error{Code: c.code, Message: helperclient.Plain(err)}
		}
	}
	return &helperclient.Error{Code: helperclient.CodeRefused, Message: helperclient.Plain(err)}
}
