package pairing

import (
	"bytes"
	"crypto/ed25519"
	"encoding/binary"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/noiseconn"
)

// everyVerb is one request of each kind.
func everyVerb() map[string]*systemv1.AuthorityRequest {
	return map[string]*systemv1.AuthorityRequest{
		"hear":         {Verb: &systemv1.AuthorityRequest_Hear{Hear: &systemv1.Hear{}}},
		"claim":        {Verb: &systemv1.AuthorityRequest_Claim{Claim: &systemv1.Claim{}}},
		"reveal":       {Verb: &systemv1.AuthorityRequest_Reveal{Reveal: &systemv1.Reveal{}}},
		"enrol":        {Verb: &systemv1.AuthorityRequest_Enrol{Enrol: &systemv1.Enrol{}}},
		"abort":        {Verb: &systemv1.AuthorityRequest_Abort{Abort: &systemv1.Abort{}}},
		"activate":     {Verb: &systemv1.AuthorityRequest_Activate{Activate: &systemv1.Activate{}}},
		"reconcile":    {Verb: &systemv1.AuthorityRequest_Reconcile{Reconcile: &systemv1.Reconcile{}}},
		"open_window":  {Verb: &systemv1.AuthorityRequest_OpenWindow{OpenWindow: &systemv1.OpenWindow{}}},
		"close_window": {Verb: &systemv1.AuthorityRequest_CloseWindow{CloseWindow: &systemv1.CloseWindow{}}},
		"accept":       {Verb: &systemv1.AuthorityRequest_Accept{Accept: &systemv1.Accept{}}},
		"answer":       {Verb: &systemv1.AuthorityRequest_Answer{Answer: &systemv1.Answer{}}},
		"watch":        {Verb: &systemv1.AuthorityRequest_Watch{Watch: &systemv1.Watch{}}},
		"retire":       {Verb: &systemv1.AuthorityRequest_Retire{Retire: &systemv1.Retire{}}},
	}
}

// TestEachVerbIsForItsCallersOnly has a row for each verb of the .proto file.
func TestEachVerbIsForItsCallersOnly(t *testing.T) {
	want := map[string][]Caller{
		"hear": {CallerMiddleware}, "claim": {CallerMiddleware}, "reveal": {CallerMiddleware},
		"enrol": {CallerMiddleware}, "abort": {CallerMiddleware},
		"activate": {CallerMiddleware}, "reconcile": {CallerMiddleware},
		"accept": {CallerConsole}, "answer": {CallerConsole},
		"open_window": {CallerMiddleware, CallerConsole}, "close_window": {CallerMiddleware, CallerConsole},
		"watch": {CallerMiddleware, CallerConsole}, "retire": {CallerMiddleware, CallerConsole},
	}
	fields := (&systemv1.AuthorityRequest{}).ProtoReflect().Descriptor().Oneofs().ByName("verb").Fields()
	for i := range fields.Len() {
		if verb := string(fields.Get(i).Name()); want[verb] == nil {
			t.Errorf("the verb %s has no row in this test", verb)
		}
	}
	for verb, request := range everyVerb() {
		for _, caller := range []Caller{0, CallerMiddleware, CallerConsole, 3} {
			w := newWorld(t, 0)
			reply := w.machine.Handle(0, caller, request).Reply
			if refused := reply.GetErrorCode() == string(CodePermission); refused == slices.Contains(want[verb], caller) {
				t.Errorf("%s from %v: %v", verb, caller, reply)
			}
		}
	}
}

func TestCodeAndNumbersAreForTheConsoleOnly(t *testing.T) {
	for verb, request := range everyVerb() {
		w, a, waiting := newWorld(t, 0), newApp(t, "phone"), newApp(t, "waiting")
		w.show(a, noRole)
		w.hear(waiting)
		shown := w.see(w.console)
		if shown.GetCeremony().GetCode() == "" || len(shown.GetRequests()) != 1 {
			t.Fatalf("the console is shown %v", shown)
		}
		reply := w.machine.Handle(w.now, CallerMiddleware, request).Reply
		b, err := proto.Marshal(reply)
		if err != nil {
			t.Fatal(err)
		}
		told := reply.GetSnapshot()
		if bytes.Contains(b, []byte(shown.GetCeremony().GetCode())) || len(told.GetRequests()) != 0 || told.GetCeremony().GetNumber() != 0 {
			t.Errorf("the Middleware is told by %s: %v", verb, reply)
		}
	}
}

func TestFourthActWithin180SecondsIsRefused(t *testing.T) {
	ctx := t.Context()
	w := newWorld(t, 0)
	for i := range 3 {
		w.now = time.Duration(i) * 10 * time.Second
		a := newApp(t, "phone")
		switch i {
		case 0: // ended by a human, early
			w.show(a, noRole)
			w.answer(a, false)
		case 1: // by the connection
			w.accept(a, noRole)
			w.hear(a)
			if err := w.middleware.Abort(ctx, a.id, false); err != nil {
				t.Fatal(err)
			}
		case 2: // mistyped: nobody comes
			w.accept(a, noRole)
		}
	}
	a := newApp(t, "phone")
	wantError(t, w.console.Accept(ctx, a.number(), noRole), ErrTooManyActs)
	if s := w.see(w.console); s.GetActsLeft() != 0 || s.GetActWaitMs() != 160_000 {
		t.Fatalf("the console shows %v", s)
	}
	w.now = ActsTime - 1
	wantError(t, w.console.Accept(ctx, a.number(), noRole), ErrTooManyActs)
	w.now = ActsTime
	w.accept(a, noRole)
	wantError(t, w.console.Accept(ctx, a.number(), noRole), ErrTooManyActs)
}

// TestClockThatGoesBackGivesNoTime: no act comes back, and no code lives longer.
func TestClockThatGoesBackGivesNoTime(t *testing.T) {
	w, a := newWorld(t, 0), newApp(t, "phone")
	w.now = time.Hour
	for range MaxActs {
		w.accept(a, noRole)
	}
	w.now = 0
	w.hear(a)
	w.reveal(a)
	wait := w.see(w.console).GetActWaitMs()
	if wait != uint64(ActsTime.Milliseconds()) {
		t.Fatalf("the next act is possible in %d ms", wait)
	}
	w.now = time.Hour + ShownTime
	wantError(t, w.console.Answer(t.Context(), a.id, true), ErrNoCeremony)
}

// TestMistypedActIsReplaced: the act that waits for a P1 which never comes does
// not keep the human waiting, but it counts.
func TestMistypedActIsReplaced(t *testing.T) {
	w, wrong, right := newWorld(t, 0), newApp(t, "wrong"), newApp(t, "right")
	w.accept(wrong, noRole)
	w.show(right, noRole)
	if w.hear(wrong) {
		t.Fatal("the act that was replaced is granted")
	}
	wantError(t, w.console.Accept(t.Context(), wrong.number(), noRole), ErrBusy)
	if s := w.see(w.console); s.GetActsLeft() != 1 || s.GetLast().GetOutcome() != systemv1.LastCeremony_OUTCOME_SUPERSEDED {
		t.Fatalf("the console shows %v", s)
	}
}

// TestFloodOfRequestsKeepsNobodyOut: a stranger sends a thousand requests for each
// of the owner's.
func TestFloodOfRequestsKeepsNobodyOut(t *testing.T) {
	w, a := newWorld(t, 0), newApp(t, "phone")
	// The flood must not have these by accident.
	flood := func() {
		for range 1000 {
			stranger := newRequest(t)
			if noiseconn.RequestNumber(stranger) == a.number() {
				continue
			}
			granted, _, _, err := w.middleware.Hear(t.Context(), stranger, addressOf(stranger))
			if granted || err != nil {
				t.Fatalf("%v, %v", granted, err)
			}
		}
		w.now += time.Second
	}
	flood()
	if w.hear(a) {
		t.Fatal("granted without an act")
	}
	flood()
	s := w.see(w.console)
	if len(s.GetRequests()) != MaxShown || slices.Contains(s.GetRequests(), a.number()) {
		t.Fatalf("the flood left room for the owner's number: %v", s.GetRequests())
	}
	if s.GetActsLeft() != MaxActs || s.GetCeremony() != nil {
		t.Fatalf("the flood used something up: %v", s)
	}
	// The owner types the number.
	w.accept(a, noRole)
	flood()
	if !w.hear(a) {
		t.Fatal("the owner's request was not granted")
	}
	flood()
	w.reveal(a)
	w.answer(a, true)
	flood()
	if err := w.enrol(a); err != nil {
		t.Fatal(err)
	}
}

// sameNumber are two requests with one number, found once: a million hashes.
var sameNumber = sync.OnceValue(func() (found [2][]byte) {
	first := make([]byte, noiseconn.P1Size)
	second := slices.Clone(first)
	for n := uint64(1); ; n++ {
		binary.BigEndian.PutUint64(second, n)
		if noiseconn.RequestNumber(first) == noiseconn.RequestNumber(second) {
			break
		}
	}
	return [2][]byte{first, second}
})

// twins returns two Apps whose requests have the same number.
func twins(t testing.TB) (honest, thief *testApp) {
	t.Helper()
	honest, thief = newApp(t, "phone"), newApp(t, "thief")
	honest.p1, thief.p1 = sameNumber()[0], sameNumber()[1]
	return honest, thief
}

// The attack: somebody who sees the owner's P1 on the network has strangers push it out of
// the Base's memory, and then takes the act with garbage of the same number. The broken
// variant is the memory that the Base had before: eight requests, the most silent goes.
func TestAnActIsForTheRequestWhoseNumberWasSeen(t *testing.T) {
	attack := func(evicts bool) (stolen bool) {
		w := newWorld(t, 0)
		w.machine.heard.evicts = evicts
		a, thief := twins(t)
		w.hear(a)
		if s := w.see(w.console); !slices.Contains(s.GetRequests(), a.number()) {
			t.Fatalf("the owner's number is not shown: %v", s.GetRequests())
		}
		for range 40 {
			stranger := newRequest(t)
			if _, _, _, err := w.middleware.Hear(t.Context(), stranger, addressOf(stranger)); err != nil {
				t.Fatal(err)
			}
			w.now += 10 * time.Millisecond
		}
		w.hear(thief)
		if s := w.see(w.console); !evicts && !slices.Contains(s.GetRequests(), a.number()) {
			t.Errorf("strangers have taken the owner's number off the display: %v", s.GetRequests())
		}
		w.accept(a, noRole)
		stolen = w.hear(thief)
		if !stolen && !w.hear(a) {
			t.Error("the owner's request was not granted")
		}
		return stolen
	}
	if attack(false) {
		t.Error("the act was stolen")
	}
	if !attack(true) {
		t.Error("the broken variant withstands the attack, so this test shows nothing")
	}
}

// A number that no window shows is bound all the same: an owner's App may accept one
// while the Base listens to nobody (docs/protocol.md, section 4.5).
func TestANumberIsBoundWhileTheBaseDoesNotListen(t *testing.T) {
	w, first := newWorld(t, 0), newApp(t, "phone")
	w.pair(first, noRole)
	a, thief := twins(t)
	w.hear(a)
	w.hear(thief)
	if s := w.see(w.console); len(s.GetRequests()) != 0 {
		t.Fatalf("a closed Base shows %v", s.GetRequests())
	}
	if err := w.console.OpenWindow(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.accept(a, viewer)
	if w.hear(thief) || !w.hear(a) {
		t.Error("the act was not for the request that came first")
	}
}

func TestRequestsThatAreRememberedAreBounded(t *testing.T) {
	w := newWorld(t, 0)
	hear := func(p1 []byte, from netip.Addr) {
		t.Helper()
		if _, _, _, err := w.middleware.Hear(t.Context(), p1, from); err != nil {
			t.Fatal(err)
		}
	}
	remembered := func() int { return len(w.machine.heard.requests) }
	for what, from := range map[string][]netip.Addr{
		"one address":         {netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("::ffff:192.0.2.1")},
		"one /64":             {netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::ffff:1")},
		"no address is known": {{}, {}},
	} {
		before := remembered()
		for n := range 2 * MaxHeardFromOne {
			hear(newRequest(t), from[n%2])
		}
		if got := remembered() - before; got != MaxHeardFromOne {
			t.Errorf("%s: %d requests are remembered", what, got)
		}
	}
	for range MaxHeard {
		p1 := newRequest(t)
		hear(p1, addressOf(p1))
	}
	if remembered() != MaxHeard || len(w.machine.heard.sources) > MaxHeard || len(w.see(w.console).GetRequests()) != MaxShown {
		t.Errorf("%d requests of %d addresses", remembered(), len(w.machine.heard.sources))
	}
	// There is room again when they are silent.
	w.now += HeardTime
	p1 := newRequest(t)
	hear(p1, addressOf(p1))
	if remembered() != 1 || len(w.machine.heard.sources) != 1 {
		t.Errorf("%d requests of %d addresses are left", remembered(), len(w.machine.heard.sources))
	}
}

func newRequest(t testing.TB) []byte {
	t.Helper()
	p1 := make([]byte, noiseconn.P1Size)
	random := random32()
	copy(p1, random[:])
	return p1
}

// TestActIsForTheRequestThatWasHeardFirst: who sees the owner's P1 on the network
// can make another with the same number, but is too late.
func TestActIsForTheRequestThatWasHeardFirst(t *testing.T) {
	w := newWorld(t, 0)
	a, thief := twins(t)
	w.hear(a)
	w.hear(thief)
	if s := w.see(w.console); len(s.GetRequests()) != 1 {
		t.Fatalf("one number is shown as %v", s.GetRequests())
	}
	w.accept(a, noRole)
	if w.hear(thief) {
		t.Fatal("the second request with the number was granted")
	}
	if !w.hear(a) {
		t.Fatal("the first was not")
	}
}

// TestRequestThatIsNotRepeatedIsForgotten: an App that gave up does not stand in
// the way of the only one that asks.
func TestRequestThatIsNotRepeatedIsForgotten(t *testing.T) {
	w, gone, here := newWorld(t, 0), newApp(t, "gone"), newApp(t, "here")
	w.hear(gone)
	for range 6 {
		w.hear(here)
		w.now += 2 * time.Second
	}
	if s := w.see(w.console); len(s.GetRequests()) != 1 || s.GetRequests()[0] != here.number() {
		t.Fatalf("the console shows %v", s.GetRequests())
	}
}

func TestRevealThatDoesNotHoldEndsTheCeremony(t *testing.T) {
	ctx := t.Context()
	w, first := paired(t)
	if err := w.console.OpenWindow(ctx); err != nil {
		t.Fatal(err)
	}
	p3 := func(key ed25519.PublicKey) []byte {
		b, err := (&noiseconn.P3Payload{RA: random32(), SigningKey: key, Name: "x"}).Marshal()
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	for name, c := range map[string]struct {
		spoil func(*systemv1.Reveal)
		want  error
	}{
		"short hash":         {func(r *systemv1.Reveal) { r.HandshakeHash = r.HandshakeHash[1:] }, ErrBadReveal},
		"short payload":      {func(r *systemv1.Reveal) { r.P3Payload = r.P3Payload[1:] }, ErrBadReveal},
		"long payload":       {func(r *systemv1.Reveal) { r.P3Payload = append(r.P3Payload, 0) }, ErrBadReveal},
		"control characters": {func(r *systemv1.Reveal) { r.P3Payload[66] = '\n' }, ErrBadReveal},
		"no public key":      {func(r *systemv1.Reveal) { r.AppPublicKey = nil }, ErrBadReveal},
		"anybody can sign":   {func(r *systemv1.Reveal) { clear(r.P3Payload[32:64]) }, ErrBadReveal},
		"second encoding":    {func(r *systemv1.Reveal) { r.AppPublicKey[31] |= 0x80 }, ErrBadReveal},
		"enrolled K_sign":    {func(r *systemv1.Reveal) { r.P3Payload = p3(first.public()) }, ErrKnownKey},
		"enrolled App":       {func(r *systemv1.Reveal) { r.AppPublicKey = first.static[:] }, ErrKnownKey},
	} {
		w.now += ActsTime - time.Second // each its own act, all in a window
		if err := w.console.OpenWindow(ctx); err != nil {
			t.Fatal(err)
		}
		w.now += time.Second
		a := newApp(t, "phone")
		w.accept(a, viewer)
		w.hear(a)
		good := &systemv1.Reveal{CeremonyId: a.id[:], HandshakeHash: a.h[:], P3Payload: a.payload, AppPublicKey: a.static[:]}
		bad := proto.CloneOf(good)
		c.spoil(bad)
		reply, err := w.middleware.call(ctx, name, &systemv1.AuthorityRequest{Verb: &systemv1.AuthorityRequest_Reveal{Reveal: bad}})
		wantError(t, err, c.want)
		if reply.GetReveal() != nil {
			t.Fatalf("%s: r_B is out", name)
		}
		wantError(t, w.tryReveal(a), ErrNoCeremony)
		if s := w.see(w.console); s.GetCeremony() != nil || s.GetLast().GetOutcome() != systemv1.LastCeremony_OUTCOME_REFUSED {
			t.Fatalf("%s: the console shows %v", name, s)
		}
	}
}

func TestSignatureCountsInItsOwnCeremonyOnly(t *testing.T) {
	ctx := t.Context()
	w, a := newWorld(t, 0), newApp(t, "phone")
	w.show(a, noRole)
	w.answer(a, true)
	replayed := a.signature()
	if err := w.middleware.Abort(ctx, a.id, false); err != nil {
		t.Fatal(err)
	}
	// The same App, keys and all, in another ceremony: r_B is another.
	old := a.id
	w.show(a, noRole)
	if a.id == old {
		t.Fatal("two ceremonies have the same id")
	}
	w.answer(a, true)
	_, _, err := w.middleware.Enrol(ctx, old, a.signature())
	wantError(t, err, ErrNoCeremony)
	_, _, err = w.middleware.Enrol(ctx, a.id, replayed)
	wantError(t, err, ErrBadSignature)
	wantError(t, w.enrol(a), ErrNoCeremony) // one try

	w.now += ActsTime
	for name, spoil := range map[string]func(*testApp) []byte{
		"somebody else's": func(a *testApp) []byte {
			return ed25519.Sign(newApp(t, "other").key, noiseconn.EnrolMessage(a.h, a.public(), a.ra, a.p4.RB))
		},
		"of other bytes": func(a *testApp) []byte { return ed25519.Sign(a.key, a.h[:]) },
		"short":          func(a *testApp) []byte { return a.signature()[:63] },
		"none":           func(*testApp) []byte { return nil },
		"a flipped bit":  func(a *testApp) []byte { s := a.signature(); s[40] ^= 1; return s },
	} {
		w.now += ActsTime
		a := newApp(t, "phone")
		w.show(a, noRole)
		w.answer(a, true)
		_, _, err := w.middleware.Enrol(ctx, a.id, spoil(a))
		if err == nil {
			t.Fatalf("%s: the signature was taken", name)
		}
		wantError(t, err, ErrBadSignature)
		wantError(t, w.middleware.Activate(ctx, a.public()), ErrUnknownKey)
	}
}

func TestAnswerCountsForItsOwnCeremonyOnly(t *testing.T) {
	ctx := t.Context()
	w, first, second := newWorld(t, 0), newApp(t, "first"), newApp(t, "second")
	w.show(first, noRole)
	if err := w.middleware.Abort(ctx, first.id, false); err != nil {
		t.Fatal(err)
	}
	// While the human looks at the first code, another ceremony takes its place.
	w.show(second, noRole)
	wantError(t, w.console.Answer(ctx, first.id, true), ErrNoCeremony)
	wantError(t, w.console.Answer(ctx, first.id, false), ErrNoCeremony)
	wantError(t, w.enrol(second), ErrAwaitingAnswer)
	// No after yes is no.
	w.answer(second, true)
	w.answer(second, false)
	wantError(t, w.enrol(second), ErrNoCeremony)
}

func TestLostConfirmLeavesNoRights(t *testing.T) {
	ctx := t.Context()
	t.Run("the App's", func(t *testing.T) {
		w, a := newWorld(t, 0), newApp(t, "phone")
		w.show(a, noRole)
		w.answer(a, true)
		w.now += ShownTime
		wantError(t, w.middleware.Activate(ctx, a.public()), ErrUnknownKey)
		w.pair(newApp(t, "again"), noRole)
	})
	t.Run("the Base's", func(t *testing.T) {
		// The Middleware notices that its Confirm did not get through.
		w, a := newWorld(t, 0), newApp(t, "phone")
		w.show(a, noRole)
		w.answer(a, true)
		if err := w.enrol(a); err != nil {
			t.Fatal(err)
		}
		if err := w.middleware.Abort(ctx, a.id, false); err != nil {
			t.Fatal(err)
		}
		wantError(t, w.middleware.Activate(ctx, a.public()), ErrUnknownKey)
		w.pair(newApp(t, "again"), noRole) // at once
	})
	t.Run("abort takes no active key away", func(t *testing.T) {
		w, a := newWorld(t, 0), newApp(t, "phone")
		w.pair(a, noRole)
		if err := w.middleware.Abort(ctx, a.id, false); err != nil {
			t.Fatal(err)
		}
		if s := w.see(w.console); !s.GetPaired() {
			t.Fatal("the owner's key is gone")
		}
	})
}

// TestAnyOrderOfVerbsKeepsThePromises drives the Machine with random verbs of both
// callers, right and wrong ones, and keeps its own books beside it.
func TestAnyOrderOfVerbsKeepsThePromises(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		w := newWorld(t, 0)
		apps := []*testApp{newApp(t, "a"), newApp(t, "b"), newApp(t, "c")}
		ctx := t.Context()
		var acts []time.Duration
		grants, reveals := 0, 0
		saidYes, signed := map[CeremonyID]bool{}, map[CeremonyID]bool{}
		enrolled := map[string]bool{}
		anyApp := func() *testApp { return apps[rapid.IntRange(0, 2).Draw(rt, "app")] }
		role := func() int32 { return rapid.Int32Range(0, 4).Draw(rt, "role") }
		verbs := map[string]func(){
			"hear": func() {
				if w.hear(anyApp()) {
					grants++
				}
			},
			"accept": func() {
				if w.console.Accept(ctx, anyApp().number(), basev1.Role(role())) == nil {
					acts = append(acts, w.now)
				}
			},
			"reveal": func() {
				if w.tryReveal(anyApp()) == nil {
					reveals++
				}
			},
			"answer": func() {
				a, yes := anyApp(), rapid.Bool().Draw(rt, "yes")
				if w.console.Answer(ctx, a.id, yes) == nil {
					saidYes[a.id] = yes
				}
			},
			"enrol": func() {
				a, signer := anyApp(), anyApp()
				if a.p4 == nil {
					return
				}
				message := noiseconn.EnrolMessage(a.h, a.public(), a.ra, a.p4.RB)
				signature := ed25519.Sign(signer.key, message)
				signed[a.id] = signer == a
				_, err := w.middleware.call(ctx, "enrol", &systemv1.AuthorityRequest{Verb: &systemv1.AuthorityRequest_Enrol{
					Enrol: &systemv1.Enrol{CeremonyId: a.id[:], Signature: signature}}})
				if err == nil {
					if !saidYes[a.id] || !signed[a.id] {
						rt.Fatalf("enrolled with yes %v and signature %v", saidYes[a.id], signed[a.id])
					}
					enrolled[string(a.public())] = true
				}
			},
			"abort":     func() { _ = w.middleware.Abort(ctx, anyApp().id, rapid.Bool().Draw(rt, "rejected")) },
			"activate":  func() { _ = w.middleware.Activate(ctx, anyApp().public()) },
			"reconcile": func() { _, _, _ = w.middleware.Reconcile(ctx, []ed25519.PublicKey{anyApp().public()}) },
			"open":      func() { _ = w.middleware.OpenWindow(ctx) },
			"close":     func() { _ = w.middleware.CloseWindow(ctx) },
			"retire": func() {
				w.full = rapid.Bool().Draw(rt, "disk full")
				client := rapid.SampledFrom([]Client{w.middleware, w.console}).Draw(rt, "caller")
				_ = client.Retire(ctx, anyApp().public())
				w.full = false
			},
			"fresh keys": func() { apps[rapid.IntRange(0, 2).Draw(rt, "which")] = newApp(t, "fresh") },
			"wait": func() {
				w.now += time.Duration(rapid.SampledFrom([]int{1, 4, 5, 30, 60, 120, 180}).Draw(rt, "seconds")) * time.Second
			},
			"restart": func() {
				now := w.now
				w.restart()
				w.now = now
				acts, grants, reveals = nil, 0, 0
			},
		}
		names := slices.Sorted(maps.Keys(verbs))
		// Half of the steps are what a pairing needs, so that some get through.
		names = append(names, "hear", "accept", "hear", "reveal", "answer", "enrol", "activate")
		for range rapid.IntRange(1, 60).Draw(rt, "steps") {
			before := w.machine.ceremony
			version := w.machine.Version()
			shown := proto.CloneOf(w.machine.published)
			verb := rapid.SampledFrom(names).Draw(rt, "verb")
			verbs[verb]()
			m := w.machine

			recent := slices.DeleteFunc(slices.Clone(acts), func(act time.Duration) bool { return act+ActsTime <= w.now })
			if len(recent) > MaxActs {
				rt.Fatalf("%d acts within 180 s", len(recent))
			}
			if grants > len(acts) || reveals > grants {
				rt.Fatalf("%d acts, %d commitments, %d times r_B", len(acts), grants, reveals)
			}
			if before != nil && m.ceremony != nil && m.ceremony != before &&
				(verb != "accept" || before.phase != systemv1.Ceremony_PHASE_ACCEPTED) && before.deadline > w.now {
				rt.Fatalf("%s put a ceremony in the place of another", verb)
			}
			for _, e := range m.registry {
				if !enrolled[string(e.signingKey[:])] {
					rt.Fatal("a key is in the registry that was not enrolled")
				}
			}
			if len(m.registry) > MaxKeys || len(m.heard.requests) > MaxHeard || len(m.heard.shown) > MaxShown || len(m.acts) > MaxActs {
				rt.Fatalf("%d keys, %d requests, %d acts", len(m.registry), len(m.heard.requests), len(m.acts))
			}
			onDisk, err := parseRegistry(w.disk)
			if err != nil {
				rt.Fatal(err)
			}
			active := slices.DeleteFunc(slices.Clone(m.registry), func(e entry) bool { return !e.active })
			if !bytes.Equal(onDisk.marshal(), active.marshal()) {
				rt.Fatal("active keys are not those on disk")
			}
			if verb != "restart" && m.Version() == version && !proto.Equal(shown, m.published) {
				rt.Fatalf("%s changed the snapshot, and not its version", verb)
			}
			if deadline, ok := m.Deadline(); ok && deadline <= m.now {
				rt.Fatalf("the deadline %v is not after %v", deadline, m.now)
			}
		}
	})
}

func TestEveryErrorHasItsOwnCode(t *testing.T) {
	all := []*Error{ErrMalformed, ErrPermission, ErrNotListening, ErrBusy, ErrTooManyActs, ErrRoleRequired, ErrRoleInvalid,
		ErrRegistryFull, ErrNoCeremony, ErrBadReveal, ErrKnownKey, ErrBadSignature, ErrAwaitingAnswer, ErrUnknownKey, ErrStorage, ErrInternal}
	codes := map[Code]bool{}
	for _, e := range all {
		if codes[e.Code] || e.Message == "" {
			t.Errorf("%+v", e)
		}
		codes[e.Code] = true
		wantError(t, fmt.Errorf("wrapped: %w", e.because("%d", 1)), e)
	}
}

// FuzzHandle sends requests that nobody marshalled, after others that bring the
// Machine into each of its phases.
func FuzzHandle(f *testing.F) {
	for _, request := range everyVerb() {
		b, err := proto.Marshal(request)
		if err != nil {
			f.Fatal(err)
		}
		for step := range byte(6) {
			f.Add(step, byte(1+step%2), b)
		}
	}
	f.Fuzz(func(t *testing.T, step, caller byte, request []byte) {
		w, a := newWorld(t, 0), newApp(t, "phone")
		ctx := t.Context()
		for _, advance := range []func(){
			func() { w.hear(a) },
			func() { w.accept(a, noRole) },
			func() { w.hear(a) },
			func() { w.reveal(a) },
			func() { w.answer(a, true) },
			func() { _ = w.enrol(a) },
			func() { _ = w.middleware.Activate(ctx, a.public()) },
		}[:step%8] {
			advance()
		}
		// The fuzzer cannot guess what is random.
		request = bytes.ReplaceAll(request, []byte("CEREMONY"), a.id[:])
		request = bytes.ReplaceAll(request, []byte("KEY"), a.public())
		before := len(w.machine.registry)
		reply, err := Answer(ctx, worldPort{w, Caller(caller % 4)}, request)
		if err != nil {
			t.Fatal(err)
		}
		if len(w.machine.registry) > before {
			t.Fatal("a made-up request enrolled a key")
		}
		if c := w.machine.ceremony; c != nil && c.phase == systemv1.Ceremony_PHASE_SHOWN && Caller(caller%4) != CallerConsole &&
			bytes.Contains(reply, []byte(noiseconn.FormatNumber(c.code))) {
			t.Fatal("the code is out")
		}
	})
}

// FuzzRegistry: what is taken is what would be written.
func FuzzRegistry(f *testing.F) {
	w, _ := paired(f)
	f.Add(w.disk)
	f.Add([]byte{registryVersion, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := parseRegistry(b)
		if err == nil && b != nil && !bytes.Equal(r.marshal(), b) {
			t.Fatalf("%x was read, and %x would be written", b, r.marshal())
		}
	})
}
