// Package discovery lets a Base announce itself on the local network by
// multicast DNS (RFC 6762) as a service (DNS-SD, RFC 6763), and lets an App find
// the Bases there.
//
// # What is announced
//
// The service type is "_bitboxbase._tcp". The TXT record has four keys:
//
//	v        the version of the wire protocol, decimal
//	n        16 random bytes, new at each start of the Base, in hexadecimal
//	id       the first 8 bytes of HMAC-SHA256(K_disc, n), in hexadecimal
//	pairing  "open" or "closed"
//
// An App that is paired has K_disc and recognises its Base by n and id. To
// anybody else they link nothing; the name of the Base and its hardware address
// still may.
//
// # What an answer is worth
//
// Nothing, before the handshake. Whoever is on the network can announce
// anything, and can repeat the n and id of a Base with an address of his own.
// An answer is a hint where to knock. Browse therefore checks every text that
// it hands on, takes a bounded number of answers, and never lets what one
// responder says change what another one said.
//
// # Why not a library
//
// The one at hand, github.com/pion/mdns/v2, remembers without bound what a
// stranger announces, puts together what different responders say, takes a
// goodbye for an announcement and sends none, knows one address of a service,
// and opens two further UDP ports. What is needed of the protocol is small, and
// golang.org/x/net/dns/dnsmessage packs and parses the records here as it does
// there. That library is what the tests try this package against.
package discovery

import (
	"net"
	"net/netip"
	"time"
)

// ServiceType is the DNS-SD service type of a Base.
const ServiceType = "_bitboxbase._tcp"

// Announcement is what a Base tells the network about itself.
type Announcement struct {
	// Instance is the name of the Base for people, by the rules of
	// noiseconn.CheckName. A dot is announced as a hyphen: the DNS library
	// cannot have it in a name.
	Instance string
	// Port is the TCP port the Base listens on.
	Port uint16
	TXT  TXT
	// Interfaces chooses where to announce; nil means on every interface that is
	// up and carries multicast, or on the loopback interface if there is none.
	Interfaces func(net.Interface) bool
}

// Found is one Base as one answer described it.
type Found struct {
	// Instance is untrusted text that has passed noiseconn.CheckName.
	Instance string
	// Host is the name of the host, such as "base-1f2e.local", checked like Instance.
	Host string
	// Addrs are the addresses announced so far, at least one and at most
	// MaxAddresses, in the order in which they were heard. Link-local IPv6 addresses carry the zone.
	Addrs []netip.AddrPort
	TXT
}

// The bounds of Browse. An attacker on the network can fill them; what he
// cannot do is make an App use more memory or time than this.
const (
	// MaxFound is how many different Bases one Browse hands on.
	MaxFound = 256
	// MaxAddresses is how many addresses of one Base are kept.
	MaxAddresses = 16
)

// queryInterval is how often Browse asks.
const queryInterval = time.Second
