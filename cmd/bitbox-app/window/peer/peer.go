// Package peer asks the kernel to which user of this computer the other end of a connection
// belongs.
package peer

import (
	"net"
	"net/netip"
)

// Whose tells whose connection it is.
type Whose int

const (
	// Unknown: the kernel does not say.
	Unknown Whose = iota
	// Own: it belongs to the user of this process.
	Own
	// Other: it belongs to another user, or the other end is no longer connected.
	Other
)

// tries is how often the kernel's table is read for a connection that is not in it: a table that
// changes while it is read may leave one out.
const tries = 3

// Of tells whose TCP connection on loopback it is: client is the address of the other end, server
// our own one. Both are of IPv4; nothing else is ours to answer.
func Of(client, server netip.AddrPort) Whose {
	client, server = plain(client), plain(server)
	if !client.Addr().Is4() || !server.Addr().Is4() {
		return Other
	}
	for range tries {
		if whose := lookUp(client, server); whose != missing {
			return whose
		}
	}
	return Other
}

// OfConn tells whose connection on loopback was accepted. One that has ended is nobody's: as long as it is
// there, no other one has the same two addresses, so what the kernel's table says of them is about it.
// After its end its port is free for a connection of somebody else.
func OfConn(conn *net.TCPConn) Whose {
	whose := Of(addrPort(conn.RemoteAddr()), addrPort(conn.LocalAddr()))
	raw, err := conn.SyscallConn()
	if err != nil {
		return Other
	}
	there := false
	if err := raw.Control(func(fd uintptr) { there = connected(fd) }); err != nil || !there {
		return Other
	}
	return whose
}

func addrPort(a net.Addr) netip.AddrPort {
	if tcp, ok := a.(*net.TCPAddr); ok {
		return tcp.AddrPort()
	}
	return netip.AddrPort{}
}

// missing is the answer of a table without the connection.
const missing Whose = -1

// plain is the IPv4 address that a mapped one stands for.
func plain(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()) }

// OfSocket tells whose connection to a unix socket it is.
func OfSocket(conn *net.UnixConn) Whose {
	raw, err := conn.SyscallConn()
	if err != nil {
		return Unknown
	}
	whose := Unknown
	if err := raw.Control(func(fd uintptr) { whose = socketOwner(fd) }); err != nil {
		return Unknown
	}
	return whose
}
