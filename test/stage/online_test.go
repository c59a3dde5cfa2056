//go:build linux

package stage_test

import (
	"bufio"
	_ "embed"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/BitBoxSwiss/bitbox-base/internal/helper/firewall"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/generation"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/posture"
	"github.com/BitBoxSwiss/bitbox-base/test/stage"
)

//go:embed testdata/goes.py
var goesProgram string

// A taken-over bitcoind is played by a program in its place, in its sandbox. It goes where an owner
// has let it, and nowhere else: before the signature, with it, and after it was taken back.
func TestATakenOverBitcoindGoesOnlyWhereAnOwnerLetsIt(t *testing.T) {
	t.Parallel()
	s := stage.Boot(t, stage.Config{Prepare: func(t *testing.T, root string) {
		if err := os.WriteFile(filepath.Join(root, "usr/lib/goes.py"), []byte(goesProgram), 0o644); err != nil {
			t.Fatal(err)
		}
	}})
	for _, unit := range []string{generation.FirewallUnit, "systemd-resolved.service"} {
		s.WaitActive(unit)
	}
	neighbour := s.Attacker(1)
	abroad, abroad6 := "198.51.100.7", stage.Global(9, 9).String()
	// The same network for both, so that there is a way to each address.
	for near, far := range map[string]string{"198.51.100.8": abroad, stage.Global(9, 8).String(): abroad6, "169.254.7.8": "169.254.7.7",
		"100.64.7.8": "100.64.7.7", "fe80::8": "fe80::7"} {
		if err := errors.Join(s.AddAddress(netip.MustParseAddr(near)), neighbour.AddAddress(netip.MustParseAddr(far))); err != nil {
			t.Fatal(err)
		}
	}
	s.MustExec("ip", "route", "add", "224.0.0.0/4", "dev", "eth0") // as a default route is one
	for _, port := range []string{":8333", ":53"} {
		for _, network := range []string{"tcp4", "tcp6"} {
			listener, err := neighbour.Listen(network, port)
			if err != nil {
				t.Fatal(err)
			}
			echo(t, listener)
		}
	}
	for _, address := range []string{"127.0.0.1:50001", "127.0.0.2:53", "[::1]:53"} {
		listener, err := s.Listen("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		serve(t, listener, "hello\n")
	}
	internet := []string{"tcp " + abroad + " 8333", "tcp " + abroad6 + " 8333", "tcp 127.0.0.53 53", "udp 127.0.0.53 53"}
	home := []string{"tcp " + neighbour.V4.String() + " 8333", "tcp " + neighbour.V4.String() + " 53",
		"tcp " + neighbour.V6.String() + " 8333", "tcp 169.254.7.7 8333", "tcp fe80::7%eth0 8333"}
	never := []string{
		// An address that a provider shares, other resolvers, multicast, and this machine.
		"tcp 100.64.7.7 8333",
		"udp " + neighbour.V4.String() + " 53", "udp " + neighbour.V6.String() + " 53", "udp " + abroad + " 53",
		"udp 224.0.0.251 5353", "udp 239.255.255.250 1900", "udp ff02::fb%eth0 5353",
		"tcp 127.0.0.1 50001", "tcp 127.0.0.2 53", "udp 127.0.0.2 53", "tcp ::1 53", "udp ::1 53",
	}
	sorted := func(lists ...[]string) []string {
		all := slices.Concat(lists...)
		slices.Sort(all)
		return all
	}
	var ways []string
	for _, way := range sorted(internet, home, never) {
		ways = append(ways, strings.ReplaceAll(way, " ", ","))
	}
	goes := func(name string, change func(string) string) []string {
		t.Helper()
		unit := strings.Replace(probe(services(t)[generation.ChainUnit], change), "/usr/lib/reach.py", "/usr/lib/goes.py "+
			strings.ReplaceAll(strings.Join(ways, " "), "%", "%%"), 1)
		return sorted(runProbe(t, s, name+".service", unit))
	}
	number := uint64(1)
	let := func(out ...posture.Service) {
		t.Helper()
		number++
		e := stage.Factory()
		e.Egress = out
		if err := s.Apply(number, e); err != nil {
			t.Fatal(err)
		}
		s.MustExec("systemctl", "reload", generation.FirewallUnit)
	}
	check := func(name string, want []string) {
		t.Helper()
		if d := cmp.Diff(want, goes(name, unchanged)); d != "" {
			t.Errorf("%s: it goes elsewhere (-want +got):\n%s", name, d)
		}
	}
	check("goes-unsigned", nil)
	let(posture.ServiceBitcoin)
	check("goes-online", sorted(internet))
	let(posture.ServiceBitcoin, posture.ServiceBitcoinHome)
	check("goes-both", sorted(internet, home))
	let(posture.ServiceBitcoinHome)
	check("goes-home", sorted(home))

	// A connection that it has is no way around what an owner takes back.
	let(posture.ServiceBitcoin)
	holds(t, s, abroad, func(cut func() bool) {
		let()
		s.Until("the connection ends", func() error {
			if !cut() {
				return errors.New("it goes on")
			}
			return nil
		})
	})
	check("goes-after", nil)
	// The file by which the node knows whether it is let out opens nothing, whatever is in it.
	path := filepath.Join(s.Path("/"), generation.Current(generation.LetOut))
	if text, err := os.ReadFile(path); err != nil || len(text) != 0 {
		t.Errorf("the node that stays in reads %q, %v", text, err)
	}
	if err := os.WriteFile(path, []byte(firewall.ChainUser+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	check("goes-stale", nil)
	// Without the rules for it, it does: new connections would be refused, and this one goes on.
	let(posture.ServiceBitcoin)
	holds(t, s, abroad, func(cut func() bool) {
		files, err := generation.Render(stage.Factory())
		if err != nil {
			t.Fatal(err)
		}
		rule := regexp.MustCompile(`(?m)^-A OUTPUT (-p tcp )?-m owner --uid-owner bitcoin -j REJECT .*\n`)
		broken := rule.ReplaceAllString(files[generation.IPv4Rules], "")
		if out, err := s.ExecInput(broken, "iptables-restore"); err != nil || broken == files[generation.IPv4Rules] {
			t.Fatalf("%v %s", err, out)
		}
		if cut() {
			t.Error("without the rules of the node its connection ends as well; this attack proves nothing")
		}
	})
	// Nothing but the filter keeps it from any of them, except from multicast its unit as well.
	for _, program := range []string{"iptables", "ip6tables"} {
		s.MustExec(program, "-I", "OUTPUT", "-j", "ACCEPT")
	}
	bare := goes("goes-bare", func(line string) string {
		if strings.HasPrefix(line, "IPAddress") {
			return ""
		}
		return unchanged(line)
	})
	if d := cmp.Diff(sorted(internet, home, never), bare); d != "" {
		t.Errorf("without the filter it does not go everywhere, so that this attack proves nothing (-want +got):\n%s", d)
	}
}

// echo gives back what it gets, on each connection.
func echo(t *testing.T, listener net.Listener) {
	t.Helper()
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = conn.Close() }()
				buffer := make([]byte, 1)
				for {
					if _, err := conn.Read(buffer); err != nil {
						return
					}
					if _, err := conn.Write(buffer); err != nil {
						return
					}
				}
			}()
		}
	}()
}

// holds has the node's user hold a connection while during runs. cut waits for a while, and tells
// whether nothing comes back over it.
func holds(t *testing.T, s *stage.Stage, to string, during func(cut func() bool)) {
	t.Helper()
	command, err := s.Command(t.Context(), "setpriv", "--reuid="+firewall.ChainUser, "--regid="+firewall.ChainUser, "--clear-groups",
		"python3", "-c", `
import socket, time
s = socket.create_connection(("`+to+`", 8333), 2)
s.settimeout(5)
while True:
    s.send(b"x")
    if not s.recv(1): break
    print("alive", flush=True)
    time.sleep(0.05)
`)
	if err != nil {
		t.Fatal(err)
	}
	out, err := command.StdoutPipe()
	if err == nil {
		err = command.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _, _ = command.Process.Kill(), command.Wait() }()
	alive := make(chan struct{})
	go func() {
		defer close(alive)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			alive <- struct{}{}
		}
	}()
	answers := func() bool {
		select {
		case _, ok := <-alive:
			return ok
		case <-time.After(stage.Patience):
			return false
		}
	}
	if !answers() {
		t.Fatal("the node's user gets no connection")
	}
	during(func() bool {
		// Bytes that were on their way when the rules changed do not count.
		for range 5 {
			if !answers() {
				return true
			}
		}
		return false
	})
	// The goroutine must not wait for a reader.
	go func() {
		for range alive {
		}
	}()
}
