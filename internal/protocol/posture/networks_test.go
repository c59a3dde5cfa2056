package posture

import (
	"net/netip"
	"slices"
	"testing"
)

// everySet lists each set of the eight addresses of a /29, but the empty one, with its networks.
func everySet() map[uint]Networks {
	sets := map[uint]Networks{}
	first := netip.MustParseAddr("192.168.1.8").As4()
	for set := uint(1); set < 256; set++ {
		var single []netip.Prefix
		for i := range byte(8) {
			if set>>i&1 == 1 {
				address := first
				address[3] += i
				single = append(single, netip.PrefixFrom(netip.AddrFrom4(address), 32))
			}
		}
		slices.Reverse(single)
		sets[set] = Minimal(single)
	}
	return sets
}

// relations are what the order asks of two sets of networks.
type relations struct {
	within func(a, b Networks) bool
	meet   func(a, b Networks) (Networks, bool)
}

// disagree compares relations with what sets of addresses say, and returns the first pair that differs.
func disagree(r relations) (string, bool) {
	sets := everySet()
	for a, one := range sets {
		for b, other := range sets {
			if r.within(one, other) != (a&^b == 0) {
				return "within: " + one.words() + ", " + other.words(), true
			}
			both, any := r.meet(one, other)
			if any != (a&b != 0) || any && !slices.Equal(both, sets[a&b]) {
				return "meet: " + one.words() + ", " + other.words(), true
			}
		}
	}
	return "", false
}

func TestNetworksAreComparedAsSetsOfAddressesExhaustively(t *testing.T) {
	if pair, differ := disagree(relations{Networks.Within, Networks.meet}); differ {
		t.Error(pair)
	}
	for set, n := range everySet() {
		if err := n.check(); err != nil && len(n) <= MaxNetworks {
			t.Errorf("%08b: %v", set, err)
		}
	}
	for name, broken := range map[string]relations{
		"compares texts": {slices.Equal[Networks], Networks.meet},
		"takes a part for the whole": {func(a, b Networks) bool {
			return slices.ContainsFunc(a, func(n netip.Prefix) bool { return Networks{n}.Within(b) })
		}, Networks.meet},
		"falls back to one of the two": {Networks.Within, func(a, b Networks) (Networks, bool) { return a, true }},
	} {
		if _, differ := disagree(broken); !differ {
			t.Errorf("an order that %s is not found out", name)
		}
	}
}

// Empty means every network, so nothing may become empty that was not.
func TestNoNetworksMeansEveryNetwork(t *testing.T) {
	home := networks("10.0.0.0/8")
	if !home.Within(nil) || Networks(nil).Within(home) || !Networks(nil).Within(nil) {
		t.Error("every network is no more than some")
	}
	if both, open := home.meet(nil); !open || !slices.Equal(both, home) {
		t.Errorf("of some and every: %v, %v", both, open)
	}
	if both, open := home.meet(networks("192.168.0.0/16")); open {
		t.Errorf("of two that share nothing: %v", both)
	}
	a := Effective{Endpoints: []Endpoint{entryOnly[0], forGood("10.0.0.0/8")}}
	b := Effective{Endpoints: []Endpoint{entryOnly[0], forGood("192.168.0.0/16")}}
	if meet := Meet(a, b); len(meet.Endpoints) != 1 {
		t.Errorf("the meet of two that share no network: %+v", meet.Endpoints)
	}
}

func TestANetworkIsReadAndASentenceSaysWhatIsWrong(t *testing.T) {
	for text, want := range map[string]string{
		"192.168.1.0/24": "192.168.1.0/24", "192.168.1.7": "192.168.1.7/32", "FD00::1": "fd00::1/128", "fe80::/10": "fe80::/10",
		"100.64.0.0/10": "100.64.0.0/10", "2001:db8::/32": "2001:db8::/32",
	} {
		if network, err := ParseNetwork(text); err != nil || network.String() != want {
			t.Errorf("%q: %v, %v", text, network, err)
		}
	}
	for text, want := range map[string]string{
		"192.168.1.7/24":  "192.168.1.7/24 is an address within a network; write 192.168.1.0/24 for the network, or 192.168.1.7/32 for this computer alone",
		"home":            `"home" is not a network; write one such as 192.168.1.0/24 or fd00::/64`,
		"fe80::1%eth0":    `"fe80::1%eth0" is not a network; write one such as 192.168.1.0/24 or fd00::/64`,
		"0.0.0.0/0":       "0.0.0.0/0 is everybody; give no network instead",
		"::ffff:10.0.0.1": "::ffff:10.0.0.1/128 is IPv4 in the form of IPv6; write the IPv4 network",
	} {
		if _, err := ParseNetwork(text); err == nil || err.Error() != want {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestPublicNetworksAreThoseWithStrangers(t *testing.T) {
	all := networks("10.0.0.0/8", "100.64.0.0/10", "172.16.0.0/11", "192.168.0.0/16", "203.0.113.0/24",
		"2001:db8::/64", "fc00::/7", "fe80::/64")
	if got, want := all.Public(), networks("100.64.0.0/10", "172.16.0.0/11", "203.0.113.0/24", "2001:db8::/64"); !slices.Equal(got, want) {
		t.Errorf("%v, not %v", got, want)
	}
	if len(Networks(nil).Public()) > 0 {
		t.Error("every network is named as one")
	}
}

// A socket of IPv6 may show the sender of IPv4 as ::ffff:192.168.1.7.
func TestAMappedAddressCountsAsTheIPv4AddressThatItIs(t *testing.T) {
	home := networks("192.168.1.0/24", "fe80::/10")
	for address, want := range map[string]bool{
		"192.168.1.7": true, "::ffff:192.168.1.7": true, "192.168.2.7": false, "::ffff:192.168.2.7": false, "fe80::1%eth0": true,
		"fd00::c0a8:107": false, "::192.168.1.7": false,
	} {
		if home.Contains(netip.MustParseAddr(address)) != want {
			t.Errorf("%s: %v", address, !want)
		}
	}
	if !Networks(nil).Contains(netip.MustParseAddr("203.0.113.7")) {
		t.Error("every network does not contain an address")
	}
}
