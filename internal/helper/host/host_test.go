package host

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/BitBoxSwiss/bitbox-base/internal/bounded"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/bruteforce"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/generation"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/posture"
)

func TestListeningPortsAreRead(t *testing.T) {
	const text = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000:228D 00000000:0000 0A 00000000:00000000 00:00000000 00000000    33        0 1 1 0000000000000000 100 0 0 10 0
   1: 0100007F:C352 0100007F:D431 01 00000000:00000000 00:00000000 00000000    33        0 2 1 0000000000000000 20 4 0 10 -1
`
	ports := map[uint16][]int{}
	if err := parseListening(text, ports); err != nil || len(ports) != 1 || !slices.Equal(ports[8845], []int{33}) {
		t.Errorf("ports %v, %v", ports, err)
	}
	for _, nonsense := range []string{"0: 00000000:XYZ 0 0A 0 0 0 33", "0: 00000000:228D 0 0A 0 0 0 root"} {
		if err := parseListening(nonsense, ports); err == nil {
			t.Errorf("%q was read", nonsense)
		}
	}
}

// The attack: a stranger with many networks has all of them banned, until the list of bans is
// longer than the helper reads of any program. The latest bans are shown, and all are counted.
func TestAnOverlongListOfBansIsShownInPart(t *testing.T) {
	const many = 30_000
	// The longest form of an address, and of the length of a ban.
	address := func(n int) string {
		return fmt.Sprintf("2001:db8:1111:2222:3333:4444:%04x:%04x", 0x1000+n>>12, 0x1000+n&0xfff)
	}
	var list strings.Builder
	for n := range many {
		fmt.Fprintf(&list, "%s \t2026-11-22 20:39:34 + 604800 = 2026-11-29 20:39:34\n", address(n))
	}
	status := fmt.Sprintf("Status for the jail: x\n|- Filter\n|  |- Currently failed:\t1\n|  `- Total failed:\t7\n`- Actions\n   |- Currently banned:\t%[1]d\n   |- Total banned:\t%[1]d\n   `- Banned IP list:\t%[2]s\n",
		many, strings.Repeat("2001:db8:ffff:ffff:: ", 3*many))
	m := Host{make(chan struct{}, 1), func(_ context.Context, argv ...string) (string, error) {
		text := status
		if slices.Contains(argv, "banip") {
			text = list.String()
		}
		out := &bounded.Buffer{Most: maxOutput, Last: maxEnd}
		if _, err := out.Write([]byte(text)); err != nil || !out.Full() {
			t.Fatalf("%q prints only %d bytes; this attack proves nothing (%v)", argv, len(text), err)
		}
		return out.String(), fmt.Errorf("run it: %w", tooMuch{string(out.End())})
	}}
	bans, err := m.Bans(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if jails := len(bruteforce.Jails); len(bans.List) != jails*bruteforce.MaxBans || bans.Current != jails*many || bans.Total != jails*many {
		t.Errorf("%d are listed of %d, %d in all", len(bans.List), bans.Current, bans.Total)
	}
	for i, ban := range bans.List {
		if want := address(many - bruteforce.MaxBans + i%bruteforce.MaxBans); ban.Addr.String() != want {
			t.Fatalf("ban %d of the list is that of %s, not of %s", i, ban.Addr, want)
		}
	}
}

func TestTheEndOfAnOverlongOutputIsKept(t *testing.T) {
	const last = 300_000
	output, err := Exec(t.Context(), "/usr/bin/seq", fmt.Sprint(last))
	var long tooMuch
	if !errors.As(err, &long) {
		t.Fatalf("of %d bytes it says %v", len(output), err)
	}
	if len(output) != maxOutput || len(long.end) != maxEnd || !strings.HasSuffix(long.end, fmt.Sprintf("\n%d\n", last)) {
		t.Errorf("it keeps %d and %d bytes, the end is %q", len(output), len(long.end), long.end[max(0, len(long.end)-20):])
	}
}

// A port is in force when its own user listens there, and no other.
func TestAnotherUsersPortIsNotInForce(t *testing.T) {
	const proxy, stranger = 33, 1000
	owners := map[uint16][]int{8845: {proxy}, 50002: {proxy}, 22: nil}
	for name, c := range map[string]struct {
		listening map[uint16][]int
		want      []string
	}{
		"all well":         {map[uint16][]int{8845: {proxy}, 50002: {proxy}}, nil},
		"squatted":         {map[uint16][]int{8845: {proxy}, 50002: {stranger}}, []string{"user 1000 listens on TCP port 50002"}},
		"shared":           {map[uint16][]int{8845: {proxy, stranger}, 50002: {proxy}}, []string{"user 1000 listens on TCP port 8845"}},
		"closed, squatted": {map[uint16][]int{8845: {proxy}, 50002: {proxy}, 22: {stranger}}, []string{"user 1000 listens on TCP port 22"}},
		"silent":           {map[uint16][]int{8845: {proxy}}, []string{"nothing listens on TCP port 50002"}},
	} {
		if got := compareListening(c.listening, owners); !slices.Equal(got, c.want) {
			t.Errorf("%s: %q", name, got)
		}
	}
}

// Behind an extra API, only root or a service named by the builder may listen; any other process
// there would receive the service's traffic.
func TestAnotherUserBehindAnExtraAPIIsNoticed(t *testing.T) {
	e := posture.Effective{Endpoints: []posture.Endpoint{
		{Kind: posture.KindEntry, Port: posture.EntryPort}, {Kind: posture.KindElectrum, Port: posture.Extras[0].Port},
	}}
	machine := generation.Machine{Electrum: netip.MustParseAddrPort("127.0.0.1:50001")}
	for name, c := range map[string]struct {
		listening map[uint16][]int
		want      int
	}{
		"nobody yet": {nil, 0},
		"root":       {map[uint16][]int{50001: {0}}, 0},
		"a stranger": {map[uint16][]int{50001: {1000}}, 1},
		"both":       {map[uint16][]int{50001: {0, 1000}}, 1},
		"elsewhere":  {map[uint16][]int{50003: {1000}}, 0},
	} {
		got, err := Host{}.upstreamDifferences(t.Context(), e, machine, c.listening)
		if err != nil || len(got) != c.want {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}
