package posture

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
)

// Networks are those that reach something; empty: every network. check accepts only the one form
// that a set of addresses has (Minimal), so sets are compared network by network.
type Networks []netip.Prefix

// MaxNetworks is plenty for a home, and keeps a document and the packet filter small.
const MaxNetworks = 8

// homes are the networks that nobody reaches from the internet: RFC 1918, 3927, 4193, 4291.
var homes = Networks{
	netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("172.16.0.0/12"), netip.MustParsePrefix("192.168.0.0/16"),
	netip.MustParsePrefix("169.254.0.0/16"), netip.MustParsePrefix("fc00::/7"), netip.MustParsePrefix("fe80::/10"),
}

// senders are the addresses of other computers: not this host, loopback, multicast or reserved
// ones. Those of IPv6 leave out IPv4 in IPv6, which the kernel shows as IPv4.
var senders = Networks{
	netip.MustParsePrefix("0.0.0.0/1"), netip.MustParsePrefix("128.0.0.0/2"), netip.MustParsePrefix("192.0.0.0/3"),
	netip.MustParsePrefix("2000::/3"), netip.MustParsePrefix("fc00::/7"), netip.MustParsePrefix("fe80::/10"),
}

// ParseNetwork reads a network such as "192.168.1.0/24" or "fd00::/64", or one address. The error
// says what is wrong with it and what to write.
func ParseNetwork(text string) (netip.Prefix, error) {
	network, err := netip.ParsePrefix(text)
	if address, single := netip.ParseAddr(text); single == nil && address.Zone() == "" {
		network, err = netip.PrefixFrom(address, address.BitLen()), nil
	}
	if err != nil {
		return netip.Prefix{}, reason.Errorf("%q is not a network; write one such as 192.168.1.0/24 or fd00::/64", text)
	}
	return network, checkNetwork(network)
}

// checkNetwork refuses what is no network of other computers.
func checkNetwork(network netip.Prefix) error {
	addr := network.Addr()
	switch {
	case !network.IsValid():
		return reason.New("a network is missing")
	case addr.Is4In6():
		return reason.Errorf("%s is IPv4 in the form of IPv6; write the IPv4 network", network)
	case network.Masked() != network:
		return reason.Errorf("%s is an address within a network; write %s for the network, or %s for this computer alone", network,
			network.Masked(), netip.PrefixFrom(addr, addr.BitLen()))
	case network.Bits() == 0:
		return reason.Errorf("%s is everybody; give no network instead", network)
	case addr.IsLoopback() || !(Networks{network}).Within(senders):
		return reason.Errorf("%s has no computers that could connect", network)
	}
	return nil
}

// Minimal returns the one form of a set of networks: sorted, each of them once, and in place of two
// halves the whole. The result of networks that are all in order passes validation if it is not
// too long.
func Minimal(networks []netip.Prefix) Networks {
	set := Networks(slices.Clone(networks))
	slices.SortFunc(set, compareNetworks)
	var minimal Networks
	for _, network := range set {
		if n := len(minimal); n > 0 && covers(minimal[n-1], network) {
			continue
		}
		minimal = append(minimal, network)
		for n := len(minimal); n > 1 && areHalves(minimal[n-2], minimal[n-1]); n = len(minimal) {
			minimal = append(minimal[:n-2], netip.PrefixFrom(minimal[n-2].Addr(), minimal[n-2].Bits()-1))
		}
	}
	return minimal
}

// compareNetworks sorts by address, and puts the larger of two first.
func compareNetworks(a, b netip.Prefix) int {
	return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
}

// covers tells whether each address of b is one of a.
func covers(a, b netip.Prefix) bool { return a.Bits() <= b.Bits() && a.Contains(b.Addr()) }

// areHalves tells whether a and b, in this order, are the halves of one network.
func areHalves(a, b netip.Prefix) bool {
	if a.Bits() != b.Bits() || a.Bits() == 0 || a.Addr().BitLen() != b.Addr().BitLen() {
		return false
	}
	whole := netip.PrefixFrom(a.Addr(), a.Bits()-1)
	return whole.Masked() == whole && whole.Contains(b.Addr()) && a != b
}

// check returns what is wrong with the networks of a document.
func (n Networks) check() error {
	if len(n) > MaxNetworks {
		return reason.Errorf("has %d networks; at most %d are possible", len(n), MaxNetworks)
	}
	for _, network := range n {
		if err := checkNetwork(network); err != nil {
			return err
		}
	}
	if minimal := Minimal(n); !slices.Equal(n, minimal) {
		return reason.Errorf("is not written in the one way that is accepted: %s", minimal.words())
	}
	return nil
}

// Public returns the networks that have addresses of strangers: not within a private network or a
// link. Empty means every network, so there is nothing to name.
func (n Networks) Public() Networks {
	return slices.DeleteFunc(slices.Clone(n), func(network netip.Prefix) bool { return Networks{network}.Within(homes) })
}

// Contains tells whether an address reaches it.
func (n Networks) Contains(address netip.Addr) bool {
	address = address.Unmap().WithZone("")
	return len(n) == 0 || slices.ContainsFunc(n, func(network netip.Prefix) bool { return network.Contains(address) })
}

// Within tells whether every address of n is one of other. In the minimal form no network is
// made of several others.
func (n Networks) Within(other Networks) bool {
	if len(other) == 0 {
		return true
	}
	for _, network := range n {
		if !slices.ContainsFunc(other, func(o netip.Prefix) bool { return covers(o, network) }) {
			return false
		}
	}
	return len(n) > 0
}

// meet returns the addresses of both; false if there are none.
func (n Networks) meet(other Networks) (Networks, bool) {
	switch {
	case len(n) == 0:
		return other, true
	case len(other) == 0:
		return n, true
	}
	var both Networks
	for _, a := range n {
		for _, b := range other {
			if covers(a, b) {
				both = append(both, b)
			} else if covers(b, a) {
				both = append(both, a)
			}
		}
	}
	return Minimal(both), len(both) > 0
}

// Strings returns the networks as a document has them.
func (n Networks) Strings() []string {
	var texts []string
	for _, network := range n {
		texts = append(texts, network.String())
	}
	return texts
}

// words is "192.168.1.0/24 and fd00::/64", or "every network".
func (n Networks) words() string {
	texts := n.Strings()
	switch len(texts) {
	case 0:
		return "every network"
	case 1:
		return texts[0]
	}
	return strings.Join(texts[:len(texts)-1], ", ") + " and " + texts[len(texts)-1]
}

// networks reads those of a document, each in the one way that is accepted.
func (v *validation) networks(field string, texts []string) Networks {
	v.count(field, len(texts), MaxNetworks)
	var list Networks
	for i, text := range texts {
		network, err := netip.ParsePrefix(text)
		switch {
		case err != nil:
			v.add(fmt.Sprintf("%s[%d]", field, i), "is not a network", "one such as 192.168.1.0/24 or fd00::/64")
		case network.String() != text:
			v.add(fmt.Sprintf("%s[%d]", field, i), "is not written in the one way that is accepted", network.String())
		}
		list = append(list, network)
	}
	return list
}
