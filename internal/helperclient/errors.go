package helperclient

import (
	"errors"

	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
)

// Code names why a request was refused or failed. It is in SystemReply.error_code and part of the
// local API: a code keeps its meaning.
type Code string

// The codes.
const (
	// CodeMalformed: the request cannot be parsed, or has an unknown field.
	CodeMalformed Code = "malformed"
	// CodePermission: this caller may not ask for this.
	CodePermission Code = "permission"
	// CodeRefused: the signed message is not accepted; the sentence says why.
	CodeRefused Code = "refused"
	// CodeStale: the challenge, revision or restriction is out of date. The App fetches them
	// again, and signs again.
	CodeStale Code = "stale"
	// CodeBusy: another change is being applied or tried.
	CodeBusy Code = "busy"
	// CodeInvalid: a field of the posture is not allowed; the sentence names it.
	CodeInvalid Code = "invalid"
	// CodeNotApplied: the change could not be put in force, and was undone.
	CodeNotApplied Code = "not_applied"
	// CodeNotYet: what was to be closed is recorded and its ports are blocked, but the change
	// could not be applied in full; the Base tries again by itself.
	CodeNotYet Code = "not_yet"
	// CodeNothing: there is nothing to close, to confirm, to fix or to lift.
	CodeNothing Code = "nothing"
	// CodeStorage: it could not be saved; nothing has changed, except that what was to be closed
	// is blocked until the next start.
	CodeStorage Code = "storage"
	// CodeReset: a factory reset was ordered; the Base restarts as new.
	CodeReset Code = "reset"
	// CodeInternal: the helper could not do its work.
	CodeInternal Code = "internal"
)

// Error is a refusal or a failure.
type Error struct {
	Code    Code
	Message string // a sentence for people

	full string // with the texts of libraries; empty if it came from the wire
}

// Error returns the sentence.
func (e *Error) Error() string { return e.Message }

// Is makes errors.Is compare only the codes.
func (e *Error) Is(target error) bool {
	other, ok := target.(*Error)
	return ok && other.Code == e.Code
}

// Full is the whole text of an error, for the journal of the helper. It never goes to a caller.
func Full(err error) string {
	var known *Error
	if errors.As(err, &known) && known.full != "" {
		return known.full
	}
	return err.Error()
}

// Errorf makes a refusal; the format is that of fmt.Errorf. Its sentence has the words of package reason.
func Errorf(code Code, format string, args ...any) *Error {
	err := reason.Errorf(format, args...)
	return &Error{Code: code, Message: reason.Of(err), full: err.Error()}
}
