package client

import (
	"context"
	"errors"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/api/base/v1/baserpc"
	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/noiseconn"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/posture"
)

// ErrNoSuchApp: the Base's posture does not list the App.
var ErrNoSuchApp = errors.New("no such App")

// CheckName looks up in the signed posture whether the App with this id can be the one that the
// user named. The list of Apps, which gives the id, is only the Middleware's word: it could give
// the id of another App. ErrNoSuchApp means that the posture has another App of that name.
// pairedAs is the App's name in the posture, which does not record renaming. It is empty if the
// posture does not list the App, or if there is no posture.
func (s *Session) CheckName(ctx context.Context, id, name string) (pairedAs string, err error) {
	view, err := s.Posture(ctx)
	if err != nil {
		if none, stored := s.hasNoPosture(err); none || stored != nil {
			return "", stored
		}
		return "", err
	}
	for _, app := range view.Effective().Apps {
		switch {
		case app.ID == id:
			pairedAs = app.Name
		case app.Name == name:
			return "", fail(ErrNoSuchApp, nil, "the Base's signed posture gives the name %q to another App than its list does; use the id of the App you mean", Printable(name))
		}
	}
	return pairedAs, nil
}

const (
	// roleRest is the age up to which a stored role is not stored again if the Base reports the same one.
	roleRest = time.Minute
	// A session stores a role roleBurst times, and then once in roleEvery: a Base that reports another role
	// in each answer must not make the App write to its disk each time.
	roleBurst = 4
	roleEvery = 15 * time.Second
)

// InfoClient calls the InfoService of a Base.
type InfoClient struct {
	baserpc.InfoServiceClient
	transport *transport
}

// GetInfo asks the Base what it is and how it does, and stores the role that it reports for this App, if
// it can (Options.Unstored). Its addresses are as this machine can use them (Reachable).
func (c InfoClient) GetInfo(ctx context.Context, request *basev1.GetInfoRequest) (*basev1.GetInfoResponse, error) {
	info, err := c.InfoServiceClient.GetInfo(ctx, request)
	if info != nil {
		info.Addresses = Reachable(info.GetAddresses())
	}
	if err == nil {
		err = c.transport.learnRole(info.GetCaller().GetRole())
	}
	return info, err
}

// learnRole stores the role that the Base reports for this App, unless the stored one is the same and
// fresh.
func (t *transport) learnRole(role basev1.Role) error {
	if role == basev1.Role_ROLE_UNSPECIFIED {
		return nil
	}
	now := t.app.now()
	known, err := t.app.store.pairing(t.id)
	if err == nil && (known.Role != role || now.Sub(known.RoleAt).Abs() >= roleRest) {
		if !t.roles.AllowN(now, 1) {
			return nil
		}
		err = t.app.store.learnRole(t.id, role, now)
	}
	return t.app.notes.kept(err)
}

// SetRole changes what an App may do, by its id.
func SetRole(id string, role basev1.Role) Edit {
	return func(p *Posture, _ *PostureView, _ uint64) error {
		i := slices.IndexFunc(p.Apps, func(a posture.App) bool { return a.ID == id })
		if i < 0 {
			return fail(ErrNoSuchApp, nil, "this Base has no App with the id %q", Printable(id))
		}
		p.Apps = slices.Clone(p.Apps)
		p.Apps[i].Role = role
		return nil
	}
}

// SetRole changes the role of an App, once the user has approved. A higher role is tried and
// confirmed like everything that opens the Base further. A lower one holds at once and ends the
// App's sessions, even if it is this App's own. The last owner cannot be lowered.
func (s *Session) SetRole(ctx context.Context, id string, role basev1.Role, approve Approve,
	progress func(step string)) (*PostureView, error) {
	view, err := s.Posture(ctx)
	if err != nil {
		return nil, err
	}
	p, _ := view.Posture()
	lowers := slices.ContainsFunc(p.Apps, func(a posture.App) bool { return a.ID == id && a.Role > role })
	return s.Apply(ctx, Change{Edit: SetRole(id, role), Approve: approve, Progress: progress, final: lowers})
}

// OpenWindow opens the pairing window for one App with this role; this owner's App signs it. A
// person at the Base accepts and confirms the App there.
func (s *Session) OpenWindow(ctx context.Context, role basev1.Role) (*basev1.Window, error) {
	seen, err := s.look(ctx, true)
	if err != nil {
		return nil, err
	}
	answer, err := s.Pairing.OpenWindow(ctx, &basev1.OpenWindowRequest{
		Order: posture.SignPairingOrder(seen.view.PairingOrder(role, nil, seen.challenge), seen.seed)})
	return answer.GetWindow(), err
}

// Acceptance is how an owner's App lets another App in at a Base without a display.
type Acceptance struct {
	// Number is the request number that the new App shows, such as "123 456".
	Number string
	// Role is what the new App will be allowed to do.
	Role basev1.Role
	// Accepted, if set, is called when the Base waits for the new App.
	Accepted func()
	// Words asks for the words that the new App shows. An empty text means no. Its context ends
	// when the words are no longer needed. If the text is not six words, Words is called again
	// with a problem; words that differ from the Base's own end the pairing.
	Words func(ctx context.Context, app NewApp) (string, error)
	// Matched is called once the Base has signed that the words are its own. Now the new App's
	// user should confirm there.
	Matched func()
}

// NewApp is an App that asks to be let in.
type NewApp struct {
	// Name is what it calls itself: untrusted text.
	Name string
	// Problem is why the last text was not six words; empty at first.
	Problem string
}

// parseRequestNumber reads "123 456".
func parseRequestNumber(text string) (uint32, error) {
	digits := strings.ReplaceAll(text, " ", "")
	number, err := strconv.ParseUint(digits, 10, 32)
	if err != nil || len(digits) != 6 {
		return 0, fail(ErrInvalid, err, "%q is not a request number, which has six digits", Printable(text))
	}
	return uint32(number), nil
}

// AcceptPairing lets another App in at a Base without a display. This owner's App takes the place
// of a person at the Base: it signs that a request number is accepted, and then the words that
// the new App shows. The Base's authority says, signed, whether the words are right; nobody in
// between can. listed tells whether the new App has connected and is already in the Base's signed
// posture.
func (s *Session) AcceptPairing(ctx context.Context, a Acceptance) (listed bool, err error) {
	number, err := parseRequestNumber(a.Number)
	if err != nil {
		return false, err
	}
	if a.Words == nil {
		return false, fail(ErrInvalid, nil, "letting an App in needs a person who types its words")
	}
	seen, err := s.look(ctx, true)
	if err != nil {
		return false, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := s.Pairing.AcceptPairing(ctx, &basev1.AcceptPairingRequest{
		Order: posture.SignPairingOrder(seen.view.PairingOrder(a.Role, &number, seen.challenge), seen.seed)})
	if err != nil {
		return false, err
	}
	c := &accepting{Session: s, Acceptance: a, view: seen.view, phases: make(chan *basev1.AcceptPairingResponse), ended: make(chan error, 1)}
	read := make(chan struct{})
	go func() {
		defer close(read)
		defer stream.Close()
		for {
			message, err := stream.Receive()
			if err != nil {
				c.ended <- err
				return
			}
			select {
			case c.phases <- message:
			case <-ctx.Done():
			}
		}
	}()
	defer func() { cancel(); <-read }()
	key, err := c.run(ctx)
	if err != nil {
		return false, err
	}
	return s.listed(ctx, key, a.Role)
}

// accepting is one ceremony, as the owner's App sees it.
type accepting struct {
	*Session
	Acceptance
	view   *PostureView
	phases chan *basev1.AcceptPairingResponse
	ended  chan error
}

// run returns the key of the App that was let in. The phases are only the Middleware's word; a
// false one can only make the pairing fail.
func (c *accepting) run(ctx context.Context) (key []byte, err error) {
	type typed struct {
		words noiseconn.Words
		yes   bool
		err   error
	}
	var answered chan typed
	var shown *basev1.AcceptPairingResponse
	asking, stopAsking := context.WithCancel(ctx)
	defer stopAsking()
	for {
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case err := <-c.ended:
			switch {
			case errors.Is(err, io.EOF): // the ceremony ended early
			case !lost(err): // the Base has refused
				return nil, err
			}
			return nil, fail(ErrUnreachable, err, "the connection to the Base was lost during the pairing (%v); the new App is let in only if both sides had confirmed: check the list of Apps", reason(err))
		case message := <-c.phases:
			switch message.GetPhase() {
			case basev1.AcceptPairingResponse_PHASE_ACCEPTED:
				if c.Accepted != nil {
					c.Accepted()
				}
			case basev1.AcceptPairingResponse_PHASE_SHOWN:
				if shown != nil {
					continue
				}
				shown, answered = message, make(chan typed, 1)
				go func() {
					words, yes, err := c.ask(asking, message.GetAppName())
					answered <- typed{words, yes, err}
				}()
			case basev1.AcceptPairingResponse_PHASE_ENROLLED:
				if key == nil {
					return nil, fail(ErrLyingBase, nil, "the Base says that the App was let in, but this App has not confirmed it; do not rely on it, and check the list of Apps")
				}
				return key, nil
			case basev1.AcceptPairingResponse_PHASE_ENDED:
				return nil, fail(ErrNotAccepted, nil, "the pairing ended (%s); no App was let in", Printable(message.GetReason()))
			}
		case got := <-answered:
			answered = nil
			var words []byte
			if got.err == nil && got.yes {
				words = got.words[:]
			}
			matched, err := c.answer(ctx, shown, words)
			switch {
			case got.err != nil:
				return nil, got.err
			case !got.yes:
				return nil, fail(ErrNotApproved, err, "the new App was refused; no App was let in")
			case err != nil:
				return nil, err
			case !matched:
				return nil, fail(ErrInterference, nil, "these are not the Base's words: they were mistyped, or somebody is in between; the pairing has ended, and no App was let in. In the new App, answer no")
			}
			key = shown.GetSigningKey()
			if c.Matched != nil {
				c.Matched()
			}
		}
	}
}

// ask has the user type the words.
func (c *accepting) ask(ctx context.Context, name string) (words noiseconn.Words, yes bool, err error) {
	for app := (NewApp{Name: name}); ; {
		text, err := c.Words(ctx, app)
		if err != nil || text == "" {
			return words, false, err
		}
		if words, err = noiseconn.ParseWords(text); err == nil {
			return words, true, nil
		}
		app.Problem = err.Error()
	}
}

// answer signs the words (none means no) and returns what the Base's authority has signed about
// them.
func (c *accepting) answer(ctx context.Context, shown *basev1.AcceptPairingResponse, words []byte) (matched bool, err error) {
	seen, err := c.look(ctx, true) // the user may have typed for long
	if err != nil {
		return false, err
	}
	answer := c.view.PairingAnswer(shown.GetCeremonyId(), words, c.Role, shown.GetSigningKey(), shown.GetAppName(), seen.challenge)
	reply, err := c.Pairing.AnswerPairing(ctx, &basev1.AnswerPairingRequest{Answer: posture.SignPairingAnswer(answer, seen.seed)})
	if err != nil {
		return false, err
	}
	matched, err = c.matched(c.view, answer, reply.GetReport())
	if err != nil {
		return false, fail(ErrLyingBase, err, "the Base's answer about the words is not signed by its authority (%v): in the new App, answer no",
			err)
	}
	return matched, nil
}

// matched is Session.matched, except in tests.
func matched(view *PostureView, answer *systemv1.PairingAnswer, report []byte) (bool, error) {
	return view.PairingMatched(answer, report)
}

const (
	// listedTime is how long to wait for a new App: it connects right after it was let in.
	listedTime  = 15 * time.Second
	listedAgain = 300 * time.Millisecond
)

// listed waits until the signed posture lists a key with a role.
func (s *Session) listed(ctx context.Context, key []byte, role basev1.Role) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, listedTime)
	defer cancel()
	for {
		view, err := s.Posture(ctx)
		if errors.Is(err, ErrLyingBase) {
			return false, err
		}
		if err == nil && slices.ContainsFunc(view.Effective().Apps, func(a posture.App) bool {
			return string(a.SigningKey[:]) == string(key) && a.Role == role
		}) {
			return true, nil
		}
		select {
		case <-ctx.Done():
			return false, nil
		case <-time.After(listedAgain):
		}
	}
}

// ParseRole reads "viewer", "operator" or "owner".
func ParseRole(text string) (basev1.Role, error) {
	role, known := basev1.ParseRole(text)
	if !known {
		return 0, fail(ErrInvalid, nil, "%q is not a role; use viewer, operator or owner", Printable(text))
	}
	return role, nil
}
