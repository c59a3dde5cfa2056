package pairing

import (
	"bytes"
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
)

// newService is a Service over the Machine of a world whose clock is the Service's.
func newService(t *testing.T, save func([]byte) error) (w *world, s *Service) {
	t.Helper()
	w = newWorld(t, 0)
	s = NewService(ServiceConfig{Machine: w.machine, Save: save})
	t.Cleanup(s.Close)
	w.middleware, w.console = Client{s.Port(CallerMiddleware)}, Client{s.Port(CallerConsole)}
	return w, s
}

func TestWatchAnswersWhenSomethingChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, _ := newService(t, nil)
		first, err := w.console.Watch(t.Context(), 0)
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		second, err := w.console.Watch(t.Context(), first.GetVersion())
		if err != nil || second.GetVersion() != first.GetVersion() || time.Since(start) != WatchTime {
			t.Fatalf("without a change: %v, %v after %v", second, err, time.Since(start))
		}
		a := newApp(t, "phone")
		go func() {
			time.Sleep(time.Second)
			w.hear(a)
		}()
		start = time.Now()
		third, err := w.console.Watch(t.Context(), second.GetVersion())
		if err != nil || len(third.GetRequests()) != 1 || time.Since(start) != time.Second {
			t.Fatalf("with a change: %v, %v after %v", third, err, time.Since(start))
		}
		// Time alone changes something as well.
		fourth, err := w.console.Watch(t.Context(), third.GetVersion())
		if err != nil || len(fourth.GetRequests()) != 0 || time.Since(start) != time.Second+ShownFor {
			t.Fatalf("after a deadline: %v, %v after %v", fourth, err, time.Since(start))
		}
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		if _, err := w.console.Watch(ctx, fourth.GetVersion()); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("with a context that ends: %v", err)
		}
	})
}

// A watch ends when the window is prolonged, though it is as open as before.
func TestAWatchSeesThatTheWindowWasProlonged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, _ := newService(t, nil)
		if err := w.console.OpenWindow(t.Context()); err != nil {
			t.Fatal(err)
		}
		first, err := w.middleware.Watch(t.Context(), 0)
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			time.Sleep(time.Second)
			if err := w.console.OpenWindow(t.Context()); err != nil {
				t.Error(err)
			}
		}()
		start := time.Now()
		second, err := w.middleware.Watch(t.Context(), first.GetVersion())
		if err != nil || second.GetWindowNumber() != first.GetWindowNumber()+1 || time.Since(start) != time.Second {
			t.Fatalf("%v, %v after %v, before it was %v", second, err, time.Since(start), first)
		}
	})
}

// TestCodeIsWipedThoughNobodyAsks: the timer does it.
func TestCodeIsWipedThoughNobodyAsks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, s := newService(t, nil)
		w.show(newApp(t, "phone"), noRole)
		s.mu.Lock()
		rb := w.machine.ceremony.rb
		s.mu.Unlock()
		time.Sleep(ShownTime)
		synctest.Wait()
		s.mu.Lock()
		defer s.mu.Unlock()
		if w.machine.ceremony != nil || !bytes.Equal(rb.Expose(), make([]byte, 32)) {
			t.Fatal("the ceremony is on, or r_B is in memory")
		}
	})
}

func TestReplyWaitsForTheRegistryToBeStored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var stored []byte
		failure := errors.New("no space left on device")
		w, _ := newService(t, func(registry []byte) error {
			if failure != nil {
				return failure
			}
			time.Sleep(time.Second) // a slow disk
			stored = registry
			return nil
		})
		a := newApp(t, "phone")
		w.show(a, noRole)
		w.answer(a, true)
		if _, _, err := w.middleware.Enrol(t.Context(), a.id, a.signature()); err != nil {
			t.Fatal(err)
		}
		wantError(t, w.middleware.Activate(t.Context(), a.public()), ErrStorage)
		failure = nil
		if err := w.middleware.Activate(t.Context(), a.public()); err != nil {
			t.Fatal(err)
		}
		if r, err := parseRegistry(stored); err != nil || r.find(a.public()) == nil {
			t.Fatalf("stored: %v, %v", r, err)
		}
	})
}

func TestEnrolWaitsForTheHumanThroughTheService(t *testing.T) {
	for _, yes := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			w, _ := newService(t, nil)
			a := newApp(t, "phone")
			w.show(a, noRole)
			go func() {
				time.Sleep(time.Minute)
				w.answer(a, yes)
			}()
			start := time.Now()
			role, name, err := w.middleware.Enrol(t.Context(), a.id, a.signature())
			if time.Since(start) != time.Minute {
				t.Fatalf("it came back after %v", time.Since(start))
			}
			if yes && (err != nil || role != owner || name != "phone") || !yes && !errors.Is(err, ErrNoCeremony) {
				t.Fatalf("after %v: %v, %q, %v", yes, role, name, err)
			}
		})
	}
}

func TestCloseEndsEveryCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, s := newService(t, nil)
		w.show(newApp(t, "phone"), noRole)
		version := w.see(w.console).GetVersion()
		var watcher sync.WaitGroup
		watcher.Go(func() {
			if _, err := w.console.Watch(t.Context(), version); !errors.Is(err, ErrClosed) {
				t.Errorf("a Watch that waited: %v", err)
			}
		})
		synctest.Wait()
		s.Close()
		s.Close()
		watcher.Wait()
		if _, err := w.console.Watch(t.Context(), 0); !errors.Is(err, ErrClosed) {
			t.Errorf("a later Watch: %v", err)
		}
		if w.machine.ceremony != nil {
			t.Error("a ceremony is on")
		}
	})
}

// TestCallersMayComeAtTheSameTime is for the race detector.
func TestCallersMayComeAtTheSameTime(t *testing.T) {
	w, _ := newService(t, func([]byte) error { return nil })
	var callers sync.WaitGroup
	for range 4 {
		callers.Go(func() {
			a := newApp(t, "phone")
			for range 50 {
				_, _, _, _ = w.middleware.Hear(t.Context(), a.p1, addressOf(a.p1))
				_ = w.console.Accept(t.Context(), a.number(), noRole)
				if s, err := w.console.Watch(t.Context(), 0); err != nil || s.GetCeremony().GetPhase() > systemv1.Ceremony_PHASE_COMMITTED {
					t.Errorf("%v, %v", s, err)
				}
			}
		})
	}
	callers.Wait()
}
