package events

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"google.golang.org/protobuf/proto"

	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/atomicfile"
	"github.com/BitBoxSwiss/bitbox-base/internal/backlog"
	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
	"github.com/BitBoxSwiss/bitbox-base/internal/rootfile"
)

const (
	// keptFile is where a helper that ends in an orderly way leaves its events, in its directory. A
	// helper that is killed leaves none, and the next one begins a new run.
	keptFile = "events.kept"
	// maxKeptFile is its size in bytes at most: events, and a few bytes for each.
	maxKeptFile = backlog.MaxBytes + 16*backlog.MaxEvents + 64
)

// Keep leaves the events for the next start. Nothing may be published after it.
func (h *Hub) Keep(directory string) error {
	h.mu.Lock()
	last, events := h.log.Last(), h.log.Kept()
	h.mu.Unlock()
	content, err := proto.Marshal(&systemv1.KeptEvents{Run: last.Run, Number: last.Number, Events: events})
	if err == nil {
		err = atomicfile.WriteFileAtomic(filepath.Join(directory, keptFile), content, 0o600)
	}
	if err != nil {
		return reason.Errorf("keep the last events for the next start: %w", err)
	}
	return nil
}

// Resume goes on with the events that the last start has left, if it has left any. It must be called
// before anybody watches: what was published until then is numbered again. The file is gone before
// that, so no number is given twice. After an error the Hub goes on with its own run.
func (h *Hub) Resume(directory string) error {
	path := filepath.Join(directory, keptFile)
	content, err := rootfile.Read(path, maxKeptFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	kept := &systemv1.KeptEvents{}
	if err == nil {
		err = proto.Unmarshal(content, kept)
	}
	if err == nil && (kept.GetRun() == 0 || uint64(len(kept.GetEvents())) > kept.GetNumber()) {
		err = reason.New("its numbers cannot be")
	}
	if err := errors.Join(err, os.Remove(path), atomicfile.SyncDir(directory)); err != nil {
		return reason.Errorf("go on with the events of the last start: %w", err)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	published := h.log.Kept()
	h.log = backlog.Resume(h.now, backlog.Place{Run: kept.GetRun(), Number: kept.GetNumber()}, kept.GetEvents())
	for _, e := range published {
		h.log.Add(e)
	}
	return nil
}
