package client

import (
	"cmp"
	"context"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/BitBoxSwiss/bitbox-base/internal/discovery"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/announcement"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/noiseconn"
)

// MaxNearby is how many Bases one Browse or Discover returns at most. If there are more, somebody
// is faking them; then give the address by hand.
const MaxNearby = discovery.MaxFound + discovery.MaxOwn

// Nearby is an announcement on the local network. It is not authenticated: anybody there can
// announce anything, and can repeat what a Base announces. It is only a hint where to connect.
type Nearby struct {
	// Name is untrusted text, checked for control and format characters.
	Name string
	// Addresses are "host:port" each, with numeric hosts.
	Addresses []string
	// ProtocolVersion is that of the wire protocol; this App speaks 1.
	ProtocolVersion int
	// PairingOpen tells whether the Base listens for pairing requests.
	PairingOpen bool
	// Known is the name of the pairing with this Base, "" if there is none.
	Known string

	key discovery.Key
}

// Browse searches the local network for Bases until the context ends, and then closes the
// channel. A Base is sent again when something about it changes; then SameAs is true for both
// values.
func (a *App) Browse(ctx context.Context) (<-chan Nearby, error) {
	pairings, err := a.store.pairings()
	if err != nil {
		return nil, err
	}
	found, err := discovery.Browse(ctx, discovery.BrowseOptions{
		Own: func(txt announcement.TXT) bool { return recognise(pairings, txt) != nil },
	})
	if err != nil {
		return nil, fail(ErrUnreachable, err, "the App cannot search the local network for Bases (%v); give the address instead", err)
	}
	nearby := make(chan Nearby)
	go func() {
		defer close(nearby)
		for f := range found {
			n := Nearby{Name: f.Instance, ProtocolVersion: int(f.Version), PairingOpen: f.PairingOpen, key: f.Key()}
			for _, address := range interleave(f.Addrs) {
				n.Addresses = append(n.Addresses, address.String())
			}
			if p := recognise(pairings, f.TXT); p != nil {
				n.Known = p.Name
			}
			select {
			case nearby <- n:
			case <-ctx.Done():
			}
		}
	}()
	return nearby, nil
}

// interleave orders addresses for trying them one after another (RFC 8305, section 4): the
// families take turns, beginning with the one that was heard first, so a family that does not
// work delays nothing. Link-local addresses come last, because few programs accept their zone.
func interleave(addresses []netip.AddrPort) []netip.AddrPort {
	var families [3][]netip.AddrPort // the first family, the other, link-local ones
	for _, a := range addresses {
		n := 0
		switch {
		case a.Addr().IsLinkLocalUnicast() && a.Addr().Is6():
			n = 2
		case len(families[0]) > 0 && a.Addr().Is4() != families[0][0].Addr().Is4():
			n = 1
		}
		families[n] = append(families[n], a)
	}
	ordered := make([]netip.AddrPort, 0, len(addresses))
	for n := range max(len(families[0]), len(families[1])) {
		for _, family := range families[:2] {
			if n < len(family) {
				ordered = append(ordered, family[n])
			}
		}
	}
	return append(ordered, families[2]...)
}

// SameAs tells whether two values are about the same Base.
func (n Nearby) SameAs(other Nearby) bool { return n.key == other.key }

// recognise returns the pairing whose Base has made this TXT record (somebody may have repeated
// it), nil if there is none.
func recognise(pairings []*pairing, txt announcement.TXT) *pairing {
	var found *pairing
	for _, p := range pairings {
		if p.announced(txt) && (found == nil || p.State == Active) {
			found = p
		}
	}
	return found
}

// announced tells whether a TXT record is that of the pairing's Base. It also knows a board that
// still waits for a claim which this App has used: that is another board.
func (p *pairing) announced(txt announcement.TXT) bool {
	return noiseconn.DiscoveryID(p.discovery, txt.Nonce[:]) == txt.ID ||
		p.claim != nil && noiseconn.DiscoveryID(p.claim.discovery, txt.Nonce[:]) == txt.ID
}

// Discover searches the local network for Bases. It returns those that answered when the context
// ends, or after 3 s if the context has no deadline: Bases that the App knows first, then in the
// order of their names.
func (a *App) Discover(ctx context.Context) ([]Nearby, error) {
	if _, bounded := ctx.Deadline(); !bounded {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, a.timing.discover)
		defer cancel()
	}
	found, err := a.Browse(ctx)
	if err != nil {
		return nil, err
	}
	var list []Nearby
	for n := range found {
		if at := slices.IndexFunc(list, n.SameAs); at >= 0 {
			list[at] = n
		} else {
			list = append(list, n)
		}
	}
	slices.SortStableFunc(list, func(x, y Nearby) int {
		if (x.Known != "") != (y.Known != "") {
			return cmp.Compare(y.Known, x.Known)
		}
		return strings.Compare(x.Name, y.Name)
	})
	return list, nil
}

// browseFor returns the addresses announced for one pairing, each once, until the context ends or
// MaxOwn answers came.
func (a *App) browseFor(ctx context.Context, p *pairing) <-chan string {
	addresses := make(chan string)
	found, err := discovery.Browse(ctx, discovery.BrowseOptions{Own: p.announced})
	go func() {
		defer close(addresses)
		if err != nil {
			return // a machine without multicast; the known addresses remain
		}
		seen := map[string]bool{}
		for f := range found {
			if !p.announced(f.TXT) {
				continue
			}
			for _, address := range interleave(f.Addrs) {
				if seen[address.String()] {
					continue
				}
				seen[address.String()] = true
				select {
				case addresses <- address.String():
				case <-ctx.Done():
				}
			}
		}
	}()
	return addresses
}

// Reachable returns the addresses that a Base reports, in a form that this machine can use: a
// link-local one gets the name of this machine's interface to its network, or the word INTERFACE
// if none is known.
func Reachable(addresses []string) []string {
	own := map[string][]netip.Prefix{}
	interfaces, _ := net.Interfaces() // without the interfaces, no zone is known
	for _, i := range interfaces {
		list, _ := i.Addrs()
		for _, a := range list {
			if prefix, err := netip.ParsePrefix(a.String()); err == nil && !prefix.Addr().IsLinkLocalUnicast() && !prefix.Addr().IsLoopback() {
				own[i.Name] = append(own[i.Name], prefix)
			}
		}
	}
	return zoned(addresses, own)
}

// zoned is Reachable for a machine whose interfaces have these networks. If two are on the same
// network, the first by name is used.
func zoned(addresses []string, own map[string][]netip.Prefix) []string {
	zone := "INTERFACE"
	for _, name := range slices.Backward(slices.Sorted(maps.Keys(own))) {
		for _, prefix := range own[name] {
			if slices.ContainsFunc(addresses, func(a string) bool {
				ip, err := netip.ParseAddr(a)
				return err == nil && prefix.Contains(ip)
			}) {
				zone = name
			}
		}
	}
	list := slices.Clone(addresses)
	for n, a := range list {
		if ip, err := netip.ParseAddr(a); err == nil && ip.Is6() && ip.IsLinkLocalUnicast() && ip.Zone() == "" {
			list[n] = ip.WithZone(zone).String()
		}
	}
	return list
}
