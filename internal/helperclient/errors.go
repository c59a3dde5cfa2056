package helperclient

import (
	"fmt"
)

// Code names why a request was refused or failed. It stands in
// SystemReply.error_code and is part of the local API: a code keeps its meaning.
type Code string

// The codes.
const (
	// CodeMalformed: the request does not parse, or has a field that is unknown.
	CodeMalformed Code = "malformed"
	// CodePermission: this caller may not ask for this.
	CodePermission Code = "permission"
	// CodeRefused: what was signed is not accepted; the sentence says why.
	CodeRefused Code = "refused"
	// CodeStale: the challenge, revision or restriction is not the present one. The
	// App fetches them again, and signs anew.
	CodeStale Code = "stale"
	// CodeBusy: another change is being applied or tried.
	CodeBusy Code = "busy"
	// CodeInvalid: a field of the posture is not allowed; the sentence names it.
	CodeInvalid Code = "invalid"
	// CodeNotApplied: the change could not be put in force, and was undone.
	CodeNotApplied Code = "not_applied"
	// CodeNotYet: what was closed is recorded and its ports are blocked, but it
	// could not be applied in full yet; the Base tries again by itself.
	CodeNotYet Code = "not_yet"
	// CodeNothing: there is nothing to close, to confirm, to fix or to lift.
	CodeNothing Code = "nothing"
	// CodeStorage: it could not be saved; nothing has changed, except that what
	// was to be closed is blocked until the next start.
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
}

// Error returns the sentence.
func (e *Error) Error() string { return e.Message }

// Is makes errors.Is compare the codes alone.
func (e *Error) Is(target error) bool {
	other, ok := target.(*Error)
	return ok && other.Code == e.Code
}

// Errorf makes a refusal; the format is that of fmt.Errorf.
func Errorf(code Code, format string, args ...any) *Error {
	return &Error{code, fmt.Errorf(format, args...).Error()}
}
