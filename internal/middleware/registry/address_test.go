package registry_test

import (
	"testing"

	"github.com/BitBoxSwiss/bitbox-base/internal/middleware/registry"
	"github.com/BitBoxSwiss/bitbox-base/internal/middleware/registry/registrytest"
	"github.com/BitBoxSwiss/bitbox-base/internal/state"
)

func TestTheAddressOfAnAppIsShownAndKept(t *testing.T) {
	h := registrytest.New(t, nil)
	a := h.Active("a", viewer)
	h.Restart()
	session := registrytest.Must(h.Begin(t.Context(), h.Active("b", owner).Peer, registrytest.From, func() {})).(*registry.Session)
	for _, app := range h.Apps(session) {
		if app.GetLastAddress() != registrytest.From.String() || app.GetLastSeenAt() == nil {
			t.Errorf("%s came from %q at %v", app.GetName(), app.GetLastAddress(), app.GetLastSeenAt())
		}
	}
	if err := h.Delete(a.Peer); err != nil {
		t.Fatal(err)
	}
	h.Restart()
	err := h.DB.View(func(tx *state.Tx) error {
		if kept := tx.Get(registry.BucketAddresses, string(a.Peer[:])); kept != nil {
			t.Errorf("of an App that is gone %q is kept", kept)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
