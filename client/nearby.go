package client

import (
	"cmp"
	"context"
	"slices"
	"strings"

	"github.com/BitBoxSwiss/bitbox-base/internal/discovery"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/noiseconn"
)

// MaxNearby is how many Bases one Browse or Discover returns at most. When there
// are so many, somebody is making them up; give the address by hand then.
const MaxNearby = discovery.MaxFound + discovery.MaxOwn

// Nearby is what was announced on the local network. Nobody has vouched for it:
// anybody there can announce anything, and can repeat what a Base announces. It
// is a hint where to knock.
type Nearby struct {
	// Name is untrusted text, checked for control and format characters.
	Name string
	// Addresses are "host:port" each, with numeric hosts.
	Addresses []string
	// ProtocolVersion is that of the wire protocol; this App speaks 1.
	ProtocolVersion int
	// PairingOpen tells whether a pairing request would be heard.
	PairingOpen bool
	// Known is the name of the pairing with this Base, "" if there is none.
	Known string

	key discovery.Key
}

// Browse asks the local network for Bases until the context ends, and closes the
// channel then. A Base is sent again when there is something new about it; then
// SameAs is true for both values.
func (a *App) Browse(ctx context.Context) (<-chan Nearby, error) {
	pairings, err := a.store.pairings()
	if err != nil {
		return nil, err
	}
	found, err := discovery.Browse(ctx, discovery.BrowseOptions{
		Own: func(txt discovery.TXT) bool { return recognise(pairings, txt) != nil },
	})
	if err != nil {
		return nil, fail(ErrUnreachable, err, "the local network cannot be asked for Bases (%v); give the address instead", err)
	}
	nearby := make(chan Nearby)
	go func() {
		defer close(nearby)
		for f := range found {
			n := Nearby{Name: f.Instance, ProtocolVersion: int(f.Version), PairingOpen: f.PairingOpen, key: f.Key()}
			for _, address := range f.Addrs {
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

// SameAs tells whether two values are about the same Base.
func (n Nearby) SameAs(other Nearby) bool { return n.key == other.key }

// recognise returns the pairing whose Base has made this TXT record (or whose
// record was repeated), nil if there is none.
func recognise(pairings []*pairing, txt discovery.TXT) *pairing {
	var found *pairing
	for _, p := range pairings {
		if noiseconn.DiscoveryID(p.discovery, txt.Nonce[:]) == txt.ID && (found == nil || p.State == Active) {
			found = p
		}
	}
	return found
}

// Discover asks the local network for Bases and returns what has answered when
// the context ends, or after 3 s if it has no deadline: those that the App knows
// first, then in the order of their names.
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

// browseFor returns the addresses that are announced for one pairing, each once,
// until the context ends or MaxOwn answers came.
func (a *App) browseFor(ctx context.Context, p *pairing) <-chan string {
	addresses := make(chan string)
	own := func(txt discovery.TXT) bool { return noiseconn.DiscoveryID(p.discovery, txt.Nonce[:]) == txt.ID }
	found, err := discovery.Browse(ctx, discovery.BrowseOptions{Own: own})
	go func() {
		defer close(addresses)
		if err != nil {
			return // a machine without multicast; the known addresses remain
		}
		seen := map[string]bool{}
		for f := range found {
			if !own(f.TXT) {
				continue
			}
			for _, address := range f.Addrs {
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
