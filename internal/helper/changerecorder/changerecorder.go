// Package changerecorder writes the log of changes (internal/protocol/changelog) for the helper:
// each draft within its budget, and sums of the others.
package changerecorder

import (
	"log/slog"
	"path/filepath"
	"sync"
	"time"

	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/changelog"
)

// File is the log of changes, in the helper's directory.
const File = "changes.log"

// Recorder writes the log of changes. It calls nothing of the helper, so it may be called
// with any lock held.
type Recorder struct {
	log   *slog.Logger
	clock func() time.Duration

	mu      sync.Mutex
	file    *changelog.File // nil: the log cannot be used
	broken  error           // the reason
	limiter changelog.Limiter
}

// Open opens the log in a directory, or starts it. floor is what was kept of it (Floor), nil if
// nothing was. A log that cannot be used is refused to callers (Usable), and prevents nothing
// else in the helper. clock is one that does not jump.
func Open(directory string, clock func() time.Duration, log *slog.Logger, floor *changelog.Floor) *Recorder {
	r := &Recorder{log: log, clock: clock}
	var cut bool
	r.file, cut, r.broken = changelog.Open(filepath.Join(directory, File), floor)
	if r.broken != nil {
		log.Error("the log of changes cannot be used; changes are recorded only in this journal", "audit", true, "error", r.broken)
	}
	if r.file != nil {
		r.limiter.Recall(r.file.Newest, time.Now().Unix(), r.clock())
	}
	if cut {
		r.Record(changelog.Unlimited, &systemv1.ChangeEntry{Actor: systemv1.ChangeEntry_ACTOR_BASE, What: changelog.CutByPower,
			Detail: "dropped an incomplete entry, cut off by a power cut or a kill"})
	}
	return r
}

// Record records a draft, if its budget allows.
func (r *Recorder) Record(kind changelog.Kind, e *systemv1.ChangeEntry) {
	r.mu.Lock()
	defer r.mu.Unlock()
	e.Time = time.Now().Unix()
	if r.limiter.Take(kind, e, r.clock()) {
		r.appendLocked(e)
	}
}

func (r *Recorder) appendLocked(e *systemv1.ChangeEntry) {
	err := r.broken
	if err == nil {
		err = r.file.Append(e)
	}
	if err != nil {
		r.log.Error("a change is not in the log of changes", "audit", true, "by", e.GetActor(), "app", e.GetAppId(),
			"what", e.GetWhat(), "detail", e.GetDetail(), "failure", e.GetFailure(), "error", err)
	}
}

// RecordSums records sums of the drafts that were over budget: those that the budget now allows,
// or all.
func (r *Recorder) RecordSums(all bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range r.limiter.Sums(r.clock(), all) {
		e.Time = time.Now().Unix()
		r.appendLocked(e)
	}
}

// Floor is what is kept outside the log to detect an older copy of its file; nil if there is
// nothing to keep.
func (r *Recorder) Floor() *changelog.Floor {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.file == nil {
		return nil
	}
	floor := r.file.Floor()
	return &floor
}

// Usable returns the file, or the reason why there is none.
func (r *Recorder) Usable() (*changelog.File, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.file, r.broken
}

// Close records the remaining sums, and closes the file.
func (r *Recorder) Close() error {
	r.RecordSums(true)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.file == nil {
		return nil
	}
	return r.file.Close()
}
