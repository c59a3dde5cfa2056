package admission

import (
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// Reason says in the log why a connection was refused.
type Reason string

// The reasons. Those that count for a ban are caused only by peers that were never paired: see
// CountsForBan.
const (
	// MalformedFrame: the bytes are not a handshake frame that opens a connection. Counts for a
	// ban.
	MalformedFrame Reason = "malformed_frame"
	// WrongMAC1: a connect frame that no key of this Base made. Counts for a ban.
	WrongMAC1 Reason = "wrong_mac1"

	// OtherProtocol: TLS or a text. A wallet may send this for days after its owner has closed an
	// extra API, and so do browsers and scanners of home routers.
	OtherProtocol Reason = "other_protocol"
	// Silent: no whole frame within the handshake's time.
	Silent Reason = "silent"
	// Closed: the peer went away before it had sent a whole frame.
	Closed Reason = "closed"
	// PairingRequest: a pairing request was heard, or came while the Base was not listening.
	PairingRequest Reason = "pairing_request"
	// PairingFailed: the connection of an accepted request ended without a pairing.
	PairingFailed Reason = "pairing_failed"
	// Lapsed: the pairing was never completed, and its time is over. The App gets no answer and
	// finds out by itself.
	Lapsed Reason = "lapsed"
	// Replayed: a connect frame that came before.
	Replayed Reason = "replayed"
	// SeqTooHigh: the number in a connect frame is far above what an App's clock and counter
	// give; accepting it would lock that App out for good.
	SeqTooHigh Reason = "seq_too_high"
	// WrongKey: the mac1 was right, but the rest of the frame is not.
	WrongKey Reason = "wrong_key"
	// Revoked: the App was revoked, and was told so.
	Revoked Reason = "revoked"
	// NoFirstRecord: the handshake was complete, and nothing came after it.
	NoFirstRecord Reason = "no_first_record"
	// Busy: no place to compute the handshake became free in time.
	Busy Reason = "busy"
	// TooFast: more new connections a second than one address may make.
	TooFast Reason = "too_fast"
	// TooMany: more waiting connections than one address may have.
	TooMany Reason = "too_many"
	// Displaced: the oldest waiting connection had to make room.
	Displaced Reason = "displaced"
	// NoAddress: no usable PROXY header. NGINX is misconfigured.
	NoAddress Reason = "no_address"
	// Internal: the Base failed; the error is in the line.
	Internal Reason = "internal"
)

// Reasons lists every Reason.
func Reasons() []Reason {
	return []Reason{
		MalformedFrame, WrongMAC1,
		OtherProtocol, Silent, Closed, PairingRequest, PairingFailed, Lapsed, Replayed, SeqTooHigh, WrongKey, Revoked, NoFirstRecord, Busy,
		TooFast, TooMany, Displaced, NoAddress, Internal,
	}
}

// CountsForBan tells whether refusals for this reason add up to a ban of the address. A ban must
// never hit an owner: nothing counts that can be caused by a paired App, a revoked one, one whose
// pairing broke off, a slow network, a busy Base or another program of the owner.
func (r Reason) CountsForBan() bool { return r == MalformedFrame || r == WrongMAC1 }

// fail2ban matches refusalMessage and the attribute that follows it (internal/helper/bruteforce).
// A line without the attribute does not count.
const (
	refusalMessage = "handshake refused"
	refusalAgainst = "against"
	// requestMessage is for a pairing request, which is not a refusal.
	requestMessage = "pairing request came"
)

// How many lines refusals may write per second and in a burst, for each of the two kinds of
// reasons. A flood must not fill the disk, and harmless refusals must not hide the ones that
// count; so each kind has its own budget. One address alone cannot use up the budget of those
// that count: it can make fewer connections per second, and is banned after a few.
const (
	refusalLinesPerSecond = 100
	refusalLinesBurst     = 500
)

// refusalLog writes one line for each refusal, within the budgets. Refusals beyond them are
// counted, and the number is in the next line of their kind.
type refusalLog struct {
	logger *slog.Logger

	mu                 sync.Mutex
	counting, harmless refusalBudget
}

type refusalBudget struct {
	lines      *rate.Limiter
	suppressed int
}

func newRefusalLog(logger *slog.Logger) *refusalLog {
	budget := func() refusalBudget {
		return refusalBudget{lines: rate.NewLimiter(refusalLinesPerSecond, refusalLinesBurst)}
	}
	return &refusalLog{logger: logger, counting: budget(), harmless: budget()}
}

// refused logs that a connection from addr ended without a session. addr may be invalid if it is
// not known; against is invalid if the refusal counts against no address. err may be nil.
func (l *refusalLog) refused(addr, against netip.Addr, reason Reason, err error) {
	suppressed, fits := l.take(against.IsValid())
	if !fits {
		return
	}
	address := "unknown"
	if addr.IsValid() {
		address = addr.WithZone("").String()
	}
	var attributes []any
	if against.IsValid() {
		attributes = append(attributes, slog.String(refusalAgainst, against.String()))
	}
	attributes = append(attributes, slog.String("addr", address), slog.String("reason", string(reason)))
	if err != nil {
		attributes = append(attributes, slog.String("error", err.Error()))
	}
	if suppressed > 0 {
		attributes = append(attributes, slog.Int("suppressed", suppressed))
	}
	message := refusalMessage
	if reason == PairingRequest {
		message = requestMessage
	}
	l.logger.Info(message, attributes...)
}

// take takes a line from the budget and returns how many were suppressed since the last one.
func (l *refusalLog) take(counting bool) (suppressed int, fits bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	budget := &l.harmless
	if counting {
		budget = &l.counting
	}
	if !budget.lines.AllowN(time.Now(), 1) {
		budget.suppressed++
		return 0, false
	}
	suppressed, budget.suppressed = budget.suppressed, 0
	return suppressed, true
}
