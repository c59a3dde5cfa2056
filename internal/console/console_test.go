package console

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"io"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/noiseconn"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/pairing"
	"github.com/BitBoxSwiss/bitbox-base/internal/secret"
)

// screen is the output since it was last read.
type screen struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (s *screen) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(b)
}

func (s *screen) read() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.text.Reset()
	return s.text.String()
}

// base is an authority with a person at its terminal. The test plays both the person and the
// Middleware. Time is synctest's.
type base struct {
	t          *testing.T
	service    *pairing.Service
	middleware pairing.Client
	console    pairing.Client
	keyboard   *io.PipeWriter
	screen     *screen
	stop       context.CancelFunc
	ended      chan error
}

var newStateKey func(io.Reader) (pairing.StateKey, error) = secret.Generate

// start runs display (Run or Log) on a Base without owner.
func start(t *testing.T, display func(ctx context.Context, authority pairing.Client, in io.Reader, out io.Writer) error) *base {
	t.Helper()
	key, err := newStateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	machine, err := pairing.NewMachine(pairing.Config{BaseName: func() string { return "Base" }, StateKey: key})
	if err != nil {
		t.Fatal(err)
	}
	service := pairing.NewService(pairing.ServiceConfig{Machine: machine, Save: func([]byte) error { return nil }})
	ctx, cancel := context.WithCancel(t.Context())
	in, keyboard := io.Pipe()
	b := &base{
		t:          t,
		service:    service,
		middleware: pairing.Client{Port: service.Port(pairing.CallerMiddleware)},
		console:    pairing.Client{Port: service.Port(pairing.CallerConsole)},
		keyboard:   keyboard,
		screen:     &screen{},
		stop:       cancel,
		ended:      make(chan error, 1),
	}
	go func() { b.ended <- display(ctx, b.console, in, b.screen) }()
	t.Cleanup(func() {
		cancel()
		_ = keyboard.Close()
		service.Close()
		synctest.Wait()
	})
	return b
}

// sees waits until everything has come to rest, and fails unless each of the texts was written
// since.
func (b *base) sees(texts ...string) string {
	b.t.Helper()
	time.Sleep(time.Second)
	synctest.Wait()
	got := b.screen.read()
	for _, text := range texts {
		if !strings.Contains(got, text) {
			b.t.Fatalf("the display does not say %q, but:\n%s", text, got)
		}
	}
	return got
}

func (b *base) types(text string) {
	b.t.Helper()
	if _, err := io.WriteString(b.keyboard, text); err != nil {
		b.t.Fatal(err)
	}
}

// app is the Middleware's view of an App.
type app struct {
	p1  []byte
	key ed25519.PrivateKey
	ra  [32]byte
	id  pairing.CeremonyID
	p4  *noiseconn.P4
}

func newApp() *app {
	_, key, _ := ed25519.GenerateKey(nil)
	a := &app{p1: make([]byte, noiseconn.P1Size), key: key}
	_, _ = rand.Read(a.p1)
	a.p1[31] &= 0x7f // its first bytes are also used as the static key
	return a
}

func (a *app) public() ed25519.PublicKey { return a.key.Public().(ed25519.PublicKey) }
func (a *app) number() string            { return noiseconn.FormatNumber(noiseconn.RequestNumber(a.p1)) }

func (b *base) hear(a *app) (granted bool) {
	b.t.Helper()
	granted, id, _, err := b.middleware.Hear(b.t.Context(), a.p1, netip.AddrFrom16([16]byte(a.p1)))
	if err != nil {
		b.t.Fatal(err)
	}
	a.id = id
	return granted
}

// reveal returns the code that the App shows.
func (b *base) reveal(a *app, name string) string {
	b.t.Helper()
	if !b.hear(a) {
		b.t.Fatal("the accepted request was not granted")
	}
	payload, err := (&noiseconn.P3Payload{RA: a.ra, SigningKey: a.public(), Name: name}).Marshal()
	if err != nil {
		b.t.Fatal(err)
	}
	p4, _, err := b.middleware.Reveal(b.t.Context(), a.id, [32]byte{}, payload, [32]byte(a.p1))
	if err != nil {
		b.t.Fatal(err)
	}
	if a.p4, err = noiseconn.ParseP4(p4); err != nil {
		b.t.Fatal(err)
	}
	code, err := noiseconn.Code(a.ra, a.p4.RB, [32]byte{}, a.public(), a.p4.StateKey, a.p4.Role)
	if err != nil {
		b.t.Fatal(err)
	}
	return noiseconn.FormatNumber(code)
}

// enrol is the App's yes. It waits for the person's.
func (b *base) enrol(a *app) error {
	signature := ed25519.Sign(a.key, noiseconn.EnrolMessage([32]byte{}, a.public(), a.ra, a.p4.RB))
	if _, _, err := b.middleware.Enrol(b.t.Context(), a.id, signature); err != nil {
		return err
	}
	return b.middleware.Activate(b.t.Context(), a.public())
}

// bubble runs a test on synctest's clock.
func bubble(test func(t *testing.T)) func(*testing.T) {
	return func(t *testing.T) { synctest.Test(t, test) }
}

func TestOwnerIsPairedAtTheTerminal(t *testing.T) {
	bubble(func(t *testing.T) {
		b, a := start(t, Run), newApp()
		b.sees("no owner yet")
		b.hear(a)
		b.sees(a.number(), "Does your App show this number?")
		b.types("y\n")
		b.sees("accepted", "Waiting for the App")
		code := b.reveal(a, "phone")
		b.sees(code, `"phone" would become owner`, "exactly this code? [y/N]")
		b.types("y\n")
		b.sees("Now say yes in the App")
		if err := b.enrol(a); err != nil {
			t.Fatal(err)
		}
		b.sees(`"phone" is paired as owner`, "Pairing is closed")

		// A second App needs the window, and a role.
		second := newApp()
		b.types("open\n")
		b.sees("The pairing window is open for 180 s")
		b.hear(second)
		b.sees(second.number())
		b.types("y\n")
		b.sees("viewer", "operator", "owner")
		b.types("king\n")
		b.sees("Type viewer, operator or owner")
		b.types("viewer\n")
		b.sees("accepted")
		code = b.reveal(second, "tablet")
		b.sees(code, `"tablet" would become viewer`)
		b.types(code + "\n") // typing the App's code is a yes
		b.sees("Now say yes in the App")
		if err := b.enrol(second); err != nil {
			t.Fatal(err)
		}
		b.sees(`"tablet" is paired as viewer`)
	})(t)
}

// slowScreen is a terminal that was stopped (Ctrl-S) for five seconds while it wrote that a
// request was accepted.
type slowScreen struct{ io.Writer }

func (s slowScreen) Write(b []byte) (int, error) {
	if bytes.Contains(b, []byte("Waiting for the App")) {
		time.Sleep(5 * time.Second)
	}
	return s.Writer.Write(b)
}

// A user who types too much, or pastes, must not say yes to a code that was not yet on the
// screen.
func TestTypedAheadYesConfirmsNoCode(t *testing.T) {
	for range 10 { // it is random whether the display sees the code or the line first
		bubble(func(t *testing.T) {
			b, a := start(t, func(ctx context.Context, authority pairing.Client, in io.Reader, out io.Writer) error {
				return Run(ctx, authority, in, slowScreen{out})
			}), newApp()
			b.sees()
			b.hear(a)
			b.sees(a.number())
			b.types("y\n")
			time.Sleep(time.Second)
			code := b.reveal(a, "phone")
			time.Sleep(time.Second)
			b.types("y\ny\ny\nyes\n")
			time.Sleep(5 * time.Second)
			b.sees(code)
			snapshot, err := b.console.Watch(t.Context(), 0)
			if err != nil || snapshot.GetCeremony() == nil || snapshot.GetCeremony().GetBaseConfirmed() || snapshot.GetActsLeft() != 2 {
				t.Fatalf("after typing ahead: %v, %v", snapshot, err)
			}
		})(t)
	}
}

func TestNoMeansNo(t *testing.T) {
	for name, answer := range map[string]string{"no": "no\n", "enter": "\n", "another code": "000 000\n"} {
		t.Run(name, bubble(func(t *testing.T) {
			b, a := start(t, Run), newApp()
			b.sees()
			b.hear(a)
			b.sees(a.number())
			b.types("y\n")
			b.sees()
			code := b.reveal(a, "phone")
			b.sees(code)
			b.types("perhaps\n")
			b.sees(code, "[y/N]") // asked again
			b.types(answer)
			wanted := []string{"rejected here"}
			if name == "another code" {
				wanted = append(wanted, "You typed 000 000, but the code here is "+code, "you mistyped it", "somebody may be in between")
			}
			b.sees(wanted...)
			if err := b.enrol(a); !errors.Is(err, pairing.ErrNoCeremony) {
				t.Fatal(err)
			}
		}))
	}
}

func TestNumberIsTypedWhenSeveralAsk(t *testing.T) {
	bubble(func(t *testing.T) {
		b, a, other := start(t, Run), newApp(), newApp()
		b.sees()
		b.hear(a)
		b.hear(other)
		if got := b.sees("Type the request number"); strings.Contains(got, a.number()) || strings.Contains(got, other.number()) {
			t.Fatalf("a number is shown to be copied instead of read from the App:\n%s", got)
		}
		b.types("y\n")
		b.sees("six digits")
		b.types(a.number() + "\n")
		b.sees("accepted")
		b.reveal(a, "phone")
	})(t)
}

func TestDeclinedRequestIsNotAskedForAgain(t *testing.T) {
	bubble(func(t *testing.T) {
		b, stranger, a := start(t, Run), newApp(), newApp()
		b.sees()
		b.hear(stranger)
		b.sees(stranger.number())
		b.types("n\n")
		b.sees("Not accepted")
		b.hear(a)
		b.hear(stranger)
		if got := b.sees(a.number()); strings.Contains(got, stranger.number()) {
			t.Fatal(got)
		}
		time.Sleep(pairing.ShownFor)
		b.sees("no longer asks")
		b.types(strings.ReplaceAll(stranger.number(), " ", "") + "\n") // it still works when typed
		b.sees("accepted")
	})(t)
}

func TestRefusalsAreExplainedInWords(t *testing.T) {
	bubble(func(t *testing.T) {
		b := start(t, Run)
		b.sees()
		for range pairing.MaxActs {
			b.types("123456\n")
			b.sees("accepted")
			b.types("n\n")
			b.sees("rejected here")
		}
		b.types("123456\n")
		b.sees("Not done: three requests were accepted")
		b.types("what?\n")
		b.sees("There is no question now")
	})(t)
}

// A name that passes the check is quoted.
func TestNamesCannotDrawOnTheTerminal(t *testing.T) {
	bubble(func(t *testing.T) {
		b, a := start(t, Run), newApp()
		b.sees()
		b.types(a.number() + "\n")
		b.sees()
		b.reveal(a, `x" is your own phone; "`)
		b.sees(`"x\" is your own phone; \""`)
	})(t)
}

func TestTheDisplayStaysOnWhenTheInputEnds(t *testing.T) {
	bubble(func(t *testing.T) {
		b, a := start(t, Run), newApp()
		b.sees()
		_ = b.keyboard.Close()
		b.sees("bitbox-base pairing list")
		b.hear(a)
		b.sees(a.number())
		b.stop()
		if err := <-b.ended; !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
	})(t)
}

func TestEachOutcomeIsShown(t *testing.T) {
	for want, end := range map[string]func(*base, *app){
		"took too long":         func(*base, *app) { time.Sleep(pairing.ShownTime) },
		"connection to the App": func(b *base, a *app) { _ = b.middleware.Abort(b.t.Context(), a.id, false) },
		"rejected in the App":   func(b *base, a *app) { _ = b.middleware.Abort(b.t.Context(), a.id, true) },
		"somebody may have": func(b *base, a *app) {
			_, _, _ = b.middleware.Enrol(b.t.Context(), a.id, make([]byte, ed25519.SignatureSize))
		},
		"cancelled": func(b *base, _ *app) { _ = b.console.CloseWindow(b.t.Context()) },
	} {
		t.Run(want, bubble(func(t *testing.T) {
			b, a := start(t, Run), newApp()
			b.sees()
			b.types(a.number() + "\n")
			b.sees()
			b.reveal(a, "phone")
			b.sees()
			end(b, a)
			b.sees(want, "No App was let in")
		}))
	}
}

func TestLogNamesTheCommandToType(t *testing.T) {
	bubble(func(t *testing.T) {
		b, a := start(t, func(ctx context.Context, authority pairing.Client, _ io.Reader, out io.Writer) error {
			return Log(ctx, authority, slog.New(slog.NewTextHandler(out, nil)))
		}), newApp()
		b.sees("listening=true")
		b.hear(a)
		digits := strings.ReplaceAll(a.number(), " ", "")
		b.sees("numbers="+digits, "bitbox-base pairing accept NUMBER")
		if err := b.console.Accept(t.Context(), noiseconn.RequestNumber(a.p1), basev1.Role_ROLE_UNSPECIFIED); err != nil {
			t.Fatal(err)
		}
		b.sees("request accepted")
		code := b.reveal(a, "phone\u00e9 x")
		b.sees(`code="`+code+`"`, `app="phoneé x"`, "role=owner", "bitbox-base pairing confirm", "bitbox-base pairing reject")
		if err := b.console.Answer(t.Context(), a.id, true); err != nil {
			t.Fatal(err)
		}
		b.sees("confirmed at the Base")
		if err := b.enrol(a); err != nil {
			t.Fatal(err)
		}
		b.sees("is paired as owner", "listening=false")
		if err := b.console.OpenWindow(t.Context()); err != nil {
			t.Fatal(err)
		}
		b.hear(newApp())
		b.sees("--role viewer|operator|owner")
	})(t)
}

// A stranger may send thousands of requests.
func TestFloodOfRequestsDoesNotFloodTheLog(t *testing.T) {
	bubble(func(t *testing.T) {
		b := start(t, func(ctx context.Context, authority pairing.Client, _ io.Reader, out io.Writer) error {
			return Log(ctx, authority, slog.New(slog.NewTextHandler(out, nil)))
		})
		for range 1000 { // in one second
			b.hear(newApp())
			time.Sleep(time.Millisecond)
		}
		if lines := strings.Count(b.sees(), "\n"); lines > 10 {
			t.Fatalf("%d lines", lines)
		}
	})(t)
}

// order is an owner's signed order, as the system helper passes it on.
func (b *base) order(do func(*pairing.Machine) error) {
	b.t.Helper()
	if err := b.service.With(do); err != nil {
		b.t.Fatal(err)
	}
}

// first pairs an owner at the terminal.
func (b *base) first() (owner pairing.OwnerKey) {
	b.t.Helper()
	a := newApp()
	if err := b.console.Accept(b.t.Context(), noiseconn.RequestNumber(a.p1), basev1.Role_ROLE_UNSPECIFIED); err != nil {
		b.t.Fatal(err)
	}
	b.reveal(a, "phone")
	if err := b.console.Answer(b.t.Context(), a.id, true); err != nil {
		b.t.Fatal(err)
	}
	if err := b.enrol(a); err != nil {
		b.t.Fatal(err)
	}
	key := a.key.Public().(ed25519.PublicKey)
	if err := b.middleware.Activate(b.t.Context(), key); err != nil {
		b.t.Fatal(err)
	}
	b.sees()
	return pairing.OwnerKey(key)
}

func TestAnOwnersOrderIsShownAtTheTerminal(t *testing.T) {
	bubble(func(t *testing.T) {
		b := start(t, Run)
		owner := b.first()
		b.order(func(m *pairing.Machine) error { return m.OpenWindowFor(owner, basev1.Role_ROLE_OPERATOR) })
		b.sees("An owner's App asks to let in an OPERATOR.", "The pairing window is open for 180 s")
		a := newApp()
		b.hear(a)
		b.sees("as operator", a.number(), "[y/N/viewer]")
		b.types("owner\n") // a higher role than ordered is not an answer
		b.sees("Type y or n")
		b.types("y\n")
		b.sees("accepted")
		if snapshot, err := b.console.Watch(t.Context(), 0); err != nil || snapshot.GetCeremony().GetRole() != basev1.Role_ROLE_OPERATOR {
			t.Errorf("it would become %v, %v", snapshot, err)
		}
		b.types("n\n")
		b.sees("rejected here", "[y/N/viewer]")
		b.types("viewer\n")
		b.sees("accepted")
		if snapshot, err := b.console.Watch(t.Context(), 0); err != nil || snapshot.GetCeremony().GetRole() != basev1.Role_ROLE_VIEWER {
			t.Errorf("it would become %v, %v", snapshot, err)
		}
	})(t)
}

func TestAnOwnersAnswerIsShownAndCanBeRefused(t *testing.T) {
	displays := map[string]func(ctx context.Context, authority pairing.Client, in io.Reader, out io.Writer) error{
		"terminal": Run,
		"log": func(ctx context.Context, authority pairing.Client, _ io.Reader, out io.Writer) error {
			return Log(ctx, authority, slog.New(slog.NewTextHandler(out, nil)))
		},
	}
	for name, display := range displays {
		t.Run(name, bubble(func(t *testing.T) {
			b := start(t, display)
			owner := b.first()
			b.order(func(m *pairing.Machine) error { return m.OpenWindowFor(owner, basev1.Role_ROLE_VIEWER) })
			b.sees("An owner's App asks to let in a VIEWER.")
			a := newApp()
			b.order(func(m *pairing.Machine) error {
				return m.AcceptFor(owner, noiseconn.RequestNumber(a.p1), basev1.Role_ROLE_VIEWER)
			})
			b.sees("owner's App has accepted", "viewer")
			code := b.reveal(a, "tablet")
			if got := b.sees(); strings.Contains(got, code) {
				t.Errorf("the six digits are asked for: %s", got)
			}
			if name == "terminal" {
				b.types("y\n")
				b.sees()
				b.types("no\n")
				b.sees("rejected here")
			}
		}))
	}
}
