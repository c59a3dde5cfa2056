package helperclient

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"
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

// Errorf makes a refusal; the format is that of fmt.Errorf. What a library says of an error
// that is wrapped is said in words of our own (Plain).
func Errorf(code Code, format string, args ...any) *Error {
	return &Error{code, Plain(fmt.Errorf(format, args...))}
}

// Plain is the text of an error without what the system and the standard library say.
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
				words = fmt.Sprintf("the system refuses it (%d)", int(errno))
			}
		default:
			return
		}
		text = strings.ReplaceAll(text, cause.Error(), words)
	})
	return text
}

// systemWords are for what the system says most.
var systemWords = map[syscall.Errno]string{
	syscall.ENOSPC: "the disk is full", syscall.EDQUOT: "the disk is full", syscall.EROFS: "nothing can be written to the disk",
	syscall.EIO: "the disk fails", syscall.ENOENT: "it is not there", syscall.EACCES: "it is not allowed", syscall.EPERM: "it is not allowed",
	syscall.ECONNREFUSED: "nobody answers there", syscall.EAGAIN: "the machine is out of something",
}

// eachCause visits an error and all that it wraps.
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
