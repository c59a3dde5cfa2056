package pairing

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/noiseconn"
	"github.com/BitBoxSwiss/bitbox-base/internal/secret"
)

const (
	viewer = basev1.Role_ROLE_VIEWER
	owner  = basev1.Role_ROLE_OWNER
	noRole = basev1.Role_ROLE_UNSPECIFIED
)

// world is a Machine with a clock that the test moves, a disk, and both callers.
type world struct {
	t       testing.TB
	config  Config
	machine *Machine
	now     time.Duration
	disk    []byte
	full    bool // the disk
	saves   int

	middleware, console Client
}

func newWorld(t testing.TB, modulus uint32) *world {
	t.Helper()
	key, err := secret.Generate[stateKind](rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, config: Config{BaseName: func() string { return "Base" }, StateKey: key, CodeModulus: modulus}}
	w.middleware = Client{worldPort{w, CallerMiddleware}}
	w.console = Client{worldPort{w, CallerConsole}}
	w.restart()
	return w
}

// restart makes a new Machine of what is on the disk.
func (w *world) restart() {
	w.t.Helper()
	w.config.Registry = w.disk
	machine, err := NewMachine(w.config)
	if err != nil {
		w.t.Fatal(err)
	}
	w.machine, w.now = machine, 0
}

type worldPort struct {
	*world
	caller Caller
}

func (p worldPort) Call(_ context.Context, request *systemv1.AuthorityRequest) (*systemv1.AuthorityReply, error) {
	output := p.machine.Handle(p.now, p.caller, request)
	if output.Save != nil {
		if p.full {
			output = p.machine.Unsaved(output, errors.New("no space left on device"))
		} else {
			p.disk, p.saves = output.Save, p.saves+1
		}
	}
	return output.Reply, nil
}

func (w *world) see(client Client) *systemv1.Snapshot {
	w.t.Helper()
	snapshot, err := client.Watch(w.t.Context(), 0)
	if err != nil {
		w.t.Fatal(err)
	}
	return snapshot
}

// testApp is an App as far as the authority sees it. Its handshake is made up.
type testApp struct {
	p1, payload []byte
	h, ra       [32]byte
	key         ed25519.PrivateKey
	static      [32]byte
	name        string

	id         CeremonyID
	commitment [32]byte
	p4         *noiseconn.P4
}

func newApp(t testing.TB, name string) *testApp {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	a := &testApp{p1: make([]byte, noiseconn.P1Size), key: key, name: name}
	for _, b := range [][]byte{a.p1, a.h[:], a.ra[:], a.static[:]} {
		_, _ = rand.Read(b)
	}
	a.static[31] &= 0x7f // canonical
	a.payload, err = (&noiseconn.P3Payload{RA: a.ra, SigningKey: a.public(), Name: name}).Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func (a *testApp) public() ed25519.PublicKey { return a.key.Public().(ed25519.PublicKey) }
func (a *testApp) number() uint32            { return noiseconn.RequestNumber(a.p1) }

func (a *testApp) signature() []byte {
	return ed25519.Sign(a.key, noiseconn.EnrolMessage(a.h, a.public(), a.ra, a.p4.RB))
}

func (a *testApp) code(t testing.TB, modulus uint32) string {
	t.Helper()
	if modulus == 0 {
		modulus = noiseconn.CodeModulus
	}
	code, err := noiseconn.CodeDigits(a.ra, a.p4.RB, a.h, a.public(), a.p4.StateKey, a.p4.Role, modulus)
	if err != nil {
		t.Fatal(err)
	}
	return noiseconn.FormatNumber(code)
}

// Each of these takes one step of a pairing, and fails the test if it fails.

// addressOf gives each request an address of its own.
func addressOf(p1 []byte) netip.Addr {
	digest := sha256.Sum256(p1)
	return netip.AddrFrom16([16]byte(digest[:]))
}

func (w *world) hear(a *testApp) (granted bool) {
	w.t.Helper()
	granted, id, commitment, err := w.middleware.Hear(w.t.Context(), a.p1, addressOf(a.p1))
	if err != nil {
		w.t.Fatal(err)
	}
	if granted {
		a.id, a.commitment = id, commitment
	}
	return granted
}

func (w *world) accept(a *testApp, role basev1.Role) {
	w.t.Helper()
	if err := w.console.Accept(w.t.Context(), a.number(), role); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) reveal(a *testApp) {
	w.t.Helper()
	if err := w.tryReveal(a); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) tryReveal(a *testApp) error {
	p4, _, err := w.middleware.Reveal(w.t.Context(), a.id, a.h, a.payload, a.static)
	if err != nil {
		return err
	}
	a.p4, err = noiseconn.ParseP4(p4)
	return err
}

func (w *world) answer(a *testApp, yes bool) {
	w.t.Helper()
	if err := w.console.Answer(w.t.Context(), a.id, yes); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) enrol(a *testApp) error {
	reply, err := w.middleware.call(w.t.Context(), "enrol", &systemv1.AuthorityRequest{Verb: &systemv1.AuthorityRequest_Enrol{
		Enrol: &systemv1.Enrol{CeremonyId: a.id[:], Signature: a.signature()}}})
	if err == nil && reply.GetEnrol().GetAppName() != a.name {
		return fmt.Errorf("another App was enrolled: %v", reply)
	}
	return err
}

// show takes a pairing to the point where both codes are shown.
func (w *world) show(a *testApp, role basev1.Role) {
	w.t.Helper()
	w.accept(a, role)
	if !w.hear(a) {
		w.t.Fatal("the accepted request was not granted")
	}
	w.reveal(a)
}

// pair takes a pairing to its end.
func (w *world) pair(a *testApp, role basev1.Role) {
	w.t.Helper()
	w.show(a, role)
	w.answer(a, true)
	if err := w.enrol(a); err != nil {
		w.t.Fatal(err)
	}
	if err := w.middleware.Activate(w.t.Context(), a.public()); err != nil {
		w.t.Fatal(err)
	}
}

// paired is a world with an owner, some time ago.
func paired(t testing.TB) (*world, *testApp) {
	t.Helper()
	w, first := newWorld(t, 0), newApp(t, "first")
	w.pair(first, noRole)
	w.now += time.Hour
	return w, first
}

func wantError(t testing.TB, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("got %v, want %v", err, want)
	}
}

func TestPairingEndsWithTheSameCodeAndAnActiveKey(t *testing.T) {
	w, a := newWorld(t, 0), newApp(t, "phone")
	ctx := t.Context()
	if w.hear(a) {
		t.Fatal("a request was answered without an act")
	}
	if s := w.see(w.console); s.GetPaired() || !s.GetListening() || len(s.GetRequests()) != 1 || s.GetRequests()[0] != a.number() {
		t.Fatalf("after a request the console shows %v", s)
	}
	w.accept(a, noRole)
	if s := w.see(w.console); s.GetCeremony().GetPhase() != systemv1.Ceremony_PHASE_ACCEPTED || s.GetActsLeft() != 2 {
		t.Fatalf("after the act the console shows %v", s)
	}
	if !w.hear(a) {
		t.Fatal("the accepted request was not granted")
	}
	if w.hear(a) {
		t.Fatal("it was granted twice")
	}
	w.reveal(a)
	if a.p4.Role != byte(owner) || a.p4.Name != "Base" || !a.p4.StateKey.Equal(w.machine.StateKey()) {
		t.Fatalf("P4 is %+v", a.p4)
	}
	if a.commitment != noiseconn.Commit(a.p4.RB, a.p4.StateKey, a.p4.Role) {
		t.Fatal("P4 does not open the commitment")
	}
	c := w.see(w.console).GetCeremony()
	if c.GetCode() != a.code(t, 0) || c.GetAppName() != "phone" || c.GetRole() != owner {
		t.Fatalf("the console shows %v, the App %s", c, a.code(t, 0))
	}
	wantError(t, w.enrol(a), ErrAwaitingAnswer)
	if c := w.see(w.middleware).GetCeremony(); !c.GetAppConfirmed() || c.GetBaseConfirmed() {
		t.Fatalf("after the App's signature: %v", c)
	}
	w.answer(a, true)
	if err := w.enrol(a); err != nil {
		t.Fatal(err)
	}
	s := w.see(w.console)
	if s.GetPaired() || s.GetListening() || s.GetCeremony() != nil || s.GetLast().GetOutcome() != systemv1.LastCeremony_OUTCOME_ENROLLED {
		t.Fatalf("with a pending key the console shows %v", s)
	}
	if w.disk != nil {
		t.Fatal("a pending key is on disk")
	}
	for range 2 { // repeating is harmless
		if err := w.middleware.Activate(ctx, a.public()); err != nil {
			t.Fatal(err)
		}
	}
	if w.saves != 1 {
		t.Fatalf("the registry was saved %d times", w.saves)
	}
	if s := w.see(w.console); !s.GetPaired() || s.GetListening() {
		t.Fatalf("with an active key the console shows %v", s)
	}
	w.restart()
	if s := w.see(w.console); !s.GetPaired() {
		t.Fatal("a restart forgot the owner")
	}
}

// TestEnrolWaitsForTheHuman is about the Client: it asks again when there is
// something new.
func TestEnrolWaitsForTheHuman(t *testing.T) {
	w, a := newWorld(t, 0), newApp(t, "phone")
	w.show(a, noRole)
	watches := 0
	w.middleware.Port = portFunc(func(ctx context.Context, request *systemv1.AuthorityRequest) (*systemv1.AuthorityReply, error) {
		if watches++; watches == 4 { // enrol, watch, enrol, then this watch
			w.answer(a, true)
		}
		return worldPort{w, CallerMiddleware}.Call(ctx, request)
	})
	role, name, err := w.middleware.Enrol(t.Context(), a.id, a.signature())
	if err != nil || role != owner || name != "phone" || watches != 5 {
		t.Fatalf("%v, %q, %v after %d calls", role, name, err, watches)
	}
}

type portFunc func(context.Context, *systemv1.AuthorityRequest) (*systemv1.AuthorityReply, error)

func (f portFunc) Call(ctx context.Context, request *systemv1.AuthorityRequest) (*systemv1.AuthorityReply, error) {
	return f(ctx, request)
}

func TestWindow(t *testing.T) {
	ctx := t.Context()
	t.Run("a paired Base listens in a window only", func(t *testing.T) {
		w, _ := paired(t)
		a := newApp(t, "second")
		w.hear(a)
		if s := w.see(w.console); len(s.GetRequests()) != 0 || s.GetListening() {
			t.Fatalf("without a window the console shows %v", s)
		}
		wantError(t, w.console.Accept(ctx, a.number(), viewer), ErrNotListening)
		for _, caller := range []Client{w.middleware, w.console} {
			if err := caller.OpenWindow(ctx); err != nil {
				t.Fatal(err)
			}
			w.hear(a)
			if s := w.see(w.console); len(s.GetRequests()) != 1 || !s.GetWindowOpen() || s.GetWindowRemainingMs() != 180_000 {
				t.Fatalf("in a window the console shows %v", s)
			}
			if err := caller.CloseWindow(ctx); err != nil {
				t.Fatal(err)
			}
			if s := w.see(w.console); len(s.GetRequests()) != 0 || s.GetWindowOpen() {
				t.Fatalf("after the window the console shows %v", s)
			}
		}
		if err := w.console.OpenWindow(ctx); err != nil {
			t.Fatal(err)
		}
		w.now += WindowTime
		wantError(t, w.console.Accept(ctx, a.number(), viewer), ErrNotListening)
	})
	t.Run("one key a window", func(t *testing.T) {
		w, _ := paired(t)
		if err := w.console.OpenWindow(ctx); err != nil {
			t.Fatal(err)
		}
		w.pair(newApp(t, "second"), viewer)
		wantError(t, w.console.Accept(ctx, 1, viewer), ErrNotListening)
		w = newWorld(t, 0)
		a := newApp(t, "first")
		w.show(a, noRole)
		w.answer(a, true)
		if err := w.enrol(a); err != nil {
			t.Fatal(err)
		}
		// The owner's key is pending: a second owner must not slip in.
		wantError(t, w.console.Accept(ctx, 1, noRole), ErrNotListening)
		w.now += PendingTime
		if err := w.console.Accept(ctx, 1, noRole); err != nil {
			t.Fatalf("after the pending key has died: %v", err)
		}
	})
	t.Run("closing it ends the ceremony", func(t *testing.T) {
		w, _ := paired(t)
		if err := w.console.OpenWindow(ctx); err != nil {
			t.Fatal(err)
		}
		a := newApp(t, "second")
		w.show(a, viewer)
		w.answer(a, true)
		if err := w.middleware.CloseWindow(ctx); err != nil {
			t.Fatal(err)
		}
		wantError(t, w.enrol(a), ErrNoCeremony)
	})
}

func TestRoles(t *testing.T) {
	ctx := t.Context()
	w := newWorld(t, 0)
	wantError(t, w.console.Accept(ctx, 1, viewer), ErrRoleInvalid) // a Base without owner gets one first
	w, _ = paired(t)
	if err := w.console.OpenWindow(ctx); err != nil {
		t.Fatal(err)
	}
	wantError(t, w.console.Accept(ctx, 1, noRole), ErrRoleRequired)
	wantError(t, w.console.Accept(ctx, 1, 4), ErrRoleInvalid)
	wantError(t, w.console.Accept(ctx, 1, -1), ErrRoleInvalid)
	wantError(t, w.console.Accept(ctx, noiseconn.CodeModulus, viewer), ErrMalformed)
	a := newApp(t, "second")
	w.show(a, viewer)
	if a.p4.Role != byte(viewer) {
		t.Fatalf("P4 grants role %d", a.p4.Role)
	}
}

// TestDeadlines lets each phase run out, one nanosecond early and in time.
func TestDeadlines(t *testing.T) {
	for _, phase := range []struct {
		name  string
		limit time.Duration
		reach func(*world, *testApp)
		step  func(*world, *testApp) error
	}{
		{"from act to P1", AcceptedTime,
			func(w *world, a *testApp) { w.accept(a, noRole) },
			func(w *world, a *testApp) error {
				if !w.hear(a) {
					return ErrNoCeremony
				}
				return nil
			}},
		{"from P2 to P3", CommittedTime,
			func(w *world, a *testApp) { w.accept(a, noRole); w.hear(a) },
			func(w *world, a *testApp) error { return w.tryReveal(a) }},
		{"from the code to the answer", ShownTime,
			func(w *world, a *testApp) { w.show(a, noRole) },
			func(w *world, a *testApp) error { return w.console.Answer(w.t.Context(), a.id, true) }},
		{"from the code to the signature", ShownTime,
			func(w *world, a *testApp) { w.show(a, noRole); w.answer(a, true) },
			func(w *world, a *testApp) error { return w.enrol(a) }},
		{"from enrolling to the first connection", PendingTime,
			func(w *world, a *testApp) {
				w.show(a, noRole)
				w.answer(a, true)
				if err := w.enrol(a); err != nil {
					w.t.Fatal(err)
				}
			},
			func(w *world, a *testApp) error { return w.middleware.Activate(w.t.Context(), a.public()) }},
	} {
		t.Run(phase.name, func(t *testing.T) {
			w, a := newWorld(t, 0), newApp(t, "phone")
			phase.reach(w, a)
			w.now += phase.limit - 1
			if err := phase.step(w, a); err != nil {
				t.Fatalf("just in time: %v", err)
			}
			w, a = newWorld(t, 0), newApp(t, "phone")
			w.now = time.Hour
			phase.reach(w, a)
			// The Machine knows when it has to be woken …
			for w.now < time.Hour+phase.limit {
				deadline, ok := w.machine.Deadline()
				if !ok || deadline <= w.now {
					t.Fatalf("at %v the next deadline is %v, %v", w.now, deadline, ok)
				}
				w.now = min(deadline, time.Hour+phase.limit)
				w.machine.Tick(w.now)
			}
			// … and has forgotten by then.
			if err := phase.step(w, a); !errors.Is(err, ErrNoCeremony) && !errors.Is(err, ErrUnknownKey) {
				t.Fatalf("too late: %v", err)
			}
		})
	}
}

func TestNoAnswerWipesTheSecret(t *testing.T) {
	w, a := newWorld(t, 0), newApp(t, "phone")
	w.show(a, noRole)
	rb := w.machine.ceremony.rb
	w.now += ShownTime
	w.machine.Tick(w.now)
	if !bytes.Equal(rb.Expose(), make([]byte, secret.Size)) {
		t.Fatal("r_B is still in memory")
	}
	if s := w.see(w.console); s.GetCeremony() != nil || s.GetLast().GetOutcome() != systemv1.LastCeremony_OUTCOME_TIMED_OUT {
		t.Fatalf("the console shows %v", s)
	}
}

func TestPendingKeyDiesAtARestart(t *testing.T) {
	w, a := newWorld(t, 0), newApp(t, "phone")
	w.show(a, noRole)
	w.answer(a, true)
	if err := w.enrol(a); err != nil {
		t.Fatal(err)
	}
	w.restart()
	wantError(t, w.middleware.Activate(t.Context(), a.public()), ErrUnknownKey)
}

func TestFailedSaveChangesNothing(t *testing.T) {
	ctx := t.Context()
	w, a := newWorld(t, 0), newApp(t, "phone")
	w.show(a, noRole)
	w.answer(a, true)
	if err := w.enrol(a); err != nil {
		t.Fatal(err)
	}
	w.full = true
	wantError(t, w.middleware.Activate(ctx, a.public()), ErrStorage)
	if s := w.see(w.console); s.GetPaired() {
		t.Fatal("the key is active, and not on disk")
	}
	w.full = false
	if err := w.middleware.Activate(ctx, a.public()); err != nil {
		t.Fatal(err)
	}
	w.full = true
	wantError(t, w.console.Retire(ctx, a.public()), ErrStorage)
	if s := w.see(w.console); !s.GetPaired() {
		t.Fatal("the key is gone, and still on disk")
	}
	w.full = false
	if err := w.console.Retire(ctx, a.public()); err != nil {
		t.Fatal(err)
	}
	w.restart()
	if s := w.see(w.console); s.GetPaired() {
		t.Fatal("a retired key came back")
	}
}

func TestRetire(t *testing.T) {
	ctx := t.Context()
	w, first := paired(t)
	if err := w.console.OpenWindow(ctx); err != nil {
		t.Fatal(err)
	}
	second := newApp(t, "second")
	w.pair(second, viewer)
	wantError(t, w.middleware.Retire(ctx, first.public()), ErrPermission)
	wantError(t, w.middleware.Retire(ctx, newApp(t, "none").public()), ErrUnknownKey)
	if err := w.middleware.Retire(ctx, second.public()); err != nil {
		t.Fatalf("the Middleware takes a viewer's key away: %v", err)
	}
	if err := w.console.Retire(ctx, first.public()); err != nil {
		t.Fatal(err)
	}
	if s := w.see(w.console); s.GetPaired() || !s.GetListening() {
		t.Fatalf("without any key the console shows %v", s)
	}
}

func TestReconcileReportsAndOnlyDropsWhatIsPending(t *testing.T) {
	ctx := t.Context()
	w, first := paired(t)
	if err := w.console.OpenWindow(ctx); err != nil {
		t.Fatal(err)
	}
	pending := newApp(t, "pending")
	w.show(pending, owner)
	w.answer(pending, true)
	if err := w.enrol(pending); err != nil {
		t.Fatal(err)
	}
	stranger := newApp(t, "stranger")
	// A lie: the Middleware holds a pairing that nobody enrolled, and has lost
	// the owner's.
	unknown, orphaned, err := w.middleware.Reconcile(ctx, []ed25519.PublicKey{stranger.public(), nil})
	if err != nil || len(unknown) != 2 || !unknown[0].Equal(stranger.public()) || len(orphaned) != 1 || !orphaned[0].Equal(first.public()) {
		t.Fatalf("unknown %v, orphaned %v, %v", unknown, orphaned, err)
	}
	wantError(t, w.middleware.Activate(ctx, pending.public()), ErrUnknownKey)
	if s := w.see(w.console); !s.GetPaired() {
		t.Fatal("the owner's key was taken away")
	}
	unknown, orphaned, err = w.middleware.Reconcile(ctx, []ed25519.PublicKey{first.public()})
	if err != nil || len(unknown) != 0 || len(orphaned) != 0 {
		t.Fatalf("unknown %v, orphaned %v, %v", unknown, orphaned, err)
	}
	_, _, err = w.middleware.Reconcile(ctx, make([]ed25519.PublicKey, maxReconcile+1))
	wantError(t, err, ErrMalformed)

	// A ceremony has lost its connection; an act has none yet.
	if err := w.console.OpenWindow(ctx); err != nil {
		t.Fatal(err)
	}
	a := newApp(t, "next")
	w.accept(a, viewer)
	for _, phase := range []bool{true, false} {
		if _, _, err := w.middleware.Reconcile(ctx, nil); err != nil {
			t.Fatal(err)
		}
		if got := w.see(w.console).GetCeremony() != nil; got != phase {
			t.Fatalf("a ceremony is on: %v", got)
		}
		if phase && !w.hear(a) {
			t.Fatal("the accepted request was not granted")
		}
	}
}

func TestRegistryIsBounded(t *testing.T) {
	ctx := t.Context()
	w, first := paired(t)
	for i := 1; i < MaxKeys; i++ {
		if err := w.console.OpenWindow(ctx); err != nil {
			t.Fatal(err)
		}
		w.pair(newApp(t, "another"), viewer)
		w.now += ActsTime
	}
	if err := w.console.OpenWindow(ctx); err != nil {
		t.Fatal(err)
	}
	wantError(t, w.console.Accept(ctx, 1, viewer), ErrRegistryFull)
	w.restart()
	if len(w.machine.registry) != MaxKeys {
		t.Fatalf("%d keys after a restart", len(w.machine.registry))
	}
	if err := w.console.Retire(ctx, first.public()); err != nil {
		t.Fatal(err)
	}
}

func TestDamagedRegistryIsRefusedNotReplaced(t *testing.T) {
	w, _ := paired(t)
	for name, damage := range map[string]func([]byte) []byte{
		"cut off":         func(b []byte) []byte { return b[:len(b)-1] },
		"longer":          func(b []byte) []byte { return append(b, 0) },
		"empty":           func([]byte) []byte { return []byte{} },
		"newer":           func(b []byte) []byte { b[0]++; return b },
		"more keys":       func(b []byte) []byte { b[1]++; return b },
		"too many":        func(b []byte) []byte { return append([]byte{1, MaxKeys + 1}, make([]byte, entrySize*(MaxKeys+1))...) },
		"no role":         func(b []byte) []byte { b[2+64] = 0; return b },
		"a higher role":   func(b []byte) []byte { b[2+64] = 4; return b },
		"no name":         func(b []byte) []byte { b[2+65] = 0; return b },
		"a long name":     func(b []byte) []byte { b[2+65] = 200; return b },
		"a longer name":   func(b []byte) []byte { b[2+65]++; return b },
		"a control":       func(b []byte) []byte { b[2+66] = 7; return b },
		"padding":         func(b []byte) []byte { b[len(b)-1] = 1; return b },
		"the same twice":  func(b []byte) []byte { return slices.Concat([]byte{1, 2}, b[2:], b[2:]) },
		"not a byte more": func([]byte) []byte { return []byte{1} },
	} {
		config := w.config
		if config.Registry = damage(bytes.Clone(w.disk)); bytes.Equal(config.Registry, w.disk) {
			t.Fatalf("%s: nothing was damaged", name)
		}
		if _, err := NewMachine(config); err == nil {
			t.Errorf("%s: the registry was taken", name)
		}
	}
	if _, err := NewMachine(w.config); err != nil {
		t.Fatal(err)
	}
}

func TestMachineRefusesToBeMadeOfNothing(t *testing.T) {
	good := newWorld(t, 0).config
	for name, spoil := range map[string]func(*Config){
		"no name":    func(c *Config) { c.BaseName = nil },
		"empty name": func(c *Config) { c.BaseName = func() string { return "" } },
		"no key":     func(c *Config) { c.StateKey = StateKey{} },
	} {
		config := good
		spoil(&config)
		if _, err := NewMachine(config); err == nil {
			t.Errorf("%s: a Machine was made", name)
		}
	}
}

func TestNoRandomnessMeansNoPairing(t *testing.T) {
	w, a := newWorld(t, 0), newApp(t, "phone")
	for size := range 48 {
		w.config.Random = bytes.NewReader(make([]byte, size))
		w.restart()
		wantError(t, w.console.Accept(t.Context(), a.number(), noRole), ErrInternal)
		if s := w.see(w.console); s.GetCeremony() != nil {
			t.Fatalf("a ceremony began with %d random bytes", size)
		}
	}
}
