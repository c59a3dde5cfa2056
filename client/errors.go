package client

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"

	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/rpc"
)

// The kinds of failure. errors.Is finds them in every error of this package and of the services
// of a Session; the error's text says what happened and what to do.
var (
	// ErrNoSuchBase: the App knows no Base of this name, or none at all.
	ErrNoSuchBase = errors.New("no such Base")
	// ErrSeveralBases: the App knows several Bases, and none was named.
	ErrSeveralBases = errors.New("several Bases")
	// ErrUnreachable: no connection could be made. The Base is off or elsewhere.
	ErrUnreachable = errors.New("unreachable")
	// ErrNotABase: the server at this address speaks another protocol.
	ErrNotABase = errors.New("not a Base")
	// ErrSilent: the server accepts connections and does not answer. It is not a Base, or not
	// this one, or it does not know this App.
	ErrSilent = errors.New("silent")
	// ErrRevoked: the Base says that this App was revoked.
	ErrRevoked = errors.New("revoked")
	// ErrPairAgain: the pairing was never completed at the Base. The App has
	// deleted its part of it, if it could (Options.Unstored).
	ErrPairAgain = errors.New("pair again")
	// ErrNotAccepted: nobody at the Base accepted the request number in time.
	ErrNotAccepted = errors.New("not accepted")
	// ErrRejected: a person at the Base answered "no".
	ErrRejected = errors.New("rejected at the Base")
	// ErrInterference: a pairing failed after the App had revealed its half.
	// Somebody may be in between.
	ErrInterference = errors.New("somebody may have interfered")
	// ErrTooManyReveals: too many pairings failed after the reveal, so the App waits.
	ErrTooManyReveals = errors.New("too many failed pairings")
	// ErrInvalid: the request makes no sense, such as an address without a host.
	ErrInvalid = errors.New("invalid")
	// ErrStorage: the App's own files could not be read or written.
	ErrStorage = errors.New("storage")

	// These are the failures of a call, in addition to ErrInvalid.

	// ErrLost: the connection ended before the Base had answered, or the Base is stopping. Trying
	// again may help. The change that the call asked for may have been made.
	ErrLost = errors.New("connection lost")
	// ErrNoRights: this App no longer has any rights at the Base.
	ErrNoRights = errors.New("no rights")
	// ErrDenied: the role of this App does not allow it.
	ErrDenied = errors.New("denied")
	// ErrNotFound: the Base does not have the named thing.
	ErrNotFound = errors.New("not found")
	// ErrNotNow: the state of the Base does not allow it.
	ErrNotNow = errors.New("not possible in the Base's present state")
	// ErrConflict: another change came first; trying again may help.
	ErrConflict = errors.New("another change came first")
	// ErrTooMuch: a limit of the Base was reached.
	ErrTooMuch = errors.New("a limit was reached")
	// ErrUnknownToBase: the Base's software does not know this function.
	ErrUnknownToBase = errors.New("unknown to the Base")
	// ErrBaseFailed: the Base could not do its work, or its answer makes no sense.
	ErrBaseFailed = errors.New("the Base failed")
)

// Error is a failure with a sentence for people.
type Error struct {
	// Kind is one of the values above.
	Kind error
	// Text is one sentence, without a capital or a full stop, that says what happened and what to
	// do.
	Text string
	// Format and Args made Text, as in fmt.Sprintf. The format tells failures of one kind apart, for a
	// program that says them in another language. It is empty for what the Base has said, and where Text
	// is always the same.
	Format string
	Args   []any
	// Cause is the error below, nil if there is none.
	Cause error
	// Wait is how long to wait before trying again; 0 if unknown.
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

func fail(kind, cause error, format string, args ...any) *Error {
	return &Error{Kind: kind, Text: fmt.Sprintf(format, args...), Format: format, Args: args, Cause: cause}
}

// kinds are this package's names for the codes of the RPC.
var kinds = map[rpc.Code]error{
	rpc.Invalid:         ErrInvalid,
	rpc.Unauthenticated: ErrNoRights,
	rpc.Denied:          ErrDenied,
	rpc.NotFound:        ErrNotFound,
	rpc.Precondition:    ErrNotNow,
	rpc.Aborted:         ErrConflict,
	rpc.Exhausted:       ErrTooMuch,
	rpc.Unimplemented:   ErrUnknownToBase,
	rpc.Unavailable:     ErrLost,
	rpc.TimedOut:        context.DeadlineExceeded,
	rpc.Cancelled:       context.Canceled,
}

const (
	textTimedOut  = "the Base did not answer in time; check that it is on and reachable, or allow more time"
	textCancelled = "given up"
)

// callError explains the error of a call. io.EOF, the end of a stream, is passed on.
func callError(err error) error {
	var call *rpc.Error
	if !errors.As(err, &call) {
		return err
	}
	kind, known := kinds[call.Code]
	if !known {
		kind = ErrBaseFailed
	}
	text := ""
	switch {
	case call.Code == rpc.TimedOut:
		text = textTimedOut
	case call.Code == rpc.Cancelled:
		text = textCancelled
	case call.Code == rpc.Unimplemented:
		text = "the Base does not know this function; update its software"
	case call.Code == rpc.Unavailable && !call.Remote:
		text = "the connection to the Base was lost; try again"
	case call.Code == rpc.Unavailable: // it ended in good order
		text = Printable(call.Text)
	case call.Remote:
		text = "the Base refused: " + Printable(call.Text)
	default:
		text = "the call failed: " + Printable(call.Text)
	}
	return &Error{Kind: kind, Text: text, Cause: err}
}

// fromBase tells whether the error is the Base's own answer.
func fromBase(err error) bool {
	var call *rpc.Error
	return errors.As(err, &call) && call.Remote
}

// Refused tells whether the Base answered a call with an error: it can be reached, and asking the
// same again does not help.
func Refused(err error) bool { return fromBase(err) && !errors.Is(err, ErrLost) }

// Explain returns one sentence for people about an error of this package or of a call to a Base.
func Explain(err error) string {
	var known *Error
	switch {
	case err == nil:
		return ""
	case errors.As(err, &known):
		return known.Text
	case errors.Is(err, context.DeadlineExceeded):
		return textTimedOut
	case errors.Is(err, context.Canceled):
		return textCancelled
	}
	return err.Error()
}

// Printable makes text from elsewhere safe for a terminal: each character that is not printable
// becomes a question mark.
func Printable(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
}
