// Package pairing implements the ceremony authority, which decides which Apps are let in.
//
// An attacker may take over the daemon that talks to the network (the Middleware). So this
// package decides, and the Middleware only relays. The authority hears requests, takes the
// person's act, makes r_B and its commitment, computes the code, takes the person's answer,
// checks the App's signature, and enrols its signing key. docs/protocol.md, section 4,
// specifies the messages.
//
//	          Hear(P1) ─▶ request number ─────────▶ shown
//	idle ──── Accept(number): the act ────────────▶ accepted    60 s
//	accepted  Hear(P1) ─▶ ceremony id, C ─────────▶ committed    5 s
//	committed Reveal(r_A, K_sign, h) ─▶ r_B, P4 ──▶ shown      120 s
//	shown     Answer(yes) and Enrol(signature) ───▶ idle; K_sign is pending
//	          Activate(K_sign) ───────────────────▶ K_sign is active
//
// # What a lying Middleware gains from each verb
//
// Hear: it can show any number at the console, and have any P1 answered whose number a person
// accepts (such a P1 is easy to find: it takes a million tries). It gets one commitment, which
// reveals nothing.
//
// Reveal: it can give any r_A, K_sign and handshake hash. But it must do so before it learns
// r_B, the code depends on both, and the ceremony cannot go back. So it has one blind guess,
// which costs an act: only a person can make one, and there are three in 180 s.
//
// Enrol: it gains nothing without the person's yes to the code, and the code covers K_sign. The
// signature proves that its maker holds K_sign and has taken part in this ceremony.
//
// Abort, CloseWindow, Reconcile: it can end ceremonies and drop pending keys, which it could
// also do by staying silent. An act that was used up stays used up. None of these verbs removes
// an active key.
//
// Activate: if it comes too early, a key that a person has just confirmed gets its rights
// before its App knows about it. The console shows the Base as paired.
//
// OpenWindow: requests are shown. None is answered without an act.
//
// Retire: it works for keys only that are not an owner's. The Middleware can refuse to serve
// those Apps anyway.
//
// Watch: its snapshot contains neither the code nor the numbers.
//
// No message of the Middleware changes a role. Roles follow the documents that owners have
// signed (SetRoles), which the holder of the [Service] verifies.
//
// The Middleware alone vouches for the App's static public key in Reveal and for the list in
// Reconcile. They only serve to refuse duplicates and to report differences.
//
// # The window
//
// A Base without an owner always listens to requests. A Base with an owner listens while a
// window is open; an owner whose key is pending counts as one. Enrolling a key closes the
// window, so there is one window for each key. A window that runs out does not end the ceremony
// that began in it, because a ceremony has its own deadlines. CloseWindow ends it, and so does
// the loss of an owner, unless a person at the console has opened the window.
//
// # Orders of an owner's App
//
// An owner's App can order a window for one role, in which the console accepts and confirms as
// always. At a Base without a display (a fact of the installation, which the holder of the
// Service knows) it can also order the act and its answer (AcceptFor, AnswerFor). Orders are
// signed, but they come through the Middleware, which may be the man in the middle and could try
// ceremonies until six digits are equal. So both sides compare words of 96 bits, made from the
// same commitments. The owner signs the words, and the authority signs the result.
//
// # State that a restart loses
//
// A restart loses everything except the active keys, including the count of acts. That is safe:
// only a person makes an act, and the Middleware cannot restart the authority.
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
