package node

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	nodev1 "github.com/BitBoxSwiss/bitbox-base/api/node/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/backlog"
	"github.com/BitBoxSwiss/bitbox-base/internal/ipc"
	"github.com/BitBoxSwiss/bitbox-base/internal/nodeclient"
)

// Events that come while nobody follows are sent to a follower that says how far it has read. At its end
// bitbox-node sends what still waits, and then that nothing else comes; what it notices later is no event.
func TestAFollowerThatComesBackGetsTheEventsThatItHasMissed(t *testing.T) {
	directory, err := os.MkdirTemp("", "node") // a short path for the socket
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(directory)
	path := filepath.Join(directory, "socket")
	listener, err := ipc.Listen(path, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	w := NewWatcher(Config{Without: &basev1.Node{}})
	server := Server{Watcher: w, Users: []uint32{uint32(os.Geteuid())}, Logger: slog.New(slog.DiscardHandler)}
	serving, stop := context.WithCancel(context.Background())
	defer stop()
	var running sync.WaitGroup
	running.Go(func() { _ = server.Serve(serving, listener) })
	defer running.Wait()
	defer stop()

	height := uint64(0)
	publish := func(n int) {
		var events []*basev1.Event
		for range n {
			height++
			events = append(events, &basev1.Event{Event: &basev1.Event_NodeBehind{NodeBehind: &basev1.NodeBehindEvent{Height: height}}})
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		w.tellLocked(nil, events)
	}
	client, enough := nodeclient.Dial(path), errors.New("enough")
	// read reads events from the one after a place to the one of a height; in between it does something.
	read := func(after backlog.Place, upTo uint64, during func()) (last backlog.Place, missed uint64) {
		t.Helper()
		first := true
		err := client.WatchEvents(t.Context(), after, func(e *nodev1.NodeEvent) error {
			if first {
				first = false
				last, missed = backlog.Place{Run: e.GetRun(), Number: e.GetNumber()}, e.GetMissed()
				during()
			} else {
				last.Number++
				if e.GetNumber() != last.Number || e.GetEvent().GetNodeBehind().GetHeight() != last.Number || e.GetRun() != last.Run {
					t.Errorf("after %d came %v", last.Number-1, e)
				}
			}
			if last.Number >= upTo {
				return enough
			}
			return nil
		})
		if !errors.Is(err, enough) {
			t.Fatal(err)
		}
		return last, missed
	}
	publish(1) // nobody has asked yet
	seen, missed := read(backlog.Place{}, 4, func() { publish(3) })
	if missed != 0 {
		t.Errorf("%d are missing for a follower that has read nothing", missed)
	}
	publish(5)
	if seen, missed = read(seen, 10, func() { publish(1) }); missed != 0 {
		t.Errorf("%d are missing", missed)
	}
	publish(backlog.MaxEvents + 7)
	if seen, missed = read(seen, 10+backlog.MaxEvents+7, func() {}); missed != 7 {
		t.Errorf("%d are missing", missed)
	}

	var messages []*nodev1.NodeEvent
	err = client.WatchEvents(t.Context(), seen, func(e *nodev1.NodeEvent) error {
		if messages = append(messages, e); len(messages) == 1 {
			publish(20)
			stop()
		}
		return nil
	})
	if len(messages) != 22 || messages[21].GetEvent() != nil || !messages[21].GetEnded() ||
		messages[21].GetNumber() != seen.Number+20 || messages[21].GetRun() != seen.Run {
		t.Errorf("at the end %d messages came, %v", len(messages), err)
	}
	running.Wait()
	publish(1)
	if last := w.events.Last(); last.Number != seen.Number+20 {
		t.Errorf("after its end it has numbered an event: %d", last.Number)
	}
	if _, _, err := w.FollowEvents(seen); err == nil {
		t.Error("after its end it can be followed")
	}
}
