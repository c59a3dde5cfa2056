package clock_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/node/clock"
)

// gate is one whose seconds pass at once; each calls second first, with its number.
func gate(t *testing.T, second func(g clock.Gate, number int)) clock.Gate {
	t.Helper()
	folder := filepath.Join(t.TempDir(), "timesync")
	if err := os.Mkdir(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	g := clock.Gate{Folder: folder, Synchronised: filepath.Join(folder, "synchronized"), Lock: filepath.Join(t.TempDir(), "clock"),
		LetOut: filepath.Join(t.TempDir(), "let-out"), User: "bitcoin"}
	number := 0
	g.After = func(d time.Duration) <-chan time.Time {
		if d != time.Second {
			t.Errorf("it looks again after %v", d)
		}
		number++
		second(g, number)
		passed := make(chan time.Time, 1)
		passed <- time.Time{}
		return passed
	}
	return g
}

func wait(t *testing.T, g clock.Gate, network basev1.Network, want clock.Result) {
	t.Helper()
	if got, err := g.Wait(network); err != nil || got != want {
		t.Errorf("%v: the result is %v, %v, not %v", network, got, err, want)
	}
	if clock.Waits(g.Lock) {
		t.Error("it still says that it waits")
	}
}

func TestANodeOfAPublicNetworkWaitsUntilTheClockIsSet(t *testing.T) {
	for _, network := range []basev1.Network{basev1.Network_NETWORK_MAINNET, basev1.Network_NETWORK_TESTNET4, basev1.Network_NETWORK_SIGNET} {
		seconds := 0
		g := gate(t, func(g clock.Gate, number int) {
			seconds = number
			if !clock.Waits(g.Lock) {
				t.Error("it waits, and does not say so")
			}
			if number == 3 {
				if err := os.WriteFile(g.Synchronised, nil, 0o644); err != nil {
					t.Error(err)
				}
			}
		})
		wait(t, g, network, clock.Set)
		if seconds != 3 {
			t.Errorf("it waited %d seconds", seconds)
		}
		wait(t, g, network, clock.Set)
		if seconds != 3 {
			t.Error("it waits for a clock that is set")
		}
	}
}

func TestANodeStartsWithoutTheTimeOfTheNetwork(t *testing.T) {
	seconds := 0
	g := gate(t, func(_ clock.Gate, number int) { seconds = number })
	wait(t, g, basev1.Network_NETWORK_REGTEST, clock.NotNeeded)
	wait(t, g, basev1.Network_NETWORK_SIMNET, clock.NotNeeded)
	if seconds != 0 {
		t.Errorf("a network of this machine waited %d seconds", seconds)
	}
	wait(t, g, basev1.Network_NETWORK_MAINNET, clock.Late)
	if time.Duration(seconds)*time.Second != clock.Most {
		t.Errorf("it waited %d seconds", seconds)
	}
	// The service is switched off, or this is a container.
	if err := os.Remove(g.Folder); err != nil {
		t.Fatal(err)
	}
	seconds = 0
	wait(t, g, basev1.Network_NETWORK_MAINNET, clock.NotNeeded)
	if seconds != 0 {
		t.Errorf("it waited %d seconds for a clock that nobody sets", seconds)
	}
}

func TestANodeThatIsNotLetOutDoesNotWait(t *testing.T) {
	seconds := 0
	g := gate(t, func(_ clock.Gate, number int) { seconds = number })
	for _, c := range []struct {
		text string
		want clock.Result
	}{
		{"", clock.NotNeeded}, {"debian-tor\nlightning\n", clock.NotNeeded}, {"bitcoin-other\n", clock.NotNeeded},
		{"bitcoin\n", clock.Late}, {"bitcoin\ndebian-tor\n", clock.Late}, {strings.Repeat("x\n", 1<<20), clock.Late},
	} {
		seconds = 0
		if err := os.WriteFile(g.LetOut, []byte(c.text), 0o644); err != nil {
			t.Fatal(err)
		}
		wait(t, g, basev1.Network_NETWORK_MAINNET, c.want)
		if (seconds == 0) != (c.want == clock.NotNeeded) {
			t.Errorf("%.40q: it waited %d seconds", c.text, seconds)
		}
	}
	// What another user could have written says nothing.
	if err := errors.Join(os.WriteFile(g.LetOut, nil, 0o644), os.Chmod(g.LetOut, 0o666)); err != nil {
		t.Fatal(err)
	}
	wait(t, g, basev1.Network_NETWORK_MAINNET, clock.Late)
}

func TestAFileThatAKilledStartHasLeftSaysNothing(t *testing.T) {
	folder := t.TempDir()
	left := filepath.Join(folder, "clock")
	if err := os.WriteFile(left, nil, 0o640); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(folder, "link")
	if err := os.Symlink(left, link); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{left, link, folder, filepath.Join(folder, "missing")} {
		if clock.Waits(path) {
			t.Errorf("%s: it says that a start waits", path)
		}
	}
}
