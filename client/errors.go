package client

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"

	"connectrpc.com/connect"
)

// The kinds of failure. errors.Is finds them in whatever this package and the
// services of a Session return; the text that stands around them says what
// happened and what to do.
var (
	// ErrNoSuchBase: the App knows no Base of this name, or none at all.
	ErrNoSuchBase = errors.New("no such Base")
	// ErrSeveralBases: the App knows several Bases, and none was named.
	ErrSeveralBases = errors.New("several Bases")
	// ErrUnreachable: no connection came about. The Base is off or elsewhere.
	ErrUnreachable = errors.New("unreachable")
	// ErrNotABase: what listens there speaks something else.
	ErrNotABase = errors.New("not a Base")
	// ErrSilent: what listens there accepts connections and does not answer. It
	// is not a Base, or not this one, or it does not know this App.
	ErrSilent = errors.New("silent")
	// ErrRevoked: the Base says that this App was revoked.
	ErrRevoked = errors.New("revoked")
	// ErrPairAgain: the pairing was never completed at the Base. The App has
	// deleted its part of it.
	ErrPairAgain = errors.New("pair again")
	// ErrNotAccepted: nobody at the Base accepted the request number in time.
	ErrNotAccepted = errors.New("not accepted")
	// ErrRejected: somebody answered "no" at the Base.
	ErrRejected = errors.New("rejected at the Base")
	// ErrInterference: a pairing failed after the App had revealed its half.
	// Somebody may be in between.
	ErrInterference = errors.New("somebody may have interfered")
	// ErrTooManyReveals: so many pairings failed like that that the App waits.
	ErrTooManyReveals = errors.New("too many failed pairings")
	// ErrInvalid: what was asked for makes no sense, such as an address without
	// a host.
	ErrInvalid = errors.New("invalid")
	// ErrStorage: the App's own files could not be read or written.
	ErrStorage = errors.New("storage")
)

// Error is a failure with a sentence for people.
type Error struct {
	// Kind is one of the values above.
	Kind error
	// Text is one sentence, without a capital or a full stop, that says what
	// happened and what to do.
	Text string
	// Cause is the error below, nil if there is none.
	Cause error
	// Wait is how long to wait before trying again makes sense; 0 if unknown.
	Wait time.Duration
}

func (e *Error) Error() string { return e.Text }

// Unwrap makes errors.Is find the kind and the cause.
func (e *Error) Unwrap() []error {
	if e.Cause == nil {
		return []error{e.Kind}
	}
	return []error{e.Kind, e.Cause}
}

func fail(kind, cause error, format string, args ...any) error {
	return &Error{Kind: kind, Text: fmt.Sprintf(format, args...), Cause: cause}
}

// Explain returns one sentence for people about an error of this package or of
// a call to a Base.
func Explain(err error) string {
	var known *Error
	var call *connect.Error
	switch {
	case err == nil:
		return ""
	case errors.As(err, &known):
		return known.Text
	case errors.Is(err, context.DeadlineExceeded):
		return "no answer came in time; check that the Base is on and near, or allow more time"
	case errors.Is(err, context.Canceled):
		return "given up"
	case errors.As(err, &call):
		switch call.Code() {
		case connect.CodeUnimplemented:
			return "the Base does not know this function; update its software"
		case connect.CodeUnavailable:
			return "the connection to the Base was lost (" + Printable(call.Message()) + "); try again"
		}
		return "the Base refused: " + Printable(call.Message())
	}
	return err.Error()
}

// Printable makes text that came from somewhere else fit for a terminal: what
// is not a printable character becomes a question mark.
func Printable(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
}
