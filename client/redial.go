package client

import (
	"context"
	"time"

	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/rpc"
)

// A Base asks its Apps to move to new connections after its entry has read a new
// configuration (docs/protocol.md, section 11.6). A hostile one asks in a loop: an App makes
// one connection in timing.redial for it, whatever is asked.

// asked is told that the Base wants a new connection in the place of old.
func (t *transport) asked(old *rpc.Session) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.closed {
		t.redialling.Go(func() { t.redial(old) })
	}
}

// redial makes a new connection in the place of old, again until there is one or old has
// ended, and then has the streams of old move.
func (t *transport) redial(old *rpc.Session) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		select {
		case <-old.Done():
			cancel()
		case <-ctx.Done():
		}
	}()
	for {
		select {
		case <-time.After(t.untilRedial(old)):
		case <-ctx.Done():
			return
		}
		if t.replace(ctx, old) == nil {
			old.Retire()
			return
		}
	}
}

// untilRedial returns how long a redial has to wait, and counts it. There is nothing to wait
// for if another connection is there already.
func (t *transport) untilRedial(old *rpc.Session) time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.current != old {
		return 0
	}
	now, next := time.Now(), t.redialAt.Add(t.app.timing.redial)
	if next.Before(now) {
		next = now
	}
	t.redialAt = next
	return next.Sub(now)
}

// replace makes a connection in the place of old, unless that was replaced already. Until it
// is there, calls go over old.
func (t *transport) replace(ctx context.Context, old *rpc.Session) error {
	if err := t.lockDialing(ctx); err != nil {
		return err
	}
	defer t.unlockDialing()
	t.mu.Lock()
	replaced := t.current != old
	t.mu.Unlock()
	if replaced {
		return nil
	}
	conn, err := t.app.dial(ctx, t.id, t.given)
	if err != nil {
		return err
	}
	t.mu.Lock()
	t.retireLocked()
	t.mu.Unlock()
	_, err = t.take(rpc.NewSession(conn))
	return err
}
