package client

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"
)

// An App that a Base has forgotten (after a factory reset, say) gets no answer, and each
// handshake counts towards a ban of the computer, and of all computers behind the same router
// (docs/protocol.md, section 6). MaxSilences handshakes with one address within SilenceWindow are
// too few for a ban.
const (
	MaxSilences   = 3
	SilenceWindow = 10 * time.Minute
)

// lateness is how late silence must come to mean that the Base does not know this App: such a
// Base ends the connection after 5 s. A Base that ends it earlier is restarting, or busy.
const lateness = 4 * time.Second

// checkSilence refuses another handshake with an address that was silent too often.
func (a *App) checkSilence(p *pairing, address string) error {
	times, err := a.store.silences(p.AppID, address)
	if err != nil {
		return err
	}
	times = recent(times, a.now())
	if len(times) < MaxSilences {
		return nil
	}
	return fail(ErrSilent, nil, "%s was silent %d times within %d minutes; more attempts could get this computer banned, so try again at %s",
		address, MaxSilences, int(SilenceWindow/time.Minute), times[len(times)-MaxSilences].Add(SilenceWindow).Local().Format("15:04:05"))
}

// noteSilence records how a handshake with an address went, and how long it took.
func (a *App) noteSilence(ctx context.Context, p *pairing, address string, took time.Duration, err error) error {
	switch {
	case err == nil:
		return a.notes.kept(a.store.forgetSilences(p.AppID, address))
	case errors.Is(err, ErrSilent) && took >= a.timing.lateness && ctx.Err() == nil:
		return a.store.silent(p.AppID, address, a.now())
	}
	return nil
}

// recent returns the times within the window. A time in the future, after the clock was set back,
// is dropped.
func recent(times []time.Time, now time.Time) []time.Time {
	return slices.DeleteFunc(slices.Clone(times), func(at time.Time) bool { return at.After(now) || now.Sub(at) >= SilenceWindow })
}

func (s *store) silences(id, address string) (times []time.Time, err error) {
	record, err := s.record(id)
	if err != nil {
		return nil, err
	}
	return record.Silences[address], nil
}

func (s *store) silent(id, address string, now time.Time) error {
	return s.change(id, "store that the Base was silent", func(r *stored) {
		if r.Silences == nil {
			r.Silences = map[string][]time.Time{}
		}
		maps.DeleteFunc(r.Silences, func(_ string, times []time.Time) bool { return len(recent(times, now)) == 0 })
		if _, known := r.Silences[address]; known || len(r.Silences) < maxCandidates {
			r.Silences[address] = append(recent(r.Silences[address], now), now)
		}
	})
}

// forgetSilences writes only if there is something to forget.
func (s *store) forgetSilences(id, address string) error {
	if times, err := s.silences(id, address); err != nil || times == nil {
		return err
	}
	return s.change(id, "store that the Base has answered", func(r *stored) { delete(r.Silences, address) })
}
