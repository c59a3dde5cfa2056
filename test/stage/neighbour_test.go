//go:build linux

package stage_test

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/ipv4"

	"github.com/BitBoxSwiss/bitbox-base/internal/helper/firewall"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/generation"
	"github.com/BitBoxSwiss/bitbox-base/test/stage"
)

// The answers that the network around a Base needs, and that a neighbour must not spoil.

// without reloads the packet filter of the Base without the rules that contain a text,
// or with another text in its place.
func without(t *testing.T, s *stage.Stage, program, text, replacement string) {
	t.Helper()
	before := s.MustExec(program + "-save")
	var after strings.Builder
	for line := range strings.Lines(before) {
		switch {
		case !strings.Contains(line, text):
			after.WriteString(line)
		case replacement != "":
			after.WriteString(strings.Replace(line, text, replacement, 1))
		}
	}
	if after.String() == before {
		t.Fatalf("no rule has %q in it:\n%s", text, before)
	}
	if out, err := s.ExecInput(after.String(), program+"-restore"); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

// found runs our App on the attacker's machine and lists the names of the Bases that it
// finds.
func found(t *testing.T, app string, a *stage.Attacker) ([]string, error) {
	t.Helper()
	command := a.Command(t.Context(), app, "--dir", t.TempDir(), "discover", "--json", "--timeout", "3s")
	command.Env = []string{"HOME=" + t.TempDir()}
	out, err := command.Output()
	if err != nil {
		return nil, err
	}
	var list []struct {
		Name string `json:"name"`
	}
	if err := json.Unmarshal(out, &list); err != nil {
		return nil, fmt.Errorf("%w: %s", err, out)
	}
	var names []string
	for _, one := range list {
		names = append(names, one.Name)
	}
	return names, nil
}

func buildApp(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "bitbox-app")
	build := exec.Command("go", "build", "-o", path, "../../cmd/bitbox-app")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the App: %v\n%s", err, out)
	}
	return path
}

// The owner gives the Base a name with a dot in it, and has a computer whose own packet
// filter lets no mDNS in. Avahi and our App must come together all the same.
func TestAnAppFindsABaseByAnyNameAndThroughAFilterOfItsOwn(t *testing.T) {
	t.Parallel()
	s := stage.Boot(t, stage.Config{})
	s.WaitActive(generation.MDNSUnit)
	app := buildApp(t)
	plain, filtered := s.Attacker(1), s.Attacker(2)
	for _, argv := range [][]string{
		{"nft", "add", "table", "inet", "own"},
		{"nft", "add", "chain", "inet", "own", "in", "{ type filter hook input priority 0; }"},
		{"nft", "add", "rule", "inet", "own", "in", "udp", "dport", "5353", "drop"},
	} {
		if out, err := filtered.Exec(argv...); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	for _, name := range []string{"Home 2.0", "St. Gallen", `"it's \ mine."`, "日本語の家"} {
		announceBase(t, s, name)
		for what, a := range map[string]*stage.Attacker{"an App": plain, "an App behind a filter of its own": filtered} {
			s.Until(fmt.Sprintf("%s finds %q", what, name), func() error {
				names, err := found(t, app, a)
				if err != nil || len(names) != 1 || names[0] != name {
					return fmt.Errorf("it finds %q, %v", names, err)
				}
				return nil
			})
		}
	}
	// Without the rules for unicast answers the second one finds nothing.
	for _, program := range []string{"iptables", "ip6tables"} {
		without(t, s, program, "mdnsanswer", "")
	}
	if names, err := found(t, app, filtered); err != nil || len(names) != 0 {
		t.Errorf("without unicast answers it finds %q, %v; this test proves nothing", names, err)
	}
}

// announceBase announces a Base whole, as Apps read it.
func announceBase(t *testing.T, s *stage.Stage, name string) {
	t.Helper()
	file, err := generation.RenderAnnouncement(generation.Announcement{Name: name, Port: 8845,
		TXT: []string{"v=1", "n=" + strings.Repeat("0a", 16), "id=" + strings.Repeat("0b", 8), "pairing=closed"}})
	if err != nil {
		t.Fatal(err)
	}
	if out, err := s.ExecInput(file, "tee", generation.AnnouncementFile); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	s.MustExec("systemctl", "reload", generation.MDNSUnit)
}

// linkLocal is the Base's address of the link.
func linkLocal(t *testing.T, s *stage.Stage) netip.Addr {
	t.Helper()
	var address netip.Addr
	s.Until("the Base has a link-local address", func() error {
		out := s.MustExec("ip", "-6", "-o", "addr", "show", "dev", "eth0", "scope", "link")
		fields := strings.Fields(out)
		if len(fields) < 4 || strings.Contains(out, "tentative") {
			return fmt.Errorf("it has %q", out)
		}
		prefix, err := netip.ParsePrefix(fields[3])
		address = prefix.Addr()
		return err
	})
	return address
}

// A router may answer a DHCPv6 client from any of its addresses, and a neighbour who sends
// without end does not keep its answers out.
func TestADHCPv6ServerReachesTheBaseWhateverItsAddressAndItsNeighbours(t *testing.T) {
	t.Parallel()
	s := stage.Boot(t, stage.Config{})
	s.WaitActive(generation.FirewallUnit)
	client, err := s.ListenPacket("udp6", "[::]:546")
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	heard := make(chan string, 1024)
	go func() {
		for buffer := make([]byte, 1500); ; {
			n, _, err := client.ReadFrom(buffer)
			if err != nil {
				return
			}
			if text := string(buffer[:n]); text != "flood" {
				heard <- text
			}
		}
	}()
	router, neighbour := s.Attacker(1), s.Attacker(2)
	if err := router.AddAddress(stage.Global(1, 1)); err != nil {
		t.Fatal(err)
	}
	to := netip.AddrPortFrom(linkLocal(t, s).WithZone("eth0"), 546)
	open := func(a *stage.Attacker, from string) net.PacketConn {
		t.Helper()
		conn, err := a.ListenPacket("udp6", net.JoinHostPort(from, "0"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		return conn
	}
	target := func(a *stage.Attacker) net.Addr {
		t.Helper()
		link, err := a.Interface()
		if err != nil {
			t.Fatal(err)
		}
		return &net.UDPAddr{IP: to.Addr().AsSlice(), Port: int(to.Port()), Zone: fmt.Sprint(link.Index)}
	}
	global, flooding := open(router, stage.Global(1, 1).String()), open(neighbour, "::")
	answers := func(text string, within time.Duration) bool {
		for deadline := time.After(within); ; {
			if _, err := global.WriteTo([]byte(text), target(router)); err != nil {
				t.Fatal(err)
			}
			select {
			case got := <-heard:
				if got == text {
					return true
				}
			case <-time.After(200 * time.Millisecond):
			case <-deadline:
				return false
			}
		}
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	flooded := target(neighbour)
	go func() {
		for ctx.Err() == nil {
			_, _ = flooding.WriteTo([]byte("flood"), flooded)
		}
	}()
	if !answers("beside a flood", stage.Patience) {
		t.Error("a neighbour keeps the router's answers out")
	}
	stop()
	// With one limit for all, the neighbour uses it up. This one does not come back
	// within the test, so that nothing depends on who is quicker.
	without(t, s, "ip6tables", "-m hashlimit --hashlimit-upto 10/sec --hashlimit-burst 20 --hashlimit-mode srcip --hashlimit-name dhcpv6",
		"-m limit --limit 1/day --limit-burst 5")
	for range 100 {
		if _, err := flooding.WriteTo([]byte("flood"), flooded); err != nil {
			t.Fatal(err)
		}
	}
	if answers("one limit for all", 2*time.Second) {
		t.Error("with one limit for all the router is heard; this attack proves nothing")
	}
	s.MustExec("systemctl", "reload", generation.FirewallUnit)
	if !answers("again", stage.Patience) {
		t.Error("the router is not heard without the flood")
	}
	// A rule that asks for a link-local source loses the answer of such a router.
	without(t, s, "ip6tables", "-A INPUT -d fe80::/10 -p udp -m udp --dport 546",
		"-A INPUT -s fe80::/10 -d fe80::/10 -p udp -m udp --dport 546")
	if answers("link-local only", 2*time.Second) {
		t.Error("a rule for link-local sources lets others through; this test proves nothing")
	}
}

// A switch that snoops asks for the group of mDNS, and stops to forward it if nobody
// answers.
func TestTheBaseReportsTheMDNSGroupToASwitch(t *testing.T) {
	t.Parallel()
	s := stage.Boot(t, stage.Config{})
	s.WaitActive(generation.MDNSUnit)
	querier := s.Attacker(1)
	conn, err := querier.ListenPacket("ip4:igmp", "0.0.0.0")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	link, err := querier.Interface()
	if err != nil {
		t.Fatal(err)
	}
	raw := ipv4.NewPacketConn(conn)
	mdns, reports := net.IPv4(224, 0, 0, 251), net.IPv4(224, 0, 0, 22)
	err = errors.Join(raw.SetMulticastInterface(link), raw.SetMulticastTTL(1), raw.JoinGroup(link, &net.IPAddr{IP: mdns}),
		raw.JoinGroup(link, &net.IPAddr{IP: reports}))
	if err != nil {
		t.Fatal(err)
	}
	// reported asks for one group (RFC 3376, section 4.1) until the Base reports it.
	reported := func(patience time.Duration) bool {
		query := []byte{0x11, 5, 0, 0, 224, 0, 0, 251, 2, 125, 0, 0} // to be answered within half a second
		binary.BigEndian.PutUint16(query[2:], checksum(query))
		buffer := make([]byte, 1500)
		for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
			if _, err := raw.WriteTo(query, nil, &net.IPAddr{IP: mdns}); err != nil {
				t.Fatal(err)
			}
			_ = conn.SetReadDeadline(time.Now().Add(time.Second))
			for {
				n, from, err := conn.ReadFrom(buffer)
				if err != nil {
					break
				}
				// Version 2 (0x16) or 3 (0x22), with the group somewhere behind the header.
				if n >= 8 && (buffer[0] == 0x16 || buffer[0] == 0x22) && from.String() == s.V4.String() &&
					strings.Contains(string(buffer[4:n]), string(mdns.To4())) {
					return true
				}
			}
		}
		return false
	}
	// By itself it reports a group twice, after it has joined it: what is more is an answer.
	const unasked = 2
	for range unasked + 3 {
		if !reported(stage.Patience) {
			t.Fatal("it does not")
		}
	}
	// Without the rule it does not, once what was on its way has come.
	without(t, s, "iptables", "-A INPUT -d 224.0.0.251/32 -p 2 -j ACCEPT", "")
	s.Until("no report comes without the rule", func() error {
		if reported(2 * time.Second) {
			return errors.New("one came; this test proves nothing")
		}
		return nil
	})
}

// checksum is the internet's (RFC 1071) over an even number of bytes.
func checksum(b []byte) uint16 {
	sum := uint32(0)
	for i := 0; i+1 < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}

// bitcoind speaks to strangers. Taken over, it must not get at the owner's home.
func TestAServiceThatMayReachTheInternetDoesNotReachTheHome(t *testing.T) {
	t.Parallel()
	s := stage.Install(t, stage.Config{})
	policy := firewall.Policy{Entry: 8845, Egress: []firewall.Egress{{User: "games", Protocol: firewall.TCP},
		{User: "news", Protocol: firewall.TCP, Home: true}}}
	s.Start()
	s.WaitActive(generation.FirewallUnit)
	rules, err := firewall.Render(policy)
	if err != nil {
		t.Fatal(err)
	}
	for program, text := range map[string]string{"iptables-restore": rules.V4, "ip6tables-restore": rules.V6} {
		if out, err := s.ExecInput(text, program); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	neighbour := s.Attacker(1)
	abroad := netip.MustParseAddr("198.51.100.7")
	if err := errors.Join(neighbour.AddAddress(abroad), neighbour.AddAddress(stage.Global(9, 9)),
		s.AddAddress(netip.MustParseAddr("198.51.100.8")), s.AddAddress(stage.Global(9, 8))); err != nil {
		t.Fatal(err)
	}
	for _, network := range []string{"tcp4", "tcp6"} {
		listener, err := neighbour.Listen(network, ":8333")
		if err != nil {
			t.Fatal(err)
		}
		serve(t, listener, "hello\n")
	}
	connect := func(user string, to netip.Addr) error {
		_, err := s.Exec("setpriv", "--reuid="+user, "--regid=nogroup", "--clear-groups", "timeout", "2", "bash", "-c",
			"exec 3<>/dev/tcp/"+to.String()+"/8333")
		return err
	}
	check := func(user string, internet, home bool) {
		t.Helper()
		for to, want := range map[netip.Addr]bool{abroad: internet, stage.Global(9, 9): internet, neighbour.V4: home, neighbour.V6: home} {
			if err := connect(user, to); (err == nil) != want {
				t.Errorf("%s to %s: %v, want it to reach it: %t", user, to, err, want)
			}
		}
	}
	check("games", true, false)
	check("news", false, true)
	check("daemon", false, false)
	// The first of the rules that we had let it go anywhere.
	for _, program := range []string{"iptables", "ip6tables"} {
		without(t, s, program, "-j INTERNET", "-j ACCEPT")
	}
	if connect("games", neighbour.V4) != nil || connect("games", neighbour.V6) != nil {
		t.Error("without the chain for the internet it does not reach the home either; this attack proves nothing")
	}
}
