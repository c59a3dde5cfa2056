package discovery

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

// The group and the port of multicast DNS (RFC 6762, section 3).
var (
	group4 = &net.UDPAddr{IP: net.IPv4(224, 0, 0, 251), Port: mdnsPort}
	group6 = &net.UDPAddr{IP: net.ParseIP("ff02::fb"), Port: mdnsPort}
)

const mdnsPort = 5353

// packet is where a message came from.
type packet struct {
	source *net.UDPAddr
	// ifIndex is the interface it came in on, 0 if the system does not say.
	ifIndex int
	// toGroup is false if the message is known to be for one host only.
	toGroup bool
}

// socket is a UDP socket of one address family.
type socket struct {
	conn  net.PacketConn
	group *net.UDPAddr
	p4    *ipv4.PacketConn // nil for IPv6
	p6    *ipv6.PacketConn // nil for IPv4

	// mu orders writes: the outgoing interface is a setting of the socket.
	mu sync.Mutex
}

// listen opens a socket for each address family of the machine: on the port of multicast DNS,
// shared with other programs, or on any port. It fails if there is none.
func listen(shared bool) ([]*socket, error) {
	var sockets []*socket
	var failures []error
	for _, family := range []struct {
		network, address string
		group            *net.UDPAddr
	}{
		{"udp4", ":0", group4},
		{"udp6", "[::]:0", group6},
	} {
		address := family.address
		if shared {
			// Given a group, package net binds the wildcard address and lets
			// other programs have the port too.
			address = family.group.String()
		}
		conn, err := (&net.ListenConfig{}).ListenPacket(context.Background(), family.network, address)
		if err != nil {
			failures = append(failures, err)
			continue
		}
		s := &socket{conn: conn, group: family.group}
		// On a system without such control messages (Windows) the interface stays unknown.
		// Multicast is looped back so that an App finds a Base on its own machine.
		if family.network == "udp4" {
			s.p4 = ipv4.NewPacketConn(conn)
			_ = s.p4.SetControlMessage(ipv4.FlagInterface|ipv4.FlagDst, true)
			_ = s.p4.SetMulticastLoopback(true)
			_ = s.p4.SetMulticastTTL(255) // RFC 6762, section 11
		} else {
			s.p6 = ipv6.NewPacketConn(conn)
			_ = s.p6.SetControlMessage(ipv6.FlagInterface|ipv6.FlagDst, true)
			_ = s.p6.SetMulticastLoopback(true)
			_ = s.p6.SetMulticastHopLimit(255)
		}
		sockets = append(sockets, s)
	}
	if len(sockets) == 0 {
		return nil, fmt.Errorf("open a socket for multicast DNS: %w", errors.Join(failures...))
	}
	return sockets, nil
}

func (s *socket) isIPv6() bool { return s.p6 != nil }

// join joins the group on an interface. Joining again is harmless.
func (s *socket) join(i *net.Interface) {
	// An interface without this family cannot be joined, and need not be.
	if s.isIPv6() {
		_ = s.p6.JoinGroup(i, s.group)
	} else {
		_ = s.p4.JoinGroup(i, s.group)
	}
}

// sendToGroup sends a message on one interface. It reports no errors: an interface may be going
// down, and the next message is sent anyway.
func (s *socket) sendToGroup(message []byte, i *net.Interface) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.isIPv6() {
		if s.p6.SetMulticastInterface(i) != nil {
			return
		}
	} else if s.p4.SetMulticastInterface(i) != nil {
		return
	}
	_, _ = s.conn.WriteTo(message, s.group)
}

func (s *socket) sendTo(message []byte, to *net.UDPAddr) { _, _ = s.conn.WriteTo(message, to) }

// read returns one message; it fails for good once the socket is closed.
func (s *socket) read(buffer []byte) (int, packet, error) {
	for {
		var n, ifIndex int
		var source net.Addr
		var destination net.IP
		var err error
		if s.isIPv6() {
			var c *ipv6.ControlMessage
			if n, c, source, err = s.p6.ReadFrom(buffer); c != nil {
				ifIndex, destination = c.IfIndex, c.Dst
			}
		} else {
			var c *ipv4.ControlMessage
			if n, c, source, err = s.p4.ReadFrom(buffer); c != nil {
				ifIndex, destination = c.IfIndex, c.Dst
			}
		}
		if errors.Is(err, net.ErrClosed) {
			return 0, packet{}, err
		}
		udp, ok := source.(*net.UDPAddr)
		if err != nil || !ok {
			// Such as an ICMP error for an earlier message; the socket still works.
			continue
		}
		toGroup := destination == nil || destination.IsMulticast()
		return n, packet{source: udp, ifIndex: ifIndex, toGroup: toGroup}, nil
	}
}

// usable returns the interfaces for multicast DNS: those that are up and carry multicast, without
// tunnels; only if there is none, the loopback interface.
func usable(chosen func(net.Interface) bool) []net.Interface {
	all, err := net.Interfaces()
	if err != nil {
		return nil
	}
	var out, loopback []net.Interface
	for _, i := range all {
		switch {
		case i.Flags&net.FlagUp == 0 || chosen != nil && !chosen(i):
		case i.Flags&net.FlagLoopback != 0:
			loopback = append(loopback, i)
		case i.Flags&net.FlagMulticast != 0 && i.Flags&net.FlagPointToPoint == 0 && len(addressesOf(&i)) > 0:
			out = append(out, i)
		}
	}
	if len(out) == 0 {
		return loopback
	}
	return out
}

// addressesOf returns the addresses of an interface, without zones, IPv4 first, at most as many
// of each kind as are kept.
func addressesOf(i *net.Interface) []netip.Addr {
	all, err := i.Addrs()
	if err != nil {
		return nil
	}
	var addresses []netip.Addr
	for _, a := range all {
		prefix, ok := a.(*net.IPNet)
		if !ok {
			continue
		}
		address, ok := netip.AddrFromSlice(prefix.IP)
		if address = address.Unmap(); ok && hasRoom(addresses, address) {
			addresses = append(addresses, address)
		}
	}
	slices.SortStableFunc(addresses, func(a, b netip.Addr) int { return cmp.Compare(a.BitLen(), b.BitLen()) })
	return addresses
}

// origin returns the zone of link-local addresses in a packet, which is the name of the interface
// it came in on, and whether it came from this machine through the loopback interface.
func origin(p packet) (zone string, local bool) {
	if p.ifIndex != 0 {
		if i, err := net.InterfaceByIndex(p.ifIndex); err == nil {
			return i.Name, i.Flags&net.FlagLoopback != 0
		}
	}
	return p.source.Zone, p.source.IP.IsLoopback()
}
