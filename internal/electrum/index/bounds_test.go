package index

import (
	"errors"
	"log/slog"
	"math/rand/v2"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/BitBoxSwiss/bitbox-base/internal/testbed/chaintest"
	"github.com/BitBoxSwiss/bitbox-base/internal/testbed/leaktest"
)

func TestMain(m *testing.M) { os.Exit(leaktest.Run(m)) }

// A chain whose blocks have one transaction each takes no more memory than another while it is kept back:
// a block counts by its rows. A bound on the hints alone would keep seven times as many blocks.
func TestBlocksWithNothingInThemFillNoMemory(t *testing.T) {
	c := chaintest.New(rand.New(rand.NewPCG(1, 2)), 1)
	const held = 320
	i, err := Open(Config{Directory: "index", First: c.First(), FS: vfs.NewMem(), Logger: slog.New(slog.DiscardHandler), Held: held})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = i.Close() }()
	most, hints := 0, 0
	for range held {
		c.Grow(0)
	}
	for _, b := range c.Blocks {
		if err := i.Add(b); err != nil {
			t.Fatal(err)
		}
		most = max(most, len(i.held.blocks))
		hints = max(hints, len(i.held.pays)+len(i.held.spends)+len(i.held.ids))
	}
	if most == 0 || most > held/perBlock {
		t.Errorf("%d blocks were kept back", most)
	}
	if hints >= held/2 {
		t.Errorf("%d hints were kept back: the test shows nothing about blocks", hints)
	}
}

// fullDisk takes no new file of the store, while it is full. A draft is no file of the store yet.
type fullDisk struct {
	vfs.FS
	full    atomic.Bool
	refused atomic.Int64
}

func (d *fullDisk) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	if d.full.Load() && strings.HasSuffix(name, ".sst") {
		d.refused.Add(1)
		return nil, syscall.ENOSPC
	}
	return d.FS.Create(name, category)
}

// A store whose disk is full waits for room, and gives no error. The server does not wait with it without end:
// it says so, and goes on once there is room.
func TestAStoreThatIsStuckIsToldAndGoesOn(t *testing.T) {
	c := chaintest.New(rand.New(rand.NewPCG(1, 2)), 4)
	disk := &fullDisk{FS: vfs.NewMem()}
	i, err := Open(Config{Directory: "index", First: c.First(), FS: disk, Logger: slog.New(slog.DiscardHandler), Held: 16,
		Stall: 10 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		disk.full.Store(false)
		_ = i.Close()
	}()
	disk.full.Store(true)
	for range 4 * maxLayers {
		c.Grow(4)
	}
	// add adds what the index does not have yet, until it is told that the store waits.
	add := func() error {
		for {
			next := len(i.head)
			if next == len(c.Blocks) {
				return i.Publish()
			}
			if err := i.Add(c.Blocks[next]); err != nil {
				return err
			}
		}
	}
	// On a busy machine the store may be slow without being stuck; once it is, it takes no further block.
	deadline := time.Now().Add(time.Minute)
	for kept := -1; disk.refused.Load() == 0 || len(i.blocks) != kept; {
		kept = len(i.blocks)
		if err := add(); !errors.Is(err, ErrStalled) || time.Now().After(deadline) {
			t.Fatalf("it has %d blocks: %v", len(i.blocks), err)
		}
	}
	disk.full.Store(false)
	for deadline = time.Now().Add(time.Minute); ; {
		err := add()
		if err == nil {
			break
		}
		if !errors.Is(err, ErrStalled) || time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
	if int(i.View().Len()) != len(c.Blocks) {
		t.Errorf("it shows %d blocks of %d", i.View().Len(), len(c.Blocks))
	}
}
