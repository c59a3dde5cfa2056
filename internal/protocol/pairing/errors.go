package pairing

import "fmt"

// Code names why the authority refused a request. It stands in
// AuthorityReply.error_code, and is part of the local API: a code keeps its
// meaning.
type Code string

// The codes of all refusals.
const (
	// CodeMalformed: the request does not parse, or a field has a wrong size.
	CodeMalformed Code = "malformed"
	// CodePermission: this caller may not send this verb.
	CodePermission Code = "permission"
	// CodeNotListening: the Base has an owner, and no window is open.
	CodeNotListening Code = "not_listening"
	// CodeBusy: another ceremony is on.
	CodeBusy Code = "busy"
	// CodeTooManyActs: three requests were accepted within 180 s.
	CodeTooManyActs Code = "too_many_acts"
	// CodeRoleRequired: the Base has an owner, so the act must name a role.
	CodeRoleRequired Code = "role_required"
	// CodeRoleInvalid: there is no such role, or it is not owner on a Base that
	// has none.
	CodeRoleInvalid Code = "role_invalid"
	// CodeRegistryFull: as many keys are enrolled as the registry holds.
	CodeRegistryFull Code = "registry_full"
	// CodeNoCeremony: no ceremony with this id is on, or not in the phase that
	// the verb belongs to.
	CodeNoCeremony Code = "no_ceremony"
	// CodeBadReveal: the App's reveal (P3) does not hold. The ceremony has ended.
	CodeBadReveal Code = "bad_reveal"
	// CodeKnownKey: K_sign or the App's public key is enrolled already. The
	// ceremony has ended.
	CodeKnownKey Code = "known_key"
	// CodeBadSignature: the App's signature does not hold. The ceremony has ended.
	CodeBadSignature Code = "bad_signature"
	// CodeAwaitingAnswer: the App's signature holds; the human at the Base has
	// not answered yet.
	CodeAwaitingAnswer Code = "awaiting_answer"
	// CodeUnknownKey: no such key is enrolled.
	CodeUnknownKey Code = "unknown_key"
	// CodeStorage: the registry could not be written; nothing has changed.
	CodeStorage Code = "storage"
	// CodeInternal: the authority could not do its work, for example because it
	// was given no randomness.
	CodeInternal Code = "internal"
)

// Error is a refusal of the authority.
type Error struct {
	Code    Code
	Message string // a sentence for people and the log
}

// Error returns the sentence.
func (e *Error) Error() string { return e.Message }

// Is makes errors.Is compare the codes alone, so that the Err values below
// match refusals with other words in their sentence.
func (e *Error) Is(target error) bool {
	other, ok := target.(*Error)
	return ok && other.Code == e.Code
}

// The errors to compare with errors.Is.
var (
	ErrMalformed      = &Error{CodeMalformed, "the request is malformed"}
	ErrPermission     = &Error{CodePermission, "this caller may not ask for this"}
	ErrNotListening   = &Error{CodeNotListening, "no pairing window is open; open one first"}
	ErrBusy           = &Error{CodeBusy, "another pairing is under way; answer or reject it first"}
	ErrTooManyActs    = &Error{CodeTooManyActs, "three requests were accepted within three minutes; wait and try again"}
	ErrRoleRequired   = &Error{CodeRoleRequired, "this Base has an owner, so a role must be named: viewer, operator or owner"}
	ErrRoleInvalid    = &Error{CodeRoleInvalid, "the first App of a Base can only be its owner"}
	ErrRegistryFull   = &Error{CodeRegistryFull, "the Base has as many Apps as it accepts; revoke one first"}
	ErrNoCeremony     = &Error{CodeNoCeremony, "this pairing is not under way; it may have ended"}
	ErrBadReveal      = &Error{CodeBadReveal, "the App's part of the pairing does not verify; somebody may have interfered"}
	ErrKnownKey       = &Error{CodeKnownKey, "this key is already enrolled; an App makes fresh keys for each pairing"}
	ErrBadSignature   = &Error{CodeBadSignature, "the App's signature does not verify; somebody may have interfered"}
	ErrAwaitingAnswer = &Error{CodeAwaitingAnswer, "the person at the Base has not answered yet"}
	ErrUnknownKey     = &Error{CodeUnknownKey, "no such key is enrolled"}
	ErrStorage        = &Error{CodeStorage, "the registry of keys could not be stored; nothing has changed"}
	ErrInternal       = &Error{CodeInternal, "the authority failed"}
)

// because returns the refusal with its cause added to the sentence.
func (e *Error) because(format string, args ...any) *Error {
	return &Error{e.Code, e.Message + ": " + fmt.Sprintf(format, args...)}
}
