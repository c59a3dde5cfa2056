package daemon

import (
	"context"
	"time"

	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/middleware/events"
)

// followStep is the least time between two checks of the authority: a flood of requests changes
// the snapshot each time.
const followStep = 100 * time.Millisecond

// followAgain is the pause after a failure before the authority is asked again.
const followAgain = 2 * time.Second

// follow reports when the Base starts or stops listening for pairing requests. An authority that
// does not answer (the helper restarts) is no reason to end the sessions of Apps.
func (m *Middleware) follow(ctx context.Context) error {
	for seen := (&systemv1.Snapshot{}); ; {
		pause := followStep
		snapshot, err := m.parts.Authority.Watch(ctx, seen.GetVersion())
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			m.config.Logger.Warn("check whether pairing is open; trying again", "error", err)
			snapshot, pause = &systemv1.Snapshot{}, followAgain // nobody listens
		}
		if otherWindow(seen, snapshot) {
			m.events.PublishWindow(events.WindowOf(snapshot))
		}
		m.attempts.Listening(snapshot.GetListening())
		if snapshot.GetListening() != seen.GetListening() && m.announcer != nil {
			m.announcer.Update(m.txt(snapshot.GetListening()))
		}
		seen = snapshot
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// otherWindow tells whether the window was opened, prolonged or closed.
func otherWindow(seen, now *systemv1.Snapshot) bool {
	return now.GetWindowOpen() != seen.GetWindowOpen() || now.GetWindowOpen() && now.GetWindowNumber() != seen.GetWindowNumber()
}
