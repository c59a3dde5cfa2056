package admission

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
