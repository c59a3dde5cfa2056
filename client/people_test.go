//go:build linux

package client

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"io"
	"strings"
	"sync"
	"testing"

	"google.golang.org/protobuf/proto"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/caller"
	"github.com/BitBoxSwiss/bitbox-base/internal/helperclient"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/noiseconn"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/posture"
	"github.com/BitBoxSwiss/bitbox-base/internal/secret"
	"github.com/BitBoxSwiss/bitbox-base/internal/testbed/appliancetest"
)

const (
	viewer   = basev1.Role_ROLE_VIEWER
	operator = basev1.Role_ROLE_OPERATOR
	owner    = basev1.Role_ROLE_OWNER
)

// idOf is the id of an App's only pairing.
func idOf(a *App) string { return must(a.Bases())[0].AppID }

// roleOf is the role of an App, by the signed posture and by the Middleware.
func (h *house) roleOf(a *App) (signed, served basev1.Role) {
	h.t.Helper()
	for _, app := range h.look().Effective().Apps {
		if app.ID == idOf(a) {
			signed = app.Role
		}
	}
	for _, app := range must(h.session.Apps.ListApps(h.t.Context(), &basev1.ListAppsRequest{})).GetApps() {
		if app.GetId() == idOf(a) {
			served = app.GetRole()
		}
	}
	return signed, served
}

func (h *house) awaitRole(a *App, want basev1.Role) {
	h.t.Helper()
	eventually(h.t, "the role is "+want.String(), func() bool {
		signed, served := h.roleOf(a)
		return signed == want && served == want
	})
}

func TestAnOwnerChangesWhatAnAppMayDo(t *testing.T) {
	h := newHouse(t)
	phone, session := h.pair("Phone", viewer)
	var shown []PostureChange
	look := func(changes []PostureChange) (bool, error) { shown = changes; return true, nil }

	if _, err := h.session.SetRole(t.Context(), idOf(phone), owner, look, nil); err != nil {
		t.Fatal(err)
	}
	if len(shown) != 1 || !shown[0].Opens || shown[0].Text != "The App 'Phone' will be owner instead of viewer." {
		t.Errorf("the user was shown %+v", shown)
	}
	h.awaitRole(phone, owner)
	// It has an owner's rights at the helper as well.
	if _, err := session.Apply(t.Context(), expose); err != nil {
		t.Errorf("an App that was raised to owner: %v", err)
	}

	stream := must(session.Events.WatchEvents(t.Context(), &basev1.WatchEventsRequest{}))
	must(stream.Receive())
	ended := make(chan error, 1)
	go func() { ended <- endOf(stream) }()
	if _, err := h.session.SetRole(t.Context(), idOf(phone), viewer, look, nil); err != nil {
		t.Fatal(err)
	}
	if len(shown) != 1 || shown[0].Opens {
		t.Errorf("the user was shown %+v", shown)
	}
	h.awaitRole(phone, viewer)
	if err := <-ended; err == nil {
		t.Error("the stream of an App that was lowered ended as if it were over")
	}
	if _, err := session.Pairing.OpenWindow(t.Context(), &basev1.OpenWindowRequest{}); !errors.Is(err, ErrDenied) {
		t.Errorf("it opens the window: %v", err)
	}
	// The ceremony authority knows it, too: the key is no longer an owner's.
	if got := h.middleware.count("Submit"); got < 3 {
		t.Errorf("%d documents came", got)
	}
	if _, err := h.session.SetRole(t.Context(), "0123456789abcdef", viewer, look, nil); !errors.Is(err, ErrNoSuchApp) {
		t.Errorf("nobody's role was changed: %v", err)
	}
	if _, err := h.session.SetRole(t.Context(), idOf(phone), viewer, look, nil); !errors.Is(err, ErrNoChange) {
		t.Errorf("nothing was changed: %v", err)
	}
}

// The Middleware's list gives the id of the App that a user has named.
func TestALyingListOfAppsCannotSubstituteAnotherApp(t *testing.T) {
	h := newHouse(t)
	phone, _ := h.pair("Phone", viewer)
	evil, _ := h.pair("Evil", viewer)
	check := func(a *App, name, pairedAs string, want error) {
		t.Helper()
		if got, err := h.session.CheckName(t.Context(), idOf(a), name); got != pairedAs || !errors.Is(err, want) {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	check(phone, "Phone", "Phone", nil)
	check(phone, "Renamed", "Phone", nil)
	check(evil, "Phone", "", ErrNoSuchApp)
	if pairedAs, err := h.session.CheckName(t.Context(), "0123456789abcdef", "Phone"); !errors.Is(err, ErrNoSuchApp) {
		t.Errorf("an App that is not there is taken for the one that was named: %q, %v", pairedAs, err)
	}
}

func TestAnOwnerCanStepDownUnlessItIsTheLast(t *testing.T) {
	h := newHouse(t)
	if _, err := h.session.SetRole(t.Context(), idOf(h.owner), viewer, approve, nil); !errors.Is(err, ErrNotNow) {
		t.Errorf("the last owner has stepped down: %v", err)
	}
	phone, session := h.pair("Phone", owner)
	// It confirms nothing, because it no longer could.
	if _, err := session.SetRole(t.Context(), idOf(phone), viewer, approve, nil); err != nil {
		t.Fatal(err)
	}
	h.awaitRole(phone, viewer)
}

// deaf is a helper whose reports about roles are ignored.
type deaf struct{ helperclient.Port }

func (d deaf) Stream(ctx context.Context, request *systemv1.SystemRequest, receive func(*systemv1.SystemReply) error) error {
	return d.Port.Stream(ctx, request, func(reply *systemv1.SystemReply) error {
		if reply.GetEvent() != nil {
			reply.GetEvent().AppRoles = nil
		}
		return receive(reply)
	})
}

// A compromised Middleware serves a former owner as if it were still one.
func TestALoweredOwnerGainsNothingFromALyingMiddleware(t *testing.T) {
	h := &house{t: t}
	var err error
	h.Appliance, err = appliancetest.StartWithoutDisplay(func(port helperclient.Port) helperclient.Port { return deaf{port} })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.Stop(); err != nil {
			t.Errorf("stop the appliance: %v", err)
		}
	})
	h.owner, h.session = h.pair("Laptop", owner)
	phone, session := h.pair("Phone", owner)
	attack := func() map[string]error {
		results := map[string]error{}
		_, results["opens something"] = session.Apply(t.Context(), expose)
		_, results["orders a window"] = session.OpenWindow(t.Context(), owner)
		_, results["makes itself owner"] = session.SetRole(t.Context(), idOf(phone), owner, approve, nil)
		_, results["lifts a ban"] = session.LiftBan(t.Context(), "192.0.2.1")
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		_, results["lets an App in"] = session.AcceptPairing(ctx, Acceptance{
			Number: "123456", Role: owner, Accepted: cancel, Words: func(context.Context, NewApp) (string, error) { return "", nil }})
		return results
	}
	// While it is an owner, the same attack succeeds, except for what is already so.
	before := attack()
	if before["opens something"] != nil || before["orders a window"] != nil || before["lifts a ban"] != nil ||
		!errors.Is(before["lets an App in"], context.Canceled) {
		t.Errorf("as an owner: %v; this attack proves nothing", before)
	}
	if _, err := h.session.SetRole(t.Context(), idOf(phone), viewer, approve, nil); err != nil {
		t.Fatal(err)
	}
	if signed, served := h.roleOf(phone); signed != viewer || served != owner {
		t.Fatalf("the Base has signed %v, the Middleware serves %v: this is no attack", signed, served)
	}
	was := h.look().Effective()
	for what, err := range attack() {
		if !errors.Is(err, ErrNotNow) || !strings.Contains(err.Error(), "not an owner's App") {
			t.Errorf("an owner who was lowered %s: %v", what, err)
		}
	}
	if now := h.look().Effective(); !posture.NoMoreOpen(now, was) {
		t.Errorf("something has changed:\n%+v\n%+v", was, now)
	}
}

func TestAWindowForARoleGrantsNoOther(t *testing.T) {
	h := newHouse(t)
	window, err := h.session.OpenWindow(t.Context(), operator)
	if err != nil || !window.GetOpen() || window.GetRole() != operator {
		t.Fatalf("%v, %v", window, err)
	}
	console := helperclient.Client{Port: h.Port(caller.Console)}.Authority()
	// The Middleware cannot widen it; the limit is in the snapshot that the console shows.
	if _, err := h.session.Pairing.OpenWindow(t.Context(), &basev1.OpenWindowRequest{}); err != nil {
		t.Fatal(err)
	}
	if snapshot := must(console.Watch(t.Context(), 0)); snapshot.GetWindowRole() != operator {
		t.Errorf("the console is told %v", snapshot.GetWindowRole())
	}
	if err := console.Accept(t.Context(), 123456, owner); err == nil {
		t.Error("somebody at the Base has given more than the owner")
	}
	a := testApp(t)
	let := make(chan error, 1)
	_, err = a.Pair(t.Context(), []string{h.Address()}, PairOptions{
		Requested: func(number string) {
			go func() {
				let <- h.acceptAtTheBase(t.Context(), number, basev1.Role_ROLE_UNSPECIFIED)
			}()
		},
		Confirm: sayYes,
	})
	if err := errors.Join(err, <-let); err != nil {
		t.Fatal(err)
	}
	h.awaitRole(a, operator)
	events := h.look().History()
	if last := events[len(events)-1]; last.By != "a pairing at the Base" || last.Note != "ordered by the App 'Laptop'" {
		t.Errorf("the history says %q, %q", last.By, last.Note)
	}
}

// acceptAtTheBase is a person at the Base, while a window is open.
func (h *house) acceptAtTheBase(ctx context.Context, number string, role basev1.Role) error {
	console := helperclient.Client{Port: h.Port(caller.Console)}.Authority()
	n, err := parseRequestNumber(number)
	if err != nil {
		return err
	}
	if err := console.Accept(ctx, n, role); err != nil {
		return err
	}
	for seen := uint64(0); ; {
		snapshot, err := console.Watch(ctx, seen)
		if err != nil {
			return err
		}
		if snapshot.GetCeremony().GetPhase() == systemv1.Ceremony_PHASE_SHOWN {
			id := [16]byte(snapshot.GetCeremony().GetId())
			return console.Answer(ctx, id, true)
		}
		seen = snapshot.GetVersion()
	}
}

func newHouseWithoutDisplay(t *testing.T) *house {
	t.Helper()
	h := &house{t: t, middleware: &rogue{}}
	var err error
	if h.Appliance, err = appliancetest.StartWithoutDisplay(h.middleware.through); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.Stop(); err != nil {
			t.Errorf("stop the appliance: %v", err)
		}
	})
	h.owner, h.session = h.pair("Laptop", owner)
	return h
}

// people are two persons: one has the new App, the other an owner's.
type two struct {
	app        *App
	address    string
	words      chan string // that the new App shows
	number     chan string
	saidYes    chan bool // to the new App
	newApp     chan error
	acceptance Acceptance
}

// meet has the new App ask at an address.
func (h *house) meet(role basev1.Role, address string) *two {
	m := &two{app: testApp(h.t), address: address, words: make(chan string, 1), number: make(chan string, 1), saidYes: make(chan bool, 1),
		newApp: make(chan error, 1)}
	m.app.name = "Phone"
	ctx, cancel := context.WithCancel(h.t.Context())
	h.t.Cleanup(cancel)
	go func() {
		_, err := m.app.Pair(ctx, []string{address}, PairOptions{
			Words:     true,
			Requested: func(number string) { m.number <- number },
			Confirm: func(ctx context.Context, code Code) (bool, error) {
				if code.Digits != "" {
					return false, errors.New("the digits are shown")
				}
				m.words <- code.Words
				select {
				case yes := <-m.saidYes:
					return yes, nil
				case <-ctx.Done():
					return false, ctx.Err()
				}
			},
		})
		m.newApp <- err
	}()
	m.acceptance = Acceptance{
		Number:  <-m.number,
		Role:    role,
		Words:   func(ctx context.Context, _ NewApp) (string, error) { return m.read(ctx) },
		Matched: func() { m.saidYes <- true },
	}
	return m
}

// read is what the owner reads on the new App's screen.
func (m *two) read(ctx context.Context) (string, error) {
	select {
	case words := <-m.words:
		return words, nil
	case <-ctx.Done():
		return "", ctx.Err()
	}
}

// run makes the owner's App let the new one in. If it does not, the new App's user answers no, as
// instructed.
func (h *house) run(m *two) (listed bool, ownersApp, newApp error) {
	listed, ownersApp = h.session.AcceptPairing(h.t.Context(), m.acceptance)
	if ownersApp != nil {
		select {
		case m.saidYes <- false:
		default:
		}
	}
	return listed, ownersApp, <-m.newApp
}

func TestAnOwnersAppLetsAnotherInAtABaseWithoutADisplay(t *testing.T) {
	h := newHouseWithoutDisplay(t)
	m := h.meet(operator, h.Address())
	accepted := false
	m.acceptance.Accepted = func() { accepted = true }
	typed := 0
	m.acceptance.Words = func(ctx context.Context, app NewApp) (string, error) {
		typed++
		if app.Name != "Phone" || (app.Problem != "") != (typed > 1) {
			t.Errorf("the owner is shown %+v", app)
		}
		if typed == 1 {
			return "lusab", nil // is no six words, and costs nothing
		}
		words, err := m.read(ctx)
		return strings.ToUpper(strings.ReplaceAll(words, "-", " ")), err
	}
	listed, ownersApp, newApp := h.run(m)
	if ownersApp != nil || newApp != nil || !listed || !accepted {
		t.Fatalf("listed %v, accepted %v: %v, %v", listed, accepted, ownersApp, newApp)
	}
	h.awaitRole(m.app, operator)
	events := h.look().History()
	if last := events[len(events)-1]; last.Note != "ordered by the App 'Laptop'" {
		t.Errorf("the history says %q, %q", last.By, last.Note)
	}
	if err := getInfo(t, open(t, m.app)); err != nil {
		t.Errorf("the new App: %v", err)
	}
}

func TestTheOwnerSaysNoAtABaseWithoutADisplay(t *testing.T) {
	h := newHouseWithoutDisplay(t)
	m := h.meet(viewer, h.Address())
	m.acceptance.Words = func(ctx context.Context, _ NewApp) (string, error) { return "", nil }
	if _, ownersApp, newApp := h.run(m); !errors.Is(ownersApp, ErrNotApproved) || newApp == nil {
		t.Errorf("%v, %v", ownersApp, newApp)
	}
	// These are other words.
	m = h.meet(viewer, h.Address())
	m.acceptance.Words = func(ctx context.Context, _ NewApp) (string, error) { return noiseconn.Words{1}.String(), nil }
	if _, ownersApp, newApp := h.run(m); !errors.Is(ownersApp, ErrInterference) || newApp == nil {
		t.Errorf("%v, %v", ownersApp, newApp)
	}
	if n := len(h.look().Effective().Apps); n != 1 {
		t.Errorf("%d Apps are paired", n)
	}
}

func TestABaseWithADisplayTakesNoActOfAnApp(t *testing.T) {
	h := newHouse(t)
	m := h.meet(operator, h.Address())
	if _, ownersApp := h.session.AcceptPairing(t.Context(), m.acceptance); !errors.Is(ownersApp, ErrDenied) ||
		!strings.Contains(ownersApp.Error(), "has a display") {
		t.Errorf("got %v", ownersApp)
	}
}

func TestALockedDownBaseLetsNoAppIn(t *testing.T) {
	h := newHouseWithoutDisplay(t)
	if _, err := h.session.Lockdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := h.session.OpenWindow(t.Context(), viewer); !errors.Is(err, ErrDenied) {
		t.Errorf("a window: %v", err)
	}
	m := h.meet(viewer, h.Address())
	if _, err := h.session.AcceptPairing(t.Context(), m.acceptance); !errors.Is(err, ErrDenied) {
		t.Errorf("an act: %v", err)
	}
}

// This is what passes through a compromised Middleware during a ceremony of words.

// note keeps requests of a kind.
type note struct {
	mu  sync.Mutex
	all []*systemv1.SystemRequest
}

func (n *note) take(r *systemv1.SystemRequest) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.all = append(n.all, proto.CloneOf(r))
}

func (n *note) first() *systemv1.SystemRequest {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.all[0]
}

func TestRecordedOrdersAndAnswersAreRefused(t *testing.T) {
	h := newHouseWithoutDisplay(t)
	orders, answers := &note{}, &note{}
	h.middleware.does(func(r *systemv1.SystemRequest) (*systemv1.SystemReply, helperclient.Port) {
		if r.GetOrderPairing() != nil {
			orders.take(r)
		}
		if r.GetAnswerPairing() != nil {
			answers.take(r)
		}
		return nil, nil
	})
	m := h.meet(viewer, h.Address())
	if _, ownersApp, newApp := h.run(m); ownersApp != nil || newApp != nil {
		t.Fatal(ownersApp, newApp)
	}
	attacker := helperclient.Client{Port: h.Port(caller.Middleware)}
	for what, request := range map[string]*systemv1.SystemRequest{"order": orders.first(), "answer": answers.first()} {
		if _, err := attacker.Do(t.Context(), request, nil); !errors.Is(err, &helperclient.Error{Code: helperclient.CodeStale}) {
			t.Errorf("the same %s once more: %v", what, err)
		}
	}
}

func TestALyingMiddlewareAtABaseWithoutADisplay(t *testing.T) {
	// resigned signs the answer of an owner's App with another key.
	resigned := func(r *systemv1.SystemRequest, seed posture.AppSeed) {
		var envelope systemv1.Signed
		var answer systemv1.PairingAnswer
		_ = proto.Unmarshal(r.GetAnswerPairing().GetAnswer(), &envelope)
		_ = proto.Unmarshal(envelope.GetMessage(), &answer)
		r.GetAnswerPairing().Answer = posture.SignPairingAnswer(&answer, seed)
	}
	stranger := func() posture.AppSeed { return must(generateAppSeed(rand.Reader)) }
	for name, lie := range map[string]struct {
		act  func(h *house, r *systemv1.SystemRequest) *systemv1.SystemReply
		want error
	}{
		"answers in the place of the owner": {func(h *house, r *systemv1.SystemRequest) *systemv1.SystemReply {
			if r.GetAnswerPairing() != nil {
				resigned(r, stranger())
			}
			return nil
		}, nil},
		"has another owner answer": {func(h *house, r *systemv1.SystemRequest) *systemv1.SystemReply {
			if r.GetAnswerPairing() != nil {
				if seed, _, _, err := h.second.store.signing(idOf(h.second)); err == nil {
					resigned(r, seed)
				}
			}
			return nil
		}, nil},
		"orders in the place of the owner": {func(h *house, r *systemv1.SystemRequest) *systemv1.SystemReply {
			if r.GetOrderPairing() != nil {
				var envelope systemv1.Signed
				var order systemv1.PairingOrder
				_ = proto.Unmarshal(r.GetOrderPairing().GetOrder(), &envelope)
				_ = proto.Unmarshal(envelope.GetMessage(), &order)
				r.GetOrderPairing().Order = posture.SignPairingOrder(&order, stranger())
			}
			return nil
		}, nil},
		"keeps the answer back, and says that it matched": {func(h *house, r *systemv1.SystemRequest) *systemv1.SystemReply {
			if r.GetAnswerPairing() == nil {
				return nil
			}
			return claimed(r)
		}, ErrLyingBase},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHouseWithoutDisplay(t)
			h.second, _ = h.pair("Second", owner)
			apps := len(h.look().Effective().Apps)
			h.middleware.does(func(r *systemv1.SystemRequest) (*systemv1.SystemReply, helperclient.Port) { return lie.act(h, r), nil })
			m := h.meet(operator, h.Address())
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			_, ownersApp := h.session.AcceptPairing(ctx, m.acceptance)
			if ownersApp == nil || lie.want != nil && !errors.Is(ownersApp, lie.want) {
				t.Errorf("the owner's App says %v", ownersApp)
			}
			if n := len(h.look().Effective().Apps); n != apps {
				t.Errorf("%d Apps are paired, not %d", n, apps)
			}
		})
	}
}

var generateAppSeed func(io.Reader) (posture.AppSeed, error) = secret.Generate

// claimed is a report that the Middleware makes up: signed with its own key, with the Base's key
// beside it.
func claimed(r *systemv1.SystemRequest) *systemv1.SystemReply {
	var envelope systemv1.Signed
	var answer systemv1.PairingAnswer
	_ = proto.Unmarshal(r.GetAnswerPairing().GetAnswer(), &envelope)
	_ = proto.Unmarshal(envelope.GetMessage(), &answer)
	report := must(proto.Marshal(&systemv1.PairingReport{Answer: &answer, Matched: true}))
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		panic(err)
	}
	return &systemv1.SystemReply{Result: &systemv1.SystemReply_PairingAnswered{PairingAnswered: &systemv1.PairingAnswered{
		Report: must(proto.Marshal(&systemv1.Signed{Message: report, Signature: ed25519.Sign(private, report), Signer: answer.GetBaseId()}))}}}
}

// renamer is a Middleware that reveals a new App to the Base under another name, and tells the
// owner's App the true one.
type renamer struct{ helperclient.Port }

func (r renamer) Stream(ctx context.Context, request *systemv1.SystemRequest, receive func(*systemv1.SystemReply) error) error {
	message := proto.CloneOf(request)
	if reveal := message.GetAuthority().GetReveal(); reveal != nil {
		p3 := must(noiseconn.ParseP3Payload(reveal.GetP3Payload()))
		if p3.Name == "Phone" {
			p3.Name = "Laptop"
		}
		reveal.P3Payload = must(p3.Marshal())
	}
	return r.Port.Stream(ctx, message, func(reply *systemv1.SystemReply) error {
		if c := reply.GetAuthority().GetSnapshot().GetCeremony(); c.GetAppName() == "Laptop" {
			c.AppName = "Phone"
		}
		return receive(reply)
	})
}

// The words do not cover the name. An App that is listed under the name of the owner's own App
// would be raised, or left alone, in its place.
func TestAnAppIsEnrolledUnderTheNameThatTheOwnerSaw(t *testing.T) {
	h := &house{t: t}
	var err error
	h.Appliance, err = appliancetest.StartWithoutDisplay(func(port helperclient.Port) helperclient.Port { return renamer{port} })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.Stop(); err != nil {
			t.Errorf("stop the appliance: %v", err)
		}
	})
	h.owner, h.session = h.pair("First", owner)
	m := h.meet(viewer, h.Address())
	m.acceptance.Words = func(ctx context.Context, app NewApp) (string, error) {
		if app.Name != "Phone" {
			t.Errorf("the owner is told %q: this is no attack", app.Name)
		}
		return m.read(ctx)
	}
	if _, ownersApp, newApp := h.run(m); !errors.Is(ownersApp, ErrInterference) || newApp == nil {
		t.Errorf("the owner's App says %v, the new App %v", ownersApp, newApp)
	}
	for _, app := range h.look().Effective().Apps {
		if app.Name == "Laptop" {
			t.Error("the App is enrolled under another name")
		}
	}
}

// This is the most dangerous lie: the Middleware is between the new App and the Base. The
// authority has refused the words, but the Middleware tells the owner's App that they match. If
// the owner believed it, the new App's user would confirm towards the man in the middle.
func TestAnUnsignedMatchIsNotBelieved(t *testing.T) {
	attack := func(t *testing.T, believe func(*PostureView, *systemv1.PairingAnswer, []byte) (bool, error)) (victim error) {
		h := newHouseWithoutDisplay(t)
		if believe != nil {
			h.session.matched = believe
		}
		h.middleware.does(func(r *systemv1.SystemRequest) (*systemv1.SystemReply, helperclient.Port) {
			if r.GetAnswerPairing() == nil {
				return nil, nil
			}
			return claimed(r), nil
		})
		between := newFakeBase(t)                // plays the Base towards the new App
		m := h.meet(operator, between.address()) // the victim
		mine := h.meet(operator, h.Address())    // the attacker's own request at the Base
		m.acceptance.Number = mine.acceptance.Number
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		m.acceptance.Matched = func() { m.saidYes <- true; cancel() }
		if _, err := h.session.AcceptPairing(ctx, m.acceptance); believe == nil && !errors.Is(err, ErrLyingBase) {
			t.Errorf("the owner's App says %v", err)
		}
		select {
		case m.saidYes <- false: // as the owner's App said
		default:
		}
		return <-m.newApp
	}
	if err := attack(t, nil); !errors.Is(err, ErrInterference) {
		t.Errorf("the new App is paired with the man in the middle: %v", err)
	}
	believer := func(*PostureView, *systemv1.PairingAnswer, []byte) (bool, error) { return true, nil }
	if err := attack(t, believer); err != nil {
		t.Errorf("the attack fails against an owner's App that believes anything, too: %v", err)
	}
}

// A man in the middle stands between the new App and the Base, and the Middleware helps him but
// lies about nothing else: the words of the new App belong to his side.
func TestAManInTheMiddleOfTheNewAppIsSeenInTheWords(t *testing.T) {
	h := newHouseWithoutDisplay(t)
	between := newFakeBase(t)
	m := h.meet(owner, between.address())
	mine := h.meet(owner, h.Address())
	m.acceptance.Number = mine.acceptance.Number
	if _, ownersApp, newApp := h.run(m); !errors.Is(ownersApp, ErrInterference) || !errors.Is(newApp, ErrInterference) {
		t.Errorf("the owner's App says %v, the new App %v", ownersApp, newApp)
	}
	if err := <-mine.newApp; err == nil {
		t.Error("the attacker is paired")
	}
	if n := len(h.look().Effective().Apps); n != 1 {
		t.Errorf("%d Apps are paired", n)
	}
}
