package client

import (
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/noiseconn"
)

// This plays an App of two processes whose clock and power fail. It connects at the first try.
// Only if a power cut has lost the counter and the clock is behind as well, it takes a second
// try, which the ceiling makes possible. Without a power cut no number is used twice.
func TestTheAppConnectsInSpiteOfPowerCutsAndClockChanges(t *testing.T) {
	dir := t.TempDir()
	rapid.Check(t, func(t *rapid.T) {
		path := filepath.Join(dir, storeFile)
		processes := []*store{{path: path}, {path: path}}
		counter := processes[0].counterPath("app")
		_ = os.Remove(counter)
		clock := time.UnixMilli(1_700_000_000_000)
		lost := false                                 // the power was cut since the last connection
		ceiling, highest := uint64(0), uint64(0)      // the App's in the database; the Base's
		used, old := map[uint64]bool{}, [][]byte{nil} // old: what the file may contain after a power cut
		next := func(p *store, over uint64) uint64 {
			seq, err := p.nextSeq("app", clock, over)
			if err != nil {
				t.Fatal(err)
			}
			if used[seq] {
				t.Fatalf("%d is used twice", seq)
			}
			used[seq] = true
			content, err := os.ReadFile(counter)
			if err != nil {
				t.Fatal(err)
			}
			old = append(old, content)
			return seq
		}
		t.Repeat(map[string]func(*rapid.T){
			"connect": func(t *rapid.T) {
				p := processes[rapid.IntRange(0, 1).Draw(t, "process")]
				seq := next(p, 0)
				if seq <= highest {
					if !lost || clock.UnixMilli() > int64(highest) {
						t.Fatalf("%d is refused after %d, though the power was cut %v and the clock is at %d", seq, highest, lost, clock.UnixMilli())
					}
					app := pairing{Base: Base{State: Active}, ceiling: ceiling}
					if !app.maybeBehind(seq, clock, fail(ErrSilent, nil, "silence")) {
						t.Fatalf("the App does not try %d again, at %d with the ceiling %d", seq, clock.UnixMilli(), ceiling)
					}
					if seq = next(p, ceiling); seq <= highest {
						t.Fatalf("above the ceiling %d, %d is refused too", ceiling, seq)
					}
				}
				highest = seq
				if seq+ceilingLeft > ceiling {
					ceiling = max(ceiling, ceilingAbove(seq))
				}
				if highest > ceiling {
					t.Fatalf("%d was used, above the ceiling %d", highest, ceiling)
				}
				lost = false
			},
			"unheard": func(t *rapid.T) { next(processes[0], 0) }, // the Base is off
			"time passes": func(t *rapid.T) {
				clock = clock.Add(time.Duration(rapid.Int64Range(0, int64(3*time.Hour)).Draw(t, "for")))
			},
			"the clock is set back": func(t *rapid.T) {
				clock = clock.Add(-time.Duration(rapid.Int64Range(0, int64(1000*time.Hour)).Draw(t, "by")))
			},
			"the power is cut": func(t *rapid.T) {
				content := rapid.SampledFrom(old).Draw(t, "what survives the cut")
				if content == nil {
					_ = os.Remove(counter)
				} else if err := os.WriteFile(counter, content, 0o600); err != nil {
					t.Fatal(err)
				}
				clear(used)
				lost = true
			},
		})
	})
}

// Without the ceiling the App could not connect until its clock is right.
func TestAnAppThatLostItsCounterAndItsClockGetsIn(t *testing.T) {
	attack := func(t *testing.T, ceiling bool) error {
		a, b := testApp(t), newFakeBase(t)
		b.ordered = true
		mustPair(t, a, b)
		if err := getInfo(t, open(t, a)); err != nil {
			t.Fatal(err)
		}
		a.saving.Wait()
		id := bases(t, a)[0].AppID
		if err := a.store.forgetCounter(id); err != nil {
			t.Fatal(err)
		}
		if !ceiling {
			if err := a.store.change(id, "forget", func(r *stored) { r.Ceiling = 0 }); err != nil {
				t.Fatal(err)
			}
		}
		a.now = func() time.Time { return time.Unix(0, 0) }
		return getInfo(t, open(t, a))
	}
	if err := attack(t, true); err != nil {
		t.Error(Explain(err))
	}
	if attack(t, false) == nil {
		t.Error("the broken variant gets in, so this test shows nothing")
	}
}

func TestNumbersOfManyProcessesAreDifferent(t *testing.T) {
	path := filepath.Join(t.TempDir(), storeFile)
	now := time.Now()
	var mu sync.Mutex
	var all []uint64
	var running sync.WaitGroup
	for range 8 {
		running.Go(func() {
			s := &store{path: path}
			for range 50 {
				seq, err := s.nextSeq("app", now, 0)
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				all = append(all, seq)
				mu.Unlock()
			}
		})
	}
	running.Wait()
	slices.Sort(all)
	if len(slices.Compact(slices.Clone(all))) != 400 || all[0] != uint64(now.UnixMilli()) || all[399] != all[0]+399 {
		t.Errorf("%d different numbers of 400, from %d to %d", len(slices.Compact(all)), all[0], all[len(all)-1])
	}
}

func TestADamagedCounterDoesNotPreventConnecting(t *testing.T) {
	now := time.Now()
	for what, content := range map[string]string{
		"empty": "", "text": "what is this", "cut off": "0000", "binary": "\x00\x01\x02", "long": strings.Repeat("9", 1000),
		"too high to be accepted": "18446744073709551615\n", "negative": "-0000000000000000001\n",
	} {
		s := &store{path: filepath.Join(t.TempDir(), storeFile)}
		if err := os.WriteFile(s.counterPath("app"), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		first, err := s.nextSeq("app", now, 0)
		if err != nil || first != uint64(now.UnixMilli()) {
			t.Errorf("%s: %d, %v", what, first, err)
		}
		if second, err := s.nextSeq("app", now, 0); err != nil || second != first+1 {
			t.Errorf("%s: then %d, %v", what, second, err)
		}
	}
	// Beyond 2100 it still counts, slowly.
	s := &store{path: filepath.Join(t.TempDir(), storeFile)}
	for n := range uint64(3) {
		if seq, err := s.nextSeq("app", time.UnixMilli(math.MaxInt64/2), 0); err != nil || seq != noiseconn.MaxSeqClock+n {
			t.Errorf("%d, %v", seq, err)
		}
	}
}

// A running App connects without reading or writing its database. It drops what it has read as
// soon as another process changes something.
func TestARunningAppConnectsWithoutItsDatabase(t *testing.T) {
	a, b := testApp(t), newFakeBase(t)
	mustPair(t, a, b)
	if err := getInfo(t, open(t, a)); err != nil {
		t.Fatal(err)
	}
	a.saving.Wait()
	age(t, a)
	if _, err := a.store.pairings(); err != nil {
		t.Fatal(err)
	}
	// A directory in its place makes every attempt to open it fail.
	aside := a.store.path + ".aside"
	if err := os.Rename(a.store.path, aside); err != nil {
		t.Fatal(err)
	}
	if err := os.Link(aside, a.store.path); err != nil {
		t.Skip("no hard links here:", err)
	}
	if err := os.Chmod(aside, 0o604); err != nil { // state.Open refuses this mode
		t.Fatal(err)
	}
	if err := getInfo(t, open(t, a)); err != nil {
		t.Errorf("the database was opened: %v", Explain(err))
	}
	if fresh := appIn(t, filepath.Dir(a.store.path)); fresh != nil {
		if _, err := fresh.Bases(); err == nil {
			t.Error("the database can be opened, so this test shows nothing")
		}
	}
	if err := os.Chmod(aside, 0o600); err != nil {
		t.Fatal(err)
	}
	other := appIn(t, filepath.Dir(a.store.path))
	if err := other.Forget(bases(t, a)[0].Name); err != nil {
		t.Fatal(err)
	}
	if list := bases(t, a); len(list) != 0 {
		t.Errorf("what another process has deleted is still known: %v", list)
	}
}

// age makes the database look as if it had not been written for a while.
func age(t *testing.T, a *App) {
	t.Helper()
	before := time.Now().Add(-time.Hour)
	if err := os.Chtimes(a.store.path, before, before); err != nil {
		t.Fatal(err)
	}
}
