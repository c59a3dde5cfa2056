package client

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
)

func TestFamiliesOfAddressesTakeTurns(t *testing.T) {
	parse := func(list ...string) (all []netip.AddrPort) {
		for _, a := range list {
			all = append(all, netip.MustParseAddrPort(a))
		}
		return all
	}
	for _, c := range []struct{ heard, want []netip.AddrPort }{
		{nil, []netip.AddrPort{}},
		{parse("[2001:db8::1]:1", "[2001:db8::2]:1", "[fe80::1%lan0]:1", "10.0.0.1:1", "10.0.0.2:1", "10.0.0.3:1"),
			parse("[2001:db8::1]:1", "10.0.0.1:1", "[2001:db8::2]:1", "10.0.0.2:1", "10.0.0.3:1", "[fe80::1%lan0]:1")},
		{parse("[fe80::1%lan0]:1", "169.254.0.1:1", "[fd00::1]:1"), parse("169.254.0.1:1", "[fd00::1]:1", "[fe80::1%lan0]:1")},
	} {
		if got := interleave(c.heard); !slices.Equal(got, c.want) {
			t.Errorf("%v: %v, want %v", c.heard, got, c.want)
		}
	}
}

func TestALinkLocalAddressWithoutAnInterfaceIsExplained(t *testing.T) {
	for _, address := range []string{"fe80::1", "[fe80::1]", "[fe80::1]:8845"} {
		if _, err := withPort(address); err == nil ||
			!strings.Contains(Explain(err), "append the name of this machine's interface there: fe80::1%") {
			t.Errorf("%s: %v", address, err)
		}
	}
	for _, address := range []string{"fe80::1%eth0", "[fe80::1%eth0]:8845"} {
		if got, err := withPort(address); err != nil || got != "[fe80::1%eth0]:8845" {
			t.Errorf("%s: %s, %v", address, got, err)
		}
	}
	// Addresses that status prints can be given to pair.
	own := map[string][]netip.Prefix{"wlan0": {netip.MustParsePrefix("192.168.1.7/24")}, "tun0": {netip.MustParsePrefix("10.8.0.2/24")}}
	for want, told := range map[string][]string{
		"fe80::1%wlan0":     {"192.168.1.20", "fe80::1"},
		"fe80::1%INTERFACE": {"172.16.0.20", "fe80::1"},
		"2001:db8::1":       {"192.168.1.20", "2001:db8::1"},
	} {
		if got := zoned(told, own); got[0] != told[0] || got[1] != want {
			t.Errorf("%v: %v, want %s", told, got, want)
		}
	}
}
