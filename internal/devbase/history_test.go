package devbase_test

import (
	"os"
	"path/filepath"
	"testing"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/api/base/v1/baserpc"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/rpc"
)

// A history that cannot be used is reported, not changed, and keeps nobody out.
func TestADamagedHistoryKeepsNoOwnerOut(t *testing.T) {
	b := startBase(t, nil)
	a := b.pairActive("phone", basev1.Role_ROLE_UNSPECIFIED)
	events := func(request *basev1.WatchEventsRequest) (*basev1.Event, error) {
		t.Helper()
		client := a.client()
		t.Cleanup(client.close)
		stream, err := baserpc.NewEventsServiceClient(client).WatchEvents(t.Context(), request)
		if err != nil {
			t.Fatal(err)
		}
		defer stream.Close()
		return stream.Receive()
	}
	replay := &basev1.WatchEventsRequest{Replay: true, PastOnly: true}
	if first, err := events(replay); err != nil || first.GetSequence() != 1 || !first.GetPast() {
		t.Fatalf("%v, %v", first, err)
	}
	path := filepath.Join(b.config.StateDir, "events.db")
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for what, damage := range map[string]func() error{
		"damaged": func() error {
			for i := range whole {
				whole[i] ^= 1
			}
			return os.WriteFile(path, whole, 0o600)
		},
		"gone": func() error { return os.Remove(path) },
	} {
		b.stop()
		if err := damage(); err != nil {
			t.Fatal(err)
		}
		b.config.Listen = b.Addr().String()
		b.start()
		if _, err := a.info(t.Context()); err != nil {
			t.Errorf("%s: an owner is kept out: %v", what, err)
		}
		if _, err := events(replay); rpc.CodeOf(err) != rpc.Precondition {
			t.Errorf("%s: replay: %v", what, err)
		}
		if first, err := events(&basev1.WatchEventsRequest{}); err != nil || first.GetSubscribed() == nil {
			t.Errorf("%s: live: %v, %v", what, first, err)
		}
		if len(b.log.lines("the history of events cannot be used")) == 0 {
			t.Errorf("%s: the log says nothing of it", what)
		}
		if now, err := os.ReadFile(path); what == "gone" && err == nil || what == "damaged" && string(now) != string(whole) {
			t.Errorf("%s: the file was replaced", what)
		}
		// There must be one to damage in the next round.
		if err := os.WriteFile(path, whole, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}
