package client

import (
	"context"
	"errors"
	"iter"
	"time"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
)

// Watch says which events WatchEvents yields.
type Watch struct {
	// Replay: the kept past comes first, all events with a larger sequence than After. Without
	// Replay only new events come.
	Replay bool
	After  uint64
	// PastOnly: the stream ends after the past.
	PastOnly bool
	// Lost, if set, is called when the connection was lost, before a new one is made.
	Lost func(error)

	forgetful bool // in tests: it does not say what it has seen
}

// The pauses before a lost stream is opened again: the first, and the longest.
const (
	eventsAgain    = time.Second
	eventsAgainMax = 30 * time.Second
)

// WatchEvents yields a Base's events, first the wanted ones of the past, until ctx ends, which is
// not an error. When the connection is lost, WatchEvents makes a new one and continues after the
// last event: none is lost and none comes twice. Then a further SubscribedEvent tells that the
// stream is live again. When the Base asks for a new connection, the stream moves there silently,
// unless something is missing. An error that trying again cannot cure is yielded, and is the end:
// that this App was revoked, for example, or that the Base was never reached.
func (s *Session) WatchEvents(ctx context.Context, watch Watch) iter.Seq2[*basev1.Event, error] {
	return func(yield func(*basev1.Event, error) bool) {
		w := &watching{Watch: watch, session: s, yield: yield, pause: eventsAgain}
		for {
			err := w.once(ctx)
			switch {
			case w.stopped || ctx.Err() != nil:
				return
			case err == nil:
				return // the end of the past
			case errors.Is(err, errMoved):
				w.moved = true
				continue
			case !w.reached || !passes(err):
				yield(nil, err)
				return
			}
			if w.Lost != nil {
				w.Lost(err)
			}
			select {
			case <-ctx.Done():
				return
			case <-time.After(w.pause):
			}
			w.pause = min(2*w.pause, eventsAgainMax)
		}
	}
}

// passes tells whether trying again may help: the connection was lost or read too slowly, or the
// Base has begun a new history, or this App no longer has any rights, which the next connection
// explains better.
func passes(err error) bool {
	return lost(err) || errors.Is(err, ErrTooMuch) || errors.Is(err, ErrNoRights) || errors.Is(err, errNewHistory)
}

// watching is one use of WatchEvents.
type watching struct {
	Watch
	session *Session
	yield   func(*basev1.Event, error) bool
	pause   time.Duration
	reached bool // the Base has answered
	stopped bool // the reader wants no more
	moved   bool // to another connection, silently
}

// errMoved: another connection has taken the place of the stream's.
var errMoved = errors.New("the connection was replaced")

// untilRetired cancels ctx, with errMoved as the cause, when another session has taken the
// place of a stream's.
func untilRetired(ctx context.Context, cancel context.CancelCauseFunc, retired <-chan struct{}) {
	go func() {
		select {
		case <-retired:
			cancel(errMoved)
		case <-ctx.Done():
		}
	}()
}

// errNewHistory: the Base has no events up to the requested sequence.
var errNewHistory = errors.New("the history of events was started over")

// once reads one stream to its end. nil: everything wanted has come.
func (w *watching) once(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	if w.forgetful {
		w.Replay, w.After = false, 0
	}
	replayed := w.Replay
	stream, err := w.session.Events.WatchEvents(ctx, &basev1.WatchEventsRequest{Replay: w.Replay, After: w.After, PastOnly: w.PastOnly})
	if err != nil {
		return err
	}
	untilRetired(ctx, cancel, stream.Retired())
	subscribed := false
	for event, err := range stream.All() {
		switch {
		case err != nil && context.Cause(ctx) == errMoved:
			return errMoved
		case err != nil:
			return err
		}
		w.reached, w.pause = true, eventsAgain
		if now := event.GetSubscribed(); now != nil {
			subscribed = true
			if w.Replay && now.GetLastSequence() < w.After {
				// The Base has lost its history. Its present events are new to this App.
				w.After = 0
				return errNewHistory
			}
			w.After = max(w.After, now.GetLastSequence())
			// From here on nothing may be missed, if anything is kept.
			w.Replay = w.Replay || now.GetLastSequence() != 0
			whole := w.moved && replayed && !now.GetGap()
			w.moved = false
			if whole {
				continue
			}
		}
		if sequence := event.GetSequence(); sequence != 0 {
			if sequence <= w.After && !event.GetPast() {
				continue
			}
			w.After = sequence
		}
		if !w.yield(event, nil) {
			w.stopped = true
			return nil
		}
	}
	if w.PastOnly && subscribed {
		return nil
	}
	return fail(ErrLost, nil, "the Base has ended the stream of events; watch again")
}

// EventsSeen is the sequence of the last event that this App has shown (SawEvents), 0 if it has
// never shown one.
func (s *Session) EventsSeen() (uint64, error) {
	return s.transport.app.store.eventsSeen(s.transport.id)
}

// SawEvents stores in the App's file which events it has shown. A lower sequence than before
// means that the Base has begun a new history.
func (s *Session) SawEvents(sequence uint64) error {
	return s.transport.app.store.sawEvents(s.transport.id, sequence)
}
