package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/posture"
)

// The types of a posture, named here for users of this package.
type (
	// Posture is how open a Base should be: the document that an owner signs.
	Posture = posture.Posture
	// RunningImage is what a Base with the image runs, as its helper has signed it.
	RunningImage = posture.RunningImage
	// PostureView is a Base's posture and its history, verified.
	PostureView = posture.View
	// PostureChange is one difference, in words.
	PostureChange = posture.Change
	// PostureEvent is one line of a Base's history.
	PostureEvent = posture.Event
	// Approve is called with every difference of a change before anything is signed or sent, and
	// tells whether the user wants it.
	Approve = func([]PostureChange) (bool, error)
)

// ErrLyingBase: the posture that the Base's network-facing daemon shows was not signed by its
// system helper, or is older than one that this App has seen.
var ErrLyingBase = errors.New("the Base's posture does not verify")

// Kinds of failure of a change.
var (
	// ErrNotApproved: the user did not want the change.
	ErrNotApproved = errors.New("not approved")
	// ErrNoChange: the Base has these settings already.
	ErrNoChange = errors.New("no change")
	// ErrBusy: another change is being applied or tried.
	ErrBusy = errors.New("another change is under way")
	// ErrUndone: the change was sent, and is not in force, or will not be for long.
	ErrUndone = errors.New("undone")
	// ErrUnsettled: the change was sent, and this App did not wait to see whether it stays in
	// force.
	ErrUnsettled = errors.New("unsettled")
)

const (
	nonceSize = 32
	// drafts is how often a change is shown again because another one came first.
	drafts = 3
	// challengeRest is how long a challenge that came with the posture is used. The Base accepts
	// it for 120 s; the user may think for longer.
	challengeRest = 60 * time.Second
	// confirmTime is how long the App tries to confirm a change; the Base undoes it after 60 s.
	confirmTime = 45 * time.Second
	// confirmAgain is the pause between two attempts.
	confirmAgain = time.Second
)

// Posture asks for the Base's posture and verifies it: with the key that came with the pairing,
// against what this App has seen before, and as the answer to this very question. A posture that
// does not verify is ErrLyingBase.
func (s *Session) Posture(ctx context.Context) (*PostureView, error) {
	signable, err := s.look(ctx, false)
	return signable.view, err
}

// signable is what was read from the Base, and what is needed to sign a change of it.
type signable struct {
	view *PostureView
	// challenge is empty if none was asked for.
	challenge []byte
	seed      posture.AppSeed
	seenAt    time.Time
}

// look asks for the posture, with a challenge if this App is going to sign something.
func (s *Session) look(ctx context.Context, challenge bool) (signable, error) {
	nonce, err := s.nonce()
	if err != nil {
		return signable{}, err
	}
	answer, err := s.posture.GetPosture(ctx, &basev1.GetPostureRequest{Nonce: nonce, Challenge: challenge})
	if err != nil {
		return signable{}, err
	}
	return s.believe(answer.GetPosture(), nonce)
}

// believe verifies the Base's answer to a request with this nonce.
func (s *Session) believe(signed *basev1.SignedPosture, nonce []byte) (signable, error) {
	store, id := s.transport.app.store, s.transport.id
	seed, base, seen, err := store.signing(id)
	if err != nil {
		return signable{}, err
	}
	view, err := s.verify(posture.Expectation{Base: base, Memory: seen, Nonce: nonce}, signed.GetChain(), signed.GetReport())
	if err != nil {
		return signable{}, fail(ErrLyingBase, err, "%v", err)
	}
	// This comes before anything acts on the view: what was seen once must never seem to be gone.
	if now := view.Memory(); now != seen {
		if err := store.remember(id, now); err != nil {
			return signable{}, err
		}
	}
	for _, app := range view.Effective().Apps {
		if app.ID == id {
			err = s.transport.learnRole(app.Role)
		}
	}
	return signable{view, signed.GetChallenge(), seed, s.transport.app.now()}, err
}

func (s *Session) nonce() ([]byte, error) {
	nonce := make([]byte, nonceSize)
	if _, err := io.ReadFull(s.transport.app.random, nonce); err != nil {
		return nil, fmt.Errorf("read %d random bytes: %w", nonceSize, err)
	}
	return nonce, nil
}

// Change is a change of the posture that an owner's App signs.
type Change struct {
	// Edit makes the new posture from the present one.
	Edit Edit
	// Unlock lifts all lockdowns, and opens pairing again if it was closed.
	Unlock bool
	// Approve is required.
	Approve Approve
	// Progress, if set, is told what the Base does.
	Progress func(step string)

	// final: it holds at once, without a try. This is for changes that cannot lock this App out,
	// or that are meant to.
	final bool
}

// Apply asks the user to approve a change, signs it, has the Base try it, and confirms it over a
// new connection, as proof that the Base can still be reached. Without the confirmation the Base
// undoes it after a minute. The Middleware's word about this is not trusted: when Apply returns
// no error, the helper has signed that the change is in force.
func (s *Session) Apply(ctx context.Context, change Change) (*PostureView, error) {
	var signed *systemv1.PostureDocument
	var err error
	var after signable
	for range drafts {
		signed, after, err = s.submit(ctx, change)
		// Another change came first, so the difference is a new one.
		if !errors.Is(err, ErrConflict) {
			break
		}
	}
	if err != nil {
		return nil, err
	}
	view, err := s.confirm(ctx, signed, after)
	if err != nil {
		return nil, err
	}
	app := s.transport.app
	return view, app.notes.kept(app.store.renamed(s.transport.id, view.Effective().NodeName))
}

// submit returns the document that it sent and the posture now in force, or nothing of the latter
// if the connection was lost.
func (s *Session) submit(ctx context.Context, change Change) (*systemv1.PostureDocument, signable, error) {
	seen, err := s.look(ctx, true)
	if err != nil {
		return nil, seen, err
	}
	draft, err := s.draft(seen.view, change)
	if err != nil {
		return nil, seen, err
	}
	if err := ask(change.Approve, seen.view.Changes(draft)); err != nil {
		return nil, seen, err
	}
	if s.transport.app.now().Sub(seen.seenAt) > challengeRest {
		// If the posture has changed meanwhile, the Base refuses the draft.
		if seen, err = s.look(ctx, true); err != nil {
			return nil, seen, err
		}
	}
	draft.Challenge, draft.SignedAt = seen.challenge, s.transport.app.now().Unix()
	nonce, err := s.nonce()
	if err != nil {
		return nil, seen, err
	}
	answer, err := s.send(ctx, &basev1.SubmitPostureRequest{Document: posture.SignDocument(draft, seen.seed), Nonce: nonce}, change.Progress)
	switch {
	case err == nil:
		seen, err = s.believe(answer, nonce)
		return draft, seen, err
	case lost(err):
		// The Base may end a connection while it changes the servers that face the network. The
		// result is read afterwards.
		return draft, signable{}, nil
	}
	return nil, seen, err
}

// draft is the next document, without a challenge.
func (s *Session) draft(view *PostureView, change Change) (*systemv1.PostureDocument, error) {
	switch pending, trying, left := view.Pending(); {
	case trying:
		return nil, fail(ErrBusy, nil, "another change is on trial; confirm it, or wait %d s until it is undone", int(left.Seconds())+1)
	case pending:
		return nil, fail(ErrBusy, nil, "another change is being applied; try again in a moment")
	}
	p, revision := view.Posture()
	if err := change.Edit(&p, view, revision+1); err != nil {
		return nil, asInvalid(err)
	}
	var lifts []uint64
	if change.Unlock {
		for _, restriction := range view.Liftable() {
			lifts = append(lifts, restriction.Number)
		}
	}
	draft, err := view.Draft(p, lifts, nil, !change.final, s.transport.app.now())
	if err != nil {
		return nil, asInvalid(err)
	}
	if len(view.Changes(draft)) == 0 {
		return nil, fail(ErrNoChange, nil, "there is nothing to change: the Base already has these settings")
	}
	return draft, nil
}

// asInvalid turns an error about the request into a sentence.
func asInvalid(err error) error {
	if known := new(Error); errors.As(err, &known) {
		return err
	}
	return fail(ErrInvalid, err, "%v", err)
}

// send returns the posture in force once the document has been applied.
func (s *Session) send(ctx context.Context, request *basev1.SubmitPostureRequest,
	progress func(string)) (signed *basev1.SignedPosture, err error) {
	stream, err := s.posture.SubmitPosture(ctx, request)
	if err != nil {
		return nil, err
	}
	for message, err := range stream.All() {
		if err != nil {
			return nil, err
		}
		if step := message.GetProgress(); step != "" && progress != nil {
			progress(step)
		}
		signed = message.GetPosture()
	}
	return signed, nil
}

// lost tells whether a call failed because of its connection, so that another connection may
// succeed. Any answer of the Base means that it was not lost.
func lost(err error) bool {
	for _, final := range []error{ErrLyingBase, ErrOtherSoftware, ErrUndone, ErrNoChange, ErrRevoked, ErrStorage, ErrNoSuchBase,
		ErrPairAgain} {
		if errors.Is(err, final) {
			return false
		}
	}
	return !Refused(err)
}

// confirm makes a tried change permanent, and only the one that was signed. It may take a while
// to connect, because the Base is changing the servers that face the network.
func (s *Session) confirm(caller context.Context, signed *systemv1.PostureDocument, after signable) (*PostureView, error) {
	if after.view != nil {
		// An earlier view is used only once.
		if view, err := settled(after.view, signed); view != nil || err != nil {
			return view, err
		}
	}
	ctx, cancel := context.WithTimeout(caller, confirmTime)
	defer cancel()
	confirming, refused := false, false
	for {
		s.transport.reconnect()
		view, err := s.confirmOnce(ctx, signed, after, &confirming)
		after = signable{}
		switch {
		case err == nil:
			return view, nil
		case ctx.Err() == nil && confirming && !refused && Refused(err):
			// If the try began after this connection was made, the Base treats it as an old one;
			// the next connection counts.
			refused = true
		case ctx.Err() == nil && !lost(err):
			return nil, err
		}
		select {
		case <-ctx.Done():
			if caller.Err() != nil {
				return nil, failLeft(err, signed, confirming)
			}
			return nil, fail(ErrUndone, err, "the Base could not be reached after the change, so it undoes the change within a minute")
		case <-time.After(confirmAgain):
		}
	}
}

// settled returns the view if the document is in force, nothing while it waits, and an error if
// it is not in force.
func settled(view *PostureView, signed *systemv1.PostureDocument) (*PostureView, error) {
	if !isLast(view, signed) {
		return nil, fail(ErrUndone, nil, "the change is not in force: the Base undid it or never applied it, or another change followed it at once; see the history")
	}
	if pending, _, _ := view.Pending(); pending {
		return nil, nil
	}
	return view, nil
}

// failLeft says in what state a change is when this App stops waiting for it.
func failLeft(cause error, signed *systemv1.PostureDocument, confirming bool) error {
	switch {
	case !signed.GetTry():
		return fail(ErrUnsettled, cause, "the change was sent, and is in force if the Base received it; check the posture")
	case confirming:
		return fail(ErrUnsettled, cause, "the confirmation was on its way: the change is in force if the Base received it; otherwise the Base undoes the change within 60 s; check the posture")
	}
	return fail(ErrUndone, cause, "the change was not confirmed: the Base undoes it within 60 s")
}

// confirmOnce returns the posture in which the change holds, and sets confirming once the
// confirmation may have been sent. seen is an earlier view of the try; without one it asks.
func (s *Session) confirmOnce(ctx context.Context, signed *systemv1.PostureDocument, seen signable,
	confirming *bool) (*PostureView, error) {
	var err error
	if seen.view == nil {
		if seen, err = s.look(ctx, true); err != nil {
			return nil, err
		}
	}
	if view, err := settled(seen.view, signed); view != nil || err != nil {
		return view, err
	}
	if _, trying, _ := seen.view.Pending(); !trying {
		return nil, fail(ErrLost, nil, "the change is still being applied")
	}
	nonce, err := s.nonce()
	if err != nil {
		return nil, err
	}
	*confirming = true
	answer, err := s.posture.ConfirmTry(ctx, &basev1.ConfirmTryRequest{
		Confirmation: posture.SignConfirmation(seen.view.Confirmation(seen.challenge), seen.seed), Nonce: nonce})
	if err != nil {
		return nil, err
	}
	if seen, err = s.believe(answer.GetPosture(), nonce); err != nil {
		return nil, err
	}
	if view, _ := settled(seen.view, signed); view != nil {
		return view, nil
	}
	return nil, fail(ErrUndone, nil, "the Base accepted the confirmation, but what it signed says that the change is not settled; it undoes the change within a minute")
}

// isLast tells whether a document is the last one that the Base has accepted.
func isLast(view *PostureView, document *systemv1.PostureDocument) bool {
	p, revision := view.Posture()
	return revision == document.GetRevision() && proto.Equal(p.Proto(), document.GetPosture())
}

// ConfirmTry confirms a change on trial, over a new connection, once the user has approved it.
// Apply does this by itself; ConfirmTry is for an App that was ended in between.
func (s *Session) ConfirmTry(ctx context.Context, approve Approve) (*PostureView, error) {
	view, err := s.Posture(ctx)
	if err != nil {
		return nil, err
	}
	if pending, _, _ := view.Pending(); !pending {
		return nil, fail(ErrNoChange, nil, "no change is waiting for confirmation")
	}
	var changes []PostureChange
	for _, event := range view.History() {
		if event.Restriction == 0 {
			changes = event.Changes // the last document's, after the loop
		}
	}
	if err := ask(approve, changes); err != nil {
		return nil, err
	}
	p, revision := view.Posture()
	return s.confirm(ctx, &systemv1.PostureDocument{Revision: revision, Posture: p.Proto(), Try: true}, signable{})
}

// ask returns nil if the user wants the changes.
func ask(approve Approve, changes []PostureChange) error {
	yes, err := approve(changes)
	if err == nil && !yes {
		err = fail(ErrNotApproved, nil, "nothing was changed")
	}
	return err
}

// Preview returns the differences that a change would make. Nothing is sent.
func (s *Session) Preview(ctx context.Context, change Change) ([]PostureChange, error) {
	view, err := s.Posture(ctx)
	if err != nil {
		return nil, err
	}
	draft, err := s.draft(view, change)
	if errors.Is(err, ErrNoChange) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return view.Changes(draft), nil
}

// RevokeApp cuts an App off for good, by its id: first a signed document takes its signing key
// away, then its channel is cut. The order matters: an App without a channel is no longer listed,
// and its key would be forgotten. keyTaken is false for a developer's Base, which has no posture:
// there only the channel is cut.
func (s *Session) RevokeApp(ctx context.Context, id string, approve Approve) (keyTaken bool, err error) {
	asked := false
	keyTaken, err = s.takeKey(ctx, id, func(changes []PostureChange) (bool, error) {
		asked = true
		return approve(changes)
	})
	if err == nil && !asked {
		err = s.approveRevocation(ctx, id, approve)
	}
	if err != nil {
		return false, err
	}
	_, err = s.Apps.RevokeApp(ctx, &basev1.RevokeAppRequest{Id: id})
	return keyTaken, err
}

// approveRevocation asks about an App that is not in the posture.
func (s *Session) approveRevocation(ctx context.Context, id string, approve Approve) error {
	list, err := s.Apps.ListApps(ctx, &basev1.ListAppsRequest{})
	if err != nil {
		return err
	}
	name := id
	for _, app := range list.GetApps() {
		if app.GetId() == id {
			name = app.GetName()
		}
	}
	yes, err := approve([]PostureChange{PostureChange{
		Field: "app", Subject: id, Before: "paired", After: "revoked", Kind: "app.cut", Args: []any{name},
	}.Said()})
	if err == nil && !yes {
		err = fail(ErrNotApproved, nil, "nothing was changed")
	}
	return err
}

func (s *Session) takeKey(ctx context.Context, id string, approve Approve) (bool, error) {
	_, err := s.Apply(ctx, Change{
		final:   true,
		Approve: approve,
		Edit: func(p *Posture, _ *PostureView, _ uint64) error {
			p.Apps = slices.DeleteFunc(slices.Clone(p.Apps), func(a posture.App) bool { return a.ID == id })
			return nil
		},
	})
	switch {
	case errors.Is(err, ErrNoChange):
		return true, nil // it has no rights already
	default:
		none, stored := s.hasNoPosture(err)
		if stored != nil {
			return false, stored
		}
		if none {
			return false, nil
		}
	}
	return err == nil, err
}

// hasNoPosture tells whether a failure means a developer's Base, which has no posture.
func (s *Session) hasNoPosture(failure error) (bool, error) {
	if !errors.Is(failure, ErrNotNow) {
		return false, nil
	}
	_, _, seen, err := s.transport.app.store.signing(s.transport.id)
	// A Base that has shown a posture once does not lose it.
	return seen == (posture.Memory{}), err
}

// Lockdown closes everything but the channel of this App. It asks the Base for nothing first, so
// it also works with a Base that does not tell the truth.
func (s *Session) Lockdown(ctx context.Context) (*PostureView, error) {
	nonce, err := s.nonce()
	if err != nil {
		return nil, err
	}
	var seen signable
	answer, refused := s.posture.Lockdown(ctx, &basev1.LockdownRequest{Nonce: nonce})
	switch {
	case refused == nil:
		seen, err = s.believe(answer.GetPosture(), nonce)
	case errors.Is(refused, ErrNotFound): // it is already locked down
		seen, err = s.look(ctx, false)
	default:
		return nil, refused
	}
	if err == nil && !seen.view.Effective().Lockdown {
		err = failNotClosed(refused)
	}
	return seen.view, err
}

// failNotClosed reports that the Middleware did not do what it was asked to.
func failNotClosed(cause error) error {
	return fail(ErrLyingBase, cause, "the Base says that it has closed everything, but has not signed that; do not rely on it, and lock it down at its console")
}

// EndLease ends a lease, once the user has approved: "ssh", or the kind of an extra API.
func (s *Session) EndLease(ctx context.Context, kind string, approve Approve) (*PostureView, error) {
	view, err := s.Posture(ctx)
	if err != nil {
		return nil, err
	}
	// A lease keeps running during a lockdown.
	before := view.Unlocked()
	changes := posture.Diff(before, without(before, kind))
	if len(changes) == 0 {
		return nil, fail(ErrNoChange, nil, "%q is not open", Printable(kind))
	}
	if err := ask(approve, changes); err != nil {
		return nil, err
	}
	nonce, err := s.nonce()
	if err != nil {
		return nil, err
	}
	answer, err := s.posture.EndLease(ctx, &basev1.EndLeaseRequest{Kind: kind, Nonce: nonce})
	if err != nil {
		return nil, err
	}
	seen, err := s.believe(answer.GetPosture(), nonce)
	if err != nil {
		return nil, err
	}
	if now := seen.view.Unlocked(); len(posture.Diff(now, without(now, kind))) > 0 {
		return nil, failNotClosed(nil)
	}
	return seen.view, nil
}

// without is the posture after a lease has ended.
func without(e posture.Effective, kind string) posture.Effective {
	if posture.Kind(kind) == posture.KindSSH {
		e.SSH = nil
	}
	e.Endpoints = slices.DeleteFunc(slices.Clone(e.Endpoints), func(end posture.Endpoint) bool {
		return end.Kind != posture.KindEntry && end.Kind == posture.Kind(kind)
	})
	return e
}

// Bans returns the addresses that are banned.
func (s *Session) Bans(ctx context.Context) (*basev1.ListBansResponse, error) {
	return s.bans.ListBans(ctx, &basev1.ListBansRequest{})
}

// LiftBan lifts the ban of an address. It returns false if the address was not banned.
func (s *Session) LiftBan(ctx context.Context, address string) (bool, error) {
	addr, err := netip.ParseAddr(address)
	if network, parsed := netip.ParsePrefix(address); parsed == nil {
		addr, err = network.Masked().Addr(), nil // the ban stands for the whole /64
	}
	if err != nil {
		return false, fail(ErrInvalid, err, "%q is not an IP address; write one such as 192.168.1.20 or fd00::20", Printable(address))
	}
	seen, err := s.look(ctx, true)
	if err != nil {
		return false, err
	}
	answer, err := s.bans.LiftBan(ctx, &basev1.LiftBanRequest{Order: posture.SignLiftBan(seen.view.LiftBanOrder(addr, seen.challenge),
		seen.seed)})
	if err != nil {
		return false, err
	}
	return answer.GetLifted(), nil
}
