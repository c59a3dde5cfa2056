package helperclient

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"
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
}

// Error returns the sentence.
func (e *Error) Error() string { return e.Message }

// Is makes errors.Is compare only the codes.
func (e *Error) Is(target error) bool {
	other, ok := target.(*Error)
	return ok && other.Code == e.Code
}

// Errorf makes a refusal; the format is that of fmt.Errorf. Texts of libraries in wrapped errors
// are replaced by our own words (Plain).
func Errorf(code Code, format string, args ...any) *Error {
	return &Error{code, Plain(fmt.Errorf(format, args...))}
}

// Plain is the text of an error without texts of the system and the standard library.
func Plain(err error) string {
	text := err.Error()
	eachCause(err, func(cause error) {
		words := ""
		var errno syscall.Errno
		ended, isProgram := cause.(interface{ ExitCode() int })
		switch {
		case cause == context.Canceled:
			words = "it was interrupted"
		case cause == context.DeadlineExceeded:
			words = "it took too long"
		case isProgram:
			words = fmt.Sprintf("the program ended with status %d", ended.ExitCode())
		case errors.As(cause, &errno) && cause == error(errno):
			words = systemWords[errno]
			if words == "" {
				words = fmt.Sprintf("the system refused it (%d)", int(errno))
			}
		default:
			return
		}
		text = strings.ReplaceAll(text, cause.Error(), words)
	})
	return text
}

// systemWords are for the most frequent errors of the system.
var systemWords = map[syscall.Errno]string{
	syscall.ENOSPC: "the disk is full", syscall.EDQUOT: "the disk is full", syscall.EROFS: "the disk is read-only",
	syscall.EIO: "the disk is failing", syscall.ENOENT: "it does not exist",
	syscall.EACCES: "permission denied", syscall.EPERM: "permission denied",
	syscall.ECONNREFUSED: "nothing answers there", syscall.EAGAIN: "the machine is out of a resource",
}

// eachCause calls a function with an error and everything that it wraps.
func eachCause(err error, visit func(error)) {
	visit(err)
	switch wrapping := err.(type) {
	case interface{ Unwrap() error }:
		if cause := wrapping.Unwrap(); cause != nil {
			eachCause(cause, visit)
		}
	case interface{ Unwrap() []error }:
		for _, cause := range wrapping.Unwrap() {
			eachCause(cause, visit)
		}
	}
}
