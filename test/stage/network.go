//go:build linux

package stage

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// The network that a Base and its attackers share. Nothing else is on it.
//
//	10.88.0.2   fd88::2        the Base
//	10.88.N.66  fd88:0:0:N::66 attacker N: another IPv4 address, another IPv6 /64
var (
	baseV4 = netip.MustParseAddr("10.88.0.2")
	baseV6 = netip.MustParseAddr("fd88::2")
)

// Prefixes that hold all of them, so that nobody needs a route.
const (
	v4Bits = "/16"
	v6Bits = "/48"
)

// dialTimeout is how long an attacker waits for a connection that a packet
// filter may swallow.
const dialTimeout = 3 * time.Second

func namespacePath(name string) string { return filepath.Join("/run/netns", name) }

// ip runs ip(8).
func ip(argv ...string) error {
	out, err := exec.Command("ip", argv...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("ip %s: %w: %s", strings.Join(argv, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}

// buildNetwork makes the Base's namespace, and one with the bridge.
func (r *run) buildNetwork() error {
	for _, namespace := range []string{r.base(), r.lan()} {
		if err := ip("netns", "add", namespace); err != nil {
			return err
		}
		if err := ip("-n", namespace, "link", "set", "lo", "up"); err != nil {
			return err
		}
	}
	// No snooping: nobody answers multicast queries before anybody asked.
	if err := ip("-n", r.lan(), "link", "add", "lan", "up", "type", "bridge", "mcast_snooping", "0"); err != nil {
		return err
	}
	return r.join(r.base(), "base", baseV4, baseV6)
}

// join connects a namespace to the bridge and gives it addresses.
func (r *run) join(namespace, port string, v4, v6 netip.Addr) error {
	for _, command := range [][]string{
		{"-n", namespace, "link", "add", "eth0", "type", "veth", "peer", "name", port, "netns", r.lan()},
		{"-n", r.lan(), "link", "set", port, "master", "lan", "up"},
		{"-n", namespace, "link", "set", "eth0", "up"},
		{"-n", namespace, "addr", "add", v4.String() + v4Bits, "dev", "eth0"},
		// Without duplicate address detection it can be used at once.
		{"-n", namespace, "addr", "add", v6.String() + v6Bits, "dev", "eth0", "nodad"},
	} {
		if err := ip(command...); err != nil {
			return err
		}
	}
	return nil
}

// Attacker is another machine on the Base's network.
type Attacker struct {
	V4, V6    netip.Addr
	namespace string
}

// Attacker returns the attacker number n, 1 to 254. Each has addresses of its own.
func (s *Stage) Attacker(n int) *Attacker {
	s.t.Helper()
	if a := s.attackers[n]; a != nil {
		return a
	}
	if n < 1 || n > 254 {
		s.t.Fatalf("there is no attacker %d; 1 to 254 can be had", n)
	}
	a := &Attacker{
		V4:        netip.AddrFrom4([4]byte{10, 88, byte(n), 66}),
		V6:        netip.AddrFrom16([16]byte{0: 0xfd, 1: 0x88, 7: byte(n), 15: 0x66}),
		namespace: s.run.attacker(n),
	}
	err := ip("netns", "add", a.namespace)
	if err == nil {
		err = ip("-n", a.namespace, "link", "set", "lo", "up")
	}
	if err == nil {
		err = s.run.join(a.namespace, fmt.Sprintf("attacker%d", n), a.V4, a.V6)
	}
	if err != nil {
		s.t.Fatalf("make attacker %d: %v", n, err)
	}
	s.attackers[n] = a
	return a
}

// Dial connects from the attacker's machine.
func (a *Attacker) Dial(network string, to netip.AddrPort) (net.Conn, error) {
	return a.DialFrom(network, 0, to)
}

// DialFrom connects from a source port of the attacker's choice; 0 is any.
func (a *Attacker) DialFrom(network string, port uint16, to netip.AddrPort) (conn net.Conn, err error) {
	dialer := net.Dialer{Timeout: dialTimeout}
	if port != 0 {
		dialer.LocalAddr = &net.TCPAddr{Port: int(port)}
	}
	inside := inNamespace(a.namespace, func() { conn, err = dialer.Dial(network, to.String()) })
	if inside != nil {
		return nil, inside
	}
	return conn, err
}

// ListenPacket opens a UDP socket on the attacker's machine.
func (a *Attacker) ListenPacket(network, address string) (conn net.PacketConn, err error) {
	inside := inNamespace(a.namespace, func() { conn, err = net.ListenPacket(network, address) })
	if inside != nil {
		return nil, inside
	}
	return conn, err
}

// Exec runs one of the host's programs on the attacker's machine.
func (a *Attacker) Exec(argv ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*Patience)
	defer cancel()
	command := exec.CommandContext(ctx, "ip", append([]string{"netns", "exec", a.namespace}, argv...)...)
	out, err := command.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("run %q on the attacker's machine: %w", argv, err)
	}
	return string(out), err
}

// Listen listens in the Base's network, in this process: for what stands in for
// a service that the stage does not have.
func (s *Stage) Listen(network, address string) (listener net.Listener, err error) {
	inside := inNamespace(s.run.base(), func() { listener, err = net.Listen(network, address) })
	if inside != nil {
		return nil, inside
	}
	return listener, err
}

// inNamespace runs f on a thread in a network namespace. Sockets that f makes
// belong to it for good. f must make them itself, not in a goroutine of its own.
func inNamespace(name string, f func()) error {
	result := make(chan error, 1)
	go func() {
		// Never unlocked: the thread ends with this goroutine, and nobody else
		// finds itself in that namespace.
		runtime.LockOSThread()
		result <- func() error {
			file, err := os.Open(namespacePath(name))
			if err != nil {
				return err
			}
			defer file.Close()
			if err := unix.Setns(int(file.Fd()), unix.CLONE_NEWNET); err != nil {
				return fmt.Errorf("enter the network namespace %s: %w", name, err)
			}
			f()
			return nil
		}()
	}()
	return <-result
}
