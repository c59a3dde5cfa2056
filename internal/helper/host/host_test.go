package host

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

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

// The attack: a stranger with many networks has all of them banned, until the lists of fail2ban are
// longer than the helper keeps of any program. And meanwhile an owner shortens the ban time, so
// that the newest bans are the first to end. The newest are shown, and all are counted.
func TestAnOverlongListOfBansIsShownInPart(t *testing.T) {
	const many, long = 30_000, 29_000
	// The longest form of an address, and of the length of a ban.
	address := func(n int) string {
		return fmt.Sprintf("2001:db8:1111:2222:3333:4444:%04x:%04x", 0x1000+n>>12, 0x1000+n&0xfff)
	}
	line := func(n int) []byte {
		begin, ends := time.Date(2026, 11, 22, 0, 0, n, 0, time.UTC), 604_800
		if n >= long {
			ends = 60
		}
		return fmt.Appendf(nil, "%s \t%s + %d = %s", address(n), begin.Format(time.DateTime), ends,
			begin.Add(time.Duration(ends)*time.Second).Format(time.DateTime))
	}
	status := fmt.Sprintf("Status for the jail: x\n|- Filter\n|  |- Currently failed:\t1\n|  `- Total failed:\t7\n`- Actions\n   |- Currently banned:\t%[1]d\n   |- Total banned:\t%[1]d\n   `- Banned IP list:\t%[2]s\n",
		many, strings.Repeat("2001:db8:ffff:ffff:: ", 3*many))
	m := New(1)
	m.exec = func(context.Context, ...string) (string, error) {
		out := &bounded.Buffer{Most: maxOutput}
		if _, err := out.Write([]byte(status)); err != nil || !out.Full() {
			t.Fatalf("it prints only %d bytes; this attack proves nothing (%v)", len(status), err)
		}
		return out.String(), fmt.Errorf("run it: %w", errTooMuch)
	}
	m.lines = func(_ context.Context, receive func([]byte, bool) error, _ ...string) error {
		for n := range many {
			// In the order in which they end.
			if err := receive(line((n+long)%many), true); err != nil {
				return err
			}
		}
		return nil
	}
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
	failure := errors.New("it burns")
	m.lines = func(_ context.Context, receive func([]byte, bool) error, _ ...string) error {
		return errors.Join(receive(line(0), false), failure)
	}
	if bans, err := m.Bans(t.Context()); !errors.Is(err, failure) {
		t.Errorf("of a program that fails half-way: %v, %v", bans, err)
	}
}

func TestTheBeginningOfAnOverlongOutputIsKept(t *testing.T) {
	if output, err := Exec(t.Context(), "/usr/bin/seq", "300000"); !errors.Is(err, errTooMuch) || len(output) != maxOutput {
		t.Errorf("of %d bytes it says %v", len(output), err)
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
