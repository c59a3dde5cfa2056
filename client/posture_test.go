//go:build linux

package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/devbase"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/bruteforce"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/caller"
	"github.com/BitBoxSwiss/bitbox-base/internal/helperclient"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/posture"
	basereason "github.com/BitBoxSwiss/bitbox-base/internal/reason"
	"github.com/BitBoxSwiss/bitbox-base/internal/testbed/appliancetest"
)

// rogue stands between the Middleware and its helper, and records what passes. Once a test gives
// it something to do, it is a compromised Middleware.
type rogue struct {
	helperclient.Port
	mu    sync.Mutex
	asked []string // the verbs, in order
	act   func(request *systemv1.SystemRequest) (instead *systemv1.SystemReply, of helperclient.Port)
}

func (r *rogue) through(port helperclient.Port) helperclient.Port {
	r.Port = port
	return r
}

// does sets what the Middleware does with each request: it answers by itself or asks another
// helper. With neither, it passes the request on.
func (r *rogue) does(act func(*systemv1.SystemRequest) (*systemv1.SystemReply, helperclient.Port)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.act = act
}

func (r *rogue) count(verb string) (n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, asked := range r.asked {
		if asked == verb {
			n++
		}
	}
	return n
}

func (r *rogue) Stream(ctx context.Context, request *systemv1.SystemRequest, receive func(*systemv1.SystemReply) error) error {
	message := proto.CloneOf(request) // a test may change it
	r.mu.Lock()
	r.asked = append(r.asked, strings.TrimPrefix(fmt.Sprintf("%T", message.GetVerb()), "*systemv1.SystemRequest_"))
	act := r.act
	r.mu.Unlock()
	port := r.Port
	if act != nil {
		instead, of := act(message)
		if instead != nil {
			return receive(instead)
		}
		if of != nil {
			port = of
		}
	}
	return port.Stream(ctx, message, receive)
}

func must[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}

// house is an appliance with an owner's App.
type house struct {
	*appliancetest.Appliance
	t          *testing.T
	middleware *rogue
	owner      *App
	second     *App // the App of another owner, where a test has one
	session    *Session
}

func newHouse(t *testing.T) *house {
	t.Helper()
	h := &house{t: t, middleware: &rogue{}}
	var err error
	if h.Appliance, err = appliancetest.Start(h.middleware.through); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.Stop(); err != nil {
			t.Errorf("stop the appliance: %v", err)
		}
	})
	h.owner, h.session = h.pair("Laptop", basev1.Role_ROLE_OWNER)
	return h
}

// pair lets an App in, and returns it with a session.
func (h *house) pair(name string, role basev1.Role) (*App, *Session) {
	h.t.Helper()
	a := testApp(h.t)
	a.name = name
	let := make(chan error, 1)
	_, err := a.Pair(h.t.Context(), []string{h.Address()}, PairOptions{
		Requested: func(number string) { go func() { let <- h.Let(h.t.Context(), number, role) }() },
		Confirm:   sayYes,
	})
	if err := errors.Join(err, <-let); err != nil {
		h.t.Fatalf("pair %s: %v", name, err)
	}
	return a, open(h.t, a)
}

func approve([]PostureChange) (bool, error) { return true, nil }

// texts are changes as a person reads them.
func texts(changes []PostureChange) string {
	var all []string
	for _, c := range changes {
		all = append(all, c.Text)
	}
	return strings.Join(all, "\n")
}

func exposed(view *PostureView) bool { return len(view.Effective().Endpoints) > 1 }

// look returns the posture, which must verify.
func (h *house) look() *PostureView {
	h.t.Helper()
	view, err := h.session.Posture(h.t.Context())
	if err != nil {
		h.t.Fatalf("look at the posture: %v", err)
	}
	return view
}

var expose = Change{Edit: Expose("electrum", Opening{For: 24 * time.Hour}), Approve: approve}

func TestOwnerSeesApprovesAndConfirmsOverANewConnection(t *testing.T) {
	h := newHouse(t)
	if view := h.look(); exposed(view) || view.Effective().SSH != nil {
		t.Fatalf("a new Base has something open: %+v", view.Effective())
	}
	var shown []PostureChange
	change := expose
	change.Approve = func(changes []PostureChange) (bool, error) {
		shown = changes
		return true, nil
	}
	looked := map[string]int{"GetPosture": h.middleware.count("GetPosture")}
	view, err := h.session.Apply(t.Context(), change)
	if err != nil {
		t.Fatal(err)
	}
	if want := "The Electrum API will be reachable for 1 day on port 50002."; texts(shown) != want || !shown[0].Opens {
		t.Errorf("the owner was shown %q", texts(shown))
	}
	if pending, _, _ := view.Pending(); pending || !exposed(view) {
		t.Errorf("pending %v, %+v", pending, view.Effective())
	}
	// One call each: to look, to change, to confirm.
	for _, verb := range []string{"GetPosture", "Submit", "ConfirmTry"} {
		if n := h.middleware.count(verb) - looked[verb]; n != 1 {
			t.Errorf("%s was called %d times", verb, n)
		}
	}
	history := view.History()
	if last := history[len(history)-1]; last.By != "the App 'Laptop'" {
		t.Errorf("the history says that it was %s", last.By)
	}

	// A client that stays on its old connection proves nothing, and is refused.
	shared := Expose("electrum", Opening{For: time.Hour, ShareEntry: true})
	signed, seen, err := h.session.submit(t.Context(), Change{Edit: shared, Approve: approve})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.session.confirmOnce(t.Context(), signed, seen, new(bool)); err == nil {
		t.Error("the old connection confirmed the change")
	}
	if _, err := h.session.ConfirmTry(t.Context(), approve); err != nil {
		t.Errorf("confirm over a new connection: %v", err)
	}

	if view, err = h.session.EndLease(t.Context(), "electrum", approve); err != nil || exposed(view) {
		t.Errorf("end the lease: %v", err)
	}
	_, err = h.session.EndLease(t.Context(), "electrum", approve)
	wantKind(t, err, ErrNoChange)
}

func TestNothingIsSentWithoutApproval(t *testing.T) {
	h := newHouse(t)
	sent := func() int {
		return h.middleware.count("Submit") + h.middleware.count("Restrict")
	}
	no := func([]PostureChange) (bool, error) { return false, nil }
	_, err := h.session.Apply(t.Context(), Change{Edit: expose.Edit, Approve: no})
	wantKind(t, err, ErrNotApproved)
	if sent() != 0 {
		t.Errorf("%d requests were sent for a change that nobody wanted", sent())
	}
	if _, err := h.session.Apply(t.Context(), expose); err != nil || sent() == 0 {
		t.Errorf("an approved change: %v, %d requests", err, sent())
	}
	before := sent()
	_, err = h.session.EndLease(t.Context(), "electrum", no)
	wantKind(t, err, ErrNotApproved)
	_, err = h.session.RevokeApp(t.Context(), h.look().Effective().Apps[0].ID, no)
	wantKind(t, err, ErrNotApproved)
	if sent() != before {
		t.Error("something was sent that was not approved")
	}
}

func TestTheLaterOfTwoChangesIsShownAgain(t *testing.T) {
	h := newHouse(t)
	_, other := h.pair("Desktop", basev1.Role_ROLE_OWNER)
	key := AddSSHKeys("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl desk", "")
	var shown []string
	change := expose
	change.Edit = func(p *Posture, view *PostureView, next uint64) error {
		p.NodeName = "Cellar"
		return expose.Edit(p, view, next)
	}
	change.Approve = func(changes []PostureChange) (bool, error) {
		shown = append(shown, texts(changes))
		if len(shown) > 1 {
			return true, nil
		}
		// While the first owner reads, the second makes half of the same change, and more.
		_, err := other.Apply(t.Context(), Change{Approve: approve, Edit: func(p *Posture, view *PostureView, next uint64) error {
			p.NodeName = "Cellar"
			return key(p, view, next)
		}})
		return true, err
	}
	view, err := h.session.Apply(t.Context(), change)
	if err != nil {
		t.Fatal(err)
	}
	if len(shown) != 2 || !strings.Contains(shown[0], "Cellar") || strings.Contains(shown[1], "Cellar") {
		t.Errorf("the owner was shown %q", shown)
	}
	if e := view.Effective(); !exposed(view) || e.NodeName != "Cellar" || len(e.KnownSSHKeys) != 1 {
		t.Errorf("one change has lost the other: %+v", e)
	}
}

// believer takes what it should verify with from the answer itself, like a client that skips the
// verification.
func believer(_ posture.Expectation, history, report []byte) (*PostureView, error) {
	var signed systemv1.Signed
	var content systemv1.PostureReport
	if err := errors.Join(proto.Unmarshal(report, &signed), proto.Unmarshal(signed.GetMessage(), &content)); err != nil {
		return nil, err
	}
	return posture.VerifyChain(posture.Expectation{Base: posture.SigningKey(signed.GetSigner()), Nonce: content.GetNonce()}, history, report)
}

func TestLyingMiddlewareIsNoticed(t *testing.T) {
	type act = func(*systemv1.SystemRequest) (*systemv1.SystemReply, helperclient.Port)
	h := newHouse(t)
	atOther := func(other *appliancetest.Helper) act {
		return func(*systemv1.SystemRequest) (*systemv1.SystemReply, helperclient.Port) {
			return nil, other.Port(caller.Middleware)
		}
	}
	helper := func(from *appliancetest.Helper) *appliancetest.Helper {
		other := must(appliancetest.StartHelper(from))
		t.Cleanup(func() {
			if err := other.Stop(); err != nil {
				t.Errorf("stop a helper: %v", err)
			}
		})
		return other
	}
	nonce := make([]byte, nonceSize)
	old := h.signed(nonce)
	rolledBack, forked := helper(h.Helper), helper(h.Helper)
	// The copy continues by itself, as far as the real one, but to another state.
	change := &systemv1.LocalChange{Change: &systemv1.LocalChange_Posture{Posture: func() *systemv1.Posture {
		p, _ := h.look().Posture()
		p.NodeName = "Forked"
		return p.Proto()
	}()}}
	must(helperclient.Client{Port: forked.Port(caller.Root)}.Do(t.Context(), &systemv1.SystemRequest{
		Verb: &systemv1.SystemRequest_LocalChange{LocalChange: change}}, nil))
	if _, err := h.session.Apply(t.Context(), expose); err != nil {
		t.Fatal(err)
	}

	for name, lie := range map[string]act{
		"old answer": func(request *systemv1.SystemRequest) (*systemv1.SystemReply, helperclient.Port) {
			if request.GetGetPosture() != nil {
				return old, nil
			}
			return nil, nil
		},
		"question swapped": func(request *systemv1.SystemRequest) (*systemv1.SystemReply, helperclient.Port) {
			if request.GetGetPosture() != nil {
				request.GetGetPosture().Nonce = nonce
			}
			return nil, nil
		},
		"another Base": atOther(helper(nil)),
		"rolled back":  atOther(rolledBack),
		"forked":       atOther(forked),
	} {
		t.Run(name, func(t *testing.T) {
			h.middleware.does(lie)
			defer h.middleware.does(nil)
			_, err := h.session.Posture(t.Context())
			wantKind(t, err, ErrLyingBase)
			_, err = h.session.Apply(t.Context(), Change{Edit: Keep, Unlock: true, Approve: approve})
			wantKind(t, err, ErrLyingBase)

			h.session.verify = believer
			defer func() { h.session.verify = posture.VerifyChain }()
			before := must3(h.owner.store.signing(h.session.transport.id))
			if _, err := h.session.Posture(t.Context()); err != nil {
				t.Errorf("a client that verifies nothing noticed: %v", err)
			}
			// It has stored the lie, too.
			if err := h.owner.store.change(h.session.transport.id, "mend the test", func(r *stored) { r.Seen = before }); err != nil {
				t.Fatal(err)
			}
		})
	}
	if !exposed(h.look()) {
		t.Error("the truth is no longer believed")
	}
}

func must3(_ posture.AppSeed, _ posture.SigningKey, seen posture.Memory, err error) posture.Memory {
	return must(seen, err)
}

// swallow makes the Middleware hold a verb back and answer with the helper's true answer to the
// App's question.
func (h *house) swallow(verb string) {
	h.middleware.does(func(request *systemv1.SystemRequest) (*systemv1.SystemReply, helperclient.Port) {
		if !strings.HasSuffix(fmt.Sprintf("%T", request.GetVerb()), "_"+verb) {
			return nil, nil
		}
		nonce := request.GetSubmit().GetNonce()
		nonce = append(nonce, request.GetConfirmTry().GetNonce()...)
		nonce = append(nonce, request.GetRestrict().GetNonce()...)
		return h.signed(nonce), nil
	})
}

// signed is the helper's answer to a Middleware that asks for the posture.
func (h *house) signed(nonce []byte) *systemv1.SystemReply {
	return must(helperclient.Client{Port: h.Port(caller.Middleware)}.Do(h.t.Context(), &systemv1.SystemRequest{
		Verb: &systemv1.SystemRequest_GetPosture{GetPosture: &systemv1.GetPosture{Nonce: nonce, Challenge: true}}}, nil))
}

func TestMiddlewareThatOnlyClaimsSuccessIsNoticed(t *testing.T) {
	h := newHouse(t)
	h.swallow("Submit")
	if _, _, err := h.session.submit(t.Context(), expose); err != nil {
		t.Errorf("a client that believes the answer noticed: %v", err)
	}
	_, err := h.session.Apply(t.Context(), expose)
	wantKind(t, err, ErrUndone)

	h.swallow("ConfirmTry")
	_, err = h.session.Apply(t.Context(), expose)
	wantKind(t, err, ErrUndone)
	h.middleware.does(nil)
	if _, err := h.session.ConfirmTry(t.Context(), approve); err != nil {
		t.Fatal(err)
	}

	h.swallow("Restrict")
	_, err = h.session.EndLease(t.Context(), "electrum", approve)
	wantKind(t, err, ErrLyingBase)
	_, err = h.session.Lockdown(t.Context())
	wantKind(t, err, ErrLyingBase)

	// It answers with an old posture, or with none.
	old := h.signed(make([]byte, nonceSize))
	for _, answer := range []*systemv1.SystemReply{old, {}} {
		for _, verb := range []string{"Submit", "ConfirmTry", "Restrict"} {
			h.middleware.does(func(request *systemv1.SystemRequest) (*systemv1.SystemReply, helperclient.Port) {
				if strings.HasSuffix(fmt.Sprintf("%T", request.GetVerb()), "_"+verb) {
					return answer, nil
				}
				return nil, nil
			})
			if verb == "Restrict" {
				_, err = h.session.Lockdown(t.Context())
			} else {
				_, err = h.session.Apply(t.Context(), Change{Edit: Rename("Cellar " + verb), Approve: approve})
			}
			wantKind(t, err, ErrLyingBase)
			h.Advance(61 * time.Second)
		}
	}
}

func TestTryWhoseConfirmationCannotArriveIsUndone(t *testing.T) {
	// Without a try, the wrong change would stay.
	for name, final := range map[string]bool{"try": false, "broken: no try": true} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			change := expose
			change.final = final
			// The new posture closes the entry, as a wrong one would, and the user stops waiting.
			h.Machine.WhenExamined(func() {
				if h.middleware.count("Submit") == 0 {
					return // the event is not about this change
				}
				h.Shut()
				time.AfterFunc(time.Second, cancel)
			})
			_, err := h.session.Apply(ctx, change)
			told := map[bool]string{false: "the Base undoes it within 60 s", true: "is in force if the Base received it"}
			wantKind(t, err, map[bool]error{false: ErrUndone, true: ErrUnsettled}[final])
			if !strings.Contains(err.Error(), told[final]) {
				t.Errorf("the user is told %q", err)
			}
			h.Machine.WhenExamined(nil) // the end of the try is examined, too
			h.Open()
			eventually(t, "being applied", func() bool {
				_, trying, _ := h.look().Pending()
				return exposed(h.look()) && trying != final
			})
			h.Advance(61 * time.Second)
			if exposed(h.look()) != final {
				t.Error("the change is undone where it should stay, or stays where it should be undone")
			}
			_, err = h.session.ConfirmTry(t.Context(), approve)
			wantKind(t, err, ErrNoChange)
		})
	}
}

// A user who gives up while the confirmation is on its way must not be told that the change is
// undone.
func TestGivingUpWhileConfirmingReportsAnUnknownResult(t *testing.T) {
	h := newHouse(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	h.middleware.does(func(request *systemv1.SystemRequest) (*systemv1.SystemReply, helperclient.Port) {
		if request.GetConfirmTry() != nil {
			cancel()
		}
		return nil, nil
	})
	_, err := h.session.Apply(ctx, expose)
	wantKind(t, err, ErrUnsettled)
	h.middleware.does(nil)
	eventually(t, "settled", func() bool {
		_, trying, _ := h.look().Pending()
		if trying {
			h.Advance(61 * time.Second)
		}
		return !trying
	})
}

func TestChangeThatCannotBeAppliedIsUndoneWithAReason(t *testing.T) {
	h := newHouse(t)
	h.Machine.Break(basereason.New("the rules do not parse"))
	_, err := h.session.Apply(t.Context(), expose)
	if err == nil || !strings.Contains(Explain(err), "the rules do not parse") {
		t.Errorf("the owner is told %v", err)
	}
	if exposed(h.look()) {
		t.Error("it is in force")
	}
}

func TestRevokingAnOwnersAppTakesItsKeyFirst(t *testing.T) {
	h := newHouse(t)
	lost, stolen := h.pair("Phone", basev1.Role_ROLE_OWNER)
	id := bases(t, lost)[0].AppID
	if err := getInfo(t, stolen); err != nil {
		t.Fatal(err)
	}
	listed := func() bool { return len(h.look().Effective().Apps) == 2 }

	// The Middleware holds the document back: then the channel must not be cut alone, and the App
	// can be revoked again.
	h.swallow("Submit")
	_, err := h.session.RevokeApp(t.Context(), id, approve)
	wantKind(t, err, ErrUndone)
	// This Middleware pretends to have no posture.
	h.middleware.does(func(request *systemv1.SystemRequest) (*systemv1.SystemReply, helperclient.Port) {
		return &systemv1.SystemReply{ErrorCode: string(helperclient.CodeRefused), ErrorMessage: "this Base has no posture"}, nil
	})
	if taken, err := h.session.RevokeApp(t.Context(), id, approve); err == nil {
		t.Errorf("the App believed that there is no posture (key taken: %v)", taken)
	}
	h.middleware.does(nil)
	if !listed() {
		t.Fatal("the key is gone")
	}

	var shown string
	taken, err := h.session.RevokeApp(t.Context(), id, func(changes []PostureChange) (bool, error) {
		shown = texts(changes)
		return true, nil
	})
	if err != nil || !taken || listed() || shown != "The App 'Phone' will be cut off." {
		t.Errorf("%v, key taken %v, listed %v, shown %q", err, taken, listed(), shown)
	}
	eventually(t, "being told", func() bool { return errors.Is(getInfo(t, stolen), ErrRevoked) })

	// Cutting the channel alone is not enough: the key could still sign.
	tablet, _ := h.pair("Tablet", basev1.Role_ROLE_OWNER)
	if _, err := h.session.Apps.RevokeApp(t.Context(), &basev1.RevokeAppRequest{Id: bases(t, tablet)[0].AppID}); err != nil || !listed() {
		t.Errorf("%v; the key is gone with the channel: %v", err, !listed())
	}
}

func TestOwnersAppCanRevokeItselfButNotTheLast(t *testing.T) {
	h := newHouse(t)
	_, err := h.session.RevokeApp(t.Context(), bases(t, h.owner)[0].AppID, approve)
	if err == nil || Explain(err) != "the Base refused: no owner would be left; keep at least one" {
		t.Errorf("the last owner: %v", err)
	}
	self, session := h.pair("Phone", basev1.Role_ROLE_OWNER)
	if taken, err := session.RevokeApp(t.Context(), bases(t, self)[0].AppID, approve); err != nil || !taken {
		t.Errorf("itself: %v, key taken %v", err, taken)
	}
	if n := len(h.look().Effective().Apps); n != 1 {
		t.Errorf("%d Apps are left", n)
	}
}

func TestDevelopersBaseCutsTheChannelAlone(t *testing.T) {
	b, err := devbase.Start(devbase.Config{StateDir: t.TempDir() + "/state", Listen: "127.0.0.1:0", Name: "Dev",
		Logger: slog.New(slog.NewTextHandler(io.Discard, nil))})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = b.Stop() }()
	let := func(name string, role basev1.Role) (*App, *Session) {
		a := testApp(t)
		a.name = name
		done := make(chan error, 1)
		_, err := a.Pair(t.Context(), []string{b.Addr().String()}, PairOptions{Confirm: sayYes, Requested: func(number string) {
			go func() { done <- appliancetest.Let(t.Context(), b.Console(), number, role) }()
		}})
		if err := errors.Join(err, <-done); err != nil {
			t.Fatal(err)
		}
		return a, open(t, a)
	}
	_, owner := let("Laptop", basev1.Role_ROLE_OWNER)
	phone, cut := let("Phone", basev1.Role_ROLE_OWNER)
	id := bases(t, phone)[0].AppID
	_, err = owner.RevokeApp(t.Context(), id, func([]PostureChange) (bool, error) { return false, nil })
	wantKind(t, err, ErrNotApproved)
	taken, err := owner.RevokeApp(t.Context(), id, approve)
	if err != nil || taken {
		t.Errorf("%v, key taken %v", err, taken)
	}
	eventually(t, "being told", func() bool { return errors.Is(getInfo(t, cut), ErrRevoked) })
}

func TestLockdownEndsOtherSessionsAndIsLiftedSigned(t *testing.T) {
	h := newHouse(t)
	if _, err := h.session.Apply(t.Context(), expose); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second changes nothing, and succeeds
		if view, err := h.session.Lockdown(t.Context()); err != nil || exposed(view) || !view.Effective().PairingClosed {
			t.Fatalf("lockdown: %v", err)
		}
	}
	_, err := h.session.Apply(t.Context(), expose)
	wantKind(t, err, ErrInvalid)
	view, err := h.session.Apply(t.Context(), Change{Edit: Keep, Unlock: true, Approve: approve})
	if err != nil || view.Effective().Lockdown {
		t.Errorf("unlock: %v", err)
	}
	_, err = h.session.Apply(t.Context(), Change{Edit: Keep, Unlock: true, Approve: approve})
	wantKind(t, err, ErrNoChange)
}

func TestBansAreListedAndLifted(t *testing.T) {
	h := newHouse(t)
	h.Machine.Ban(bruteforce.Ban{Jail: "sshd", Addr: netip.MustParseAddr("192.0.2.7"), Since: time.Now(), Until: time.Now().Add(time.Hour)})
	if list, err := h.session.Bans(t.Context()); err != nil || list.GetTotal() != 1 || list.GetCurrent() != 1 ||
		list.GetBans()[0].GetAddress() != "192.0.2.7" {
		t.Errorf("%v, %d, %v", list, list.GetTotal(), err)
	}
	for _, c := range []struct {
		address string
		lifted  bool
		kind    error
	}{{"192.0.2.8", false, nil}, {"::ffff:192.0.2.7", true, nil}, {"192.0.2.7", false, nil}, {"somewhere", false, ErrInvalid}} {
		lifted, err := h.session.LiftBan(t.Context(), c.address)
		if lifted != c.lifted || !errors.Is(err, c.kind) {
			t.Errorf("%s: lifted %v, %v", c.address, lifted, err)
		}
	}
}

func TestSSHKeysAreEdited(t *testing.T) {
	h := newHouse(t)
	const line = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl desk"
	for _, step := range []struct {
		what string
		edit Edit
		kind error
		says string
	}{
		{"on without a key", EnableSSH(time.Hour), ErrInvalid, "without a key"},
		{"a line that runs something", AddSSHKeys(`command="sh" `+line, ""), ErrInvalid, "options are not accepted"},
		{"a hidden character in the name", AddSSHKeys(line, "a\u202eb"), ErrInvalid, "invisible character"},
		{"add", AddSSHKeys(line, "my desk"), nil, ""},
		{"the same again", AddSSHKeys(line, "my desk"), ErrNoChange, ""},
		{"too short", EnableSSH(time.Second), ErrInvalid, "5 minutes to 7 days"},
		{"on", EnableSSH(time.Hour), nil, ""},
		{"remove another", RemoveSSHKey("desk"), ErrNoSuchKey, ""},
		{"remove", RemoveSSHKey("my desk"), nil, ""},
	} {
		_, err := h.session.Apply(t.Context(), Change{Edit: step.edit, Approve: approve})
		if !errors.Is(err, step.kind) || err != nil && !strings.Contains(Explain(err), step.says) {
			t.Errorf("%s: %v", step.what, err)
		}
	}
	if e := h.look().Effective(); e.SSH != nil || len(e.KnownSSHKeys) != 0 {
		t.Errorf("%+v", e)
	}
	changes, err := h.session.Preview(t.Context(), Change{Edit: GoBack(h.look().Effective().Revision - 1)})
	if err != nil || !strings.Contains(texts(changes), "SSH will be switched on for 1 hour") {
		t.Errorf("going back would be %q, %v", texts(changes), err)
	}
}

// During a lockdown SSH and extra APIs can be closed, and unlocking opens nothing.
func TestClosingWorksBelowALockdown(t *testing.T) {
	h := newHouse(t)
	if _, err := h.session.Apply(t.Context(), expose); err != nil {
		t.Fatal(err)
	}
	if _, err := h.session.Lockdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	view, err := h.session.EndLease(t.Context(), "electrum", approve)
	if err != nil || len(view.Unlocked().Endpoints) != 1 {
		t.Errorf("end a lease below a lockdown: %v", err)
	}
	for reopened, edit := range map[bool]Edit{false: KeepClosed, true: Keep} {
		if _, err := h.session.Apply(t.Context(), Change{Edit: KeepClosed, Unlock: true, Approve: approve}); err != nil {
			t.Fatal(err)
		}
		if _, err := h.session.Apply(t.Context(), expose); err != nil {
			t.Fatal(err)
		}
		if _, err := h.session.Lockdown(t.Context()); err != nil {
			t.Fatal(err)
		}
		view, err := h.session.Apply(t.Context(), Change{Edit: edit, Unlock: true, Approve: approve})
		if err != nil || exposed(view) != reopened || view.Effective().Lockdown {
			t.Errorf("unlocked: %v, exposed %v, want %v", err, err == nil && exposed(view), reopened)
		}
		if _, err := h.session.Lockdown(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

// While a change is being applied, the posture says so, another change is refused with that
// reason, and the change can be confirmed.
func TestAChangeBeingAppliedIsReportedAsSuch(t *testing.T) {
	h := newHouse(t)
	_, other := h.pair("Phone", basev1.Role_ROLE_OWNER)
	begun, goOn := make(chan struct{}), make(chan struct{})
	var once sync.Once
	h.Machine.WhenExamined(func() {
		once.Do(func() {
			close(begun)
			<-goOn
		})
	})
	ctx, leave := context.WithCancel(t.Context())
	left := make(chan struct{})
	go func() {
		defer close(left)
		_, _, _ = h.session.submit(ctx, Change{Edit: Expose("electrum", Opening{For: time.Hour}), Approve: approve})
	}()
	<-begun
	if pending, trying, _ := must(other.Posture(t.Context())).Pending(); !pending || trying {
		t.Error("the posture does not say that it is being applied")
	}
	_, err := other.Apply(t.Context(), Change{Edit: Rename("Cellar"), Approve: approve})
	wantKind(t, err, ErrBusy)
	if err == nil || !strings.Contains(err.Error(), "being applied") {
		t.Errorf("the other change is told %v", err)
	}
	leave()
	<-left // and the change goes on
	close(goOn)
	if view, err := h.session.ConfirmTry(t.Context(), approve); err != nil || !exposed(view) {
		t.Errorf("confirm what is being applied: %v", err)
	}
}
