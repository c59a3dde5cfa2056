package api

import (
	"context"
	"math/rand/v2"
	"time"
)

// When NGINX reads a new configuration, a connection from before stays with the process that
// took it in, for as long as it lasts. Each reload would so leave old processes for a day,
// and the next ones more. Their Apps are asked to make new connections.

const (
	// reloadTime is how long after it was told to the old processes of NGINX may take
	// connections in, and what they took in become sessions: 5 s until the first record.
	reloadTime = 10 * time.Second
	// redialStep is the mean pause between two Apps that are asked: they come one after the
	// other, each with a handshake.
	redialStep = 250 * time.Millisecond
)

// redials is what KeepRedialling needs.
type redials struct {
	reloaded chan time.Duration // holds the latest
	wait     time.Duration      // reloadTime, but in tests
	pause    func() time.Duration
}

func newRedials() redials {
	return redials{
		reloaded: make(chan time.Duration, 1), wait: reloadTime,
		pause: func() time.Duration { return rand.N(2 * redialStep) },
	}
}

// EntryReloaded is told when NGINX was last told to read a new configuration, on the
// boot-time clock, as often as one likes; 0: never. It does not block. One goroutine at a time
// may call it.
func (s *Server) EntryReloaded(at time.Duration) {
	select {
	case <-s.redials.reloaded: // one that nobody has taken yet
	default:
	}
	s.redials.reloaded <- at
}

// KeepRedialling asks Apps to make new connections after each reload of NGINX, until ctx ends.
func (s *Server) KeepRedialling(ctx context.Context) {
	for done := time.Duration(0); ; {
		var at time.Duration
		select {
		case at = <-s.redials.reloaded:
		case <-ctx.Done():
			return
		}
		if at <= done {
			continue
		}
		select {
		case <-time.After(s.redials.wait):
		case <-ctx.Done():
			return
		}
		old := func(session context.Context) bool { return sessionOf(session).BeganAt() < at+s.redials.wait }
		s.calls.Redial(ctx, old, s.redials.pause)
		done = at
	}
}
