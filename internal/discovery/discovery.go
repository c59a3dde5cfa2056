// Package discovery lets a Base announce itself on the local network by multicast DNS (RFC 6762)
// as a service (DNS-SD, RFC 6763), and lets an App find the Bases there.
//
// # The announcement
//
// The service type is "_bitboxbase._tcp". The TXT record has four keys:
//
//	v        the version of the wire protocol, decimal
//	n        16 random bytes, new at each start of the Base, in hexadecimal
//	id       the first 8 bytes of HMAC-SHA256(K_disc, n), in hexadecimal
//	pairing  "open" or "closed"
//
// An App that is paired has K_disc and recognises its Base by n and id. For anybody else they
// link nothing to anything, but the name of the Base and its hardware address still may.
//
// # How much an answer is worth
//
// Before the handshake it is worth nothing. Anybody on the network can announce anything, and
// can repeat the n and id of a Base with another address. An answer is a hint where to connect.
// So [Browse] checks every text before it returns it, takes a limited number of answers, and
// never lets the answer of one responder change that of another.
//
// # Why not a library
//
// The obvious one, github.com/pion/mdns/v2, stores announcements of strangers without a limit,
// mixes the answers of different responders, treats a goodbye as an announcement and sends none,
// knows one address per service, and opens two more UDP ports. Like
// golang.org/x/net/dns/dnsmessage, it does not allow a dot in a label. The necessary part of the
// protocol is small (wire.go). The tests run this package against both libraries.
package discovery

import (
	"net"
	"net/netip"
	"time"

	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/announcement"
)

// ServiceType is the DNS-SD service type of a Base.
const ServiceType = "_bitboxbase._tcp"

// Announcement is what a Base tells the network about itself.
type Announcement struct {
	// Instance is the Base's name for people, by the rules of noiseconn.CheckName. It may contain
	// dots.
	Instance string
	// Port is the TCP port the Base listens on.
	Port uint16
	TXT  announcement.TXT
	// Interfaces chooses where to announce; nil means on every interface that is
	// up and carries multicast, or on the loopback interface if there is none.
	Interfaces func(net.Interface) bool
}

// Found is one Base as one answer described it.
type Found struct {
	// Instance is untrusted text. If it does not pass noiseconn.CheckName, it is escaped.
	Instance string
	// Host is the name of the host, such as "base-1f2e.local", in letters that every resolver
	// accepts.
	Host string
	// Addrs are the addresses announced so far, at least one and at most MaxAddresses, some of
	// each kind, in the order of arrival. Link-local IPv6 addresses carry the zone.
	Addrs []netip.AddrPort
	announcement.TXT
}

// The bounds of Browse. An attacker on the network can reach them, but cannot make an App use
// more memory or time than this.
const (
	// MaxFound is how many different Bases one Browse returns.
	MaxFound = 256
	// MaxAddresses is how many addresses of one Base are kept.
	MaxAddresses = maxIPv4 + maxIPv6 + maxLinkLocal

	// Many addresses of one kind leave room for those of the others.
	maxIPv4      = 6
	maxIPv6      = 6
	maxLinkLocal = 4
)

// hasRoom tells whether one more address may be kept beside those of its kind.
func hasRoom(kept []netip.Addr, address netip.Addr) bool {
	kind, most := kindOf(address)
	for _, other := range kept {
		if same, _ := kindOf(other); same == kind {
			most--
		}
	}
	return most > 0
}

// kindOf returns the kind of an address, and how many of that kind are kept.
func kindOf(a netip.Addr) (kind string, most int) {
	switch {
	case a.Is4():
		return "IPv4", maxIPv4
	case a.IsLinkLocalUnicast():
		return "link-local", maxLinkLocal
	default:
		return "IPv6", maxIPv6
	}
}

// queryInterval is how often Browse asks.
const queryInterval = time.Second
