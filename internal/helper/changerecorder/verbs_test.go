package changerecorder

import (
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/update"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/changelog"
)

// lastUpdate is the journal of the last update.
type lastUpdate struct{ journal update.Journal }

func (u *lastUpdate) Journal() (update.Journal, error) { return u.journal, nil }

// The attack: an App brings a release that fails again and again. Each end of an update takes a
// place of what nobody has signed, so that the log is not full of them. What found no place is
// there in sum.
func TestManyEndsOfUpdatesDoNotFillTheLog(t *testing.T) {
	const over = 10
	recorder := Open(t.TempDir(), func() time.Duration { return 0 }, slog.New(slog.DiscardHandler), nil)
	last := &lastUpdate{}
	log := NewLog(recorder, nil, last, nil)
	for n := range changelog.Places + over {
		last.journal = update.Journal{ID: fmt.Sprintf("%016x", n), From: "1", To: "2", Phase: update.Undone, Reason: "it was not well"}
		for range 2 { // it is recorded once, however often the log looks
			log.recordUpdateEnd()
		}
	}
	recorder.RecordSums(true)
	file, err := recorder.Usable()
	if err != nil {
		t.Fatal(err)
	}
	ends, sums := 0, ""
	file.Newest(func(e *systemv1.ChangeEntry) bool {
		switch e.GetWhat() {
		case changelog.UpdateEnded:
			ends++
		case changelog.NotListed:
			sums += e.GetDetail()
		}
		return true
	})
	if ends != changelog.Places || !strings.Contains(sums, fmt.Sprint(over)) {
		t.Errorf("the log has %d ends of updates, and in sum %q", ends, sums)
	}
	if err := recorder.Close(); err != nil {
		t.Error(err)
	}
}
