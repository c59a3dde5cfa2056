// Package pairing is the ceremony authority: it decides which App is let in.
//
// The daemon that speaks to the network (the Middleware) may be taken over. So
// what decides lives here, and the Middleware only relays: the authority hears
// requests, takes the human's act, makes r_B and its commitment, computes the
// code, takes the human's answer, checks the App's signature and enrols its
// signing key. docs/protocol.md, section 4, has the messages.
//
//	          Hear(P1) ─▶ request number ─────────▶ shown
//	idle ──── Accept(number): the act ────────────▶ accepted    60 s
//	accepted  Hear(P1) ─▶ ceremony id, C ─────────▶ committed    5 s
//	committed Reveal(r_A, K_sign, h) ─▶ r_B, P4 ──▶ shown      120 s
//	shown     Answer(yes) and Enrol(signature) ───▶ idle; K_sign is pending
//	          Activate(K_sign) ───────────────────▶ K_sign is active
//
// # What a Middleware that lies gains from each verb
//
// Hear: it may show the console any number, and have any P1 answered that has the
// number which a human accepts (numbers are easy to find: a million tries). It
// gets one commitment for it, which tells nothing.
//
// Reveal: it may give any r_A, K_sign and handshake hash. It must do so before it
// learns r_B, the code depends on both, and the ceremony cannot go back. That is one
// blind guess. It costs an act: only a human makes one, and there are three in 180 s.
//
// Enrol: nothing without the human's yes to the code, and K_sign is in the code.
// The signature proves that somebody holds K_sign and has seen this ceremony.
//
// Abort, CloseWindow, Reconcile: it may end ceremonies and drop pending keys. It
// could as well be silent. An act that was used up stays used up. None of them
// takes an active key away.
//
// Activate: early, it gives rights to a key that a human has just confirmed; its
// App may not know yet that it was let in. The console shows the Base as paired.
//
// OpenWindow: requests are shown. Nothing is answered without an act.
//
// Retire: only keys that are not an owner's. It can refuse to serve those Apps anyway.
//
// Watch: neither the code nor the numbers are in its snapshot.
//
// Nothing that it sends changes a role: that follows what an owner has signed
// (SetRoles), which the holder of the Service verifies.
//
// The App's static public key in Reveal, and the list in Reconcile, are its word
// alone. They serve to refuse duplicates and to report differences.
//
// # The window
//
// A Base without an owner listens all the time, one with an owner while a window
// is open; an owner whose key is pending counts. Enrolling a key closes the
// window, so that each key had its own. A window that runs out does not end the
// ceremony that began in it, which has deadlines of its own; CloseWindow does.
// So does the loss of an owner, unless somebody at the console has opened the window.
//
// # What an owner's App may order
//
// A window for one role, in which the console accepts and confirms as always. At a Base
// without a display (a fact of its installation, which the holder of the Service knows)
// also the act and its answer (AcceptFor, AnswerFor). Orders are signed, but come through
// the Middleware, which may be the man in the middle. It could try ceremonies until six
// digits are equal. So words of 96 bits are compared, made from the same commitments; the
// owner signs the words, and the authority signs what it made of them.
//
// # What is forgotten at a restart
//
// All but the active keys. The count of acts is forgotten as well: each act is a
// human's, and the Middleware cannot restart the authority.
package pairing

import (
	"context"
	"encoding/hex"
	"time"

	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/secret"
)

// The protocol's bounds (docs/protocol.md, section 4).
const (
	// WindowTime is how long a window stays open.
	WindowTime = 180 * time.Second
	// MaxActs is how many requests may be accepted in any ActsTime.
	MaxActs  = 3
	ActsTime = 180 * time.Second
	// AcceptedTime is how long an accepted request waits for its P1.
	AcceptedTime = 60 * time.Second
	// CommittedTime is how long P2 waits for P3.
	CommittedTime = 5 * time.Second
	// ShownTime is how long a code waits for both answers.
	ShownTime = 120 * time.Second
	// PendingTime is how long an enrolled key waits for its App's first connection.
	PendingTime = 180 * time.Second
)

// Bounds of this implementation.
const (
	// MaxKeys is how many keys are enrolled at most, active and pending together.
	MaxKeys = 32
	// MaxShown is how many request numbers are shown at once.
	MaxShown = 8
	// ShownFor is how long a number is shown after its request was last heard. An App
	// repeats it every 2 s, so one that has given up is soon gone.
	ShownFor = 10 * time.Second
	// MaxHeard is how many requests are remembered, by their digest.
	MaxHeard = 4096
	// MaxHeardFromOne is how many of them one address has, or one /64 of IPv6.
	MaxHeardFromOne = 4
	// HeardTime is how long a request is remembered after it was last heard. It is longer
	// than ShownFor, so that keeping an App's requests away for a moment gains nothing.
	HeardTime = 30 * time.Second
)

// CeremonyID names a ceremony. It is random.
type CeremonyID [16]byte

// String returns the id in hexadecimal.
func (id CeremonyID) String() string { return hex.EncodeToString(id[:]) }

// StateKey is the seed of K_state, the Ed25519 key with which the authority signs
// (RFC 8032: the 32-byte private key).
type StateKey = secret.Key[stateKind]

type stateKind struct{}

// Caller is the sender of a request. The transport knows it (from the credentials of
// the peer); a request cannot claim it.
type Caller int

// The callers. The zero Caller may do nothing.
const (
	CallerMiddleware Caller = iota + 1
	CallerConsole
)

// String names the caller in errors.
func (c Caller) String() string {
	switch c {
	case CallerMiddleware:
		return "middleware"
	case CallerConsole:
		return "console"
	default:
		return "nobody"
	}
}

// Port carries one request to the authority and its reply back. Service.Port is
// one within a process, Over makes one of what carries bytes.
type Port interface {
	// Call returns the reply to a request. An error means that no reply came; a
	// refusal is a reply.
	Call(ctx context.Context, request *systemv1.AuthorityRequest) (*systemv1.AuthorityReply, error)
}
