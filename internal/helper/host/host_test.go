package host

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/BitBoxSwiss/bitbox-base/internal/helper/bruteforce"
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

// The attack: whoever has many networks has all of them banned, until the list of bans is
// more than the helper reads of any program. It is shown as far as it goes, and counted whole.
func TestManyBansAreListedAsFarAsTheyGo(t *testing.T) {
	const many = 30_000
	var list strings.Builder
	for n := range many {
		fmt.Fprintf(&list, "2001:db8:%x:%x:: \t2026-11-22 20:39:34 + 3600 = 2026-11-22 21:39:34\n", n>>8, n&0xff)
	}
	status := fmt.Sprintf("Status for the jail: x\n|- Filter\n|  |- Currently failed:\t1\n|  `- Total failed:\t7\n`- Actions\n   |- Currently banned:\t%[1]d\n   |- Total banned:\t%[1]d\n   `- Banned IP list:\t%[2]s\n",
		many, strings.Repeat("2001:db8:ffff:ffff:: ", 3*many))
	m := Host{Run: func(_ context.Context, argv ...string) (string, error) {
		text := status
		if slices.Contains(argv, "banip") {
			text = list.String()
		}
		out := &bounded{}
		if _, err := out.Write([]byte(text)); err != nil || !out.full {
			t.Fatalf("%q prints only %d bytes; this attack proves nothing (%v)", argv, len(text), err)
		}
		return out.String(), fmt.Errorf("run it: %w", errTooMuch)
	}}
	bans, err := m.Bans(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if jails := len(bruteforce.Jails); len(bans.List) != jails*bruteforce.MaxBans || bans.Current != jails*many || bans.Total != jails*many {
		t.Errorf("%d are listed of %d, %d in all", len(bans.List), bans.Current, bans.Total)
	}
}
