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

	// What a call may fail with. ErrInvalid is one of them, too.

	// ErrLost: the connection ended before the Base had answered, or the Base is
	// stopping. Trying again may help; what the call was to change may be changed.
	ErrLost = errors.New("connection lost")
	// ErrNoRights: this App has no rights at the Base any more.
	ErrNoRights = errors.New("no rights")
	// ErrDenied: the role of this App does not allow it.
	ErrDenied = errors.New("denied")
	// ErrNotFound: the Base does not have what was named.
	ErrNotFound = errors.New("not found")
	// ErrNotNow: the state of the Base does not allow it.
	ErrNotNow = errors.New("not as the Base is now")
	// ErrConflict: something else came in between; trying again may help.
	ErrConflict = errors.New("something came in between")
	// ErrTooMuch: a limit of the Base was reached.
	ErrTooMuch = errors.New("a limit was reached")
	// ErrUnknownToBase: the Base's software does not know this function.
	ErrUnknownToBase = errors.New("unknown to the Base")
	// ErrBaseFailed: the Base could not do its work, or what it answered makes no sense.
	ErrBaseFailed = errors.New("the Base failed")
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

// kinds are what codes of the RPC are called here.
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
	textTimedOut  = "no answer came in time; check that the Base is on and near, or allow more time"
	textCancelled = "given up"
)

// callError explains the error of a call. io.EOF, the end of a stream, stays.
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
	case call.Code == rpc.Unavailable: // it has ended in good order
		text = Printable(call.Text)
	case call.Remote:
		text = "the Base refused: " + Printable(call.Text)
	default:
		text = "the call failed: " + Printable(call.Text)
	}
	return &Error{Kind: kind, Text: text, Cause: err}
}

// fromBase tells whether the Base itself has answered.
func fromBase(err error) bool {
	var call *rpc.Error
	return errors.As(err, &call) && call.Remote
}

// Refused tells whether the Base has answered a call with an error: it can be reached, and
// asking the same again will not help by itself.
func Refused(err error) bool { return fromBase(err) && !errors.Is(err, ErrLost) }

// Explain returns one sentence for people about an error of this package or of
// a call to a Base.
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
