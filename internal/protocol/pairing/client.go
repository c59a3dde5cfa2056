package pairing

import (
	"context"
	"crypto/ed25519"
	"errors"
	"net/netip"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
)

// Client speaks to the authority through a Port. A refusal comes back as *Error.
// Which caller may use which method is the authority's decision, by the Port.
type Client struct{ Port }

// Hear passes on a pairing request, all P1Size bytes of it. It is granted once,
// after a human has accepted it; until then the network gets silence. An address that is
// not known shares its places with all that are not.
func (c Client) Hear(ctx context.Context, p1 []byte, from netip.Addr) (granted bool, id CeremonyID, commitment [32]byte, err error) {
	reply, err := c.call(ctx, "hear a request", &systemv1.AuthorityRequest{
		Verb: &systemv1.AuthorityRequest_Hear{Hear: &systemv1.Hear{P1: p1, Address: from.AsSlice()}}})
	if err != nil {
		return false, id, commitment, err
	}
	return granting(reply)
}

// Claim passes on a claim, mark and P1. It is granted once for each P1 that the App of the
// provisioning file has made.
func (c Client) Claim(ctx context.Context, mark, p1 []byte) (granted bool, id CeremonyID, commitment [32]byte, err error) {
	reply, err := c.call(ctx, "hear a claim", &systemv1.AuthorityRequest{
		Verb: &systemv1.AuthorityRequest_Claim{Claim: &systemv1.Claim{Mark: mark, P1: p1}}})
	if err != nil {
		return false, id, commitment, err
	}
	return granting(reply)
}

func granting(reply *systemv1.AuthorityReply) (granted bool, id CeremonyID, commitment [32]byte, err error) {
	result := reply.GetHear()
	if !result.GetGranted() {
		return false, id, commitment, nil
	}
	if copy(id[:], result.GetCeremonyId()) != len(id) || copy(commitment[:], result.GetCommitment()) != len(commitment) {
		return false, id, commitment, ErrMalformed.because("the authority's reply to a request is too short")
	}
	return true, id, commitment, nil
}

// Reveal passes on the payload of P3, and returns the record P4 to be sent as it
// is. h is the handshake hash after P3. It answers once for each ceremony.
func (c Client) Reveal(ctx context.Context, id CeremonyID, h [32]byte, payload []byte,
	appKey [32]byte) (p4 []byte, role basev1.Role, err error) {
	reply, err := c.call(ctx, "reveal", &systemv1.AuthorityRequest{Verb: &systemv1.AuthorityRequest_Reveal{
		Reveal: &systemv1.Reveal{CeremonyId: id[:], HandshakeHash: h[:], P3Payload: payload, AppPublicKey: appKey[:]}}})
	return reply.GetReveal().GetP4(), reply.GetReveal().GetRole(), err
}

// Enrol passes on the App's signature, and waits until the human at the Base has
// answered. It returns with an error as soon as the ceremony has ended otherwise.
func (c Client) Enrol(ctx context.Context, id CeremonyID, signature []byte) (role basev1.Role, appName string, err error) {
	request := &systemv1.AuthorityRequest{Verb: &systemv1.AuthorityRequest_Enrol{
		Enrol: &systemv1.Enrol{CeremonyId: id[:], Signature: signature}}}
	for seen := uint64(0); ; {
		reply, err := c.call(ctx, "enrol", request)
		if !errors.Is(err, ErrAwaitingAnswer) {
			return reply.GetEnrol().GetRole(), reply.GetEnrol().GetAppName(), err
		}
		// The first Watch answers at once. The second Enrol sees
		// anything that happened between the first one and this Watch.
		snapshot, err := c.Watch(ctx, seen)
		if err != nil {
			return 0, "", err
		}
		seen = snapshot.GetVersion()
	}
}

// Abort tells that the ceremony's connection has ended, or that the App's user
// has said no. A pending key of that ceremony is taken back. Aborting what has
// ended already is no error.
func (c Client) Abort(ctx context.Context, id CeremonyID, rejectedByApp bool) error {
	_, err := c.call(ctx, "abort", &systemv1.AuthorityRequest{Verb: &systemv1.AuthorityRequest_Abort{
		Abort: &systemv1.Abort{CeremonyId: id[:], RejectedByApp: rejectedByApp}}})
	return err
}

// Activate gives a pending key its rights, for its App has connected. It is on
// disk when Activate returns. Repeating it is harmless.
func (c Client) Activate(ctx context.Context, signingKey ed25519.PublicKey) error {
	_, err := c.call(ctx, "activate", &systemv1.AuthorityRequest{Verb: &systemv1.AuthorityRequest_Activate{
		Activate: &systemv1.Activate{SigningKey: signingKey}}})
	return err
}

// Reconcile compares the Middleware's active pairings with the registry; the
// Middleware sends it once, when it has started. Unknown keys have no rights: the
// Middleware drops their pairings. Orphaned keys have no pairing.
func (c Client) Reconcile(ctx context.Context, active []ed25519.PublicKey) (unknown, orphaned []ed25519.PublicKey, err error) {
	list := &systemv1.Reconcile{}
	for _, key := range active {
		list.ActiveSigningKeys = append(list.ActiveSigningKeys, key)
	}
	reply, err := c.call(ctx, "reconcile", &systemv1.AuthorityRequest{Verb: &systemv1.AuthorityRequest_Reconcile{Reconcile: list}})
	if err != nil {
		return nil, nil, err
	}
	for _, key := range reply.GetReconcile().GetUnknownSigningKeys() {
		unknown = append(unknown, key)
	}
	for _, key := range reply.GetReconcile().GetOrphanedSigningKeys() {
		orphaned = append(orphaned, key)
	}
	return unknown, orphaned, nil
}

// OpenWindow opens the window for WindowTime, or prolongs it.
func (c Client) OpenWindow(ctx context.Context) error {
	_, err := c.call(ctx, "open the pairing window", &systemv1.AuthorityRequest{
		Verb: &systemv1.AuthorityRequest_OpenWindow{OpenWindow: &systemv1.OpenWindow{}}})
	return err
}

// CloseWindowOf ends what an owner may have begun whom the Middleware has just revoked: the
// window that this owner has ordered, one that an App has opened without a signature, and
// the ceremony in either. The authority still has the owner's key, which only a signed
// document or the console takes away.
func (c Client) CloseWindowOf(ctx context.Context, owner ed25519.PublicKey) error {
	_, err := c.call(ctx, "close the window", &systemv1.AuthorityRequest{
		Verb: &systemv1.AuthorityRequest_CloseWindow{CloseWindow: &systemv1.CloseWindow{RevokedOwner: owner}}})
	return err
}

// CloseWindow closes the window, and ends the ceremony that is on.
func (c Client) CloseWindow(ctx context.Context) error {
	_, err := c.call(ctx, "close the pairing window", &systemv1.AuthorityRequest{
		Verb: &systemv1.AuthorityRequest_CloseWindow{CloseWindow: &systemv1.CloseWindow{}}})
	return err
}

// Accept is the act: a human accepts the request number that their App shows.
// role may be unspecified on a Base without owner.
func (c Client) Accept(ctx context.Context, number uint32, role basev1.Role) error {
	_, err := c.call(ctx, "accept the request", &systemv1.AuthorityRequest{Verb: &systemv1.AuthorityRequest_Accept{
		Accept: &systemv1.Accept{Number: number, Role: role}}})
	return err
}

// Answer is the human's answer to "does the App show exactly this code?".
func (c Client) Answer(ctx context.Context, id CeremonyID, yes bool) error {
	_, err := c.call(ctx, "answer", &systemv1.AuthorityRequest{Verb: &systemv1.AuthorityRequest_Answer{
		Answer: &systemv1.Answer{CeremonyId: id[:], Yes: yes}}})
	return err
}

// Watch returns what there is to see: at once if its version is not seen, else
// as soon as something changes, and at the latest after WatchTime.
func (c Client) Watch(ctx context.Context, seen uint64) (*systemv1.Snapshot, error) {
	reply, err := c.call(ctx, "watch the authority", &systemv1.AuthorityRequest{
		Verb: &systemv1.AuthorityRequest_Watch{Watch: &systemv1.Watch{SeenVersion: seen}}})
	if err != nil {
		return nil, err
	}
	if reply.GetSnapshot() == nil {
		return nil, ErrMalformed.because("the authority's reply to a watch is empty")
	}
	return reply.GetSnapshot(), nil
}

// Retire takes a key away, pending or active. It is on disk when Retire returns.
func (c Client) Retire(ctx context.Context, signingKey ed25519.PublicKey) error {
	_, err := c.call(ctx, "retire the key", &systemv1.AuthorityRequest{Verb: &systemv1.AuthorityRequest_Retire{
		Retire: &systemv1.Retire{SigningKey: signingKey}}})
	return err
}

// CeremonyIDOf returns the id of the snapshot's ceremony, false if none is on.
func CeremonyIDOf(snapshot *systemv1.Snapshot) (id CeremonyID, ok bool) {
	n := copy(id[:], snapshot.GetCeremony().GetId())
	return id, n == len(id)
}

func (c Client) call(ctx context.Context, what string, request *systemv1.AuthorityRequest) (*systemv1.AuthorityReply, error) {
	reply, err := c.Call(ctx, request)
	if err != nil {
		return nil, reason.Errorf("%s: %w", what, err)
	}
	if reply.GetErrorCode() != "" {
		return nil, reason.Errorf("%s: %w", what, &Error{Code(reply.GetErrorCode()), reply.GetErrorMessage()})
	}
	return reply, nil
}
