package rpc

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
)

// Code says why a call failed. The list is closed; it stands in docs/protocol.md.
type Code byte

// The codes.
const (
	// OK is no failure.
	OK Code = iota
	// Invalid: the request makes no sense.
	Invalid
	// Unauthenticated: this App no longer has rights.
	Unauthenticated
	// Denied: the App's role does not suffice.
	Denied
	// NotFound: what the request names does not exist.
	NotFound
	// Precondition: the state of the Base does not allow it now.
	Precondition
	// Aborted: something else came in between; trying again may help.
	Aborted
	// Exhausted: a limit was reached.
	Exhausted
	// Unimplemented: the Base does not know the method.
	Unimplemented
	// Unavailable: the Base or the connection to it is not there now.
	Unavailable
	// TimedOut: the deadline passed.
	TimedOut
	// Cancelled: the caller gave up.
	Cancelled
	// Internal: the Base failed.
	Internal

	codes // how many there are
)

var codeNames = [codes]string{"ok", "invalid", "unauthenticated", "denied", "not found", "precondition", "aborted",
	"exhausted", "unimplemented", "unavailable", "timed out", "cancelled", "internal"}

// String returns the code's name as in docs/protocol.md.
func (c Code) String() string {
	if c < codes {
		return codeNames[c]
	}
	return fmt.Sprintf("code %d", byte(c))
}

// Error is why a call failed.
type Error struct {
	Code Code
	// Text is for people. A text of the other side is cut to MaxText bytes
	// and has printable characters only.
	Text string
	// Remote: the other side sent it. Otherwise this side found it, such as a lost
	// connection.
	Remote bool
	// Cause is the error below; nil if there is none. It is never sent.
	Cause error
}

// NewError returns err with a code. Its reason (reason.Of) is sent to the peer.
func NewError(code Code, err error) *Error {
	return &Error{Code: code, Text: reason.Of(err), Cause: err}
}

// Errorf returns an error with a code and a text for the peer.
func Errorf(code Code, format string, args ...any) *Error {
	return NewError(code, reason.Errorf(format, args...))
}

// Error returns the text.
func (e *Error) Error() string {
	if e.Text == "" {
		return e.Code.String()
	}
	return e.Text
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Cause }

// Is makes errors.Is find the context's errors in the codes that stand for them.
func (e *Error) Is(target error) bool {
	return e.Code == TimedOut && target == context.DeadlineExceeded || e.Code == Cancelled && target == context.Canceled
}

// CodeOf returns the code of an error: that of the *Error in it, or of the
// context's error in it, else Internal. It is OK for nil.
func CodeOf(err error) Code {
	var known *Error
	switch {
	case err == nil:
		return OK
	case errors.As(err, &known):
		return known.Code
	case errors.Is(err, context.DeadlineExceeded):
		return TimedOut
	case errors.Is(err, context.Canceled):
		return Cancelled
	}
	return Internal
}

// printable cuts a text to MaxText bytes, at a character, and replaces whatever
// could do something on a terminal.
func printable(s string) string {
	if len(s) > MaxText {
		s = s[:MaxText]
		for len(s) > 0 && !utf8.ValidString(s[max(0, len(s)-utf8.UTFMax):]) && len(s) > MaxText-utf8.UTFMax {
			s = s[:len(s)-1]
		}
	}
	return strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
}
