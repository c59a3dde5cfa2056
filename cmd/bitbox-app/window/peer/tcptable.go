package peer

import (
	"encoding/binary"
	"errors"
	"net/netip"
)

// A row of the table that GetExtendedTcpTable of Windows returns (MIB_TCPROW_OWNER_PID,
// MIB_TCP6ROW_OWNER_PID), after the number of rows in 4 bytes. Numbers are little-endian, but
// addresses and ports are as on the wire.
//
//	IPv4: 0 state, 4 own address, 8 own port, 12 other address, 16 other port, 20 process (4 each)
//	IPv6: 0 own address (16), 16 scope, 20 own port, 24 other address (16), 40 scope, 44 other port, 48 state,
//	      52 process (4 each)
type tcpTable struct {
	length, own, ownPort, other, otherPort, state, process int
	width                                                  int // bytes of an address
}

var (
	tcpTable4 = tcpTable{length: 24, own: 4, ownPort: 8, other: 12, otherPort: 16, state: 0, process: 20, width: 4}
	tcpTable6 = tcpTable{length: 56, own: 0, ownPort: 20, other: 24, otherPort: 44, state: 48, process: 52, width: 16}
)

// stateEstab is MIB_TCP_STATE_ESTAB.
const stateEstab = 5

var errTCPTable = errors.New("the kernel's table of connections has another layout than expected")

// find finds the process of an established connection from client to server.
func (t tcpTable) find(table []byte, client, server netip.AddrPort) (process uint32, found bool, err error) {
	if len(table) < 4 {
		return 0, false, errTCPTable
	}
	rows, table := int(binary.LittleEndian.Uint32(table)), table[4:]
	if rows > len(table)/t.length {
		return 0, false, errTCPTable
	}
	for row := range rows {
		r := table[row*t.length : (row+1)*t.length]
		if binary.LittleEndian.Uint32(r[t.state:]) == stateEstab && t.address(r, t.own, t.ownPort) == client &&
			t.address(r, t.other, t.otherPort) == server {
			return binary.LittleEndian.Uint32(r[t.process:]), true, nil
		}
	}
	return 0, false, nil
}

func (t tcpTable) address(row []byte, address, port int) netip.AddrPort {
	a, _ := netip.AddrFromSlice(row[address : address+t.width]) // of 4 or 16 bytes
	return netip.AddrPortFrom(a.Unmap(), binary.BigEndian.Uint16(row[port:]))
}
