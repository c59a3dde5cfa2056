package history_test

import (
	"errors"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/BitBoxSwiss/bitbox-base/internal/electrum/index"
	"github.com/BitBoxSwiss/bitbox-base/internal/failpoint"
	"github.com/BitBoxSwiss/bitbox-base/internal/testbed/chaintest"
)

// grown is a chain with a reorganisation in it, told step by step.
func grown(c *chaintest.Chain, step func()) {
	for at := range 24 {
		if at == 12 {
			c.Cut(5)
			for range 5 {
				c.Grow(4)
			}
		}
		c.Grow(4)
		step()
	}
}

// A power cut takes what was not synced, and of that any part. Whatever is left is a beginning of
// what was added, and the rest is added again.
func TestAPowerCutAtAnyBlockLeavesAnIndexThatGoesOn(t *testing.T) {
	cut := rand.New(rand.NewPCG(3, 4))
	lost := 0
	for run := range 60 {
		c := chaintest.New(rand.New(rand.NewPCG(1, uint64(run))), 4)
		disk := vfs.NewCrashableMem()
		held := []int{0, 100, 16}[run%3] // by the store's memory, by both, by files alone
		i := openHeld(t, disk, c.First(), held)
		stop := 1 + cut.IntN(24)
		var left *vfs.MemFS
		steps := 0
		clone := func(string) error {
			if steps == stop && left == nil {
				left = disk.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: cut.IntN(101), RNG: cut})
			}
			return nil
		}
		done := failpoint.Set(clone)
		grown(c, func() {
			steps++
			follow(t, i, c)
			if run%4 == 0 { // the store's own files, too
				if err := i.Flush(); err != nil {
					t.Fatal(err)
				}
			}
		})
		done()
		if err := i.Close(); err != nil {
			t.Fatal(err)
		}
		if left == nil {
			t.Fatal("the power was never cut")
		}
		again := openHeld(t, left, c.First(), held)
		if again.View().Len() < uint32(len(c.Blocks)) {
			lost++
		}
		follow(t, again, c)
		compare(t, again, c)
		if err := again.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if lost == 0 {
		t.Error("no cut has taken a block: the test shows nothing")
	}
}

// A store that does not write all rows of a block at once would pass for whole: the header is
// there, and a payment is missing. The test above sees it.
func TestAStepThatFailsAddsNothing(t *testing.T) {
	c := chaintest.New(rand.New(rand.NewPCG(1, 2)), 4)
	i := open(t, vfs.NewMem(), c.First())
	defer func() { _ = i.Close() }()
	follow(t, i, c)
	full := errors.New("the disk is full")
	var failing atomic.Bool
	defer failpoint.Set(func(step string) error {
		if failing.Load() && step == "before: index: blocks" {
			return full
		}
		return nil
	})()
	c.Grow(3)
	failing.Store(true)
	if err := errors.Join(i.Add(c.Blocks[1]), i.Publish()); !errors.Is(err, full) {
		t.Fatal(err)
	}
	if height, _, _ := i.Tip(); height != 0 || i.View().Len() != 1 {
		t.Errorf("it is at %d, and shows %d blocks", height, i.View().Len())
	}
	// One that fails in a reorganisation leaves the chain as it was.
	failing.Store(false)
	for range 3 {
		c.Grow(3)
	}
	follow(t, i, c)
	before := c.Blocks[4].Header.Hash()
	c.Cut(2)
	for range 3 {
		c.Grow(3)
	}
	failing.Store(true)
	i.Rewind(2)
	if err := errors.Join(i.Add(c.Blocks[3]), i.Add(c.Blocks[4]), i.Publish()); !errors.Is(err, full) {
		t.Fatal(err)
	}
	if height, hash, _ := i.Tip(); height != 4 || hash != before {
		t.Errorf("it is at %d, %v", height, hash)
	}
	failing.Store(false)
	follow(t, i, c)
	compare(t, i, c)
}

// Each file of the index is damaged, at several places. The index says so, or what it says is right.
func TestDamageIsFoundAndNeverBelieved(t *testing.T) {
	c := chaintest.New(rand.New(rand.NewPCG(1, 2)), 4)
	whole := filepath.Join(t.TempDir(), "whole")
	openAt := func(dir string) (*index.Index, error) {
		return index.Open(index.Config{Directory: dir, First: c.First(), Logger: slog.New(slog.DiscardHandler)})
	}
	i, err := openAt(whole)
	if err != nil {
		t.Fatal(err)
	}
	grown(c, func() {})
	follow(t, i, c)
	if err := i.Flush(); err != nil {
		t.Fatal(err)
	}
	if err := i.Close(); err != nil {
		t.Fatal(err)
	}
	files, err := os.ReadDir(whole)
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, file := range files {
		original, err := os.ReadFile(filepath.Join(whole, file.Name()))
		if err != nil {
			t.Fatal(err)
		}
		for _, at := range []float64{0.05, 0.3, 0.5, 0.7, 0.95} {
			if len(original) == 0 {
				continue
			}
			dir := filepath.Join(t.TempDir(), "damaged")
			if err := os.CopyFS(dir, os.DirFS(whole)); err != nil {
				t.Fatal(err)
			}
			changed := append([]byte(nil), original...)
			changed[int(at*float64(len(changed)))] ^= 0x55
			if err := os.WriteFile(filepath.Join(dir, file.Name()), changed, 0o600); err != nil {
				t.Fatal(err)
			}
			if notices(t, func() (*index.Index, error) { return openAt(dir) }, c) {
				found++
			}
		}
		dir := filepath.Join(t.TempDir(), "gone")
		if err := os.CopyFS(dir, os.DirFS(whole)); err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(filepath.Join(dir, file.Name())); err != nil {
			t.Fatal(err)
		}
		if notices(t, func() (*index.Index, error) { return openAt(dir) }, c) {
			found++
		}
	}
	if found < len(files) {
		t.Errorf("damage was found %d times in %d files", found, len(files))
	}
}

// notices tells whether damage was found. If it was not, all that the index says must be right
// once it has followed the chain.
func notices(t *testing.T, open func() (*index.Index, error), c *chaintest.Chain) (found bool) {
	t.Helper()
	i, err := open()
	if err != nil {
		if !errors.Is(err, index.ErrDamaged) {
			t.Errorf("%v", err)
		}
		return true
	}
	defer func() { _ = i.Close() }()
	defer func() {
		switch p := recover().(type) {
		case nil:
		case error:
			if found = errors.Is(p, index.ErrDamaged); !found {
				panic(p)
			}
		default:
			panic(p)
		}
	}()
	follow(stopper{t}, i, c)
	compare(stopper{t}, i, c)
	return false
}

// stopper ends a comparison that notices damage, and fails the test for anything else.
type stopper struct{ t *testing.T }

func (s stopper) Fatalf(form string, args ...any) {
	for _, arg := range args {
		if err, is := arg.(error); is && errors.Is(err, index.ErrDamaged) {
			panic(err)
		}
	}
	s.t.Errorf(form, args...)
	s.t.FailNow()
}
