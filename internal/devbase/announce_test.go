package devbase_test

import (
	"context"
	"net"
	"testing"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/devbase"
	"github.com/BitBoxSwiss/bitbox-base/internal/discovery"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/noiseconn"
	"github.com/BitBoxSwiss/bitbox-base/internal/testbed/netnstest"
)

// awaitFound browses until the Base is announced as wanted.
func awaitFound(t *testing.T, what string, wanted func(discovery.Found) bool) discovery.Found {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), testTime)
	defer cancel()
	found, err := discovery.Browse(ctx, discovery.BrowseOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for f := range found {
		if wanted(f) {
			return f
		}
	}
	t.Fatalf("never announced: %s", what)
	return discovery.Found{}
}

func TestTheAnnouncementTellsThePairingStateAndIsLinkableOnlyByItsApps(t *testing.T) {
	netnstest.Require(t)
	b := startBase(t, func(config *devbase.Config) {
		relaxed(config)
		config.Listen, config.Name = ":0", "kitchen"
		config.Announce = true
		config.Interfaces = func(i net.Interface) bool { return i.Name == netnstest.Interface }
	})
	first := awaitFound(t, "a new Base, open", func(f discovery.Found) bool { return f.Instance == "kitchen" && f.PairingOpen })
	if port := b.Addr().(*net.TCPAddr).Port; first.Addrs[0].Port() != uint16(port) {
		t.Errorf("the announced port is %d, not %d", first.Addrs[0].Port(), port)
	}
	a := b.pairActive("phone", basev1.Role_ROLE_OWNER)
	if noiseconn.DiscoveryID(a.discovery, first.Nonce[:]) != first.ID {
		t.Error("the App does not recognise its Base")
	}
	closed := awaitFound(t, "a paired Base, closed", func(f discovery.Found) bool { return f.Instance == "kitchen" && !f.PairingOpen })
	if closed.Nonce != first.Nonce {
		t.Error("the nonce changed without a restart")
	}
	if err := b.Console().OpenWindow(t.Context()); err != nil {
		t.Fatal(err)
	}
	awaitFound(t, "a window", func(f discovery.Found) bool { return f.Instance == "kitchen" && f.PairingOpen })
	b.restart()
	again := awaitFound(t, "a restarted Base", func(f discovery.Found) bool { return f.Instance == "kitchen" && f.Nonce != first.Nonce })
	if noiseconn.DiscoveryID(a.discovery, again.Nonce[:]) != again.ID {
		t.Error("after a restart the App does not recognise its Base")
	}
	if again.ID == first.ID {
		t.Error("the announcement links the Base to its former one")
	}
}
