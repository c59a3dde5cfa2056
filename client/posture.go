package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"connectrpc.com/connect"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/posture"
)

// The types of a posture, so that users of this package can name them.
type (
	// Posture is how open a Base shall be: what an owner signs.
	Posture = posture.Posture
	// PostureView is a Base's posture and its history, verified.
	PostureView = posture.View
	// PostureChange is one difference, in words.
	PostureChange = posture.Change
)

// ErrLyingBase: what the Base's network-facing daemon shows is not what its system
// helper has signed, or is older than what this App has seen before.
var ErrLyingBase = errors.New("the Base's posture does not verify")

// ErrNotApproved: the user did not want the change.
var ErrNotApproved = errors.New("not approved")

const (
	nonceSize = 32
	// looks is how often the posture is asked for again when it changed while it
	// was read, and how often a change is shown again for the same reason.
	looks = 3
	// confirmTime is how long a change is tried to be confirmed; the Base undoes it
	// after 60 s.
	confirmTime = 45 * time.Second
	// confirmAgain is the pause between two attempts.
	confirmAgain = time.Second
)

// Posture asks for the Base's posture and verifies it: by the key that came with
// the pairing, against what this App has seen before, and as the answer to this
// very question. What does not verify is ErrLyingBase.
func (s *Session) Posture(ctx context.Context) (*PostureView, error) {
	var view *PostureView
	var err error
	for range looks {
		if view, err = s.look(ctx); !errors.Is(err, posture.ErrReport) {
			break // it did not change while it was read
		}
	}
	return view, err
}

func (s *Session) look(ctx context.Context) (*PostureView, error) {
	store, id := s.transport.app.store, s.transport.id
	nonce, err := s.nonce()
	if err != nil {
		return nil, err
	}
	answer, err := s.posture.GetPosture(ctx, &basev1.GetPostureRequest{Nonce: nonce})
	if err != nil {
		return nil, err
	}
	_, base, seen, err := store.signing(id)
	if err != nil {
		return nil, err
	}
	view, err := posture.VerifyChain(posture.Expectation{Base: base, Memory: seen, Nonce: nonce}, answer.GetChain(), answer.GetReport())
	if err != nil {
		return nil, fail(ErrLyingBase, err, "%v", err)
	}
	// Before it is acted upon: what was seen once is never believed gone.
	return view, store.remember(id, view.Memory())
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
	// Edit makes the new posture from the present one. A lease that begins has
	// GrantedIn set to next. It may be called several times.
	Edit func(p *Posture, view *PostureView, next uint64) error
	// Unlock lifts all lockdowns and closed pairing as well.
	Unlock bool
	// Approve is shown every difference before anything is signed.
	Approve func([]PostureChange) (bool, error)
	// Progress, if set, is told what the Base does.
	Progress func(step string)
}

// Apply has the user approve a change, signs it, has the Base try it, and
// confirms it over a new connection, as proof that the Base can still be reached. Without the
// confirmation the Base undoes it after a minute.
func (s *Session) Apply(ctx context.Context, change Change) (*PostureView, error) {
	var err error
	for range looks {
		err = s.submit(ctx, change)
		// Somebody else's change came first: the difference is another one now.
		if connect.CodeOf(err) != connect.CodeAborted {
			break
		}
	}
	if err != nil {
		return nil, err
	}
	return s.confirm(ctx)
}

func (s *Session) submit(ctx context.Context, change Change) error {
	view, err := s.Posture(ctx)
	if err != nil {
		return err
	}
	p, revision := view.Posture()
	if err := change.Edit(&p, view, revision+1); err != nil {
		return fail(ErrInvalid, err, "%v", err)
	}
	var lifts []uint64
	if change.Unlock {
		for _, restriction := range view.Liftable() {
			lifts = append(lifts, restriction.Number)
		}
	}
	// A draft without a challenge shows what will be different; the challenge does
	// not wait for the user.
	draft, err := view.Draft(p, lifts, nil, true, s.transport.app.now())
	if err != nil {
		return fail(ErrInvalid, err, "%v", err)
	}
	if yes, err := change.Approve(view.Changes(draft)); err != nil {
		return err
	} else if !yes {
		return fail(ErrNotApproved, nil, "nothing was changed")
	}
	challenge, err := s.challenge(ctx)
	if err != nil {
		return err
	}
	draft.Challenge, draft.SignedAt = challenge, s.transport.app.now().Unix()
	seed, _, _, err := s.transport.app.store.signing(s.transport.id)
	if err != nil {
		return err
	}
	nonce, err := s.nonce()
	if err != nil {
		return err
	}
	stream, err := s.posture.SubmitPosture(ctx, &basev1.SubmitPostureRequest{Document: posture.SignDocument(draft, seed), Nonce: nonce})
	if err != nil {
		return err
	}
	defer stream.Close()
	for stream.Receive() {
		if step := stream.Msg().GetProgress(); step != "" && change.Progress != nil {
			change.Progress(step)
		}
	}
	return stream.Err()
}

func (s *Session) challenge(ctx context.Context) ([]byte, error) {
	answer, err := s.posture.GetChallenge(ctx, &basev1.GetChallengeRequest{})
	if err != nil {
		return nil, err
	}
	return answer.GetChallenge(), nil
}

// confirm makes a tried change last. The connection may take a while to come
// about, since the Base is just changing what faces the network.
func (s *Session) confirm(ctx context.Context) (*PostureView, error) {
	ctx, cancel := context.WithTimeout(ctx, confirmTime)
	defer cancel()
	for {
		s.transport.reconnect()
		err := s.confirmOnce(ctx)
		if err == nil {
			return s.Posture(ctx)
		}
		if code := connect.CodeOf(err); code != connect.CodeUnavailable && code != connect.CodeUnknown {
			return nil, err
		}
		select {
		case <-ctx.Done():
			return nil, fail(ErrUnreachable, err, "the Base was not reached after the change, so it undoes the change within a minute")
		case <-time.After(confirmAgain):
		}
	}
}

func (s *Session) confirmOnce(ctx context.Context) error {
	view, err := s.Posture(ctx)
	if err != nil {
		return err
	}
	if _, trying, _ := view.Pending(); !trying {
		return nil // there was nothing to try
	}
	challenge, err := s.challenge(ctx)
	if err != nil {
		return err
	}
	seed, _, _, err := s.transport.app.store.signing(s.transport.id)
	if err != nil {
		return err
	}
	nonce, err := s.nonce()
	if err != nil {
		return err
	}
	_, err = s.posture.ConfirmTry(ctx, &basev1.ConfirmTryRequest{
		Confirmation: posture.SignConfirmation(view.Confirmation(challenge), seed), Nonce: nonce})
	return err
}

// ConfirmTry confirms a change that is being tried, over a new connection. Apply
// does that by itself; this is for an App that was ended in between.
func (s *Session) ConfirmTry(ctx context.Context) (*PostureView, error) { return s.confirm(ctx) }

// Lockdown closes everything but the channel of this App.
func (s *Session) Lockdown(ctx context.Context) (*PostureView, error) {
	nonce, err := s.nonce()
	if err != nil {
		return nil, err
	}
	if _, err := s.posture.Lockdown(ctx, &basev1.LockdownRequest{Nonce: nonce}); err != nil {
		return nil, err
	}
	return s.Posture(ctx)
}

// EndLease ends an exception: "ssh", or the kind of an extra API.
func (s *Session) EndLease(ctx context.Context, kind string) (*PostureView, error) {
	nonce, err := s.nonce()
	if err != nil {
		return nil, err
	}
	if _, err := s.posture.EndLease(ctx, &basev1.EndLeaseRequest{Kind: kind, Nonce: nonce}); err != nil {
		return nil, err
	}
	return s.Posture(ctx)
}

// Bans returns the addresses that are banned, and how many ever were since the
// Base was started.
func (s *Session) Bans(ctx context.Context) ([]*basev1.Ban, uint64, error) {
	answer, err := s.bans.ListBans(ctx, &basev1.ListBansRequest{})
	if err != nil {
		return nil, 0, err
	}
	return answer.GetBans(), answer.GetTotal(), nil
}

// LiftBan lets an address in again. It returns false if it was not banned.
func (s *Session) LiftBan(ctx context.Context, address string) (bool, error) {
	view, err := s.Posture(ctx)
	if err != nil {
		return false, err
	}
	challenge, err := s.challenge(ctx)
	if err != nil {
		return false, err
	}
	seed, base, _, err := s.transport.app.store.signing(s.transport.id)
	if err != nil {
		return false, err
	}
	memory := view.Memory()
	answer, err := s.bans.LiftBan(ctx, &basev1.LiftBanRequest{Order: posture.SignLiftBan(&systemv1.LiftBanOrder{
		BaseId: base[:], Epoch: memory.Epoch[:], Challenge: challenge, Address: address}, seed)})
	if err != nil {
		return false, err
	}
	return answer.GetLifted(), nil
}
