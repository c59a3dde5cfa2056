package discovery

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/pion/mdns/v2"
	"golang.org/x/net/dns/dnsmessage"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
	"pgregory.net/rapid"

	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/announcement"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/noiseconn"
	"github.com/BitBoxSwiss/bitbox-base/internal/testbed/leaktest"
	"github.com/BitBoxSwiss/bitbox-base/internal/testbed/netnstest"
)

func TestMain(m *testing.M) { netnstest.Main(leaktest.Checked(m)) }

func exampleTXT(seed byte) announcement.TXT {
	return announcement.TXT{
		Version: 1,
		Nonce:   [announcement.NonceSize]byte(bytes.Repeat([]byte{seed}, announcement.NonceSize)),
		ID:      [announcement.IDSize]byte(bytes.Repeat([]byte{^seed}, announcement.IDSize)),
	}
}

func announce(t *testing.T, a Announcement) *Announcer {
	t.Helper()
	handle, err := Announce(t.Context(), a)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { handle.Close() })
	return handle
}

// browse starts a Browse that ends with the test.
func browse(t *testing.T, options BrowseOptions) <-chan Found {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	found, err := Browse(ctx, options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		for range found { // closed once everything has ended
		}
	})
	return found
}

// until reads from the channel until the condition holds.
func until(t *testing.T, found <-chan Found, what string, condition func(Found) bool) Found {
	t.Helper()
	deadline := time.After(30 * time.Second)
	var heard []Found
	for {
		select {
		case f := <-found:
			if condition(f) {
				return f
			}
			heard = append(heard, f)
		case <-deadline:
			t.Fatalf("%s was not found; heard: %v", what, heard)
		}
	}
}

func TestAnnouncedBaseIsFoundWithAllItsAddresses(t *testing.T) {
	netnstest.Require(t)
	txt := exampleTXT(1)
	announce(t, Announcement{Instance: "Böse BitBox v1.2", Port: 8845, TXT: txt})
	found := until(t, browse(t, BrowseOptions{}), "the Base on three addresses", func(f Found) bool { return len(f.Addrs) == 3 })

	if found.Instance != "Böse BitBox v1.2" || found.TXT != txt || found.Host != "base-01010101.local" {
		t.Errorf("found %+v", found)
	}
	want := []netip.AddrPort{
		netip.AddrPortFrom(netnstest.IPv4.Addr(), 8845),
		netip.AddrPortFrom(netnstest.IPv6.Addr(), 8845),
	}
	for _, w := range want {
		if !slices.Contains(found.Addrs, w) {
			t.Errorf("%v is missing among %v", w, found.Addrs)
		}
	}
	if !slices.ContainsFunc(found.Addrs, func(a netip.AddrPort) bool {
		return a.Addr().IsLinkLocalUnicast() && a.Addr().Zone() == netnstest.Interface
	}) {
		t.Errorf("no link-local address with its zone among %v", found.Addrs)
	}
}

func TestTheSameAnswerIsReturnedOnce(t *testing.T) {
	netnstest.Require(t)
	announce(t, Announcement{Instance: "Base", Port: 8845, TXT: exampleTXT(1)})
	found := browse(t, BrowseOptions{})
	until(t, found, "the Base", func(f Found) bool { return len(f.Addrs) == 3 })
	// Two further rounds of questions bring answers, but no news.
	select {
	case f := <-found:
		t.Errorf("handed on again: %+v", f)
	case <-time.After(2*queryInterval + queryInterval/2):
	}
}

func TestUpdateIsHeard(t *testing.T) {
	netnstest.Require(t)
	txt := exampleTXT(1)
	handle := announce(t, Announcement{Instance: "Base", Port: 8845, TXT: txt})
	found := browse(t, BrowseOptions{})
	until(t, found, "the Base, closed", func(f Found) bool { return !f.PairingOpen })
	txt.PairingOpen = true
	handle.Update(txt)
	until(t, found, "the Base, open", func(f Found) bool { return f.PairingOpen })
	txt.PairingOpen = false
	handle.Update(txt)
	until(t, found, "the Base, closed again", func(f Found) bool { return !f.PairingOpen })
}

func TestNewAddressIsAnnounced(t *testing.T) {
	netnstest.Require(t)
	announce(t, Announcement{Instance: "Base", Port: 8845, TXT: exampleTXT(1)})
	found := browse(t, BrowseOptions{})
	until(t, found, "the Base", func(f Found) bool { return len(f.Addrs) == 3 })
	if err := netnstest.IP("addr add 10.77.0.2/24 dev " + netnstest.Interface); err != nil {
		t.Fatal(err)
	}
	defer netnstest.IP("addr del 10.77.0.2/24 dev " + netnstest.Interface)
	until(t, found, "the new address", func(f Found) bool {
		return slices.Contains(f.Addrs, netip.MustParseAddrPort("10.77.0.2:8845"))
	})
}

func TestNewInterfaceIsAnnouncedOn(t *testing.T) {
	netnstest.Require(t)
	announce(t, Announcement{Instance: "Base", Port: 8845, TXT: exampleTXT(1)})
	found := browse(t, BrowseOptions{})
	for _, arguments := range []string{
		"link add lan1 type veth peer name far1", "link set far1 up", "link set lan1 up",
		"addr add 10.78.0.1/24 dev lan1",
	} {
		if err := netnstest.IP(arguments); err != nil {
			t.Fatal(err)
		}
	}
	defer netnstest.IP("link del lan1")
	until(t, found, "the address of the new interface", func(f Found) bool {
		return slices.Contains(f.Addrs, netip.MustParseAddrPort("10.78.0.1:8845"))
	})
}

func TestOnlyChosenInterfacesAreUsed(t *testing.T) {
	netnstest.Require(t)
	none := func(net.Interface) bool { return false }
	announce(t, Announcement{Instance: "Hidden", Port: 8845, TXT: exampleTXT(1), Interfaces: none})
	announce(t, Announcement{Instance: "Seen", Port: 8846, TXT: exampleTXT(2)})
	found := browse(t, BrowseOptions{})
	until(t, found, "the other Base, whole", func(f Found) bool {
		if f.Instance == "Hidden" {
			t.Errorf("found %+v", f)
		}
		return len(f.Addrs) == 3
	})
}

// A machine without any network still finds a Base on itself.
func TestBaseIsFoundOnAMachineWithoutNetwork(t *testing.T) {
	netnstest.Require(t)
	lo := func(i net.Interface) bool { return i.Flags&net.FlagLoopback != 0 }
	announce(t, Announcement{Instance: "Base", Port: 8845, TXT: exampleTXT(1), Interfaces: lo})
	until(t, browse(t, BrowseOptions{Interfaces: lo}), "the Base on loopback", func(f Found) bool {
		return slices.Contains(f.Addrs, netip.MustParseAddrPort("127.0.0.1:8845"))
	})
}

// listenToGroup hears messages to the group, like any host on the network.
func listenToGroup(t *testing.T) net.PacketConn {
	t.Helper()
	conn, err := net.ListenPacket("udp4", group4.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	lan, err := net.InterfaceByName(netnstest.Interface)
	if err != nil {
		t.Fatal(err)
	}
	p := ipv4.NewPacketConn(conn)
	if err := p.JoinGroup(lan, group4); err != nil {
		t.Fatal(err)
	}
	if err := p.SetMulticastInterface(lan); err != nil {
		t.Fatal(err)
	}
	return conn
}

func TestCloseWithdrawsTheAnnouncement(t *testing.T) {
	netnstest.Require(t)
	conn := listenToGroup(t)
	handle := announce(t, Announcement{Instance: "Base", Port: 8845, TXT: exampleTXT(1)})
	if err := handle.Close(); err != nil {
		t.Fatal(err)
	}
	if err := conn.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	buffer := make([]byte, maxMessage)
	for {
		n, _, err := conn.ReadFrom(buffer)
		if err != nil {
			t.Fatal("no goodbye:", err)
		}
		var message dnsmessage.Message
		if err := message.Unpack(buffer[:n]); err != nil {
			t.Fatal(err)
		}
		gone := len(message.Answers) > 0
		for _, record := range message.Answers {
			gone = gone && record.Header.TTL == 0
		}
		if gone {
			if found := parseResponse(buffer[:n], "", false); len(found) > 0 {
				t.Errorf("a goodbye was taken for an announcement: %+v", found)
			}
			return
		}
	}
}

// The port answers only multicast questions: a unicast one can come from beyond the local
// network, and its source address can be a victim's.
func TestQuestionForOneHostIsNotAnswered(t *testing.T) {
	netnstest.Require(t)
	announce(t, Announcement{Instance: "Base", Port: 8845, TXT: exampleTXT(1)})
	asker, err := net.ListenPacket("udp4", netnstest.IPv4.Addr().String()+":0")
	if err != nil {
		t.Fatal(err)
	}
	defer asker.Close()
	lan, err := net.InterfaceByName(netnstest.Interface)
	if err != nil {
		t.Fatal(err)
	}
	if err := ipv4.NewPacketConn(asker).SetMulticastInterface(lan); err != nil {
		t.Fatal(err)
	}
	answered := func(to *net.UDPAddr, wait time.Duration) bool {
		if _, err := asker.WriteTo(packQuery(), to); err != nil {
			t.Fatal(err)
		}
		if err := asker.SetReadDeadline(time.Now().Add(wait)); err != nil {
			t.Fatal(err)
		}
		_, _, err := asker.ReadFrom(make([]byte, maxMessage))
		return err == nil
	}
	if !answered(group4, 10*time.Second) {
		t.Fatal("a question to the group was not answered")
	}
	host := &net.UDPAddr{IP: netnstest.IPv4.Addr().AsSlice(), Port: mdnsPort}
	if answered(host, time.Second) {
		t.Error("a question to the host was answered")
	}
}

// fake is one complete message of an attacker, with a Base of his own.
func fake(t *testing.T, instance string, txt announcement.TXT, port uint16, addresses ...netip.Addr) []byte {
	t.Helper()
	s, err := newService(Announcement{Instance: instance, Port: port, TXT: txt})
	if err != nil {
		t.Fatal(err)
	}
	return s.pack(answer{}, addresses)
}

// flood is thousands of Bases that do not exist, as messages.
func flood(t *testing.T, yield func(message []byte) bool) {
	for n := range 5000 {
		txt := exampleTXT(7)
		txt.Nonce[0], txt.Nonce[1] = byte(n>>8), byte(n)
		if !yield(fake(t, fmt.Sprintf("Fake %d", n), txt, 8845, netip.MustParseAddr("10.77.0.66"))) {
			return
		}
	}
}

func TestThousandsOfFakeBasesAreBoundedAndHideNoOwnBase(t *testing.T) {
	own := exampleTXT(1)
	attack := func(recognise func(announcement.TXT) bool) (entries int, ownFound bool) {
		table := newTable(recognise)
		offer := func(message []byte) {
			for _, f := range parseResponse(message, "", false) {
				news, ok := table.add(f)
				ownFound = ownFound || ok && news.TXT == own
			}
		}
		flood(t, func(message []byte) bool { offer(message); return true })
		offer(fake(t, "My Base", own, 8845, netip.MustParseAddr("10.77.0.1")))
		return len(table.entries), ownFound
	}
	entries, ownFound := attack(func(txt announcement.TXT) bool { return txt == own })
	if entries > MaxFound+MaxOwn || !ownFound {
		t.Errorf("%d entries kept, own Base found: %v", entries, ownFound)
	}
	// The attack can succeed: without its own room the Base is not found.
	if _, ownFound := attack(nil); ownFound {
		t.Error("the flood does not fill the table; this test shows nothing")
	}
}

func TestBrowseEndsAndFindsTheOwnBaseUnderAFlood(t *testing.T) {
	netnstest.Require(t)
	own := exampleTXT(1)
	attacker := listenToGroup(t)
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			flood(t, func(message []byte) bool {
				_, _ = attacker.WriteTo(message, group4)
				return ctx.Err() == nil
			})
		}
	}()
	defer func() { stop(); <-done }()

	announce(t, Announcement{Instance: "My Base", Port: 8845, TXT: own})
	found := browse(t, BrowseOptions{Own: func(txt announcement.TXT) bool { return txt == own }})
	until(t, found, "the own Base", func(f Found) bool { return f.TXT == own })
}

// A stranger who repeats the name of a Base cannot change what the Base said.
func TestStrangerCannotChangeWhatABaseSaid(t *testing.T) {
	table := newTable(nil)
	genuine := parseResponse(fake(t, "Base", exampleTXT(1), 8845, netip.MustParseAddr("10.77.0.1")), "", false)[0]
	forged := parseResponse(fake(t, "Base", exampleTXT(2), 666, netip.MustParseAddr("10.77.0.66")), "", false)[0]
	table.add(genuine)
	if news, ok := table.add(forged); !ok || news.Key() == genuine.Key() {
		t.Fatalf("the forgery was put together with the Base: %+v", news)
	}
	// The library that this package avoids has one entry for both: the same two messages given to
	// it become one service with mixed records.
	if kept := table.entries[genuine.Key()]; kept.TXT != genuine.TXT || !slices.Equal(kept.Addrs, genuine.Addrs) {
		t.Errorf("kept %+v", kept)
	}
}

func TestOneAddressListIsBounded(t *testing.T) {
	table := newTable(nil)
	var last Found
	for n := range 200 {
		for _, f := range parseResponse(fake(t, "Base", exampleTXT(1), 8845, netip.AddrFrom4([4]byte{10, 0, 0, byte(n + 1)})), "", false) {
			if news, ok := table.add(f); ok {
				last = news
			}
		}
	}
	if len(last.Addrs) != maxIPv4 {
		t.Errorf("%d addresses", len(last.Addrs))
	}
}

func TestHostileRecordsAreIgnored(t *testing.T) {
	good := dnsmessage.Message{Header: dnsmessage.Header{Response: true}}
	resource := func(name string, body dnsmessage.ResourceBody) dnsmessage.Resource {
		return dnsmessage.Resource{Header: dnsmessage.ResourceHeader{Name: dnsmessage.MustNewName(name), Class: dnsmessage.ClassINET, TTL: 120},
			Body: body}
	}
	const service = "._bitboxbase._tcp.local."
	instance := "Base" + service
	good.Answers = []dnsmessage.Resource{
		resource(instance, &dnsmessage.SRVResource{Target: dnsmessage.MustNewName("h.local."), Port: 1}),
		resource(instance, &dnsmessage.TXTResource{TXT: exampleTXT(1).Strings()}),
		resource("h.local.", &dnsmessage.AResource{A: [4]byte{10, 0, 0, 1}}),
	}
	parse := func(change func(m *dnsmessage.Message)) []Found {
		m := good
		m.Answers = slices.Clone(good.Answers)
		change(&m)
		packed, err := m.Pack()
		if err != nil {
			t.Fatal(err)
		}
		return parseResponse(packed, "", false)
	}
	if found := parse(func(*dnsmessage.Message) {}); len(found) != 1 || len(found[0].Addrs) != 1 {
		t.Fatalf("the good message gives %+v", found)
	}
	address := func(a netip.Addr) func(m *dnsmessage.Message) {
		return func(m *dnsmessage.Message) {
			if a.Is4() {
				m.Answers[2].Body = &dnsmessage.AResource{A: a.As4()}
			} else {
				m.Answers[2].Body = &dnsmessage.AAAAResource{AAAA: a.As16()}
			}
		}
	}
	rename := func(name string) func(m *dnsmessage.Message) {
		return func(m *dnsmessage.Message) {
			for n := range 2 {
				m.Answers[n].Header.Name = dnsmessage.MustNewName(name + service)
			}
		}
	}
	for what, change := range map[string]func(m *dnsmessage.Message){
		"a question": func(m *dnsmessage.Message) { m.Response = false },
		"another service": func(m *dnsmessage.Message) {
			m.Answers[1].Header.Name = dnsmessage.MustNewName("Base._http._tcp.local.")
		},
		"port 0":        func(m *dnsmessage.Message) { m.Answers[0].Body.(*dnsmessage.SRVResource).Port = 0 },
		"no TXT":        func(m *dnsmessage.Message) { m.Answers = slices.Delete(m.Answers, 1, 2) },
		"no address":    func(m *dnsmessage.Message) { m.Answers = m.Answers[:2] },
		"a goodbye":     func(m *dnsmessage.Message) { m.Answers[0].Header.TTL = 0 },
		"another class": func(m *dnsmessage.Message) { m.Answers[0].Header.Class = dnsmessage.ClassCHAOS },
		"a host with an escape": func(m *dnsmessage.Message) {
			m.Answers[0].Body = &dnsmessage.SRVResource{Target: dnsmessage.MustNewName("h\x1b[2J.local."), Port: 1}
		},
		"two labels":            rename("A.B"),
		"unspecified":           address(netip.IPv4Unspecified()),
		"multicast":             address(netip.MustParseAddr("224.0.0.251")),
		"broadcast":             address(broadcast),
		"loopback from outside": address(netip.MustParseAddr("127.0.0.1")),
		"loopback 6":            address(netip.IPv6Loopback()),
		"loopback 4 in 6":       address(netip.MustParseAddr("::ffff:127.0.0.1")),
		"link-local, no zone":   address(netip.MustParseAddr("fe80::1")),
	} {
		if what == "port 0" {
			defer func() { good.Answers[0].Body.(*dnsmessage.SRVResource).Port = 1 }()
		}
		if found := parse(change); len(found) != 0 {
			t.Errorf("%s: found %+v", what, found)
		}
		good.Answers[0].Body.(*dnsmessage.SRVResource).Port = 1
	}
	for hostile, harmless := range map[string]string{
		"Base\x1b[2J":        `Base\x1b[2J`,
		"Base\nFound: you":   `Base\nFound: you`,
		"Base \u202egpj:exe": `Base \u202egpj:exe`,
		"Base \xff":          `Base \xff`,
		"B\u00e4se \u200b":   `Bäse \u200b`,
		" ":                  ` `,
	} {
		if found := parse(rename(hostile)); len(found) != 1 || found[0].Instance != harmless {
			t.Errorf("%q: found %+v, want %s", hostile, found, harmless)
		}
	}
}

// Every name that a Base may have is announced and found unchanged.
func TestEveryLegalNameIsAnnouncedAndFound(t *testing.T) {
	address := netip.MustParseAddr("10.77.0.1")
	roundTrip := func(name string) string {
		found := parseResponse(fake(t, name, exampleTXT(1), 8845, address), "", false)
		if len(found) != 1 || found[0].Addrs[0] != netip.AddrPortFrom(address, 8845) {
			return fmt.Sprintf("found %+v", found)
		}
		return found[0].Instance
	}
	for _, name := range []string{
		"Home 2.0", "St. Gallen", ".", "..", `back\slash`, `\.`, "a._bitboxbase._tcp.local.", "@", "日本語の家", strings.Repeat("ä", 31),
		strings.Repeat("x", 63), "it's \"mine\"", "C", "c",
	} {
		if got := roundTrip(name); got != name {
			t.Errorf("%q: %s", name, got)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		name := rapid.StringN(1, 30, 63).Filter(func(s string) bool { return noiseconn.CheckName(s) == nil }).Draw(t, "name")
		if got := roundTrip(name); got != name {
			t.Fatalf("%q: %s", name, got)
		}
	})
}

// Avahi compresses names: later ones point into earlier ones. Recorded with Avahi 0.8, which
// announced "Home 2.0"; the library that this package avoids refuses it.
func TestAnAnnouncementOfAvahiWithADotIsFound(t *testing.T) {
	message := appendHeader(nil, header{flags: flagResponse | flagAuthoritative, answers: 4})
	message = resource{name: serviceName, typ: typePTR, class: classInternet, ttl: 4500,
		data: append([]byte("\x08Home 2.0"), 0xc0, 12)}.append(message)
	at := len(message) - 11 // inside the instance's name
	pointer := func(b []byte, at int) []byte { return append(b, 0xc0|byte(at>>8), byte(at)) }
	record := func(typ, data string) {
		message = append(pointer(message, at), typ...)
		message = append(message, 0x80, 1, 0, 0, 0, 120, 0, byte(len(data)))
		message = append(message, data...)
	}
	record("\x00\x21", "\x00\x00\x00\x00\x22\x8d\x04base\xc0"+string(byte(12+len("_bitboxbase")+1+len("_tcp")+1)))
	host := len(message) - 7
	record("\x00\x10", string(txtData(exampleTXT(1).Strings())))
	at = host
	record("\x00\x01", "\x0a\x4d\x00\x01")
	found := parseResponse(message, "", false)
	if len(found) != 1 || found[0].Instance != "Home 2.0" || found[0].Host != "base.local" ||
		found[0].Addrs[0] != netip.MustParseAddrPort("10.77.0.1:8845") {
		t.Errorf("found %+v in %q", found, message)
	}
	var other dnsmessage.Message
	if err := other.Unpack(message); err == nil {
		t.Error("the library now reads it; this package could use it again")
	}
}

func TestEndlessNamesAreRefused(t *testing.T) {
	for what, message := range map[string][]byte{
		"a pointer to itself":   {0xc0, 0},
		"two that go round":     {0xc0, 2, 0xc0, 0},
		"one beyond the end":    {0xff, 0xff},
		"half a pointer":        {0xc0},
		"a label that is short": {5, 'a'},
		"no end":                {1, 'a'},
		"a reserved length":     {0x80, 0},
		"too long":              append(bytes.Repeat(append([]byte{63}, make([]byte, 63)...), 4), 0),
		"grows by a loop":       {1, 'a', 0xc0, 0},
	} {
		r := reader{message: message}
		if n, err := r.name(); err == nil {
			t.Errorf("%s: read as %q", what, n)
		}
	}
}

// A Base at home has many IPv6 addresses, and a forged answer can add more.
func TestManyAddressesOfOneKindLeaveRoomForOthers(t *testing.T) {
	var v6 []netip.Addr
	for n := range 17 {
		v6 = append(v6, netip.AddrFrom16([16]byte{0: 0x20, 1: 1, 15: byte(n + 1)}))
	}
	v4, local := netip.MustParseAddr("192.168.1.20"), netip.MustParseAddr("fe80::20")
	message := fake(t, "Base", exampleTXT(1), 8845, append(v6, v4, local)...)
	found := parseResponse(message, "lan0", false)
	if len(found) != 1 {
		t.Fatalf("found %+v", found)
	}
	table := newTable(nil)
	for n := range v6 { // one at a time, in a message each
		for _, f := range parseResponse(fake(t, "Base", exampleTXT(1), 8845, v6[n]), "lan0", false) {
			table.add(f)
		}
	}
	news, _ := table.add(found[0])
	for what, list := range map[string][]netip.AddrPort{"of one message": found[0].Addrs, "of many": news.Addrs} {
		for _, want := range []netip.Addr{v6[0], v4, local.WithZone("lan0")} {
			if !slices.Contains(list, netip.AddrPortFrom(want, 8845)) {
				t.Errorf("%s: %v is missing among %v", what, want, list)
			}
		}
		if len(list) > MaxAddresses {
			t.Errorf("%s: %d addresses", what, len(list))
		}
	}
}

func TestTheAppAsksForNoUnicastAnswer(t *testing.T) {
	q, ok := parseQuery(packQuery())
	if !ok || len(q.questions) != 1 || q.questions[0].class != classInternet {
		t.Errorf("it asks %+v", q)
	}
}

func TestBadNameIsNotAnnounced(t *testing.T) {
	for _, name := range []string{"", "a\nb", "\u202e", strings.Repeat("x", 64)} {
		if _, err := newService(Announcement{Instance: name, Port: 1, TXT: exampleTXT(1)}); err == nil {
			t.Errorf("%q was accepted", name)
		}
	}
}

// pionServer starts the other implementation on the private network.
func pionServer(t *testing.T, options ...mdns.ServerOption) *mdns.Conn {
	t.Helper()
	l4, err := net.ListenPacket("udp4", group4.String())
	if err != nil {
		t.Fatal(err)
	}
	l6, err := net.ListenPacket("udp6", group6.String())
	if err != nil {
		t.Fatal(err)
	}
	server, err := mdns.NewServer(ipv4.NewPacketConn(l4), ipv6.NewPacketConn(l6), options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	return server
}

func TestAnotherImplementationFindsOurAnnouncement(t *testing.T) {
	netnstest.Require(t)
	txt := exampleTXT(1)
	announce(t, Announcement{Instance: "My Base", Port: 8845, TXT: txt})
	events := make(chan mdns.ServiceEvent, 16)
	client := pionServer(t)
	client.OnServiceDiscovered(func(e mdns.ServiceEvent) {
		select {
		case events <- e:
		default:
		}
	})
	if err := client.Browse(t.Context(), ServiceType); err != nil {
		t.Fatal(err)
	}
	select {
	case e := <-events:
		var record []string
		for _, entry := range e.Instance.Text {
			record = append(record, entry.Key+"="+string(entry.Value))
		}
		if got, err := announcement.Parse(record); err != nil || got != txt {
			t.Errorf("TXT %v: %+v, %v", record, got, err)
		}
		if e.Instance.Instance != "My Base" || e.Instance.Port != 8845 {
			t.Errorf("found %+v", e)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("not found")
	}
}

func TestAnnouncementOfAnotherImplementationIsFound(t *testing.T) {
	netnstest.Require(t)
	txt := exampleTXT(1)
	var entries []mdns.TXTEntry
	for _, s := range txt.Strings() {
		key, value, _ := strings.Cut(s, "=")
		entries = append(entries, mdns.NewTXTString(key, value))
	}
	pionServer(t, mdns.WithLocalNames("other.local"), mdns.WithService(mdns.ServiceInstance{
		Instance: "Other", Service: ServiceType, Port: 8845, Text: entries,
	}))
	until(t, browse(t, BrowseOptions{}), "the other's Base", func(f Found) bool {
		return f.Instance == "Other" && f.TXT == txt && slices.Contains(f.Addrs, netip.AddrPortFrom(netnstest.IPv4.Addr(), 8845))
	})
}

func FuzzParseResponse(f *testing.F) {
	s, err := newService(Announcement{Instance: "Base", Port: 8845, TXT: exampleTXT(1)})
	if err != nil {
		f.Fatal(err)
	}
	addresses := []netip.Addr{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("fd77::1"), netip.MustParseAddr("fe80::1")}
	for _, a := range []answer{{}, {goodbye: true}, {enumeration: true}, {legacy: &query{id: 7}}} {
		f.Add(s.pack(a, addresses))
	}
	f.Add(packQuery())
	f.Fuzz(func(t *testing.T, message []byte) {
		if q, ok := parseQuery(message); ok && len(q.questions) > maxQuestions {
			t.Errorf("%d questions", len(q.questions))
		}
		for _, found := range parseResponse(message, "lan0", false) {
			if noiseconn.CheckName(found.Instance) != nil && !strings.Contains(found.Instance, `\`) ||
				strings.ContainsFunc(found.Instance, unicode.IsControl) || !isHostName(found.Host) {
				t.Errorf("handed on %q at %q", found.Instance, found.Host)
			}
			if len(found.Addrs) == 0 || len(found.Addrs) > MaxAddresses {
				t.Errorf("%d addresses", len(found.Addrs))
			}
			for _, a := range found.Addrs {
				if a.Port() == 0 || !a.Addr().IsGlobalUnicast() && !a.Addr().IsLinkLocalUnicast() || a.Addr().Is4In6() {
					t.Errorf("handed on %v", a)
				}
			}
		}
	})
}
