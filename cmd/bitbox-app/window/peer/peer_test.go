package peer

import (
	"encoding/binary"
	"net/netip"
	"os"
	"slices"
	"testing"

	"github.com/BitBoxSwiss/bitbox-base/internal/testbed/leaktest"
)

func TestMain(m *testing.M) { os.Exit(leaktest.Run(m)) }

var client, server = netip.MustParseAddrPort("127.0.0.1:43210"), netip.MustParseAddrPort("127.0.0.1:8080")

// record is one record of the list of macOS, of the length that XNU gives it.
func record(kind uint32, length int, fill func([]byte)) []byte {
	r := make([]byte, (length+7)&^7)
	binary.LittleEndian.PutUint32(r, uint32(length))
	binary.LittleEndian.PutUint32(r[4:], kind)
	fill(r)
	return r
}

// pcb are the records of one socket of macOS.
func pcb(own, other netip.AddrPort, flags byte, user uint32) []byte {
	none := func([]byte) {}
	return slices.Concat(
		record(kindAddresses, 104, func(r []byte) {
			binary.BigEndian.PutUint16(r[16:], other.Port())
			binary.BigEndian.PutUint16(r[18:], own.Port())
			r[44] = flags
			copy(r[60:], other.Addr().AsSlice())
			copy(r[76:], own.Addr().AsSlice())
		}),
		record(kindSocket, 76, func(r []byte) { binary.LittleEndian.PutUint32(r[64:], user) }),
		record(0x02, 36, none), record(0x04, 36, none), record(0x08, 136, none), record(0x20, 204, none))
}

func TestTheListOfMacOSIsRead(t *testing.T) {
	end := record(0, lengthFirst, func(r []byte) { r[4] = 2 })
	list := slices.Concat(end, pcb(server, client, 1, 0), pcb(client, netip.MustParseAddrPort("127.0.0.1:8081"), 1, 7),
		pcb(client, server, 2, 8), pcb(client, server, 1, 501), end)
	if uid, found, err := findPCB(list, client, server); err != nil || !found || uid != 501 {
		t.Errorf("%d %t %v", uid, found, err)
	}
	if _, found, err := findPCB(list, netip.MustParseAddrPort("127.0.0.1:43211"), server); err != nil || found {
		t.Errorf("a connection that is not there: %t %v", found, err)
	}
	for n := range len(list) {
		if uid, found, _ := findPCB(list[:n], client, server); found && uid != 501 {
			t.Fatalf("cut after %d bytes it is of user %d", n, uid)
		}
	}
	short := slices.Concat(end, record(kindAddresses, 72, func([]byte) {}), end)
	for name, bad := range map[string][]byte{"empty": nil, "another beginning": list[24:], "short addresses": short,
		"a length of 0":           slices.Concat(end, make([]byte, 64)),
		"a length beyond the end": append(slices.Clone(end), 0xff, 0xff, 0xff, 0x7f, 0, 0, 0, 0)} {
		if _, _, err := findPCB(bad, client, server); err == nil {
			t.Errorf("%s: it is read", name)
		}
	}
}

// row is one row of a table of Windows.
func row(t tcpTable, own, other netip.AddrPort, state, process uint32) []byte {
	r := make([]byte, t.length)
	put := func(a netip.AddrPort, address, port int) {
		b := a.Addr().AsSlice()
		if t.width == 16 {
			sixteen := a.Addr().As16() // mapped
			b = sixteen[:]
		}
		copy(r[address:], b)
		binary.BigEndian.PutUint16(r[port:], a.Port())
	}
	put(own, t.own, t.ownPort)
	put(other, t.other, t.otherPort)
	binary.LittleEndian.PutUint32(r[t.state:], state)
	binary.LittleEndian.PutUint32(r[t.process:], process)
	return r
}

func TestTheTablesOfWindowsAreRead(t *testing.T) {
	for name, layout := range map[string]tcpTable{"IPv4": tcpTable4, "IPv6": tcpTable6} {
		rows := slices.Concat(row(layout, server, client, stateEstab, 1), row(layout, client, server, 11, 2),
			row(layout, client, server, stateEstab, 77))
		table := append([]byte{3, 0, 0, 0}, rows...)
		if process, found, err := layout.find(append(table, 0, 0, 0), client, server); err != nil || !found || process != 77 {
			t.Errorf("%s: %d %t %v", name, process, found, err)
		}
		if _, found, err := layout.find(table, server, server); err != nil || found {
			t.Errorf("%s: a connection that is not there: %t %v", name, found, err)
		}
		for _, bad := range [][]byte{nil, {4, 0, 0}, append([]byte{4, 0, 0, 0}, rows...), {0xff, 0xff, 0xff, 0xff}} {
			if _, _, err := layout.find(bad, client, server); err == nil {
				t.Errorf("%s: %d bytes are read", name, len(bad))
			}
		}
	}
}
