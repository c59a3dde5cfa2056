package peer

import (
	"encoding/binary"
	"errors"
	"net/netip"
)

// The answer of macOS to net.inet.tcp.pcblist_n (XNU: bsd/netinet/in_pcblist.c, bsd/sys/socketvar.h,
// bsd/netinet/in_pcb.h) is a row of records. Each begins with its length and its kind, 4 bytes
// each, little-endian, and is padded to 8 bytes. For each socket there is a record of its
// addresses, and after it one of the socket itself.
//
//	addresses (kind 0x10): 16 other port, 18 own port (2, big-endian); 44 flags (1);
//	                       48 other address, 64 own address (16; IPv4 in the last 4)
//	socket (kind 0x01):    64 user (4)
const (
	kindSocket, kindAddresses = 0x01, 0x10

	offsetOtherPort, offsetOwnPort       = 16, 18
	offsetFlags                          = 44
	offsetOtherAddress, offsetOwnAddress = 48, 64
	endOfAddresses                       = 80
	offsetUser, endOfUser                = 64, 68

	flagIPv4 = 0x01
	// lengthFirst is the length of the record that begins and ends the list; it has no kind.
	lengthFirst = 24
)

var errPCBList = errors.New("the kernel's list of connections has another layout than expected")

// findPCB finds the user of a connection from client to server in that list.
func findPCB(list []byte, client, server netip.AddrPort) (uid uint32, found bool, err error) {
	if len(list) < lengthFirst || binary.LittleEndian.Uint32(list) != lengthFirst {
		return 0, false, errPCBList
	}
	wanted := false // the last record of addresses was that of the connection
	for at := lengthFirst; at+8 <= len(list); {
		length := int(binary.LittleEndian.Uint32(list[at:]))
		if length < 8 || length > len(list)-at {
			return 0, false, errPCBList
		}
		record := list[at : at+length]
		switch kind := binary.LittleEndian.Uint32(record[4:]); {
		case length == lengthFirst:
			return 0, false, nil
		case kind == kindAddresses && length >= endOfAddresses:
			wanted = record[offsetFlags]&flagIPv4 != 0 && pcbAddress(record, offsetOwnAddress, offsetOwnPort) == client &&
				pcbAddress(record, offsetOtherAddress, offsetOtherPort) == server
		case kind == kindSocket && length >= endOfUser && wanted:
			return binary.LittleEndian.Uint32(record[offsetUser:]), true, nil
		case kind == kindAddresses || kind == kindSocket && length < endOfUser:
			return 0, false, errPCBList
		}
		at += (length + 7) &^ 7
	}
	return 0, false, nil
}

// pcbAddress is the IPv4 address and port at these offsets.
func pcbAddress(record []byte, address, port int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte(record[address+12:])), binary.BigEndian.Uint16(record[port:]))
}
