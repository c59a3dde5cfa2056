package middleware

import (
	"testing"

	"github.com/BitBoxSwiss/bitbox-base/internal/state"
)

func TestWhereAnAppCameFromIsToldAndKept(t *testing.T) {
	h := newHouse(t, nil)
	a := h.active("a", viewer)
	h.restart()
	session := must(h.Begin(t.Context(), h.active("b", owner).peer, from, func() {})).(*Session)
	for _, app := range h.Apps(session) {
		if app.GetLastAddress() != from.String() || app.GetLastSeenAt() == nil {
			t.Errorf("%s came from %q at %v", app.GetName(), app.GetLastAddress(), app.GetLastSeenAt())
		}
	}
	h.mu.Lock()
	gone := h.deleteLocked(h.pairings[a.peer])
	h.mu.Unlock()
	if gone != nil {
		t.Fatal(gone)
	}
	h.restart()
	err := h.db.View(func(tx *state.Tx) error {
		if kept := tx.Get(bucketAddresses, string(a.peer[:])); kept != nil {
			t.Errorf("of an App that is gone %q is kept", kept)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
