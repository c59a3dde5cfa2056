package wallets

import (
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"testing"
	"time"

	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/generation"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/posture"
)

// kernel is what a kernel says.
type kernel struct {
	connections []Connection
	listens     []generation.Upstream
}

func (k *kernel) Connections(uint16) ([]Connection, error) { return k.connections, nil }
func (k *kernel) Listens(upstream generation.Upstream) (bool, error) {
	return slices.Contains(k.listens, upstream), nil
}

func connection(cookie uint64, peer string) Connection {
	return Connection{cookie, netip.MustParseAddrPort(peer)}
}

func TestWalletsAreShownByAddressAndSinceWhen(t *testing.T) {
	noon := time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)
	now := noon
	open := posture.Effective{Endpoints: []posture.Endpoint{{Kind: posture.KindEntry, Port: posture.EntryPort},
		{Kind: posture.KindElectrum, Port: 50002, UntilClosed: true}}}
	effective := open
	k := &kernel{}
	w := New(k, func() posture.Effective { return effective }, func() time.Time { return now }, slog.New(slog.DiscardHandler))
	shows := func(want ...string) {
		t.Helper()
		reply, err := w.Get(t.Context(), nil, &systemv1.GetWallets{Kind: "electrum"})
		if err != nil {
			t.Fatal(err)
		}
		got := []string{fmt.Sprintf("answers %v, told %v", reply.GetWallets().GetAnswers(), reply.GetWallets().GetTold())}
		for _, one := range reply.GetWallets().GetWallets() {
			got = append(got, one.GetAddress()+" "+one.GetSince().AsTime().Format(time.TimeOnly))
		}
		if !slices.Equal(got, want) {
			t.Errorf("%q, not %q", got, want)
		}
	}
	shows("answers false, told true")
	upstream, _ := generation.UpstreamOf(posture.KindElectrum, generation.ThisMachine())
	k.listens = []generation.Upstream{upstream}
	k.connections = []Connection{connection(7, "192.168.1.20:40000"), connection(3, "192.168.1.9:40000")}
	shows("answers true, told true", "192.168.1.20 12:00:00", "192.168.1.9 12:00:00")
	now = noon.Add(time.Minute)
	k.connections = []Connection{connection(9, "[fd00::7]:40000"), connection(7, "192.168.1.20:40000")}
	shows("answers true, told true", "192.168.1.20 12:00:00", "fd00::7 12:01:00")
	// The same address and port again is another connection.
	now = noon.Add(2 * time.Minute)
	k.connections = []Connection{connection(11, "192.168.1.20:40000")}
	shows("answers true, told true", "192.168.1.20 12:02:00")

	effective = posture.Effective{Endpoints: []posture.Endpoint{open.Endpoints[0],
		{Kind: posture.KindElectrum, Port: posture.EntryPort, Shared: true}}}
	shows("answers true, told false")
	effective = open
	now = noon.Add(3 * time.Minute)
	shows("answers true, told true", "192.168.1.20 12:03:00")
}

func TestAFloodOfConnectionsIsShownInPart(t *testing.T) {
	k := &kernel{}
	for n := range uint64(mostShown + 10) {
		k.connections = append(k.connections, connection(n, "192.168.1.20:40000"))
	}
	w := New(k, func() posture.Effective {
		return posture.Effective{Endpoints: []posture.Endpoint{{Kind: posture.KindElectrum, Port: 50002}}}
	}, time.Now, slog.New(slog.DiscardHandler))
	reply, err := w.Get(t.Context(), nil, &systemv1.GetWallets{Kind: "electrum"})
	if err != nil || len(reply.GetWallets().GetWallets()) != mostShown || reply.GetWallets().GetMore() != 10 {
		t.Errorf("%d are shown, %d more, %v", len(reply.GetWallets().GetWallets()), reply.GetWallets().GetMore(), err)
	}
	if _, err := w.Get(t.Context(), nil, &systemv1.GetWallets{Kind: "ssh"}); err == nil {
		t.Error("wallets of SSH are shown")
	}
}
