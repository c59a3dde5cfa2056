//go:build linux

package window_test

import (
	"context"
	"log/slog"
	"strings"
	"testing"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/client"
	"github.com/BitBoxSwiss/bitbox-base/internal/devbase"
	"github.com/BitBoxSwiss/bitbox-base/internal/middleware/admission"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/noiseconn"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/pairing"
	"github.com/BitBoxSwiss/bitbox-base/internal/testbed/chromiumtest"
	"github.com/BitBoxSwiss/bitbox-base/internal/testbed/windowtest"
)

// start starts a Base without an owner.
func start(t *testing.T, name string, announce bool) *devbase.Base {
	t.Helper()
	limits := admission.DefaultLimits()
	limits.PerSecond, limits.Burst = 1000, 1000 // all come from one address
	base, err := devbase.Start(devbase.Config{StateDir: t.TempDir() + "/state", Limits: limits, Listen: ":0", Name: name,
		Announce: announce, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := base.Stop(); err != nil {
			t.Errorf("stop the Base: %v", err)
		}
	})
	return base
}

// display is a person who stands before the screen of a Base.
type display struct {
	t *testing.T
	pairing.Client
}

// await waits until the screen satisfies a condition.
func (d display) await(what string, condition func(*systemv1.Snapshot) bool) *systemv1.Snapshot {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(d.t.Context(), chromiumtest.Patience)
	defer cancel()
	for seen := uint64(0); ; {
		snapshot, err := d.Watch(ctx, seen)
		if err != nil {
			d.t.Fatalf("the screen of the Base never shows %s: %v", what, err)
		}
		if condition(snapshot) {
			return snapshot
		}
		seen = snapshot.GetVersion()
	}
}

// accept presses yes beside a number. The role is what the screen proposes.
func (d display) accept(number string) {
	d.t.Helper()
	d.await("the request "+number, func(s *systemv1.Snapshot) bool {
		for _, heard := range s.GetRequests() {
			if noiseconn.FormatNumber(heard) == number {
				return d.Accept(d.t.Context(), heard, basev1.Role_ROLE_UNSPECIFIED) == nil
			}
		}
		return false
	})
}

// code reads the code. answer says yes or no to it.
func (d display) code() (digits string, answer func(yes bool)) {
	d.t.Helper()
	shown := d.await("a code", func(s *systemv1.Snapshot) bool { return s.GetCeremony().GetCode() != "" })
	id, _ := pairing.CeremonyIDOf(shown)
	return shown.GetCeremony().GetCode(), func(yes bool) {
		d.t.Helper()
		if err := d.Answer(d.t.Context(), id, yes); err != nil {
			d.t.Errorf("answer at the Base: %v", err)
		}
	}
}

// newcomer has an App that knows no Base.
type newcomer struct {
	t   *testing.T
	app *windowtest.App
	tab *chromiumtest.Tab
}

// newNewcomer opens the window of a new App.
func newNewcomer(t *testing.T, options windowtest.Options) *newcomer {
	t.Helper()
	n := &newcomer{t: t, app: windowtest.Start(t, options), tab: chromiumtest.Start(t, chromiumtest.Options{}).Tab()}
	n.app.Open(n.tab)
	n.tab.AwaitPath("/pair")
	return n
}

// reads waits until the page shows its "number" or its "code".
func (n *newcomer) reads(kind string) string { n.t.Helper(); return windowtest.Digits(n.tab, kind) }

// knows tells whether the App is paired with a Base, as its own command says.
func (n *newcomer) knows(base noiseconn.PublicKey) bool {
	n.t.Helper()
	out, err := n.app.Command("bases", "--json").CombinedOutput()
	if err != nil {
		n.t.Fatalf("list the Bases: %v: %s", err, out)
	}
	return strings.Contains(string(out), base.String())
}

// address is where a Base listens, as a person on this computer types it.
func address(b *devbase.Base) string {
	return strings.Replace(b.Addr().String(), "[::]", "127.0.0.1", 1)
}

// asks asks the Base at an address, from the form.
func (n *newcomer) asks(address string) {
	n.t.Helper()
	n.tab.Type(say("pair.form.address"), address)
	n.tab.Click("form:has(#address) button")
}

// pairs compares the code with the one on the screen, and says yes on both sides.
func (n *newcomer) pairs(at display) {
	n.t.Helper()
	number := n.reads("number")
	portray(n.t, n.tab, "pairing-number")
	at.accept(number)
	there, answer := at.code()
	if here := n.reads("code"); here != there {
		n.t.Fatalf("the window shows the code %q, the Base %q", here, there)
	}
	picture := chromiumtest.Eval[string](n.tab, `[...document.querySelectorAll("svg")].map((e) => e.outerHTML).join("")`)
	if picture == "" || strings.Contains(picture, there) {
		n.t.Error("there is no picture of the Base's screen, or it has the code in it, which then is compared with itself")
	}
	windowtest.Read(n.tab)
	portray(n.t, n.tab, "pairing-code")
	n.tab.Press(say("pair.compare.yes"))
	n.tab.AwaitText(say("pair.waiting.title"))
	answer(true)
	n.tab.AwaitText(say("pair.done.text"))
	portray(n.t, n.tab, "pairing-done")
}

// A person who has a new Base comes from the empty window to a paired Base, led by the page alone.
func TestANewcomerIsLedFromTheEmptyWindowToAPairedBase(t *testing.T) {
	needRoot(t)
	for how, choose := range map[string]func(*newcomer, *devbase.Base){
		"found on the network": func(n *newcomer, _ *devbase.Base) { n.tab.Press(say("pair.nearby.with", "kitchen")) },
		"by its address":       func(n *newcomer, b *devbase.Base) { n.asks(address(b)) },
	} {
		t.Run(how, func(t *testing.T) {
			b, n := start(t, "kitchen", true), newNewcomer(t, windowtest.Options{})
			n.tab.AwaitText(say("pair.first"))
			n.tab.AwaitText("kitchen") // the list fills by itself
			choose(n, b)
			n.pairs(display{t, b.Console()})
			if !n.knows(b.PublicKey()) {
				t.Error("the App is not paired")
			}
			n.tab.Press(say("pair.done.next", "kitchen"))
			n.tab.AwaitPath("/base/")
			n.tab.AwaitText("kitchen")
		})
	}
}

// Somebody between App and Base runs a Base of their own, which has the same name, and an App of their
// own, which asks the true Base. The two codes differ, and a no in the window leaves nothing behind.
func TestANoToACodeThatDiffersPairsNothing(t *testing.T) {
	needRoot(t)
	fails(t, func(t *testing.T, program string) bool {
		honest, forged := start(t, "kitchen", true), start(t, "kitchen", false)
		n := newNewcomer(t, windowtest.Options{Program: program})
		atBase, atThief := display{t, honest.Console()}, display{t, forged.Console()}
		n.asks(address(forged))
		atThief.accept(n.reads("number"))
		thief, err := client.New(client.Options{Dir: t.TempDir() + "/app", Name: "laptop", NoDiscovery: true})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), chromiumtest.Patience)
		defer cancel()
		requested, ended := make(chan string, 1), make(chan error, 1)
		go func() {
			_, err := thief.Pair(ctx, []string{address(honest)}, client.PairOptions{
				Requested: func(number string) { requested <- number },
				Confirm:   func(context.Context, client.Code) (bool, error) { return true, nil },
			})
			ended <- err
		}()
		select {
		case number := <-requested:
			atBase.accept(number) // a number can be ground until it is the one that the window shows
		case err := <-ended:
			t.Fatalf("the thief gets no request number: %v", err)
		}
		there, answer := atBase.code()
		_, lie := atThief.code()
		lie(true)
		if here := n.reads("code"); here == there {
			t.Fatalf("both codes are %q, which happens once in a million times", here)
		}
		windowtest.Read(n.tab) // the broken variant takes the no for a yes, which counts no sooner
		n.tab.Press(say("pair.compare.no"))
		answer(false)
		if err := <-ended; err == nil {
			t.Error("the true Base has let the thief in")
		}
		windowtest.Ended(n.tab)
		if n.knows(honest.PublicKey()) {
			t.Error("the App is paired with the true Base")
		}
		return n.knows(forged.PublicKey())
	}, windowtest.Change{File: "cmd/bitbox-app/window/deeds.go", Old: `owner.Answer{Yes: said == "yes", Text: text}`,
		New: `owner.Answer{Yes: said != "", Text: text}`})
}
